"""Brain mask of a study, taken from skull-stripped volumes or estimated from heads."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk

from .coverage import coverage_of, most_common_on_faces
from .grid import mask_corners
from .head_mask import brain_in_head
from .modalities import TITLES
from .study import BRAIN_MASK, StudyImages, same_grid

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
_NEARLY = 0.95
"""Share of the brain, relative to that in the image that shows most of it, with which an image can be the reference."""
_POINTS = 5000
"""Number of points of the brain by which the images are compared."""
_ON_THE_EDGE = 1e-3
"""Distance in voxels within which a voxel does not count as beyond a grid."""


@dataclass(frozen=True)
class BrainMask:
    """A brain mask and where it comes from.

    Attributes:
        mask: uint8 image on the grid of the study's reference, which is continued where other images show more of the
            brain.
        stripped: Whether it was taken from skull-stripped volumes.
        warnings: What the user should check.
        reference: Modality of the reference: that of the study if it was chosen already, or else the first image that
            reaches over nearly as much of the brain as any other.
    """

    mask: sitk.Image
    stripped: bool
    warnings: tuple[str, ...]
    reference: str


def brain_of(study: StudyImages) -> tuple[StudyImages, sitk.Image, tuple[str, ...]]:
    """Find the brain of a checked study, estimated if no mask is given, and the image whose grid the results have.

    Returns:
        The study with its chosen reference, the brain mask (see `BrainMask`), and warnings.

    Raises:
        ValueError: No brain is found, or the given mask lies beyond all images; the message names them.
    """
    found = estimate_brain_mask(study) if study.brain_mask is None else _given(study, study.brain_mask)
    notes = found.warnings
    if found.reference != study.reference_modality:
        first, chosen = TITLES[study.reference_modality], TITLES[found.reference]
        share = _share_within(_some_points(found.mask), study.reference)
        notes = (
            *notes,
            f"the {first} image of the {study.name} study reaches over only {100 * share:.0f} % of the brain, so the "
            f"results lie on the voxels of the {chosen} image",
        )
    return replace(study, chosen_reference=found.reference), found.mask, notes


def is_brain_volume(volume_ml: float) -> bool:
    """Return whether a whole brain can have a volume."""
    return SMALLEST_BRAIN_ML < volume_ml < LARGEST_BRAIN_ML


def estimate_brain_mask(study: StudyImages) -> BrainMask:
    """Find the brain mask of a checked study.

    Skull-stripped volumes have one exact value in much of the volume. Their mask is the largest connected part of what
    differs from that value in any modality, with holes filled. Otherwise the brain is estimated from the head
    (``head_mask.brain_in_head``) in the first of T1, T1ce, FLAIR and T2 that is present, with a warning; if that image
    cuts the brain off, or no brain is found in it, the others are tried too.

    Raises:
        ValueError: No brain is found; the message names the image.
    """
    stripped = _foregrounds(study.images.values())
    found = [f for f in stripped if f is not None]
    if len(found) == len(stripped):
        return _united(study, found, found, True, ())
    if found:  # one modality is stripped, others are not: its mask serves for all
        note = f"the brain mask of the {study.name} study comes from its skull-stripped images; others show the head"
        return _united(study, found, found, True, (note,))
    mask = _brain_in_heads(study)
    warning = (
        f"the brain mask of the {study.name} study was estimated from the head ({_volume_ml(mask):.0f} ml): check it, "
        "and give a brain mask if it is wrong"
    )
    return _united(study, [mask], [mask], False, (warning,))


def _given(study: StudyImages, mask: sitk.Image) -> BrainMask:
    """Bring a given mask to the grid of the reference, continued by what other images show of it."""
    identity = sitk.Transform(3, sitk.sitkIdentity)
    shown = [sitk.Resample(mask, image, identity, sitk.sitkNearestNeighbor) for image in study.images.values()]
    shown = [part for part in shown if sitk.GetArrayViewFromImage(part).any()]
    if not shown:
        raise ValueError(
            f"{study.title(BRAIN_MASK)} has no voxel within {study.title(study.reference_modality)}: give another one, "
            "or leave it out to have one estimated"
        )
    return _united(study, [mask], shown, False, _implausible_volume(study, mask))


def _implausible_volume(study: StudyImages, mask: sitk.Image) -> tuple[str, ...]:
    """Return a sentence where the volume of a given mask is not that of a brain."""
    volume_ml = _volume_ml(mask)
    if is_brain_volume(volume_ml):
        return ()
    kind = "smaller" if volume_ml < SMALLEST_BRAIN_ML else "larger"
    return (
        f"{study.title(BRAIN_MASK)} has {volume_ml:.0f} ml, {kind} than a whole brain: check that it is the brain mask "
        "of this visit",
    )


def _united(
    study: StudyImages, masks: list[sitk.Image], shown: list[sitk.Image], stripped: bool, warnings: tuple[str, ...]
) -> BrainMask:
    """Unite masks on a grid that holds the parts of the brain that the images show."""
    reference = study.chosen_reference or _reference_for(study, max(masks, key=_volume_ml))
    return BrainMask(_union(masks, _continued(study.images[reference], shown)), stripped, warnings, reference)


def _reference_for(study: StudyImages, brain: sitk.Image) -> str:
    """Modality of the first image that reaches over nearly as much of a brain as any other."""
    if all(same_grid(image, study.reference) for image in study.images.values()):
        return study.reference_modality
    points = _some_points(brain)
    shares = {modality: _share_within(points, study.images[modality]) for modality in study.present}
    return next(m for m, share in shares.items() if share >= _NEARLY * max(shares.values()))


def _some_points(mask: sitk.Image) -> np.ndarray:
    """Points (n, 3) of a mask in LPS mm, spread over all of it."""
    values = sitk.GetArrayViewFromImage(mask)
    voxels = np.flatnonzero(values)
    some = np.unravel_index(voxels[:: max(1, len(voxels) // _POINTS)], values.shape)
    return np.array([mask.TransformIndexToPhysicalPoint(i) for i in np.stack(some[::-1], axis=1).tolist()])


def _share_within(points: np.ndarray, image: sitk.Image) -> float:
    """Share of points (LPS mm) that lie within the grid of an image."""
    indices = _indices(points, image)
    return float(((indices > -0.5) & (indices < _last(image) + 0.5)).all(1).mean())


def _indices(points: np.ndarray, image: sitk.Image) -> np.ndarray:
    """Continuous indices (n, 3) along i, j and k of points (LPS mm)."""
    return np.array([image.TransformPhysicalPointToContinuousIndex(point) for point in points.tolist()])


def _last(image: sitk.Image) -> np.ndarray:
    return np.array(image.GetSize()) - 1


def _continued(image: sitk.Image, masks: list[sitk.Image]) -> sitk.Image:
    """Return an image whose grid is that of another, continued where masks have voxels beyond it."""
    beyond = [mask_corners(mask) for mask in masks if not same_grid(mask, image)]
    if not beyond:
        return image
    corners = _indices(np.concatenate(beyond), image)
    low = np.minimum(0, np.ceil(corners.min(0) + _ON_THE_EDGE)).astype(int)
    high = np.maximum(_last(image), np.floor(corners.max(0) - _ON_THE_EDGE)).astype(int)
    if not low.any() and (high == _last(image)).all():
        return image
    wide = sitk.Image((high - low + 1).tolist(), sitk.sitkUInt8)
    wide.SetSpacing(image.GetSpacing())
    wide.SetDirection(image.GetDirection())
    wide.SetOrigin(image.TransformContinuousIndexToPhysicalPoint(low.astype(float).tolist()))
    return wide


def _brain_in_heads(study: StudyImages) -> sitk.Image:
    """Brain in the first image with skull that shows nearly as much of it as any other."""
    order = [m for m in ("t1", "t1ce", "flair", "t2") if m in study.images]
    volumes, masks = [], []
    for modality in order:
        mask, certain = brain_in_head(study.images[modality])
        volumes.append(_volume_ml(mask))
        if certain and is_brain_volume(volumes[-1]):
            masks.append(mask)
            if coverage_of(study.images[modality], mask).beyond is None:
                break
    if not masks:
        raise ValueError(
            f"no brain was found in {study.title(order[0])} (estimate of {volumes[0]:.0f} ml): give a brain mask, or "
            "skull-stripped images"
        )
    return next(mask for mask in masks if _volume_ml(mask) >= _NEARLY * max(map(_volume_ml, masks)))


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
            sitk.Image(mask)
            if same_grid(mask, reference)
            else sitk.Resample(mask, reference, interpolator=sitk.sitkNearestNeighbor)
        )
        resampled.CopyInformation(reference)
        total = resampled if total is None else total | resampled
    assert total is not None
    return total


def _volume_ml(mask: sitk.Image) -> float:
    return float(np.count_nonzero(sitk.GetArrayViewFromImage(mask)) * np.prod(mask.GetSpacing()) / 1000)
