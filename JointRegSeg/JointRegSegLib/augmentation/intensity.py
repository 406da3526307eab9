"""Intensity augmentation of single normalised images (D, H, W).

Every function takes an image that has the value ``outside`` outside the brain mask, and returns a new image for which
the same holds. ``clip`` comes last.
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
    """Limit the image to values from ``outside`` to ``HIGHEST`` in the mask.

    Args:
        image: Image (D, H, W).
        mask: Brain (D, H, W) bool.
        outside: Value outside the brain.
    """
    return torch.where(mask, image.clamp(outside, HIGHEST), outside)


def add_noise(image: Tensor, mask: Tensor, sd: float, generator: torch.Generator, outside: float = OUTSIDE) -> Tensor:
    """Add white Gaussian noise inside the mask.

    Args:
        image: Image (D, H, W).
        mask: Brain (D, H, W) bool.
        sd: Standard deviation of the noise, in standard deviations of the brain.
        generator: Source of the noise.
        outside: Value outside the brain.
    """
    noise = torch.randn(image.shape, generator=generator, device=generator.device).to(image)
    return torch.where(mask, image + noise.mul_(sd * _moments(image, mask)[1]), outside)


def bias_field(image: Tensor, mask: Tensor, coefficients: Tensor, spacing: float, outside: float = OUTSIDE) -> Tensor:
    """Multiply the intensity above the background by exp(field) of a smooth field.

    Args:
        image: Image (D, H, W).
        mask: Brain (D, H, W) bool.
        coefficients: Coefficients (d, h, w) of the cubic B-spline field; see ``spatial.knots``.
        spacing: Knot spacing in voxels.
        outside: Value outside the brain.
    """
    d, h, w = image.shape
    gain = smooth_field(coefficients[..., None], (d, h, w), spacing)[..., 0].exp_()
    return torch.where(mask, (image - outside) * gain + outside, outside)


def shift_and_contrast(image: Tensor, mask: Tensor, shift: float, contrast: float, outside: float = OUTSIDE) -> Tensor:
    """Scale the distances from the mean of the brain, and shift them.

    Args:
        image: Image (D, H, W).
        mask: Brain (D, H, W) bool.
        shift: Shift in standard deviations of the brain.
        contrast: Factor of the distances from the mean.
        outside: Value outside the brain.
    """
    mean, sd = _moments(image, mask)
    return torch.where(mask, (image - mean) * contrast + (mean + shift * sd), outside)


def gamma(image: Tensor, mask: Tensor, exponent: float, outside: float = OUTSIDE) -> Tensor:
    """Raise the intensities of the brain, scaled from 0 to 1, to a power, and restore their mean and spread.

    Args:
        image: Image (D, H, W).
        mask: Brain (D, H, W) bool.
        exponent: Exponent of the power.
        outside: Value outside the brain.
    """
    lowest = torch.where(mask, image, torch.inf).amin()
    highest = torch.where(mask, image, -torch.inf).amax()
    if not bool(highest > lowest):
        return image.clone()
    bent = ((image - lowest) / (highest - lowest)).clamp_(0, 1).pow_(exponent)
    mean, sd = _moments(image, mask)
    bent_mean, bent_sd = _moments(bent, mask)
    return torch.where(mask, (bent - bent_mean) * (sd / bent_sd.clamp(min=1e-6)) + mean, outside)


def blur(image: Tensor, mask: Tensor, sd_voxels: float, outside: float = OUTSIDE) -> Tensor:
    """Smooth the brain with a Gaussian that leaves out everything outside the mask.

    Args:
        image: Image (D, H, W).
        mask: Brain (D, H, W) bool.
        sd_voxels: Standard deviation of the Gaussian in voxels.
        outside: Value outside the brain.
    """
    both = torch.stack(((image - outside) * mask, mask.to(image.dtype)))
    both = gaussian_smooth(both, sd_voxels, border="zero")
    return _within(mask, both, outside)


def thick_slices(image: Tensor, mask: Tensor, axis: int, factor: float, outside: float = OUTSIDE) -> Tensor:
    """Simulate an acquisition with thick slices that was interpolated back to the grid.

    Args:
        image: Image (D, H, W).
        mask: Brain (D, H, W) bool.
        axis: Axis perpendicular to the slices.
        factor: Slice thickness in voxels.
        outside: Value outside the brain.
    """
    d, h, w = (max(2, round(n / factor)) if k == axis else n for k, n in enumerate(image.shape))
    both = torch.stack(((image - outside) * mask, mask.to(image.dtype)))[None]
    thick = F.adaptive_avg_pool3d(both, (d, h, w))
    thin = F.interpolate(thick, size=tuple(image.shape), mode="trilinear", align_corners=False)[0]
    return _within(mask, thin, outside)


def _within(mask: Tensor, smoothed: Tensor, outside: float) -> Tensor:
    """Smoothed intensity above the background divided by the smoothed mask, which are stacked in (2, D, H, W)."""
    return torch.where(mask, smoothed[0] / smoothed[1].clamp(min=1e-3) + outside, outside)


def _mean(image: Tensor, mask: Tensor) -> Tensor:
    return (image * mask).sum() / mask.sum().clamp(min=1)


def _moments(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation in the mask."""
    mean = _mean(image, mask)
    return mean, _mean((image - mean) ** 2, mask).sqrt()
