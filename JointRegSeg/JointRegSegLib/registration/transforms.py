"""Displacements of the working grid as transforms of SimpleITK (LPS mm), and images and labels warped by them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import torch
import torch.nn.functional as F
from torch import Tensor

from ..images.grid import RAS_DIRECTION, WorkingGrid
from ..images.preprocessing.resampling import most_of_each_voxel, nudged
from .deformation import (
    Deformation,
    compose,
    invert_displacement,
    jacobian_determinant,
    length,
    resize_displacement,
    warp,
)

_LARGEST_PAD = 24
"""Largest number of voxels by which a field is continued beyond its grid."""
_BALANCED_VOXELS = 1_000_000
"""Largest grid on which the inverse is improved between its voxels too; on finer ones they are close enough."""
_BLOCKS = (4, 2)
"""Edges in voxels of the blocks in which a field may be stored."""
_BLOCK_ERROR = 0.02
"""Largest change, in voxels, that storing a field in blocks may cause."""
_ROOT_STEPS, _ROOT_ERROR, _SINGULAR = 20, 1e-6, 1e-6
"""Steps of the square root, its largest error in mm, and the determinant below which a map has none."""


@dataclass(frozen=True)
class PairTransform:
    """The map between two studies and its inverse.

    Attributes:
        moving_to_fixed: Map of points of the fixed space to points of the moving space (LPS mm),
            ``x ↦ affine(x + u(x))``. ``sitk.Resample(moving, fixed, moving_to_fixed)`` is therefore the moving image
            warped to the fixed one.
        fixed_to_moving: The inverse map, which applies ``affine⁻¹`` first.
        affine: The linear part.
        grid: Grid of the displacement u in the fixed space.
        displacement: Displacement u of shape (1, 3, D, H, W) in voxels of ``grid``. It is zero on the border, so that
            beyond the grid the affine map remains, in ITK as well as in VTK.
    """

    moving_to_fixed: sitk.CompositeTransform
    fixed_to_moving: sitk.CompositeTransform
    affine: sitk.AffineTransform
    grid: WorkingGrid
    displacement: Tensor


def pair_transform(deformation: Deformation, grid: WorkingGrid, affine: sitk.AffineTransform) -> PairTransform:
    """Convert a deformation on the working grid, found after an affine alignment, to transforms.

    The fields are continued beyond the working grid, where they fade to zero. Within it they are as given, except that
    a few iterations bring the inverse closer to the inverse of the interpolated map, on coarse grids between the voxels
    too. A field that was interpolated from
    blocks of four or two voxels, as it is by networks with a stride and by an optimisation at half resolution, is
    stored in those blocks. That takes a fraction of the memory and changes the field by 0.02 voxels at most. If the
    field can be stored in blocks, the inverse is stored in blocks of two voxels.

    Args:
        deformation: Deformation of one pair, (1, 3, D, H, W) in voxels of ``grid``. Without an inverse, the
            displacement is inverted.
        grid: Working grid.
        affine: Map of points of the fixed space to points of the moving space (LPS mm), applied after the displacement.

    Returns:
        The map and its inverse.

    Raises:
        ValueError: The displacement has another shape than the grid, or it or its inverse is not finite.
    """
    forward = deformation.displacement.detach().float().cpu()
    if forward.shape != (1, 3, *grid.shape):
        raise ValueError(f"the displacement has shape {tuple(forward.shape)}, not {(1, 3, *grid.shape)}")
    if not all(bool(f.isfinite().all()) for f in (forward, deformation.inverse) if f is not None):
        raise ValueError("the deformation is not finite, so it cannot be stored: register the studies again")
    small, factor = _in_blocks(forward)
    field, field_grid = _faded(small, grid.coarser(factor))
    if deformation.inverse is None:  # inverting the continued field is correct at the border of the working grid too
        inverse, inverse_grid = invert_displacement(field), field_grid
    else:
        inverse = nearer_inverse(forward, deformation.inverse.detach().float().cpu())
        if forward[0, 0].numel() <= _BALANCED_VOXELS:
            inverse = balanced_inverse(forward, inverse)
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
    """Improve an approximate inverse of a map.

    If ``e(x) = W(x) + u(W(x)) − x`` is the error of the inverse W of the displacement u, then ``W(x − e(x))`` is the
    inverse to second order. A voxel keeps its value where such a step would increase its error.

    Args:
        displacement: Displacement u of shape (1, 3, D, H, W) in voxels.
        inverse: Displacement of the approximate inverse, of the same shape.
        steps: Largest number of steps.
        enough: The iteration ends when the largest error is below this, in voxels.

    Returns:
        Displacement of the improved inverse, of the same shape.
    """
    error = compose(inverse, displacement)
    distance = length(error)
    for _ in range(steps):
        if float(distance.amax()) < enough:
            break
        candidate = warp(inverse, -error) - error
        changed = compose(candidate, displacement)
        shorter = length(changed)
        better = shorter < distance
        inverse = torch.where(better, candidate, inverse)
        error, distance = torch.where(better, changed, error), torch.minimum(shorter, distance)
    return inverse


def balanced_inverse(displacement: Tensor, inverse: Tensor, steps: int = 2) -> Tensor:
    """Improve an inverse between its voxels, where it is interpolated.

    An inverse that is exact at the voxels is wrong between them wherever the map bends. The mean error around each
    voxel, taken on a grid twice as fine, is therefore removed. The fine grid needs eight times the memory.

    Args:
        displacement: Displacement of shape (1, 3, D, H, W) in voxels.
        inverse: Displacement of its inverse, of the same shape.
        steps: Number of steps.

    Returns:
        Displacement of the improved inverse, of the same shape.
    """
    fine = [2 * size for size in displacement.shape[2:]]
    finer = resize_displacement(displacement, fine)
    for _ in range(steps):
        error = F.avg_pool3d(compose(resize_displacement(inverse, fine), finer), 2) / 2  # in voxels of the coarse grid
        inverse = warp(inverse, -error) - error
    return inverse


def displacement_transform(displacement: Tensor, grid: WorkingGrid) -> sitk.DisplacementFieldTransform:
    """Convert a displacement (3, D, H, W) in voxels along D, H and W to the transform ``x ↦ x + u(x)`` in LPS mm."""
    return sitk.DisplacementFieldTransform(displacement_image(displacement, grid))


def displacement_image(displacement: Tensor, grid: WorkingGrid) -> sitk.Image:
    """Convert a displacement (3, D, H, W) in voxels to a vector image (LPS mm) in the float64 that transforms need."""
    up, front, right = displacement.detach().cpu().numpy()
    field = np.empty((*grid.shape, 3), dtype=np.float64)
    np.multiply(right, -grid.spacing_mm, out=field[..., 0])
    np.multiply(front, -grid.spacing_mm, out=field[..., 1])
    np.multiply(up, grid.spacing_mm, out=field[..., 2])
    return grid.to_sitk(field)


def displacement_of(image: sitk.Image) -> Tensor:
    """Convert a vector image (LPS mm) on an RAS grid to a displacement (3, D, H, W) in voxels, float32."""
    left, back, up = np.moveaxis(sitk.GetArrayViewFromImage(image), -1, 0)
    spacing = image.GetSpacing()[0]
    return torch.from_numpy(np.stack([up / spacing, -back / spacing, -left / spacing]).astype(np.float32))


def square_root(affine: sitk.AffineTransform) -> sitk.AffineTransform | None:
    """Return the affine map that gives another one when it is applied twice, by the iteration of Denman and Beavers.

    That of the inverse map is its inverse. A turn by 180 degrees has none that is unique, and gives None.
    """
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(affine.GetMatrix()).reshape(3, 3)
    matrix[:3, 3] = affine.TransformPoint((0.0, 0.0, 0.0))
    root, inverse = matrix, np.eye(4)
    for _ in range(_ROOT_STEPS):
        if min(abs(np.linalg.det(root)), abs(np.linalg.det(inverse))) < _SINGULAR:
            return None
        root, inverse = (root + np.linalg.inv(inverse)) / 2, (inverse + np.linalg.inv(root)) / 2
    if not np.allclose(root @ root, matrix, rtol=0, atol=_ROOT_ERROR):
        return None
    result = sitk.AffineTransform(3)
    result.SetMatrix(root[:3, :3].ravel().tolist())
    result.SetTranslation(root[:3, 3].tolist())
    return result


def is_identity(affine: sitk.AffineTransform) -> bool:
    """Tell whether an affine map leaves every point where it is."""
    points = ((0.0, 0.0, 0.0), (100.0, 0.0, 0.0), (0.0, 100.0, 0.0), (0.0, 0.0, 100.0))
    return all(affine.TransformPoint(point) == point for point in points)


def on_other_grid(displacement: Tensor, grid: WorkingGrid, to_grid: sitk.AffineTransform, other: WorkingGrid) -> Tensor:
    """Express a displacement in other coordinates.

    Args:
        displacement: Displacement u of shape (1, 3, D, H, W) in voxels of ``grid``.
        grid: Its grid.
        to_grid: Map H from points of the other grid to points of ``grid`` (LPS mm).
        other: The other grid. On a large one with even sizes, the result is interpolated between the centres of blocks
            of two voxels, in which it can be stored.

    Returns:
        Displacement v of shape (1, 3, D, H, W) in voxels of the other grid, with ``H(x + v(x)) = H(x) + u(H(x))``. It
        is continued by its border values where H leads beyond ``grid``.
    """
    large = math.prod(other.shape) > _BALANCED_VOXELS and not any(n % 2 for n in other.shape)
    coarse = other.coarser(2 if large else 1)
    spacing, kind = (coarse.spacing_mm,) * 3, sitk.sitkVectorFloat32
    image = sitk.Cast(displacement_image(displacement[0], grid), kind)
    place = coarse.size, to_grid, sitk.sitkLinear, coarse.origin_lps_mm, spacing, RAS_DIRECTION
    image = sitk.Resample(image, *place, 0.0, kind, useNearestNeighborExtrapolator=True)
    back = np.linalg.inv(np.array(to_grid.GetMatrix()).reshape(3, 3))
    turned = coarse.to_sitk(sitk.GetArrayViewFromImage(image) @ back.T)
    return resize_displacement(displacement_of(turned)[None], other.shape)


def jacobian_image(transform: PairTransform, native: sitk.Image) -> sitk.Image:
    """Compute the Jacobian determinant of ``moving_to_fixed``, including its linear part.

    The determinant is the volume in the moving space of the tissue that fills a unit volume of the fixed space.

    Args:
        transform: Map between the studies.
        native: Image of the fixed study that defines the grid of the result.

    Returns:
        Determinants (dimensionless) on the grid of ``native``, float32.
    """
    linear = abs(np.linalg.det(np.array(transform.affine.GetMatrix()).reshape(3, 3)))
    values = jacobian_determinant(transform.displacement)[0, 0] * linear
    image = transform.grid.to_sitk(values)
    identity = sitk.Transform(3, sitk.sitkIdentity)
    return sitk.Resample(image, native, identity, sitk.sitkLinear, float(linear), sitk.sitkFloat32)


def warp_image(
    moving: sitk.Image, fixed: sitk.Image, transform: sitk.Transform, outside: float | None = None
) -> sitk.Image:
    """Warp the moving image to the grid of the fixed one with linear interpolation.

    Args:
        moving: Image to be warped.
        fixed: Image that defines the grid of the result.
        transform: Map of points of the fixed space to points of the moving space (LPS mm).
        outside: Value beyond the field of view of the moving image; None for its lowest value.

    Returns:
        The warped image, of the pixel type of the moving one.
    """
    if outside is None:
        outside = float(sitk.GetArrayViewFromImage(moving).min())
    return sitk.Resample(moving, fixed, transform, sitk.sitkLinear, outside)


def warp_label_image(moving: sitk.Image, fixed: sitk.Image, transform: sitk.Transform) -> sitk.Image:
    """Warp labels to the grid of the fixed image as one-hot images with linear interpolation.

    Args:
        moving: Labels; 0 is the background, and also the value beyond the field of view.
        fixed: Image that defines the grid of the result.
        transform: Map of points of the fixed space to points of the moving space (LPS mm).

    Returns:
        For each voxel the label with the largest share, uint8, or 0 where all labels together have no more than half.
    """
    labels, values = nudged(moving), [int(v) for v in np.unique(sitk.GetArrayViewFromImage(moving)) if v]
    shares = ((v, sitk.GetArrayFromImage(_share(labels == v, fixed, transform))) for v in values)
    image = sitk.GetImageFromArray(most_of_each_voxel(shares, fixed.GetSize()[::-1]))
    image.CopyInformation(fixed)
    return image


def _share(members: sitk.Image, fixed: sitk.Image, transform: sitk.Transform) -> sitk.Image:
    """Warp a binary image linearly, which gives the share of the class in each voxel."""
    return sitk.Resample(sitk.Cast(members, sitk.sitkFloat32), fixed, transform, sitk.sitkLinear, 0.0)


def _composite(outer: sitk.Transform, inner: sitk.Transform) -> sitk.CompositeTransform:
    """Return the map ``x ↦ outer(inner(x))``; SimpleITK applies the transform that was added last first."""
    return sitk.CompositeTransform([outer, inner])


def _in_blocks(field: Tensor) -> tuple[Tensor, int]:
    """Return a field in the largest blocks from which linear interpolation restores it, and their edge in voxels."""
    full = field.shape[2:]
    for factor in _BLOCKS:
        if any(n % factor for n in full):
            continue
        size = [n // factor for n in full]
        result = resize_displacement(field, size)
        last = math.inf
        while True:  # resampling smooths the field; the difference is resampled and added until it is small
            difference = field - resize_displacement(result, full)
            largest = float(difference.abs().amax())
            if largest <= _BLOCK_ERROR:
                return result, factor
            if largest > 0.7 * last:
                break
            result, last = result + resize_displacement(difference, size), largest
    return field, 1


def _faded(field: Tensor, grid: WorkingGrid) -> tuple[Tensor, WorkingGrid]:
    """Continue a field by its border values times a cosine that falls to zero; return it with its larger grid.

    It fades over a distance of twice its largest border value, so that it does not fold.
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
    # The border must be exactly zero, and 1 + cos(π) is zero only up to rounding.
    for axis in (2, 3, 4):
        wide.select(axis, 0).zero_()
        wide.select(axis, -1).zero_()
    return wide, grid.padded(pad)
