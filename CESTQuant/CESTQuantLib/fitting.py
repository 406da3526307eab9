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
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .fit_statistics import summarise
from .jacobians import autograd_model, finite_difference_model
from .marquardt import Model, Problem, Status, fit_chunk

__all__ = ["FitResult", "Model", "Status", "autograd_model", "finite_difference_model", "levenberg_marquardt"]

# p * m * voxels of a chunk: the measured optimum between cache and the cost of a call, and the room on a GPU
JACOBIAN_VALUES_A_CHUNK = 2**19
JACOBIAN_VALUES_A_CHUNK_GPU = 2**28
SMALLEST_CHUNK = 1024

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class FitResult:
    """Fitted parameters of each voxel; NaN where the status says the voxel was not fitted.

    Attributes:
        parameters: (voxel, p).
        standard_errors: (voxel, p); variance RSS/(m - free parameters) (or the given noise's) times the
            inverse normal matrix. A parameter at a bound is no free parameter: its error is NaN, and those of
            the others hold given its value. NaN too where the data do not determine the parameter, or leave
            no freedom.
        correlation: (voxel, p, p) of the estimates, NaN in the same places; None if not asked for.
        rmse: (voxel,) root mean square of the residual over the valid measurements.
        status: (voxel,) uint8, see `Status`.
        iterations: (voxel,) int32.
    """

    parameters: Tensor
    standard_errors: Tensor
    correlation: Tensor | None
    rmse: Tensor
    status: Tensor
    iterations: Tensor

    @property
    def fitted(self) -> Tensor:
        """(voxel,) True where there are parameters."""
        return (
            (self.status == Status.CONVERGED)
            | (self.status == Status.AT_BOUND)
            | (self.status == Status.ITERATION_LIMIT)
        )


@dataclass(frozen=True)
class _Inputs:
    """The arguments of `levenberg_marquardt` after checking; all voxel-first."""

    model: Model
    data: Tensor
    start: Tensor
    lower: Tensor
    upper: Tensor
    arguments: tuple[Tensor, ...]
    valid: Tensor | None
    prior_mean: Tensor | None
    prior_sd: Tensor | None
    noise_sd: Tensor | None
    max_iterations: int
    tolerance: float


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
    )
    voxels, measurements = data.shape
    count = inputs.start.shape[-1]
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
    if threads is None:
        threads = (os.cpu_count() or 1) if on_cpu else 1
    chunks = [slice(first, min(first + chunk_voxels, voxels)) for first in range(0, voxels, chunk_voxels)]
    report = progress or (lambda fraction, message: None)

    if not on_cpu:
        for number, chunk in enumerate(chunks, 1):
            _fit_into(result, inputs, chunk)
            report(number / len(chunks), f"Fitted {chunk.stop} of {voxels} voxels")
        return result
    # Small tensors: one thread a chunk is several times faster than several threads an operation.
    intra_op_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    workers = max(1, min(threads, len(chunks)))
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        running = [pool.submit(_fit_into, result, inputs, chunk) for chunk in chunks]
        for number, finished in enumerate(as_completed(running), 1):
            finished.result()
            report(number / len(chunks), f"Fitted {min(number * chunk_voxels, voxels)} of {voxels} voxels")
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(intra_op_threads)
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
) -> _Inputs:
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
    return _Inputs(
        model=model,
        data=data,
        **given,
        arguments=arguments,
        valid=valid,
        noise_sd=noise_sd,
        max_iterations=max_iterations,
        tolerance=tolerance,
    )


@torch.no_grad()
def _fit_into(result: FitResult, inputs: _Inputs, chunk: slice) -> None:
    """Fit the voxels of a chunk and write them into `result`."""
    data = inputs.data[chunk]
    valid = None if inputs.valid is None else inputs.valid[chunk]
    used = data if valid is None else torch.where(valid, data, 0.0)
    count = inputs.start.shape[-1]
    points = torch.full_like(used[:, 0], used.shape[1]) if valid is None else valid.sum(1).to(data.dtype)
    sound = used.isfinite().all(1) & (used != 0).any(1)
    for argument in inputs.arguments:
        sound &= argument[chunk].isfinite().reshape(len(data), -1).all(1)
    if inputs.prior_sd is None:
        enough = points >= count
    elif inputs.noise_sd is None:
        enough = points > count  # the first fit, without priors, has to leave a residual
    else:
        known = inputs.prior_sd.isfinite().sum(-1)
        enough = points + (known[chunk] if known.ndim else known) >= count

    status = result.status[chunk]  # views: writing here writes the result
    status[~sound] = Status.INVALID_DATA
    status[sound & ~enough] = Status.NOT_ENOUGH_POINTS
    index = (sound & enough).nonzero().squeeze(1)
    if len(index) == 0:
        return

    def parameters_last(value: Tensor | None) -> Tensor | None:
        if value is None:
            return None
        picked = value[chunk][index] if value.ndim == 2 else value.expand(len(index), count)
        return picked.T.contiguous()

    def values_last(value: Tensor) -> Tensor:
        return value[index].movedim(0, -1).contiguous()

    lower, upper = parameters_last(inputs.lower), parameters_last(inputs.upper)
    start = parameters_last(inputs.start).clamp(lower, upper)
    problem = Problem(
        model=inputs.model,
        data=values_last(used),
        arguments=tuple(values_last(argument[chunk]) for argument in inputs.arguments),
        lower=lower,
        upper=upper,
        weight=None if valid is None or bool(valid.all()) else values_last(valid).to(data),
    )
    limits = (inputs.max_iterations, inputs.tolerance)
    points = points[index]
    noise_variance = None
    if inputs.prior_sd is not None:
        if inputs.noise_sd is None:
            state, _, _ = fit_chunk(problem, start, *limits)
            start = torch.where(state.parameters.isfinite(), state.parameters, start)
            noise_variance = state.cost / (points - count)
        else:
            noise_variance = inputs.noise_sd[chunk][index].square()
        problem = replace(
            problem,
            prior_mean=parameters_last(inputs.prior_mean),
            prior_precision=noise_variance / parameters_last(inputs.prior_sd).square(),
        )
    state, outcome, iterations = fit_chunk(problem, start, *limits)

    found = summarise(problem, state, outcome, points, noise_variance, result.correlation is not None)
    result.parameters[chunk][index] = found.parameters.T
    result.standard_errors[chunk][index] = found.standard_errors.T
    if result.correlation is not None:
        result.correlation[chunk][index] = found.correlation.permute(2, 0, 1)
    result.rmse[chunk][index] = found.rmse
    result.iterations[chunk][index] = iterations
    status[index] = found.status
