"""Batched least squares with box bounds: one small Levenberg-Marquardt fit a voxel, any number of voxels.

Marquardt, SIAM J Appl Math 1963;11:431 (damping in units of the normal matrix's diagonal, so that a fraction
of 1e-3 and a rate of 1e3 1/s share one fit); damping per voxel by the gain ratio (Nielsen, IMM-REP-1999-05).
A parameter at its bound with the gradient pressing outwards is held for that step and released when the
gradient turns; the others go on converging without it.

Public tensors are voxel-first. Inside, and in the model, the voxel is last, so that every operation runs
along contiguous memory. Voxels are fitted in chunks that fit the processor's cache: memory does not grow with
them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .jacobians import autograd_model, finite_difference_model
from .marquardt import Model, Status
from .statistics import FitResult
from .workers import FitInputs, Progress, run_chunks

__all__ = ["FitResult", "Model", "Status", "autograd_model", "finite_difference_model", "levenberg_marquardt"]

# p * m * voxels of a chunk: the measured optimum between cache and the cost of a call, and the room on a GPU
JACOBIAN_VALUES_A_CHUNK = 2**19
JACOBIAN_VALUES_A_CHUNK_GPU = 2**28
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
    max_iterations: int = 60,
    tolerance: float | None = None,
    start_damping: float = 0.1,
    correlation: bool = True,
    chunk_voxels: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> FitResult:
    """Fit `model` to each voxel's measurements.

    Args:
        model: (parameters (p, voxel), *arguments (.., voxel)) -> prediction (m, voxel), jacobian (p, m,
            voxel); see `finite_difference_model` and `autograd_model` for models without a Jacobian.
        data: (voxel, m), float32 or float64, on any device; the fit runs there and in that precision.
        start, lower, upper: (p,) or (voxel, p); bounds may be infinite; starts are moved into the bounds.
        arguments: per-voxel tensors (voxel, ..) that the model receives as (.., voxel).
        valid: (voxel, m) bool; other measurements have weight zero and may be NaN.
        prior_mean, prior_sd: (p,) or (voxel, p) Gaussian priors; an infinite sd means none.
        noise_sd: noise of a measurement, scalar or (voxel,): the weight of the data against the priors.
            Without it a first fit without priors estimates it per voxel.
        max_iterations: of each voxel.
        tolerance: relative change of the residual sum of squares that counts as converged; 1e-8 in float64,
            1e-5 in float32.
        start_damping: of the first step, relative to the normal matrix's diagonal. Smaller is faster from good
            starts; from poor ones it leads to poorer local minima.
        correlation: whether to return the correlation matrices (p^2 values a voxel).
        chunk_voxels, threads: processing units; by default sized to the cache and the processors.
        progress: called as (fraction, message) after each chunk; what it raises cancels the fit.

    Raises:
        ValueError: shapes that do not fit together, or a lower bound above its upper bound.
    """
    inputs = _checked(
        model,
        data,
        {"start": start, "lower": lower, "upper": upper, "prior_mean": prior_mean, "prior_sd": prior_sd},
        tuple(arguments),
        valid,
        noise_sd,
        max_iterations,
        tolerance,
        start_damping,
    )
    voxels, measurements = data.shape
    count = inputs.start.shape[-1]
    if inputs.prior_sd is not None and inputs.noise_sd is None:
        inputs = _with_estimated_noise(inputs, chunk_voxels, threads)
    result = FitResult(
        parameters=data.new_full((voxels, count), torch.nan),
        standard_errors=data.new_full((voxels, count), torch.nan),
        correlation=data.new_full((voxels, count, count), torch.nan) if correlation else None,
        rmse=data.new_full((voxels,), torch.nan),
        status=torch.zeros(voxels, dtype=torch.uint8, device=data.device),
        iterations=torch.zeros(voxels, dtype=torch.int32, device=data.device),
    )
    on_cpu = data.device.type == "cpu"
    if chunk_voxels is None:
        values = JACOBIAN_VALUES_A_CHUNK if on_cpu else JACOBIAN_VALUES_A_CHUNK_GPU
        chunk_voxels = max(SMALLEST_CHUNK, values // (count * measurements))
    chunks = [slice(first, min(first + chunk_voxels, voxels)) for first in range(0, voxels, chunk_voxels)]
    if threads is None:
        threads = os.cpu_count() or 1
    run_chunks(result, inputs, chunks, min(threads, len(chunks)) if on_cpu else 1, progress)
    return result


def _checked(
    model: Model,
    data: Tensor,
    per_parameter: dict[str, Tensor | None],
    arguments: tuple[Tensor, ...],
    valid: Tensor | None,
    noise_sd: float | Tensor | None,
    max_iterations: int,
    tolerance: float | None,
    start_damping: float,
) -> FitInputs:
    if data.ndim != 2 or not data.is_floating_point():
        raise ValueError(f"data must be a floating-point (voxel, m) tensor, not {tuple(data.shape)}")
    voxels = data.shape[0]
    count = torch.as_tensor(per_parameter["start"]).shape[-1]
    given = {}
    for name, value in per_parameter.items():
        if value is not None:
            value = torch.as_tensor(value, dtype=data.dtype, device=data.device)
            if value.shape not in ((count,), (voxels, count)):
                raise ValueError(f"{name} must be ({count},) or ({voxels}, {count}): {tuple(value.shape)}")
        given[name] = value
    if bool((given["lower"] > given["upper"]).any()):
        raise ValueError("a lower bound lies above its upper bound")
    if (given["prior_mean"] is None) != (given["prior_sd"] is None):
        raise ValueError("priors need both prior_mean and prior_sd")
    if valid is not None and valid.shape != data.shape:
        raise ValueError(f"valid is {tuple(valid.shape)} but data is {tuple(data.shape)}")
    for argument in arguments:
        if argument.shape[:1] != data.shape[:1]:
            raise ValueError(f"an argument is {tuple(argument.shape)} but the data have {voxels} voxels")
    if noise_sd is not None:
        noise_sd = torch.as_tensor(noise_sd, dtype=data.dtype, device=data.device).expand(voxels)
    if tolerance is None:
        tolerance = 1e-8 if data.dtype == torch.float64 else 1e-5
    arguments = tuple(argument.to(data) for argument in arguments)
    return FitInputs(
        model=model,
        data=data,
        **given,
        arguments=arguments,
        valid=valid,
        noise_sd=noise_sd,
        max_iterations=max_iterations,
        tolerance=tolerance,
        start_damping=start_damping,
    )


def _with_estimated_noise(inputs: FitInputs, chunk_voxels: int | None, threads: int | None) -> FitInputs:
    """Noise and starts for a fit with priors, from a fit without."""
    free = levenberg_marquardt(
        inputs.model,
        inputs.data,
        inputs.start,
        inputs.lower,
        inputs.upper,
        arguments=inputs.arguments,
        valid=inputs.valid,
        max_iterations=inputs.max_iterations,
        tolerance=inputs.tolerance,
        start_damping=inputs.start_damping,
        correlation=False,
        chunk_voxels=chunk_voxels,
        threads=threads,
    )
    count = inputs.start.shape[-1]
    points = inputs.points(torch.arange(len(inputs.data), device=inputs.data.device))
    noise_sd = free.rmse * (points / (points - count).clamp_min(0)).sqrt()
    start = torch.where(free.parameters.isfinite(), free.parameters, inputs.start)
    return replace(inputs, noise_sd=noise_sd, start=start)
