"""Interpolation of spectra: shape-preserving piecewise cubics, each voxel at its own offsets.

Fritsch and Butland, SIAM J Sci Stat Comput 1984;5:300 (PCHIP): smooth, exact at the acquired offsets and
without the overshoots that an ordinary spline makes beside the water dip, which would appear as false
asymmetry.
"""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK_VOXELS = 16384


def sorted_spectra(z: Tensor, offsets_ppm: Tensor) -> tuple[Tensor, Tensor]:
    """Spectra (voxel, n) at ascending distinct offsets (n,); repeated offsets are averaged.

    Raises:
        ValueError: counts of offsets and measurements that differ.
    """
    if offsets_ppm.shape != z.shape[1:]:
        raise ValueError(f"offsets_ppm has {len(offsets_ppm)} values but the signal has {z.shape[1]} measurements")
    distinct, place = torch.unique(offsets_ppm.to(z), return_inverse=True)
    if len(distinct) == len(offsets_ppm):
        return z[:, torch.argsort(offsets_ppm)], distinct
    mean = z.new_zeros(len(z), len(distinct)).index_add_(1, place, z)
    return mean / torch.bincount(place), distinct


def slopes(z: Tensor, offsets_ppm: Tensor) -> Tensor:
    """PCHIP derivatives at the knots; (voxel, n) at ascending offsets (n,), n >= 2."""
    spacing = offsets_ppm.diff()
    secant = z.diff(dim=1) / spacing
    if len(spacing) == 1:
        return secant.expand(-1, 2)
    before, after = spacing[:-1], spacing[1:]
    near, far = 2 * after + before, after + 2 * before
    left, right = secant[:, :-1], secant[:, 1:]
    turning = left * right <= 0
    inner = (near + far) / torch.where(turning, 1.0, near / left + far / right)
    inner = torch.where(turning, 0.0, inner)
    first = _end_slope(spacing[0], spacing[1], secant[:, 0], secant[:, 1])
    last = _end_slope(spacing[-1], spacing[-2], secant[:, -1], secant[:, -2])
    return torch.cat((first.unsqueeze(1), inner, last.unsqueeze(1)), 1)


def _end_slope(width: Tensor, next_width: Tensor, secant: Tensor, next_secant: Tensor) -> Tensor:
    """Three-point derivative at an end, limited so that the curve stays monotone there."""
    slope = ((2 * width + next_width) * secant - width * next_secant) / (width + next_width)
    slope = torch.where(slope * secant <= 0, 0.0, slope)
    steep = (secant * next_secant <= 0) & (slope.abs() > 3 * secant.abs())
    return torch.where(steep, 3 * secant, slope)


def interpolate_spectra(z: Tensor, offsets_ppm: Tensor, at_ppm: Tensor) -> Tensor:
    """Z of every voxel at other offsets; NaN outside the acquired range.

    Args:
        z: (voxel, n); offsets_ppm: (n,), in any order.
        at_ppm: (k,) or (voxel, k).

    Returns:
        (voxel, k).
    """
    z, knots = sorted_spectra(z, offsets_ppm)
    if len(knots) < 2:
        raise ValueError("interpolation needs at least two different offsets")
    at_ppm = at_ppm.to(z).expand(len(z), at_ppm.shape[-1])
    parts = [
        _evaluate(z[first : first + CHUNK_VOXELS], knots, at_ppm[first : first + CHUNK_VOXELS])
        for first in range(0, len(z), CHUNK_VOXELS)
    ]
    return torch.cat(parts) if parts else at_ppm.clone()


def _evaluate(z: Tensor, knots: Tensor, at: Tensor) -> Tensor:
    """Cubic Hermite polynomials of the intervals that hold `at` (voxel, k)."""
    derivative = slopes(z, knots)
    interval = torch.searchsorted(knots, at.contiguous(), right=True).sub_(1).clamp_(0, len(knots) - 2)
    width = knots.diff()[interval]
    t = (at - knots[interval]) / width
    z0, z1 = z.gather(1, interval), z.gather(1, interval + 1)
    d0, d1 = derivative.gather(1, interval) * width, derivative.gather(1, interval + 1) * width
    rise = z1 - z0
    value = z0 + t * (d0 + t * (3 * rise - 2 * d0 - d1 + t * (d0 + d1 - 2 * rise)))
    slack = 1e-5 * (knots[-1] - knots[0])  # rounding of the offsets themselves
    outside = (at < knots[0] - slack) | (at > knots[-1] + slack) | at.isnan()
    return torch.where(outside, torch.nan, value)
