"""Normalised mutual information of two images from a differentiable joint histogram, with pathology masked out.

Sources: the normalised measure is that of Studholme et al., An overlap invariant entropy measure of 3D medical image
alignment, Pattern Recognition 32:71-86 (1999). The histogram with Parzen windows, of order zero for the fixed and cubic
B-splines for the moving image, is that of Mattes et al., PET-CT image registration in the chest using free-form
deformations, IEEE Transactions on Medical Imaging 22:120-128 (2003).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .comparison import varying_channels

BINS = 24
"""Bins of the histogram along each intensity axis; more of them follow noise rather than tissue in small images."""
_LEAST_PROBABILITY = 1e-12
"""Probability below which the logarithm is that of this value, so that empty bins have a finite derivative."""


@dataclass(frozen=True)
class MutualInformation:
    """Fixed images to be compared by normalised mutual information; see `comparison.Comparison`.

    Attributes:
        fixed: Fixed images (B, C, D, H, W).
        mask: Weights (B or 1, 1 or C, D, H, W) of the voxels in the histogram, or None.
        structured_share: 1, as entropies relate the information of the images to each other whatever the background.
    """

    fixed: Tensor
    mask: Tensor | None
    structured_share: float = 1.0

    def similarity(self, moving: Tensor) -> Tensor:
        """Compute (H(F) + H(M)) / H(F, M), from 1 for independent to 2 for perfectly matching images.

        Args:
            moving: Images (B, C, D, H, W) on the grid of the fixed ones.

        Returns:
            The mean over the channels that vary in both images where they count, and over the batch; 0 where there are
            none.
        """
        present = (varying_channels(self.fixed) & varying_channels(moving)).flatten(1)
        values = []
        for index, channel in torch.nonzero(present).tolist():
            weights = None
            if self.mask is not None:
                weights = self.mask.expand_as(self.fixed)[index, channel].flatten().to(self.fixed.dtype)
                if not bool((weights > 0).any()):
                    continue
            pair = self.fixed[index, channel].flatten(), moving[index, channel].flatten()
            if all(_varies(image, weights) for image in pair):
                values.append(normalized_mutual_information(*pair, weights))
        return torch.stack(values).mean() if values else 0 * moving.sum()


def prepare(fixed: Tensor, mask: Tensor | None, window: int, stride: int) -> MutualInformation:
    """Prepare a fixed image; see `similarity.Prepare`. Window and stride do not matter to a global measure."""
    return MutualInformation(fixed, mask)


def normalized_mutual_information(fixed: Tensor, moving: Tensor, weights: Tensor | None = None) -> Tensor:
    """Compute the normalised mutual information of paired intensities.

    The intensity ranges are those of the voxels with weight; their ends count as constants in the derivative.

    Args:
        fixed: Intensities of shape (n,).
        moving: Intensities of the same voxels, of shape (n,).
        weights: Weights of the voxels, of shape (n,), not all zero; None for equal ones.

    Returns:
        A scalar from 1 to 2 in the dtype of the intensities, with a gradient with respect to ``moving`` only; 1 if an
        image is constant.
    """
    with torch.no_grad():
        low, scale = _range(fixed, weights, BINS)
        bins = ((fixed - low) * scale).floor().clamp(0, BINS - 1).long()
        low, scale = _range(moving, weights, BINS - 3)  # so that the windows of all voxels lie in the histogram
    positions = ((moving - low) * scale).clamp(0, BINS - 3) + 1
    counts = _JointHistogram.apply(bins, positions, weights)
    joint = counts / counts.sum()
    marginals = _entropy(joint.sum(1)) + _entropy(joint.sum(0))
    return (marginals / _entropy(joint).clamp_min(_LEAST_PROBABILITY)).to(moving.dtype)


def _range(values: Tensor, weights: Tensor | None, bins: int) -> tuple[Tensor, Tensor]:
    """Return the smallest intensity of the voxels with weight, and the number of bins per unit of intensity."""
    used = values if weights is None else values[weights > 0]
    low, high = torch.aminmax(used)
    scale = bins / (high - low)
    return low, torch.where(scale.isfinite(), scale, 0)


def _varies(values: Tensor, weights: Tensor | None) -> bool:
    used = values.detach() if weights is None else values.detach()[weights > 0]
    low, high = torch.aminmax(used)
    return bool(high > low)


def _entropy(probabilities: Tensor) -> Tensor:
    return -(probabilities * probabilities.clamp_min(_LEAST_PROBABILITY).log()).sum()


class _JointHistogram(torch.autograd.Function):
    """Sum over the voxels of weight w, in bin i of the fixed image, of w times the cubic B-spline b(v - j) in column j.

    The derivative of a loss L with respect to the position v of a voxel is w times the sum over j of
    b'(v - j) dL/dh(i, j). The histogram is in float64: a bin of the background has too many voxels for float32.
    """

    @staticmethod
    def forward(ctx: Any, bins: Tensor, positions: Tensor, weights: Tensor | None) -> Tensor:
        ctx.save_for_backward(bins, positions, weights)
        counts = positions.new_zeros(BINS * BINS, dtype=torch.float64)
        for index, spline in _spline(bins, positions):
            values = spline if weights is None else spline * weights
            counts += torch.bincount(index, values.double(), BINS * BINS)
        return counts.view(BINS, BINS)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None]:
        bins, positions, weights = ctx.saved_tensors
        flat = gradient.to(positions.dtype).flatten()
        result = torch.zeros_like(positions)
        for index, slope in _spline(bins, positions, derivative=True):
            result.addcmul_(slope, flat[index])
        return None, result if weights is None else result * weights, None


def _spline(bins: Tensor, positions: Tensor, derivative: bool = False) -> list[tuple[Tensor, Tensor]]:
    """Evaluate the four cubic B-splines, or their derivatives, that are not zero at the positions (n,).

    Returns:
        For each of the four the index in the flattened histogram and the value, both of shape (n,).
    """
    knot = positions.floor().clamp_max(BINS - 3)
    t = positions - knot
    s = 1 - t
    if derivative:
        values = [s * s / -2, t * (3 * t - 4) / 2, s * (4 - 3 * s) / 2, t * t / 2]
    else:
        values = [s**3 / 6, (t * t * (3 * t - 6) + 4) / 6, (s * s * (3 * s - 6) + 4) / 6, t**3 / 6]
    first = bins * BINS + knot.long() - 1
    return [(first + step, value) for step, value in enumerate(values)]
