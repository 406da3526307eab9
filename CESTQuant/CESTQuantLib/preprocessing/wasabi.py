"""WASABI: B0 and B1 together from the Rabi oscillation over the offsets after a short block pulse.

Schuenke et al., Magn Reson Med 2017;77:571: ``Z = |c - d sin^2(theta) sin^2(weff tp / 2)|`` with
``tan(theta) = w1/(D - dB0)`` and ``weff^2 = w1^2 + (D - dB0)^2``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from NeuroCESTLib.core.messages.input_errors import InputError
from NeuroCESTLib.core.progress import Progress

from ..fitting.interpolation import distinct_offsets
from ..fitting.least_squares import Status, levenberg_marquardt
from ..physics.units import GAMMA_RAD_PER_S_PER_UT
from .reference import FAR_OFF_RESONANCE_PPM

LOOKUP_PHASE_STEP = 0.15
"""Difference of the flip angle between neighbouring entries of the look-up table, in rad."""
LOOKUP_RATIOS = (1.2, 1.5, 1.8, 2.1)
"""Values of d/c in the look-up table."""
LOOKUP_VALUES = 2**22
"""Voxels x entries of the table that are compared at a time."""
CANDIDATES = 10
"""Local minima of the table from which a voxel may be fitted."""
CANDIDATE_RMSE = 0.04
"""Root mean square misfit of a table entry, beyond three times that of the best, up to which it is a candidate."""
MARGIN = 0.5
"""Share of the limits by which the search goes beyond them, to notice a better solution there."""
LIMITS_OF_C, LIMITS_OF_D = (0.3, 1.5), (0.0, 3.0)
"""Bounds of the scale c and the depth d of normalised spectra."""
SAME_SOLUTION = 0.05
"""Two solutions closer than this, in ppm and in relative B1, are one."""
CLEARLY_BETTER = 12.0
"""Difference of the sums of squares, in units of the noise variance, by which a solution must be the best."""
WORST_RMSE, LEAST_EXPLAINED = 3.0, 0.9
"""Largest residual in units of the volume's median, and smallest explained share of the variance, of a good fit."""
FITTED_VALUES = 4
"""B1, B0 shift, c and d, which need as many different offsets."""
NEGLIGIBLE_RMSE = 0.01
"""Residuals below this, in units of M0, are never poor."""


@dataclass(frozen=True)
class WasabiPulse:
    """Block pulse of the acquisition; the defaults are those of the publication.

    Attributes:
        b1_uT: Nominal B1 in uT.
        duration_s: Duration in s.
        field_strength_T: Static field in T.
        gamma_rad_per_s_per_uT: Gyromagnetic ratio in rad/(s uT).
    """

    b1_uT: float = 3.7
    duration_s: float = 0.005
    field_strength_T: float = 3.0
    gamma_rad_per_s_per_uT: float = GAMMA_RAD_PER_S_PER_UT

    @property
    def rad_per_s_per_ppm(self) -> float:
        """Angular frequency of one ppm in rad/s."""
        return self.gamma_rad_per_s_per_uT * self.field_strength_T

    def inversion(self, b1_uT: Tensor, offset_ppm: Tensor) -> Tensor:
        """Return ``sin^2(theta) sin^2(weff tp / 2)`` elementwise, for B1 in uT and the offset from water in ppm."""
        w1 = self.gamma_rad_per_s_per_uT * b1_uT
        detuning = self.rad_per_s_per_ppm * offset_ppm
        total = w1 * w1 + detuning * detuning
        return w1 * w1 / total * (total.sqrt() * (self.duration_s / 2)).sin().square()

    def predict(self, parameters: Tensor, offsets_ppm: Tensor) -> tuple[Tensor, Tensor]:
        """Predict the spectrum and its derivatives.

        Args:
            parameters: B1 in uT, B0 shift in ppm, c and d, shape (4, voxel).
            offsets_ppm: Offsets in ppm, shape (offset, 1).

        Returns:
            Z (offset, voxel), and its derivatives (4, offset, voxel) with respect to the parameters.
        """
        b1, shift, c, d = parameters
        half = self.duration_s / 2
        w1 = self.gamma_rad_per_s_per_uT * b1
        detuning = self.rad_per_s_per_ppm * (offsets_ppm - shift)
        total = w1 * w1 + detuning * detuning
        weff = total.sqrt()
        sine2 = w1 * w1 / total
        phase = weff * half
        sin, cos = phase.sin(), phase.cos()
        inversion = sine2 * sin * sin
        oscillation = 2 * sine2 * sin * cos * half / weff  # common to both components of the effective field
        by_w1 = w1 * (2 * detuning * detuning / (total * total) * sin * sin + oscillation)
        by_detuning = detuning * (oscillation - 2 * inversion / total)
        signed = c - d * inversion
        sign = torch.where(signed < 0, -1.0, 1.0).to(signed)
        jacobian = torch.stack(
            (
                -sign * d * by_w1 * self.gamma_rad_per_s_per_uT,
                sign * d * by_detuning * self.rad_per_s_per_ppm,
                sign,
                -sign * inversion,
            )
        )
        return signed.abs(), jacobian


@dataclass(frozen=True)
class WasabiFit:
    """Field maps of shape (voxel,), NaN where not fitted.

    Attributes:
        b0_shift_ppm: B0 shift in ppm.
        b0_shift_ppm_sd: Its standard error.
        b1_relative: Actual over nominal B1.
        b1_relative_sd: Its standard error.
        rmse: Root mean square of the residual.
        status: Outcome of every voxel, uint8, see ``fitting.marquardt.Status``: ``AT_BOUND`` where the best solution
            lies at or beyond a limit, ``POOR_FIT`` where the residual is large or another solution fits as well.
    """

    b0_shift_ppm: Tensor
    b0_shift_ppm_sd: Tensor
    b1_relative: Tensor
    b1_relative_sd: Tensor
    rmse: Tensor
    status: Tensor


@dataclass(frozen=True)
class FieldLimits:
    """Limits of the fields, outside of which no estimate is reported as converged.

    Attributes:
        b0_ppm: Lowest and highest B0 shift in ppm; None for the range of the offsets within 20 ppm of water.
        b1_relative: Lowest and highest relative B1.

    Raises:
        ValueError: A limit is not finite, or they are not in ascending order.
    """

    b0_ppm: tuple[float, float] | None = None
    b1_relative: tuple[float, float] = (0.3, 1.8)

    def __post_init__(self) -> None:
        for name, role, called in (("b0_ppm", "b0-limits", "B0"), ("b1_relative", "b1-limits", "the relative B1")):
            limits = getattr(self, name)
            if limits is not None and not (-math.inf < limits[0] < limits[1] < math.inf):
                raise InputError(
                    role, f"the limits of {called} must be two ascending numbers, not {limits[0]:g}, {limits[1]:g}"
                )
        if not self.b1_relative[0] > 0:
            raise InputError(
                "b1-limits", f"the lower limit of the relative B1 is {self.b1_relative[0]:g} but must be positive"
            )

    def of_b0(self, offsets_ppm: Tensor) -> tuple[float, float]:
        """Return the limits of B0 in ppm for an acquisition with these offsets (offset,)."""
        if self.b0_ppm is not None:
            return self.b0_ppm
        near = offsets_ppm[offsets_ppm.abs() < FAR_OFF_RESONANCE_PPM]
        if len(near) < 2 or float(near.min()) == float(near.max()):
            raise InputError("protocol", "WASABI needs offsets on both sides of water")
        return float(near.min()), float(near.max())


def wasabi(
    z: Tensor,
    offsets_ppm: Tensor,
    pulse: WasabiPulse,
    *,
    limits: FieldLimits | None = None,
    start: Tensor | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> WasabiFit:
    """Fit B0 and B1 of every voxel.

    The sum of squares has many local minima. Every voxel is therefore fitted from the best few minima of a table over
    both fields and d/c (c is only a scale), which reaches beyond the limits, and keeps the best solution.

    Args:
        z: Normalised magnitude spectra (voxel, offset).
        offsets_ppm: Acquired offsets (offset,) in ppm.
        pulse: Block pulse of the acquisition.
        limits: Limits of both fields; by default the range of the offsets, and a relative B1 of 0.3 to 1.8.
        start: Start values (4,) of B1 (uT), B0 shift (ppm), c and d for all voxels, instead of those from the table.
        threads: Number of threads; by default as many as torch uses.
        progress: Called with the fraction done and a message; may raise to cancel.

    Returns:
        Field maps with standard errors.

    Raises:
        ValueError: The numbers of offsets and measurements differ, or there are fewer than four different offsets.
    """
    if offsets_ppm.shape != z.shape[1:]:
        raise ValueError(f"offsets_ppm has {len(offsets_ppm)} values but the signal has {z.shape[1]} measurements")
    limits = limits or FieldLimits()
    offsets = offsets_ppm.to(z)
    b0_limits, b1_limits = limits.of_b0(offsets), limits.b1_relative
    different = len(distinct_offsets(offsets))
    if different < FITTED_VALUES:
        raise InputError(
            "protocol",
            f"WASABI needs at least {FITTED_VALUES} different offsets, but there are {different}: acquire more of them",
        )
    wider_b0 = _widened(b0_limits)
    wider_b1 = (b1_limits[0] * (1 - MARGIN), b1_limits[1] * (1 + MARGIN / 2))
    b1_uT = (pulse.b1_uT * wider_b1[0], pulse.b1_uT * wider_b1[1])
    if start is None:
        voxels, starts = _candidates(z, offsets, pulse, wider_b0, b1_uT)
    else:
        voxels, starts = torch.arange(len(z), device=z.device), start.to(z).expand(len(z), -1)
    column = offsets.unsqueeze(1)
    fit = levenberg_marquardt(
        lambda parameters: pulse.predict(parameters, column),
        z[voxels],
        starts,
        torch.tensor([b1_uT[0], wider_b0[0], LIMITS_OF_C[0], LIMITS_OF_D[0]]),
        torch.tensor([b1_uT[1], wider_b0[1], LIMITS_OF_C[1], LIMITS_OF_D[1]]),
        correlation=False,
        max_iterations=150,
        threads=threads,
        progress=None if progress is None else partial(_of_voxels, progress, len(z)),
    )
    scale = fit.parameters.new_tensor([pulse.b1_uT, 1.0])
    fields = fit.parameters[:, :2] / scale  # relative B1 and B0 of every candidate
    lower, upper = fields.new_tensor([b1_limits, b0_limits]).T
    outside = ((fields <= lower) | (fields >= upper)).any(1)
    best = _best_of_each(voxels, len(z), torch.where(outside, torch.nan, fit.rmse))
    beyond = _best_of_each(voxels, len(z), fit.rmse)
    unsure = _is_ambiguous(fit.rmse[beyond], fit.rmse[best].nan_to_num(nan=torch.inf), z.shape[1])
    best = torch.where(unsure, best, beyond)  # beyond the limits only where that is clearly better
    rmse, status = fit.rmse[best], fit.status[best].clone()
    b1, b0 = fields[best].T
    ended = (status == Status.CONVERGED) | (status == Status.AT_BOUND)
    status[ended] = Status.CONVERGED
    second = _second_of_each(voxels, fit.rmse, fields, best)
    status[ended & (_is_poor(z, rmse) | _is_ambiguous(rmse, second, z.shape[1]))] = Status.POOR_FIT
    status[ended & outside[best]] = Status.AT_BOUND
    b1_sd, b0_sd = (fit.standard_errors[best, :2] / scale).T
    return WasabiFit(b0.clamp(*b0_limits), b0_sd, b1.clamp(*b1_limits), b1_sd, rmse, status)


def _of_voxels(progress: Progress, voxels: int, share: float, _: str) -> None:
    """Report the fit from all starts, whose number says nothing to the user."""
    progress(share, f"Fitting {voxels} voxels")


def _widened(limits: tuple[float, float]) -> tuple[float, float]:
    margin = MARGIN * (limits[1] - limits[0])
    return limits[0] - margin, limits[1] + margin


def _best_of_each(voxels: Tensor, count: int, rmse: Tensor) -> Tensor:
    """Return the best candidate of every voxel.

    Args:
        voxels: Voxel (candidate,) of every candidate.
        count: Number of voxels; each has at least one candidate.
        rmse: Residual (candidate,), NaN where the candidate does not count.
    """
    order = torch.argsort(rmse.nan_to_num(nan=torch.inf), stable=True)
    order = order[torch.argsort(voxels[order], stable=True)]  # by voxel, the best first
    return order[torch.searchsorted(voxels[order], torch.arange(count, device=voxels.device))]


def _second_of_each(voxels: Tensor, rmse: Tensor, fields: Tensor, best: Tensor) -> Tensor:
    """Return the residual (voxel,) of the best candidate that is another solution; infinity where there is none."""
    other = (fields - fields[best[voxels]]).abs().amax(1) > SAME_SOLUTION
    second = rmse.new_full((len(best),), torch.inf)
    return second.scatter_reduce(0, voxels[other], rmse[other].nan_to_num(nan=torch.inf), "amin")


def _is_poor(z: Tensor, rmse: Tensor) -> Tensor:
    """Whether a residual (voxel,) is much larger than that of the other voxels, or than the signal's own variation."""
    typical = rmse.nanmedian().clamp_min(NEGLIGIBLE_RMSE / WORST_RMSE)
    return (rmse > WORST_RMSE * typical) | (rmse.square() > (1 - LEAST_EXPLAINED) * z.var(1, correction=0))


def _is_ambiguous(rmse: Tensor, second: Tensor, measurements: int) -> Tensor:
    """Whether another solution, of residual ``second`` (voxel,), fits nearly as well."""
    noise_variance = rmse.square() * measurements / max(1, measurements - 4)
    floor = (0.1 * NEGLIGIBLE_RMSE) ** 2
    difference = measurements * (second.square() - rmse.square())
    return difference < CLEARLY_BETTER * noise_variance.clamp_min(floor)


def _candidates(
    z: Tensor,
    offsets: Tensor,
    pulse: WasabiPulse,
    b0_range_ppm: tuple[float, float],
    b1_range_uT: tuple[float, float],
) -> tuple[Tensor, Tensor]:
    """Find the best few local minima of a look-up table for every voxel.

    Returns:
        Voxel (candidate,) and parameters (candidate, 4) of every candidate.
    """

    def grid(limits: tuple[float, float], phase_per_unit: float) -> Tensor:
        number = max(5, int((limits[1] - limits[0]) * phase_per_unit / LOOKUP_PHASE_STEP) + 2)
        return torch.linspace(*limits, number, dtype=z.dtype, device=z.device)

    half = pulse.duration_s / 2
    b1 = grid(b1_range_uT, pulse.gamma_rad_per_s_per_uT * half)
    b0 = grid(b0_range_ppm, pulse.rad_per_s_per_ppm * half)
    table = torch.cartesian_prod(b1, b0)  # (entry, 2)
    inversion = pulse.inversion(table[:, :1], offsets - table[:, 1:])  # (entry, offset)
    ratio = torch.tensor(LOOKUP_RATIOS, dtype=z.dtype, device=z.device)
    shapes = (1 - ratio[:, None, None] * inversion).abs().flatten(0, 1)  # (ratio x entry, offset)
    lengths = shapes.square().sum(1).sqrt()
    directions = (shapes / lengths.unsqueeze(1)).T.contiguous()
    z = z.nan_to_num(0.0)
    owners, parameters = [], []
    step = max(1, LOOKUP_VALUES // len(shapes))
    for first in range(0, len(z), step):
        part = z[first : first + step]
        overlap, best_ratio = (part @ directions).view(len(part), len(ratio), len(table)).max(1)
        plane = overlap.view(len(part), 1, len(b1), len(b0))
        is_peak = (plane == torch.nn.functional.max_pool2d(plane, 3, 1, 1)).view(len(part), -1)
        value, entry = torch.where(is_peak, overlap, -torch.inf).topk(min(CANDIDATES, len(table)), 1)
        misfit = (part.square().sum(1, keepdim=True) - value.square()).clamp_min(0).sqrt()
        allowed = 3 * misfit[:, :1] + CANDIDATE_RMSE * len(offsets) ** 0.5
        kept = (misfit <= allowed) & value.isfinite()
        kept[:, 0] = True
        voxel, place = kept.nonzero().T
        entry, value = entry[voxel, place], value[voxel, place]
        chosen = best_ratio[voxel, entry]
        c = value / lengths[chosen * len(table) + entry]
        owners.append(voxel + first)
        parameters.append(torch.cat((table[entry], c.unsqueeze(1), (ratio[chosen] * c).unsqueeze(1)), 1))
    if not owners:
        return torch.zeros(0, dtype=torch.long, device=z.device), z.new_empty(0, 4)
    return torch.cat(owners), torch.cat(parameters)
