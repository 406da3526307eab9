"""QUCESOP and gQUCESOP: exchange parameters from R1rho over offsets and powers, above a linear background.

Wang Y, Chen JF, Li P, Gao JH, Magn Reson Med 2021, 10.1002/mrm.28436; Wang Y, Sun YX, Yang QY, Gao JH, NMR
Biomed 2024;37:e5098, 10.1002/nbm.5098. Around the target's offset, R1rho of all other pools (semisolid, other
solutes) is taken as linear:

    R1rho(D, w1) = c0(w1) + c1(w1) (D - Dref) + cw sin^2(theta) + Rex(D, w1; f, k, R2b)

The abstracts do not state how the linear part depends on w1. Decisions of this project: the two coefficients are
free at every power, since semisolid saturation and overlapping solutes each depend on w1 in their own way; and the
spill-over of water, which is R1 + (R2 - R1) sin^2(theta) and no straight line near water, enters with its own form
and one coefficient, at the nominal fields. All are linear, so they are eliminated exactly by projecting data and
model on the complement of their columns (variable projection with a constant basis), and only f, k (and R2b) are
iterated.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from NeuroCESTLib.core.progress import Progress

from ..fitting.least_squares import FitResult, levenberg_marquardt
from ..physics.r1rho.exchange import EffectiveField, Exchange
from ..physics.r1rho.inputs import SoluteInputs
from ..physics.units import GAMMA_RAD_PER_S_PER_UT, rad_per_s_per_ppm

BISECTIONS = 40
SLOWEST_HZ, FASTEST_HZ = 1e-3, 1e5


def r1rho_from_z(
    z: Tensor,
    offsets_ppm: Tensor,
    b1_uT: Tensor,
    saturation_time_s: Tensor,
    t1_s: Tensor,
    field_strength_T: float,
    *,
    initial_z: float = 1.0,
    b0_shift_ppm: Tensor | None = None,
    b1_relative: Tensor | None = None,
) -> Tensor:
    """R1rho of each measurement after continuous-wave saturation, 1/s.

    Solves Z = cos^2(theta) [Zi exp(-R t) + R1 (1 - exp(-R t))/R], which falls monotonically with R, by
    bisection.

    Args:
        z: (voxel, m); offsets_ppm, b1_uT, saturation_time_s: (m,) (a time may be infinite); t1_s: (voxel,).
        b0_shift_ppm, b1_relative: (voxel,).

    Returns:
        (voxel, m); NaN where no rate between 1e-3 and 1e5 1/s gives Z.
    """
    offset = offsets_ppm.to(z) - (0 if b0_shift_ppm is None else b0_shift_ppm.to(z).unsqueeze(1))
    w1 = GAMMA_RAD_PER_S_PER_UT * b1_uT.to(z)
    if b1_relative is not None:
        w1 = w1 * b1_relative.to(z).unsqueeze(1)
    cos2 = EffectiveField.of(w1, offset * rad_per_s_per_ppm(field_strength_T)).cos2
    target = z / cos2
    r1 = (1 / t1_s).to(z).unsqueeze(1)
    duration = saturation_time_s.to(z).clamp_max(1e6)

    def locked(rate: Tensor) -> Tensor:
        decay = (-rate * duration).exp()
        return initial_z * decay + r1 * (1 - decay) / rate

    low, high = torch.full_like(target, SLOWEST_HZ), torch.full_like(target, FASTEST_HZ)
    reachable = (target <= locked(low)) & (target >= locked(high)) & (z > 0)
    for _ in range(BISECTIONS):
        middle = (low * high).sqrt()
        slower = locked(middle) < target
        low, high = torch.where(slower, low, middle), torch.where(slower, middle, high)
    return torch.where(reachable, (low * high).sqrt(), torch.nan)


@dataclass(frozen=True)
class QucesopFit:
    """Exchange parameters (voxel,) with standard errors, NaN where not fitted.

    `r2_Hz` is the given value for QUCESOP and fitted for gQUCESOP. `rmse_Hz` is the root mean square
    difference
    between acquired and synthesised R1rho trajectories: the reliability map, high where other solutes overlap
    with the target in a way that a line does not describe. `synthesised_r1rho` is (voxel, m).
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
        return self.fit.status


@dataclass(frozen=True)
class _Target:
    """Rex of the target solute over the measurements, and its projection off the linear background."""

    offset: Tensor  # (m, 1) rad/s of the RF from the nominal water frequency
    w1: Tensor  # (m, 1) rad/s
    dw: float  # rad/s
    rad_per_s_per_ppm: float
    projection: Tensor  # (m - 2 powers - 1, m)
    fixed_r2_Hz: float | None

    def exchange(self, parameters: Tensor, b0_shift_ppm: Tensor, b1_relative: Tensor) -> Exchange:
        water = b0_shift_ppm * self.rad_per_s_per_ppm - self.offset
        w1 = self.w1 * b1_relative
        r2 = parameters[2] if self.fixed_r2_Hz is None else torch.full_like(parameters[0], self.fixed_r2_Hz)
        dw = torch.full_like(parameters[0], self.dw)
        solute = SoluteInputs(fraction=parameters[0], k=parameters[1], R2=r2, dw=dw)
        return Exchange.of(EffectiveField.of(w1, water), water, solute)

    def predict(self, parameters: Tensor, b0_shift_ppm: Tensor, b1_relative: Tensor) -> tuple[Tensor, Tensor]:
        exchange = self.exchange(parameters, b0_shift_ppm, b1_relative)
        fitted = SoluteInputs(fraction=True, k=True, R2=self.fixed_r2_Hz is None, dw=False)
        gradients = exchange.gradients(1.0, fitted)
        columns = [column for column in gradients.solute.flat() if column is not None]
        return self.projection @ exchange.rate, torch.stack([self.projection @ column for column in columns])


def fit_qucesop(
    r1rho: Tensor,
    offsets_ppm: Tensor,
    b1_uT: Tensor,
    target_ppm: float,
    field_strength_T: float,
    *,
    r2_Hz: float | None = 1.0,
    b0_shift_ppm: Tensor | None = None,
    b1_relative: Tensor | None = None,
    start: tuple[float, float, float] = (1e-3, 300.0, 50.0),
    lower: tuple[float, float, float] = (0.0, 1.0, 0.1),
    upper: tuple[float, float, float] = (0.1, 2e4, 1e3),
    threads: int | None = None,
    progress: Progress | None = None,
) -> QucesopFit:
    """Fit f and k (QUCESOP), and with r2_Hz=None also R2b (gQUCESOP).

    Args:
        r1rho: (voxel, m) in 1/s, see `r1rho_from_z`; offsets around the target at one or more powers.
        offsets_ppm, b1_uT: (m,); measurements of equal B1 share their linear coefficients.
        target_ppm: chemical shift of the target from the water.
        r2_Hz: R2 of the target; small in QUCESOP, which assumes a narrow line; None fits it.
        b0_shift_ppm, b1_relative: (voxel,).
        start, lower, upper: of f, k [1/s] and R2b [1/s].

    Raises:
        ValueError: fewer than three offsets at a power, or fewer measurements than unknowns.
    """
    voxels, measurements = r1rho.shape
    if len(offsets_ppm) != measurements or len(b1_uT) != measurements:
        raise ValueError(
            f"offsets_ppm has {len(offsets_ppm)} values and b1_uT {len(b1_uT)}, "
            f"but the signal has {measurements} measurements"
        )
    offsets, powers = offsets_ppm.to(r1rho), b1_uT.to(r1rho)
    scale = rad_per_s_per_ppm(field_strength_T)
    lines = _background(offsets, powers, target_ppm, scale)
    unknowns = 3 if r2_Hz is None else 2
    if measurements - lines.shape[1] < unknowns:
        raise ValueError(f"{measurements} measurements do not determine {lines.shape[1] + unknowns} unknowns")
    complement = torch.linalg.qr(lines, mode="complete")[0][:, lines.shape[1] :].T
    model = _Target(
        offset=(offsets * scale).unsqueeze(1),
        w1=(powers * GAMMA_RAD_PER_S_PER_UT).unsqueeze(1),
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
        torch.tensor(start[:unknowns]),
        torch.tensor(lower[:unknowns]),
        torch.tensor(upper[:unknowns]),
        arguments=(shift, relative),
        threads=threads,
        progress=progress,
    )
    target = model.exchange(fit.parameters.T, shift, relative).rate.T
    background = (r1rho - target) @ torch.linalg.pinv(lines).T @ lines.T
    synthesised = background + target
    fixed = torch.where(fit.fitted, r2_Hz if r2_Hz is not None else 0.0, torch.nan).to(r1rho)
    return QucesopFit(
        fraction=fit.parameters[:, 0],
        fraction_sd=fit.standard_errors[:, 0],
        exchange_rate_Hz=fit.parameters[:, 1],
        exchange_rate_Hz_sd=fit.standard_errors[:, 1],
        r2_Hz=fit.parameters[:, 2] if r2_Hz is None else fixed,
        r2_Hz_sd=fit.standard_errors[:, 2] if r2_Hz is None else torch.full_like(fixed, torch.nan),
        rmse_Hz=(r1rho - synthesised).square().mean(1).sqrt(),
        synthesised_r1rho=synthesised,
        fit=fit,
    )


def _background(offsets_ppm: Tensor, b1_uT: Tensor, reference_ppm: float, rad_per_s_per_ppm: float) -> Tensor:
    """Columns of the background: a constant and a slope for every power, and the tilt of water; (m, 2 powers + 1)."""
    columns = []
    for power in b1_uT.unique():
        here = (b1_uT == power).to(offsets_ppm)
        if int(here.sum()) < 3:
            raise ValueError(f"QUCESOP needs three offsets or more at each power; {power:g} uT has fewer")
        columns += [here, here * (offsets_ppm - reference_ppm)]
    columns.append(EffectiveField.of(b1_uT * GAMMA_RAD_PER_S_PER_UT, offsets_ppm * rad_per_s_per_ppm).sin2)
    return torch.stack(columns, 1)
