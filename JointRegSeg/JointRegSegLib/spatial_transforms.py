"""Displacements of the working grid as transforms of SimpleITK (LPS mm), and results on native grids."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import torch
import torch.nn.functional as F
from torch import Tensor

from .deformation import Deformation, invert_displacement, jacobian_determinant, resize_displacement
from .working_grid import WorkingGrid

_LARGEST_PAD = 24
_HALVING_ERROR = 0.02
"""Largest change in voxels for which a field is kept at half resolution."""


@dataclass(frozen=True)
class PairTransform:
    """The map between two studies and its inverse.

    moving_to_fixed: points of the fixed space to points of the moving space (LPS mm), x ↦ affine(x + u(x)), so that
    ``sitk.Resample(moving, fixed, moving_to_fixed)`` is the warped image. fixed_to_moving: its inverse, affine⁻¹ first.
    affine: the linear part. grid: of the displacement fields. displacement, inverse: (1, 3, D, H, W) in its voxels,
    zero on its border: beyond it the affine remains, in ITK and in VTK alike.
    """

    moving_to_fixed: sitk.CompositeTransform
    fixed_to_moving: sitk.CompositeTransform
    affine: sitk.AffineTransform
    grid: WorkingGrid
    displacement: Tensor
    inverse: Tensor


def pair_transform(deformation: Deformation, grid: WorkingGrid, affine: sitk.AffineTransform) -> PairTransform:
    """Transforms of a deformation on the working grid that follows an affine initialisation.

    The fields are continued beyond the working grid and fade to zero there; inside they are as given. Fields that were
    interpolated from blocks of two voxels, as networks with stride and optimisation at half resolution give them, are
    kept at those blocks: an eighth of the size, and equal to 0.02 voxels.
    """
    fields = [deformation.displacement.detach().float().cpu()]
    if deformation.inverse is not None:
        fields.append(deformation.inverse.detach().float().cpu())
    if fields[0].shape != (1, 3, *grid.shape):
        raise ValueError(f"the displacement has shape {tuple(fields[0].shape)}, its grid {grid.shape}")
    halves = [_halved(field) for field in fields]
    if all(half is not None for half in halves):
        fields, grid = halves, grid.coarser(2)
    pad = _pad_needed(*fields)
    fields, grid = [_faded(field, pad) for field in fields], grid.padded(pad)
    if len(fields) == 1:  # the inverse of the wide field is right at the border of the working grid too
        fields.append(invert_displacement(fields[0]))
    forward, backward = fields
    return PairTransform(
        _composite(affine, displacement_transform(forward[0], grid)),
        _composite(displacement_transform(backward[0], grid), affine.GetInverse()),
        affine, grid, forward, backward,
    )  # fmt: skip


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


def _halved(field: Tensor) -> Tensor | None:
    """The field on blocks of two voxels of which linear interpolation gives it back; None where that is not exact."""
    full = field.shape[2:]
    if any(n % 2 for n in full):
        return None
    half = tuple(n // 2 for n in full)
    result = resize_displacement(field, half)
    for _ in range(4):  # averaging the blocks smooths; what is missing is added
        missing = field - resize_displacement(result, full)
        if float(missing.abs().amax()) <= _HALVING_ERROR:
            return result
        result += resize_displacement(missing, half)
    return None


def _pad_needed(*fields: Tensor) -> int:
    """Voxels in which a field can fade from the border without folding: twice its largest value there."""
    largest = 0.0
    for field in fields:
        for axis in (2, 3, 4):
            for index in (0, -1):
                largest = max(largest, float(field.select(axis, index).abs().amax()))
    return min(max(2, math.ceil(2 * largest)), _LARGEST_PAD)


def _faded(field: Tensor, pad: int) -> Tensor:
    """The field continued by its border values times a cosine that falls to zero in ``pad`` voxels."""
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
    return wide
