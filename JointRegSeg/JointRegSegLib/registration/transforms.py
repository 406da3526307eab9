"""Displacements of the working grid as transforms of SimpleITK (LPS mm), and results on native grids."""

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
"""Largest change in voxels for which a field is kept at blocks of voxels."""


@dataclass(frozen=True)
class PairTransform:
    """The map between two studies and its inverse.

    moving_to_fixed: points of the fixed space to points of the moving space (LPS mm), x ↦ affine(x + u(x)), so that
    ``sitk.Resample(moving, fixed, moving_to_fixed)`` is the warped image. fixed_to_moving: its inverse, affine⁻¹ first.
    affine: the linear part. grid, displacement: of the field of the first, (1, 3, D, H, W) in voxels of that grid, zero
    on its border: beyond it the affine remains, in ITK and in VTK alike.
    """

    moving_to_fixed: sitk.CompositeTransform
    fixed_to_moving: sitk.CompositeTransform
    affine: sitk.AffineTransform
    grid: WorkingGrid
    displacement: Tensor


def pair_transform(deformation: Deformation, grid: WorkingGrid, affine: sitk.AffineTransform) -> PairTransform:
    """Transforms of a deformation on the working grid that follows an affine initialisation.

    The fields are continued beyond the working grid and fade to zero there; inside they are as given, the inverse after
    some steps that bring it nearer to the inverse of the interpolated map. A field that was interpolated from blocks
    of four or two voxels, as networks with stride and optimisation at half resolution give them, is kept at those
    blocks, equal to 0.02 voxels and a fraction of the size; the inverse at blocks of two where the map allows blocks.
    """
    forward = deformation.displacement.detach().float().cpu()
    if forward.shape != (1, 3, *grid.shape):
        raise ValueError(f"the displacement has shape {tuple(forward.shape)}, its grid {grid.shape}")
    small, factor = _in_blocks(forward)
    field, there = _faded(small, grid.coarser(factor))
    if deformation.inverse is None:  # of the wide field, right at the border of the working grid too
        inverse, back = invert_displacement(field), there
    else:
        inverse = nearer_inverse(forward, deformation.inverse.detach().float().cpu())
        inverse = inverse if factor == 1 else resize_displacement(inverse, [n // 2 for n in grid.shape])
        inverse, back = _faded(inverse, grid.coarser(min(factor, 2)))
    return PairTransform(
        _composite(affine, displacement_transform(field[0], there)),
        _composite(displacement_transform(inverse[0], back), affine.GetInverse()),
        affine,
        there,
        field,
    )


def nearer_inverse(displacement: Tensor, inverse: Tensor, steps: int = 2, enough: float = 0.02) -> Tensor:
    """The inverse (1, 3, D, H, W) of a map after steps that take back what going there and back changes.

    With e(x) = W(x) + u(W(x)) − x the error of the inverse W, W(x − e) is the inverse to second order. A voxel keeps
    its value where the step does not help; the steps end where the largest error is below ``enough`` voxels.
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
    """The transform x ↦ x + u(x) in LPS mm of a displacement (3, D, H, W) in voxels along D, H, W."""
    return sitk.DisplacementFieldTransform(displacement_image(displacement, grid))


def displacement_image(displacement: Tensor, grid: WorkingGrid) -> sitk.Image:
    """Vector image (LPS mm, double precision, as transforms need it) of a displacement (3, D, H, W) in voxels."""
    up, front, right = displacement.detach().cpu().numpy()
    field = np.empty((*grid.shape, 3), dtype=np.float64)
    np.multiply(right, -grid.spacing_mm, out=field[..., 0])
    np.multiply(front, -grid.spacing_mm, out=field[..., 1])
    np.multiply(up, grid.spacing_mm, out=field[..., 2])
    return grid.to_sitk(field)


def displacement_of(image: sitk.Image) -> Tensor:
    """The displacement (3, D, H, W) in voxels of a vector image (LPS mm) on an RAS grid."""
    left, back, up = np.moveaxis(sitk.GetArrayViewFromImage(image), -1, 0)
    spacing = image.GetSpacing()[0]
    return torch.from_numpy(np.stack([up / spacing, -back / spacing, -left / spacing]).astype(np.float32))


def jacobian_image(transform: PairTransform, native: sitk.Image) -> sitk.Image:
    """Determinant of the derivative of moving_to_fixed at the voxels of ``native``, single precision.

    The volume in the moving space of what fills a unit volume of the fixed space, linear part included.
    """
    linear = abs(np.linalg.det(np.array(transform.affine.GetMatrix()).reshape(3, 3)))
    values = jacobian_determinant(transform.displacement)[0, 0] * linear
    image = transform.grid.to_sitk(values)
    identity = sitk.Transform(3, sitk.sitkIdentity)
    return sitk.Resample(image, native, identity, sitk.sitkLinear, float(linear), sitk.sitkFloat32)


def warp_image(
    moving: sitk.Image, fixed: sitk.Image, transform: sitk.Transform, outside: float | None = None
) -> sitk.Image:
    """The moving image on the grid of the fixed one, linear; beyond its field of view its lowest value."""
    if outside is None:
        outside = float(sitk.GetArrayViewFromImage(moving).min())
    return sitk.Resample(moving, fixed, transform, sitk.sitkLinear, outside)


def warp_label_image(moving: sitk.Image, fixed: sitk.Image, transform: sitk.Transform) -> sitk.Image:
    """Labels on the grid of the fixed image, one-hot and linear: the class with the largest share, uint8."""
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
    """x ↦ outer(inner(x)): the transform added last is applied first."""
    return sitk.CompositeTransform([outer, inner])


def _in_blocks(field: Tensor) -> tuple[Tensor, int]:
    """The field on the largest blocks of voxels of which linear interpolation gives it back, and their edge."""
    full = field.shape[2:]
    for factor in _BLOCKS:
        if any(n % factor for n in full):
            continue
        size = [n // factor for n in full]
        result = resize_displacement(field, size)
        last = math.inf
        while True:  # averaging the blocks smooths; what is missing is added
            missing = field - resize_displacement(result, full)
            largest = float(missing.abs().amax())
            if largest <= _BLOCK_ERROR:
                return result, factor
            if largest > 0.7 * last:
                break
            result, last = result + resize_displacement(missing, size), largest
    return field, 1


def _faded(field: Tensor, grid: WorkingGrid) -> tuple[Tensor, WorkingGrid]:
    """The field continued by its border values times a cosine that falls to zero, and its larger grid.

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
    # the cosine of pi leaves rounding, the border must be exactly zero
    for axis in (2, 3, 4):
        wide.select(axis, 0).zero_()
        wide.select(axis, -1).zero_()
    return wide, grid.padded(pad)
