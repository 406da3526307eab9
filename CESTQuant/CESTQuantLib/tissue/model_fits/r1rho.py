"""Fits with the R1rho solution, from starts that are predicted where few voxels tell those of the others."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from NeuroCESTLib.core.progress import Progress, part, silent

from ...fitting.least_squares import FitResult
from ...fitting.marquardt import Status
from ...fitting.predicted_starts import FEWEST_VOXELS, predicted_starts
from ..r1rho_jacobian import has_analytic_jacobian
from ..spectra import ZSpectra
from .bounds import bounds_of
from .iterations import DAMPING_FROM_START, iterate
from .several_starts import SUSPICIOUS, best_fit, start_points
from .signal_model import SignalModel, maps_of_model

IMPROBABLE = 4.0
"""Standard deviations of the cost by which a voxel is worse than the median where chance is not the reason."""


def fit_r1rho(spectra: ZSpectra, model: SignalModel, max_iterations: int, progress: Progress) -> FitResult:
    """Fit from every start of the model and keep the best minimum of each voxel."""
    starts = start_points(model.tissue.parameters)
    fits = []
    for number, start in enumerate(starts):
        share = part(progress, number / len(starts), (number + 1) / len(starts))
        fits.append(fit_r1rho_from(start, spectra, model, max_iterations, share))
    return best_fit(fits)


def fit_r1rho_from(
    start: Tensor | None, spectra: ZSpectra, model: SignalModel, max_iterations: int, progress: Progress
) -> FitResult:
    """Fit from one start (p,) for all voxels, None for that of the model, or from better ones where they are found."""
    analytic = has_analytic_jacobian(model.tissue, model.protocol)
    derivatives = model.with_analytic_jacobian() if analytic else model.with_finite_differences()
    dtype = torch.float32 if analytic else torch.float64

    def near_solution(some: ZSpectra, given: Tensor, share: Progress) -> FitResult:
        return iterate(some, model, derivatives, dtype, max_iterations, share, given)

    def from_model(some: ZSpectra, share: Progress) -> FitResult:
        given = None if start is None else start.to(some.signal).expand(some.voxel_count, -1)
        return iterate(some, model, derivatives, dtype, max_iterations, share, given, start_damping=DAMPING_FROM_START)

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
    maps = tuple(values.to(data) for values in maps_of_model(spectra, model.tissue).values())
    usable = (data * 0).sum(1) == 0  # finite
    for values in maps:
        usable &= values.isfinite()
    if spectra.valid is not None:
        usable &= spectra.valid.all(1)
    _, lower, upper, _ = bounds_of(model.tissue.parameters, data.new_empty(0))

    def of_voxels(index: Tensor, given: Tensor | None) -> FitResult:
        some = spectra.of_voxels(index)
        return from_model(some, silent) if given is None else near_solution(some, given, silent)

    return predicted_starts(data, maps, usable, lower, upper, of_voxels)
