"""QUESP and QUEST: fraction and exchange rate from pairs of label and reference measurements.

The pairs are acquired at several B1 amplitudes or saturation times: McMahon et al., Magn Reson Med 2006;55:836; inverse
forms and spill-over: Zaiss et al., Magn Reson Med 2018;79:1708. With Rex = f k w1^2/(w1^2 + k (k + R2b)), R = R1 + Rex
and the initial magnetisation Zi::

    Zlab(t) = (Zi - R1/R) exp(-R t) + R1/R
    Zref(t) = (Zi - 1) exp(-R1 t) + 1

The regular form is the contrast Zref - Zlab, the inverse form 1/Zlab - 1/Zref, which is Rex/R1 in the steady state. The
regular form assumes no direct saturation of the water; in the inverse form it cancels in the steady state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from NeuroCESTLib.core.progress import Progress

from ..fitting.least_squares import FitResult, levenberg_marquardt
from ..physics.protocol import Protocol
from .contrasts import mtr_ld, mtr_rex

Form = Literal["regular", "inverse"]

FRACTION_BOUNDS, EXCHANGE_RATE_BOUNDS_HZ = (1e-6, 0.1), (1.0, 2e4)
"""Bounds of a fit where the model gives none."""
GRID_RATES = 16
"""Exchange rates that are tried for the start of the fit."""
SMALLEST_DIVISOR = 1e-30


@dataclass(frozen=True)
class ExchangeFit:
    """Fraction and exchange rate of every voxel; NaN where not fitted.

    Attributes:
        fraction: (voxel,) proton fraction (water = 1).
        fraction_sd: (voxel,) its standard error.
        exchange_rate_Hz: (voxel,) in 1/s.
        exchange_rate_Hz_sd: (voxel,) its standard error.
        rmse: (voxel,) root mean square of the residual, in units of what was fitted.
        status: (voxel,) uint8, see ``fitting.marquardt.Status``.
    """

    fraction: Tensor
    fraction_sd: Tensor
    exchange_rate_Hz: Tensor
    exchange_rate_Hz_sd: Tensor
    rmse: Tensor
    status: Tensor


@dataclass(frozen=True)
class TwoPoolContrast:
    """The contrast between reference and label of a solute pool in exchange with water.

    Attributes:
        w1: (measurement, 1) nominal RF amplitude in rad/s.
        duration_s: (measurement, 1) saturation time.
        r2_Hz: R2 of the exchanging protons in 1/s.
        form: ``regular`` or ``inverse``.
    """

    w1: Tensor
    duration_s: Tensor
    r2_Hz: float
    form: Form

    @classmethod
    def of(cls, protocol: Protocol, r2_Hz: float, form: Form, like: Tensor) -> TwoPoolContrast:
        """Return the contrast at the B1 and saturation times of a protocol, with the dtype and device of a tensor."""
        w1, duration_s = (each.to(like).unsqueeze(1) for each in (protocol.w1_rad_per_s, protocol.saturation_time_s))
        return cls(w1, duration_s, r2_Hz, form)

    def exchange(self, fraction: Tensor, k: Tensor, w1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute Rex in 1/s and its derivatives with respect to the fraction f and the exchange rate k.

        Args:
            fraction: f, (voxel,).
            k: (voxel,) in 1/s.
            w1: (measurement, voxel) actual RF amplitude in rad/s.

        Returns:
            Rex, dRex/df and dRex/dk, (measurement, voxel) each.
        """
        denominator = w1 * w1 + k * (k + self.r2_Hz)
        efficiency = w1 * w1 / denominator
        rex_by_k = fraction * efficiency * (1 - k * (2 * k + self.r2_Hz) / denominator)
        return fraction * k * efficiency, k * efficiency, rex_by_k

    def predict(self, parameters: Tensor, r1: Tensor, b1_relative: Tensor, initial_z: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the contrast and its derivatives with respect to fraction and exchange rate.

        Args:
            parameters: (2, voxel), f and k.
            r1: (voxel,) R1 of water in 1/s.
            b1_relative: (voxel,) actual over nominal B1.
            initial_z: (measurement, voxel) Z before the saturation.

        Returns:
            The contrast (measurement, voxel) and its Jacobian (2, measurement, voxel).
        """
        rex, rex_by_f, rex_by_k = self.exchange(parameters[0], parameters[1], self.w1 * b1_relative)
        rate = r1 + rex
        decay = (-rate * self.duration_s).exp()
        steady = r1 / rate
        label = (initial_z - steady) * decay + steady
        label_by_rex = -steady / rate * (1 - decay) - self.duration_s * (initial_z - steady) * decay
        reference = (initial_z - 1) * (-r1 * self.duration_s).exp() + 1
        if self.form == "regular":
            return reference - label, torch.stack((-label_by_rex * rex_by_f, -label_by_rex * rex_by_k))
        contrast_by_rex = -label_by_rex / label.square()
        return 1 / label - 1 / reference, torch.stack((contrast_by_rex * rex_by_f, contrast_by_rex * rex_by_k))


def fit_quesp(
    z_label: Tensor,
    z_reference: Tensor,
    protocol: Protocol,
    t1_s: Tensor,
    *,
    form: Form = "inverse",
    r2_Hz: float = 0.0,
    initial_z: float | Tensor = 1.0,
    b1_relative: Tensor | None = None,
    fraction_bounds: tuple[float, float] = FRACTION_BOUNDS,
    exchange_rate_bounds_Hz: tuple[float, float] = EXCHANGE_RATE_BOUNDS_HZ,
    threads: int | None = None,
    progress: Progress | None = None,
) -> ExchangeFit:
    """Fit QUESP (B1 varies), QUEST (the saturation time varies), or both at once.

    One power determines Rex alone, whatever the saturation times, and not which fraction and rate give it.

    Args:
        z_label: (voxel, m) at the offset +D of the exchanging protons.
        z_reference: (voxel, m) at -D.
        protocol: That of the labels, of which the B1, the saturation times and the gyromagnetic ratio are used.
        t1_s: (voxel,) water T1.
        form: ``regular`` fits Zref - Zlab, ``inverse`` fits 1/Zlab - 1/Zref.
        r2_Hz: R2 of the exchanging protons in 1/s.
        initial_z: Z before the saturation, a number or (voxel, m).
        b1_relative: (voxel,) actual over nominal B1; None for one.
        fraction_bounds: Lower and upper bound of the fraction.
        exchange_rate_bounds_Hz: Lower and upper bound of the exchange rate in 1/s.
        threads: As in ``levenberg_marquardt``.
        progress: As in ``levenberg_marquardt``.

    Raises:
        ValueError: The form is unknown, or the protocol does not have as many measurements as there are pairs.
    """
    if form not in ("regular", "inverse"):
        raise ValueError(f"form '{form}' is unknown; use one of regular, inverse")
    labels, references = z_label.shape[1], z_reference.shape[1]
    if not labels == references == protocol.measurement_count:
        raise ValueError(
            f"{labels} labels need as many references and measurements of the protocol, not {references} and "
            f"{protocol.measurement_count}"
        )
    r1, relative = r1_and_relative_b1(t1_s, b1_relative, z_label)
    model = TwoPoolContrast.of(protocol, r2_Hz, form, z_label)
    inverse = mtr_rex(z_label, z_reference)
    limits = torch.tensor([fraction_bounds, exchange_rate_bounds_Hz], dtype=torch.float64).T
    fit = levenberg_marquardt(
        model.predict,
        inverse if form == "inverse" else mtr_ld(z_label, z_reference),
        _best_start(model, inverse, r1, relative, limits),
        limits[0],
        limits[1],
        arguments=(r1, relative, torch.as_tensor(initial_z).to(z_label).expand(z_label.shape)),
        threads=threads,
        progress=progress,
    )
    return _exchange_fit(fit)


def r1_and_relative_b1(t1_s: Tensor, b1_relative: Tensor | None, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the R1 of water and the relative B1 of every voxel in the dtype of a tensor.

    Args:
        t1_s: (voxel,) water T1.
        b1_relative: (voxel,) actual over nominal B1; None for one.
        like: Tensor that gives dtype and device.

    Returns:
        R1 in 1/s, NaN where T1 is not positive, and the relative B1; (voxel,) each.
    """
    r1 = torch.where(t1_s > 0, 1 / t1_s, torch.nan).to(like)
    return r1, torch.ones_like(r1) if b1_relative is None else b1_relative.to(r1)


def _best_start(model: TwoPoolContrast, inverse: Tensor, r1: Tensor, relative: Tensor, limits: Tensor) -> Tensor:
    """Find the exchange rate of a coarse grid, with its fraction, that explains the inverse contrast best.

    Args:
        model: The contrast.
        inverse: (voxel, m) inverse contrast, Rex/R1 in the steady state.
        r1: (voxel,) in 1/s.
        relative: (voxel,) relative B1.
        limits: (2, 2), lower and upper bounds of fraction and rate.

    Returns:
        Fraction and rate, (voxel, 2).
    """
    low, high = limits[:, 1].tolist()
    low = low if low > 0 else min(EXCHANGE_RATE_BOUNDS_HZ[0], high)  # the grid is logarithmic
    best = torch.full_like(r1, torch.inf)
    start = inverse.new_empty(len(r1), 2)
    rex = (inverse * r1.unsqueeze(1)).nan_to_num(0.0)
    for k in torch.logspace(math.log10(low), math.log10(high), GRID_RATES).tolist():
        rex_of_unit_fraction = model.exchange(torch.ones_like(r1), torch.full_like(r1, k), model.w1 * relative)[0].T
        shape = rex_of_unit_fraction.nan_to_num(0.0)
        fraction = (rex * shape).sum(1) / shape.square().sum(1).clamp_min(SMALLEST_DIVISOR)
        misfit = (rex - fraction.unsqueeze(1) * shape).square().sum(1)
        better = misfit < best
        best = torch.where(better, misfit, best)
        start[better] = torch.stack((fraction, torch.full_like(fraction, k)), 1)[better]
    return start.nan_to_num(0.0)


def _exchange_fit(fit: FitResult) -> ExchangeFit:
    """Name the parameters of a fit."""
    return ExchangeFit(
        fraction=fit.parameters[:, 0],
        fraction_sd=fit.standard_errors[:, 0],
        exchange_rate_Hz=fit.parameters[:, 1],
        exchange_rate_Hz_sd=fit.standard_errors[:, 1],
        rmse=fit.rmse,
        status=fit.status,
    )
