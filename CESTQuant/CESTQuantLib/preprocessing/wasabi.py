"""WASABI: B0 and B1 together from the Rabi oscillation over the offsets after a short block pulse.

Schuenke et al., Magn Reson Med 2017;77:571: ``Z = |c - d sin^2(theta) sin^2(weff tp / 2)|`` with
``tan(theta) = w1/(D - dB0)`` and ``weff^2 = w1^2 + (D - dB0)^2``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from NeuroCESTLib.core.progress import Progress

from ..fitting.least_squares import FitResult, levenberg_marquardt
from ..physics.units import GAMMA_RAD_PER_S_PER_UT

LOOKUP_PHASE_STEP = 0.15
"""Difference of the flip angle between neighbouring entries of the look-up table, in rad."""
LOOKUP_RATIOS = (1.2, 1.5, 1.8, 2.1)
"""Values of d/c in the look-up table."""
LOOKUP_VOXELS = 2048
"""Voxels that are compared with the table at a time."""


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
        fit: The fit itself, with the parameters B1 (uT), B0 shift (ppm), c and d.
    """

    b0_shift_ppm: Tensor
    b0_shift_ppm_sd: Tensor
    b1_relative: Tensor
    b1_relative_sd: Tensor
    fit: FitResult

    @property
    def status(self) -> Tensor:
        """Status of every voxel's fit, shape (voxel,)."""
        return self.fit.status


def wasabi(
    z: Tensor,
    offsets_ppm: Tensor,
    pulse: WasabiPulse,
    *,
    b0_range_ppm: tuple[float, float] = (-1.0, 1.0),
    b1_relative_range: tuple[float, float] = (0.3, 1.8),
    start: Tensor | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> WasabiFit:
    """Fit B0 and B1 of every voxel.

    The sum of squares has many local minima. Every voxel therefore starts at its best entry of a table over both fields
    and d/c; c is only a scale.

    Args:
        z: Normalised magnitude spectra (voxel, offset).
        offsets_ppm: Acquired offsets (offset,) in ppm.
        pulse: Block pulse of the acquisition.
        b0_range_ppm: Lowest and highest B0 shift in ppm, for the table and the fit.
        b1_relative_range: Lowest and highest relative B1, for the table and the fit.
        start: Start values (4,) or (voxel, 4) of B1 (uT), B0 shift (ppm), c and d, instead of those from the table.
        threads: Number of threads; by default as many as torch uses.
        progress: Called with the fraction done and a message; may raise to cancel.

    Returns:
        Field maps with standard errors.

    Raises:
        ValueError: The numbers of offsets and measurements differ.
    """
    if offsets_ppm.shape != z.shape[1:]:
        raise ValueError(f"offsets_ppm has {len(offsets_ppm)} values but the signal has {z.shape[1]} measurements")
    offsets = offsets_ppm.to(z)
    b1_range = (pulse.b1_uT * b1_relative_range[0], pulse.b1_uT * b1_relative_range[1])
    if start is None:
        start = _look_up(z, offsets, pulse, b0_range_ppm, b1_range)
    column = offsets.unsqueeze(1)
    fit = levenberg_marquardt(
        lambda parameters: pulse.predict(parameters, column),
        z,
        start,
        torch.tensor([b1_range[0], b0_range_ppm[0], 0.0, 0.0]),
        torch.tensor([b1_range[1], b0_range_ppm[1], 2.0, 4.0]),
        threads=threads,
        progress=progress,
    )
    b1, b0 = fit.parameters[:, 0], fit.parameters[:, 1]
    b1_sd, b0_sd = fit.standard_errors[:, 0], fit.standard_errors[:, 1]
    return WasabiFit(b0, b0_sd, b1 / pulse.b1_uT, b1_sd / pulse.b1_uT, fit)


def _look_up(
    z: Tensor,
    offsets: Tensor,
    pulse: WasabiPulse,
    b0_range_ppm: tuple[float, float],
    b1_range_uT: tuple[float, float],
) -> Tensor:
    """Return the best entry of the look-up table for each voxel, as parameters (voxel, 4)."""

    def grid(limits: tuple[float, float], phase_per_unit: float) -> Tensor:
        number = max(5, int((limits[1] - limits[0]) * phase_per_unit / LOOKUP_PHASE_STEP) + 2)
        return torch.linspace(*limits, number, dtype=z.dtype, device=z.device)

    half = pulse.duration_s / 2
    table = torch.cartesian_prod(
        grid(b1_range_uT, pulse.gamma_rad_per_s_per_uT * half),
        grid(b0_range_ppm, pulse.rad_per_s_per_ppm * half),
    )  # (entry, 2)
    inversion = pulse.inversion(table[:, :1], offsets - table[:, 1:])  # (entry, offset)
    ratio = torch.tensor(LOOKUP_RATIOS, dtype=z.dtype, device=z.device).repeat_interleave(len(table))
    table = table.repeat(len(LOOKUP_RATIOS), 1)
    shapes = (1 - ratio.unsqueeze(1) * inversion.repeat(len(LOOKUP_RATIOS), 1)).abs()
    lengths = shapes.square().sum(1).sqrt()
    directions = (shapes / lengths.unsqueeze(1)).T.contiguous()
    z = z.nan_to_num(0.0)
    parts = []
    for first in range(0, len(z), LOOKUP_VOXELS):
        overlap, best = (z[first : first + LOOKUP_VOXELS] @ directions).max(1)
        c = overlap / lengths[best]
        parts.append(torch.cat((table[best], c.unsqueeze(1), (ratio[best] * c).unsqueeze(1)), 1))
    return torch.cat(parts) if parts else z.new_empty(0, 4)
