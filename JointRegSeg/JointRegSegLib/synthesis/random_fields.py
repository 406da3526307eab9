"""Smooth random fields, seeded: what anatomy, tumours and images of synthetic patients vary by."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


class Draw:
    """Random numbers of one patient, from a seed."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def normal(self, mean: float = 0.0, sd: float = 1.0) -> float:
        return mean + sd * float(torch.randn((), generator=self.generator))

    def chance(self, probability: float) -> bool:
        return float(torch.rand((), generator=self.generator)) < probability

    def choice(self, weights: dict[str, float]) -> str:
        values = torch.tensor(list(weights.values()))
        return list(weights)[int(torch.multinomial(values, 1, generator=self.generator))]

    def white(self, *shape: int) -> Tensor:
        """Standard normal numbers."""
        return torch.randn(shape, generator=self.generator)

    def smooth(self, shape: tuple[int, int, int], scale_voxels: float, channels: int = 1) -> Tensor:
        """(channels, D, H, W) of unit standard deviation that varies over about ``scale_voxels``."""
        knots = [max(2, round(n / max(scale_voxels, 1.0)) + 1) for n in shape]
        field = F.interpolate(self.white(1, channels, *knots), size=shape, mode="trilinear", align_corners=True)[0]
        if scale_voxels > 2:
            field = box_mean(field, 3)
        return field / field.std().clamp_min(1e-6)


def box_mean(field: Tensor, width: int) -> Tensor:
    """Mean over cubes of an odd width, (C, D, H, W), one axis after the other; the border's values go on outside."""
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
