"""Geometric augmentation: flips, an affine map and a smooth deformation, applied in one resampling.

Maps pull back, as everywhere in this library: output voxel x takes the value of the input at
c + M (x − c) + t + u(x), with c the centre of the grid and all lengths in voxels along (D, H, W).
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..cohort.sample import StudySample
from ..images.labels import CLASSES

INJECTIVE_FRACTION = 0.4
"""A cubic B-spline deformation whose coefficients stay below this fraction of the knot spacing cannot fold
(Choi and Lee 2000: 1 / 2.48 in three dimensions)."""


def flip(sample: StudySample, axes: tuple[int, ...]) -> StudySample:
    """The sample mirrored along the given axes of (D, H, W); 2 exchanges left and right."""
    if not axes:
        return sample
    labels = None if sample.labels is None else sample.labels.flip(axes)
    return StudySample(sample.images.flip([axis + 1 for axis in axes]), labels, sample.mask.flip(axes), sample.name)


def affine_matrix(rotation_deg: Tensor, log_scale: Tensor, shear: Tensor) -> Tensor:
    """(3, 3) matrix R · S · K of rotations about the three axes (deg), log scales and shears, each (3,)."""
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


def knots(shape: tuple[int, ...], spacing: float) -> tuple[int, ...]:
    """Number of B-spline coefficients along each axis for knots ``spacing`` voxels apart."""
    return tuple(max(1, math.ceil((n - 1) / spacing)) + 3 for n in shape)


def smooth_field(coefficients: Tensor, shape: tuple[int, int, int], spacing: float) -> Tensor:
    """Cubic B-spline field (D, H, W, K) of coefficients (d, h, w, K), with ``knots(shape, spacing)`` of them."""
    field = coefficients
    bases = [_basis(length, spacing).to(coefficients) for length in shape]
    d, h, _, k = field.shape
    # The longest product last and on contiguous rows: each is one matrix product.
    field = (bases[2] @ field).reshape(d, h, shape[2] * k)
    field = (bases[1] @ field).reshape(d, shape[1] * shape[2] * k)
    return (bases[0] @ field).reshape(*shape, k)


@lru_cache(maxsize=32)
def _basis(length: int, spacing: float) -> Tensor:
    """(length, knots) matrix of uniform cubic B-splines at the voxels."""
    position = torch.arange(length, dtype=torch.float64) / spacing
    (count,) = knots((length,), spacing)
    distance = (position[:, None] - (torch.arange(count, dtype=torch.float64) - 1)).abs()
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = (2 - distance).clamp(min=0) ** 3 / 6
    return torch.where(distance < 1, near, far).float()


def source_positions(
    shape: tuple[int, int, int], matrix: Tensor, translation: Tensor, displacement: Tensor | None = None
) -> Tensor:
    """Where every output voxel comes from, as the normalised grid (1, D, H, W, 3) of ``grid_sample`` (W, H, D last).

    matrix: (3, 3). translation: (3,) in voxels. displacement: (D, H, W, 3) in voxels along (D, H, W), or None.
    """
    centre = [(n - 1) / 2 for n in shape]
    axes = [torch.arange(n, dtype=torch.float32, device=matrix.device) - c for n, c in zip(shape, centre, strict=True)]
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
    """The sample at ``source_positions``: images linear, labels linear per class and then the likeliest class.

    Only voxels inside the brain take part (weights are divided by those of the mask), so that the border keeps its
    intensities and the outside its value; what comes from beyond the grid is outside.
    """
    outside = sample.outside[:, None, None, None]
    channels = [(sample.images - outside) * sample.mask, sample.mask[None].float()]
    if sample.labels is not None:
        classes = torch.arange(1, len(CLASSES), dtype=torch.uint8, device=sample.labels.device)
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
        labels = torch.where(best > 1 - share.sum(0), index + 1, 0).to(torch.uint8)
    return StudySample(images, labels, mask, sample.name)


def pad(sample: StudySample, margin: int) -> StudySample:
    """The study with ``margin`` voxels of background on every side."""
    sides = [margin] * 6
    images = sample.outside[:, None, None, None].expand(-1, *(size + 2 * margin for size in sample.shape)).clone()
    images[(slice(None), *(slice(margin, margin + size) for size in sample.shape))] = sample.images
    labels = None if sample.labels is None else F.pad(sample.labels, sides)
    return StudySample(images, labels, F.pad(sample.mask, sides), sample.name)


def crop(sample: StudySample, corner: tuple[int, int, int], shape: tuple[int, int, int]) -> StudySample:
    """The patch of the given shape from ``corner`` on, copied."""
    window = tuple(slice(start, start + size) for start, size in zip(corner, shape, strict=True))
    labels = None if sample.labels is None else sample.labels[window].clone()
    return StudySample(sample.images[(slice(None), *window)].clone(), labels, sample.mask[window].clone(), sample.name)
