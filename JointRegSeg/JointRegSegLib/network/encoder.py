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
            block_inputs, stride = inputs if level == 0 and not config.stem else channels, 1
            if level and config.down == "unit":
                self.downs.append(nn.Identity())
                block_inputs, stride = config.channels[level - 1], 2
            elif level:
                self.downs.append(Down(config, config.channels[level - 1], channels))
            attention = config.context_attention and level > 0
            self.blocks.append(Block(config, block_inputs, channels, count, attention, stride))

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
            x = down(codes[-1], brains) if isinstance(down, Down) else codes[-1]
            codes.append(block(x, None, brains))
        return codes
