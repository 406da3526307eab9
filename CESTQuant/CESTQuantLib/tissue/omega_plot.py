"""The omega plot: fraction and exchange rate from a straight line through the steady-state contrast over B1.

Dixon et al., Magn Reson Med 2010;63:625. The contrast is MTR_Rex = 1/Zlab - 1/Zref, as in ``quesp``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..fitting.marquardt import Status
from ..physics.protocol import Protocol
from .contrasts import mtr_rex
from .quesp import SMALLEST_DIVISOR, ExchangeFit, r1_and_relative_b1


def omega_plot(
    z_label: Tensor,
    z_reference: Tensor,
    protocol: Protocol,
    t1_s: Tensor,
    *,
    r2_Hz: float = 0.0,
    b1_relative: Tensor | None = None,
    weighted: bool = True,
) -> ExchangeFit:
    """Fit a straight line to 1/MTR_Rex against 1/w1^2, which gives fraction and exchange rate in the steady state.

    1/MTR_Rex = R1 [1/(f k) + (k + R2b)/f / w1^2], so that slope/intercept = k (k + R2b).

    Args:
        z_label: (voxel, m) at the offset +D of the exchanging protons.
        z_reference: (voxel, m) at -D.
        protocol: That of the labels, of which the B1 and the gyromagnetic ratio are used.
        t1_s: (voxel,) water T1.
        r2_Hz: R2b of the exchanging protons in 1/s.
        b1_relative: (voxel,) actual over nominal B1; None for one.
        weighted: Whether to weight with MTR_Rex^4, which undoes the amplification of noise by the reciprocal.

    Returns:
        Fraction and rate with errors propagated from the covariance of the line; rmse in units of 1/MTR_Rex. Where
        slope or intercept is not positive the status is FAILED and the values are NaN.
    """
    contrast = mtr_rex(z_label, z_reference)
    r1, relative = r1_and_relative_b1(t1_s, b1_relative, contrast)
    w1 = protocol.w1_rad_per_s.to(contrast) * relative.unsqueeze(1)
    unit = w1.square().mean(1, keepdim=True)  # keeps the abscissa near one
    x, y = unit / w1.square(), 1 / contrast
    usable = y.isfinite() & (contrast > 0) & x.isfinite()
    points = usable.sum(1)
    line = _fit_line(x, y, contrast.pow(4) if weighted else torch.ones_like(contrast), usable, points)

    product = line.slope * unit.squeeze(1) / line.intercept  # k (k + R2b) in 1/s^2
    root = (r2_Hz**2 + 4 * product).sqrt()
    k = (root - r2_Hz) / 2
    fraction = r1 / (line.intercept * k)
    # Derivatives of k with respect to slope and intercept, then those of f = R1/(intercept k).
    k_by_slope, k_by_intercept = product / line.slope / root, -product / line.intercept / root
    f_by_slope = -fraction / k * k_by_slope
    f_by_intercept = -fraction / k * k_by_intercept - fraction / line.intercept

    good = (line.slope > 0) & (line.intercept > 0) & (points >= 2) & fraction.isfinite()
    status = torch.where(good, int(Status.CONVERGED), int(Status.FAILED))
    status[points < 2] = int(Status.NOT_ENOUGH_POINTS)
    status[~(contrast.isfinite().any(1) & r1.isfinite() & relative.isfinite())] = int(Status.INVALID_DATA)
    good = status == int(Status.CONVERGED)

    def where_good(value: Tensor) -> Tensor:
        return torch.where(good, value, torch.nan)

    return ExchangeFit(
        fraction=where_good(fraction),
        fraction_sd=where_good(line.deviation(f_by_slope, f_by_intercept)),
        exchange_rate_Hz=where_good(k),
        exchange_rate_Hz_sd=where_good(line.deviation(k_by_slope, k_by_intercept)),
        rmse=where_good(line.rmse),
        status=status.to(torch.uint8),
    )


@dataclass(frozen=True)
class _Line:
    """A weighted straight line through the points of every voxel; (voxel,) each."""

    slope: Tensor
    intercept: Tensor
    slope_variance: Tensor
    intercept_variance: Tensor
    covariance: Tensor
    rmse: Tensor

    def deviation(self, by_slope: Tensor, by_intercept: Tensor) -> Tensor:
        """Return the standard error of a quantity with these derivatives with respect to slope and intercept."""
        mixed = 2 * by_slope * by_intercept * self.covariance
        variance = by_slope.square() * self.slope_variance + by_intercept.square() * self.intercept_variance + mixed
        return variance.sqrt()


def _fit_line(x: Tensor, y: Tensor, weight: Tensor, usable: Tensor, points: Tensor) -> _Line:
    """Fit weighted lines to y against x.

    Args:
        x: (voxel, m).
        y: (voxel, m).
        weight: (voxel, m).
        usable: (voxel, m) bool, false for points to leave out.
        points: (voxel,) number of usable points.
    """
    weight = torch.where(usable, weight, 0.0)
    weight = weight / weight.mean(1, keepdim=True).clamp_min(SMALLEST_DIVISOR)
    x, y = (torch.where(usable, each, 0.0) for each in (x, y))
    total = weight.sum(1)
    x_mean, y_mean = (weight * x).sum(1) / total, (weight * y).sum(1) / total
    spread = (weight * (x - x_mean.unsqueeze(1)).square()).sum(1)
    slope = (weight * (x - x_mean.unsqueeze(1)) * y).sum(1) / spread
    intercept = y_mean - slope * x_mean
    residual = y - intercept.unsqueeze(1) - slope.unsqueeze(1) * x
    variance = (weight * residual.square()).sum(1) / (points - 2).clamp_min(1)
    variance = torch.where(points > 2, variance, torch.nan)
    return _Line(
        slope=slope,
        intercept=intercept,
        slope_variance=variance / spread,
        intercept_variance=variance * (1 / total + x_mean.square() / spread),
        covariance=-variance * x_mean / spread,
        rmse=(torch.where(usable, residual, 0.0).square().sum(1) / points.clamp_min(1)).sqrt(),
    )
