"""Fits of a tissue model to every voxel, with the analytic R1rho solution or the Bloch-McConnell equations."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from NeuroCESTLib.core.messages.input_errors import InputError
from NeuroCESTLib.core.progress import Progress, part, silent
from NeuroCESTLib.core.threads import in_threads

from ..fitting.least_squares import FitResult, Model, finite_difference_model, levenberg_marquardt
from ..fitting.marquardt import Status
from ..fitting.predicted_starts import FEWEST_VOXELS, predicted_starts
from ..fitting.problem import GaussianPrior, LeastSquaresProblem
from ..fitting.spatial.neighbors import Neighbors
from ..fitting.spatial.prior import SpatialFit, fit_with_neighbors
from ..fitting.statistics import with_natural_limits
from ..physics.engines import engine_named
from ..physics.pools import Scalar
from ..physics.protocol import Protocol
from ..physics.receiver import measured_signal
from .model import SIGNAL_KEYS, FitParameter, TissueModel
from .quantities import named_quantities
from .r1rho_jacobian import analytic_model, has_analytic_jacobian
from .spectra import ZSpectra

DAMPING_FROM_START = 0.1
DAMPING_NEAR_SOLUTION = 1e-4
SMALL_CORRECTION = 0.1
"""Reduction of the sum of squares up to which a correction of the R1rho fit is believed."""
TOLERANCE_AFTER_CORRECTION = 1e-6
"""The last step, which is taken without another evaluation, is below 0.01 standard errors then."""
HIGH_FLOOR = 0.25
"""Noise floor, as a share of its upper bound, from which voxels are fitted again that ended at 0."""
WIDE_RANGE = 1000.0
"""Ratio of the bounds of an exchange rate from which a fit starts from several rates."""
SLOWEST_HZ = 5.0
"""Rates below this hardly differ in their spectra."""
BEST_SEEN_HZ = 300.0
"""Rate of which the fewest protons are seen, in round numbers."""
FURTHER_STARTS = 5
SUSPICIOUS = 1.3
"""Cost in units of the volume's median from which a voxel is fitted again from all starts."""
IMPROBABLE = 4.0
"""Standard deviations of the cost by which a voxel is worse than the median where chance is not the reason."""
PROMISING, ANALYTIC_ERROR = 1.5, 2e-3
"""Cost of another minimum of the R1rho fit, relative to the best one and beyond it, up to which it is tried."""
PROPAGATORS_PER_CHUNK = 2**13
"""Measurements x voxels x perturbed copies at a time: their matrices then stay in the L2 cache."""
PROPAGATORS_PER_CHUNK_CARRIED_OVER = 2**15
"""Larger where measurements are stepped through one by one, so that each step is long enough to be worth a call."""
POINTS_PER_CHUNK_CLOSED_FORM = 2**14
"""The same for independent measurements after continuous-wave saturation, which need no matrices."""


@dataclass(frozen=True)
class SignalModel:
    """The signal of a voxel as a function of its fitted values and maps.

    Where the model has a ``signal_scale`` s or a ``noise_floor`` n, the measured signal is s Z, or the magnitude
    ``sqrt((s Z)^2 + n^2)``, of the signal Z of the engine.

    Attributes:
        tissue: Tissue model.
        protocol: Acquisition.
        engine: Name of the engine that computes the signal.
        map_names: Names of the maps, in the order in which they are passed.
        noise_sd: Standard deviation of a measurement; None where it is not known.
    """

    tissue: TissueModel
    protocol: Protocol
    engine: str
    map_names: tuple[str, ...] = ()
    noise_sd: float | None = None

    def values(self, parameters: Tensor, *maps: Tensor) -> dict[str, Scalar]:
        """Resolve the entries of the tissue model and the fields.

        Args:
            parameters: (p, voxel) fitted values.
            maps: Tensors (voxel,).

        Returns:
            Values by path, ``b0_shift_ppm`` and ``b1_relative`` among them.
        """
        fitted = {parameter.path: parameters[i] for i, parameter in enumerate(self.tissue.parameters)}
        by_name = {name: values.to(parameters.dtype) for name, values in zip(self.map_names, maps, strict=True)}
        fields: dict[str, Scalar] = {
            "b0_shift_ppm": by_name.get("b0_shift_ppm", 0.0),
            "b1_relative": by_name.get("b1_relative", 1.0),
        }
        return fields | self.tissue.values(fitted, by_name)

    def predict(self, parameters: Tensor, *maps: Tensor) -> Tensor:
        """Compute the signal (measurement, voxel); arguments as in ``values``."""
        values = self.values(parameters, *maps)
        signal = engine_named(self.engine)(
            self.tissue.tissue(values),
            self.protocol,
            b0_shift_ppm=values["b0_shift_ppm"],
            b1_relative=values["b1_relative"],
            like=parameters.new_empty(0),
        )
        return measured_signal(signal, values.get("signal_scale"), values.get("noise_floor"))

    def with_finite_differences(self) -> Model:
        """Return prediction and Jacobian by forward differences, with steps relative to the bounds."""
        largest = [max(abs(parameter.lower), abs(parameter.upper)) for parameter in self.tissue.parameters]
        return finite_difference_model(self.predict, scale=torch.tensor(largest, dtype=torch.float64))

    def with_analytic_jacobian(self) -> Model:
        """Return the prediction of the R1rho engine and its analytic Jacobian, see ``has_analytic_jacobian``."""
        return analytic_model(self.tissue, self.protocol, self.values)


@dataclass(frozen=True)
class ModelFit:
    """Result of a fit, with the model's own predictions.

    Attributes:
        result: Parameters in the order of the model file, with standard errors and status.
        quantities: Maps (voxel,) by the names of their files: ``<pool>_fraction``, ``<pool>_exchange_rate_Hz``,
            ``<pool>_r2_Hz``, ``<pool>_concentration_mM``, each with ``<same>_sd``, and ``rmse``; NaN where not fitted.
        signal_model: What was fitted.
        maps: Maps (voxel,) that the signal model takes, in its order.
        spatial: The fit under the spatial prior, of which ``result`` is the result; None without one.
        valid: (voxel, measurement) bool, the measurements that were used; None for all.
    """

    result: FitResult
    quantities: dict[str, Tensor]
    signal_model: SignalModel
    maps: tuple[Tensor, ...]
    spatial: SpatialFit | None = None
    valid: Tensor | None = None

    def predict(self, voxels: Tensor, protocol: Protocol | None = None) -> Tensor:
        """Compute the fitted signal of some voxels.

        Args:
            voxels: (n,) indices.
            protocol: Another protocol than the fitted one.

        Returns:
            (n, measurement).
        """
        signal_model = self.signal_model
        if protocol is not None:
            signal_model = replace(signal_model, protocol=protocol)
        return signal_model.predict(self.result.parameters[voxels].T, *(values[voxels] for values in self.maps)).T

    def median_correlation(self) -> dict[str, float]:
        """Return the median over fitted voxels of the correlation of every pair of fitted values, by 'a, b'."""
        paths = [parameter.path for parameter in self.signal_model.tissue.parameters]
        correlation = self.result.correlation
        if correlation is None:
            return {}
        return {
            f"{paths[i]}, {paths[j]}": float(correlation[:, i, j].nanmedian())
            for i in range(len(paths))
            for j in range(i)
        }


def fit_tissue_model(
    spectra: ZSpectra,
    model: TissueModel,
    *,
    engine: str = "r1rho",
    noise_sd: float | None = None,
    max_iterations: int = 60,
    neighbors: Neighbors | None = None,
    progress: Progress | None = None,
) -> ModelFit:
    """Fit a tissue model to every voxel.

    The R1rho engine fits in float32 with analytic derivatives where these exist. Otherwise, and for Bloch-McConnell,
    the fit runs in float64 with finite differences. For independent measurements after continuous-wave saturation,
    Bloch-McConnell starts from the R1rho fit. Where an exchange rate may lie anywhere over more than three orders of
    magnitude, the fit starts from several rates and keeps the best minimum of each voxel.

    Args:
        spectra: Signals with their protocol, fields, and the maps that the model refers to.
        model: Tissue model with at least one fitted value.
        engine: ``r1rho`` or ``bloch-mcconnell``.
        noise_sd: Standard deviation of a measurement, the weight of the data against priors and the scale of the
            standard errors; None to estimate it from the residual.
        max_iterations: Limit for each voxel.
        neighbors: Neighbouring voxels, for a fit under the spatial prior that starts from the voxels' own fits; None
            for the latter alone.
        progress: Called with the share of voxels that are fitted.

    Raises:
        ValueError: The model has no fitted value, a map or the saturation is missing, the engine is unknown, or the
            model has priors and neither ``noise_sd`` nor a residual tells how they weigh.
    """
    fits = {"r1rho": _fit_r1rho, "bloch-mcconnell": _fit_bloch_mcconnell}
    if engine not in fits:
        raise ValueError(f"engine '{engine}' is unknown; use one of {', '.join(fits)}")
    if not model.parameters:
        raise InputError("model", 'the model has no fitted value; give at least one as {"fit": true, …}')
    if missing := [name for name in model.map_names if name not in _available_maps(spectra)]:
        raise InputError("model", f"the model refers to the map '{missing[0]}', which is not given")
    spectra.protocol.require_known("a physical model")
    if spectra.protocol.signal_normalisation == "l2" and (told := [key for key in SIGNAL_KEYS if key in model.entries]):
        raise InputError(
            "model", f"the model has a {told[0]}, but signals normalised to length one (l2) have lost their scale"
        )
    if noise_sd is None:
        _require_residual(spectra, model)
    maps = _maps_of_model(spectra, model)
    signal_model = SignalModel(model, spectra.protocol, engine, tuple(maps), noise_sd)
    progress = progress or silent
    share = progress if neighbors is None else part(progress, 0.0, 0.5)
    result, spatial = fits[engine](spectra, signal_model, max_iterations, share), None
    if neighbors is not None:
        spatial = _under_spatial_prior(result, spectra, signal_model, neighbors, part(progress, 0.5, 1.0))
        result = spatial.result
    return ModelFit(result, _named_maps(model, result), signal_model, tuple(maps.values()), spatial, spectra.valid)


def _require_residual(spectra: ZSpectra, model: TissueModel) -> None:
    """Check that the residual can tell the noise, which weighs the signals against the priors of a model.

    Raises:
        ValueError: The model has priors, and no voxel has more measurements than fitted values.
    """
    count, most = len(model.parameters), spectra.protocol.measurement_count
    if spectra.valid is not None and len(spectra.valid):
        most = int(spectra.valid.sum(1).max())
    if most <= count and any(parameter.prior is not None for parameter in model.parameters):
        raise InputError(
            "noise-sd",
            f"the model has priors, which need the noise of the signal, and {most} measurements of {count} fitted "
            "values leave no residual to tell it: give it (noise_sd), or fit fewer values",
        )


def _under_spatial_prior(
    own: FitResult, spectra: ZSpectra, model: SignalModel, neighbors: Neighbors, progress: Progress
) -> SpatialFit:
    """Fit all voxels together, from their own fits."""
    dtype = own.parameters.dtype
    analytic = dtype == torch.float32
    start, lower, upper, prior = _limits(model.tissue.parameters, spectra.signal.new_empty(0, dtype=dtype))
    noise = model.noise_sd
    problem = LeastSquaresProblem(
        model=model.with_analytic_jacobian() if analytic else model.with_finite_differences(),
        data=spectra.signal.to(dtype),
        start=start,
        lower=lower,
        upper=upper,
        arguments=tuple(values.to(lower) for values in _maps_of_model(spectra, model.tissue).values()),
        valid=spectra.valid,
        prior=prior,
        noise_sd=None if noise is None else lower.new_full((spectra.voxel_count,), noise),
    )
    measurements = model.protocol.measurement_count * (len(model.tissue.parameters) + 1)
    chunk = None if analytic else max(1, PROPAGATORS_PER_CHUNK_CARRIED_OVER // measurements)
    fit = fit_with_neighbors(own, problem, neighbors, chunk_voxels=chunk, progress=progress)
    return replace(fit, result=_at_natural_limits(fit.result, model.tissue.parameters, lower, upper))


def _limits(parameters: Sequence[FitParameter], like: Tensor) -> tuple[Tensor, Tensor, Tensor, GaussianPrior | None]:
    """Return start, lower and upper bounds (p,) and the priors of a model, in dtype and on the device of ``like``."""
    start, lower, upper = (
        torch.tensor([getattr(p, name) for p in parameters]).to(like) for name in ("start", "lower", "upper")
    )
    if all(p.prior is None for p in parameters):
        return start, lower, upper, None
    priors = [(0.0, torch.inf) if p.prior is None else p.prior for p in parameters]
    return start, lower, upper, GaussianPrior(*torch.tensor(priors).to(like).T)


def _at_natural_limits(fit: FitResult, parameters: Sequence[FitParameter], lower: Tensor, upper: Tensor) -> FitResult:
    """Tell amounts and rates of zero, which nature sets, from other bounds."""
    amount = torch.tensor([p.path.endswith((".fraction", ".k_Hz", "noise_floor")) for p in parameters])
    return with_natural_limits(fit, lower, upper, torch.stack((amount & (lower.cpu() == 0), torch.zeros_like(amount))))


def _available_maps(spectra: ZSpectra) -> dict[str, Tensor]:
    """Return the maps that a model may refer to, by name; T1 under ``t1`` unless that is a map of its own."""
    return dict(spectra.maps) if spectra.t1_s is None else {"t1": spectra.t1_s, **spectra.maps}


def _maps_of_model(spectra: ZSpectra, model: TissueModel) -> dict[str, Tensor]:
    """Return the maps that the model refers to, and the field maps unless the model has fields of its own."""
    available = _available_maps(spectra)
    maps = {name: available[name] for name in model.map_names}
    fields = {"b0_shift_ppm": spectra.b0_shift_ppm, "b1_relative": spectra.b1_relative}
    return maps | {n: values for n, values in fields.items() if values is not None and n not in model.entries}


def _fit_r1rho(spectra: ZSpectra, model: SignalModel, max_iterations: int, progress: Progress) -> FitResult:
    starts = start_points(model.tissue.parameters)
    fits = []
    for number, start in enumerate(starts):
        share = part(progress, number / len(starts), (number + 1) / len(starts))
        fits.append(_fit_r1rho_from(start, spectra, model, max_iterations, share))
    return best_fit(fits)


def _fit_r1rho_from(
    start: Tensor | None, spectra: ZSpectra, model: SignalModel, max_iterations: int, progress: Progress
) -> FitResult:
    """Fit from one start (p,) for all voxels, None for that of the model, or from better ones where they are found."""
    analytic = has_analytic_jacobian(model.tissue, model.protocol)
    derivatives = model.with_analytic_jacobian() if analytic else model.with_finite_differences()
    dtype = torch.float32 if analytic else torch.float64

    def near_solution(some: ZSpectra, given: Tensor, share: Progress) -> FitResult:
        return _iterate(some, model, derivatives, dtype, max_iterations, share, given)

    def from_model(some: ZSpectra, share: Progress) -> FitResult:
        given = None if start is None else start.to(some.signal).expand(some.voxel_count, -1)
        return _iterate(some, model, derivatives, dtype, max_iterations, share, given, start_damping=DAMPING_FROM_START)

    predicted = _predicted_starts(spectra, model, dtype, near_solution, from_model)
    if predicted is None:
        return from_model(spectra, progress)
    found = near_solution(spectra, predicted, part(progress, 0.0, 0.9))
    # A voxel unlike those of the pilot, or one that ended badly, is fitted again as if nothing had been predicted.
    freedom = max(1, model.protocol.measurement_count - len(model.tissue.parameters))
    by_chance = max(SUSPICIOUS, 1 + IMPROBABLE / (2 * freedom) ** 0.5)
    doubtful = (found.cost > by_chance * found.cost.nanmedian()) | (found.status == Status.ITERATION_LIMIT)
    index = torch.nonzero(doubtful | (found.status == Status.FAILED)).flatten()
    if len(index):
        again = from_model(spectra.of_voxels(index), part(progress, 0.9, 1.0))
        found = found.replaced_where_better(again, index)
    return found


def _predicted_starts(
    spectra: ZSpectra,
    model: SignalModel,
    dtype: torch.dtype,
    near_solution: Callable[[ZSpectra, Tensor, Progress], FitResult],
    from_model: Callable[[ZSpectra, Progress], FitResult],
) -> Tensor | None:
    """Predict the starts of all voxels from fits of a few; None where that does not hold."""
    data = spectra.signal.to(dtype)
    if len(data) < FEWEST_VOXELS:
        return None
    maps = tuple(values.to(data) for values in _maps_of_model(spectra, model.tissue).values())
    usable = (data * 0).sum(1) == 0  # finite
    for values in maps:
        usable &= values.isfinite()
    if spectra.valid is not None:
        usable &= spectra.valid.all(1)
    _, lower, upper, _ = _limits(model.tissue.parameters, data.new_empty(0))

    def of_voxels(index: Tensor, given: Tensor | None) -> FitResult:
        some = spectra.of_voxels(index)
        return from_model(some, silent) if given is None else near_solution(some, given, silent)

    return predicted_starts(data, maps, usable, lower, upper, of_voxels)


def _fit_bloch_mcconnell(spectra: ZSpectra, model: SignalModel, max_iterations: int, progress: Progress) -> FitResult:
    """Fit from the R1rho fit where that holds, and from what other minima of it promise as much."""
    protocol, parameters = model.protocol, model.tissue.parameters
    carried_over = protocol.magnetisation_carried_over
    copies = len(parameters) + 1
    points = PROPAGATORS_PER_CHUNK_CARRIED_OVER if carried_over else PROPAGATORS_PER_CHUNK
    if protocol.pulses is None and protocol.events is None and not carried_over:
        points = POINTS_PER_CHUNK_CLOSED_FORM
    chunk = max(1, points // (protocol.measurement_count * copies))
    derivatives = model.with_finite_differences()

    def fit(
        some: ZSpectra,
        start: Tensor | None,
        share: Progress,
        damping: float | None = None,
        tolerance: float | None = None,
    ) -> FitResult:
        return _iterate(
            some, model, derivatives, torch.float64, max_iterations, share, start, chunk, damping, tolerance
        )

    starts = start_points(parameters)
    analytic = protocol.pulses is None and not carried_over and has_analytic_jacobian(model.tissue, protocol)
    if not analytic and len(starts) == 1:
        return fit(spectra, None, progress)
    r1rho = replace(model, engine="r1rho")
    of_starts = [part(progress, 0.2 * n / len(starts), 0.2 * (n + 1) / len(starts)) for n in range(len(starts))]
    fits = [
        _fit_r1rho_from(start, spectra, r1rho, max_iterations, share)
        for start, share in zip(starts, of_starts, strict=True)
    ]
    best = best_fit(fits)
    corrected = best.parameters.double()
    if analytic:
        corrected = _towards_bloch_mcconnell(spectra, model, r1rho.with_analytic_jacobian(), corrected)
    tolerance = TOLERANCE_AFTER_CORRECTION if analytic else None
    found = fit(spectra, corrected, part(progress, 0.2, 0.6 if len(starts) > 1 else 1.0), tolerance=tolerance)
    if len(starts) == 1:
        return found
    other, promising = _other_minimum(fits, best, parameters)
    if not analytic:  # the analytic solution ranks the minima only roughly
        promising = torch.ones_like(promising)
    index = torch.nonzero(promising).flatten()
    if len(index):
        again = fit(spectra.of_voxels(index), other[index].double(), part(progress, 0.6, 0.8))
        found = found.replaced_where_better(again, index)
    index = torch.nonzero(found.cost > SUSPICIOUS * found.cost.nanmedian()).flatten()
    for number, start in enumerate(starts if len(index) else []):
        share = part(progress, 0.8 + 0.2 * number / len(starts), 0.8 + 0.2 * (number + 1) / len(starts))
        given = None if start is None else start.to(spectra.signal.device).expand(len(index), -1)
        again = fit(spectra.of_voxels(index), given, share, DAMPING_FROM_START)
        found = found.replaced_where_better(again, index)
    return found


def _towards_bloch_mcconnell(spectra: ZSpectra, model: SignalModel, analytic: Model, start: Tensor) -> Tensor:
    """Correct the R1rho fit by a Gauss-Newton step with its own derivatives and the numerical solution's residuals.

    The derivatives of both solutions are alike, so that a single simulation brings the parameters to some 0.002
    standard errors from the minimum; an iteration of the fit takes a simulation for every parameter besides.

    Args:
        spectra: Signals.
        model: Numerical model.
        analytic: Prediction and Jacobian of the R1rho model.
        start: (voxel, p) parameters of the R1rho fit.

    Returns:
        (voxel, p); the start where the step is not small, or where there are priors.
    """
    _, lower, upper, prior = _limits(model.tissue.parameters, start)
    if prior is not None:
        return start
    maps = tuple(values.to(start) for values in _maps_of_model(spectra, model.tissue).values())
    moved = start.clone()

    @torch.no_grad()
    def move(voxels: Tensor) -> None:
        some = tuple(values[voxels] for values in maps)
        data, used = spectra.signal[voxels].to(start), spectra.valid
        weight = torch.ones_like(data) if used is None else used[voxels].to(data)
        first = start[voxels]
        jacobian = analytic(first.T.contiguous(), *some)[1].permute(2, 0, 1) * weight.unsqueeze(1)
        scale = jacobian.square().sum(2).clamp_min(1e-30).rsqrt()
        rows = jacobian * scale.unsqueeze(2)
        factor, failed = torch.linalg.cholesky_ex(rows @ rows.mT)
        residual = torch.where(weight > 0, model.predict(first.T.contiguous(), *some).T - data, 0.0)
        downhill = (rows @ residual.unsqueeze(2)).neg()
        step = torch.cholesky_solve(downhill, factor)
        small = (step * downhill).sum((1, 2)) <= SMALL_CORRECTION * residual.square().sum(1)
        now = (first + step.squeeze(2) * scale).clamp(lower, upper)
        good = (failed == 0) & small & now.isfinite().all(1)
        moved[voxels] = torch.where(good.unsqueeze(1), now, first)

    chunk = max(1, POINTS_PER_CHUNK_CLOSED_FORM // model.protocol.measurement_count)
    in_threads(move, torch.arange(len(start), device=start.device).split(chunk), os.cpu_count())
    return moved


def start_points(parameters: Sequence[FitParameter]) -> list[Tensor | None]:
    """Return the starts of a fit: that of the model (None), and others where exchange rates have wide bounds.

    Slow exchange of many protons and fast exchange of few give similar spectra at one power, so a fit whose rate may
    lie anywhere over more than three orders of magnitude has several minima.

    Args:
        parameters: Fitted values of the model.

    Returns:
        None, followed by values (p,) in the order of the parameters.
    """
    wide = [p.path.endswith(".k_Hz") and p.upper > WIDE_RANGE * max(p.lower, SLOWEST_HZ) for p in parameters]
    if not any(wide):
        return [None]
    starts: list[Tensor | None] = [None]
    for share in torch.linspace(0.15, 0.95, FURTHER_STARTS).tolist():
        values = {parameter.path: parameter.start for parameter in parameters}
        for parameter, varied in zip(parameters, wide, strict=True):
            if varied:
                low = max(parameter.lower, SLOWEST_HZ)
                rate = low * (parameter.upper / low) ** share
                values[parameter.path] = rate
                fraction = f"{parameter.path.removesuffix('.k_Hz')}.fraction"
                if fraction in values:  # very slow and very fast exchange both take more protons to be seen
                    ratio = rate / BEST_SEEN_HZ
                    values[fraction] *= max(ratio, 1 / ratio) ** 0.5
        starts.append(torch.tensor([values[parameter.path] for parameter in parameters], dtype=torch.float64))
    return starts


def best_fit(fits: Sequence[FitResult]) -> FitResult:
    """Return the fit with the lowest cost in every voxel."""
    best = fits[0]
    everywhere = torch.arange(len(best.cost), device=best.cost.device)
    for fit in fits[1:]:
        best = best.replaced_where_better(fit, everywhere)
    return best


def _other_minimum(
    fits: Sequence[FitResult], best: FitResult, parameters: Sequence[FitParameter]
) -> tuple[Tensor, Tensor]:
    """Return the best minimum (voxel, p) apart from the best one, and where it is promising (voxel,).

    Two minima are different where a rate differs by more than a fifth.
    """
    rates = [i for i, p in enumerate(parameters) if p.path.endswith(".k_Hz")]
    other, cost = best.parameters.clone(), torch.full_like(best.cost, torch.inf)
    for fit in fits:
        ratio = fit.parameters[:, rates].clamp_min(1e-6) / best.parameters[:, rates].clamp_min(1e-6)
        better = (ratio.log().abs().amax(1) > 0.2) & (fit.cost < cost)
        other[better], cost[better] = fit.parameters[better], fit.cost[better]
    return other, cost < PROMISING * best.cost + ANALYTIC_ERROR


def _iterate(
    spectra: ZSpectra,
    model: SignalModel,
    with_jacobian: Model,
    dtype: torch.dtype,
    max_iterations: int,
    progress: Progress,
    start: Tensor | None = None,
    chunk_voxels: int | None = None,
    start_damping: float | None = None,
    tolerance: float | None = None,
    leave_zero_floor: bool = True,
) -> FitResult:
    """Run the Levenberg-Marquardt fit in a precision, from the model's starts or from ``start`` (voxel, p).

    A noise floor of 0 does not change the signal, so that no step leads away from it: voxels that end there are fitted
    once more from a high floor, unless ``leave_zero_floor`` is false.
    """
    parameters = model.tissue.parameters
    of_model, lower, upper, prior = _limits(parameters, spectra.signal.new_empty(0, dtype=dtype))
    fit = levenberg_marquardt(
        with_jacobian,
        spectra.signal.to(dtype),
        of_model if start is None else torch.where(torch.isfinite(start), start, of_model),
        lower,
        upper,
        arguments=tuple(_maps_of_model(spectra, model.tissue).values()),
        valid=spectra.valid,
        prior_mean=None if prior is None else prior.mean,
        prior_sd=None if prior is None else prior.sd,
        noise_sd=model.noise_sd,
        max_iterations=max_iterations,
        tolerance=tolerance,
        start_damping=start_damping or (DAMPING_FROM_START if start is None else DAMPING_NEAR_SOLUTION),
        chunk_voxels=chunk_voxels,
        progress=progress,
    )
    fit = _at_natural_limits(fit, parameters, lower, upper)
    floor = torch.tensor([p.path == "noise_floor" for p in parameters], device=fit.parameters.device)
    index = torch.nonzero((fit.parameters[:, floor] == 0).any(1)).flatten()
    if len(index) and leave_zero_floor:
        again = _iterate(
            spectra.of_voxels(index),
            model,
            with_jacobian,
            dtype,
            max_iterations,
            silent,
            torch.where(floor, HIGH_FLOOR * upper, fit.parameters[index]),
            chunk_voxels,
            DAMPING_FROM_START,
            tolerance,
            leave_zero_floor=False,
        )
        fit = fit.replaced_where_better(again, index)
    return fit


def _named_maps(model: TissueModel, result: FitResult) -> dict[str, Tensor]:
    """Return the maps of a fit by the names of their files, see ``ModelFit.quantities``."""
    values = {p.path: result.parameters[:, i] for i, p in enumerate(model.parameters)}
    errors = {p.path: result.standard_errors[:, i] for i, p in enumerate(model.parameters)}
    return named_quantities(values, errors, model.protons) | {"rmse": result.rmse}
