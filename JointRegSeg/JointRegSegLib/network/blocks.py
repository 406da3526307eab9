"""Building blocks of the network: convolutions with normalisation and activation, and the steps between the levels.

All tensors have the shape (B, C, D, H, W).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .brain_norm import Brains, normalize_in_brain
from .configuration import NetworkConfig
from .convolutions import ContextAttention, convolution

SLOPE = 0.01
"""Slope of the leaky ReLU for negative values."""


class InstanceNorm(nn.Module):
    """Normalisation of each channel of each study to zero mean and unit variance, then a learnt scale and shift.

    The statistics are those of the whole grid, or of the brain alone. Over the whole grid it is computed as one batch
    normalisation per study. On a CPU this is several times faster than ``nn.InstanceNorm3d``, and it keeps the
    channels-last order. The statistics are computed in float32 even for bfloat16.

    Attributes:
        weight: Scale of each channel (C,).
        bias: Shift of each channel (C,).
        epsilon: Number added to the variance before the division.
    """

    def __init__(self, channels: int, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.epsilon = epsilon

    def forward(self, x: Tensor, brains: Brains | None = None) -> Tensor:
        """Normalise features (B, C, D, H, W), by the statistics of the brain where it is given."""
        if brains is None:
            studies = [
                torch.batch_norm(study, self.weight, self.bias, None, None, True, 0.0, self.epsilon, False)
                for study in x.split(1)
            ]
        else:
            normalize = normalize_in_brain if brains.statistics is None else brains.statistics.normalize
            studies = [
                normalize(study, brain, self.weight, self.bias, self.epsilon)
                for study, brain in zip(x.split(1), brains.at(x).split(1), strict=True)
            ]
        return studies[0] if len(studies) == 1 else torch.cat(studies)


class Unit(nn.Module):
    """Convolution, then a normalisation if the configuration has one, then an activation where it is active."""

    # The names of the submodules, such as normalisation, are part of the names of the weights in files.
    def __init__(self, config: NetworkConfig, convolution: nn.Module, channels: int, active: bool = True) -> None:
        super().__init__()
        self.convolution = convolution
        self.normalisation = None if config.normalisation == "none" else InstanceNorm(channels)
        self.slope = SLOPE if config.activation == "leaky_relu" else 0.0
        self.active = active

    def forward(self, x: Tensor, beside: Tensor | None = None, brains: Brains | None = None) -> Tensor:
        """Apply the unit to features, or to the concatenation of two sets of features.

        As convolutions are linear, the two parts are convolved one after the other and added, without making the
        concatenation, where the convolution is an ordinary one.

        Args:
            x: Features (B, C, D, H, W).
            beside: Features of the same size that follow ``x`` along the channels, or None.
            brains: Brains by whose statistics the result is normalised; None for those of the whole grid.
        """
        x = self.convolution(x) if beside is None else self._convolve_both(x, beside)
        if self.normalisation is not None:
            x = self.normalisation(x, brains)
        return self.activated(x) if self.active else x

    def activated(self, x: Tensor) -> Tensor:
        """Apply the activation in place."""
        return F.leaky_relu_(x, self.slope) if self.slope else F.relu_(x)

    def _convolve_both(self, x: Tensor, beside: Tensor) -> Tensor:
        convolution = self.convolution
        if not isinstance(convolution, nn.Conv3d):
            return convolution(torch.cat([x, beside], 1))
        first, second = convolution.weight.split([x.shape[1], beside.shape[1]], dim=1)
        result = F.conv3d(x, first, convolution.bias, padding=convolution.padding)
        return result.add_(F.conv3d(beside, second, padding=convolution.padding))


def convolution_unit(config: NetworkConfig, inputs: int, outputs: int, stride: int = 1, active: bool = True) -> Unit:
    """Build a unit with a 3 x 3 x 3 convolution that divides the size by the stride."""
    layer = convolution(config.convolution, inputs, outputs, _has_bias(config), stride)
    return Unit(config, layer, outputs, active)


class ResidualUnit(nn.Module):
    """Two convolutions whose input is added before the last activation (He et al. 2016)."""

    def __init__(self, config: NetworkConfig, inputs: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.first = convolution_unit(config, inputs, channels, stride)
        self.second = convolution_unit(config, channels, channels, active=False)
        self.shortcut: nn.Module = nn.Identity()
        if inputs != channels or stride > 1:
            self.shortcut = nn.Conv3d(inputs, channels, 1, stride, bias=False)

    def forward(self, x: Tensor, beside: Tensor | None = None, brains: Brains | None = None) -> Tensor:
        """Apply the unit to features, or to the concatenation of two sets of features."""
        result = self.second(self.first(x, beside, brains), None, brains)
        return self.second.activated(result + self.shortcut(x if beside is None else torch.cat([x, beside], 1)))


class Block(nn.Module):
    """Several 3 x 3 x 3 convolutions in a row; the first may be applied to a concatenation.

    With ``residual_units`` every two of them form a residual unit, and an odd one comes first.
    """

    def __init__(
        self,
        config: NetworkConfig,
        inputs: int,
        channels: int,
        convolutions: int,
        attention: bool = False,
        stride: int = 1,
    ) -> None:
        super().__init__()
        self.residual = config.residual
        self.units = nn.ModuleList()
        while convolutions:
            pair = config.residual_units and convolutions % 2 == 0
            build = ResidualUnit if pair else convolution_unit
            first = not self.units
            self.units.append(build(config, inputs if first else channels, channels, stride if first else 1))
            convolutions -= 2 if pair else 1
        self.attention = ContextAttention(channels) if attention else None
        self.dropout = config.dropout

    def forward(self, x: Tensor, skipped: list[Tensor] | None = None, brains: Brains | None = None) -> Tensor:
        """Apply the units to ``x``, and add ``x`` if the configuration asks for residual blocks.

        Args:
            x: Features (B, C, D, H, W) of this level.
            skipped: Codes of the encoder by level, or None. The last one is removed from the list and concatenated
                before ``x``.
            brains: As for ``Unit``.
        """
        result = self.units[0](x, None, brains) if skipped is None else self.units[0](skipped.pop(), x, brains)
        for unit in self.units[1:]:
            result = unit(result, None, brains)
        if self.residual:
            result = result + x if torch.is_grad_enabled() else result.add_(x)
        if self.attention is not None:
            result = self.attention(result)
        return F.dropout3d(result, self.dropout, self.training) if self.dropout else result


class Down(nn.Module):
    """Step to half the size: a strided 2 x 2 x 2 convolution, or an average or maximum and a 1 x 1 x 1 convolution."""

    def __init__(self, config: NetworkConfig, inputs: int, outputs: int) -> None:
        super().__init__()
        self.pooling = config.down
        size = 2 if self.pooling == "strided" else 1
        self.unit = Unit(config, nn.Conv3d(inputs, outputs, size, stride=size, bias=_has_bias(config)), outputs)

    def forward(self, x: Tensor, brains: Brains | None = None) -> Tensor:
        """Halve the size of features (B, C, D, H, W)."""
        if self.pooling != "strided":
            x = F.max_pool3d(x, 2) if self.pooling == "max" else F.avg_pool3d(x.float(), 2).to(x.dtype)
        return self.unit(x, None, brains)


class Up(nn.Module):
    """Step to twice the size: a transposed 2 x 2 x 2, or a 1 x 1 x 1 convolution and trilinear interpolation."""

    def __init__(self, config: NetworkConfig, inputs: int, outputs: int) -> None:
        super().__init__()
        self.trilinear = config.up == "trilinear"
        if self.trilinear:
            convolution: nn.Conv3d | nn.ConvTranspose3d = nn.Conv3d(inputs, outputs, 1, bias=_has_bias(config))
        else:
            convolution = nn.ConvTranspose3d(inputs, outputs, 2, stride=2, bias=_has_bias(config))
        self.unit = Unit(config, convolution, outputs)

    def forward(self, x: Tensor, brains: Brains | None = None) -> Tensor:
        """Double the size of features (B, C, D, H, W)."""
        x = self.unit(x, None, brains)
        return F.interpolate(x, scale_factor=2, mode="trilinear") if self.trilinear else x


def _has_bias(config: NetworkConfig) -> bool:
    return config.normalisation == "none"  # a normalisation would remove the bias again
