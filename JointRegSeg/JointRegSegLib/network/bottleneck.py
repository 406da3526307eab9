"""The head of the autoencoder: the coarsest codes become a few numbers, from which the images are decoded."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import Block, Up
from .brain_norm import Brains
from .configuration import NetworkConfig

CELLS = (4, 4, 4)
"""Cells (D, H, W) into which the coarsest codes are averaged before the bottleneck, whatever the size of the study."""
_LOGARITHM = 8.0


class CodeHead(nn.Module):
    """Bottleneck and decoder without skip connections.

    Args:
        config: Configuration of the network.
        size: Numbers of the code.
        variational: Whether a variance of each number is predicted, with which it is drawn in training.
    """

    def __init__(self, config: NetworkConfig, size: int, variational: bool = False) -> None:
        super().__init__()
        self.variational = variational
        deepest = config.channels[-1]
        features = deepest * math.prod(CELLS)
        self.encode = nn.Linear(features, 2 * size if variational else size)
        self.decode = nn.Linear(size, features)
        pairs = list(zip(config.channels[:0:-1], config.channels[-2::-1], strict=True))
        self.ups = nn.ModuleList(Up(config, coarse, fine) for coarse, fine in pairs)
        counts = config.decoder_convolutions[::-1]
        self.blocks = nn.ModuleList(
            Block(config, fine, fine, count) for (_, fine), count in zip(pairs, counts, strict=True)
        )
        self.output = nn.Conv3d(config.channels[0], len(config.modalities), 1)

    def forward(self, codes: list[Tensor], brains: Brains | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Compute images (B, C, D, H, W), means (B, size) of the code and logarithms (B, size) of its variances."""
        coarsest = codes[-1]
        cells = F.adaptive_avg_pool3d(coarsest, CELLS).flatten(1)
        mean = self.encode(cells)
        logarithm = torch.zeros_like(mean)
        code = mean
        if self.variational:
            mean, logarithm = mean.chunk(2, 1)
            logarithm = logarithm.clamp(-_LOGARITHM, _LOGARITHM)
            code = mean + torch.randn_like(mean) * torch.exp(0.5 * logarithm) if self.training else mean
        x = self.decode(code).view(len(code), -1, *CELLS)
        x = F.interpolate(x, coarsest.shape[2:], mode="trilinear", align_corners=False)
        for up, block in zip(self.ups, self.blocks, strict=True):
            x = block(up(x, brains), None, brains)
        return self.output(x), mean, logarithm
