"""Conversion of displacements on the working grid to transforms of SimpleITK (LPS mm), and results on native grids."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import torch
import torch.nn.functional as F
from torch import Tensor

from ..images.grid import WorkingGrid
from .deformation import Deformation, compose, invert_displacement, jacobian_determinant, resize_displacement, warp

_LARGEST_PAD = 24
_BLOCKS = (4, 2)
_BLOCK_ERROR = 0.02
"""Largest change in voxels that is accepted where a field is stored for blocks of voxels."""


@dataclass(frozen=True)
class PairTransform:
    """The map between two studies and its inverse.

    Attributes:
        moving_to_fixed: Map x ↦ affine(x + u(x)) from points of the fixed space to points of the moving space (LPS mm),
            so that ``sitk.Resample(moving, fixed, moving_to_fixed)`` is the warped image.
        fixed_to_moving: Its inverse, which applies the inverse of the affine first.
        affine: Linear part.
        grid: Grid of the displacement u.
        displacement: Displacement u (1, 3, D, H, W) in voxels of that grid. It is zero on the border of the grid, so
            that the affine alone remains beyond it, both in ITK and in VTK.
    """

    moving_to_fixed: sitk.CompositeTransform
    fixed_to_moving: sitk.CompositeTransform
    affine: sitk.AffineTransform
    grid: WorkingGrid
    displacement: Tensor


def pair_transform(deformation: Deformation, grid: WorkingGrid, affine: sitk.AffineTransform) -> PairTransform:
    """Build the transforms of a deformation on the working grid that was found after an affine alignment.

    The fields are continued beyond the working grid, where they fade to zero. Inside they are as given, except that a
    few steps bring the inverse nearer to that of the interpolated map. Networks with a stride and the refinement at
    half resolution give fields that were interpolated from blocks of two or four voxels. These are stored for the
    blocks, which changes them by at most 0.02 voxels and saves most of the size; their inverse is stored for blocks of
    two.

    Args:
        deformation: Deformation of one pair; without an inverse, that is computed.
        grid: The working grid.
        affine: Map from points of the fixed space to points of the moving space (LPS mm).

    Raises:
        ValueError: The displacement does not have the shape of the grid.
    """
    forward = deformation.displacement.detach().float().cpu()
    if forward.shape != (1, 3, *grid.shape):
        raise ValueError(f"the displacement has shape {tuple(forward.shape)}, its grid {grid.shape}")
    small, factor = _in_blocks(forward)
    field, field_grid = _faded(small, grid.coarser(factor))
    if deformation.inverse is None:  # that of the wider field is right at the border of the working grid too
        inverse, inverse_grid = invert_displacement(field), field_grid
    else:
        inverse = nearer_inverse(forward, deformation.inverse.detach().float().cpu())
        inverse = inverse if factor == 1 else resize_displacement(inverse, [n // 2 for n in grid.shape])
        inverse, inverse_grid = _faded(inverse, grid.coarser(min(factor, 2)))
    return PairTransform(
        _composite(affine, displacement_transform(field[0], field_grid)),
        _composite(displacement_transform(inverse[0], inverse_grid), affine.GetInverse()),
        affine,
        field_grid,
        field,
    )


def nearer_inverse(displacement: Tensor, inverse: Tensor, steps: int = 2, enough: float = 0.02) -> Tensor:
    """Improve the inverse of a map by steps that correct its inverse consistency error.

    With the error e(x) = W(x) + u(W(x)) − x of the inverse W, W(x − e) is the inverse to second order. A voxel keeps
    its value where a step does not help.

    Args:
        displacement: Displacement (1, 3, D, H, W) of the map in voxels.
        inverse: Approximate displacement of its inverse, of the same shape.
        steps: Largest number of steps.
        enough: Largest error in voxels at which the steps end.

    Returns:
        Improved displacement of the inverse, of the same shape.
    """
    error = compose(inverse, displacement)
    length = torch.linalg.vector_norm(error, dim=1, keepdim=True)
    for _ in range(steps):
        if float(length.amax()) < enough:
            break
        candidate = warp(inverse, -error) - error
        changed = compose(candidate, displacement)
        shorter = torch.linalg.vector_norm(changed, dim=1, keepdim=True)
        better = shorter < length
        inverse = torch.where(better, candidate, inverse)
        error, length = torch.where(better, changed, error), torch.minimum(shorter, length)
    return inverse


def displacement_transform(displacement: Tensor, grid: WorkingGrid) -> sitk.DisplacementFieldTransform:
    """Build the transform x ↦ x + u(x) in LPS mm of a displacement (3, D, H, W) in voxels along D, H, W."""
    return sitk.DisplacementFieldTransform(displacement_image(displacement, grid))


def displacement_image(displacement: Tensor, grid: WorkingGrid) -> sitk.Image:
    """Convert a displacement (3, D, H, W) in voxels to a vector image (LPS mm) in double, as transforms need it."""
    up, front, right = displacement.detach().cpu().numpy()
    field = np.empty((*grid.shape, 3), dtype=np.float64)
    np.multiply(right, -grid.spacing_mm, out=field[..., 0])
    np.multiply(front, -grid.spacing_mm, out=field[..., 1])
    np.multiply(up, grid.spacing_mm, out=field[..., 2])
    return grid.to_sitk(field)


def displacement_of(image: sitk.Image) -> Tensor:
    """Convert a vector image (LPS mm) on an RAS grid to a displacement (3, D, H, W) in voxels."""
    left, back, up = np.moveaxis(sitk.GetArrayViewFromImage(image), -1, 0)
    spacing = image.GetSpacing()[0]
    return torch.from_numpy(np.stack([up / spacing, -back / spacing, -left / spacing]).astype(np.float32))


def jacobian_image(transform: PairTransform, native: sitk.Image) -> sitk.Image:
    """Compute the Jacobian determinant of ``moving_to_fixed`` at the voxels of a native image, in single precision.

    It is the volume in the moving space of a unit volume of the fixed space, with the linear part included.
    """
    linear = abs(np.linalg.det(np.array(transform.affine.GetMatrix()).reshape(3, 3)))
    values = jacobian_determinant(transform.displacement)[0, 0] * linear
    image = transform.grid.to_sitk(values)
    identity = sitk.Transform(3, sitk.sitkIdentity)
    return sitk.Resample(image, native, identity, sitk.sitkLinear, float(linear), sitk.sitkFloat32)


def warp_image(
    moving: sitk.Image, fixed: sitk.Image, transform: sitk.Transform, outside: float | None = None
) -> sitk.Image:
    """Resample the moving image to the grid of the fixed one, linearly.

    Args:
        moving: Moving image.
        fixed: Image whose grid is used.
        transform: Map from points of the fixed space to points of the moving space (LPS mm).
        outside: Value beyond the field of view of the moving image; None for its lowest value.
    """
    if outside is None:
        outside = float(sitk.GetArrayViewFromImage(moving).min())
    return sitk.Resample(moving, fixed, transform, sitk.sitkLinear, outside)


def warp_label_image(moving: sitk.Image, fixed: sitk.Image, transform: sitk.Transform) -> sitk.Image:
    """Resample labels to the grid of the fixed image as one-hot images, linearly; the largest share wins (uint8)."""
    values = [int(v) for v in np.unique(sitk.GetArrayViewFromImage(moving)) if v]
    background = sitk.GetArrayFromImage(_share(moving == 0, fixed, transform, 1.0))
    winner = np.zeros(background.shape, dtype=np.uint8)
    for value in values:
        share = sitk.GetArrayFromImage(_share(moving == value, fixed, transform, 0.0))
        better = share > background
        winner[better] = value
        np.maximum(background, share, out=background)
    image = sitk.GetImageFromArray(winner)
    image.CopyInformation(fixed)
    return image


def _share(part: sitk.Image, fixed: sitk.Image, transform: sitk.Transform, outside: float) -> sitk.Image:
    return sitk.Resample(sitk.Cast(part, sitk.sitkFloat32), fixed, transform, sitk.sitkLinear, outside)


def _composite(outer: sitk.Transform, inner: sitk.Transform) -> sitk.CompositeTransform:
    """Return x ↦ outer(inner(x)); SimpleITK applies the transform that was added last first."""
    return sitk.CompositeTransform([outer, inner])


def _in_blocks(field: Tensor) -> tuple[Tensor, int]:
    """Return the field on the largest blocks of voxels from which interpolation restores it, and their edge."""
    full = field.shape[2:]
    for factor in _BLOCKS:
        if any(n % factor for n in full):
            continue
        size = [n // factor for n in full]
        result = resize_displacement(field, size)
        last = math.inf
        while True:  # averaging over blocks smooths the field; the difference is added
            missing = field - resize_displacement(result, full)
            largest = float(missing.abs().amax())
            if largest <= _BLOCK_ERROR:
                return result, factor
            if largest > 0.7 * last:
                break
            result, last = result + resize_displacement(missing, size), largest
    return field, 1


def _faded(field: Tensor, grid: WorkingGrid) -> tuple[Tensor, WorkingGrid]:
    """Continue a field by its border values times a cosine that falls to zero; return it with its larger grid.

    It fades over twice the largest border value, so that it does not fold.
    """
    border = [field.select(axis, index).abs().amax() for axis in (2, 3, 4) for index in (0, -1)]
    pad = min(max(2, math.ceil(2 * float(max(border)))), _LARGEST_PAD)
    wide = F.pad(field, (pad,) * 6, mode="replicate")
    for axis in (2, 3, 4):
        size = wide.shape[axis]
        distance = torch.arange(size, dtype=wide.dtype)
        beyond = torch.clamp(torch.maximum(pad - distance, distance - (size - 1 - pad)), min=0) / pad
        shape = [1] * 5
        shape[axis] = size
        wide *= (0.5 * (1 + torch.cos(math.pi * beyond))).view(shape)
    # The cosine of pi leaves a rounding error, and the border must be exactly zero.
    for axis in (2, 3, 4):
        wide.select(axis, 0).zero_()
        wide.select(axis, -1).zero_()
    return wide, grid.padded(pad)
