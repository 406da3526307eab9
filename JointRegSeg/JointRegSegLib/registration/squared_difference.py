"""Mean squared difference of two images, with pathology masked out."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .comparison import varying_channels
from .local_correlation import LocalStatistics


def relaxed_mse(fixed: Tensor, moving: Tensor, healthy: Tensor | None = None) -> Tensor:
    """Compute the mean of ``((R - D) * D0seg * R0seg)^2`` over all voxels of the channels that both images have.

    Masked voxels add nothing to the sum but count in the mean. Source: Estienne et al. 2020, eq. 6.

    Args:
        fixed: Images of shape (B, C, D, H, W).
        moving: Warped moving images of the same shape.
        healthy: Weights of shape (B or 1, 1 or C, D, H, W), 0 where either study has tumour; None for all ones.

    Returns:
        A scalar; 0 where the images have no channel in common.
    """
    difference = fixed - moving if healthy is None else (fixed - moving) * healthy
    present = varying_channels(fixed) & varying_channels(moving)
    squares = difference.square() * present
    return squares.sum() / (present.sum() * squares[0, 0].numel()).clamp_min(1)


@dataclass(frozen=True)
class SquaredDifference:
    """A fixed image to be compared by the mean squared difference; see `comparison.Comparison`."""

    fixed: Tensor
    healthy: Tensor | None
    window: int
    stride: int

    @property
    def structured_share(self) -> float:
        """Share of all voxels that are not masked and lie in neighbourhoods with structure."""
        statistics = LocalStatistics.of(self.fixed, self.window, self.healthy, self.stride)
        unmasked = 1.0 if self.healthy is None else float(self.healthy.mean())
        return statistics.structured_share * unmasked

    def similarity(self, moving: Tensor) -> Tensor:
        """Return minus the mean squared difference from ``moving`` (B, C, D, H, W)."""
        return -relaxed_mse(self.fixed, moving, self.healthy)


def prepare(fixed: Tensor, mask: Tensor | None, window: int, stride: int) -> SquaredDifference:
    """Prepare a fixed image; see `similarity.Prepare`."""
    return SquaredDifference(fixed, mask, window, stride)
