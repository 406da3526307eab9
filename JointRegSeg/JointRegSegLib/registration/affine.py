"""Rigid or affine alignment of two visits by the mutual information of their brains, the same in both directions."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import torch

from NeuroCESTLib.core.messages.input_errors import InputError
from NeuroCESTLib.core.progress import Progress, part, silent
from NeuroCESTLib.core.threads import torch_threads

from ..images.brain_mask import is_brain_volume
from ..images.grid import WorkingGrid, grid_around, mask_corners
from ..images.study import BRAIN_MASK, input_title
from . import AFFINE_KINDS
from .halfway import OUTSIDE, HalfwaySpace, Side, rotation_matrix

_COARSE_MM, _FINE_MM = 4.0, 2.5
"""Spacing of the grids on which the starts are compared and the winner is refined."""
_MARGIN_MM = 10.0
"""Width of the margin that these grids leave around the brain."""
_SURROUNDINGS_MM = 5.0
"""Distance from the brain to which its surroundings count, so that its outline does."""
_STARTS = 3
"""Largest number of starts that are optimised."""
_PROMISING = 0.8
"""Smallest mutual information of a start that is optimised, as a share of that of the best start."""
_COMPARED_MM = 6.0
"""Distance between the points at which the starts are compared."""
_LARGEST_STRETCH = 1.6
"""Largest plausible singular value of the linear map; its reciprocal is the smallest one."""
_SMALLEST_OVERLAP = 0.7
"""Smallest Dice coefficient of the aligned brains with which an alignment is accepted."""


@dataclass(frozen=True)
class AffineResult:
    """A linear map between two brains, and how well it aligns them.

    Attributes:
        transform: Map of points of the fixed space to points of the moving space (LPS mm).
        mutual_information: Mutual information of the aligned brains in nats; 0 without alignment.
        overlap: Dice coefficient of the two brains within the field of view of both images.
        notes: Sentences for the user.
    """

    transform: sitk.AffineTransform
    mutual_information: float
    overlap: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Brain:
    """One side of a registration.

    Attributes:
        image: Scalar image whose intensities drive the alignment.
        mask: Brain as non-zero voxels.
        left_out: Voxels to be ignored, such as a tumour, as non-zero voxels; None if there are none.
        name: Name of the study in messages.
        mask_title: Name in messages of a brain mask that was given; None for an estimated one.
    """

    image: sitk.Image
    mask: sitk.Image
    left_out: sitk.Image | None = None
    name: str = "study"
    mask_title: str | None = None

    @property
    def volume_ml(self) -> float:
        """Volume of the brain in ml."""
        voxels = np.count_nonzero(sitk.GetArrayViewFromImage(self.mask))
        return float(voxels * np.prod(self.mask.GetSpacing()) / 1000)

    @property
    def mask_in_words(self) -> str:
        """The brain mask in messages, with its volume."""
        return f"{self.mask_title or input_title(BRAIN_MASK, self.name)} ({self.volume_ml:.0f} ml)"


def align(
    fixed: Brain,
    moving: Brain,
    kind: str = "affine",
    progress: Progress = silent,
) -> AffineResult:
    """Find the rigid or affine transform between two brains.

    Several starts are compared by mutual information: the position given by the image headers and, with the centres of
    mass brought together, a coarse set of rotations and the alignments of the principal axes. The most promising starts
    are optimised on a grid of 4 mm. The best result is refined on a grid of 2.5 mm, first as a rigid and then, for an
    affine transform, as an affine map. All this takes place in the space half-way between the brains (see ``halfway``):
    an exchange of fixed and moving gives the inverse map, and a brain is aligned with itself by the identity. The same
    brains give the same transform to the last bit, with any number of threads: sums over points are made in one thread,
    as rounding would otherwise decide where the optimiser stops.

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
    with torch_threads(1):
        result, value = _optimal(fixed, moving, kind, progress)
    overlap = _overlap(fixed, moving, result)
    stretch = np.linalg.svd(np.array(result.GetMatrix()).reshape(3, 3), compute_uv=False)
    if overlap < _SMALLEST_OVERLAP or stretch.max() > _LARGEST_STRETCH or stretch.min() < 1 / _LARGEST_STRETCH:
        wrong = next((b for b in (fixed, moving) if not is_brain_volume(b.volume_ml)), moving)
        raise InputError(
            wrong.name,
            f"the {kind} alignment of the {moving.name} study to the {fixed.name} study failed (overlap of the brains "
            f"{overlap:.2f}, stretch {stretch.min():.2f} to {stretch.max():.2f}): check {fixed.mask_in_words} and "
            f"{moving.mask_in_words}, or align the visits by hand and choose no affine alignment",
        )
    progress(1.0, "")
    return AffineResult(result, value, overlap)


def _optimal(fixed: Brain, moving: Brain, kind: str, progress: Progress) -> tuple[sitk.AffineTransform, float]:
    """Return the best map, and its mutual information."""
    sides = _side(fixed, _COARSE_MM), _side(moving, _COARSE_MM)
    starts = _promising_starts(*sides)
    found = []
    for number, start in enumerate(starts):
        space = HalfwaySpace(*sides, start, _COARSE_MM)
        share = 0.4 / len(starts)
        rigid, value = space.optimize([0.0] * 6, 40, _steps(part(progress, share * number, share * (number + 1)), 60))
        found.append((value, start, rigid))
    _, start, parameters = max(found, key=lambda entry: entry[0])
    space = HalfwaySpace(_side(fixed, _FINE_MM), _side(moving, _FINE_MM), start, _FINE_MM)
    parameters, value = space.optimize(parameters, 30, _steps(part(progress, 0.4, 0.6), 40))
    if kind == "affine":
        for low, high in ((0.6, 0.8), (0.8, 1.0)):  # twice, as the points in both fields of view are chosen anew
            start_of_affine = [*parameters, *[0.0] * (12 - len(parameters))]
            parameters, value = space.optimize(start_of_affine, 40, _steps(part(progress, low, high), 60))
    return _transform(space.map_at(parameters)), value


def as_affine(transform: sitk.Transform) -> sitk.AffineTransform:
    """Convert a linear transform of any class to an affine transform about the origin (LPS mm)."""
    origin = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    columns = [np.array(transform.TransformPoint(tuple(axis))) - origin for axis in np.eye(3)]
    affine = sitk.AffineTransform(3)
    affine.SetMatrix(np.stack(columns, axis=1).ravel().tolist())
    affine.SetTranslation(origin.tolist())
    return affine


def _promising_starts(fixed: Side, moving: Side) -> list[np.ndarray]:
    """Return the most promising rigid starts (4, 4) relative to the centres of the brains, best first."""
    by_headers = np.eye(4)
    by_headers[:3, 3] = fixed.center_mm - moving.center_mm
    rotations = []
    for angles in itertools.product(np.radians([-30.0, 0.0, 30.0]), repeat=3):
        rotations.append(rotation_matrix(np.array(angles), float(np.linalg.norm(angles))))
    for signs in ((1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)):
        rotations.append(moving.axes @ np.diag(signs) @ fixed.axes.T)
    apart = np.linalg.norm(by_headers[:3, 3]) > np.linalg.norm(fixed.reach_mm) + np.linalg.norm(moving.reach_mm)
    candidates = [] if apart else [by_headers]  # brains far apart share nothing, and the lattice would span the gap
    for rotation in rotations:
        candidates.append(np.eye(4))
        candidates[-1][:3, :3] = rotation
    values = np.array([HalfwaySpace(fixed, moving, c, _COMPARED_MM).mutual_information([0.0] * 6) for c in candidates])
    order = np.argsort(-values, kind="stable")[:_STARTS]
    promising = [candidates[n] for n in order if values[n] > 0 and values[n] >= _PROMISING * values[order[0]]]
    return promising or [np.eye(4)]  # brings the centres of mass together without a rotation


def _steps(progress: Progress, planned: int) -> Callable[[int], None]:
    """Return a function that reports a number of evaluations of about as many as planned."""
    return lambda done: progress(min(1.0, done / planned))


def _transform(matrix: np.ndarray) -> sitk.AffineTransform:
    affine = sitk.AffineTransform(3)
    affine.SetMatrix(matrix[:3, :3].ravel().tolist())
    affine.SetTranslation(matrix[:3, 3].tolist())
    return affine


def _side(brain: Brain, spacing_mm: float) -> Side:
    """Average a brain over blocks of about ``spacing_mm``, with everything else set to a constant background."""
    image = _in_blocks(brain.image, spacing_mm)
    share = sitk.GetArrayFromImage(_share_of(brain.mask, image, spacing_mm))
    solid = share >= 0.5
    if not solid.any():
        raise InputError(
            brain.name, f"the brain mask of the {brain.name} study lies outside of its image: give another mask"
        )
    values = sitk.GetArrayFromImage(image)
    low, high = np.percentile(values[solid], (0.5, 99.5))
    values = np.clip((values - low) / max(float(high - low), 1e-6), 0, 1)
    values = _smoothed(share * values + (1 - share) * OUTSIDE)
    valid = np.ones_like(values)
    if brain.left_out is not None:
        valid[sitk.GetArrayFromImage(_share_of(brain.left_out, image, spacing_mm)) >= 0.5] = 0
    radius = [max(1, round(_SURROUNDINGS_MM / spacing)) for spacing in image.GetSpacing()]
    near = sitk.GetArrayFromImage(sitk.BinaryDilate(sitk.GetImageFromArray(solid.astype(np.uint8)), radius))
    index = np.argwhere(solid)
    start = np.maximum(index.min(axis=0) - [round(_MARGIN_MM / s) for s in image.GetSpacing()[::-1]], 0)
    stop = np.minimum(index.max(axis=0) + [1 + round(_MARGIN_MM / s) for s in image.GetSpacing()[::-1]], solid.shape)
    box = tuple(slice(int(first), int(last)) for first, last in zip(start, stop, strict=True))
    maps = np.stack([np.pad(m[box], 1, constant_values=v) for m, v in ((values, OUTSIDE), (valid, 1), (near, 0))])
    for axis in range(3):  # beyond the field of view nothing is known
        for face, reached in ((0, start[axis] == 0), (-1, stop[axis] == solid.shape[axis])):
            if reached:
                np.moveaxis(maps[1], axis, 0)[face] = 0
    to_points = np.eye(4)
    to_points[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    to_points[:3, 3] = image.TransformContinuousIndexToPhysicalPoint([float(n) - 1 for n in start[::-1]])
    points = (index - start + 1)[:, ::-1] @ to_points[:3, :3].T + to_points[:3, 3]
    center = points.mean(axis=0)
    _, axes = np.linalg.eigh(np.cov((points - center).T))
    axes = axes[:, ::-1]
    axes[:, 2] *= np.sign(np.linalg.det(axes))
    reach = np.abs(points - center).max(axis=0) + _SURROUNDINGS_MM + spacing_mm
    return Side(torch.from_numpy(maps.astype(np.float32))[None], np.linalg.inv(to_points), center, reach, axes)


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Average neighbours with weights 1, 2, 1 along each axis, so that interpolation hardly blurs any further.

    Without this, points at voxel centres are sharper than points between them, which attracts the alignment to maps
    that bring voxels onto voxels.
    """
    for axis in range(3):
        wide = np.pad(values, [(int(a == axis),) * 2 for a in range(3)], mode="edge")
        low, middle, high = (np.moveaxis(wide, axis, 0)[s] for s in (slice(-2), slice(1, -1), slice(2, None)))
        values = np.moveaxis((low + 2 * middle + high) / 4, 0, axis)
    return values


def _in_blocks(image: sitk.Image, spacing_mm: float) -> sitk.Image:
    """Average an image over the largest blocks of voxels that are no longer than ``spacing_mm``."""
    blocks = [max(1, int(spacing_mm / spacing + 1e-3)) for spacing in image.GetSpacing()]
    return image if max(blocks) == 1 else sitk.BinShrink(image, blocks)


def _share_of(mask: sitk.Image, like: sitk.Image, spacing_mm: float) -> sitk.Image:
    """Return the share of each voxel of ``like`` that lies inside a mask."""
    return sitk.Resample(_in_blocks(_as_float(mask), spacing_mm), like)


def _as_float(mask: sitk.Image) -> sitk.Image:
    return sitk.Cast(mask != 0, sitk.sitkFloat32)


def _on_grid(mask: sitk.Image, grid: WorkingGrid) -> np.ndarray:
    return sitk.GetArrayFromImage(grid.resample(_as_float(mask))) >= 0.5


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
