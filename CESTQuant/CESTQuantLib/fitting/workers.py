"""Threads that fit the voxels chunk by chunk.

A worker takes several chunks in a row and keeps a set of active voxels: those that have finished leave it, and when
half a chunk is left the next chunk joins. Slow voxels therefore seldom occupy a worker by themselves, and memory does
not grow with the number of voxels. Which voxels are computed together depends on nothing but their order, neither on
the number of threads nor on their speed: the last bits of a result follow from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Event

import torch

from NeuroCESTLib.core.progress import Progress

from .marquardt import ActiveSet, IterationSettings, Status
from .problem import LeastSquaresProblem
from .statistics import FitResult, summarize

CHUNKS_IN_A_ROW = 8
"""Chunks that a worker fits in a row; at the end of each row it finishes the slow voxels by themselves."""
RETIRE_AT = 0.2
"""Share of finished voxels at which they leave the active set and the tensors of the others are gathered anew."""
PATIENCE_S = 0.5
"""Longest time in s between two reports of progress, so that a cancelled fit of slow voxels ends soon."""


def fit_chunks(
    result: FitResult,
    problem: LeastSquaresProblem,
    settings: IterationSettings,
    chunks: list[slice],
    threads: int,
    progress: Progress,
) -> None:
    """Fit all chunks of voxels and write the outcome into ``result``.

    Args:
        result: Tensors to fill.
        problem: All voxels.
        settings: Settings of the iterations.
        chunks: Ranges of voxels, which together cover all.
        threads: Number of worker threads, at least one.
        progress: Called, and may raise, in the calling thread.
    """
    voxels, done = len(result.status), 0
    rows = [chunks[first : first + CHUNKS_IN_A_ROW] for first in range(0, len(chunks), CHUNKS_IN_A_ROW)]
    remaining = iter(rows)  # taking the next one is atomic
    cancelled = Event()
    reports: SimpleQueue[int | None] = SimpleQueue()  # numbers of finished voxels; None when a worker ends

    def work() -> None:
        try:
            worker = _Worker(result, problem, settings, cancelled, reports.put)
            for row in remaining:
                worker.fit(row)
        finally:
            reports.put(None)

    # The tensors are small: one thread per chunk is several times faster than several threads per operation.
    intra_op_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(max(1, threads), initializer=torch.set_num_threads, initargs=(1,))
    try:
        workers = [pool.submit(work) for _ in range(max(1, threads))]
        working = len(workers)
        while working:
            try:
                finished = reports.get(timeout=PATIENCE_S)
            except Empty:
                finished = 0
            if finished is None:
                working -= 1
            else:
                done += finished
                progress(done / voxels, f"Fitted {done} of {voxels} voxels")
        for worker in workers:
            worker.result()
    finally:
        cancelled.set()
        pool.shutdown(wait=True)
        torch.set_num_threads(intra_op_threads)


@dataclass(frozen=True)
class _Worker:
    """Fits chunks of voxels until the fit is cancelled."""

    result: FitResult
    problem: LeastSquaresProblem
    settings: IterationSettings
    cancelled: Event
    report: Callable[[int], None]

    @torch.no_grad()
    def fit(self, chunks: Sequence[slice]) -> None:
        """Fit chunk after chunk; the last voxels of one are finished together with the next."""
        active: ActiveSet | None = None
        for chunk in chunks:
            if self.cancelled.is_set():
                return
            fresh = self._start(chunk)
            started = 0 if fresh is None else len(fresh)
            self.report(chunk.stop - chunk.start - started)
            if fresh is not None:
                active = fresh if active is None else active.joined(fresh)
            active = self._iterate_down_to(started // 2, active)
        self._iterate_down_to(0, active)

    def _start(self, chunk: slice) -> ActiveSet | None:
        """Start the fit of a chunk's usable voxels and enter the status of the others; None without usable voxels."""
        problem, status = self.problem, self.result.status[chunk]
        data = problem.used_data(chunk)
        columns = data.T.contiguous()  # reductions along the voxel axis are several times faster
        usable = ((columns * 0).sum(0) == 0) & (columns.abs().amax(0) != 0)
        for argument in problem.arguments:
            usable &= argument[chunk].isfinite().reshape(len(data), -1).all(1)
        index = torch.arange(chunk.start, chunk.stop, device=data.device)
        points, count = problem.determining_counts(index), problem.free_counts(index)
        if problem.prior is not None:  # a prior counts as a measurement
            priors = problem.prior.sd.isfinite().sum(-1)
            points = points + (priors[chunk] if priors.ndim else priors)
        status[~usable] = Status.INVALID_DATA
        status[usable & (points < count)] = Status.NOT_ENOUGH_POINTS
        rows = (usable & (points >= count)).nonzero().squeeze(1)
        if len(rows) == 0:
            return None
        voxels = rows + chunk.start
        batch = problem.batch(voxels, data[rows])
        start = problem.parameters_last(problem.start, voxels).clamp(batch.lower, batch.upper)
        return ActiveSet(batch, start, voxels, self.settings)

    def _iterate_down_to(self, few: int, active: ActiveSet | None) -> ActiveSet | None:
        """Iterate until at most ``few`` voxels are left, and return those."""
        while active is not None and len(active) > few and not self.cancelled.is_set():
            active.propose()
            active = self._retire(active)  # before the model is evaluated for voxels that have converged
            if active is not None:
                active.advance()
                if bool(active.finished.all()):
                    active = self._retire(active)
        return active

    def _retire(self, active: ActiveSet) -> ActiveSet | None:
        """Store the voxels that have finished, once they are many, and return the others; None if there are none."""
        finished = active.finished
        number = int(finished.sum())
        if number < RETIRE_AT * len(active):
            return active
        self._store(active.select(finished.nonzero().squeeze(1)))
        self.report(number)
        return active.select((~finished).nonzero().squeeze(1)) if number < len(active) else None

    def _store(self, finished: ActiveSet) -> None:
        """Write the outcome of finished voxels into the result."""
        result, noise_sd, index = self.result, self.problem.noise_sd, finished.index
        noise_variance = None if noise_sd is None else noise_sd[index].square()
        valid_counts = self.problem.valid_counts(index)
        found = summarize(finished, valid_counts, noise_variance, result.correlation is not None)
        result.parameters[index] = found.parameters.T
        result.standard_errors[index] = found.standard_errors.T
        if result.correlation is not None and found.correlation is not None:
            result.correlation[index] = found.correlation.permute(2, 0, 1)
        result.rmse[index] = found.rmse
        result.cost[index] = found.cost
        result.status[index] = found.status
        result.iterations[index] = finished.iterations.to(torch.int32)
