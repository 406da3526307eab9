"""Multi-pool Lorentzian fits of Z-spectra with all lines at once (Windschuh et al., NMR Biomed 2015;28:529)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from NeuroCESTLib.core.messages.input_errors import InputError
from NeuroCESTLib.core.progress import Progress, part, silent

from ..fitting.interpolation import distinct_counts, distinct_offsets
from ..fitting.least_squares import FitResult, levenberg_marquardt
from ..fitting.problem import LeastSquaresProblem
from ..fitting.spatial.neighbors import Neighbors
from ..fitting.spatial.prior import SpatialFit, fit_with_neighbors
from ..fitting.statistics import with_natural_limits, with_reference_noise
from .lorentzian_model import LorentzianModel

DAMPING_FROM_MODEL_START = 0.1
DAMPING_FROM_MEAN = 0.01


@dataclass(frozen=True)
class LorentzianFit:
    """Fitted lines of every voxel; NaN where the status says that the voxel was not fitted.

    Standard errors are NaN for parameters at a bound.

    Attributes:
        model: What was fitted.
        fit: Parameters in the order of the model, and status.
        baseline: (voxel,) Zi.
        baseline_sd: (voxel,) its standard error.
        amplitude: (voxel, pool), in units of Z.
        amplitude_sd: (voxel, pool).
        width_ppm: (voxel, pool) full width at half maximum.
        width_ppm_sd: (voxel, pool).
        position_ppm: (voxel, pool).
        position_ppm_sd: (voxel, pool); a tied position has the error of the water's.
        spatial: The fit under the spatial prior, of which ``fit`` is the result; None without one.
    """

    model: LorentzianModel
    fit: FitResult
    baseline: Tensor
    baseline_sd: Tensor
    amplitude: Tensor
    amplitude_sd: Tensor
    width_ppm: Tensor
    width_ppm_sd: Tensor
    position_ppm: Tensor
    position_ppm_sd: Tensor
    spatial: SpatialFit | None = None

    @property
    def rmse(self) -> Tensor:
        """Root mean square of the residual, (voxel,)."""
        return self.fit.rmse

    @property
    def status(self) -> Tensor:
        """Outcome of the fit, (voxel,) uint8, see ``fitting.marquardt.Status``."""
        return self.fit.status

    def of_voxels(self, voxels: Tensor) -> LorentzianFit:
        """Return lines and baseline of some voxels (n,), to evaluate their spectra."""
        chosen = {name: getattr(self, name)[voxels] for name in ("baseline", "amplitude", "width_ppm", "position_ppm")}
        return replace(self, **chosen)

    def index(self, pool: str) -> int:
        """Return the place of a pool in the model.

        Raises:
            ValueError: The model has no such pool.
        """
        if pool not in self.model.names:
            raise InputError("lorentzian", f"the fit has no pool '{pool}' (it has {', '.join(self.model.names)})")
        return self.model.names.index(pool)

    def line(self, pool: str, offsets_ppm: Tensor) -> Tensor:
        """Evaluate the line of a pool at offsets (n,) or (voxel, n); returns (voxel, n)."""
        place = self.index(pool)
        quarter = self.width_ppm[:, place, None].square() / 4
        distance = offsets_ppm.to(quarter) - self.position_ppm[:, place, None]
        return self.amplitude[:, place, None] * quarter / (quarter + distance.square())

    def spectrum(self, offsets_ppm: Tensor, without: Iterable[str] = ()) -> Tensor:
        """Evaluate the fitted spectrum.

        Args:
            offsets_ppm: (n,) or (voxel, n).
            without: Pools to leave out, which gives their reference.

        Returns:
            Z, (voxel, n).
        """
        left_out = [self.index(pool) for pool in without]
        spectrum = self.baseline.unsqueeze(1)
        for place, pool in enumerate(self.model.names):
            if place not in left_out:
                spectrum = spectrum - self.line(pool, offsets_ppm)
        return spectrum.expand(-1, offsets_ppm.shape[-1])


def fit_lorentzian(
    z: Tensor,
    offsets_ppm: Tensor,
    model: LorentzianModel,
    *,
    valid: Tensor | None = None,
    start_from_mean: bool = True,
    tolerance: float | None = 1e-5,
    max_iterations: int = 100,
    correlation: bool = False,
    neighbors: Neighbors | None = None,
    noise_sd: float | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> LorentzianFit:
    """Fit the lines of a model to the spectrum of every voxel.

    Args:
        z: (voxel, offset) normalised signal, float32 or float64.
        offsets_ppm: (offset,), or (voxel, offset) where they differ between voxels (B0-corrected).
        model: Lines with start values and bounds.
        valid: (voxel, offset) bool; other measurements are left out. A voxel that is left with fewer different offsets
            than the lines have free values is not fitted.
        start_from_mean: Whether to fit the mean spectrum first and start every voxel from there, which takes fewer
            iterations and leads all voxels to the same local minimum.
        tolerance: As in ``levenberg_marquardt``.
        max_iterations: As in ``levenberg_marquardt``.
        correlation: As in ``levenberg_marquardt``.
        neighbors: Neighbouring voxels, for a fit under the spatial prior that starts from the voxels' own fits; None
            for the latter alone.
        noise_sd: Standard deviation of a measurement, which weighs the data against the neighbours; None to estimate it
            from the residuals.
        threads: As in ``levenberg_marquardt``.
        progress: As in ``levenberg_marquardt``.

    Raises:
        ValueError: The numbers of offsets and measurements differ, or there are fewer different common offsets than
            free values.
    """
    if offsets_ppm.shape[-1] != z.shape[1]:
        raise ValueError(f"offsets_ppm has {offsets_ppm.shape[-1]} values but the signal has {z.shape[1]} measurements")
    offsets_ppm = offsets_ppm.to(z)
    start, lower, upper = model.limits()
    if offsets_ppm.ndim == 1:
        _require_offsets(offsets_ppm, model)
    damping = DAMPING_FROM_MODEL_START
    if start_from_mean:
        start = mean_spectrum_start(z, offsets_ppm, model, valid, tolerance, max_iterations)
        damping = DAMPING_FROM_MEAN
    common = offsets_ppm.ndim == 1
    column = offsets_ppm.unsqueeze(1)

    def predict_at_common_offsets(parameters: Tensor) -> tuple[Tensor, Tensor]:
        return model.predict(parameters, column)

    progress = progress or silent
    predict = predict_at_common_offsets if common else model.predict
    arguments = () if common else (offsets_ppm,)
    different = None  # without repeats, every valid measurement counts
    if not common or len(distinct_offsets(offsets_ppm)) < len(offsets_ppm):
        different = distinct_counts(offsets_ppm, torch.ones_like(z, dtype=torch.bool) if valid is None else valid)
    result = levenberg_marquardt(
        predict,
        z,
        start,
        lower,
        upper,
        arguments=arguments,
        valid=valid,
        different=different,
        start_damping=damping,
        correlation=correlation,
        threads=threads,
        progress=progress if neighbors is None else part(progress, 0.0, 0.4),
        tolerance=tolerance,
        max_iterations=max_iterations,
    )
    spatial = None
    if neighbors is not None:
        noise = None if noise_sd is None else z.new_full((len(z),), noise_sd)
        limits = [limit.to(z) for limit in (start, lower, upper)]
        problem = LeastSquaresProblem(predict, z, limits[0], limits[1], limits[2], arguments, valid, noise_sd=noise)
        spatial = fit_with_neighbors(
            result,
            problem,
            neighbors,
            tolerance=tolerance,
            max_iterations=max_iterations,
            threads=threads,
            progress=part(progress, 0.4, 1.0),
        )
        result = spatial.result
    fit = with_natural_limits(result, lower, upper, natural_limits(model, result.parameters))
    return replace(named_lines(model, fit), spatial=spatial)


def _require_offsets(offsets_ppm: Tensor, model: LorentzianModel) -> None:
    """Check that there are as many different offsets (offset,) as free values; repeats determine none."""
    _, lower, upper = model.limits()
    different, free = len(distinct_offsets(offsets_ppm)), int((lower < upper).sum())
    if different < free:
        raise InputError(
            "protocol",
            f"{different} different offsets do not determine the {free} free values of the lines "
            f"{', '.join(model.names)}: acquire more offsets, or describe fewer lines (--lorentzian)",
        )


def natural_limits(model: LorentzianModel, parameters: Tensor) -> Tensor:
    """Return which parameters may lie at their lower and upper bounds, (2, voxel, p).

    Nature sets a baseline of 1 and amplitudes of 0 and 1. Width and position of a line without amplitude mean nothing.
    """
    _, lower, upper = model.limits()
    count = len(model.pools)
    natural = torch.zeros(2, *parameters.shape, dtype=torch.bool, device=parameters.device)
    natural[1, :, 0] = bool(upper[0] == 1)
    natural[0, :, 1 : 1 + count] = (lower[1 : 1 + count] == 0).to(parameters.device)
    natural[1, :, 1 : 1 + count] = (upper[1 : 1 + count] == 1).to(parameters.device)
    absent = parameters[:, 1 : 1 + count] <= 0
    natural[:, :, 1 + count : 1 + 2 * count] |= absent
    natural[:, :, 1 + 2 * count :] |= absent[:, model.fitted_positions]
    return natural


def mean_spectrum_start(
    z: Tensor,
    offsets_ppm: Tensor,
    model: LorentzianModel,
    valid: Tensor | None,
    tolerance: float | None,
    max_iterations: int,
) -> Tensor:
    """Fit the mean spectrum; returns (p,) float64, the model's start values where the mean cannot be fitted."""
    start, lower, upper = model.limits()
    usable = z.isfinite() & (z != 0).any(1, keepdim=True)
    if valid is not None:
        usable &= valid
    count = usable.sum(0)
    if not bool(count.any()):
        return start
    mean = (torch.where(usable, z, 0.0).sum(0) / count.clamp_min(1)).double()
    offsets = offsets_ppm if offsets_ppm.ndim == 1 else offsets_ppm.nanmean(0)
    column = offsets.double().unsqueeze(1)
    fit = levenberg_marquardt(
        lambda parameters: model.predict(parameters, column),
        mean.unsqueeze(0),
        start,
        lower,
        upper,
        valid=(count > 0).unsqueeze(0),
        correlation=False,
        tolerance=tolerance,
        max_iterations=max_iterations,
    )
    # A tenth of the way back to the model's start values takes parameters off their bounds.
    return torch.where(fit.parameters[0].isfinite(), 0.9 * fit.parameters[0].to(start) + 0.1 * start, start)


def with_noise_of_m0(
    fit: LorentzianFit, offsets_ppm: Tensor, reference_noise: float, valid: Tensor | None = None
) -> LorentzianFit:
    """Widen the standard errors of lines and baseline by the noise of M0, which all measurements share.

    Args:
        fit: Fit of the lines.
        offsets_ppm: (offset,), or (voxel, offset) where they differ between voxels; those that were fitted.
        reference_noise: Variance of M0 relative to that of a measurement, see ``ZSpectra``.
        valid: (voxel, offset) bool; other measurements were left out.
    """
    if not reference_noise:
        return fit
    offsets = offsets_ppm.to(fit.fit.parameters)
    arguments = (offsets.expand(len(fit.fit.parameters), -1),)
    widened = with_reference_noise(fit.fit, fit.model.predict, reference_noise, valid, arguments)
    return replace(named_lines(fit.model, widened), spatial=fit.spatial)


def named_lines(model: LorentzianModel, fit: FitResult) -> LorentzianFit:
    """Name the parameters of a fit."""
    count = len(model.pools)
    column = {pool: 1 + 2 * count + place for place, pool in enumerate(model.fitted_positions)}
    position_sd = [fit.standard_errors[:, column.get(pool, column[0])] for pool in range(count)]
    return LorentzianFit(
        model=model,
        fit=fit,
        baseline=fit.parameters[:, 0],
        baseline_sd=fit.standard_errors[:, 0],
        amplitude=fit.parameters[:, 1 : 1 + count],
        amplitude_sd=fit.standard_errors[:, 1 : 1 + count],
        width_ppm=fit.parameters[:, 1 + count : 1 + 2 * count],
        width_ppm_sd=fit.standard_errors[:, 1 + count : 1 + 2 * count],
        position_ppm=model.positions(fit.parameters.T).T,
        position_ppm_sd=torch.stack(position_sd, 1),
    )
