"""The encoder, which is shared by both studies."""

from __future__ import annotations

from torch import Tensor, nn

from .blocks import Block, Down
from .brain_norm import Brains
from .configuration import NetworkConfig


class Encoder(nn.Module):
    """Encoder of a study (B, C, D, H, W) into codes, one per level from the finest to the coarsest."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        first, inputs = config.channels[0], len(config.modalities)
        self.stem = nn.Conv3d(inputs, first, 1) if config.stem else nn.Identity()
        self.blocks = nn.ModuleList()
        self.downs = nn.ModuleList()
        for level, (channels, count) in enumerate(zip(config.channels, config.encoder_convolutions, strict=True)):
            if level:
                self.downs.append(Down(config, config.channels[level - 1], channels))
            block_inputs = inputs if level == 0 and not config.stem else channels
            self.blocks.append(Block(config, block_inputs, channels, count))

    def forward(self, study: Tensor, brains: Brains | None = None) -> list[Tensor]:
        """Encode studies.

        Args:
            study: Studies (B, C, D, H, W).
            brains: Brains by whose statistics features are normalised; None for those of the whole grid.

        Returns:
            One tensor (B, channels, d, h, w) per level, each half the size of the one before.
        """
        codes = [self.blocks[0](self.stem(study), None, brains)]
        for down, block in zip(self.downs, self.blocks[1:], strict=True):
            codes.append(block(down(codes[-1], brains), None, brains))
        return codes
