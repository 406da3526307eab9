"""What an anatomical image shows: head, and classes of tissue deep in the brain."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from ..grid import Grid
from ..inputs import Image
from ..sampling import coarse

WORKING_MM = 2.0
"""Spacing at which head and tissue are looked for."""
DEPTH_MM = 15.0
"""Depth under the surface of the head from which tissue counts, so that scalp, skull and meninges do not."""
_FEWEST_VOXELS = 200
_CLASSES = {"t1": ("fluid", "gray", "white"), "flair": ("fluid", "white", "gray"), "t2": ("white", "gray", "fluid")}
"""Classes of tissue from dark to bright, by the weighting of the image."""


@dataclass(frozen=True)
class Structure:
    """Head and tissue in an image, on a grid of about 2 mm.

    Attributes:
        image: The image on that grid.
        head: Head, or brain of an image without skull, bool (K, J, I).
        fluid: Cerebrospinal fluid, bool; only deep in the brain.
        white: White matter, bool; only deep in the brain.
        notes: Sentences for the user.
    """

    image: Image
    head: np.ndarray
    fluid: np.ndarray
    white: np.ndarray
    notes: tuple[str, ...] = ()


def weighting_of(name: str) -> str | None:
    """Return ``t1``, ``t2`` or ``flair`` from the name of an image; None where it does not say."""
    words = re.sub(r"[^a-z0-9]+", " ", name.lower())
    for weighting, pattern in (("flair", r"flair"), ("t2", r"\bt2|t2w"), ("t1", r"\bt1|t1w|mprage|spgr|bravo")):
        if re.search(pattern, words):
            return weighting
    return None


def structure_of(image: Image, tumor: np.ndarray | None = None, tumor_grid: Grid | None = None) -> Structure:
    """Find head, fluid and white matter.

    Intensities deep in the head and outside of the tumour are divided into three classes (Otsu). Which class is which
    follows from the weighting that the name of the image tells; without one the image is taken as T1-weighted.

    Args:
        image: Anatomical image.
        tumor: Boolean mask (K, J, I) of the tumour, which is left out.
        tumor_grid: Grid of the mask.
    """
    small = coarse(image, WORKING_MM)
    head = head_of(small.array)
    depth = depth_mm(head, small.grid)
    deep = depth >= DEPTH_MM
    if tumor is not None and tumor_grid is not None:
        from ..sampling import nearest

        points = tumor_grid.indices(small.grid.points())
        deep &= ~nearest(tumor, points).reshape(deep.shape)
    nothing = np.zeros(head.shape, bool)
    if np.count_nonzero(deep) < _FEWEST_VOXELS:
        return Structure(small, head, nothing, nothing, (f"{image.called} shows too little of the brain for tissue",))
    weighting = weighting_of(image.name)
    notes: tuple[str, ...] = ()
    if weighting is None:
        notes = (f"the name of {image.called} does not say its weighting: it is taken as T1-weighted",)
    low, high = _thresholds(small.array[deep])
    by_class = {
        name: deep & mask
        for name, mask in zip(
            _CLASSES[weighting or "t1"],
            (small.array < low, (small.array >= low) & (small.array < high), small.array >= high),
            strict=True,
        )
    }
    return Structure(small, head, by_class["fluid"], by_class["white"], notes)


def head_of(array: np.ndarray) -> np.ndarray:
    """Return the largest object of an image that is brighter than its background, without holes, bool (K, J, I)."""
    positive = array > 0
    values = array[positive] if positive.any() else array.ravel()
    bright = sitk.GetImageFromArray((array > 0.5 * _otsu(values)).astype(np.uint8))
    opened = sitk.BinaryMorphologicalOpening(bright, [min(1, (n - 1) // 2) for n in array.shape[::-1]])
    parts = sitk.RelabelComponent(sitk.ConnectedComponent(opened), sortByObjectSize=True)
    largest = sitk.GetArrayFromImage(parts) == 1
    return np.stack([_without_holes(plane) for plane in largest])


def _without_holes(plane: np.ndarray) -> np.ndarray:
    filled = sitk.BinaryFillhole(sitk.GetImageFromArray(plane.astype(np.uint8)))
    return sitk.GetArrayFromImage(filled) != 0


def _otsu(values: np.ndarray) -> float:
    clipped = np.minimum(values, np.percentile(values, 99.5)).astype(np.float32)
    otsu = sitk.OtsuThresholdImageFilter()
    otsu.Execute(sitk.GetImageFromArray(clipped.reshape(1, -1)))
    return float(otsu.GetThreshold())


def _thresholds(values: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(values, (0.5, 99.5))
    clipped = np.clip(values, low, high).astype(np.float32).reshape(1, -1)
    otsu = sitk.OtsuMultipleThresholdsImageFilter()
    otsu.SetNumberOfThresholds(2)
    otsu.Execute(sitk.GetImageFromArray(clipped))
    first, second = otsu.GetThresholds()
    return float(first), float(second)


def depth_mm(mask: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the distance of each voxel in a mask from its surface in mm; negative outside, (K, J, I).

    The border of the image is no surface: a slab is not shallow at its first and last slice.
    """
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(grid.spacing_mm.tolist())
    if not mask.any() or mask.all():
        return np.full(mask.shape, np.inf if mask.any() else -np.inf)
    return -sitk.GetArrayFromImage(
        sitk.SignedMaurerDistanceMap(image, insideIsPositive=False, squaredDistance=False, useImageSpacing=True)
    )
