"""Linear operations on volumes that work along one axis after the other, as matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


def along_axes(images: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """(B, C, D, H, W) times one matrix (n, size) an axis, in the order of the axes: (B, C, n1, n2, n3)."""
    first, second, third = matrices
    batch, channels, depth, _, width = images.shape
    values = images.reshape(-1, width) @ third.t()
    values = second @ values.view(batch * channels, depth, -1, len(third))
    values = first @ values.view(batch * channels, depth, -1)
    return values.view(batch, channels, len(first), len(second), len(third))


def resize(images: Tensor, shape: Sequence[int]) -> Tensor:
    """Trilinear interpolation over the same field of view; the gradient is a matrix product as well."""
    sizes = zip(shape, images.shape[2:], strict=True)
    return along_axes(images, [_interpolation(new, old, images.dtype, images.device) for new, old in sizes])


def smooth(images: Tensor, sigma: float) -> Tensor:
    """Gaussian of ``sigma`` voxels; at the borders it is cut and its weights sum to 1 nevertheless."""
    return along_axes(images, [_gaussian(n, sigma, images.dtype, images.device) for n in images.shape[2:]])


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # kept for gradients later, whoever asks first
def _interpolation(new: int, old: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(new, old), the rows of ``interpolate`` with align_corners=False."""
    unit = torch.eye(old, dtype=dtype, device=device)[None]
    return F.interpolate(unit, size=new, mode="linear", align_corners=False)[0].t().contiguous()


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # kept for gradients later, whoever asks first
def _gaussian(size: int, sigma: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    voxels = torch.arange(size, dtype=dtype, device=device)
    rows = torch.exp(-0.5 * ((voxels - voxels[:, None]) / sigma).square())
    return rows / rows.sum(1, keepdim=True)
