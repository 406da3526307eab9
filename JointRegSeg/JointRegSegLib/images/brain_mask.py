"""Brain mask of a study, taken from skull-stripped volumes or estimated from heads."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from .coverage import most_common_on_faces
from .head_mask import brain_in_head
from .study import StudyImages, same_grid

LARGEST_BRAIN_ML = 3000.0
"""More than any brain with its fluid, including enlarged ones such as templates, and less than a head."""
SMALLEST_BRAIN_ML = 200.0
_LARGE_ML = 2000.0
_BRAIN_SHARE = 0.55
"""A foreground of more than the former volume, of which less than this share looks like brain, is a part of a head in
air of zero. Of skull-stripped images 0.59 or more does, of heads 0.46 to 0.51."""
_CONSTANT_SHARE = 0.15
"""Share of a volume that must have one exact value for it to count as the background."""
_FACES_SHARE = 0.5
"""Share of the faces of a volume that must have that value."""


@dataclass(frozen=True)
class BrainMask:
    """A brain mask and where it comes from.

    Attributes:
        mask: uint8 image on the grid of the study's first image.
        stripped: Whether it was taken from skull-stripped volumes.
        warnings: What the user should check.
    """

    mask: sitk.Image
    stripped: bool
    warnings: tuple[str, ...] = ()


def estimate_brain_mask(study: StudyImages) -> BrainMask:
    """Find the brain mask of a checked study.

    Skull-stripped volumes have one exact value in much of the volume. Their mask is the largest connected part of what
    differs from that value in any modality, with holes filled. Otherwise the brain is estimated from the head
    (``head_mask.brain_in_head``) in the first of T1, T1ce, FLAIR and T2 that is present, with a warning.

    Raises:
        ValueError: No brain is found; the message names the image.
    """
    stripped = _foregrounds(study.images.values())
    if all(found is not None for found in stripped):
        return BrainMask(_union([f for f in stripped if f is not None], study.reference), True)
    heads = [m for m, found in zip(study.images, stripped, strict=True) if found is None]
    first = next(m for m in ("t1", "t1ce", "flair", "t2") if m in heads)
    if len(heads) < len(stripped):  # one modality is stripped, others are not: its mask serves for all
        found = [f for f in stripped if f is not None]
        return BrainMask(
            _union(found, study.reference),
            True,
            (f"the brain mask of the {study.name} study comes from its skull-stripped images; others show the head",),
        )
    mask, certain = brain_in_head(study.images[first])
    volume = _volume_ml(mask)
    if not certain or not SMALLEST_BRAIN_ML < volume < LARGEST_BRAIN_ML:
        raise ValueError(
            f"no brain was found in {study.title(first)} (estimate of {volume:.0f} ml): give a brain mask, or "
            "skull-stripped images"
        )
    warning = (
        f"the brain mask of the {study.name} study was estimated from the head ({volume:.0f} ml): check it, and give a "
        "brain mask if it is wrong"
    )
    return BrainMask(_union([mask], study.reference), False, (warning,))


def _foregrounds(images: Iterable[sitk.Image]) -> list[sitk.Image | None]:
    """Return the solid foreground of skull-stripped volumes; None for a volume with skull.

    The images of a visit are often stripped by one mask, which is then examined once.
    """
    found: list[sitk.Image | None] = []
    before: np.ndarray | None = None
    for image in images:
        values = sitk.GetArrayViewFromImage(image)
        background, share = most_common_on_faces(values)
        foreground = values != background
        if 1 - foreground.mean() < _CONSTANT_SHARE or share < _FACES_SHARE:
            found.append(None)
        else:
            if before is not None and np.array_equal(foreground, before) and found[-1] is not None:
                solid = sitk.Image(found[-1])
            else:
                solid = solid_part(sitk.GetImageFromArray(_with_missing_planes(foreground.copy()).astype(np.uint8)))
            solid.CopyInformation(image)
            found.append(None if _is_head(image, solid) else solid)
        before = foreground
    return found


def _is_head(image: sitk.Image, foreground: sitk.Image) -> bool:
    """Whether the solid foreground of an image is that of a head, or of a slab of one."""
    volume = _volume_ml(foreground)
    if volume <= _LARGE_ML:
        return False
    return volume >= LARGEST_BRAIN_ML or _volume_ml(brain_in_head(image)[0]) < _BRAIN_SHARE * volume


def _with_missing_planes(foreground: np.ndarray) -> np.ndarray:
    """Fill empty planes (missing slices) between others by what the planes on both sides have in common."""
    for axis in range(3):
        filled = np.flatnonzero(foreground.any(axis=tuple(a for a in range(3) if a != axis)))
        for before, after in itertools.pairwise(filled.tolist()):
            if after - before > 1:
                planes = np.moveaxis(foreground, axis, 0)
                planes[before + 1 : after] = planes[before] & planes[after]
    return foreground


def solid_part(mask: sitk.Image) -> sitk.Image:
    """Return the largest connected part of a mask with its holes filled, uint8."""
    parts = sitk.RelabelComponent(sitk.ConnectedComponent(mask), sortByObjectSize=True)
    return sitk.BinaryFillhole(sitk.Cast(parts == 1, sitk.sitkUInt8), foregroundValue=1)


def _union(masks: list[sitk.Image], reference: sitk.Image) -> sitk.Image:
    total: sitk.Image | None = None
    for mask in masks:
        resampled = (
            mask
            if same_grid(mask, reference)
            else sitk.Resample(mask, reference, interpolator=sitk.sitkNearestNeighbor)
        )
        resampled.CopyInformation(reference)
        total = resampled if total is None else total | resampled
    assert total is not None
    return total


def _volume_ml(mask: sitk.Image) -> float:
    return float(np.count_nonzero(sitk.GetArrayViewFromImage(mask)) * np.prod(mask.GetSpacing()) / 1000)
