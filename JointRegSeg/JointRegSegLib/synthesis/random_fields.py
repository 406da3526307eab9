"""Seeded random numbers and smooth random fields, from which anatomy, tumours and images of patients are made."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST_SEED = 10**12
"""Largest seed of a patient."""
_PURPOSE = 7_919_000_000_017
"""Distance between the seeds of different purposes, beyond ``LARGEST_SEED``."""


class Draw:
    """Random numbers of one patient, from a seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.generator = torch.Generator().manual_seed(seed)

    def aside(self, purpose: int) -> Draw:
        """Random numbers of the same patient for something of its own, which leave all others as they were.

        Args:
            purpose: Number of the purpose; each has numbers of its own.
        """
        return Draw(self.seed + purpose * _PURPOSE)

    def uniform(self, low: float, high: float) -> float:
        """Draw a number between two bounds."""
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def normal(self, mean: float = 0.0, sd: float = 1.0) -> float:
        """Draw a normally distributed number."""
        return mean + sd * float(torch.randn((), generator=self.generator))

    def chance(self, probability: float) -> bool:
        """Draw whether something happens."""
        return float(torch.rand((), generator=self.generator)) < probability

    def choice(self, weights: dict[str, float]) -> str:
        """Draw a name by its weight."""
        values = torch.tensor(list(weights.values()))
        return list(weights)[int(torch.multinomial(values, 1, generator=self.generator))]

    def white(self, *shape: int) -> Tensor:
        """Draw standard normal numbers."""
        return torch.randn(shape, generator=self.generator)

    def smooth(self, shape: tuple[int, int, int], scale_voxels: float, channels: int = 1) -> Tensor:
        """Draw a smooth field of unit standard deviation.

        Args:
            shape: Grid (D, H, W).
            scale_voxels: Distance in voxels over which the field varies.
            channels: Number of independent fields.

        Returns:
            Fields (channels, D, H, W).
        """
        knots = [max(2, round(n / max(scale_voxels, 1.0)) + 1) for n in shape]
        field = F.interpolate(self.white(1, channels, *knots), size=shape, mode="trilinear", align_corners=True)[0]
        if scale_voxels > 2:
            field = box_mean(field, 3)
        return field / field.std().clamp_min(1e-6)


def grid_of(volume: Tensor) -> tuple[int, int, int]:
    """Return the grid (D, H, W) of a volume (..., D, H, W)."""
    d, h, w = volume.shape[-3:]
    return d, h, w


def voxel_positions(shape: tuple[int, int, int]) -> Tensor:
    """Return the coordinates (3, D, H, W) of all voxels of a grid (D, H, W), float32."""
    return torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in shape), indexing="ij"))


def box_mean(field: Tensor, width: int) -> Tensor:
    """Average a field over cubes, one axis after the other; border values are continued outside.

    Args:
        field: Fields (C, D, H, W).
        width: Edge of the cubes in voxels; an odd number.

    Returns:
        Averaged fields of the same shape.
    """
    half = width // 2
    for axis in (1, 2, 3):
        pad = [0] * 6
        pad[6 - 2 * axis] = pad[7 - 2 * axis] = half
        padded = F.pad(field[None], pad, mode="replicate")[0]
        size = field.shape[axis]
        if width == 3:
            parts = [padded.narrow(axis, k, size) for k in range(3)]
            field = (parts[0] + parts[1] + parts[2]) / 3
        else:
            sums = F.pad(padded.cumsum(axis), [1 if k == 6 - 2 * axis else 0 for k in range(6)])
            field = (sums.narrow(axis, width, size) - sums.narrow(axis, 0, size)) / width
    return field
