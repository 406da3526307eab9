"""Training of a network: steps, validation, checkpoints, and when to end."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import nn

from NeuroCESTLib.core.processes import Processes
from NeuroCESTLib.core.progress import Progress, silent

from ..cohort.studies import Cohort
from ..pictures.curves import draw_curves
from .batches import AnyBatch, Augment, BatchStream, ItemSource
from .checkpoints import (
    BEST,
    LAST,
    STUDIES,
    best_is_lost,
    check_same,
    is_sound,
    load_checkpoint,
    of_another_training,
    of_this_version,
    save_checkpoint,
    start_anew,
)
from .config import TrainingConfig
from .log import MINUTES, Row, TrainingLog, without_time
from .objective import JointObjective, Objective
from .state import TrainingDiverged, TrainingResult, TrainingState
from .studies import difference_of_studies, study_digests
from .updates.learner import Learner

Clock = Callable[[], float]
"""Time in s from any origin, such as ``time.monotonic``."""


def train(
    config: TrainingConfig | Objective,
    network: nn.Module,
    source: ItemSource,
    validation: Sequence[Any],
    folder: str | Path,
    *,
    augmentation: Augment | None = None,
    resume: bool = False,
    processes: Processes | None = None,
    progress: Progress = silent,
    clock: Clock = time.monotonic,
    studies: Cohort | None = None,
) -> TrainingResult:
    """Train a network in place; at the end it has the best weights (averaged ones with ``ema_decay``).

    Everything random depends on the seed and the number of the step. A resumed training therefore follows the same
    trajectory, and so do several processes with the same ``batch_size``.

    Args:
        config: Configuration of a training of the joint task, or what another training minimises and reports.
        network: Network to train.
        source: Training pairs, or whatever the objective makes batches of.
        validation: Fixed items of the same kind, not augmented.
        folder: Folder for checkpoints, log and pictures.
        augmentation: Random changes of the training pairs, or None.
        resume: Continue from the last checkpoint in ``folder``. A damaged one is put aside with a warning, and the
            training starts from the beginning, unless the file of its initial weights is gone.
        processes: This process among the others; None for a single one.
        progress: Called after each step; may raise to interrupt, after which a checkpoint is written.
        clock: Clock that time limits and checkpoints follow.
        studies: Studies of all splits, which must be those of the training that is resumed; None for data without a
            manifest.

    Returns:
        The trained network and how the training went.

    Raises:
        TrainingDiverged: The loss or a gradient is not finite; the last good checkpoint is kept.
        ValueError: There is no checkpoint to resume from, or it belongs to another training, or it is damaged
            and the initial weights are gone.
    """
    objective = JointObjective(config) if isinstance(config, TrainingConfig) else config
    if objective.settings.threads:
        torch.set_num_threads(objective.settings.threads)
    folder, processes = Path(folder), processes or Processes()
    initial = {name: value.clone() for name, value in network.state_dict().items()} if resume else {}
    run = _Run(objective, network, validation, folder, processes, progress, clock, studies)
    if resume and not run.resume():
        run.log.close()
        network.load_state_dict(initial)
        run = _Run(objective, network, validation, folder, processes, progress, clock, studies)
    try:
        run.run(source, augmentation)
    finally:
        run.log.close()
    return run.result()


class _Run:
    """One session of a training.

    Attributes:
        learner: The network in training.
        state: Where the training is.
        log: Rows of the epochs.
        stopped: Why the training ended; empty while it goes on.
        interruption: What the caller's progress raised, until a checkpoint is written.
    """

    def __init__(
        self,
        objective: Objective,
        network: nn.Module,
        validation: Sequence[Any],
        folder: Path,
        processes: Processes,
        progress: Progress,
        clock: Clock,
        studies: Cohort | None = None,
    ) -> None:
        self.objective, self.settings, self.processes = objective, objective.settings, processes
        self.folder, self.progress, self.clock = folder, progress, clock
        self.studies = studies
        self.learner = Learner(objective, network, processes)
        self.validation = [objective.combine([item], objective.multiple) for item in validation]
        self.log = TrainingLog(folder, writes=processes.writes)
        self.state = TrainingState()
        self.started = clock()
        self.stopped = ""
        self.interruption: BaseException | None = None

    @property
    def at_epoch_end(self) -> bool:
        """Whether the latest step was the last one of its epoch."""
        return self.state.step % self.settings.validate_every_batches == 0

    def run(self, source: ItemSource, augmentation: Augment | None) -> None:
        """Train until the end or an interruption."""
        settings, processes = self.settings, self.processes
        passes = max(settings.accumulation // processes.count, 1)
        stream = BatchStream(
            source,
            augmentation,
            seed=settings.seed,
            step_pairs=settings.batch_size,
            passes=passes,
            rank=processes.rank,
            count=processes.count,
            multiple=self.objective.multiple,
            workers=settings.workers,
            prefetch=settings.prefetch * passes,
            pin=self.learner.device.type == "cuda",
            combine=self.objective.combine,
        )
        with closing(stream.batches(self.state.step)) as batches:
            self._loop(batches, passes)

    def _loop(self, batches: Iterator[AnyBatch], passes: int) -> None:
        self.started = self.clock() - self.state.seconds
        saved = self.clock()
        logged = self.log.rows[-1]["step"] if self.log.rows else 0
        self._check_end()
        if self.state.step > logged:  # interrupted since the last validation
            self._validate_if_due()
            self._save()
        while not self.stopped:
            try:
                self._train_step(batches, passes)
            except FloatingPointError as error:
                raise self._diverged(error) from None
            self._report_progress()
            if self.interruption is None:
                self._validate_if_due()
            due = self.clock() - saved > 60 * self.settings.checkpoint_minutes
            if due or self.stopped or self.interruption is not None or self.at_epoch_end:
                self._save()
                saved = self.clock()
            if self.interruption is not None:
                raise self.interruption

    def _train_step(self, batches: Iterator[AnyBatch], passes: int) -> None:
        """Update the weights once."""
        settings, step = self.settings, self.state.step
        rate = settings.rate(step, settings.share_done(step, self.state.seconds), self.learner.updater.reductions)
        self.state.add(self.learner.update(batches, passes, step, rate))

    def _report_progress(self) -> None:
        """Take the time, report the progress, and share both time and interruption with the other processes."""
        state = self.state
        state.seconds = self.clock() - self.started
        try:
            self.progress(self.settings.share_done(state.step, state.seconds), self._message())
        except BaseException as error:  # whatever the caller interrupts with
            self.interruption = error
        if self.processes.count > 1:
            shared = torch.tensor([state.seconds, float(self.interruption is not None)], device=self.learner.device)
            self.processes.average([shared])
            state.seconds = float(shared[0])
            if shared[1] > 0 and self.interruption is None:
                self.interruption = KeyboardInterrupt()

    def _message(self) -> str:
        latest = self.log.rows[-1] if self.log.rows else {}
        dice = f", Dice {latest['val_dice']:.3f}" if "val_dice" in latest else ""
        speed = self.state.seconds / max(self.state.step, 1)
        return f"step {self.state.step}: loss {self.state.mean('loss'):.3g}{dice}, {speed:.2f} s per step"

    def _validate_if_due(self) -> None:
        """Validate at the end of an epoch, and where the training ends by time or within an epoch."""
        if self.at_epoch_end:
            self._end_epoch()
            self._check_end()
        else:
            self._check_end()
            if self.stopped:
                self._end_epoch()

    def _end_epoch(self) -> None:
        """Validate, log and draw."""
        state, settings = self.state, self.settings
        row: Row = {"step": state.step, "epoch": -(-state.step // settings.validate_every_batches)}
        row |= {MINUTES: state.seconds / 60, "learning_rate": self.learner.updater.rate} | state.end_epoch()
        self.learner.average_buffers()
        if self.validation:
            drawn = settings.pictures if self.processes.writes else 0
            scores, draw = self.objective.validate(
                self.learner.kept, self.validation, self.learner.precision, self.processes, drawn
            )
            row |= scores
            if draw is not None:
                draw(self.folder / "validation.png", f"step {state.step}")
        self._judge(row)
        self.log.add(row)
        if self.processes.writes and settings.pictures:
            draw_curves(self.log.rows, self.folder / "curves.png", self.objective.name, self.objective.scores)
        elapsed = torch.tensor([self.clock() - self.started], dtype=torch.float64, device=self.learner.device)
        self.processes.average([elapsed])  # so that the processes agree on learning rate and end
        state.seconds = float(elapsed)

    def _judge(self, row: Row) -> None:
        """Keep the best weights, and reduce the learning rate on a plateau."""
        settings = self.settings
        monitored = "val_loss" if self.validation else "loss"
        score = -row["val_dice"] if settings.monitor == "dice" else row[monitored]
        if self.validation and not math.isfinite(score):
            raise self._diverged(FloatingPointError(f"the validation {settings.monitor} is {score:g}"))
        if self.state.improves(score):
            if self.processes.writes:
                kept = {"kept": self.learner.kept.state_dict(), "step": self.state.step, "row": without_time(row)}
                save_checkpoint(self.folder / BEST, kept | {"trajectory": self.objective.trajectory()})
        elif settings.schedule == "plateau" and self.state.stale_rate >= settings.learning_rate_patience > 0:
            self.learner.updater.reductions += 1
            self.state.stale_rate = 0

    def _check_end(self) -> None:
        self.stopped = self.settings.end_reason(self.state.step, self.state.seconds, self.state.stale)

    def _save(self) -> None:
        """Write the last checkpoint."""
        if not self.processes.writes:
            return
        checkpoint = {
            "trajectory": self._trajectory(),
            **self.learner.to_dict(),
            "rows": self.log.rows,
            **self.state.to_dict(),
        }
        save_checkpoint(self.folder / LAST, checkpoint)

    def _trajectory(self) -> dict[str, Any]:
        """Everything that decides the weights, with the studies."""
        return self.objective.trajectory() | ({} if self.studies is None else {STUDIES: study_digests(self.studies)})

    def resume(self) -> bool:
        """Continue from the last checkpoint; ValueError where it belongs to another training.

        Returns:
            Whether it is sound; otherwise it is put aside, and this session may be half restored.
        """
        path = self.folder / LAST
        if not is_sound(self.folder, self.processes, self.objective.initial_weights):
            return False
        checkpoint = load_checkpoint(path)
        found, wanted = dict(checkpoint["trajectory"]), self.objective.trajectory()
        studies = found.pop(STUDIES, None)
        try:
            difference = self._difference_of_studies(studies)
        except ValueError:
            start_anew(self.folder, self.processes, self.objective.initial_weights)
            return False
        if difference:
            raise of_another_training(path, difference)
        check_same(of_this_version(found, wanted), wanted, path)
        try:
            self._restore(checkpoint)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError):
            start_anew(self.folder, self.processes, self.objective.initial_weights)
            return False
        if not math.isnan(self.state.best_score) and best_is_lost(
            self.folder, self.learner.network.state_dict(), self.processes
        ):
            self.state.best_step, self.state.best_score = self.state.step, math.nan
        return True

    def _difference_of_studies(self, found: Any) -> str:
        """First difference from the studies in the checkpoint; earlier versions did not store them, which is told."""
        if self.studies is None:
            return ""
        if found is not None:
            return difference_of_studies(found, self.studies)
        if self.processes.writes:
            warnings.warn(
                f"'{self.folder / LAST}' is of an earlier version, which did not store the studies of its splits: make "
                "sure that the split of every study is the same as before",
                stacklevel=3,
            )
        return ""

    def _restore(self, checkpoint: dict[str, Any]) -> None:
        self.learner.restore(checkpoint, f"'{self.folder / LAST}' is damaged")
        self.state = TrainingState.of(checkpoint)
        self.log = TrainingLog(self.folder, checkpoint["rows"], self.processes.writes)

    def _diverged(self, error: FloatingPointError) -> TrainingDiverged:
        kept = "there is no earlier checkpoint"
        if (self.folder / LAST).is_file():
            step = load_checkpoint(self.folder / LAST)["step"]
            kept = f"the last good checkpoint (step {step}) is kept in '{self.folder / LAST}'"
        remedies = ["lower the learning rate"]
        if not self.settings.gradient_clip:
            remedies.append("clip the gradients ('gradient_clip')")
        if self.learner.precision.dtype != "float32":
            remedies.append("use float32 ('precision')")
        return TrainingDiverged(
            f"the training diverged at step {self.state.step + 1} ({error}): {kept}; {' or '.join(remedies)}"
        )

    def result(self) -> TrainingResult:
        """Load the best weights into the network, and tell how the training went."""
        if self.processes.writes and (self.folder / BEST).is_file():
            self.learner.network.load_state_dict(load_checkpoint(self.folder / BEST)["kept"])
        elif self.learner.average is not None:
            self.learner.network.load_state_dict(self.learner.average.network.state_dict())
        self.learner.network.eval()
        state = self.state
        score = -state.best_score if self.settings.monitor == "dice" else state.best_score
        return TrainingResult(
            self.learner.network, self.log.rows, state.best_step, score, state.step, state.seconds, self.stopped
        )
