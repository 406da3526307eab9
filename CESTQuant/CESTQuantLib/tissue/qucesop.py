"""QUCESOP and gQUCESOP: exchange parameters from R1rho over offsets and powers, above a linear background.

Wang Y, Chen JF, Li P, Gao JH, Magn Reson Med 2021, 10.1002/mrm.28436; Wang Y, Sun YX, Yang QY, Gao JH, NMR Biomed
2024;37:e5098, 10.1002/nbm.5098. Around the offset of the target, R1rho of all other pools (semisolid, other solutes) is
taken as linear in the offset D::

    R1rho(D, w1) = c0(w1) + c1(w1) (D - Dref) + cw sin^2(theta) + Rex(D, w1; f, k, R2b)

The abstracts do not say how the linear part depends on w1. This project decides: the two coefficients are free at every
power, since semisolid saturation and overlapping solutes each depend on w1 in their own way. The spill-over of water,
R1 + (R2 - R1) sin^2(theta), is no straight line near water, so it enters with its own form and one coefficient, at the
nominal fields. All of these coefficients are linear. They are eliminated exactly by projecting data and model onto the
complement of their columns (variable projection with a constant basis), and only f, k (and R2b) are iterated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from NeuroCESTLib.core.messages.input_errors import InputError
from NeuroCESTLib.core.progress import Progress

from ..fitting.interpolation import distinct_offsets
from ..fitting.least_squares import FitResult, levenberg_marquardt
from ..fitting.statistics import VOXELS_PER_CHUNK, errors_of_unequal_noise
from ..physics.protocol import Protocol
from ..physics.r1rho.exchange import EffectiveField, Exchange
from ..physics.r1rho.inputs import SoluteInputs

BISECTIONS = 40
SLOWEST_HZ, FASTEST_HZ = 1e-3, 1e5
"""Range of R1rho in 1/s that is searched."""
LIMITS = {"fraction": (1e-3, 0.0, 0.1), "k_Hz": (300.0, 1.0, 2e4), "r2_Hz": (50.0, 0.1, 1e3)}
"""Start, lower and upper bound of what is fitted, where the model gives none."""
FEWEST_OFFSETS = 3
"""Offsets per power that a linear background and a target need."""


def r1rho_from_z(
    z: Tensor,
    protocol: Protocol,
    t1_s: Tensor,
    *,
    initial_z: float | Tensor = 1.0,
    b0_shift_ppm: Tensor | None = None,
    b1_relative: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Invert Z after continuous-wave saturation to R1rho.

    Solves Z = cos^2(theta) [Zi exp(-R t) + R1 (1 - exp(-R t))/R], which falls monotonically with R, by bisection.

    Args:
        z: (voxel, m) normalised signal.
        protocol: Protocol of these measurements.
        t1_s: (voxel,) water T1.
        initial_z: Zi before the saturation, a number or (voxel, m).
        b0_shift_ppm: (voxel,) position of the water; None for zero.
        b1_relative: (voxel,) actual over nominal B1; None for one.

    Returns:
        R1rho and the amount -dR1rho/dZ by which it amplifies the noise of Z, in 1/s, (voxel, m) each; NaN where no rate
        between 1e-3 and 1e5 1/s gives Z.
    """
    offset = protocol.offsets_ppm.to(z) - (0 if b0_shift_ppm is None else b0_shift_ppm.to(z).unsqueeze(1))
    w1 = protocol.w1_rad_per_s.to(z)
    if b1_relative is not None:
        w1 = w1 * b1_relative.to(z).unsqueeze(1)
    cos2 = EffectiveField.of(w1, offset * protocol.rad_per_s_per_ppm).cos2
    target = z / cos2
    r1 = (1 / t1_s).to(z).unsqueeze(1)
    duration = protocol.saturation_time_s.to(z)

    def locked_z(rate: Tensor) -> Tensor:
        decay = (-rate * duration).exp()
        return initial_z * decay + r1 * (1 - decay) / rate

    low, high = torch.full_like(target, SLOWEST_HZ), torch.full_like(target, FASTEST_HZ)
    reachable = (target <= locked_z(low)) & (target >= locked_z(high)) & (z > 0)
    for _ in range(BISECTIONS):
        middle = (low * high).sqrt()
        slower = locked_z(middle) < target
        low, high = torch.where(slower, low, middle), torch.where(slower, middle, high)
    rate = torch.where(reachable, (low * high).sqrt(), torch.nan)
    decay = (-rate * duration).exp()
    fall = duration * decay * (initial_z - r1 / rate) + r1 * (1 - decay) / rate.square()
    return rate, 1 / (cos2 * fall)


@dataclass(frozen=True)
class QucesopFit:
    """Exchange parameters of every voxel; NaN where not fitted.

    Attributes:
        fraction: (voxel,) proton fraction (water = 1).
        fraction_sd: (voxel,) its standard error.
        exchange_rate_Hz: (voxel,) in 1/s.
        exchange_rate_Hz_sd: (voxel,) its standard error.
        r2_Hz: (voxel,) R2b in 1/s, the given one for QUCESOP and the fitted one for gQUCESOP.
        r2_Hz_sd: (voxel,) its standard error; NaN for a given one.
        rmse_Hz: (voxel,) root mean square difference between acquired and synthesised R1rho in 1/s. This is the
            reliability map: it is high where other solutes overlap with the target in a way that a line does not
            describe.
        synthesised_r1rho: (voxel, m) in 1/s.
        fit: Result of the iterations.
    """

    fraction: Tensor
    fraction_sd: Tensor
    exchange_rate_Hz: Tensor
    exchange_rate_Hz_sd: Tensor
    r2_Hz: Tensor
    r2_Hz_sd: Tensor
    rmse_Hz: Tensor
    synthesised_r1rho: Tensor
    fit: FitResult

    @property
    def status(self) -> Tensor:
        """Outcome of the fit, (voxel,) uint8, see ``fitting.marquardt.Status``."""
        return self.fit.status


@dataclass(frozen=True)
class ProjectedExchange:
    """Rex of the target solute over the measurements, and its projection off the linear background.

    Attributes:
        offset: (m, 1) offset of the RF from the nominal water frequency in rad/s.
        w1: (m, 1) nominal RF amplitude in rad/s.
        dw: Chemical shift of the target from water in rad/s.
        rad_per_s_per_ppm: Angular frequency of one ppm.
        projection: (m - columns of the background, m).
        fixed_r2_Hz: R2b of the target in 1/s; None if it is fitted.
    """

    offset: Tensor
    w1: Tensor
    dw: float
    rad_per_s_per_ppm: float
    projection: Tensor
    fixed_r2_Hz: float | None

    def exchange(self, parameters: Tensor, b0_shift_ppm: Tensor, b1_relative: Tensor) -> Exchange:
        """Compute the exchange of the target.

        Args:
            parameters: (2 or 3, voxel), f, k and R2b where it is fitted.
            b0_shift_ppm: (voxel,).
            b1_relative: (voxel,).
        """
        water = b0_shift_ppm * self.rad_per_s_per_ppm - self.offset
        w1 = self.w1 * b1_relative
        r2 = parameters[2] if self.fixed_r2_Hz is None else torch.full_like(parameters[0], self.fixed_r2_Hz)
        dw = torch.full_like(parameters[0], self.dw)
        solute = SoluteInputs(fraction=parameters[0], k=parameters[1], R2=r2, dw=dw)
        return Exchange.of(EffectiveField.of(w1, water), water, solute)

    def columns(self, exchange: Exchange) -> Tensor:
        """Compute the derivatives of Rex with respect to the fitted parameters, (parameter, m, voxel)."""
        fitted = SoluteInputs(fraction=True, k=True, R2=self.fixed_r2_Hz is None, dw=False)
        gradients = exchange.gradients(1.0, fitted)
        return torch.stack([column for column in gradients.solute.flat() if column is not None])

    def predict(self, parameters: Tensor, b0_shift_ppm: Tensor, b1_relative: Tensor) -> tuple[Tensor, Tensor]:
        """Compute projected Rex and its derivatives with respect to the fitted parameters.

        Returns:
            The prediction (row of the projection, voxel) and its Jacobian (parameter, row of the projection, voxel).
        """
        exchange = self.exchange(parameters, b0_shift_ppm, b1_relative)
        return self.projection @ exchange.rate, self.projection @ self.columns(exchange)


def fit_qucesop(
    r1rho: Tensor,
    protocol: Protocol,
    target_ppm: float,
    *,
    r2_Hz: float | None = 1.0,
    noise: Tensor | None = None,
    b0_shift_ppm: Tensor | None = None,
    b1_relative: Tensor | None = None,
    limits: Sequence[tuple[float, float, float]] | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> QucesopFit:
    """Fit f and k (QUCESOP), and also R2b (gQUCESOP) where it is not given.

    Args:
        r1rho: (voxel, m) in 1/s, see ``r1rho_from_z``.
        protocol: Protocol of these measurements, at offsets around the target and one or more powers. Measurements of
            equal B1 share their linear coefficients.
        target_ppm: Chemical shift of the target from water.
        r2_Hz: R2b of the target in 1/s, small in QUCESOP, which assumes a narrow line; None to fit it.
        noise: (voxel, m) standard deviation of R1rho up to a factor per voxel, for the standard errors; None where all
            measurements are equally noisy. The noise of Z is amplified several times more at one power than at another.
        b0_shift_ppm: (voxel,) position of the water; None for zero.
        b1_relative: (voxel,) actual over nominal B1; None for one.
        limits: Start, lower and upper bound of f, k in 1/s and R2b in 1/s; by default those of ``LIMITS``.
        threads: As in ``levenberg_marquardt``.
        progress: As in ``levenberg_marquardt``.

    Raises:
        ValueError: There are fewer than three different offsets at a power, or fewer different measurements than
            unknowns.
    """
    voxels, measurements = r1rho.shape
    if protocol.measurement_count != measurements:
        raise ValueError(
            f"the protocol has {protocol.measurement_count} measurements but the signal has {measurements}"
        )
    offsets, powers, w1 = (each.to(r1rho) for each in (protocol.offsets_ppm, protocol.b1_uT, protocol.w1_rad_per_s))
    scale = protocol.rad_per_s_per_ppm
    basis = _background_basis(offsets, powers, target_ppm, EffectiveField.of(w1, offsets * scale).sin2)
    unknowns = 3 if r2_Hz is None else 2
    different = sum(_different_offsets(offsets, powers == power) for power in powers.unique())
    if different - basis.shape[1] < unknowns:
        raise InputError(
            "protocol", f"{different} different measurements do not determine {basis.shape[1] + unknowns} unknowns"
        )
    complement = torch.linalg.qr(basis, mode="complete")[0][:, basis.shape[1] :].T
    model = ProjectedExchange(
        offset=(offsets * scale).unsqueeze(1),
        w1=w1.unsqueeze(1),
        dw=target_ppm * scale,
        rad_per_s_per_ppm=scale,
        projection=complement.contiguous(),
        fixed_r2_Hz=r2_Hz,
    )
    shift = r1rho.new_zeros(voxels) if b0_shift_ppm is None else b0_shift_ppm.to(r1rho)
    relative = r1rho.new_ones(voxels) if b1_relative is None else b1_relative.to(r1rho)
    fit = levenberg_marquardt(
        model.predict,
        r1rho @ complement.T,
        *torch.tensor(list(limits or LIMITS.values())[:unknowns], dtype=torch.float64).T,
        arguments=(shift, relative),
        correlation=False,
        threads=threads,
        progress=progress,
    )
    rex = model.exchange(fit.parameters.T, shift, relative).rate.T
    background = (r1rho - rex) @ torch.linalg.pinv(basis).T @ basis.T
    synthesised = background + rex
    if noise is not None:
        fit = _with_unequal_noise(fit, model, basis, noise, (r1rho - synthesised).square().sum(1), shift, relative)
    given_r2 = torch.where(fit.fitted, 0.0 if r2_Hz is None else r2_Hz, torch.nan).to(r1rho)
    return QucesopFit(
        fraction=fit.parameters[:, 0],
        fraction_sd=fit.standard_errors[:, 0],
        exchange_rate_Hz=fit.parameters[:, 1],
        exchange_rate_Hz_sd=fit.standard_errors[:, 1],
        r2_Hz=fit.parameters[:, 2] if r2_Hz is None else given_r2,
        r2_Hz_sd=fit.standard_errors[:, 2] if r2_Hz is None else torch.full_like(given_r2, torch.nan),
        rmse_Hz=(r1rho - synthesised).square().mean(1).sqrt(),
        synthesised_r1rho=synthesised,
        fit=fit,
    )


def _with_unequal_noise(
    fit: FitResult,
    model: ProjectedExchange,
    basis: Tensor,
    noise: Tensor,
    residual_sum: Tensor,
    b0_shift_ppm: Tensor,
    b1_relative: Tensor,
) -> FitResult:
    """Return the fit with the standard errors for noise (voxel, m) that differs between the measurements."""
    errors = fit.standard_errors.clone()
    free = errors.isfinite()
    index = torch.nonzero(free.any(1)).flatten()
    for some in index.split(VOXELS_PER_CHUNK) if len(index) else ():
        exchange = model.exchange(fit.parameters[some].T, b0_shift_ppm[some], b1_relative[some])
        of_target = model.columns(exchange).permute(2, 1, 0) * free[some].unsqueeze(1)
        columns = torch.cat((basis.expand(len(some), -1, -1), of_target), 2).double()
        found = errors_of_unequal_noise(columns, noise[some].double(), residual_sum[some].double())
        errors[some] = found[:, basis.shape[1] :].to(errors)
    return replace(fit, standard_errors=torch.where(free, errors, torch.nan))


def _different_offsets(offsets_ppm: Tensor, chosen: Tensor) -> int:
    return len(distinct_offsets(offsets_ppm[chosen]))


def _background_basis(offsets_ppm: Tensor, b1_uT: Tensor, reference_ppm: float, sin2: Tensor) -> Tensor:
    """Return the columns of the background: a constant and a slope per power, and the sin^2(theta) of water.

    Returns:
        (m, 2 powers + 1).
    """
    columns = []
    for power in b1_uT.unique():
        at_power = (b1_uT == power).to(offsets_ppm)
        if _different_offsets(offsets_ppm, at_power > 0) < FEWEST_OFFSETS:
            raise InputError(
                "protocol", f"QUCESOP needs three different offsets or more at each power; {power:g} uT has fewer"
            )
        columns += [at_power, at_power * (offsets_ppm - reference_ppm)]
    return torch.stack([*columns, sin2], 1)
