"""Gaussian smoothing of volumes, one axis after the other, as products with small matrices.

A product with an (n, n) matrix is several times faster on a CPU than a convolution of one channel, and its gradient is
a matrix product as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, get_args

import torch
from torch import Tensor

Border = Literal["renormalize", "replicate", "zero"]
"""What the Gaussian meets beyond the first and the last voxel of an axis; see ``gaussian_matrix``."""


def gaussian_smooth(
    images: Tensor, sigma_voxels: float | Sequence[float], border: Border, truncate: float | None = None
) -> Tensor:
    """Smooth volumes with a Gaussian.

    Args:
        images: Volumes of shape (..., D, H, W), floating point.
        sigma_voxels: Standard deviation in voxels, one for all axes or one each for D, H and W; 0 leaves an axis as
            it is.
        border: What lies beyond the borders; see ``gaussian_matrix``.
        truncate: Where the Gaussian is cut off, in standard deviations; None keeps all of it.

    Returns:
        Smoothed volumes of the same shape.

    Raises:
        ValueError: The border rule is unknown, or a standard deviation is negative.
    """
    sigmas = [float(sigma_voxels)] * 3 if isinstance(sigma_voxels, (int, float)) else list(sigma_voxels)
    return along_axes(
        images,
        [
            gaussian_matrix(size, sigma, border, truncate, images.dtype, images.device)
            for size, sigma in zip(images.shape[-3:], sigmas, strict=True)
        ],
    )


def along_axes(images: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Multiply volumes by one matrix along each axis.

    Args:
        images: Volumes of shape (..., D, H, W).
        matrices: One matrix for each axis, of shapes (d, D), (h, H) and (w, W).

    Returns:
        Volumes of shape (..., d, h, w).
    """
    first, second, third = matrices
    depth, _, width = images.shape[-3:]
    leading = images.shape[:-3]
    count = leading.numel()
    values = images.reshape(-1, width) @ third.t()
    values = second @ values.view(count, depth, -1, len(third))
    values = first @ values.view(count, depth, -1)
    return values.view(*leading, len(first), len(second), len(third))


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # the cached matrix may serve a gradient later, whoever asks for it first
def gaussian_matrix(
    size: int,
    sigma: float,
    border: Border,
    truncate: float | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Build the matrix that smooths the values along one axis with a Gaussian.

    The matrix is kept for the next call: do not write to it.

    Args:
        size: Number of voxels along the axis.
        sigma: Standard deviation in voxels; 0 gives the identity.
        border: What lies beyond the first and the last voxel. ``"renormalize"``: nothing; the remaining weights are
            scaled so that they sum to 1. ``"replicate"``: the value of the border voxel. ``"zero"``: zeros, so that
            constants fade towards the border.
        truncate: Where the Gaussian is cut off, in standard deviations, but never closer than one voxel; None keeps
            all of it.
        dtype: Floating-point type of the matrix.
        device: Device of the matrix.

    Returns:
        Matrix of shape (size, size); row i holds the weights of voxel i.

    Raises:
        ValueError: The border rule is unknown, or the standard deviation is negative.
    """
    if border not in get_args(Border):
        raise ValueError(f"border rule '{border}' is unknown; use one of {', '.join(get_args(Border))}")
    if not sigma >= 0:
        raise ValueError(f"the standard deviation of a Gaussian is {sigma} voxels, but must not be negative")
    if sigma == 0:
        return torch.eye(size, dtype=dtype, device=device)
    position = torch.arange(size, dtype=dtype, device=device)
    distance = position - position[:, None]
    rows = _gaussian(distance, sigma)
    reach = math.ceil(6 * sigma) if truncate is None else max(1, round(truncate * sigma))
    if truncate is not None:
        rows = rows * (distance.abs() <= reach)
    if border == "renormalize":
        return rows / rows.sum(1, keepdim=True)
    kernel_position = torch.arange(-reach, reach + 1, dtype=dtype, device=device)
    kernel = _gaussian(kernel_position, sigma)
    if border == "replicate":
        beyond = (kernel_position > position[:, None]).to(dtype) @ kernel
        rows[:, 0] += beyond
        rows[:, -1] += beyond.flip(0)
    return rows / kernel.sum()


def _gaussian(distance: Tensor, sigma: float) -> Tensor:
    return torch.exp(-0.5 * (distance / sigma).square())
