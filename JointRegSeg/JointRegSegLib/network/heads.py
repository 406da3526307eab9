"""The two heads: decoders of the same design that turn codes into class scores or into a deformation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .blocks import Block, Up
from .brain_norm import Brains
from .configuration import NetworkConfig


class Decoder(nn.Module):
    """Decoder of codes into features, from the second coarsest level to the level ``finest``.

    Args:
        config: Configuration of the network.
        widening: Factor by which the codes have more channels than those of the encoder; 2 for concatenated codes.
        finest: Finest level that is decoded; 0 is that of the input.
    """

    def __init__(self, config: NetworkConfig, widening: int = 1, finest: int = 0) -> None:
        super().__init__()
        self.finest = finest
        self.ups, self.blocks = nn.ModuleList(), nn.ModuleList()
        inputs = config.channels[-1] * widening
        for level in range(config.levels - 2, finest - 1, -1):
            channels = config.channels[level]
            self.ups.append(Up(config, inputs, channels))
            count = config.decoder_convolutions[level]
            self.blocks.append(Block(config, channels * (1 + widening), channels, count))
            inputs = channels

    def forward(self, codes: list[Tensor], brains: Brains | None = None) -> list[Tensor]:
        """Decode one study or one merged pair.

        Args:
            codes: Codes (B, channels, d, h, w) by level, finest first. The list is emptied, which frees the memory of
                the codes as early as possible when no gradients are computed.
            brains: Brains by whose statistics features are normalised; None for those of the whole grid.

        Returns:
            Features (B, channels, d, h, w) by level, coarsest first.
        """
        features, x = [], codes.pop()
        del codes[: self.finest]
        for up, block in zip(self.ups, self.blocks, strict=True):
            x = block(up(x, brains), codes, brains)
            features.append(x)
        return features


class SegmentationHead(nn.Module):
    """Head that computes class scores at the finest level and, for deep supervision, at the next coarser ones."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.decoder = Decoder(config)
        self.output = nn.Conv3d(config.channels[0], config.classes, 1)
        lower = config.channels[1 : 1 + config.auxiliary]
        self.auxiliary = nn.ModuleList(nn.Conv3d(channels, config.classes, 1) for channels in lower)

    def forward(self, codes: list[Tensor], brains: Brains | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Compute logits (B, classes, D, H, W) and, in training, those of the coarser levels, finest first."""
        features = self.decoder(codes, brains)
        auxiliary: tuple[Tensor, ...] = ()
        if self.training:
            lower = features[-2 : -2 - len(self.auxiliary) : -1]
            auxiliary = tuple(output(x) for output, x in zip(self.auxiliary, lower, strict=True))
        return self.output(features[-1]), auxiliary


class RegistrationHead(nn.Module):
    """Head that predicts a vector field at ``registration_level`` from the merged codes of all levels."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.merge_mode = config.merge
        self.decoder = Decoder(config, 2 if config.merge == "concatenate" else 1, config.registration_level)
        # A bias would cancel in an antisymmetric difference.
        self.output = nn.Conv3d(config.channels[config.registration_level], 3, 1, bias=not config.antisymmetric)

    def merge(self, moving: list[Tensor], fixed: list[Tensor]) -> list[Tensor]:
        """Join the codes of the two studies level by level; a difference is moving minus fixed, as published."""
        if self.merge_mode == "concatenate":
            return [torch.cat(pair, dim=1) for pair in zip(moving, fixed, strict=True)]
        sign = -1 if self.merge_mode == "subtract" else 1
        return [torch.add(m, f, alpha=sign) for m, f in zip(moving, fixed, strict=True)]

    def forward(self, merged: list[Tensor], brains: Brains | None = None) -> Tensor:
        """Compute the raw output at the level of the head.

        Args:
            merged: Merged codes by level, finest first; the list is emptied.
            brains: As for ``Decoder``; the brains of both studies.

        Returns:
            Vector field (B, 3, d, h, w), in the dtype of the weights of the output even under autocast.
        """
        features = self.decoder(merged, brains)[-1]
        with torch.autocast(features.device.type, enabled=False):
            return self.output(features.to(self.output.weight.dtype))
