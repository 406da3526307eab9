"""How alike two images are: local correlation and mean squared difference, both with pathology masked out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from NeuroCESTLib.core.smoothing import along_axes

_NOISE_SHARE = 1e-4
"""Variance, as a share of the image's own, below which structure counts as noise and correlates with nothing."""
_LEAST_SHARE = 1e-3
"""Least share of a window that must not be masked for its statistics to be used."""


def lncc(fixed: Tensor, moving: Tensor, window: int = 9, mask: Tensor | None = None, stride: int = 1) -> Tensor:
    """Mean squared local correlation of two images (B, C, D, H, W), from 0 to 1; 1 − lncc is the loss.

    Statistics are those of a box of ``window`` voxels about every voxel, or about every ``stride``-th one along each
    axis. Voxels of zero weight in ``mask`` (B or 1, 1 or C, D, H, W) are left out of the statistics of every box, and
    the mean is over voxels in proportion to their weight. Channels that are constant in either image (absent
    modalities) do not count. Source: Avants et al. 2008, with the squared coefficient.
    """
    if fixed.shape != moving.shape:
        raise ValueError(f"images of shapes {tuple(fixed.shape)} and {tuple(moving.shape)} cannot be compared")
    with torch.autocast(fixed.device.type, enabled=False):
        statistics = LocalStatistics.of(_at_least_float32(fixed), window, mask, stride)
        return statistics.correlation(_at_least_float32(moving))


def masked_mse(fixed: Tensor, moving: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean over channels and voxels of (fixed − moving)², weighted by a mask (B or 1, 1 or C, D, H, W).

    Of an empty mask it is 0.
    """
    if fixed.shape != moving.shape:
        raise ValueError(f"images of shapes {tuple(fixed.shape)} and {tuple(moving.shape)} cannot be compared")
    squares = (fixed - moving).square()
    if mask is None:
        return squares.mean()
    weights = mask.to(squares.dtype).expand_as(squares)
    return (weights * squares).sum() / weights.sum().clamp_min(torch.finfo(squares.dtype).tiny)


@dataclass(frozen=True)
class BoxFilter:
    """Means over boxes, computed as products with banded matrices, one an axis: each row averages one window.

    On processors a product with an 80 x 80 matrix is faster than two passes of a running sum, and it neither loses
    digits as the difference of two long sums does, nor treats the borders apart: windows there are cut.
    """

    rows: tuple[Tensor, Tensor, Tensor]
    """Per axis (centres, voxels)."""

    @classmethod
    def of(cls, like: Tensor, window: int, stride: int = 1) -> BoxFilter:
        """For images shaped (…, D, H, W), with the dtype and device of ``like``."""
        if window < 1 or window % 2 == 0:
            raise ValueError(f"the window of the local correlation must be an odd number of voxels, not {window}")
        if stride < 1:
            raise ValueError(f"the stride of the local correlation must be at least 1, not {stride}")
        return cls(tuple(_band(n, window, stride, like.dtype, like.device) for n in like.shape[-3:]))

    def __call__(self, images: Tensor) -> Tensor:
        """(B, C, D, H, W) to the means at the centres (B, C, d, h, w)."""
        return along_axes(images, self.rows)

    def adjoint(self, values: Tensor) -> Tensor:
        """(B, C, d, h, w) back to all voxels: the gradient of the sum of products with ``values``."""
        return along_axes(values, tuple(matrix.t() for matrix in self.rows))


@dataclass(frozen=True)
class LocalStatistics:
    """Of a fixed image, what its local correlation with any moving image needs again and again."""

    image: Tensor  # (B, C, D, H, W), about zero
    weights: Tensor | None  # (B, 1 or C, D, H, W)
    share: Tensor | None  # weight in each box
    mean: Tensor  # (B, C, d, h, w)
    variance: Tensor  # with the noise added
    centres: Tensor  # weight of each box in the result, which sum to 1 over channels and voxels, mean over the batch
    filter: BoxFilter

    @classmethod
    def of(cls, fixed: Tensor, window: int = 9, mask: Tensor | None = None, stride: int = 1) -> LocalStatistics:
        """See :func:`lncc`."""
        box = BoxFilter.of(fixed, window, stride)
        image = fixed - fixed.detach().mean((2, 3, 4), keepdim=True)  # few digits are lost in squares about the mean
        weights = share = None
        at_centres = image.new_ones((len(image), 1, *(len(rows) for rows in box.rows)))
        if mask is not None:
            weights = mask.to(image.dtype).expand(len(image), -1, -1, -1, -1)
            share = box(weights)
            every = tuple(_centres(n, stride) for n in weights.shape[2:])
            at_centres = weights[(..., *every)] * (share > _LEAST_SHARE)
            share = share.clamp_min(_LEAST_SHARE)
        mean, variance = _moments(image, weights, share, box)
        # which channels count depends on both images; those of the moving one join when it is known
        centres = at_centres.expand(-1, image.shape[1], -1, -1, -1) * _present(fixed)
        return cls(image, weights, share, mean, variance + _noise(image), centres, box)

    @property
    def structured_share(self) -> float:
        """Share of the boxes that count in which the image has more structure than noise."""
        structured = self.centres * (self.variance > 2 * _noise(self.image))
        return float(structured.sum() / self.centres.sum().clamp_min(torch.finfo(self.centres.dtype).tiny))

    def correlation(self, moving: Tensor) -> Tensor:
        """Mean squared local correlation with an image (B, C, D, H, W)."""
        return _LocalCorrelation.apply(self.image, moving, self)


class _LocalCorrelation(torch.autograd.Function):
    """c²/(ab) of weighted local covariance c and variances a, b, and its gradient in closed form.

    With F the filter of means, dc/dJ(x) of a box is w(x)(I(x) − mean I)/share times the box; summed over boxes with
    factors p for c and r for b the gradient is w·(I·Fᵀp + J·2Fᵀr − Fᵀ(p·mean I + 2r·mean J)). Three filters forward,
    three backward, and no more kept than a, b, c and the means.
    """

    @staticmethod
    def forward(ctx, image: Tensor, moving: Tensor, fixed: LocalStatistics) -> Tensor:
        other = moving - moving.mean((2, 3, 4), keepdim=True)
        weighted = other if fixed.weights is None else other * fixed.weights
        channels = image.shape[1]
        sums = fixed.filter(torch.cat([weighted, weighted * other, weighted * image], 1))
        if fixed.share is not None:
            sums = sums / fixed.share.repeat(1, sums.shape[1] // fixed.share.shape[1], 1, 1, 1)
        mean, square, product = sums.split(channels, 1)
        variance = torch.addcmul(square, mean, mean, value=-1).clamp_min_(0).add_(_noise(other))
        covariance = torch.addcmul(product, mean, fixed.mean, value=-1)
        centres = fixed.centres * _present(moving)
        total = centres.sum((1, 2, 3, 4), keepdim=True) * len(image)
        centres = centres / total.clamp_min(torch.finfo(centres.dtype).tiny)
        ratio = covariance / (fixed.variance * variance)
        ctx.fixed = fixed
        ctx.save_for_backward(image, other, mean, variance, covariance, ratio, centres)
        return (centres * covariance * ratio).sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        image, other, mean, variance, covariance, ratio, centres = ctx.saved_tensors
        fixed: LocalStatistics = ctx.fixed
        scale = gradient * centres if fixed.share is None else gradient * centres / fixed.share
        by_covariance = 2 * scale * ratio
        half = by_covariance * covariance  # twice the derivative with respect to a variance is −half / variance

        def toward(own: Tensor, own_mean: Tensor, own_variance: Tensor, peer: Tensor, peer_mean: Tensor) -> Tensor:
            by_variance = -half / own_variance
            means = by_covariance * peer_mean + by_variance * own_mean
            first, second, third = fixed.filter.adjoint(torch.cat([by_covariance, by_variance, means], 1)).split(
                own.shape[1], 1
            )
            result = torch.addcmul(torch.addcmul(-third, peer, first), own, second)
            return result if fixed.weights is None else result * fixed.weights

        of_image = of_moving = None
        if ctx.needs_input_grad[0]:
            of_image = toward(image, fixed.mean, fixed.variance, other, mean)
        if ctx.needs_input_grad[1]:
            of_moving = toward(other, mean, variance, image, fixed.mean)
        return of_image, of_moving, None


def _moments(image: Tensor, weights: Tensor | None, share: Tensor | None, box: BoxFilter) -> tuple[Tensor, Tensor]:
    """Local mean and variance, without a graph."""
    with torch.no_grad():
        weighted = image if weights is None else image * weights
        mean, square = box(weighted), box(weighted * image)
        if share is not None:
            mean, square = mean / share, square / share
        return mean, (square - mean.square()).clamp_min_(0)


def _noise(image: Tensor) -> Tensor:
    """(B, C, 1, 1, 1): variance added to every local one; positive for constant images too."""
    with torch.no_grad():
        return _NOISE_SHARE * image.var((2, 3, 4), correction=0, keepdim=True).clamp_min(1e-12)


def _present(image: Tensor) -> Tensor:
    """(B, C, 1, 1, 1): 1 for channels that vary, 0 for constant ones."""
    flat = image.detach().flatten(2)
    return (flat.amax(2) > flat.amin(2)).to(image.dtype).view(*image.shape[:2], 1, 1, 1)


def _centres(size: int, stride: int) -> slice:
    """Every stride-th of ``size`` voxels, in the middle of its stride."""
    return slice(min(stride // 2, (size - 1) // 2), None, stride)


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # kept for gradients later, whoever asks first
def _band(size: int, window: int, stride: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(centres, size): rows that average the voxels within ``window`` about every stride-th voxel."""
    voxels = torch.arange(size, device=device)
    rows = ((voxels - voxels[_centres(size, stride), None]).abs() <= window // 2).to(dtype)
    return rows / rows.sum(1, keepdim=True)


def _at_least_float32(image: Tensor) -> Tensor:
    return image if image.dtype == torch.float64 else image.float()
