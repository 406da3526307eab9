"""Building blocks: convolutions with normalisation and activation, steps down and up. Tensors are (B, C, D, H, W)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .configuration import NetworkConfig

SLOPE = 0.01
"""Of the leaky ReLU."""


class InstanceNorm(nn.Module):
    """Zero mean and unit variance of every channel of every study, then a learnt scale and shift.

    One batch normalisation a study: on a processor that is several times faster than ``nn.InstanceNorm3d``, and it
    keeps the channels-last format. Statistics are float32 also in bfloat16.
    """

    def __init__(self, channels: int, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        studies = [
            torch.batch_norm(study, self.weight, self.bias, None, None, True, 0.0, self.epsilon, False)
            for study in x.split(1)
        ]
        return studies[0] if len(studies) == 1 else torch.cat(studies)


class Unit(nn.Module):
    """Convolution, normalisation where the configuration has one, activation."""

    def __init__(self, config: NetworkConfig, convolution: nn.Module, channels: int) -> None:
        super().__init__()
        self.convolution = convolution
        self.normalisation = InstanceNorm(channels) if config.normalisation == "instance" else None
        self.slope = SLOPE if config.activation == "leaky_relu" else 0.0

    def forward(self, x: Tensor, beside: Tensor | None = None) -> Tensor:
        """Of ``x``, or of its concatenation with ``beside``, which needs not be made: convolutions are linear."""
        x = self.convolution(x) if beside is None else self._both(x, beside)
        if self.normalisation is not None:
            x = self.normalisation(x)
        return F.leaky_relu_(x, self.slope) if self.slope else F.relu_(x)

    def _both(self, x: Tensor, beside: Tensor) -> Tensor:
        convolution = self.convolution
        first, second = convolution.weight.split([x.shape[1], beside.shape[1]], dim=1)
        result = F.conv3d(x, first, convolution.bias, padding=convolution.padding)
        return result.add_(F.conv3d(beside, second, padding=convolution.padding))


def convolution_unit(config: NetworkConfig, inputs: int, outputs: int) -> Unit:
    """3x3x3, 'same' padding."""
    return Unit(config, nn.Conv3d(inputs, outputs, 3, padding=1, bias=_has_bias(config)), outputs)


class Block(nn.Module):
    """Some 3x3x3 units in a row; the first one may take a concatenation."""

    def __init__(self, config: NetworkConfig, inputs: int, channels: int, convolutions: int) -> None:
        super().__init__()
        self.residual = config.residual
        first = convolution_unit(config, inputs, channels)
        self.units = nn.ModuleList(
            [first, *(convolution_unit(config, channels, channels) for _ in range(convolutions - 1))]
        )

    def forward(self, x: Tensor, skipped: list[Tensor] | None = None) -> Tensor:
        """Units of ``x``, after the last of the ``skipped`` codes where given, which is taken off; plus ``x``."""
        result = self.units[0](x) if skipped is None else self.units[0](skipped.pop(), x)
        for unit in self.units[1:]:
            result = unit(result)
        if not self.residual:
            return result
        return result + x if torch.is_grad_enabled() else result.add_(x)


class Down(nn.Module):
    """Half the size: a strided 2x2x2 convolution, or an average and a 1x1x1 convolution."""

    def __init__(self, config: NetworkConfig, inputs: int, outputs: int) -> None:
        super().__init__()
        self.average = config.down == "average"
        size = 1 if self.average else 2
        self.unit = Unit(config, nn.Conv3d(inputs, outputs, size, stride=size, bias=_has_bias(config)), outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.unit(F.avg_pool3d(x, 2) if self.average else x)


class Up(nn.Module):
    """Twice the size: a transposed 2x2x2 convolution, or a 1x1x1 convolution and trilinear interpolation."""

    def __init__(self, config: NetworkConfig, inputs: int, outputs: int) -> None:
        super().__init__()
        self.trilinear = config.up == "trilinear"
        if self.trilinear:
            convolution: nn.Module = nn.Conv3d(inputs, outputs, 1, bias=_has_bias(config))
        else:
            convolution = nn.ConvTranspose3d(inputs, outputs, 2, stride=2, bias=_has_bias(config))
        self.unit = Unit(config, convolution, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.unit(x)
        return F.interpolate(x, scale_factor=2, mode="trilinear") if self.trilinear else x


def _has_bias(config: NetworkConfig) -> bool:
    return config.normalisation == "none"  # a normalisation takes it away again
