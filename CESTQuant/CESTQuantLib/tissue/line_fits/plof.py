"""Polynomial and Lorentzian line-shape fitting (PLOF): one peak of R1rho above a smooth background, in two steps.

Chen L, Barker PB, Weiss RG, van Zijl PCM, Xu J, Magn Reson Med 2019;81:69. With the relaxation rate R along the
effective field, continuous-wave saturation of duration t leaves::

    Z(D) = cos^2(theta) [Zi exp(-R t) + R1 (1 - exp(-R t)) / R]
    R(D) = sum_k C_k u^k + C_w sin^2(theta) + A (G/2)^2 / ((G/2)^2 + (D - d)^2)

where u runs from -1 to 1 over the fitted offsets D. The first step fits the coefficients C of the background to the
offsets beside the peak, the second one amplitude A, width G and position d of the peak over this background. Z is
what is fitted in both steps, so that the noise keeps its weight. The published background is the polynomial alone, for
narrow windows at high field; the term of the direct saturation of water is added here, because no polynomial of low
degree follows it over the wide windows of 3 T. ``PlofModel.water_term`` leaves it out.

The amplitude is the exchange-dependent relaxation rate at the peak in 1/s; like AREX it is free of spill-over and T1,
as far as the background has this form and the T1 that is given is right. Wings of the line beyond its range count as
background and make the amplitude too small, by 16 % for an amide pool of 40 Hz at 3 T and 0.8 uT.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from NeuroCESTLib.core.messages.input_errors import InputError
from NeuroCESTLib.core.progress import Progress, part, silent

from ...fitting.interpolation import distinct_counts
from ...fitting.least_squares import FitResult, Model, Status, levenberg_marquardt
from ...physics.r1rho.exchange import EffectiveField
from ..lorentzian_model import Range
from .plof_model import Peak, PlofModel

LARGEST_RATE_HZ = 1e4
LARGEST_AMPLITUDE_HZ = 100.0
MOST_NEGATIVE, MOST_POSITIVE = -5.0, 1e4
"""Limits of rate times duration; a background may be negative while it is iterated."""


@dataclass(frozen=True)
class Saturation:
    """Continuous-wave saturation of every voxel.

    Attributes:
        distance_ppm: (voxel, m) offset of the RF from the water of the voxel.
        w1: (voxel, m) RF amplitude in rad/s, the same for all measurements of a voxel.
        rad_per_s_per_ppm: Angular frequency of one ppm.
        duration_s: (m,) duration.
        t1_s: (voxel,) T1 of water.
        initial_z: (voxel, m) Zi before the saturation, or a number.
    """

    distance_ppm: Tensor
    w1: Tensor
    rad_per_s_per_ppm: float
    duration_s: Tensor
    t1_s: Tensor
    initial_z: float | Tensor = 1.0

    def cos2(self, distance_ppm: Tensor) -> Tensor:
        """Return cos^2(theta) (voxel, n) at offsets (voxel, n) from water; all measurements have the same B1."""
        return EffectiveField.of(self.w1[:, :1], distance_ppm * self.rad_per_s_per_ppm).cos2

    def block(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return cos^2(theta), R1, duration and Zi of every measurement, which broadcast to (voxel, m)."""
        cos2 = self.cos2(self.distance_ppm.double())
        r1 = torch.where(self.t1_s > 0, 1 / self.t1_s, torch.nan).double().unsqueeze(1)
        start = torch.as_tensor(self.initial_z).to(cos2).expand_as(cos2)
        return cos2, r1, self.duration_s.to(cos2).expand_as(cos2), start


@dataclass(frozen=True)
class PlofFit:
    """Fit of one peak; NaN where the status says that the voxel was not fitted.

    Standard errors contain the uncertainty of the background; they are NaN for parameters at a bound.

    Attributes:
        amplitude_Hz: (voxel,) height of the peak of R1rho in 1/s.
        amplitude_Hz_sd: (voxel,) its standard error.
        width_ppm: (voxel,) full width at half maximum.
        width_ppm_sd: (voxel,) its standard error.
        position_ppm: (voxel,) distance from water.
        position_ppm_sd: (voxel,) its standard error.
        difference: (voxel,) Z of the background minus Z with the peak, at the peak.
        rmse: (voxel,) of Z over the fitted window.
        status: (voxel,) uint8, see ``fitting.marquardt.Status``.
        signal: (voxel, m) fitted Z; NaN outside the window.
    """

    amplitude_Hz: Tensor
    amplitude_Hz_sd: Tensor
    width_ppm: Tensor
    width_ppm_sd: Tensor
    position_ppm: Tensor
    position_ppm_sd: Tensor
    difference: Tensor
    rmse: Tensor
    status: Tensor
    signal: Tensor


def fit_plof(z: Tensor, saturation: Saturation, peak: Peak, model: PlofModel, progress: Progress = silent) -> PlofFit:
    """Fit background and peak to the spectrum of every voxel.

    Args:
        z: (voxel, m) normalised signal.
        saturation: How it was saturated.
        peak: Peak with its ranges.
        model: What the background consists of.
        progress: As in ``levenberg_marquardt``.

    Raises:
        ValueError: No more different offsets lie beside the peak than the background has coefficients, or fewer than
            three on it.
    """
    z, distance = z.double(), saturation.distance_ppm.double()
    inside = (distance >= peak.window_ppm[0]) & (distance <= peak.window_ppm[1])
    on_peak = inside & (distance >= peak.peak_ppm[0]) & (distance <= peak.peak_ppm[1])
    beside = inside & ~on_peak
    basis = _Basis(saturation, peak, model)
    different_beside = distinct_counts(distance, beside)
    _require_offsets(different_beside, distinct_counts(distance, on_peak), peak, basis.count)
    usable = z.isfinite().all(1, keepdim=True)
    block = saturation.block()

    def background(parameters: Tensor, columns: Tensor, *block: Tensor) -> tuple[Tensor, Tensor]:
        columns = columns.transpose(0, 1)  # (p, m, voxel)
        value, slope = decay((parameters.unsqueeze(1) * columns).sum(0), *block)
        return value, slope * columns

    def with_peak(parameters: Tensor, distance: Tensor, base: Tensor, *block: Tensor) -> tuple[Tensor, Tensor]:
        line, gradient = _line(parameters, distance)
        value, slope = decay(base + line, *block)
        return value, slope * gradient

    lowest = torch.full((basis.count,), -LARGEST_RATE_HZ, dtype=z.dtype)
    start = torch.zeros(len(z), basis.count, dtype=z.dtype, device=z.device)
    start[:, :1] = block[1].nan_to_num(0.0)
    columns = basis.at(distance)
    beside_peak = (columns, *block)
    first = levenberg_marquardt(
        background,
        z,
        start,
        lowest,
        -lowest,
        arguments=beside_peak,
        valid=beside | ~usable,
        different=different_beside,
        correlation=False,
        progress=part(progress, 0.0, 0.5),
    )
    coefficients = first.parameters.unsqueeze(2)
    over_background = (distance, (columns @ coefficients).squeeze(2), *block)
    ranges = (Range(0.0, 0.05, LARGEST_AMPLITUDE_HZ), peak.width_ppm, peak.position_ppm)
    second = levenberg_marquardt(
        with_peak,
        z,
        *(torch.tensor([getattr(each, end) for each in ranges]) for end in ("start", "lower", "upper")),
        arguments=over_background,
        valid=inside | ~usable,
        different=distinct_counts(distance, inside),
        correlation=False,
        progress=part(progress, 0.5, 1.0),
    )
    errors = _standard_errors(first, second, (background, beside_peak, beside), (with_peak, over_background, inside))
    amplitude, width, position = second.parameters.T
    at = position.unsqueeze(1)
    base = (basis.at(at) @ coefficients).squeeze(2)
    there = (saturation.cos2(at), block[1], block[2][:, :1], block[3][:, :1])
    difference = decay(base, *there)[0] - decay(base + amplitude.unsqueeze(1), *there)[0]
    signal = _voxel_first(with_peak, second.parameters, over_background)[0]
    return PlofFit(
        amplitude,
        errors[:, 0],
        width,
        errors[:, 1],
        position,
        errors[:, 2],
        difference.squeeze(1),
        second.rmse,
        _status(first, second),
        torch.where(inside, signal, torch.nan),
    )


class _Basis:
    """What the background of R1rho is a linear combination of: powers of the offset, and the spill-over of water."""

    def __init__(self, saturation: Saturation, peak: Peak, model: PlofModel) -> None:
        low, high = peak.window_ppm
        self.center, self.half = (low + high) / 2, (high - low) / 2
        self.saturation, self.model = saturation, model
        self.count = model.polynomial_degree + 1 + model.water_term

    def at(self, distance: Tensor) -> Tensor:
        """Return the columns (voxel, n, coefficient) at offsets (voxel, n) from water."""
        place = (distance - self.center) / self.half
        columns = [place**k for k in range(self.model.polynomial_degree + 1)]
        if self.model.water_term:
            columns.append(1 - self.saturation.cos2(distance))
        return torch.stack(columns, 2)


def decay(rate: Tensor, cos2: Tensor, r1: Tensor, duration: Tensor, initial_z: Tensor) -> tuple[Tensor, Tensor]:
    """Return Z as a function of the relaxation rate along the effective field, and its derivative.

    Args:
        rate: Rate in 1/s, of any shape to which the others broadcast.
        cos2: cos^2(theta) of the effective field.
        r1: R1 of water in 1/s.
        duration: Duration of the saturation in s.
        initial_z: Zi before the saturation.
    """
    x = (rate * duration).clamp(MOST_NEGATIVE, MOST_POSITIVE)
    near_zero = x.abs() < 1e-4
    safe = torch.where(near_zero, 1.0, x)
    remaining = torch.exp(-x)
    # (1 - exp(-x)) / x and its derivative, smooth through rates that a background may pass on its way
    recovered = torch.where(near_zero, 1 - x / 2 + x * x / 6, -torch.expm1(-safe) / safe)
    towards = torch.where(near_zero, x / 3 - 0.5, (remaining * (1 + safe) - 1) / safe.square())
    source = r1 * duration
    z = cos2 * (initial_z * remaining + source * recovered)
    return z, cos2 * duration * (source * towards - initial_z * remaining)


def _line(parameters: Tensor, distance: Tensor) -> tuple[Tensor, Tensor]:
    """Return the line (m, voxel) and its derivatives (3, m, voxel) with respect to amplitude, width and position."""
    amplitude, width, position = parameters.unsqueeze(1)
    quarter, away = width.square() / 4, distance - position
    inverse = 1 / (quarter + away.square())
    shape = quarter * inverse
    by_width = amplitude * (width / 2) * inverse * (1 - shape)
    by_position = 2 * amplitude * shape * away * inverse
    return amplitude * shape, torch.stack((shape, by_width, by_position))


def _require_offsets(beside: Tensor, on_peak: Tensor, peak: Peak, coefficients: int) -> None:
    """Check the numbers (voxel,) of different offsets beside the peak and on it; repeats determine none."""
    most_beside, most_on = int(beside.max()), int(on_peak.max())
    if most_beside <= coefficients or most_on < 3:
        low, high = peak.window_ppm
        raise InputError(
            "protocol",
            f"PLOF of '{peak.name}' needs at least {coefficients + 1} different offsets beside the peak and 3 on it, "
            f"between {low:g} and {high:g} ppm from water, but there are {most_beside} and {most_on}",
        )


def _voxel_first(model: Model, parameters: Tensor, arguments: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Evaluate a model voxel-first: values (voxel, m) and Jacobian (voxel, m, p)."""
    value, jacobian = model(parameters.T, *(argument.movedim(0, -1) for argument in arguments))
    return value.T, jacobian.permute(2, 1, 0)


_Evaluation = tuple[Model, tuple[Tensor, ...], Tensor]
"""Model, its arguments, and the measurements (voxel, m) that were fitted."""


def _standard_errors(first: FitResult, second: FitResult, background: _Evaluation, peak: _Evaluation) -> Tensor:
    """Return the standard errors (voxel, 3) of the peak, which contain those of the background.

    With the Jacobians J of the peak and B of the background over the window, and the covariance C of the background,
    the estimate deviates by N^-1 J^T (noise + B * deviation of the background), N = J^T J.
    """
    model, arguments, beside = background
    _, slope = _voxel_first(model, first.parameters, arguments)
    of_background = slope * beside.unsqueeze(2)
    covariance = torch.linalg.pinv((of_background.mT @ of_background).nan_to_num(0.0))
    model, arguments, inside = peak
    _, jacobian = _voxel_first(model, second.parameters, arguments)
    jacobian = (jacobian * inside.unsqueeze(2)).nan_to_num(0.0)
    free = second.standard_errors.isfinite()
    jacobian = jacobian * free.unsqueeze(1)
    inverse = torch.linalg.pinv(jacobian.mT @ jacobian)
    gain = inverse @ jacobian.mT  # (voxel, 3, m)
    # The background has the derivatives that it had in the first step, over all offsets of the window, and the noise
    # beside the peak enters both steps: deviation = gain (noise - slope * covariance * of_background^T noise).
    through = gain @ (slope * inside.unsqueeze(2)).nan_to_num(0.0) @ covariance @ of_background.mT.nan_to_num(0.0)
    total = gain - through
    points = inside.sum(1) - first.parameters.shape[1] - free.sum(1)
    variance = second.rmse.square() * inside.sum(1) / points.clamp_min(1)
    variance = torch.where(points > 0, variance, torch.nan)
    errors = (variance.unsqueeze(1) * total.square().sum(2)).sqrt()
    return torch.where(free, errors, torch.nan)


def _status(first: FitResult, second: FitResult) -> Tensor:
    """Return the status of the second step, and of the first one where that did not end well."""
    status = second.status.clone()
    status[first.status == Status.ITERATION_LIMIT] = int(Status.ITERATION_LIMIT)
    absent = (second.status == Status.AT_BOUND) & (second.parameters[:, 0] <= 0)
    status[absent] = int(Status.AT_NATURAL_LIMIT)
    return torch.where(first.fitted, status, first.status)
