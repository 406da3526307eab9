"""Sharing the voxels of a fit out among threads, chunk by chunk.

A worker keeps a set of active voxels: those that have finished leave it, and when half a chunk is left the
next one joins, so that slow voxels never occupy a worker by themselves and memory does not grow with the
number of voxels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event

import torch
from torch import Tensor

from NeuroCESTLib.core.progress import Progress

from .marquardt import ActiveSet, Model, Problem, Status
from .statistics import FitResult, summarise

RETIRE_AT = 0.2  # share of finished voxels at which the others are moved together


@dataclass(frozen=True)
class FitInputs:
    """The checked arguments of `fitting.levenberg_marquardt`; all voxel-first."""

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
    start_damping: float

    def points(self, index: Tensor) -> Tensor:
        """Number of valid measurements of some voxels; (n,)."""
        if self.valid is None:
            return torch.full_like(self.data[index, 0], self.data.shape[1])
        return self.valid[index].sum(1).to(self.data)


def run_chunks(
    result: FitResult, inputs: FitInputs, chunks: list[slice], threads: int, progress: Progress | None
) -> None:
    """Fit all chunks into `result`; progress is told, and may raise, in the calling thread."""
    voxels, done = len(result.status), 0
    remaining = iter(chunks)  # next() on it is atomic
    cancelled = Event()
    reports: SimpleQueue[int | None] = SimpleQueue()

    def work() -> None:
        try:
            _work(result, inputs, remaining, cancelled, reports.put)
        finally:
            reports.put(None)

    # Small tensors: one thread a chunk is several times faster than several threads an operation.
    intra_op_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(max(1, threads), initializer=torch.set_num_threads, initargs=(1,))
    try:
        workers = [pool.submit(work) for _ in range(max(1, threads))]
        working = len(workers)
        while working:
            number = reports.get()
            working -= number is None
            done += number or 0
            if progress is not None and number:
                progress(done / voxels, f"Fitted {done} of {voxels} voxels")
        for worker in workers:
            worker.result()
    finally:
        cancelled.set()
        pool.shutdown(wait=True)
        torch.set_num_threads(intra_op_threads)


def _load(inputs: FitInputs, chunk: slice, status: Tensor) -> ActiveSet | None:
    """Start the fit of a chunk's sound voxels; flags the others in `status` (voxel,). None without any."""
    data = inputs.data[chunk]
    valid = None if inputs.valid is None else inputs.valid[chunk]
    used = data if valid is None else torch.where(valid, data, 0.0)
    sound = used.isfinite().all(1) & (used != 0).any(1)
    for argument in inputs.arguments:
        sound &= argument[chunk].isfinite().reshape(len(data), -1).all(1)
    points = inputs.points(torch.arange(chunk.start, chunk.stop, device=data.device))
    count = inputs.start.shape[-1]
    if inputs.prior_sd is not None:
        known = inputs.prior_sd.isfinite().sum(-1)
        points = points + (known[chunk] if known.ndim else known)
    status[chunk][~sound] = Status.INVALID_DATA
    status[chunk][sound & (points < count)] = Status.NOT_ENOUGH_POINTS
    rows = (sound & (points >= count)).nonzero().squeeze(1)
    if len(rows) == 0:
        return None

    def parameters_last(value: Tensor | None) -> Tensor | None:
        if value is None:
            return None
        picked = value[chunk][rows] if value.ndim == 2 else value.expand(len(rows), count)
        return picked.T.contiguous()

    def values_last(value: Tensor) -> Tensor:
        return value[rows].movedim(0, -1).contiguous()

    lower, upper = parameters_last(inputs.lower), parameters_last(inputs.upper)
    precision = None
    if inputs.prior_sd is not None:
        precision = (inputs.noise_sd[chunk][rows] / parameters_last(inputs.prior_sd)).square()
    problem = Problem(
        model=inputs.model,
        data=values_last(used),
        arguments=tuple(values_last(argument[chunk]) for argument in inputs.arguments),
        lower=lower,
        upper=upper,
        weight=None if valid is None else values_last(valid).to(data),
        prior_mean=parameters_last(inputs.prior_mean),
        prior_precision=precision,
    )
    start = parameters_last(inputs.start).clamp(lower, upper)
    return ActiveSet(problem, start, rows + chunk.start, inputs.max_iterations, inputs.tolerance, inputs.start_damping)


def _write(result: FitResult, inputs: FitInputs, finished: ActiveSet) -> None:
    """Enter the outcome of finished voxels into the result."""
    index = finished.index
    noise_variance = None if inputs.noise_sd is None else inputs.noise_sd[index].square()
    found = summarise(finished, inputs.points(index), noise_variance, result.correlation is not None)
    result.parameters[index] = found.parameters.T
    result.standard_errors[index] = found.standard_errors.T
    if result.correlation is not None:
        result.correlation[index] = found.correlation.permute(2, 0, 1)
    result.rmse[index] = found.rmse
    result.status[index] = found.status
    result.iterations[index] = finished.iterations.to(torch.int32)


@torch.no_grad()
def _work(
    result: FitResult,
    inputs: FitInputs,
    chunks: Iterator[slice],
    cancelled: Event,
    report: Callable[[int], None],
) -> None:
    """Fit chunks until there are no more; the last voxels of one are finished together with the next."""
    active: ActiveSet | None = None
    for chunk in chunks:
        fresh = _load(inputs, chunk, result.status)
        started = 0 if fresh is None else len(fresh)
        report(chunk.stop - chunk.start - started)
        if fresh is not None:
            active = fresh if active is None else active.joined(fresh)
        active = _iterate_down_to(started // 2, active, result, inputs, cancelled, report)
    _iterate_down_to(0, active, result, inputs, cancelled, report)


def _iterate_down_to(
    few: int,
    active: ActiveSet | None,
    result: FitResult,
    inputs: FitInputs,
    cancelled: Event,
    report: Callable[[int], None],
) -> ActiveSet | None:
    """Iterate until at most `few` voxels are left, which are returned."""

    def retire(active: ActiveSet | None) -> ActiveSet | None:
        finished = active.finished
        number = int(finished.sum())
        if number < RETIRE_AT * len(active):
            return active
        _write(result, inputs, active.select(finished.nonzero().squeeze(1)))
        report(number)
        return active.select((~finished).nonzero().squeeze(1)) if number < len(active) else None

    while active is not None and len(active) > few and not cancelled.is_set():
        active.propose()
        active = retire(active)  # before the model is evaluated for those that have converged
        if active is not None:
            active.advance()
            active = retire(active) if bool(active.finished.all()) else active
    return active
