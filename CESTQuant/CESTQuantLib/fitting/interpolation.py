"""Interpolation of spectra by shape-preserving piecewise cubics (PCHIP), at offsets of each voxel's own.

Fritsch and Butland, SIAM J Sci Stat Comput 1984;5:300. The curve is smooth, exact at the acquired offsets, and has none
of the overshoots that an ordinary spline makes beside the water dip, which would appear as false asymmetry.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from NeuroCESTLib.core.messages.input_errors import InputError

CHUNK_VOXELS = 16384
"""Voxels that are interpolated at a time."""
SAME_OFFSET_PPM = 2e-3
"""Offsets that differ by no more than this are repeats of one, written with different rounding."""
NEAREST_TO_WATER_PPM = 0.5
"""Distance from 0 ppm within which an offset must lie for spectra to be interpolated across the water line."""
SAME_NODE_PPM = 0.045
"""Measurements within this range make one node of a parabola, so that close nodes do not amplify the noise."""


def distinct_offsets(offsets_ppm: Tensor) -> Tensor:
    """Return the different offsets (n,), ascending; those that differ only by their rounding count as one."""
    return _averaged(offsets_ppm.unsqueeze(0), offsets_ppm, SAME_OFFSET_PPM)[1]


def numbered_offsets(offsets_ppm: Tensor, same_ppm: float = SAME_OFFSET_PPM) -> list[int]:
    """Return for every measurement the number of its distinct offset, from 0 in ascending order.

    Args:
        offsets_ppm: (measurement,), in any order.
        same_ppm: Range within which offsets are repeats of one.
    """
    values = offsets_ppm.tolist()
    numbers = [0] * len(values)
    number, lowest = -1, -float("inf")
    for index in sorted(range(len(values)), key=values.__getitem__):
        if values[index] - lowest > same_ppm:
            number, lowest = number + 1, values[index]
        numbers[index] = number
    return numbers


def distinct_counts(offsets_ppm: Tensor, used: Tensor) -> Tensor:
    """Count the different offsets that every voxel uses, as ``distinct_offsets`` tells them apart.

    Args:
        offsets_ppm: (measurement,) or (voxel, measurement), in any order.
        used: (voxel, measurement) bool.

    Returns:
        (voxel,) int64.
    """
    counts = torch.zeros(len(used), dtype=torch.int64, device=used.device)
    for first in range(0, len(used), CHUNK_VOXELS):
        some = slice(first, first + CHUNK_VOXELS)
        offsets = offsets_ppm if offsets_ppm.ndim == 1 else offsets_ppm[some]
        ascending = torch.where(used[some], offsets, torch.inf).sort(1).values
        lowest = torch.full_like(ascending[:, 0], -torch.inf)
        for column in ascending.T:
            is_new = column.isfinite() & (column - lowest > SAME_OFFSET_PPM)
            lowest = torch.where(is_new, column, lowest)
            counts[some] += is_new
    return counts


def sorted_spectra(z: Tensor, offsets_ppm: Tensor) -> tuple[Tensor, Tensor]:
    """Sort spectra by offset and average repeated offsets.

    Args:
        z: (voxel, offset).
        offsets_ppm: (offset,), in any order.

    Returns:
        The spectra (voxel, n) and their n distinct offsets (n,), ascending, over the whole acquired range.

    Raises:
        ValueError: The numbers of offsets and measurements differ.
    """
    if offsets_ppm.shape != z.shape[1:]:
        raise ValueError(f"offsets_ppm has {len(offsets_ppm)} values but the signal has {z.shape[1]} measurements")
    z, distinct = _averaged(z, offsets_ppm, SAME_OFFSET_PPM)
    if len(distinct) > 1:  # the mean of repeats would lie inside of the acquired range
        distinct[0], distinct[-1] = offsets_ppm.min(), offsets_ppm.max()
    return z, distinct


def _averaged(z: Tensor, offsets_ppm: Tensor, within_ppm: float) -> tuple[Tensor, Tensor]:
    """Spectra (voxel, n) and offsets (n,), ascending, with the mean of those that lie within a range."""
    order = torch.argsort(offsets_ppm)
    ascending = offsets_ppm.to(z)[order]
    place = numbered_offsets(ascending, within_ppm)
    lowest = [index for index, number in enumerate(place) if index == 0 or number != place[index - 1]]
    if len(lowest) == len(place):
        return z[:, order], ascending
    group = torch.tensor(place, device=z.device)
    count = torch.bincount(group)
    first = ascending[lowest]
    mean = z.new_zeros(len(z), len(lowest)).index_add_(1, group, z[:, order]) / count
    beyond = torch.zeros_like(first).index_add_(0, group, ascending - first[group])
    return mean, first + beyond / count


def pchip_slopes(z: Tensor, offsets_ppm: Tensor) -> Tensor:
    """Estimate the derivatives at the knots of the cubics.

    Args:
        z: (voxel, n).
        offsets_ppm: (n,), ascending.

    Returns:
        (voxel, n), in 1/ppm; zero for a single knot.
    """
    if len(offsets_ppm) == 1:
        return torch.zeros_like(z)
    spacing = offsets_ppm.diff()
    secant = z.diff(dim=1) / spacing
    if len(spacing) == 1:
        return secant.expand(-1, 2)
    before, after = spacing[:-1], spacing[1:]
    left_weight, right_weight = 2 * after + before, after + 2 * before
    left, right = secant[:, :-1], secant[:, 1:]
    turning = left * right <= 0  # the slope at an extremum is zero
    # Elsewhere it is a weighted harmonic mean of the secants on both sides. At an extremum these are replaced by 1,
    # because a secant of 0 would make the derivatives NaN.
    left, right = (torch.where(turning, 1.0, side) for side in (left, right))
    inner = (left_weight + right_weight) / (left_weight / left + right_weight / right)
    inner = torch.where(turning, 0.0, inner)
    first = _end_slope(spacing[0], spacing[1], secant[:, 0], secant[:, 1])
    last = _end_slope(spacing[-1], spacing[-2], secant[:, -1], secant[:, -2])
    return torch.cat((first.unsqueeze(1), inner, last.unsqueeze(1)), 1)


def _end_slope(width: Tensor, next_width: Tensor, secant: Tensor, next_secant: Tensor) -> Tensor:
    """Estimate the derivative at an end from three points, limited so that the curve stays monotone there."""
    slope = ((2 * width + next_width) * secant - width * next_secant) / (width + next_width)
    slope = torch.where(slope * secant <= 0, 0.0, slope)
    steep = (secant * next_secant <= 0) & (slope.abs() > 3 * secant.abs())
    return torch.where(steep, 3 * secant, slope)


def water_gap(offsets_ppm: Tensor) -> tuple[float, float] | None:
    """Return the two offsets between which the water line was not acquired.

    Nothing is known of a spectrum between them: its deepest point lies there.

    Args:
        offsets_ppm: (offset,), in any order.

    Returns:
        The nearest offsets below and above 0 ppm; None where one lies within 0.5 ppm of 0, or all on one side of it.
    """
    below, above = offsets_ppm[offsets_ppm < 0], offsets_ppm[offsets_ppm > 0]
    if len(below) == 0 or len(above) == 0 or bool((offsets_ppm.abs() <= NEAREST_TO_WATER_PPM).any()):
        return None
    return float(below.max()), float(above.min())


def interpolate_spectra(z: Tensor, offsets_ppm: Tensor, at_ppm: Tensor) -> Tensor:
    """Interpolate the spectrum of every voxel to other offsets.

    Where the water line was not acquired, each of its sides is interpolated by itself.

    Args:
        z: (voxel, offset).
        offsets_ppm: (offset,), in any order; repeated offsets are averaged.
        at_ppm: (k,) or (voxel, k).

    Returns:
        (voxel, k); NaN outside the acquired range and in its ``water_gap``.

    Raises:
        ValueError: The numbers of offsets and measurements differ, or there are fewer than two different offsets.
    """
    z, knots = sorted_spectra(z, offsets_ppm)
    if len(knots) < 2:
        raise InputError("protocol", "interpolation needs at least two different offsets")
    sides = [slice(None)] if water_gap(knots) is None else [knots < 0, knots > 0]

    def slopes(z: Tensor) -> Tensor:
        return torch.cat([pchip_slopes(z[:, side], knots[side]) for side in sides], 1)

    at_ppm = at_ppm.to(z).expand(len(z), at_ppm.shape[-1])
    return torch.where(in_water_gap(at_ppm, knots), torch.nan, _interpolated(z, knots, at_ppm, slopes))


def interpolate_curves(values: Tensor, knots: Tensor, at: Tensor) -> Tensor:
    """Interpolate curves that are no spectra.

    Args:
        values: (curve, n), n >= 2.
        knots: (n,), ascending.
        at: (k,) or (curve, k).

    Returns:
        (curve, k); NaN outside the knots.
    """
    at = at.to(values).expand(len(values), at.shape[-1])
    return _interpolated(values, knots, at, lambda values: pchip_slopes(values, knots))


def _interpolated(z: Tensor, knots: Tensor, at: Tensor, slopes: Callable[[Tensor], Tensor]) -> Tensor:
    """Evaluate the cubics with the derivatives ``slopes(z)`` at the knots, some voxels at a time."""
    parts = []
    for first in range(0, len(z), CHUNK_VOXELS):
        some = slice(first, first + CHUNK_VOXELS)
        parts.append(_evaluate(z[some], knots, at[some], slopes(z[some])))
    return torch.cat(parts) if parts else at.clone()


def interpolate_parabolas(z: Tensor, offsets_ppm: Tensor, at_ppm: Tensor) -> Tensor:
    """Interpolate by the parabola through the three nearest offsets, for the few offsets around a wide line.

    Where a line is sampled by few offsets, PCHIP is too flat beside them. Parabolas overshoot beside sharp lines like
    that of water, so leave its offsets out.

    Args:
        z: (voxel, offset).
        offsets_ppm: (offset,), in any order; those that lie closer together than 0.05 ppm are averaged.
        at_ppm: (k,) or (voxel, k).

    Returns:
        (voxel, k); NaN outside the acquired range. Two offsets are joined by a line.

    Raises:
        ValueError: The numbers of offsets and measurements differ, or there are fewer than two different offsets.
    """
    z, knots = _averaged(z, offsets_ppm, SAME_NODE_PPM)
    if len(knots) < 2:
        raise InputError("protocol", "interpolation needs at least two different offsets")
    at = at_ppm.to(z).expand(len(z), at_ppm.shape[-1])
    nearest = (at.unsqueeze(2) - knots).abs().nan_to_num(0.0).argsort(2)[..., : min(3, len(knots))]
    value = torch.zeros_like(at)
    for i in range(nearest.shape[2]):
        weight = torch.ones_like(at)
        for j in range(nearest.shape[2]):
            if i != j:
                weight = weight * (at - knots[nearest[..., j]]) / (knots[nearest[..., i]] - knots[nearest[..., j]])
        value = value + weight * z.gather(1, nearest[..., i])
    return torch.where(outside_knots(at, offsets_ppm.to(z).sort().values), torch.nan, value)


def outside_knots(at: Tensor, knots: Tensor) -> Tensor:
    """Whether offsets lie outside the acquired range (beyond the rounding of the offsets themselves), or are NaN."""
    slack = 1e-5 * (knots[-1] - knots[0])
    return (at < knots[0] - slack) | (at > knots[-1] + slack) | at.isnan()


def in_water_gap(at: Tensor, knots: Tensor) -> Tensor:
    """Whether offsets lie in the ``water_gap`` of the acquired ones, beyond the rounding of these."""
    gap = water_gap(knots)
    if gap is None:
        return torch.zeros_like(at, dtype=torch.bool)
    return (at > gap[0] + SAME_OFFSET_PPM) & (at < gap[1] - SAME_OFFSET_PPM)


def _evaluate(z: Tensor, knots: Tensor, at: Tensor, slope: Tensor) -> Tensor:
    """Evaluate the cubic Hermite polynomials of the intervals that hold ``at`` (voxel, k)."""
    interval = torch.searchsorted(knots, at.contiguous(), right=True).sub_(1).clamp_(0, len(knots) - 2)
    width = knots.diff()[interval]
    t = (at - knots[interval]) / width
    z0, z1 = z.gather(1, interval), z.gather(1, interval + 1)
    d0, d1 = slope.gather(1, interval) * width, slope.gather(1, interval + 1) * width
    rise = z1 - z0
    value = z0 + t * (d0 + t * (3 * rise - 2 * d0 - d1 + t * (d0 + d1 - 2 * rise)))
    return torch.where(outside_knots(at, knots), torch.nan, value)
