"""Volumes of tumour compartments and regions, their intervals, and their change between two visits."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import SimpleITK as sitk
from torch import Tensor

from ..images.labels import CLASSES, REGIONS
from .settings import RegionVolume, VolumeChange

VOLUME_REGIONS: dict[str, tuple[int, ...]] = {
    **{name: (number,) for number, name in enumerate(CLASSES) if number},
    **{name: classes for name, classes in REGIONS.items() if len(classes) > 1},
}
"""The compartments, each one class, and the regions that join them."""
SHOWN_BY: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("necrotic_core", "enhancing_tumor", "tumor_core"), ("t1ce",)),
    **dict.fromkeys(("edema", "whole_tumor"), ("flair", "t2")),
}
"""Modalities of which a study needs one for a region to be more than a guess of the network."""


def guessed_regions(present: Collection[str]) -> tuple[str, ...]:
    """Regions that a network cannot see in a study with these modalities."""
    return tuple(region for region in VOLUME_REGIONS if not set(SHOWN_BY[region]) & set(present))


def voxel_ml(image: sitk.Image) -> float:
    """Volume of a voxel in ml."""
    return float(np.prod(image.GetSpacing())) / 1000


def region_volumes(labels: sitk.Image, study: str, counts: Tensor | None = None) -> tuple[RegionVolume, ...]:
    """Volume of every region in a label image.

    counts: (variant, class) voxels of the test-time variants. The spread of a region over the variants, relative to
    their mean, gives the interval around the volume; the volume itself always lies inside. None leaves it out.
    """
    native = np.bincount(sitk.GetArrayViewFromImage(labels).ravel(), minlength=len(CLASSES))
    rows = []
    for name, classes in VOLUME_REGIONS.items():
        volume = float(native[list(classes)].sum()) * voxel_ml(labels)
        low = high = None
        if counts is not None and len(counts) > 1:
            spread = counts[:, list(classes)].sum(1).double()
            mean = float(spread.mean())
            low = min(volume, volume * float(spread.min()) / mean) if mean else volume
            high = max(volume, volume * float(spread.max()) / mean) if mean else volume
        rows.append(RegionVolume(study, name, volume, low, high))
    return tuple(rows)


def volume_changes(
    fixed: tuple[RegionVolume, ...],
    moving: tuple[RegionVolume, ...],
    fixed_labels: sitk.Image | None,
    warped_labels: sitk.Image | None,
    jacobian: sitk.Image,
    guessed: Collection[str] = (),
) -> tuple[VolumeChange, ...]:
    """Change of every region from the fixed to the moving study; empty where neither was segmented.

    warped_labels and jacobian lie on the grid of the fixed study. guessed: regions that one of the studies does not
    show, whose change is left out.
    """
    before, after = ({row.region: row for row in rows} for rows in (fixed, moving))
    if not before and not after:
        return ()
    rows = []
    for name, classes in VOLUME_REGIONS.items():
        first, last = before.get(name), after.get(name)
        change = low = high = percent = None
        if first is not None and last is not None and name not in guessed:
            change = last.volume_ml - first.volume_ml
            percent = 100 * change / first.volume_ml if first.volume_ml else None
            if first.low_ml is not None and last.low_ml is not None:
                low, high = last.low_ml - first.high_ml, last.high_ml - first.low_ml
        known = [None if row is None else row.volume_ml for row in (first, last)]
        warped = None if warped_labels is None else _volume(warped_labels, classes)
        deformed = None if fixed_labels is None else _volume(fixed_labels, classes, jacobian)
        rows.append(VolumeChange(name, *known, change, percent, low, high, warped, deformed))
    return tuple(rows)


def without_islands(labels: sitk.Image, smallest_ml: float) -> sitk.Image:
    """Labels without the connected parts of the whole tumour below ``smallest_ml``; the largest part always stays."""
    array = sitk.GetArrayFromImage(labels)
    where = np.argwhere(array)
    if not smallest_ml or not len(where):
        return labels
    box = tuple(slice(int(a), int(b) + 1) for a, b in zip(where.min(0), where.max(0), strict=True))
    parts = sitk.RelabelComponent(
        sitk.ConnectedComponent(sitk.GetImageFromArray((array[box] > 0).astype(np.uint8)), True), sortByObjectSize=True
    )
    numbered = sitk.GetArrayFromImage(parts)
    sizes = np.bincount(numbered.ravel())
    kept = sizes * voxel_ml(labels) >= smallest_ml
    kept[0], kept[1] = False, True
    array[box] = np.where(kept[numbered], array[box], 0)
    cleaned = sitk.GetImageFromArray(array)
    cleaned.CopyInformation(labels)
    return cleaned


def _volume(labels: sitk.Image, classes: tuple[int, ...], weights: sitk.Image | None = None) -> float:
    inside = np.isin(sitk.GetArrayViewFromImage(labels), classes)
    if weights is None:
        return float(inside.sum()) * voxel_ml(labels)
    return float(sitk.GetArrayViewFromImage(weights)[inside].sum(dtype=np.float64)) * voxel_ml(labels)
