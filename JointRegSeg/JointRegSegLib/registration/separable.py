"""Interpolation and smoothing of volumes along one axis after the other, as matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from NeuroCESTLib.core.smoothing import along_axes, gaussian_smooth


def resize(images: Tensor, shape: Sequence[int]) -> Tensor:
    """Interpolate volumes (B, C, D, H, W) trilinearly to another shape over the same field of view.

    The gradient is computed by matrix products as well.
    """
    sizes = zip(shape, images.shape[2:], strict=True)
    return along_axes(images, [_interpolation(new, old, images.dtype, images.device) for new, old in sizes])


def smooth(images: Tensor, sigma: float) -> Tensor:
    """Smooth volumes (B, C, D, H, W) with a Gaussian of ``sigma`` voxels whose weights sum to 1 at the borders too."""
    return gaussian_smooth(images, sigma, border="renormalize")


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # The matrix is cached, and later calls may need gradients.
def _interpolation(new: int, old: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Weights (new, old) of linear ``interpolate`` with align_corners=False."""
    unit = torch.eye(old, dtype=dtype, device=device)[None]
    return F.interpolate(unit, size=new, mode="linear", align_corners=False)[0].t().contiguous()
