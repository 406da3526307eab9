"""Lower and higher resolution: the acquisition of larger voxels, interpolation, and the decoder that adds detail.

A voxel of the lower resolution is a block of voxels of the higher one, whose centre lies half a voxel away from the
centre of a fine voxel wherever the factor is even. Factors are along (D, H, W).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..images.normalization import ZSCORE_RANGE
from .brain_norm import Brains
from .configuration import NetworkConfig
from .heads import Decoder

BLURS = ("gaussian", "box")
UPSAMPLINGS = ("subpixel", "trilinear")
_FWHM = 2 * math.sqrt(2 * math.log(2))
OUTSIDE = ZSCORE_RANGE[0]
"""Value of standardised images outside the brain."""
LOWEST = OUTSIDE + 0.01
"""Lowest value of a standardised voxel of the brain."""


def degrade(images: Tensor, factor: tuple[int, int, int], blur: str = "gaussian") -> Tensor:
    """Turn images into those of an acquisition with larger voxels.

    ``gaussian`` stands for a slice profile whose full width at half maximum is the large voxel; the image is taken to
    have such a profile of one voxel already, and the variances add. ``box`` is the mean of the block. The background,
    which is the lowest value of each image, stays exact: a voxel less than half of which shows the brain has it.

    Args:
        images: Images (B, C, D, H, W), each of one value outside the brain.
        factor: Fine voxels of a block along (D, H, W), by which the sizes are divisible.
        blur: ``gaussian`` or ``box``.

    Returns:
        Images (B, C, D/f, H/f, W/f).
    """
    lowest = images.flatten(2).amin(2)[:, :, None, None, None]
    brain = (images > lowest).any(1, keepdim=True)
    values = torch.cat([images - lowest, brain.to(images.dtype)], 1)
    for axis, each in enumerate(factor):
        if each > 1:
            values = _blocks(values, axis + 2, each, _kernel(each, blur).to(values))
    images, share = values[:, :-1], values[:, -1:]
    return torch.where(share >= 0.5, images, 0) + lowest


def enlarge(images: Tensor, factor: tuple[int, int, int]) -> Tensor:
    """Interpolate images (B, C, d, h, w) linearly at the centres of the fine voxels of which theirs are blocks."""
    scale = [float(each) for each in factor]
    return F.interpolate(images, scale_factor=scale, mode="trilinear", align_corners=False)


def standardize(images: Tensor) -> tuple[Tensor, Tensor]:
    """Bring each image to zero mean and unit variance in its brain, which is where it is above its lowest value.

    Args:
        images: Images (B, C, D, H, W).

    Returns:
        The images, with the background at -3 (everywhere for one that is constant), and the standard deviations
        (B, C, 1, 1, 1), by which what is added to the standardised images is multiplied.
    """
    flat = images.flatten(2)
    inside = (flat > flat.amin(2, keepdim=True)).to(flat.dtype)
    count = inside.sum(2, keepdim=True).clamp_min(1)
    mean = (flat * inside).sum(2, keepdim=True) / count
    sd = (((flat - mean) * inside).square().sum(2, keepdim=True) / count).sqrt().clamp_min(1e-6)
    found = torch.where(inside > 0, ((flat - mean) / sd).clamp_min(LOWEST), OUTSIDE)
    return found.view_as(images), sd[..., None, None]


class DetailHead(nn.Module):
    """Decoder whose features at the coarse voxels become detail at the fine ones, which is added to the interpolation.

    ``subpixel`` (Shi et al. 2016) computes the fine voxels of a block as channels of the coarse one; ``trilinear``
    interpolates the features and convolves them at the fine voxels, which is slower.
    """

    def __init__(self, config: NetworkConfig, factor: tuple[int, int, int], up: str = "subpixel") -> None:
        super().__init__()
        self.factor, self.up = factor, up
        self.decoder = Decoder(config)
        channels, images = config.channels[0], len(config.modalities)
        self.hidden = nn.Conv3d(channels, channels, 3, padding=1)
        outputs = images * math.prod(factor) if up == "subpixel" else images
        self.output = nn.Conv3d(channels, outputs, 3, padding=1)

    def forward(self, codes: list[Tensor], brains: Brains | None, shape: tuple[int, ...]) -> Tensor:
        """Compute detail (B, images, D, H, W) from codes of which only the first ``shape`` (d, h, w) voxels count."""
        d, h, w = shape
        features = self.decoder(list(codes), brains)[-1][..., :d, :h, :w]
        if self.up == "trilinear":
            features = enlarge(features, self.factor)
        found = self.output(F.leaky_relu(self.hidden(features), 0.01))
        return shuffled(found, self.factor) if self.up == "subpixel" else found


def shuffled(values: Tensor, factor: tuple[int, int, int]) -> Tensor:
    """Arrange channels (B, C·f·f·f, d, h, w) as the fine voxels (B, C, D, H, W) of each coarse one."""
    batch, _, d, h, w = values.shape
    a, b, c = factor
    blocks = values.view(batch, -1, a, b, c, d, h, w).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return blocks.reshape(batch, -1, d * a, h * b, w * c)


def _kernel(factor: int, blur: str) -> Tensor:
    """Weights of the voxels of a block, and for a Gaussian of those beside it."""
    if blur == "box":
        return torch.full((factor,), 1 / factor)
    sigma = math.sqrt(factor**2 - 1) / _FWHM
    length = factor + 2 * math.ceil(3 * sigma)
    weights = torch.exp(-0.5 * ((torch.arange(length) - (length - 1) / 2) / sigma) ** 2)
    return weights / weights.sum()


def _blocks(values: Tensor, axis: int, factor: int, kernel: Tensor) -> Tensor:
    """Weighted means along an axis around the centre of each block of ``factor`` voxels; the borders are continued."""
    moved = values.movedim(axis, -1)
    margin = (len(kernel) - factor) // 2
    lines = F.pad(moved.reshape(-1, 1, moved.shape[-1]), (margin, margin), mode="replicate")
    found = F.conv1d(lines, kernel.view(1, 1, -1), stride=factor)
    return found.view(*moved.shape[:-1], -1).movedim(-1, axis)
