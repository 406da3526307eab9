"""Building blocks of the network: convolutions with normalisation and activation, and the steps between the levels.

All tensors have the shape (B, C, D, H, W).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .brain_norm import Brains, normalize_in_brain
from .configuration import NetworkConfig

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
    """Convolution, then a normalisation if the configuration has one, then an activation."""

    # The names of the submodules, such as normalisation, are part of the names of the weights in files.
    def __init__(self, config: NetworkConfig, convolution: nn.Conv3d | nn.ConvTranspose3d, channels: int) -> None:
        super().__init__()
        self.convolution = convolution
        self.normalisation = None if config.normalisation == "none" else InstanceNorm(channels)
        self.slope = SLOPE if config.activation == "leaky_relu" else 0.0

    def forward(self, x: Tensor, beside: Tensor | None = None, brains: Brains | None = None) -> Tensor:
        """Apply the unit to features, or to the concatenation of two sets of features.

        As convolutions are linear, the two parts are convolved one after the other and added, without making the
        concatenation.

        Args:
            x: Features (B, C, D, H, W).
            beside: Features of the same size that follow ``x`` along the channels, or None.
            brains: Brains by whose statistics the result is normalised; None for those of the whole grid.
        """
        x = self.convolution(x) if beside is None else self._convolve_both(x, beside)
        if self.normalisation is not None:
            x = self.normalisation(x, brains)
        return F.leaky_relu_(x, self.slope) if self.slope else F.relu_(x)

    def _convolve_both(self, x: Tensor, beside: Tensor) -> Tensor:
        convolution = self.convolution
        if not isinstance(convolution, nn.Conv3d):
            raise TypeError("only an ordinary convolution can be applied to a concatenation")
        first, second = convolution.weight.split([x.shape[1], beside.shape[1]], dim=1)
        result = F.conv3d(x, first, convolution.bias, padding=convolution.padding)
        return result.add_(F.conv3d(beside, second, padding=convolution.padding))


def convolution_unit(config: NetworkConfig, inputs: int, outputs: int) -> Unit:
    """Build a unit with a 3 x 3 x 3 convolution that keeps the size."""
    return Unit(config, nn.Conv3d(inputs, outputs, 3, padding=1, bias=_has_bias(config)), outputs)


class Block(nn.Module):
    """Several 3 x 3 x 3 units in a row; the first may be applied to a concatenation."""

    def __init__(self, config: NetworkConfig, inputs: int, channels: int, convolutions: int) -> None:
        super().__init__()
        self.residual = config.residual
        first = convolution_unit(config, inputs, channels)
        self.units = nn.ModuleList(
            [first, *(convolution_unit(config, channels, channels) for _ in range(convolutions - 1))]
        )

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
        if not self.residual:
            return result
        return result + x if torch.is_grad_enabled() else result.add_(x)


class Down(nn.Module):
    """Step to half the size: a strided 2 x 2 x 2 convolution, or an average and a 1 x 1 x 1 convolution."""

    def __init__(self, config: NetworkConfig, inputs: int, outputs: int) -> None:
        super().__init__()
        self.average = config.down == "average"
        size = 1 if self.average else 2
        self.unit = Unit(config, nn.Conv3d(inputs, outputs, size, stride=size, bias=_has_bias(config)), outputs)

    def forward(self, x: Tensor, brains: Brains | None = None) -> Tensor:
        """Halve the size of features (B, C, D, H, W)."""
        return self.unit(F.avg_pool3d(x, 2) if self.average else x, None, brains)


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
