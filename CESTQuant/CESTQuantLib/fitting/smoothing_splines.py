"""Natural cubic smoothing splines through spectra, with the strength of the smoothing chosen by cross-validation.

The spline g minimises ``sum_i (z_i - g(x_i))^2 + strength * integral g''(x)^2 dx`` (Reinsch, Numer Math 1967;10:177).
The strength of every spectrum minimises the generalised cross-validation score ``n |z - g|^2 / (n - trace S)^2``, where
S is the linear map from z to g (Craven and Wahba, Numer Math 1979;31:377). Stancanello et al., Contrast Media Mol
Imaging 2008;3:136 introduced such splines for CEST spectra.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from NeuroCESTLib.core.messages.input_errors import InputError

from .interpolation import in_water_gap, outside_knots, sorted_spectra

FEWEST_KNOTS = 5
"""Different offsets from which cross-validation means something."""
CANDIDATES = 121
"""Strengths that are compared; they cover the range from interpolation to a straight line."""


@dataclass(frozen=True)
class SmoothingSpline:
    """Smoothing splines of several spectra over common knots.

    Attributes:
        knots: Different offsets (n,), ascending.
        values: Smoothed spectra (voxel, n) at the knots; NaN where a spectrum has a NaN.
        curvature: Second derivatives (voxel, n) at the knots, zero at both ends.
        strength: Strength of the smoothing (voxel,).
    """

    knots: Tensor
    values: Tensor
    curvature: Tensor
    strength: Tensor

    def at(self, offsets: Tensor) -> Tensor:
        """Evaluate the splines.

        Args:
            offsets: (k,) or (voxel, k).

        Returns:
            Values (voxel, k); NaN outside the knots and where they leave out the water line, see ``water_gap``.
        """
        at = offsets.to(self.values).expand(len(self.values), offsets.shape[-1]).contiguous()
        interval = torch.searchsorted(self.knots, at, right=True).sub_(1).clamp_(0, len(self.knots) - 2)
        width = self.knots.diff()[interval]
        right = (at - self.knots[interval]) / width
        left = 1 - right
        value = left * self.values.gather(1, interval) + right * self.values.gather(1, interval + 1)
        bend = (left**3 - left) * self.curvature.gather(1, interval)
        bend = bend + (right**3 - right) * self.curvature.gather(1, interval + 1)
        unknown = outside_knots(at, self.knots) | in_water_gap(at, self.knots)
        return torch.where(unknown, torch.nan, value + bend * width.square() / 6)


def fit_smoothing_spline(z: Tensor, offsets: Tensor, strength: float | None = None) -> SmoothingSpline:
    """Fit a smoothing spline to every spectrum.

    Args:
        z: Spectra (voxel, offset).
        offsets: (offset,), in any order; repeated offsets are averaged first.
        strength: Strength of the smoothing; None to choose that of every spectrum by generalised cross-validation.

    Returns:
        The splines in float64.

    Raises:
        ValueError: There are fewer than five different offsets, or their number is not that of the measurements.
    """
    z, knots = sorted_spectra(z.double(), offsets.double())
    if len(knots) < FEWEST_KNOTS:
        raise InputError(
            "protocol", f"a smoothing spline needs at least {FEWEST_KNOTS} different offsets, not {len(knots)}"
        )
    differences, gram = _second_differences(knots)
    penalty = differences @ torch.linalg.solve(gram, differences.T)
    roughness, modes = torch.linalg.eigh((penalty + penalty.T) / 2)
    roughness = roughness.clamp_min(0)
    roughness[:2] = 0  # straight lines are not penalised
    share = z @ modes
    chosen = torch.full_like(z[:, 0], strength) if strength is not None else _cross_validated(share, roughness)
    values = (share / (1 + chosen.unsqueeze(1) * roughness)) @ modes.T
    inner = torch.linalg.solve(gram, (values @ differences).T).T
    return SmoothingSpline(knots, values, torch.nn.functional.pad(inner, (1, 1)), chosen)


def _second_differences(knots: Tensor) -> tuple[Tensor, Tensor]:
    """Return Q (n, n - 2) and R (n - 2, n - 2); the curvature c of an interpolating spline solves R c = Q^T g."""
    count, width = len(knots), knots.diff()
    inner = torch.arange(count - 2, device=knots.device)
    differences = knots.new_zeros(count, count - 2)
    differences[inner, inner] = 1 / width[:-1]
    differences[inner + 1, inner] = -1 / width[:-1] - 1 / width[1:]
    differences[inner + 2, inner] = 1 / width[1:]
    gram = torch.diag((width[:-1] + width[1:]) / 3)
    gram += torch.diag(width[1:-1] / 6, 1) + torch.diag(width[1:-1] / 6, -1)
    return differences, gram


def _cross_validated(share: Tensor, roughness: Tensor) -> Tensor:
    """Return the strength (voxel,) with the lowest score, from the spectra (voxel, mode) in the modes of the spline."""
    rough = roughness[2:]
    low, high = -2 - float(rough.max().log10()), 2 - float(rough.min().log10())
    strengths = torch.logspace(low, high, CANDIDATES, dtype=share.dtype, device=share.device)
    removed = 1 - 1 / (1 + strengths.unsqueeze(1) * roughness)  # (candidate, mode)
    score = share.square() @ removed.square().T / removed.sum(1).square()
    return strengths[score.nan_to_num(torch.inf).argmin(1)]
