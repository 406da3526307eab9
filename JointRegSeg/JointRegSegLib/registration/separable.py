"""Interpolation and smoothing of volumes along one axis after another, as matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from NeuroCESTLib.core.smoothing import along_axes, gaussian_smooth


def resize(images: Tensor, shape: Sequence[int]) -> Tensor:
    """Interpolate volumes trilinearly to another grid over the same field of view.

    The gradient is computed by matrix products as well.

    Args:
        images: Volumes (B, C, D, H, W).
        shape: Size (d, h, w) of the other grid.

    Returns:
        Volumes (B, C, d, h, w).
    """
    sizes = zip(shape, images.shape[2:], strict=True)
    return along_axes(images, [_interpolation(new, old, images.dtype, images.device) for new, old in sizes])


def smooth(images: Tensor, sigma: float) -> Tensor:
    """Smooth volumes with a Gaussian whose weights sum to 1 at the borders too.

    Args:
        images: Volumes (B, C, D, H, W).
        sigma: Standard deviation of the Gaussian in voxels.

    Returns:
        Volumes of the same shape.
    """
    return gaussian_smooth(images, sigma, border="renormalize")


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # The matrix is cached, and later calls may need gradients.
def _interpolation(new: int, old: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the weights (new, old) of linear ``interpolate`` with ``align_corners=False``."""
    unit = torch.eye(old, dtype=dtype, device=device)[None]
    return F.interpolate(unit, size=new, mode="linear", align_corners=False)[0].t().contiguous()
