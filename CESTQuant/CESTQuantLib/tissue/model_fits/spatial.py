"""Fits of all voxels together under the prior that neighbours are alike."""

from __future__ import annotations

from dataclasses import replace

import torch

from NeuroCESTLib.core.progress import Progress

from ...fitting.least_squares import FitResult
from ...fitting.problem import LeastSquaresProblem
from ...fitting.spatial.neighbors import Neighbors
from ...fitting.spatial.prior import SpatialFit, fit_with_neighbors
from ..spectra import ZSpectra
from .bloch_mcconnell import PROPAGATORS_PER_CHUNK_CARRIED_OVER
from .bounds import at_natural_limits, bounds_of
from .signal_model import SignalModel, maps_of_model


def fit_under_spatial_prior(
    own: FitResult, spectra: ZSpectra, model: SignalModel, neighbors: Neighbors, progress: Progress
) -> SpatialFit:
    """Fit all voxels together, from their own fits."""
    dtype = own.parameters.dtype
    analytic = dtype == torch.float32
    start, lower, upper, prior = bounds_of(model.tissue.parameters, spectra.signal.new_empty(0, dtype=dtype))
    noise = model.noise_sd
    problem = LeastSquaresProblem(
        model=model.with_analytic_jacobian() if analytic else model.with_finite_differences(),
        data=spectra.signal.to(dtype),
        start=start,
        lower=lower,
        upper=upper,
        arguments=tuple(values.to(lower) for values in maps_of_model(spectra, model.tissue).values()),
        valid=spectra.valid,
        prior=prior,
        noise_sd=None if noise is None else lower.new_full((spectra.voxel_count,), noise),
    )
    measurements = model.protocol.measurement_count * (len(model.tissue.parameters) + 1)
    chunk = None if analytic else max(1, PROPAGATORS_PER_CHUNK_CARRIED_OVER // measurements)
    fit = fit_with_neighbors(own, problem, neighbors, chunk_voxels=chunk, progress=progress)
    return replace(fit, result=at_natural_limits(fit.result, model.tissue.parameters, lower, upper))
