"""Convolutions that a block may have instead of the ordinary one, and attention to the context at several scales.

All features have the shape (B, C, D, H, W).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KERNELS = 4
"""Kernels that a dynamic convolution mixes."""
SCALES = (1, 2, 4)
"""Cells along each axis into which the context of the attention is averaged."""


class SeparableConv3d(nn.Module):
    """Depthwise 3 x 3 x 3 and pointwise 1 x 1 x 1 convolution in place of a full one (Howard et al. 2017)."""

    def __init__(self, inputs: int, outputs: int, bias: bool, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = nn.Conv3d(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=False)
        self.pointwise = nn.Conv3d(inputs, outputs, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve features."""
        return self.pointwise(self.depthwise(x))


class DynamicConv3d(nn.Module):
    """3 x 3 x 3 convolution with a kernel that each study mixes from several (Chen et al. 2020).

    The weights of the mixture come from the means of the channels through two linear layers and a softmax.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        hidden = max(4, inputs // 4)
        self.kernels = nn.Parameter(torch.empty(KERNELS, outputs, inputs, 3, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.squeeze = nn.Linear(inputs, hidden)
        self.mix = nn.Linear(hidden, KERNELS)
        nn.init.normal_(self.kernels, std=math.sqrt(2 / (27 * inputs)))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve the features of each study with its own kernel."""
        shares = self.mix(F.relu(self.squeeze(x.float().mean((2, 3, 4))))).softmax(1)
        kernels = torch.einsum("bk,koidhw->boidhw", shares, self.kernels.to(shares.dtype)).to(x.dtype)
        studies = [
            F.conv3d(study, kernel, None if self.bias is None else self.bias.to(x.dtype), self.stride, padding=1)
            for study, kernel in zip(x.split(1), kernels, strict=True)
        ]
        return studies[0] if len(studies) == 1 else torch.cat(studies)


class ContextAttention(nn.Module):
    """Features weighted voxel by voxel by their context: averages over the whole grid, its halves and its quarters."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(4, channels // 4)
        self.context = nn.ModuleList(nn.Conv3d(channels, hidden, 1) for _ in SCALES)
        self.here = nn.Conv3d(channels, hidden, 1)
        self.gate = nn.Conv3d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply features by weights from 0 to 2."""
        seen = self.here(x)
        for scale, convolution in zip(SCALES, self.context, strict=True):
            d, h, w = (min(scale, size) for size in x.shape[2:])
            coarse = convolution(F.adaptive_avg_pool3d(x, (d, h, w)))
            seen = seen + F.interpolate(coarse, x.shape[2:], mode="trilinear", align_corners=False)
        return x * (2 * torch.sigmoid(self.gate(F.relu(seen))))


CONVOLUTIONS = ("full", "separable", "dynamic")


def convolution(kind: str, inputs: int, outputs: int, bias: bool, stride: int = 1) -> nn.Module:
    """Build a 3 x 3 x 3 convolution of a kind; it divides the size by the stride."""
    if kind == "separable":
        return SeparableConv3d(inputs, outputs, bias, stride)
    if kind == "dynamic":
        return DynamicConv3d(inputs, outputs, bias, stride)
    return nn.Conv3d(inputs, outputs, 3, stride, padding=1, bias=bias)
