"""Rigid alignment of the images of one visit, between which the patient may have moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import SimpleITK as sitk

from NeuroCESTLib.core.progress import Progress, part, silent

from ..images.brain_mask import brain_of
from ..images.grid import WorkingGrid, grid_around, mask_corners
from ..images.modalities import TITLES
from ..images.study import BRAIN_MASK, TUMOR, StudyImages, same_grid

_COARSE_MM, _FINE_MM = 4.0, 2.5
"""Spacing of the grids on which a motion is looked for and then refined."""
_REACH_MM = 30.0
"""Distance around the brain in which the moving image is known to the search."""
_RIM_MM = 5.0
"""Distance around the brain from which samples are drawn, so that its outline counts."""
_SAMPLES = 15000
_SEED = 20
_SMALLEST_MM = {True: 1.5, False: 0.75}
"""Smallest mean motion of the brain that is corrected, for images on the grid of the reference, which somebody may have
aligned before, and for others. Smaller ones are within the error of the search."""
_TOGETHER_MM = 0.75
"""Largest distance of corresponding corners of images that are in one position."""
_MASKS = {"brain_mask": BRAIN_MASK, "tumor_labels": TUMOR, "left_out": TUMOR}
"""What each mask of a study is."""
_LEAST_GAIN = 1.01
"""Smallest mutual information after the correction, relative to that before."""


@dataclass(frozen=True)
class Coregistration:
    """The position of an image relative to the reference of its visit.

    Attributes:
        transform: Rigid map of points of the reference to points of the image (LPS mm).
        motion_mm: Mean distance by which it moves the points of the brain.
        shift_mm: Distance by which it moves the centre of the brain.
        rotation_deg: Angle of its rotation.
        information_before: Mutual information of the two images in nats, as the headers place them.
        information_after: The same with the transform.
        corrected: Whether the image was moved: only if that brings the images closer and is worth it.
    """

    transform: sitk.Euler3DTransform
    motion_mm: float
    shift_mm: float
    rotation_deg: float
    information_before: float
    information_after: float
    corrected: bool

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers for reports."""
        return {
            "motion_mm": round(self.motion_mm, 2),
            "shift_mm": round(self.shift_mm, 2),
            "rotation_deg": round(self.rotation_deg, 2),
            "mutual_information_before": round(self.information_before, 4),
            "mutual_information_after": round(self.information_after, 4),
            "corrected": self.corrected,
        }


def positioned(
    study: StudyImages, coregistered: bool, progress: Progress = silent
) -> tuple[StudyImages, sitk.Image, dict[str, Coregistration], list[str]]:
    """Find the brain of a visit, and bring its images into one position.

    Args:
        study: The visit, checked.
        coregistered: Whether its images are in one position already.
        progress: May raise to cancel.

    Returns:
        The visit with its images in one position, its brain mask (see ``images.brain_mask.brain_of``), the positions
        that its images had by modality, and warnings.
    """
    progress(0.0, "finding the brain")
    study, brain, doubts = brain_of(study)
    if coregistered or len(study.present) < 2:
        return study, brain, {}, list(doubts)
    moved, positions = coregister(study, brain, part(progress, 0.3, 0.8))
    notes = coregistration_warnings(study.name, study.reference_modality, positions)
    if notes:  # the mask may be the union of all images, and a given one may have moved with its image
        _, brain, _ = brain_of(moved)
        for what, mask in _masks_of(study).values():
            notes += mask_doubts(mask, what, study, moved)
    return moved, brain, positions, [*notes, *doubts]


def coregister(
    study: StudyImages, brain: sitk.Image, progress: Progress = silent
) -> tuple[StudyImages, dict[str, Coregistration]]:
    """Align every image of a visit rigidly to the reference, where that is seen to be necessary.

    The mutual information (Mattes et al. 2003) of the brains is maximised on a grid of 4 mm, and on one of 2.5 mm if
    the first search finds a motion. An image is only corrected if its brain moves by 1.5 mm or more on average (0.75 mm
    if it has other voxels than the reference) and the mutual information rises. Images are moved by their headers: no
    voxel is interpolated, and the given images are not changed. A given mask is moved with the image on whose grid it
    lies, see `image_of_grid`.

    Args:
        study: The visit, checked.
        brain: Brain mask in the position of the reference.
        progress: May raise to cancel.

    Returns:
        The visit with its images and masks in one position, and what was found by modality (without the reference).
    """
    images, found = dict(study.images), {}
    reference = Reference(study.reference, brain)
    others = [modality for modality in study.present if modality != study.reference_modality]
    for number, modality in enumerate(others):
        step = part(progress, number / len(others), (number + 1) / len(others))
        step(0.0, f"comparing the position of the {TITLES[modality]} image")
        found[modality] = position_of(study.images[modality], reference)
        if found[modality].corrected:
            images[modality] = _moved(study.images[modality], found[modality].transform)
    moved = replace(study, images=images)
    masks = {name: moved_with_its_image(mask, what, study, moved) for name, (what, mask) in _masks_of(study).items()}
    return replace(moved, **masks), found


def moved_with_its_image(mask: sitk.Image, what: str, study: StudyImages, moved: StudyImages) -> sitk.Image:
    """Bring a mask into the position of the images, where it lies on the grid of one that was moved.

    Args:
        mask: Mask or labels that came with the visit.
        what: ``BRAIN_MASK`` or ``TUMOR``.
        study: The visit as it was given.
        moved: The visit with its images in one position.
    """
    drawn_on = image_of_grid(mask, study, moved, what)
    if drawn_on is None or same_grid(study.images[drawn_on], moved.images[drawn_on]):
        return mask
    result = sitk.Image(mask)
    result.CopyInformation(moved.images[drawn_on])
    return result


def image_of_grid(image: sitk.Image, study: StudyImages, moved: StudyImages, what: str = BRAIN_MASK) -> str | None:
    """Return the modality of the image on whose grid a mask or map lies; None if it lies on that of no image.

    Of several images that are in one position it is the first, and the reference before all others. If they are not, a
    tumour is taken to be drawn on T1 with contrast agent where that is one of them.

    Args:
        image: Mask or map that came with the visit.
        study: The visit as it was given.
        moved: The visit with its images in one position.
        what: ``TUMOR`` for a tumour segmentation.
    """
    alike = _images_of_grid(image, study, moved)
    if what == TUMOR and "t1ce" in alike and not _together(alike, moved):
        return "t1ce"
    return alike[0] if alike else None


def mask_doubts(
    mask: sitk.Image, what: str, study: StudyImages, moved: StudyImages, title: str | None = None
) -> list[str]:
    """Return a sentence if it is not certain with which image of a visit a mask or map has to be moved.

    Args:
        mask: Mask, labels or map that came with the visit.
        what: ``BRAIN_MASK`` or ``TUMOR``, or what else it is.
        study: The visit as it was given.
        moved: The visit with its images in one position, of which at least one was moved.
        title: Its name in messages; None for that of ``what``.
    """
    alike = _images_of_grid(mask, study, moved)
    if alike and _together(alike, moved):
        return []
    images = " and ".join(TITLES[modality] for modality in alike)
    taken = TITLES[image_of_grid(mask, study, moved, what) or moved.reference_modality]
    why = f"has the voxels of {images}, which lay apart" if alike else "has the voxels of none of the images"
    return [
        f"{title or study.title(what)} {why}, so it is taken to lie on the {taken} image: if it belongs to another "
        "one, align the images before, or switch the coregistration off"
    ]


def _masks_of(study: StudyImages) -> dict[str, tuple[str, sitk.Image]]:
    """What each mask of a study is and the mask, by the name of its field."""
    masks = {name: (what, getattr(study, name)) for name, what in _MASKS.items()}
    return {name: (what, mask) for name, (what, mask) in masks.items() if mask is not None}


def _images_of_grid(image: sitk.Image, study: StudyImages, moved: StudyImages) -> list[str]:
    """Modalities of the images with the grid of another image, the reference first."""
    alike = [modality for modality in study.present if same_grid(image, study.images[modality])]
    return sorted(alike, key=lambda modality: modality != moved.reference_modality)


def _together(modalities: Sequence[str], moved: StudyImages) -> bool:
    """Whether images that had one grid still have nearly the same one."""
    corners = [_grid_corners(moved.images[modality]) for modality in modalities]
    return all(float(np.linalg.norm(other - corners[0], axis=1).max()) <= _TOGETHER_MM for other in corners[1:])


def _grid_corners(image: sitk.Image) -> np.ndarray:
    """Centres (8, 3) of the voxels at the corners of an image, LPS mm."""
    ends = [(0, n - 1) for n in image.GetSize()]
    return np.array([image.TransformIndexToPhysicalPoint((i, j, k)) for i in ends[0] for j in ends[1] for k in ends[2]])


def corrections(found: Mapping[str, Coregistration]) -> dict[str, sitk.Transform]:
    """Return the map of points of the reference to points of each image that was moved, by modality (LPS mm)."""
    return {modality: entry.transform for modality, entry in found.items() if entry.corrected}


def coregistration_warnings(name: str, reference: str, found: Mapping[str, Coregistration]) -> list[str]:
    """Return a sentence for every image that was moved.

    Args:
        name: Name of the study.
        reference: Modality of the image that the others were aligned with.
        found: Positions by modality.
    """
    return [
        f"the {TITLES[modality]} image of the {name} study lay {entry.shift_mm:.1f} mm and {entry.rotation_deg:.1f}° "
        f"from the {TITLES[reference]} image and was aligned with it: check it, or switch the coregistration off"
        for modality, entry in found.items()
        if entry.corrected
    ]


class Reference:
    """The image of a visit with which the others are aligned, and its brain."""

    def __init__(self, image: sitk.Image, brain: sitk.Image) -> None:
        """Take an image and the brain mask on its grid."""
        self.image, self.brain = image, brain
        self.corners = mask_corners(brain)
        self.center = self.corners.mean(axis=0)
        self.points = _points(brain)
        self._levels: dict[float, tuple[sitk.Image, sitk.Image]] = {}

    def at(self, spacing_mm: float) -> tuple[sitk.Image, sitk.Image]:
        """Return the image and the mask of its samples on a grid around the brain."""
        if spacing_mm not in self._levels:
            grid = grid_around(self.corners, spacing_mm, 2 * _RIM_MM, 1, self.image.GetOrigin())
            image, seen = _on_grid(self.image, grid)
            inside = grid.resample(_shrunk(sitk.Cast(self.brain != 0, sitk.sitkFloat32), spacing_mm)) >= 0.5
            rim = [max(1, round(_RIM_MM / spacing_mm))] * 3
            self._levels[spacing_mm] = image, sitk.BinaryDilate(sitk.Cast(inside, sitk.sitkUInt8), rim) & seen
        return self._levels[spacing_mm]


def position_of(image: sitk.Image, reference: Reference) -> Coregistration:
    """Find the position of an image relative to the reference of its visit; see `coregister`."""
    start = sitk.Euler3DTransform()
    start.SetCenter(reference.center.tolist())
    smallest = _SMALLEST_MM[same_grid(image, reference.image)]
    coarse = _ImagePair(image, reference, _COARSE_MM)
    before = coarse.information(start)
    transform, after = coarse.aligned(start, 2.0, 60)
    if after > before and _motion_mm(transform, reference.points) > smallest / 2:
        fine = _ImagePair(image, reference, _FINE_MM)
        before = fine.information(start)
        transform, after = fine.aligned(transform, 0.5, 40)
    motion = _motion_mm(transform, reference.points)
    shift = np.linalg.norm(np.subtract(transform.TransformPoint(reference.center.tolist()), reference.center))
    matrix = np.array(transform.GetMatrix()).reshape(3, 3)
    angle = np.degrees(np.arccos(np.clip((np.trace(matrix) - 1) / 2, -1, 1)))
    corrected = motion >= smallest and after > _LEAST_GAIN * before
    return Coregistration(transform, motion, float(shift), float(angle), before, after, corrected)


class _ImagePair:
    """An image and its reference at one resolution."""

    def __init__(self, image: sitk.Image, reference: Reference, spacing_mm: float) -> None:
        self.fixed, self.fixed_mask = reference.at(spacing_mm)
        wide = grid_around(reference.corners, spacing_mm, _REACH_MM, 1, reference.image.GetOrigin())
        self.moving, self.moving_seen = _on_grid(image, wide)
        voxels = int(np.count_nonzero(sitk.GetArrayViewFromImage(self.fixed_mask)))
        self.sampling = min(1.0, max(0.05, _SAMPLES / max(voxels, 1)))

    def information(self, transform: sitk.Euler3DTransform) -> float:
        """Return the mutual information in nats; 0 without overlap."""
        method = self._method()
        method.SetInitialTransform(transform)
        try:
            return -float(method.MetricEvaluate(self.fixed, self.moving))
        except RuntimeError:  # too few samples lie within both images
            return 0.0

    def aligned(
        self, start: sitk.Euler3DTransform, step_mm: float, iterations: int
    ) -> tuple[sitk.Euler3DTransform, float]:
        """Return the transform with the largest mutual information near a start, and that; else the start."""
        method, transform = self._method(), sitk.Euler3DTransform(start)
        method.SetInitialTransform(transform, inPlace=True)
        method.SetOptimizerAsRegularStepGradientDescent(
            learningRate=step_mm,
            minStep=0.02,
            numberOfIterations=iterations,
            relaxationFactor=0.6,
            gradientMagnitudeTolerance=1e-6,
        )
        method.SetOptimizerScalesFromPhysicalShift()
        try:
            method.Execute(self.fixed, self.moving)
        except RuntimeError:
            return start, 0.0
        return transform, self.information(transform)

    def _method(self) -> sitk.ImageRegistrationMethod:
        method = sitk.ImageRegistrationMethod()
        method.SetMetricAsMattesMutualInformation(32)
        method.SetMetricFixedMask(self.fixed_mask)
        method.SetMetricMovingMask(self.moving_seen)
        method.SetMetricSamplingStrategy(method.RANDOM)
        method.SetMetricSamplingPercentage(self.sampling, _SEED)
        method.SetInterpolator(sitk.sitkLinear)
        method.SetNumberOfWorkUnits(1)  # several would add in varying order
        return method


def _on_grid(image: sitk.Image, grid: WorkingGrid) -> tuple[sitk.Image, sitk.Image]:
    """Image with its intensities between 0 and 1, and its field of view, on a grid."""
    image = _shrunk(image, grid.spacing_mm)
    outside = float(np.finfo(np.float32).min)
    values = sitk.GetArrayFromImage(grid.resample(image, None, sitk.sitkLinear, outside))
    seen = values > outside
    low, high = np.percentile(values[seen], (0.5, 99.5)) if seen.any() else (0.0, 1.0)
    scaled = np.where(seen, np.clip((values - low) / max(float(high - low), 1e-6), 0, 1), 0).astype(np.float32)
    return grid.to_sitk(scaled), grid.to_sitk(seen.astype(np.uint8))


def _shrunk(image: sitk.Image, spacing_mm: float) -> sitk.Image:
    """Average an image over blocks that are not larger than a voxel of ``spacing_mm``."""
    factors = [max(1, int(spacing_mm / s + 0.01)) for s in image.GetSpacing()]
    return sitk.BinShrink(image, factors) if max(factors) > 1 else image


def _points(brain: sitk.Image) -> np.ndarray:
    """About 500 points (n, 3) of the brain, LPS mm."""
    voxels = np.flatnonzero(sitk.GetArrayViewFromImage(brain))
    some = np.unravel_index(voxels[:: max(1, len(voxels) // 500)], sitk.GetArrayViewFromImage(brain).shape)
    index_ijk = np.stack(some[::-1], axis=1)
    return np.array([brain.TransformContinuousIndexToPhysicalPoint(i) for i in index_ijk.astype(float).tolist()])


def _motion_mm(transform: sitk.Transform, points: np.ndarray) -> float:
    moved = np.array([transform.TransformPoint(p) for p in points.tolist()])
    return float(np.linalg.norm(moved - points, axis=1).mean())


def _moved(image: sitk.Image, transform: sitk.Euler3DTransform) -> sitk.Image:
    """Image whose header places it where the inverse of a transform takes its points."""
    back = transform.GetInverse()
    matrix = np.array(transform.GetMatrix()).reshape(3, 3).T
    moved = sitk.Image(image)
    moved.SetOrigin(back.TransformPoint(image.GetOrigin()))
    moved.SetDirection((matrix @ np.array(image.GetDirection()).reshape(3, 3)).ravel().tolist())
    return moved
