"""How much an image resembles the true one: peak signal-to-noise ratio and structural similarity, in a mask."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

WINDOW = 7
"""Edge in voxels of the cube over which the structural similarity compares means, variances and covariance."""


def psnr(image: Tensor, truth: Tensor, mask: Tensor) -> float:
    """Compute the peak signal-to-noise ratio in dB; the peak is the range of the true image in the mask.

    Args:
        image: Image (D, H, W).
        truth: True image (D, H, W).
        mask: Voxels that count (D, H, W), bool.
    """
    inside = truth[mask].double()
    error = (image[mask].double() - inside).square().mean()
    peak = inside.amax() - inside.amin()
    return float(20 * torch.log10(peak) - 10 * torch.log10(error.clamp_min(1e-20)))


def ssim(image: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """Compute the mean structural similarity (Wang et al. 2004) in a mask, with cubes of seven voxels.

    The dynamic range is that of the true image in the mask.

    Args:
        image: Image (D, H, W); the result has a gradient where it has one.
        truth: True image (D, H, W).
        mask: Voxels that count (D, H, W), bool.

    Returns:
        Number of at most 1, which is that of equal images.
    """
    inside = truth[mask]
    span = (inside.amax() - inside.amin()).clamp_min(1e-6)
    first, second = (0.01 * span) ** 2, (0.03 * span) ** 2
    parts = torch.stack([image, truth, image * image, truth * truth, image * truth])
    a, b, aa, bb, ab = _means(parts)
    likeness = (2 * a * b + first) * (2 * (ab - a * b) + second)
    likeness = likeness / ((a * a + b * b + first) * (aa - a * a + bb - b * b + second))
    return likeness[mask].mean()


def _means(values: Tensor) -> Tensor:
    """Means (n, D, H, W) over the window, axis by axis; at the border over the voxels that exist."""
    for axis in range(3):
        kernel, margin = [1, 1, 1], [0, 0, 0]
        kernel[axis], margin[axis] = WINDOW, WINDOW // 2
        values = F.avg_pool3d(values, kernel, 1, margin, count_include_pad=False)
    return values
