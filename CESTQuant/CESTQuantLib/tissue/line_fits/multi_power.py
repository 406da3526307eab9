"""Lorentzian fits of Z-spectra at several powers at once: shared positions, amplitudes and widths per power.

At the offset D and the power i, with one baseline Zi and one position d per line for all powers::

    Z_i(D) = Zi - sum_j A_ij (G_ij/2)^2 / ((G_ij/2)^2 + (D - d_j)^2)

Position and baseline do not depend on B1, whereas depth and width of a line do (Zaiss & Bachert, NMR Biomed 2013;
26:507; lines of Z: Windschuh et al., NMR Biomed 2015;28:529). Over the powers, the inverse contrast of a line,
MTR_Rex(w1), has the labelling efficiency w1^2/(w1^2 + k (k + R2b)), which gives fraction and exchange rate as in QUESP
(Zaiss et al., Magn Reson Med 2018;79:1708).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from NeuroCESTLib.core.progress import Progress, silent

from ...fitting.least_squares import FitResult, Status, levenberg_marquardt
from ...fitting.statistics import at_doubtful_bounds, with_natural_limits, with_reference_noise
from ...physics.protocol import Protocol
from ..lorentzian import DAMPING_FROM_MEAN, LorentzianFit, mean_spectrum_start, named_lines, natural_limits
from ..lorentzian_model import LorentzianModel
from ..quesp import ExchangeFit, TwoPoolContrast, fit_quesp, r1_and_relative_b1

JACOBIAN_VALUES_PER_CHUNK = 2**22
"""Parameters x measurements x voxels that are held at once."""
LEAST_RESOLUTION = 1.25
"""Width of a line at the lowest power over the distance of the offsets around it, below which it is not resolved."""


@dataclass(frozen=True)
class MultiPowerModel:
    """Lines at several powers; the parameters are Zi, amplitudes and widths of power after power, and the positions.

    Attributes:
        lines: Lines, whose ranges hold at every power.
        members: Indices of the measurements of every power.
    """

    lines: LorentzianModel
    members: tuple[Tensor, ...]

    @property
    def parameter_count(self) -> int:
        """Number of parameters of a voxel."""
        return 1 + 2 * len(self.lines.pools) * len(self.members) + len(self.lines.fitted_positions)

    def columns(self, power: int) -> list[int]:
        """Return the places of the parameters that the lines have at a power, in the order of ``LorentzianModel``."""
        block = 2 * len(self.lines.pools)
        first = 1 + block * power
        positions = range(1 + block * len(self.members), self.parameter_count)
        return [0, *range(first, first + block), *positions]

    def limits(self) -> tuple[Tensor, Tensor]:
        """Return lower and upper bound of every parameter; (p,) float64 each."""
        _, *of_lines = self.lines.limits()
        bounds = [limit.new_empty(self.parameter_count) for limit in of_lines]
        for power in range(len(self.members)):
            for bound, limit in zip(bounds, of_lines, strict=True):
                bound[self.columns(power)] = limit
        return bounds[0], bounds[1]

    def predict(self, parameters: Tensor, offsets_ppm: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the spectra of all powers and their derivatives.

        Args:
            parameters: (p, voxel).
            offsets_ppm: (measurement, 1) or (measurement, voxel).

        Returns:
            Z (measurement, voxel) and its Jacobian (p, measurement, voxel).
        """
        voxels, measurements = parameters.shape[1], len(offsets_ppm)
        z = parameters.new_empty(measurements, voxels)
        jacobian = parameters.new_zeros(voxels, self.parameter_count, measurements).permute(1, 2, 0)
        for power, member in enumerate(self.members):
            columns = torch.tensor(self.columns(power), device=parameters.device)
            prediction, slope = self.lines.predict(parameters[columns], offsets_ppm[member])
            z[member] = prediction
            jacobian[columns.unsqueeze(1), member.unsqueeze(0)] = slope
        return z, jacobian


@dataclass(frozen=True)
class MultiPowerFit:
    """Result of a joint fit.

    Attributes:
        model: What was fitted.
        fit: Parameters in the order of the model, and status.
        powers: Lines at every power; baseline and positions are the same in all.
    """

    model: MultiPowerModel
    fit: FitResult
    powers: tuple[LorentzianFit, ...]

    def at_bounds(self) -> Tensor:
        """Return which parameters (voxel, p) lie at a bound that the description of the lines sets, not nature."""
        lower, upper = self.model.limits()
        parameters = self.fit.parameters
        return at_doubtful_bounds(parameters, lower, upper, _natural(self.model, parameters))

    def spectra(self, voxels: Tensor, offsets_ppm: Tensor) -> Tensor:
        """Evaluate the fitted spectra of voxels (n,) at the offsets (measurement,) or (voxel, measurement)."""
        at = offsets_ppm.expand(len(self.fit.parameters), -1)[voxels]
        z = self.fit.parameters.new_empty(at.shape)
        for member, lines in zip(self.model.members, self.powers, strict=True):
            z[:, member] = lines.of_voxels(voxels).spectrum(at[:, member])
        return z


def fit_multi_power(
    z: Tensor,
    offsets_ppm: Tensor,
    model: MultiPowerModel,
    *,
    valid: Tensor | None = None,
    reference_noise: float = 0.0,
    progress: Progress = silent,
) -> MultiPowerFit:
    """Fit the lines at all powers to the spectra of every voxel, from a fit of the mean spectrum of every power.

    Args:
        z: (voxel, measurement) normalised signal of all powers.
        offsets_ppm: (measurement,), or (voxel, measurement) where they differ between voxels.
        model: Lines, and which measurements belong to which power.
        valid: (voxel, measurement) bool; other measurements are left out.
        reference_noise: Variance of the M0 of all powers relative to that of a measurement, see ``ZSpectra``.
        progress: As in ``levenberg_marquardt``.

    Raises:
        ValueError: The numbers of offsets and measurements differ.
    """
    if offsets_ppm.shape[-1] != z.shape[1]:
        raise ValueError(f"offsets_ppm has {offsets_ppm.shape[-1]} values but the signal has {z.shape[1]} measurements")
    offsets_ppm = offsets_ppm.to(z)
    lower, upper = model.limits()
    start = torch.zeros_like(lower)
    shared = torch.zeros_like(lower)
    for power, member in enumerate(model.members):
        used = None if valid is None else valid[:, member]
        of_power = mean_spectrum_start(z[:, member], offsets_ppm[..., member], model.lines, used, 1e-5, 100)
        start[model.columns(power)] += of_power
        shared[model.columns(power)] += 1
    start = start / shared  # the mean over the powers for what they share
    common = offsets_ppm.ndim == 1
    column = offsets_ppm.unsqueeze(1)
    result = levenberg_marquardt(
        (lambda parameters: model.predict(parameters, column)) if common else model.predict,
        z,
        start,
        lower,
        upper,
        arguments=() if common else (offsets_ppm,),
        valid=valid,
        start_damping=DAMPING_FROM_MEAN,
        correlation=False,
        chunk_voxels=max(16, JACOBIAN_VALUES_PER_CHUNK // (model.parameter_count * z.shape[1])),
        tolerance=1e-5,
        max_iterations=100,
        progress=progress,
    )
    fit = with_natural_limits(result, lower, upper, _natural(model, result.parameters))
    if reference_noise:
        at_offsets = (offsets_ppm.expand(len(z), -1),)
        fit = with_reference_noise(fit, model.predict, reference_noise, valid, at_offsets)
    powers = []
    for power in range(len(model.members)):
        columns = model.columns(power)
        own = replace(fit, parameters=fit.parameters[:, columns], standard_errors=fit.standard_errors[:, columns])
        powers.append(named_lines(model.lines, own))
    return MultiPowerFit(model, fit, tuple(powers))


def _natural(model: MultiPowerModel, parameters: Tensor) -> Tensor:
    """Return which parameters may lie at their bounds, (2, voxel, p): a shared one if that holds at all powers."""
    natural = torch.ones(2, *parameters.shape, dtype=torch.bool, device=parameters.device)
    for power in range(len(model.members)):
        columns = model.columns(power)
        natural[:, :, columns] &= natural_limits(model.lines, parameters[:, columns])
    return natural


def resolution_of_line(
    fit: MultiPowerFit, pool: str, offsets_ppm: Tensor, w1_rad_per_s: Tensor, k_Hz: Tensor, rad_per_s_per_ppm: float
) -> Tensor:
    """Return how well the offsets resolve a line where it is narrowest, at the lowest power.

    A line of which hardly an offset lies within the width is fitted wider and shallower than it is. It is narrowest at
    low power, so that the amplitude there is too small, and the rate that follows from its growth with the power too
    large. The width is 2 sqrt(w1^2 + k^2) by the rate that was found, because the fitted one is what is in doubt. On
    noiseless spectra of two pools with offsets 0.2 ppm apart, a ratio of 0.95 goes with 2.2 times the true rate, 1.1
    with 1.5 times and 1.4 with 1.14 times; from 1.5 on errors are below 0.15.

    Args:
        fit: Joint fit of the lines.
        pool: Name of the line.
        offsets_ppm: (measurement,), or (voxel, measurement).
        w1_rad_per_s: (power, 1) or (power, voxel) RF amplitude.
        k_Hz: (voxel,) exchange rate that was found.
        rad_per_s_per_ppm: Angular frequency of 1 ppm.

    Returns:
        (voxel,) the smallest ratio over the powers; zero where the line lies outside the offsets.
    """
    place = fit.model.lines.names.index(pool)
    ratios = []
    for member, lines, w1 in zip(fit.model.members, fit.powers, w1_rad_per_s, strict=True):
        position = lines.position_ppm[:, place].unsqueeze(1)
        offsets = offsets_ppm.to(position)[..., member].expand(len(position), -1)
        above = torch.where(offsets > position, offsets, torch.inf).amin(1)
        below = torch.where(offsets <= position, offsets, -torch.inf).amax(1)
        width = 2 * (w1.square() + k_Hz.square()).sqrt() / rad_per_s_per_ppm
        ratios.append(width / (above - below))
    return torch.stack(ratios).amin(0)


def exchange_of_line(
    fit: MultiPowerFit,
    pool: str,
    protocol: Protocol,
    t1_s: Tensor,
    *,
    initial_z: float | Tensor = 1.0,
    b1_relative: Tensor | None = None,
) -> ExchangeFit:
    """Fit fraction and exchange rate to the inverse contrast of a line over the powers, with R2b = 0.

    Label and reference are the fitted spectra with and without the line, at its position. The standard errors are
    propagated from those of its amplitudes, which follow from the residual and so contain the misfit of the lines; they
    leave out the correlation of the powers and the uncertainty of the reference. They are NaN at bounds.

    Args:
        fit: Joint fit of the lines.
        pool: Name of the line.
        protocol: One measurement of every power, saturated by a continuous wave.
        t1_s: (voxel,) T1 of water.
        initial_z: Z before the saturation, a number or (voxel, power).
        b1_relative: (voxel,) actual over nominal B1; None for one.
    """
    at = fit.powers[0].position_ppm[:, fit.model.lines.names.index(pool)].unsqueeze(1)
    label = torch.cat([lines.spectrum(at) for lines in fit.powers], 1).double()
    reference = torch.cat([lines.spectrum(at, without=[pool]) for lines in fit.powers], 1).double()
    place = fit.model.lines.names.index(pool)
    amplitude_sd = torch.stack([lines.amplitude_sd[:, place] for lines in fit.powers], 1).double()
    found = fit_quesp(label, reference, protocol, t1_s, initial_z=initial_z, b1_relative=b1_relative)
    r1, relative = r1_and_relative_b1(t1_s, b1_relative, label)
    contrast = TwoPoolContrast.of(protocol, 0.0, "inverse", label)
    parameters = torch.stack((found.fraction, found.exchange_rate_Hz))
    start = torch.as_tensor(initial_z).to(label).expand(label.shape).T
    _, slope = contrast.predict(parameters, r1, relative, start)
    jacobian = slope.permute(2, 1, 0)  # (voxel, power, 2)
    scale = jacobian.norm(dim=1, keepdim=True)  # of the two parameters, which differ by orders of magnitude
    gain = torch.linalg.pinv((jacobian / scale).nan_to_num(0.0)) / scale.transpose(1, 2)
    contrast_sd = amplitude_sd / label.square()
    sd = (gain * contrast_sd.unsqueeze(1)).square().sum(2).sqrt()
    inside = found.status == Status.CONVERGED
    sd = torch.where(inside.unsqueeze(1), sd, torch.nan)
    return replace(found, fraction_sd=sd[:, 0], exchange_rate_Hz_sd=sd[:, 1])
