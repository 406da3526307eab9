"""The iterations of a fit from one start: Levenberg-Marquardt with a model's bounds, priors and maps."""

from __future__ import annotations

import torch
from torch import Tensor

from NeuroCESTLib.core.progress import Progress, silent

from ...fitting.least_squares import FitResult, Model, levenberg_marquardt
from ..spectra import ZSpectra
from .bounds import at_natural_limits, bounds_of
from .signal_model import SignalModel, maps_of_model

DAMPING_FROM_START = 0.1
DAMPING_NEAR_SOLUTION = 1e-4
HIGH_FLOOR = 0.25
"""Noise floor, as a share of its upper bound, from which voxels are fitted again that ended at 0."""


def iterate(
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
    of_model, lower, upper, prior = bounds_of(parameters, spectra.signal.new_empty(0, dtype=dtype))
    fit = levenberg_marquardt(
        with_jacobian,
        spectra.signal.to(dtype),
        of_model if start is None else torch.where(torch.isfinite(start), start, of_model),
        lower,
        upper,
        arguments=tuple(maps_of_model(spectra, model.tissue).values()),
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
    fit = at_natural_limits(fit, parameters, lower, upper)
    floor = torch.tensor([p.path == "noise_floor" for p in parameters], device=fit.parameters.device)
    index = torch.nonzero((fit.parameters[:, floor] == 0).any(1)).flatten()
    if len(index) and leave_zero_floor:
        again = iterate(
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
