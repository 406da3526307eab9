"""The head of tasks that give numbers for a whole study: pooled codes and a linear layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..network.brain_norm import Brains
from ..network.configuration import NetworkConfig

POOLINGS = ("average", "max", "both")


class PoolingHead(nn.Module):
    """Codes averaged over the grid (or their maxima), dropout, and a linear layer.

    The codes of all levels are pooled, because the size of a structure is seen best where its outline is resolved.
    """

    def __init__(self, config: NetworkConfig, outputs: int, pooling: str = "average", dropout: float = 0.0) -> None:
        super().__init__()
        self.pooling = pooling
        features = sum(config.channels) * (2 if pooling == "both" else 1)
        self.norm = nn.LayerNorm(features)
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
