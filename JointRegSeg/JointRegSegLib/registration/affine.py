"""Rigid or affine alignment of two visits by the mutual information of their brains, with SimpleITK."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from NeuroCESTLib.core.progress import Progress, part, silent

from ..images.grid import WorkingGrid, grid_around, mask_corners
from . import AFFINE_KINDS

_COARSE_MM, _FINE_MM = 4.0, 2.5
"""Spacing of the grids on which the starts are compared and the winner is refined."""
_MARGIN_MM = 10.0
"""Width of the margin that these grids leave around the brain."""
_SEED = 20
_STARTS = 3
"""Largest number of starts that are optimised."""
_PROMISING = 0.8
"""Smallest mutual information of a start that is optimised, as a share of that of the best start."""
_LARGEST_STRETCH = 1.6
"""Largest plausible singular value of the linear map; its reciprocal is the smallest one."""
_SMALLEST_OVERLAP = 0.7
"""Smallest Dice coefficient of the aligned brains with which an alignment is accepted."""


@dataclass(frozen=True)
class AffineResult:
    """A linear map between two brains, and how well it aligns them.

    Attributes:
        transform: Map of points of the fixed space to points of the moving space (LPS mm).
        mutual_information: Mutual information of the aligned brains (Mattes et al. 2003) in nats; 0 without alignment.
        overlap: Dice coefficient of the two brains within the field of view of both images.
    """

    transform: sitk.AffineTransform
    mutual_information: float
    overlap: float


@dataclass(frozen=True)
class Brain:
    """One side of a registration.

    Attributes:
        image: Scalar image whose intensities drive the alignment.
        mask: Brain as non-zero voxels.
        left_out: Voxels to be ignored, such as a tumour, as non-zero voxels; None if there are none.
        name: Name of the study in messages.
    """

    image: sitk.Image
    mask: sitk.Image
    left_out: sitk.Image | None = None
    name: str = "study"


def align(
    fixed: Brain,
    moving: Brain,
    kind: str = "affine",
    progress: Progress = silent,
) -> AffineResult:
    """Find the rigid or affine transform between two brains.

    Several starts are compared by mutual information (Mattes et al. 2003): the position given by the image headers
    and, with the centres of mass brought together, a coarse set of rotations and the alignments of the principal axes.
    The most promising starts are optimised on a grid of 4 mm. The best result is refined on a grid of 2.5 mm, first as
    a rigid and then, for an affine transform, as an affine map. The random sampling is seeded, so that the same brains
    give the same transform to the last bit.

    Args:
        fixed: Brain that defines the fixed space.
        moving: Brain to be aligned with it.
        kind: 'rigid' (6 parameters), 'affine' (12 parameters), or 'none' for the identity, which relies on the headers.
        progress: Receives the fraction that is done; it may raise to cancel.

    Returns:
        The map from the fixed to the moving space, with its mutual information and the overlap of the brains.

    Raises:
        ValueError: The kind is unknown, the brains do not overlap enough to be aligned, or the result is not a
            plausible map between two brains.
    """
    if kind not in AFFINE_KINDS:
        raise ValueError(f"affine '{kind}' is unknown; use one of {', '.join(AFFINE_KINDS)}")
    if kind == "none":
        return AffineResult(sitk.AffineTransform(3), 0.0, _overlap(fixed, moving, sitk.AffineTransform(3)))
    progress(0.0, "aligning the visits")
    coarse = _BrainPair(fixed, moving, _COARSE_MM)
    best = None
    starts = coarse.starts()
    for number, start in enumerate(starts):
        done, share = 0.4 * number / len(starts), 0.4 / len(starts)
        found, value = coarse.optimize(start, 2.0, 100, part(progress, done, done + share))
        if best is None or value < best[1]:
            best = found, value
    assert best is not None
    fine = _BrainPair(fixed, moving, _FINE_MM)
    transform, value = fine.optimize(best[0], 1.0, 60, part(progress, 0.4, 0.65))
    if kind == "affine":
        affine = sitk.AffineTransform(3)
        affine.SetCenter(transform.GetCenter())
        affine.SetMatrix(transform.GetMatrix())
        affine.SetTranslation(transform.GetTranslation())
        for step_mm in (0.2, 0.05):  # larger steps may leave the basin of attraction of the rigid solution
            found, found_value = fine.optimize(affine, step_mm, 100, part(progress, 0.65, 1.0))
            if found_value < value:
                transform, value = found, found_value
                break
    result = as_affine(transform)
    overlap = _overlap(fixed, moving, result)
    stretch = np.linalg.svd(np.array(result.GetMatrix()).reshape(3, 3), compute_uv=False)
    if overlap < _SMALLEST_OVERLAP or stretch.max() > _LARGEST_STRETCH or stretch.min() < 1 / _LARGEST_STRETCH:
        raise ValueError(
            f"the {kind} alignment of the {moving.name} study to the {fixed.name} study failed (overlap of the brains "
            f"{overlap:.2f}, stretch {stretch.min():.2f} to {stretch.max():.2f}): check the brain masks, or align the "
            "visits by hand and choose no affine alignment"
        )
    progress(1.0, "")
    return AffineResult(result, -value, overlap)


def as_affine(transform: sitk.Transform) -> sitk.AffineTransform:
    """Convert a linear transform of any class to an affine transform about the origin (LPS mm)."""
    origin = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    columns = [np.array(transform.TransformPoint(tuple(axis))) - origin for axis in np.eye(3)]
    affine = sitk.AffineTransform(3)
    affine.SetMatrix(np.stack(columns, axis=1).ravel().tolist())
    affine.SetTranslation(origin.tolist())
    return affine


class _BrainPair:
    """Both brains at one resolution, with everything else set to a constant background."""

    def __init__(self, fixed: Brain, moving: Brain, spacing_mm: float) -> None:
        self.fixed, self.fixed_mask, self.fixed_solid = _on_small_grid(fixed, spacing_mm)
        self.moving, self.moving_mask, self.moving_solid = _on_small_grid(moving, spacing_mm)
        # Samples are also drawn within 5 mm around the brain, so that its outline counts.
        dilated = sitk.BinaryDilate(self.fixed_solid, [max(1, round(5 / spacing_mm))] * 3)
        self.fixed_mask = self.fixed_mask & dilated
        voxels = int(np.count_nonzero(sitk.GetArrayViewFromImage(self.fixed_mask)))
        self.sampling = min(1.0, max(0.1, 20000 / max(voxels, 1)))

    def starts(self) -> list[sitk.Euler3DTransform]:
        """Return the most promising rigid starts, best first."""
        fixed_center, fixed_axes = _moments(self.fixed_solid)
        moving_center, moving_axes = _moments(self.moving_solid)
        shift = moving_center - fixed_center
        candidates = [_rigid(np.eye(3), fixed_center, np.zeros(3))]
        steps = np.radians([-30.0, 0.0, 30.0])
        for angles in itertools.product(steps, repeat=3):
            rotated = sitk.Euler3DTransform()
            rotated.SetRotation(*angles)
            candidates.append(_rigid(np.array(rotated.GetMatrix()).reshape(3, 3), fixed_center, shift))
        for signs in ((1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)):
            rotation = moving_axes @ np.diag(signs) @ fixed_axes.T
            candidates.append(_rigid(rotation, fixed_center, shift))
        method = self._method()
        values = []
        for candidate in candidates:
            method.SetInitialTransform(candidate)
            values.append(_evaluate(method, self.fixed, self.moving))
        order = np.argsort(values, kind="stable")[:_STARTS]
        promising = [candidates[n] for n in order if values[n] < 0 and values[n] <= _PROMISING * values[order[0]]]
        return promising or [candidates[14]]  # the one that brings the centres of mass together without a rotation

    def optimize(
        self, start: sitk.Transform, step_mm: float, iterations: int, progress: Progress
    ) -> tuple[sitk.Transform, float]:
        """Return the transform with the largest mutual information, of the class of ``start``, and its metric.

        The metric is the negative mutual information.
        """
        method = self._method()
        transform = type(start)(start)
        method.SetInitialTransform(transform, inPlace=True)
        method.SetOptimizerAsRegularStepGradientDescent(
            learningRate=step_mm,
            minStep=0.005,
            numberOfIterations=iterations,
            relaxationFactor=0.6,
            gradientMagnitudeTolerance=1e-6,
        )
        method.SetOptimizerScalesFromPhysicalShift()
        stopped: list[BaseException] = []

        def watch() -> None:
            try:
                progress(method.GetOptimizerIteration() / iterations)
            except BaseException as error:  # a cancellation, which must not pass through ITK: it is raised again below
                stopped.append(error)
                method.StopRegistration()

        method.AddCommand(sitk.sitkIterationEvent, watch)
        try:
            method.Execute(self.fixed, self.moving)
        except RuntimeError as error:
            if not stopped:
                raise ValueError(f"the brains do not overlap enough to be aligned ({_reason(error)})") from None
        if stopped:
            raise stopped[0]
        return transform, method.GetMetricValue()

    def _method(self) -> sitk.ImageRegistrationMethod:
        method = sitk.ImageRegistrationMethod()
        method.SetMetricAsMattesMutualInformation(32)
        method.SetMetricFixedMask(self.fixed_mask)
        method.SetMetricMovingMask(self.moving_mask)
        method.SetMetricSamplingStrategy(method.RANDOM)
        method.SetMetricSamplingPercentage(self.sampling, _SEED)
        method.SetInterpolator(sitk.sitkLinear)
        method.SetNumberOfWorkUnits(1)  # several would add in varying order, and training amplifies the rounding errors
        return method


def _evaluate(method: sitk.ImageRegistrationMethod, fixed: sitk.Image, moving: sitk.Image) -> float:
    try:
        return method.MetricEvaluate(fixed, moving)
    except RuntimeError:  # too few samples lie within both masks
        return 0.0


def _reason(error: RuntimeError) -> str:
    return str(error).strip().splitlines()[-1].split(":")[-1].strip()


def _on_small_grid(brain: Brain, spacing_mm: float) -> tuple[sitk.Image, sitk.Image, sitk.Image]:
    """Resample to an RAS grid around the brain: image with constant background, mask of valid voxels, brain mask."""
    grid = grid_around(mask_corners(brain.mask), spacing_mm, _MARGIN_MM, 1, brain.image.GetOrigin())
    sigma = np.array([spacing_mm / 2 if spacing_mm > 1.2 * s else 0.0 for s in brain.image.GetSpacing()])
    image = brain.image
    if sigma.any():
        image = sitk.DiscreteGaussian(image, variance=(sigma**2).tolist(), useImageSpacing=True)
    outside = float(np.finfo(np.float32).min)
    values = sitk.GetArrayFromImage(grid.resample(image, None, sitk.sitkLinear, outside))
    covered = values > outside
    solid = _on_grid(brain.mask, grid)
    inside = covered & solid
    low, high = np.percentile(values[inside], (0.5, 99.5)) if inside.any() else (0.0, 1.0)
    width = max(float(high - low), 1e-6)
    values = np.where(inside, np.clip((values - low) / width, 0, 1), -0.25).astype(np.float32)
    valid = covered.copy()
    if brain.left_out is not None:
        valid &= ~_on_grid(brain.left_out, grid)
    return grid.to_sitk(values), grid.to_sitk(valid.astype(np.uint8)), grid.to_sitk(solid.astype(np.uint8))


def _on_grid(mask: sitk.Image, grid: WorkingGrid) -> np.ndarray:
    image = sitk.Cast(sitk.Cast(mask, sitk.sitkFloat32) != 0, sitk.sitkFloat32)
    return sitk.GetArrayFromImage(grid.resample(image)) >= 0.5


def _moments(mask: sitk.Image) -> tuple[np.ndarray, np.ndarray]:
    """Return the centre of mass (LPS mm) and the principal axes (columns, right-handed, longest first) of a mask."""
    index = np.argwhere(sitk.GetArrayViewFromImage(mask) != 0)[:, ::-1]
    matrix = np.array(mask.GetDirection()).reshape(3, 3) * mask.GetSpacing()
    points = index @ matrix.T + mask.GetOrigin()
    center = points.mean(axis=0)
    _, axes = np.linalg.eigh(np.cov((points - center).T))
    axes = axes[:, ::-1]
    axes[:, 2] *= np.sign(np.linalg.det(axes))
    return center, axes


def _rigid(rotation: np.ndarray, center: np.ndarray, translation: np.ndarray) -> sitk.Euler3DTransform:
    transform = sitk.Euler3DTransform()
    transform.SetCenter(center.tolist())
    transform.SetMatrix(rotation.ravel().tolist(), 1e-6)
    transform.SetTranslation(translation.tolist())
    return transform


def _overlap(fixed: Brain, moving: Brain, transform: sitk.Transform) -> float:
    """Compute the Dice coefficient of the brains on a coarse grid, where neither image leaves anything out."""
    grid = grid_around(mask_corners(fixed.mask), _COARSE_MM, 3 * _MARGIN_MM, 1, fixed.image.GetOrigin())
    fixed_brain = _on_grid(fixed.mask, grid)
    moving_solid = sitk.Cast(sitk.Cast(moving.mask, sitk.sitkFloat32) != 0, sitk.sitkFloat32)
    moving_brain = sitk.GetArrayFromImage(grid.resample(moving_solid, transform)) >= 0.5
    covered = _considered(moving, grid, transform) & _considered(fixed, grid)
    total = int((fixed_brain & covered).sum() + (moving_brain & covered).sum())
    return 2 * int((fixed_brain & moving_brain & covered).sum()) / total if total else 0.0


def _considered(brain: Brain, grid: WorkingGrid, transform: sitk.Transform | None = None) -> np.ndarray:
    """Return the points of a grid that lie within an image and are not left out."""
    ones = sitk.Image(brain.image.GetSize(), sitk.sitkUInt8) + 1
    ones.CopyInformation(brain.image)
    shown = sitk.GetArrayFromImage(grid.resample(ones, transform, sitk.sitkNearestNeighbor)) > 0
    if brain.left_out is not None:
        left_out = sitk.Cast(sitk.Cast(brain.left_out, sitk.sitkFloat32) != 0, sitk.sitkUInt8)
        shown &= sitk.GetArrayFromImage(grid.resample(left_out, transform, sitk.sitkNearestNeighbor)) == 0
    return shown
