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
_MARGIN_MM = 10.0
_SEED = 20
_STARTS = 3
_LARGEST_STRETCH = 1.6
_SMALLEST_OVERLAP = 0.7
_PROMISING = 0.8
"""Share of the best mutual information among the starting points that another one needs to be optimised as well."""


@dataclass(frozen=True)
class AffineResult:
    """A linear alignment and its quality.

    Attributes:
        transform: Map from points of the fixed space to points of the moving space (LPS mm).
        mutual_information: Mutual information after the alignment.
        overlap: Dice overlap of the two brains in the common field of view.
    """

    transform: sitk.AffineTransform
    mutual_information: float
    overlap: float


@dataclass(frozen=True)
class Brain:
    """One side of an alignment.

    Attributes:
        image: Checked image.
        mask: Brain mask.
        left_out: Mask of what to leave out, such as a tumour, or None.
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

    Centres of mass are brought together. The headers' own alignment, a coarse set of rotations and the principal axes
    are compared by mutual information (Mattes et al. 2003), and the best of them are optimised at 4 mm. The best result
    is refined at 2.5 mm, first rigidly, then affinely. Sampling is seeded, and the same brains give the same transform
    to the last bit.

    Args:
        fixed: Brain of the fixed study.
        moving: Brain of the moving study.
        kind: 'rigid', 'affine' or 'none', which gives the identity.
        progress: Receives the fraction that is done; it may raise to cancel.

    Raises:
        ValueError: The result is not a plausible map between two brains, or the kind is unknown.
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
        for step_mm in (0.2, 0.05):  # larger steps may leave the basin of the rigid solution
            found, better = fine.optimize(affine, step_mm, 100, part(progress, 0.65, 1.0))
            if better < value:
                transform, value = found, better
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
    """Convert a linear transform to an AffineTransform about the origin."""
    origin = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    columns = [np.array(transform.TransformPoint(tuple(axis))) - origin for axis in np.eye(3)]
    affine = sitk.AffineTransform(3)
    affine.SetMatrix(np.stack(columns, axis=1).ravel().tolist())
    affine.SetTranslation(origin.tolist())
    return affine


class _BrainPair:
    """Both brains at one resolution, with the background at a constant value."""

    def __init__(self, fixed: Brain, moving: Brain, spacing_mm: float) -> None:
        self.fixed, self.fixed_mask, self.fixed_solid = _on_small_grid(fixed, spacing_mm)
        self.moving, self.moving_mask, self.moving_solid = _on_small_grid(moving, spacing_mm)
        # The mask includes the surroundings of the brain, so that its outline counts.
        around = sitk.BinaryDilate(self.fixed_solid, [max(1, round(5 / spacing_mm))] * 3)
        self.fixed_mask = self.fixed_mask & around
        voxels = int(np.count_nonzero(sitk.GetArrayViewFromImage(self.fixed_mask)))
        self.sampling = min(1.0, max(0.1, 20000 / max(voxels, 1)))

    def starts(self) -> list[sitk.Euler3DTransform]:
        """Return the most promising rigid starting points, best first."""
        fixed_center, fixed_axes = _moments(self.fixed_solid)
        moving_center, moving_axes = _moments(self.moving_solid)
        shift = moving_center - fixed_center
        candidates = [_rigid(np.eye(3), fixed_center, np.zeros(3))]
        steps = np.radians([-30.0, 0.0, 30.0])
        for angles in itertools.product(steps, repeat=3):
            turn = sitk.Euler3DTransform()
            turn.SetRotation(*angles)
            candidates.append(_rigid(np.array(turn.GetMatrix()).reshape(3, 3), fixed_center, shift))
        for signs in ((1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)):
            rotation = moving_axes @ np.diag(signs) @ fixed_axes.T
            candidates.append(_rigid(rotation, fixed_center, shift))
        method = self._method()
        values = []
        for candidate in candidates:
            method.SetInitialTransform(candidate)
            values.append(_evaluate(method, self.fixed, self.moving))
        order = np.argsort(values, kind="stable")[:_STARTS]
        return [candidates[n] for n in order if values[n] < 0 and values[n] <= _PROMISING * values[order[0]]] or [
            candidates[14]
        ]

    def optimize(
        self, start: sitk.Transform, step_mm: float, iterations: int, progress: Progress
    ) -> tuple[sitk.Transform, float]:
        """Return the transform of the kind of ``start`` with the largest mutual information, and minus that value."""
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
            except BaseException as error:  # a cancel, raised again below instead of through ITK
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
        method.SetNumberOfWorkUnits(1)  # several would sum in varying order, and trainings amplify the rounding
        return method


def _evaluate(method: sitk.ImageRegistrationMethod, fixed: sitk.Image, moving: sitk.Image) -> float:
    try:
        return method.MetricEvaluate(fixed, moving)
    except RuntimeError:  # too few samples overlap
        return 0.0


def _reason(error: RuntimeError) -> str:
    return str(error).strip().splitlines()[-1].split(":")[-1].strip()


def _on_small_grid(brain: Brain, spacing_mm: float) -> tuple[sitk.Image, sitk.Image, sitk.Image]:
    """Return the image with a constant background, the mask of what counts, and the brain, on a coarse RAS grid."""
    grid = grid_around(mask_corners(brain.mask), spacing_mm, _MARGIN_MM, 1, brain.image.GetOrigin())
    sigma = np.array([spacing_mm / 2 if spacing_mm > 1.2 * s else 0.0 for s in brain.image.GetSpacing()])
    image = brain.image
    if sigma.any():
        image = sitk.DiscreteGaussian(image, variance=(sigma**2).tolist(), useImageSpacing=True)
    outside = float(np.finfo(np.float32).min)
    values = sitk.GetArrayFromImage(grid.resample(image, None, sitk.sitkLinear, outside))
    seen = values > outside
    solid = _on_grid(brain.mask, grid)
    inside = seen & solid
    low, high = np.percentile(values[inside], (0.5, 99.5)) if inside.any() else (0.0, 1.0)
    width = max(float(high - low), 1e-6)
    values = np.where(inside, np.clip((values - low) / width, 0, 1), -0.25).astype(np.float32)
    counts = seen.copy()
    if brain.left_out is not None:
        counts &= ~_on_grid(brain.left_out, grid)
    return grid.to_sitk(values), grid.to_sitk(counts.astype(np.uint8)), grid.to_sitk(solid.astype(np.uint8))


def _on_grid(mask: sitk.Image, grid: WorkingGrid) -> np.ndarray:
    image = sitk.Cast(sitk.Cast(mask, sitk.sitkFloat32) != 0, sitk.sitkFloat32)
    return sitk.GetArrayFromImage(grid.resample(image)) >= 0.5


def _moments(mask: sitk.Image) -> tuple[np.ndarray, np.ndarray]:
    """Return the centre of mass (LPS mm) and the principal axes of a mask as columns, right-handed, largest first."""
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
    """Compute the Dice overlap of the brains on a coarse grid, within the common field of view."""
    grid = grid_around(mask_corners(fixed.mask), _COARSE_MM, 3 * _MARGIN_MM, 1, fixed.image.GetOrigin())
    first = _on_grid(fixed.mask, grid)
    solid = sitk.Cast(sitk.Cast(moving.mask, sitk.sitkFloat32) != 0, sitk.sitkFloat32)
    second = sitk.GetArrayFromImage(grid.resample(solid, transform)) >= 0.5
    field = sitk.Image(moving.image.GetSize(), sitk.sitkUInt8) + 1
    field.CopyInformation(moving.image)
    seen = sitk.GetArrayFromImage(grid.resample(field, transform, sitk.sitkNearestNeighbor)) > 0
    fixed_field = sitk.Image(fixed.image.GetSize(), sitk.sitkUInt8) + 1
    fixed_field.CopyInformation(fixed.image)
    seen &= sitk.GetArrayFromImage(grid.resample(fixed_field, None, sitk.sitkNearestNeighbor)) > 0
    total = int((first & seen).sum() + (second & seen).sum())
    return 2 * int((first & second & seen).sum()) / total if total else 0.0
