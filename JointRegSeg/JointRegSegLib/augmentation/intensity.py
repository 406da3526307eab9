"""Intensity augmentation of single normalised images (D, H, W).

Every function takes an image that has the value ``outside`` outside of the brain mask and returns a new one that has
it too; ``clip`` ends the chain.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from NeuroCESTLib.core.smoothing import gaussian_smooth

from ..cohort.sample import OUTSIDE
from .spatial import smooth_field

HIGHEST = 6.0
"""Highest value of normalised images."""


def clip(image: Tensor, mask: Tensor, outside: float = OUTSIDE) -> Tensor:
    """The image between ``outside`` and ``HIGHEST`` in the mask, ``outside`` elsewhere."""
    return torch.where(mask, image.clamp(outside, HIGHEST), outside)


def add_noise(image: Tensor, mask: Tensor, sd: float, generator: torch.Generator, outside: float = OUTSIDE) -> Tensor:
    """White Gaussian noise inside the mask; ``sd`` in standard deviations of the brain."""
    noise = torch.randn(image.shape, generator=generator, device=generator.device).to(image)
    return torch.where(mask, image + noise.mul_(sd * _moments(image, mask)[1]), outside)


def bias_field(image: Tensor, mask: Tensor, coefficients: Tensor, spacing: float, outside: float = OUTSIDE) -> Tensor:
    """Multiply the intensity above the background by exp(field), the cubic B-spline field of (d, h, w) coefficients."""
    gain = smooth_field(coefficients[..., None], tuple(image.shape), spacing)[..., 0].exp_()
    return torch.where(mask, (image - outside) * gain + outside, outside)


def shift_and_contrast(image: Tensor, mask: Tensor, shift: float, contrast: float, outside: float = OUTSIDE) -> Tensor:
    """Distances from the mean of the brain times ``contrast``, plus ``shift`` standard deviations of the brain."""
    mean, sd = _moments(image, mask)
    return torch.where(mask, (image - mean) * contrast + (mean + shift * sd), outside)


def gamma(image: Tensor, mask: Tensor, exponent: float, outside: float = OUTSIDE) -> Tensor:
    """Bend the intensities of the brain between their extremes by a power; mean and standard deviation stay."""
    lowest = torch.where(mask, image, torch.inf).amin()
    highest = torch.where(mask, image, -torch.inf).amax()
    if not bool(highest > lowest):
        return image.clone()
    bent = ((image - lowest) / (highest - lowest)).clamp_(0, 1).pow_(exponent)
    mean, sd = _moments(image, mask)
    bent_mean, bent_sd = _moments(bent, mask)
    return torch.where(mask, (bent - bent_mean) * (sd / bent_sd.clamp(min=1e-6)) + mean, outside)


def blur(image: Tensor, mask: Tensor, sd_voxels: float, outside: float = OUTSIDE) -> Tensor:
    """Gaussian smoothing inside the brain; the outside takes no part."""
    both = torch.stack(((image - outside) * mask, mask.to(image.dtype)))
    both = gaussian_smooth(both, sd_voxels, border="zero")
    return _within(mask, both, outside)


def thick_slices(image: Tensor, mask: Tensor, axis: int, factor: float, outside: float = OUTSIDE) -> Tensor:
    """The image as if acquired with slices ``factor`` voxels thick along an axis and interpolated back."""
    size = list(image.shape)
    size[axis] = max(2, round(size[axis] / factor))
    both = torch.stack(((image - outside) * mask, mask.to(image.dtype)))[None]
    thick = F.adaptive_avg_pool3d(both, size)
    thin = F.interpolate(thick, size=tuple(image.shape), mode="trilinear", align_corners=False)[0]
    return _within(mask, thin, outside)


def _within(mask: Tensor, smoothed: Tensor, outside: float) -> Tensor:
    """Smoothed intensity above the background divided by the smoothed mask; the two are (2, D, H, W)."""
    return torch.where(mask, smoothed[0] / smoothed[1].clamp(min=1e-3) + outside, outside)


def _mean(image: Tensor, mask: Tensor) -> Tensor:
    return (image * mask).sum() / mask.sum().clamp(min=1)


def _moments(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    mean = _mean(image, mask)
    return mean, _mean((image - mean) ** 2, mask).sqrt()
