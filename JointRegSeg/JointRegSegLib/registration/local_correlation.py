"""Local normalised cross-correlation of two images, with pathology masked out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from NeuroCESTLib.core.smoothing import along_axes

from .comparison import at_least_float32, check_comparable, varying_channels

_NOISE_SHARE = 1e-4
"""Variance, as a share of the variance of the whole image, below which local structure counts as noise."""
_LEAST_SHARE = 1e-3
"""Least share of a window that must be unmasked for its statistics to be used."""


def lncc(fixed: Tensor, moving: Tensor, window: int = 9, mask: Tensor | None = None, stride: int = 1) -> Tensor:
    """Compute the mean squared local correlation coefficient of two images (Avants et al. 2008).

    Args:
        fixed: Images of shape (B, C, D, H, W). Channels that are constant in either image (absent modalities) do not
            count.
        moving: Images of the same shape.
        window: Edge of the boxes over which the statistics are taken, an odd number of voxels.
        mask: Weights of shape (B or 1, 1 or C, D, H, W). Voxels of zero weight are left out of the statistics of every
            box, and the mean over the boxes is weighted by the weight of their central voxel.
        stride: Spacing of the box centres along each axis, in voxels.

    Returns:
        A scalar from 0 to 1, in float32 at least; ``1 - lncc`` is the loss.

    Raises:
        ValueError: The images differ in shape, or the window is not an odd number.
    """
    check_comparable(fixed, moving)
    with torch.autocast(fixed.device.type, enabled=False):
        return prepare(at_least_float32(fixed), mask, window, stride).similarity(at_least_float32(moving))


def prepare(fixed: Tensor, mask: Tensor | None, window: int, stride: int) -> LocalStatistics:
    """Prepare a fixed image for the local correlation; see ``similarity.Prepare``."""
    return LocalStatistics.of(fixed, window, mask, stride)


@dataclass(frozen=True)
class BoxFilter:
    """Means over boxes, computed as products with one banded matrix per axis, each row of which averages one window.

    On the CPU, a product with an 80 x 80 matrix is faster than two passes of a running sum. It does not lose digits as
    the difference of two long sums does, and it needs no special treatment of the borders, where windows are cut off.

    Attributes:
        rows: Matrices of shape (centres, voxels), one for each axis.
    """

    rows: tuple[Tensor, Tensor, Tensor]

    @classmethod
    def of(cls, like: Tensor, window: int, stride: int = 1) -> BoxFilter:
        """Build the filter for images with the spatial shape (…, D, H, W), dtype and device of ``like``.

        Raises:
            ValueError: The window is not an odd number of voxels, or the stride is below 1.
        """
        if window < 1 or window % 2 == 0:
            raise ValueError(f"the window of the local correlation must be an odd number of voxels, not {window}")
        if stride < 1:
            raise ValueError(f"the stride of the local correlation must be at least 1, not {stride}")
        depth, height, width = (_band(n, window, stride, like.dtype, like.device) for n in like.shape[-3:])
        return cls((depth, height, width))

    def __call__(self, images: Tensor) -> Tensor:
        """Average images (B, C, D, H, W) over the box of each centre, giving (B, C, d, h, w)."""
        return along_axes(images, self.rows)

    def adjoint(self, values: Tensor) -> Tensor:
        """Apply the transposed filter to values (B, C, d, h, w), giving gradients (B, C, D, H, W)."""
        return along_axes(values, tuple(matrix.t() for matrix in self.rows))


@dataclass(frozen=True)
class LocalStatistics:
    """Local statistics of a fixed image, computed once for its correlation with many moving images.

    Attributes:
        image: Fixed images (B, C, D, H, W), shifted to zero mean.
        weights: Weights of the voxels (B, 1 or C, D, H, W); None for equal weights.
        share: Mean weight in each box (B, 1 or C, d, h, w); None for equal weights.
        mean: Local means (B, C, d, h, w).
        variance: Local variances of the same shape, plus a small constant for the noise.
        centers: Weight of each box in the result, of the same shape; 0 for channels without an image.
        filter: Filter that averages over the boxes.
    """

    image: Tensor
    weights: Tensor | None
    share: Tensor | None
    mean: Tensor
    variance: Tensor
    centers: Tensor
    filter: BoxFilter

    @classmethod
    def of(cls, fixed: Tensor, window: int = 9, mask: Tensor | None = None, stride: int = 1) -> LocalStatistics:
        """Compute the statistics of fixed images (B, C, D, H, W); the other arguments are those of ``lncc``."""
        box = BoxFilter.of(fixed, window, stride)
        image = fixed - fixed.detach().mean((2, 3, 4), keepdim=True)  # so that differences of squares lose few digits
        weights = share = None
        at_centers = image.new_ones((len(image), 1, *(len(rows) for rows in box.rows)))
        if mask is not None:
            weights = mask.to(image.dtype).expand(len(image), -1, -1, -1, -1)
            share = box(weights)
            depth, height, width = (central_voxels(n, stride) for n in weights.shape[2:])
            at_centers = weights[..., depth, height, width] * (share > _LEAST_SHARE)
            share = share.clamp_min(_LEAST_SHARE)
        mean, variance = _moments(image, weights, share, box)
        # Channels that are constant in the moving image are excluded later, when it is known.
        centers = at_centers.expand(-1, image.shape[1], -1, -1, -1) * _present(fixed)
        return cls(image, weights, share, mean, variance + _noise(image), centers, box)

    @property
    def structured_share(self) -> float:
        """Weighted fraction (0 to 1) of the boxes in which the fixed image has more structure than noise."""
        structured = self.centers * (self.variance > 2 * _noise(self.image))
        return float(structured.sum() / self.centers.sum().clamp_min(torch.finfo(self.centers.dtype).tiny))

    def similarity(self, moving: Tensor) -> Tensor:
        """Compute the mean squared local correlation with moving images (B, C, D, H, W), a scalar from 0 to 1."""
        return _LocalCorrelation.apply(self.image, moving, self)


class _LocalCorrelation(torch.autograd.Function):
    """The ratio c²/(ab) of the weighted local covariance c and variances a and b, and its gradient in closed form.

    I is the fixed image, J the moving image, w their weights and F the filter of means. Within one box the derivative
    dc/dJ(x) is ``w(x) (I(x) − mean I) / share`` times the box. Summed over all boxes, with p and r the derivatives of
    the result with respect to c and b, the gradient is ``w·(I·Fᵀp + J·2Fᵀr − Fᵀ(p·mean I + 2r·mean J))``. This takes
    three filters forward and three backward, and stores only a, b, c and the means.
    """

    @staticmethod
    def forward(ctx: Any, image: Tensor, moving: Tensor, fixed: LocalStatistics) -> Tensor:
        other = moving - moving.mean((2, 3, 4), keepdim=True)
        weighted = other if fixed.weights is None else other * fixed.weights
        channels = image.shape[1]
        sums = fixed.filter(torch.cat([weighted, weighted * other, weighted * image], 1))
        if fixed.share is not None:
            sums = sums / fixed.share.repeat(1, sums.shape[1] // fixed.share.shape[1], 1, 1, 1)
        mean, square, product = sums.split(channels, 1)
        variance = torch.addcmul(square, mean, mean, value=-1).clamp_min_(0).add_(_noise(other))
        covariance = torch.addcmul(product, mean, fixed.mean, value=-1)
        centers = fixed.centers * _present(moving)
        total = centers.sum((1, 2, 3, 4), keepdim=True) * len(image)
        centers = centers / total.clamp_min(torch.finfo(centers.dtype).tiny)
        ratio = covariance / (fixed.variance * variance)
        ctx.fixed = fixed
        ctx.save_for_backward(image, other, mean, variance, covariance, ratio, centers)
        return (centers * covariance * ratio).sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        image, other, mean, variance, covariance, ratio, centers = ctx.saved_tensors
        fixed: LocalStatistics = ctx.fixed
        scale = gradient * centers if fixed.share is None else gradient * centers / fixed.share
        by_covariance = 2 * scale * ratio
        half = by_covariance * covariance  # twice the derivative with respect to a variance is −half / variance

        def gradient_of(
            values: Tensor, mean: Tensor, variance: Tensor, partner: Tensor, partner_mean: Tensor
        ) -> Tensor:
            by_variance = -half / variance
            means = by_covariance * partner_mean + by_variance * mean
            first, second, third = fixed.filter.adjoint(torch.cat([by_covariance, by_variance, means], 1)).split(
                values.shape[1], 1
            )
            result = torch.addcmul(torch.addcmul(-third, partner, first), values, second)
            return result if fixed.weights is None else result * fixed.weights

        image_gradient = moving_gradient = None
        if ctx.needs_input_grad[0]:
            image_gradient = gradient_of(image, fixed.mean, fixed.variance, other, mean)
        if ctx.needs_input_grad[1]:
            moving_gradient = gradient_of(other, mean, variance, image, fixed.mean)
        return image_gradient, moving_gradient, None


def _moments(image: Tensor, weights: Tensor | None, share: Tensor | None, box: BoxFilter) -> tuple[Tensor, Tensor]:
    """Compute local means and variances without recording gradients."""
    with torch.no_grad():
        weighted = image if weights is None else image * weights
        mean, square = box(weighted), box(weighted * image)
        if share is not None:
            mean, square = mean / share, square / share
        return mean, (square - mean.square()).clamp_min_(0)


def _noise(image: Tensor) -> Tensor:
    """Return the variance (B, C, 1, 1, 1) that is added to every local one; it is positive even for constant images."""
    with torch.no_grad():
        centered = image - image.mean((2, 3, 4), keepdim=True)  # far faster than torch's variance
        square = torch.linalg.vector_norm(centered, dim=(2, 3, 4), keepdim=True).square()
        return (_NOISE_SHARE / image[0, 0].numel() * square).clamp_min(1e-12)


def _present(image: Tensor) -> Tensor:
    """Return 1 for channels that vary and 0 for constant ones, as (B, C, 1, 1, 1) in the dtype of the image."""
    return varying_channels(image).to(image.dtype)


def central_voxels(size: int, stride: int) -> slice:
    """Return a slice of every stride-th of ``size`` voxels, each in the middle of its stride."""
    return slice(min(stride // 2, (size - 1) // 2), None, stride)


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # The matrix is cached, and later calls may need gradients.
def _band(size: int, window: int, stride: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a matrix (centres, size) whose rows average the windows around every stride-th voxel."""
    voxels = torch.arange(size, device=device)
    rows = ((voxels - voxels[central_voxels(size, stride), None]).abs() <= window // 2).to(dtype)
    return rows / rows.sum(1, keepdim=True)
