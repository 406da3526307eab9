"""A schedule optimised, rounded to what a scanner plays, and compared with where it started.

The phases of a design follow one another on the same schedule: those named ``crlb-…`` minimise the Cramér-Rao bound,
``network`` trains schedule and network as one chain. Then a new network is trained in the same way for the start and
for the result, and both are tried on the same held-out voxels. Where the last phase is joint training, the schedule
before it gets a network too, and that of the two whose targets are estimated with the smaller weighted error is the
result.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from NeuroCESTLib.core.checked_json import read_json
from NeuroCESTLib.core.processes import Processes
from NeuroCESTLib.core.progress import Progress, part, silent
from NeuroCESTLib.core.stored_values import check_stored
from NeuroCESTLib.core.whole_files import write_text

from ..networks.training import TrainingResult, one_thread, train_network
from ..physics.protocol import Protocol
from .bound import minimize_bound
from .design import JOINT_TRAINING, Design
from .evaluation import EvaluatedSchedule, batches_of, evaluate_schedule, new_chain
from .limits import playable
from .progress_file import PROGRESS_FILE, progress_record
from .trainable import Moment, TrainableSchedule

START = "start"
"""Name of the schedule before all phases."""
_SHARE_OF_PHASES = 0.4
"""Share of the progress that the phases take; the rest goes to the final networks."""


@dataclass(frozen=True)
class DesignResult:
    """An optimised schedule and where it came from.

    Attributes:
        start: Schedule at its start, inside the limits.
        optimized: Schedule that is the result.
        evolution: Recorded moments of all phases, in order.
        seconds: Duration of every step in s, by a description of the step.
        kept: Phase whose schedule is the result; ``start`` where joint training alone made the schedule worse.
    """

    start: EvaluatedSchedule
    optimized: EvaluatedSchedule
    evolution: list[Moment]
    seconds: dict[str, float]
    kept: str


def optimize(
    design: Design,
    *,
    checkpoints: Path | None = None,
    processes: Processes | None = None,
    progress: Progress = silent,
) -> DesignResult:
    """Optimise a schedule.

    Args:
        design: What to optimise, and how.
        checkpoints: Existing folder from which a killed run of the same design continues; None keeps no checkpoints.
        processes: This process among those that train together; by default it is the only one.
        progress: Called throughout; may raise to cancel.

    Raises:
        ValueError: No schedule can keep the limits.
        TrainingDiverged: A training diverged; its last good checkpoint stays.
    """
    run = _Run(design, checkpoints, processes or Processes(), progress)
    with one_thread():
        candidates = run.optimize_schedule()
        results = run.evaluate(candidates)
    kept = design.objective[-1]
    if kept == JOINT_TRAINING:
        kept = min(list(candidates)[-2:], key=lambda name: results[name].target_error)
    return DesignResult(results[START], results[kept], run.evolution, run.seconds, kept)


class _Run:
    """One run of a design, and what it records."""

    def __init__(self, design: Design, checkpoints: Path | None, processes: Processes, progress: Progress) -> None:
        self.design, self.checkpoints, self.processes, self.progress = design, checkpoints, processes, progress
        self.evolution: list[Moment] = []
        self.seconds: dict[str, float] = {}

    def optimize_schedule(self) -> dict[str, Protocol]:
        """Run all phases; returns the schedules to compare by the phase that they come from, the final one last."""
        design = self.design
        schedule, phases = design.schedule(), design.objective
        found = [playable(schedule.start, schedule.limits, schedule.trained)]
        self.evolution.append({"phase": START, "schedule": schedule.plain_values()})
        for number, objective in enumerate(phases):
            begin = time.perf_counter()
            first, last = (_SHARE_OF_PHASES * n / len(phases) for n in (number, number + 1))
            path = self._checkpoint(f"{number}-schedule.pt")
            self._show(objective, self.evolution[-1:])
            moments = self._phase(schedule, objective, path, part(self.progress, first, last))
            self.evolution += [{"phase": objective, **moment} for moment in moments]
            self.seconds[objective] = time.perf_counter() - begin
            with torch.no_grad():
                found.append(playable(schedule.protocol(), schedule.limits, schedule.trained))
        candidates = {START: found[0]}
        if phases[-1] == JOINT_TRAINING and len(phases) > 1:
            candidates[phases[-2]] = found[-2]
        candidates[phases[-1]] = found[-1]
        return candidates

    def evaluate(self, candidates: dict[str, Protocol]) -> dict[str, EvaluatedSchedule]:
        """Train a network for every candidate; returns the results by the phase that the schedules come from."""
        results = {}
        for number, (name, protocol) in enumerate(candidates.items()):
            begin = time.perf_counter()
            first, last = (
                _SHARE_OF_PHASES + (1 - _SHARE_OF_PHASES) * n / len(candidates) for n in (number, number + 1)
            )
            results[name] = evaluate_schedule(
                protocol,
                self.design,
                checkpoint=self._checkpoint(f"network-{name}.pt"),
                processes=self.processes,
                progress=part(self.progress, first, last, f"{name}: "),
            )
            self.seconds[f"network for the schedule after {name}"] = time.perf_counter() - begin
        return results

    def _show(self, phase: str, moments: Sequence[Moment]) -> None:
        """Write the schedule as it is now and the loss of the phase so far, for a window that shows them."""
        path = self._checkpoint(PROGRESS_FILE)
        if path is None or not self.processes.writes:
            return
        write_text(json.dumps(progress_record(phase, self.evolution[0]["schedule"], moments)), path)

    def _checkpoint(self, name: str) -> Path | None:
        return None if self.checkpoints is None else self.checkpoints / name

    def _phase(
        self, schedule: TrainableSchedule, objective: str, checkpoint: Path | None, progress: Progress
    ) -> list[Moment]:
        if objective == JOINT_TRAINING:
            return self._train_together(schedule, checkpoint, progress)
        return minimize_bound(
            schedule,
            self.design.problem,
            objective,
            self.design.bound,
            seed=self.design.training.seed,
            progress=progress,
            checkpoint=checkpoint,
            processes=self.processes,
            on_moment=lambda moments: self._show(objective, moments),
        )

    def _train_together(self, schedule: TrainableSchedule, checkpoint: Path | None, progress: Progress) -> list[Moment]:
        """Train schedule and network as one chain; the moments are recorded in a file beside the checkpoint."""
        design = self.design
        chain = new_chain(schedule, design, design.problem.targets, self.processes)
        record = None if checkpoint is None else checkpoint.with_suffix(".json")
        moments: list[Moment] = _recorded(record) if record is not None and record.exists() else []

        def after_epoch(epoch: int, result: TrainingResult) -> None:
            moment: Moment = {"step": epoch, "loss": result.validation_loss[-1], "schedule": schedule.plain_values()}
            moments[epoch - 1 :] = [moment]
            if record is not None and self.processes.writes:
                write_text(json.dumps(moments), record)
            self._show(JOINT_TRAINING, moments)

        train_network(
            chain.network,
            batches_of(chain, design, self.processes),
            replace(design.training, weights=design.problem.weights),
            progress,
            checkpoint,
            schedule_parameters=list(schedule.parameters()),
            after_epoch=after_epoch,
            processes=self.processes,
        )
        return moments


def _recorded(record: Path) -> list[Moment]:
    """The moments that a killed run recorded; none, with a warning, where the record is damaged."""
    try:
        moments = read_json(record)
        check_stored(moments, [{"step": int, "loss": float, "schedule": {}}], str(record))
    except ValueError:
        warnings.warn(f"{record}: the record of the training is damaged, so its earlier moments are lost", stacklevel=2)
        return []
    return moments
