"""The head of tasks that give numbers for a whole study: pooled codes and a linear layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..network.brain_norm import Brains
from ..network.configuration import NetworkConfig

POOLINGS = ("average", "max", "both")


_LARGEST_MEMORY = 50.0
"""Batches over which the means of pooled codes are remembered in the training."""


class PoolingHead(nn.Module):
    """Codes averaged over the grid (or their maxima), standardised, dropout, and a linear layer.

    The codes of all levels are pooled, because the size of a structure is seen best where its outline is resolved.
    """

    def __init__(self, config: NetworkConfig, outputs: int, pooling: str = "average", dropout: float = 0.0) -> None:
        super().__init__()
        self.pooling = pooling
        features = sum(config.channels) * (2 if pooling == "both" else 1)
        self.norm = _Standardization(features)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(features, outputs)
        nn.init.zeros_(self.linear.bias)
        nn.init.normal_(self.linear.weight, std=0.01)

    def forward(self, codes: list[Tensor], brains: Brains | None = None) -> Tensor:
        """Compute the outputs (B, outputs) of codes (B, channels, d, h, w) by level; the list is not changed."""
        pooled = []
        with torch.autocast(codes[0].device.type, enabled=False):
            for code in codes:
                values = code.float().flatten(2)
                if self.pooling in ("average", "both"):
                    pooled.append(values.mean(2))
                if self.pooling in ("max", "both"):
                    pooled.append(values.amax(2))
            return self.linear(self.dropout(self.norm(torch.cat(pooled, dim=1))))


class _Standardization(nn.Module):
    """Shift and scale pooled codes by their mean and standard deviation over the studies seen in the training.

    Studies differ by little of what their codes have in common, and a linear layer learns only from what differs. The
    moments run along with the training and are the same in training and prediction, so that a batch may be of any size.
    """

    mean: Tensor
    variance: Tensor
    batches: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("variance", torch.ones(features))
        self.register_buffer("batches", torch.zeros(()))

    def forward(self, pooled: Tensor) -> Tensor:
        """Standardise pooled codes (B, features)."""
        if self.training:
            self._remember(pooled.detach())
        return (pooled - self.mean) / (self.variance + 1e-8).sqrt()

    @torch.no_grad()
    def _remember(self, pooled: Tensor) -> None:
        self.batches += 1
        share = 1 / self.batches.clamp_max(_LARGEST_MEMORY)
        mean = self.mean + share * (pooled.mean(0) - self.mean)
        spread = (pooled - mean).square().mean(0)
        self.variance = self.variance + share * (spread - self.variance)
        self.mean = mean
