"""QUESP, QUEST and the omega plot: fraction and exchange rate from label/reference pairs over B1 or
saturation time.

McMahon et al., Magn Reson Med 2006;55:836; inverse forms and spill-over: Zaiss et al., Magn Reson Med
2018;79:1708; omega plot: Dixon et al., Magn Reson Med 2010;63:625. With Rex = f k w1^2/(w1^2 + k (k + R2b))
and R = R1 + Rex:

    Zlab(t) = (Zi - R1/R) exp(-R t) + R1/R,    Zref(t) = (Zi - 1) exp(-R1 t) + 1
    regular: Zref - Zlab;    inverse: 1/Zlab - 1/Zref  (= Rex/R1 in the steady state)

The regular form assumes no direct saturation of the water; in the inverse form it cancels in the steady
state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from NeuroCESTLib.core.progress import Progress

from ..fitting.least_squares import FitResult, Status, levenberg_marquardt
from ..physics.units import GAMMA_RAD_PER_S_PER_UT
from .contrasts import mtr_rex

Form = Literal["regular", "inverse"]

LONG_S = 1e4  # stands for an infinite saturation


@dataclass(frozen=True)
class ExchangeFit:
    """Fraction and exchange rate with standard errors, residual and status; (voxel,) each."""

    fraction: Tensor
    fraction_sd: Tensor
    exchange_rate_Hz: Tensor
    exchange_rate_Hz_sd: Tensor
    rmse: Tensor
    status: Tensor


@dataclass(frozen=True)
class _Saturation:
    """The two-pool saturation model over measurements; columns (measurement, 1)."""

    w1: Tensor  # rad/s
    duration_s: Tensor
    r2_Hz: float
    initial_z: float
    form: Form

    def exchange(self, fraction: Tensor, k: Tensor, w1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rex and its derivatives by f and k, 1/s."""
        denominator = w1 * w1 + k * (k + self.r2_Hz)
        efficiency = w1 * w1 / denominator
        by_k = fraction * efficiency * (1 - k * (2 * k + self.r2_Hz) / denominator)
        return fraction * k * efficiency, k * efficiency, by_k

    def predict(self, parameters: Tensor, r1: Tensor, b1_relative: Tensor) -> tuple[Tensor, Tensor]:
        """Contrast (m, voxel) and Jacobian (2, m, voxel) for f, k (2, voxel)."""
        rex, by_f, by_k = self.exchange(parameters[0], parameters[1], self.w1 * b1_relative)
        rate = r1 + rex
        decay = (-rate * self.duration_s).exp()
        steady = r1 / rate
        label = (self.initial_z - steady) * decay + steady
        by_rex = -steady / rate * (1 - decay) - self.duration_s * (self.initial_z - steady) * decay
        reference = (self.initial_z - 1) * (-r1 * self.duration_s).exp() + 1
        if self.form == "regular":
            return reference - label, torch.stack((-by_rex * by_f, -by_rex * by_k))
        inner = -by_rex / label.square()
        return 1 / label - 1 / reference, torch.stack((inner * by_f, inner * by_k))


def fit_quesp(
    z_label: Tensor,
    z_reference: Tensor,
    b1_uT: Tensor,
    saturation_time_s: Tensor,
    t1_s: Tensor,
    *,
    form: Form = "inverse",
    r2_Hz: float = 0.0,
    initial_z: float = 1.0,
    b1_relative: Tensor | None = None,
    fraction_bounds: tuple[float, float] = (1e-6, 0.1),
    exchange_rate_bounds_Hz: tuple[float, float] = (1.0, 2e4),
    threads: int | None = None,
    progress: Progress | None = None,
) -> ExchangeFit:
    """QUESP (varying B1) or QUEST (varying saturation time), or both at once.

    Args:
        z_label, z_reference: (voxel, m) at +D and -D of the exchanging protons.
        b1_uT, saturation_time_s: (m,); an infinite time means the steady state.
        t1_s: (voxel,) water T1.
        form: 'regular' fits Zref - Zlab, 'inverse' 1/Zlab - 1/Zref.
        r2_Hz: R2 of the exchanging protons.
        initial_z: Z before the saturation.
        b1_relative: (voxel,) factor of the B1 map.

    Raises:
        ValueError: unknown form, or counts of powers and measurements that differ.
    """
    if form not in ("regular", "inverse"):
        raise ValueError(f"form must be 'regular' or 'inverse', not '{form}'")
    measurements = z_label.shape[1]
    b1_uT, saturation_time_s = (torch.atleast_1d(torch.as_tensor(x)) for x in (b1_uT, saturation_time_s))
    if z_reference.shape != z_label.shape or {len(b1_uT), len(saturation_time_s)} - {1, measurements}:
        raise ValueError(
            f"{measurements} labels need as many references, B1 and saturation times, not "
            f"{z_reference.shape[1]}, {len(b1_uT)} and {len(saturation_time_s)}"
        )
    r1 = torch.where(t1_s > 0, 1 / t1_s, torch.nan).to(z_label)
    relative = torch.ones_like(r1) if b1_relative is None else b1_relative.to(r1)
    w1 = (GAMMA_RAD_PER_S_PER_UT * b1_uT.to(z_label)).expand(measurements).unsqueeze(1)
    duration = saturation_time_s.to(z_label).clamp_max(LONG_S).expand(measurements).unsqueeze(1)
    model = _Saturation(w1, duration, r2_Hz, initial_z, form)
    inverse = mtr_rex(z_label, z_reference)
    contrast = inverse if form == "inverse" else z_reference - z_label
    limits = torch.tensor([fraction_bounds, exchange_rate_bounds_Hz], dtype=torch.float64).T
    fit = levenberg_marquardt(
        model.predict,
        contrast,
        _best_start(model, inverse, r1, relative, limits),
        limits[0],
        limits[1],
        arguments=(r1, relative),
        threads=threads,
        progress=progress,
    )
    return _named(fit)


def _best_start(model: _Saturation, inverse: Tensor, r1: Tensor, relative: Tensor, limits: Tensor) -> Tensor:
    """The rate of a coarse grid, and its fraction, that explain the inverse contrast best; (voxel, 2)."""
    low, high = limits[:, 1].tolist()
    best = torch.full_like(r1, torch.inf)
    start = inverse.new_empty(len(r1), 2)
    target = (inverse * r1.unsqueeze(1)).nan_to_num(0.0)
    for k in torch.logspace(math.log10(low), math.log10(high), 16).tolist():
        shape = model.exchange(torch.ones_like(r1), torch.full_like(r1, k), model.w1 * relative)[0].T
        shape = shape.nan_to_num(0.0)
        fraction = (target * shape).sum(1) / shape.square().sum(1).clamp_min(1e-30)
        misfit = (target - fraction.unsqueeze(1) * shape).square().sum(1)
        better = misfit < best
        best = torch.where(better, misfit, best)
        start[better] = torch.stack((fraction, torch.full_like(fraction, k)), 1)[better]
    return start.nan_to_num(0.0)


def omega_plot(
    z_label: Tensor,
    z_reference: Tensor,
    b1_uT: Tensor,
    t1_s: Tensor,
    *,
    r2_Hz: float = 0.0,
    b1_relative: Tensor | None = None,
    weighted: bool = True,
) -> ExchangeFit:
    """Fraction and rate from the straight line of 1/MTR_Rex against 1/w1^2 (steady state).

    1/MTR_Rex = R1 [1/(f k) + (k + R2b)/f / w1^2]: slope/intercept = k (k + R2b).

    Args:
        as in `fit_quesp`.
        weighted: weights MTR_Rex^4, which undo the amplification of noise by the reciprocal.

    Returns:
        errors by propagation through the line's covariance; rmse in units of 1/MTR_Rex; status FAILED, and
        NaN, where slope or intercept is not positive.
    """
    contrast = mtr_rex(z_label, z_reference)
    r1 = torch.where(t1_s > 0, 1 / t1_s, torch.nan).to(contrast)
    relative = torch.ones_like(r1) if b1_relative is None else b1_relative.to(r1)
    w1 = GAMMA_RAD_PER_S_PER_UT * b1_uT.to(contrast) * relative.unsqueeze(1)
    unit = w1.square().mean(1, keepdim=True)  # keeps the abscissa near one
    x, y = unit / w1.square(), 1 / contrast
    usable = y.isfinite() & (contrast > 0) & x.isfinite()
    points = usable.sum(1)
    weight = contrast.pow(4) if weighted else torch.ones_like(contrast)
    weight = torch.where(usable, weight, 0.0)
    weight = weight / weight.mean(1, keepdim=True).clamp_min(1e-30)
    x, y = (torch.where(usable, each, 0.0) for each in (x, y))
    total = weight.sum(1)
    x_mean, y_mean = (weight * x).sum(1) / total, (weight * y).sum(1) / total
    spread = (weight * (x - x_mean.unsqueeze(1)).square()).sum(1)
    slope = (weight * (x - x_mean.unsqueeze(1)) * y).sum(1) / spread
    intercept = y_mean - slope * x_mean
    residual = y - intercept.unsqueeze(1) - slope.unsqueeze(1) * x
    variance = (weight * residual.square()).sum(1) / (points - 2).clamp_min(1)
    variance = torch.where(points > 2, variance, torch.nan)
    slope_var = variance / spread
    intercept_var = variance * (1 / total + x_mean.square() / spread)
    covariance = -variance * x_mean / spread

    slope_scaled = slope * unit.squeeze(1)  # rad^2/s^2
    product = slope_scaled / intercept  # k (k + R2b)
    root = (r2_Hz**2 + 4 * product).sqrt()
    k = (root - r2_Hz) / 2
    fraction = r1 / (intercept * k)
    # k by slope and intercept, then f = R1/(intercept k)
    k_slope, k_intercept = product / slope / root, -product / intercept / root
    f_slope, f_intercept = -fraction / k * k_slope, -fraction / k * k_intercept - fraction / intercept

    def deviation(by_slope: Tensor, by_intercept: Tensor) -> Tensor:
        mixed = 2 * by_slope * by_intercept * covariance
        return (by_slope.square() * slope_var + by_intercept.square() * intercept_var + mixed).sqrt()

    good = (slope > 0) & (intercept > 0) & (points >= 2) & fraction.isfinite()
    status = torch.where(good, int(Status.CONVERGED), int(Status.FAILED))
    status[points < 2] = int(Status.NOT_ENOUGH_POINTS)
    status[~(contrast.isfinite().any(1) & r1.isfinite())] = int(Status.INVALID_DATA)
    rmse = (torch.where(usable, residual, 0.0).square().sum(1) / points.clamp_min(1)).sqrt()
    good = status == int(Status.CONVERGED)
    values = (fraction, deviation(f_slope, f_intercept), k, deviation(k_slope, k_intercept), rmse)
    return ExchangeFit(*(torch.where(good, value, torch.nan) for value in values), status.to(torch.uint8))


def _named(fit: FitResult) -> ExchangeFit:
    return ExchangeFit(
        fraction=fit.parameters[:, 0],
        fraction_sd=fit.standard_errors[:, 0],
        exchange_rate_Hz=fit.parameters[:, 1],
        exchange_rate_Hz_sd=fit.standard_errors[:, 1],
        rmse=fit.rmse,
        status=fit.status,
    )
