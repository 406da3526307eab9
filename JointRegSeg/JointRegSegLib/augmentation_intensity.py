"""Intensity augmentation of single normalised images (D, H, W).

Every function takes an image that is ``OUTSIDE`` outside of the brain mask and returns a new one that is so too;
``clip`` at the end of the chain brings the values back to the range of normalised images.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .augmentation_spatial import smooth_field
from .study_sample import OUTSIDE

HIGHEST = 6.0
"""Highest value of normalised images."""


def clip(image: Tensor, mask: Tensor) -> Tensor:
    """The image within [``OUTSIDE``, ``HIGHEST``] in the mask, ``OUTSIDE`` elsewhere."""
    return torch.where(mask, image.clamp(OUTSIDE, HIGHEST), OUTSIDE)


def add_noise(image: Tensor, mask: Tensor, sd: float, generator: torch.Generator) -> Tensor:
    """White Gaussian noise of the given standard deviation (in standard deviations of the brain) inside the mask."""
    noise = torch.randn(image.shape, generator=generator, device=generator.device).to(image)
    return torch.where(mask, image + noise.mul_(sd), OUTSIDE)


def bias_field(image: Tensor, mask: Tensor, coefficients: Tensor, spacing: float) -> Tensor:
    """Multiply the intensity above the background by exp(field), the cubic B-spline field of (d, h, w) coefficients."""
    gain = smooth_field(coefficients[..., None], tuple(image.shape), spacing)[..., 0].exp_()
    return torch.where(mask, (image - OUTSIDE) * gain + OUTSIDE, OUTSIDE)


def shift_and_contrast(image: Tensor, mask: Tensor, shift: float, contrast: float) -> Tensor:
    """Distances from the mean of the brain times ``contrast``, plus ``shift``."""
    mean = _mean(image, mask)
    return torch.where(mask, (image - mean) * contrast + (mean + shift), OUTSIDE)


def gamma(image: Tensor, mask: Tensor, exponent: float) -> Tensor:
    """Bend the intensities of the brain between their extremes by a power; mean and standard deviation stay."""
    lowest = torch.where(mask, image, torch.inf).amin()
    highest = image.amax()  # the outside has the lowest value there is
    span = highest - lowest
    if not bool(span > 0):
        return image.clone()
    bent = ((image - lowest) / span).clamp_(0, 1).pow_(exponent)
    mean, sd = _moments(image, mask)
    bent_mean, bent_sd = _moments(bent, mask)
    return torch.where(mask, (bent - bent_mean) * (sd / bent_sd.clamp(min=1e-6)) + mean, OUTSIDE)


def blur(image: Tensor, mask: Tensor, sd_voxels: float) -> Tensor:
    """Gaussian smoothing inside the brain; the outside takes no part."""
    both = torch.stack(((image - OUTSIDE) * mask, mask.to(image.dtype)))
    rows = [_gaussian_rows(n, sd_voxels, image) for n in image.shape]
    # As products with band matrices, which are much faster than convolutions of one channel.
    both = rows[1] @ (both @ rows[2])
    both = rows[0] @ both.flatten(2)
    both = both.view(2, *image.shape)
    return _above_background(both[0], both[1], mask)


def thick_slices(image: Tensor, mask: Tensor, axis: int, factor: float) -> Tensor:
    """The image as if acquired with slices ``factor`` voxels thick along an axis and interpolated back."""
    size = list(image.shape)
    size[axis] = max(2, round(size[axis] / factor))
    both = torch.stack(((image - OUTSIDE) * mask, mask.to(image.dtype)))[None]
    thick = F.adaptive_avg_pool3d(both, size)
    thin = F.interpolate(thick, size=tuple(image.shape), mode="trilinear", align_corners=False)[0]
    return _above_background(thin[0], thin[1], mask)


def _gaussian_rows(length: int, sd: float, like: Tensor) -> Tensor:
    """(n, n) symmetric matrix that smooths along an axis; beyond the ends there is nothing."""
    position = torch.arange(length, dtype=like.dtype, device=like.device)
    weights = torch.exp(-0.5 * ((position[:, None] - position) / sd) ** 2)
    reach = torch.arange(-math.ceil(6 * sd), math.ceil(6 * sd) + 1, dtype=like.dtype, device=like.device)
    return weights / torch.exp(-0.5 * (reach / sd) ** 2).sum()


def _above_background(intensity: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, intensity / weight.clamp(min=1e-3) + OUTSIDE, OUTSIDE)


def _mean(image: Tensor, mask: Tensor) -> Tensor:
    return (image * mask).sum() / mask.sum().clamp(min=1)


def _moments(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    mean = _mean(image, mask)
    return mean, _mean((image - mean) ** 2, mask).sqrt()
