"""Instance normalisation with the statistics of the brain, which the background around it does not change."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


class Brains:
    """Masks of the brains of some studies at every level of the network.

    A voxel of a coarser level belongs to the brain where any of the voxels that it covers does.
    """

    def __init__(self, masks: list[Tensor], statistics: TileStatistics | None = None) -> None:
        """Take the masks (B, 1, d, h, w), bool, of all levels, which differ in size, and statistics of tiles if any."""
        self._masks = masks
        self.statistics = statistics
        self._found: dict[tuple[tuple[int, ...], torch.dtype], Tensor] = {}

    @classmethod
    def of_studies(cls, studies: Tensor, levels: int, statistics: TileStatistics | None = None) -> Brains:
        """Find the brains of studies (B, C, D, H, W): where any image is above its background, its lowest value.

        A study without any such voxel counts as brain everywhere.
        """
        lowest = studies.flatten(2).amin(2)[:, :, None, None, None]
        mask = (studies > lowest).any(1, keepdim=True)
        mask = mask | ~mask.flatten(1).any(1)[:, None, None, None, None]
        masks = [mask]
        for _ in range(levels - 1):
            masks.append(F.max_pool3d(masks[-1].float(), 2) > 0)
        return cls(masks, statistics)

    def __or__(self, other: Brains) -> Brains:
        """Return the voxels in the brain of either of two studies."""
        return Brains([a | b for a, b in zip(self._masks, other._masks, strict=True)])

    def at(self, features: Tensor) -> Tensor:
        """Return the masks (B, 1, d, h, w), 0 or 1, at the level and in the number format of some features."""
        key = tuple(features.shape[2:]), features.dtype
        if key not in self._found:
            mask = next(mask for mask in self._masks if tuple(mask.shape[2:]) == key[0])
            self._found[key] = mask.to(features.dtype)
        return self._found[key]


class TileStatistics:
    """Statistics that stand for those of a whole study while one of its tiles passes through the network.

    A coarse copy of the whole study passes first. It tells, for every normalisation, how the features in the part of
    the brain that lies in a tile differ from those in the whole brain. Each tile is then normalised by its own
    statistics, corrected by that difference. A network applies its normalisations in the same order to everything.

    Attributes:
        parts: Place of each tile, as the start and the end (3, 2) along each axis relative to the whole, 0 to 1.
    """

    def __init__(self, parts: list[tuple[tuple[float, float], ...]]) -> None:
        self.parts = parts
        self._corrections: list[list[tuple[Tensor, Tensor]]] = [[] for _ in parts]
        self._tile: int | None = None
        self._next = 0

    def begin_tile(self, number: int) -> None:
        """Begin with a tile; before that the coarse copy passes."""
        self._tile, self._next = number, 0

    def restart(self) -> None:
        """Forget what has passed of the coarse copy or of the tile, which is about to pass from its beginning."""
        self._next = 0
        if self._tile is None:
            self._corrections = [[] for _ in self.parts]

    def normalize(self, x: Tensor, brain: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
        """Normalise as ``normalize_in_brain`` does, without gradients."""
        _, mean, variance = _moments(x, brain, weight.dtype, epsilon)
        if self._tile is None:
            for part, corrections in zip(self.parts, self._corrections, strict=True):
                corrections.append(_correction(x, brain, part, mean, variance, epsilon))
        else:
            shift, factor = self._corrections[self._tile][self._next]
            mean = mean + shift * (variance + epsilon).sqrt()
            variance = variance * factor
            self._next += 1
        result: Tensor = torch.native_batch_norm(x, weight, bias, mean, variance, False, 0.0, epsilon)[0]
        return result


def _correction(
    x: Tensor, brain: Tensor, part: tuple[tuple[float, float], ...], mean: Tensor, variance: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Return the shift of the mean, in standard deviations of a part, and the factor of its variance, (C,) each."""
    place = tuple(
        slice(math.floor(start * n), max(math.floor(start * n) + 1, math.ceil(end * n)))
        for (start, end), n in zip(part, x.shape[2:], strict=True)
    )
    inside = (slice(None), slice(None), *place)
    if not bool(brain[inside].any()):
        return torch.zeros_like(mean), torch.ones_like(variance)
    _, own, spread = _moments(x[inside].contiguous(), brain[inside].contiguous(), mean.dtype, epsilon)
    return (mean - own) / (spread + epsilon).sqrt(), (variance + epsilon) / (spread + epsilon)


def normalize_in_brain(x: Tensor, brain: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """Normalise each channel of one study to zero mean and unit variance in the brain, then scale and shift it.

    The statistics are computed in float32 even for features in bfloat16.

    Args:
        x: Features (1, C, D, H, W).
        brain: Brain (1, 1, D, H, W), 0 or 1, in the number format of the features.
        weight: Scale of each channel (C,).
        bias: Shift of each channel (C,).
        epsilon: Number added to the variance before the division.

    Returns:
        Features of the same shape, normalised everywhere by the statistics of the brain.
    """
    result: Tensor = _NormalizeInBrain.apply(x, brain, weight, bias, epsilon)
    return result


class _NormalizeInBrain(torch.autograd.Function):
    """Batch normalisation with given statistics, and the gradient that runs through these statistics.

    torch computes the statistics of the features with zeros outside the brain, and those of the brain follow from them.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, brain: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
        count, mean, variance = _moments(x, brain, weight.dtype, epsilon)
        result = torch.native_batch_norm(x, weight, bias, mean, variance, False, 0.0, epsilon)[0]
        ctx.save_for_backward(x, brain, weight, mean, variance, count)
        ctx.epsilon = epsilon
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, brain, weight, mean, variance, count = ctx.saved_tensors
        direct, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradients[0], x, weight, mean, variance, None, None, False, ctx.epsilon, [True, True, True]
        )
        scale = -weight * torch.rsqrt(variance + ctx.epsilon) / count
        through = torch.native_batch_norm(
            x, of_weight * scale, of_bias * scale, mean, variance, False, 0.0, ctx.epsilon
        )[0]
        return direct.addcmul_(through, brain), None, of_weight, of_bias, None


def _moments(x: Tensor, brain: Tensor, exact: torch.dtype, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the number of voxels of the brain, and the mean and variance (C,) of features in it."""
    _, mean, inverse = torch.native_batch_norm(x * brain, None, None, None, None, True, 0.0, epsilon)
    count = brain.sum(dtype=exact)
    factor = brain.numel() / count
    square = (inverse.to(exact).pow(-2) - epsilon + mean.to(exact) ** 2) * factor
    mean = mean.to(exact) * factor
    return count, mean, (square - mean**2).clamp_min(0)
