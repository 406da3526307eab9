"""Geometric augmentation: mirroring, an affine map and a smooth deformation, applied in one resampling.

Maps pull back, as everywhere in this library: output voxel x takes the value of the input at
``c + M (x - c) + t + u(x)``, with c the centre of the grid and all lengths in voxels along (D, H, W).
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..cohort.sample import StudySample
from ..images.labels import CLASSES, UNLABELED

INJECTIVE_FRACTION = 0.4
"""A cubic B-spline deformation whose coefficients stay below this fraction of the knot spacing cannot fold
(Choi and Lee 2000: 1 / 2.48 in three dimensions)."""


def flip(sample: StudySample, axes: tuple[int, ...]) -> StudySample:
    """Mirror a study along some axes of (D, H, W); axis 2 exchanges left and right."""
    if not axes:
        return sample
    labels = None if sample.labels is None else sample.labels.flip(axes)
    images = sample.images.flip([axis + 1 for axis in axes])
    return replace(sample, images=images, labels=labels, mask=sample.mask.flip(axes))


def affine_matrix(rotation_deg: Tensor, log_scale: Tensor, shear: Tensor) -> Tensor:
    """Compute the matrix (3, 3) ``R S K`` of rotations, scalings and shears.

    Args:
        rotation_deg: Angles (3,) about the axes, in degrees.
        log_scale: Logarithms (3,) of the factors along the axes.
        shear: Off-diagonal entries (3,): (D, H), (D, W) and (H, W).
    """
    matrix = torch.eye(3)
    for axis in range(3):
        a, b = (k for k in range(3) if k != axis)
        angle = math.radians(float(rotation_deg[axis]))
        turn = torch.eye(3)
        turn[a, a] = turn[b, b] = math.cos(angle)
        turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
        matrix = matrix @ turn
    slant = torch.eye(3)
    slant[0, 1], slant[0, 2], slant[1, 2] = (float(value) for value in shear)
    return matrix @ torch.diag(log_scale.exp()) @ slant


def knots(shape: tuple[int, int, int], spacing: float) -> tuple[int, int, int]:
    """Count the B-spline coefficients along each axis for knots ``spacing`` voxels apart."""
    d, h, w = (_knots(n, spacing) for n in shape)
    return d, h, w


def smooth_field(coefficients: Tensor, shape: tuple[int, int, int], spacing: float) -> Tensor:
    """Evaluate a cubic B-spline field at the voxels.

    Args:
        coefficients: Coefficients (d, h, w, K), ``knots(shape, spacing)`` of them.
        shape: Grid (D, H, W).
        spacing: Knot spacing in voxels.

    Returns:
        Field (D, H, W, K).
    """
    field = coefficients
    bases = [_basis(length, spacing).to(coefficients) for length in shape]
    d, h, _, k = field.shape
    # The longest product comes last and works on contiguous rows: each is one matrix product.
    field = (bases[2] @ field).reshape(d, h, shape[2] * k)
    field = (bases[1] @ field).reshape(d, shape[1] * shape[2] * k)
    return (bases[0] @ field).reshape(*shape, k)


def source_positions(
    shape: tuple[int, int, int], matrix: Tensor, translation: Tensor, displacement: Tensor | None = None
) -> Tensor:
    """Compute where every output voxel comes from.

    Args:
        shape: Grid (D, H, W).
        matrix: Matrix (3, 3) of the affine map.
        translation: Translation (3,) in voxels.
        displacement: Displacement (D, H, W, 3) in voxels along (D, H, W), or None.

    Returns:
        Normalised grid (1, D, H, W, 3) for ``grid_sample``, whose last axis has the order (W, H, D).
    """
    center = [(n - 1) / 2 for n in shape]
    axes = [torch.arange(n, dtype=torch.float32, device=matrix.device) - c for n, c in zip(shape, center, strict=True)]
    grid = torch.empty((*shape, 3), device=matrix.device)
    for k, n in enumerate(shape):
        to_unit = 2 / max(n - 1, 1)
        row = [float(value) * to_unit for value in matrix[k]]
        plane = row[0] * axes[0][:, None] + row[1] * axes[1] + float(translation[k]) * to_unit
        coordinate = grid[..., 2 - k]
        torch.add(plane[:, :, None], row[2] * axes[2], out=coordinate)
        if displacement is not None:
            coordinate.add_(displacement[..., k], alpha=to_unit)
    return grid[None]


def resample(sample: StudySample, positions: Tensor) -> StudySample:
    """Resample a study: images linearly; labels linearly per class, and then the most likely class.

    Only voxels inside the brain take part, because weights are divided by those of the mask. The border of the brain
    therefore keeps its intensities and the outside its value; what comes from beyond the grid is outside.

    Args:
        sample: Study to resample.
        positions: Grid of ``source_positions``.
    """
    outside = sample.outside[:, None, None, None]
    channels = [(sample.images - outside) * sample.mask, sample.mask[None].float()]
    if sample.labels is not None:
        labeled = sample.labels[sample.labels != UNLABELED]
        count = max(len(CLASSES), int(labeled.max()) + 1 if labeled.numel() else 0)
        classes = torch.tensor([*range(1, count), UNLABELED], dtype=torch.uint8, device=sample.labels.device)
        channels.append((sample.labels[None] == classes[:, None, None, None]).float())
    stack = F.grid_sample(torch.cat(channels)[None], positions, padding_mode="zeros", align_corners=True)[0]
    count = len(sample.images)
    inside = stack[count]
    mask = inside > 0.5
    images = torch.where(mask, stack[:count].div_(inside.clamp(min=0.5)).add_(outside), outside)
    labels = None
    if sample.labels is not None:
        share = stack[count + 1 :]
        best, index = share.max(0)
        labels = torch.where(best > 1 - share.sum(0), classes[index], 0).to(torch.uint8)
    return replace(sample, images=images, labels=labels, mask=mask)


def pad(sample: StudySample, margin: int) -> StudySample:
    """Add ``margin`` voxels of background on every side of a study."""
    sides = [margin] * 6
    images = sample.outside[:, None, None, None].expand(-1, *(size + 2 * margin for size in sample.shape)).clone()
    d, h, w = (slice(margin, margin + size) for size in sample.shape)
    images[:, d, h, w] = sample.images
    labels = None if sample.labels is None else F.pad(sample.labels, sides)
    return replace(sample, images=images, labels=labels, mask=F.pad(sample.mask, sides))


def crop(sample: StudySample, corner: tuple[int, int, int], shape: tuple[int, int, int]) -> StudySample:
    """Copy the patch of a given size (D, H, W) that begins at a corner."""
    d, h, w = (slice(start, start + size) for start, size in zip(corner, shape, strict=True))
    labels = None if sample.labels is None else sample.labels[d, h, w].clone()
    return replace(sample, images=sample.images[:, d, h, w].clone(), labels=labels, mask=sample.mask[d, h, w].clone())


def _knots(length: int, spacing: float) -> int:
    return max(1, math.ceil((length - 1) / spacing)) + 3


@lru_cache(maxsize=32)
def _basis(length: int, spacing: float) -> Tensor:
    """Values (length, knots) of uniform cubic B-splines at the voxels."""
    position = torch.arange(length, dtype=torch.float64) / spacing
    count = _knots(length, spacing)
    distance = (position[:, None] - (torch.arange(count, dtype=torch.float64) - 1)).abs()
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = (2 - distance).clamp(min=0) ** 3 / 6
    return torch.where(distance < 1, near, far).float()
