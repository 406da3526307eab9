"""Batched least squares with box bounds: one small Levenberg-Marquardt fit per voxel, for any number of voxels.

``marquardt`` describes the algorithm. Public tensors are voxel-first; inside, and in the model, the voxel axis is last,
so that every operation runs along contiguous memory. Voxels are fitted in chunks that fit the processor's cache, so
that memory does not grow with their number.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from NeuroCESTLib.core.progress import Progress, silent

from .jacobians import autograd_model, finite_difference_model
from .marquardt import IterationSettings, Status
from .problem import GaussianPrior, LeastSquaresProblem, Model
from .statistics import FitResult
from .workers import fit_chunks

__all__ = ["FitResult", "Model", "Status", "autograd_model", "finite_difference_model", "levenberg_marquardt"]

JACOBIAN_VALUES_PER_CHUNK = 2**19
"""Parameters x measurements x voxels of a chunk: the measured optimum between cache misses and the cost of a call."""
JACOBIAN_VALUES_PER_CHUNK_GPU = 2**28
"""The same on a GPU, where memory limits it."""
SMALLEST_CHUNK = 1024


def levenberg_marquardt(
    model: Model,
    data: Tensor,
    start: Tensor,
    lower: Tensor,
    upper: Tensor,
    *,
    arguments: Sequence[Tensor] = (),
    valid: Tensor | None = None,
    prior_mean: Tensor | None = None,
    prior_sd: Tensor | None = None,
    noise_sd: float | Tensor | None = None,
    different: Tensor | None = None,
    max_iterations: int = 60,
    tolerance: float | None = None,
    start_damping: float = 0.1,
    correlation: bool = True,
    chunk_voxels: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> FitResult:
    """Fit a model to the measurements of every voxel.

    Args:
        model: Maps parameters (p, voxel) and ``arguments`` (.., voxel) to the prediction (m, voxel) and its Jacobian
            (p, m, voxel). ``finite_difference_model`` and ``autograd_model`` make one from a prediction alone.
        data: (voxel, m), float32 or float64, on any device; the fit runs there and in that precision.
        start: (p,) or (voxel, p) start values; they are moved into the bounds.
        lower: (p,) or (voxel, p) lower bounds, may be minus infinity.
        upper: (p,) or (voxel, p) upper bounds, may be infinity.
        arguments: Tensors (voxel, ..) that the model receives as (.., voxel), such as field maps.
        valid: (voxel, m) bool; other measurements have weight zero and may be NaN.
        prior_mean: (p,) or (voxel, p) means of Gaussian priors.
        prior_sd: (p,) or (voxel, p) their standard deviations; an infinite one means no prior.
        noise_sd: Standard deviation of a measurement, one value or (voxel,): the weight of the data against the priors,
            and the scale of the standard errors. Without it, a first fit without priors estimates it in each voxel if
            there are priors (a voxel without more measurements than parameters takes the median of the others), and the
            standard errors follow from the residual if there are none.
        different: (voxel,) number of valid measurements without the repeats among them, which determine no further
            parameter; by default none counts as a repeat. A voxel with fewer of them than free parameters, those whose
            bounds differ, is not fitted.
        max_iterations: Limit for each voxel.
        tolerance: Relative change of the residual sum of squares that counts as converged; 1e-8 by default in float64
            and 1e-5 in float32.
        start_damping: Damping of the first step, relative to the diagonal of the normal matrix. A smaller one is faster
            from good starts; from poor ones it leads to poorer local minima.
        correlation: Whether to return the correlation matrices (p^2 values per voxel).
        chunk_voxels: Voxels per chunk; by default such that a chunk fits the cache.
        threads: Worker threads; by default one per processor.
        progress: Called as (fraction, message) after each chunk; what it raises cancels the fit.

    Returns:
        Parameters, standard errors, residual and status of every voxel.

    Raises:
        ValueError: Shapes do not fit together, a lower bound lies above its upper bound, or only one of prior_mean and
            prior_sd is given.
    """

    def like_data(value: Tensor) -> Tensor:
        return torch.as_tensor(value, dtype=data.dtype, device=data.device)

    if (prior_mean is None) != (prior_sd is None):
        raise ValueError("priors need both prior_mean and prior_sd")
    prior = None
    if prior_mean is not None and prior_sd is not None:
        prior = GaussianPrior(like_data(prior_mean), like_data(prior_sd))
    if noise_sd is not None:
        noise_sd = torch.as_tensor(noise_sd, dtype=data.dtype, device=data.device).expand(len(data))
    problem = LeastSquaresProblem(
        model=model,
        data=data,
        start=like_data(start),
        lower=like_data(lower),
        upper=like_data(upper),
        arguments=tuple(argument.to(data) for argument in arguments),
        valid=valid,
        prior=prior,
        noise_sd=noise_sd,
        different=different,
    )
    if tolerance is None:
        tolerance = 1e-8 if data.dtype == torch.float64 else 1e-5
    settings = IterationSettings(max_iterations, tolerance, start_damping)
    if prior is not None and noise_sd is None:
        problem = _with_estimated_noise(problem, settings, chunk_voxels, threads)
    return _fit(problem, settings, chunk_voxels, threads, correlation, progress or silent)


def _fit(
    problem: LeastSquaresProblem,
    settings: IterationSettings,
    chunk_voxels: int | None,
    threads: int | None,
    correlation: bool,
    progress: Progress,
) -> FitResult:
    """Share the voxels of a problem out among threads; chunks and threads have the defaults that suit the device."""
    data, count = problem.data, problem.parameter_count
    voxels, measurements = data.shape
    on_cpu = data.device.type == "cpu"
    result = FitResult(
        parameters=data.new_full((voxels, count), torch.nan),
        standard_errors=data.new_full((voxels, count), torch.nan),
        correlation=data.new_full((voxels, count, count), torch.nan) if correlation else None,
        rmse=data.new_full((voxels,), torch.nan),
        status=torch.zeros(voxels, dtype=torch.uint8, device=data.device),
        iterations=torch.zeros(voxels, dtype=torch.int32, device=data.device),
        cost=data.new_full((voxels,), torch.nan),
    )
    if chunk_voxels is None:
        values = JACOBIAN_VALUES_PER_CHUNK if on_cpu else JACOBIAN_VALUES_PER_CHUNK_GPU
        chunk_voxels = max(SMALLEST_CHUNK, values // (count * measurements))
    chunks = [slice(first, min(first + chunk_voxels, voxels)) for first in range(0, voxels, chunk_voxels)]
    if threads is None:
        threads = os.cpu_count() or 1
    fit_chunks(result, problem, settings, chunks, min(threads, len(chunks)) if on_cpu else 1, progress)
    return result


def _with_estimated_noise(
    problem: LeastSquaresProblem, settings: IterationSettings, chunk_voxels: int | None, threads: int | None
) -> LeastSquaresProblem:
    """Add the noise of every voxel to a problem with priors, and better starts, both from a fit without priors."""
    free = _fit(replace(problem, prior=None), settings, chunk_voxels, threads, False, silent)
    index = torch.arange(len(problem.data), device=problem.data.device)
    points = problem.valid_counts(index)
    degrees = points - problem.free_counts(index)
    noise_sd = free.rmse * (points / degrees.clamp_min(1)).sqrt()
    noise_sd = torch.where(degrees > 0, noise_sd, noise_sd[degrees > 0].nanmedian())
    start = torch.where(free.parameters.isfinite(), free.parameters, problem.start)
    return replace(problem, noise_sd=noise_sd, start=start)
