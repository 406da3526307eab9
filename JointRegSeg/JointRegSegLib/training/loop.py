"""Training of the joint network: steps, validation, checkpoints, and when to end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from NeuroCESTLib.core.processes import Processes
from NeuroCESTLib.core.progress import Progress

from ..cohort.sample import Pair
from ..network.joint import JointNetwork
from ..network.precision import Precision
from ..network.weights import load_weights
from ..pictures.cases import draw_cases
from ..tasks.joint import JOINT
from .batches import Batch, BatchStream, PairSource, collate
from .checkpoints import BEST, LAST, check_same, load_checkpoint, save_checkpoint
from .config import TrainingConfig
from .curves import draw_curves
from .log import Row, TrainingLog
from .optimizer import Averaged, Optimisation, choose_precision, for_gradients
from .step import batch_loss
from .validation import validate


class TrainingDiverged(ValueError):  # noqa: N818  a sentence for the user, who can act on it
    """The loss or a gradient became NaN or infinite; the last good checkpoint is kept."""


@dataclass(frozen=True)
class TrainingResult:
    """The network with the best weights, the log's rows, where the best was, and why the training ended."""

    network: JointNetwork
    rows: list[Row]
    best_step: int
    best_score: float
    steps: int
    seconds: float
    stopped: str


def train(
    config: TrainingConfig,
    network: JointNetwork,
    source: PairSource,
    validation: Sequence[Pair],
    folder: str | Path,
    *,
    augmentation: Callable[[Pair, torch.Generator], Pair] | None = None,
    resume: bool = False,
    processes: Processes | None = None,
    progress: Progress | None = None,
) -> TrainingResult:
    """Train ``network`` in place; at the end it holds the best weights, averaged ones with ``ema_decay``.

    Everything random depends on the seed and the number of the step, so that a resumed training follows the same
    trajectory, and so do several processes with the same ``batch_size``.

    Args:
        validation: fixed pairs, not augmented.
        folder: for checkpoints, log and pictures.
        resume: continue from the last checkpoint in ``folder``.
        progress: may raise to interrupt: a checkpoint is written first.

    Raises:
        TrainingDiverged: with the last good checkpoint kept.
        ValueError: no checkpoint to resume from, or one of another training.
    """
    if config.training.threads:
        torch.set_num_threads(config.training.threads)
    run = _Run(config, network, validation, Path(folder), processes or Processes(), progress)
    if resume:
        run.resume()
    try:
        run.run(source, augmentation)
    finally:
        run.log.close()
    return run.result()


def new_network(config: TrainingConfig) -> JointNetwork:
    """The network of a configuration: weights from the seed, or from ``initial_weights`` (weights or checkpoint)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.seed)
        network = JointNetwork(config.network)
    if config.initial_weights is None:
        return network
    state = None
    with suppress(ValueError):
        state = load_checkpoint(config.initial_weights)["kept"]
    if state is None:
        state = load_weights(config.initial_weights).network.state_dict()
    try:
        network.load_state_dict(state)
    except RuntimeError:
        raise ValueError(
            f"the initial weights '{config.initial_weights}' belong to another network than '{config.network.name}'"
        ) from None
    return network


class _Run:
    def __init__(
        self,
        config: TrainingConfig,
        network: JointNetwork,
        validation: Sequence[Pair],
        folder: Path,
        processes: Processes,
        progress: Progress | None,
    ) -> None:
        self.config, self.settings, self.processes = config, config.training, processes
        self.device = processes.device(self.settings.device)
        self.network = network.to(self.device)
        self.precision = _common(choose_precision(self.settings, self.device, self.network), processes, self.device)
        self.precision.arrange_weights(self.network)
        self.optimisation = Optimisation(self.network, self.settings, self.precision)
        self.average = Averaged(self.network, self.settings.ema_decay) if self.settings.ema_decay else None
        self.stride = config.stride or config.network.stride
        self.multiple = config.network.multiple * self.stride
        self.validation = [collate([pair], self.multiple) for pair in validation]
        self.folder, self.progress = folder, progress
        self.log = TrainingLog(folder, writes=processes.writes)
        self.step, self.seconds, self.stopped = 0, 0.0, ""
        self.best_step, self.best_score, self.stale, self.stale_rate = 0, math.nan, 0, 0
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self.interruption: BaseException | None = None

    @property
    def kept(self) -> JointNetwork:
        """The network that is validated and kept."""
        return self.average.network if self.average is not None else self.network

    @property
    def epoch(self) -> int:
        return self.step // self.settings.validate_every_batches

    def run(self, source: PairSource, augmentation: Callable | None) -> None:
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
            multiple=self.multiple,
            workers=settings.workers,
            prefetch=settings.prefetch * passes,
            pin=self.device.type == "cuda",
        )
        with closing(stream.batches(self.step)) as batches:
            self._loop(batches, passes)

    def _loop(self, batches: Iterator[Batch], passes: int) -> None:
        settings = self.settings
        self.started = time.monotonic() - self.seconds
        saved = time.monotonic()
        latest = self.log.rows[-1]["step"] if self.log.rows else 0
        if self.step > latest and self.step % settings.validate_every_batches == 0:
            self._end_epoch()  # interrupted just before its validation
            self._save()
        self._find_end()
        while not self.stopped:
            try:
                self._train_step(batches, passes)
            except FloatingPointError as error:
                raise self._diverged(error) from None
            self._look_around()
            if self.step % settings.validate_every_batches == 0 and self.interruption is None:
                self._end_epoch()
                self._find_end()
            elif self.interruption is None:
                self._find_end()
                if self.stopped:  # by the time or in the midst of an epoch
                    self._end_epoch()
            due = time.monotonic() - saved > 60 * settings.checkpoint_minutes
            if due or self.stopped or self.interruption is not None or self.step % settings.validate_every_batches == 0:
                self._save()
                saved = time.monotonic()
            if self.interruption is not None:
                raise self.interruption

    def _train_step(self, batches: Iterator[Batch], passes: int) -> None:
        settings = self.settings
        torch.manual_seed(settings.seed * 1_000_003 + self.step)
        self.network.train()
        rate = settings.rate(self.step, settings.share_done(self.step, self.seconds), self.optimisation.reductions)
        registers = self.config.registers and self.step % self.config.registration_every == 0
        terms: dict[str, Tensor] = {}
        for _ in range(passes):
            batch = next(batches).to(self.device)
            depth = batch.fixed.shape[2] // self.stride
            precision = for_gradients(self.precision, depth, self.config.network, self.device)
            loss, parts = batch_loss(self.network, batch, self.config, registers, precision)
            self.optimisation.backward(loss / passes)
            share = torch.stack([batch.fixed_mask.float().mean(), batch.moving_mask.float().mean()]).mean()
            for name, value in {**parts, "brain_share": share}.items():
                terms[name] = terms.get(name, 0) + value.detach().double() / passes
        values = list(terms.values())
        self.processes.average(values)
        if not all(bool(torch.isfinite(value)) for value in values):
            raise FloatingPointError(f"the loss is {float(terms['loss']):g}")
        self.optimisation.step(rate, self.processes)
        if self.average is not None:
            self.average.update(self.network)
        self.step += 1
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value)
            self.counts[name] = self.counts.get(name, 0) + 1

    def _look_around(self) -> None:
        """Time, progress and interruption, the same in all processes."""
        self.seconds = time.monotonic() - self.started
        if self.progress is not None:
            try:
                self.progress(self.settings.share_done(self.step, self.seconds), self._message())
            except BaseException as error:  # whatever the caller interrupts with
                self.interruption = error
        if self.processes.count > 1:
            state = torch.tensor([self.seconds, float(self.interruption is not None)], device=self.device)
            self.processes.average([state])
            self.seconds = float(state[0])
            if state[1] > 0 and self.interruption is None:
                self.interruption = KeyboardInterrupt()

    def _message(self) -> str:
        loss = self.sums["loss"] / self.counts["loss"]
        latest = self.log.rows[-1] if self.log.rows else {}
        dice = f", Dice {latest['val_dice']:.3f}" if "val_dice" in latest else ""
        return f"step {self.step}: loss {loss:.3g}{dice}, {self.seconds / max(self.step, 1):.2f} s a step"

    def _end_epoch(self) -> None:
        row: Row = {"step": self.step, "epoch": -(-self.step // self.settings.validate_every_batches)}
        row |= {"minutes": self.seconds / 60, "learning_rate": self.optimisation.rate}
        row |= {name: total / self.counts[name] for name, total in self.sums.items()}
        self.sums, self.counts = {}, {}
        if self.validation:
            drawn = self.settings.pictures if self.processes.writes else 0
            found = validate(self.kept, self.validation, self.config, self.precision, self.processes, drawn)
            row |= found.row
            if found.cases:
                draw_cases(found.cases, self.folder / "validation.png", f"step {self.step}")
        self._judge(row)
        self.log.add(row)
        if self.processes.writes and self.settings.pictures:
            draw_curves(self.log.rows, self.folder / "curves.png", self.config.network.name)
        self.seconds = time.monotonic() - self.started

    def _judge(self, row: Row) -> None:
        """Keep the best weights; count the epochs without improvement."""
        wanted = "val_loss" if self.validation else "loss"
        score = -row["val_dice"] if self.settings.monitor == "dice" else row[wanted]
        if self.validation and not math.isfinite(score):
            raise self._diverged(FloatingPointError(f"the validation {self.settings.monitor} is {score:g}"))
        if math.isnan(self.best_score) or score < self.best_score:
            self.best_score, self.best_step, self.stale, self.stale_rate = score, self.step, 0, 0
            if self.processes.writes:
                kept = {"kept": self.kept.state_dict(), "step": self.step, "row": row}
                save_checkpoint(self.folder / BEST, kept)
            return
        self.stale += 1
        self.stale_rate += 1
        if self.settings.schedule == "plateau" and self.stale_rate >= self.settings.learning_rate_patience > 0:
            self.optimisation.reductions += 1
            self.stale_rate = 0

    def _find_end(self) -> None:
        settings = self.settings
        if settings.last_step and self.step >= settings.last_step:
            self.stopped = "all steps"
        elif settings.time_limit_minutes and self.seconds >= 60 * settings.time_limit_minutes:
            self.stopped = f"{settings.time_limit_minutes:g} minutes"
        elif settings.patience and self.stale >= settings.patience:
            self.stopped = f"no improvement for {settings.patience} epochs"

    def _save(self) -> None:
        if not self.processes.writes:
            return
        state = {
            "trajectory": self.config.trajectory(),
            "step": self.step,
            "seconds": self.seconds,
            "network": self.network.state_dict(),
            "kept": self.kept.state_dict(),
            "precision": self.precision.dtype,
            "optimisation": self.optimisation.state(),
            "averaged_updates": self.average.updates if self.average else 0,
            "best_step": self.best_step,
            "best_score": self.best_score,
            "stale": self.stale,
            "stale_rate": self.stale_rate,
            "rows": self.log.rows,
            "sums": self.sums,
            "counts": self.counts,
        }
        save_checkpoint(self.folder / LAST, state)

    def resume(self) -> None:
        """Continue from the last checkpoint; ValueError where it belongs to another training."""
        path = self.folder / LAST
        state = load_checkpoint(path)
        # Checkpoints of earlier versions have no task.
        check_same({"task": JOINT.name, **state["trajectory"]}, self.config.trajectory(), path)
        self.network.load_state_dict(state["network"])
        if self.settings.precision == "auto" and self.device.type == "cpu":  # whatever is faster now
            self.precision = Precision(state["precision"], self.precision.channels_last)
        self.optimisation.restore(state["optimisation"])
        if self.average is not None:
            self.average.network.load_state_dict(state["kept"])
            self.average.updates = state["averaged_updates"]
        for name in ("step", "seconds", "best_step", "best_score", "stale", "stale_rate", "sums", "counts"):
            setattr(self, name, state[name])
        self.log = TrainingLog(self.folder, state["rows"], writes=self.processes.writes)

    def _diverged(self, error: FloatingPointError) -> TrainingDiverged:
        kept = "there is no earlier checkpoint"
        if (self.folder / LAST).is_file():
            step = load_checkpoint(self.folder / LAST)["step"]
            kept = f"the last good checkpoint (step {step}) is kept in '{self.folder / LAST}'"
        return TrainingDiverged(
            f"the training diverged at step {self.step + 1} ({error}): {kept}; lower the learning rate, "
            "clip the gradients or use float32"
        )

    def result(self) -> TrainingResult:
        """Loads the best weights into the network."""
        if self.processes.writes and (self.folder / BEST).is_file():
            self.network.load_state_dict(load_checkpoint(self.folder / BEST)["kept"])
        elif self.average is not None:
            self.network.load_state_dict(self.average.network.state_dict())
        self.network.eval()
        score = -self.best_score if self.settings.monitor == "dice" else self.best_score
        return TrainingResult(self.network, self.log.rows, self.best_step, score, self.step, self.seconds, self.stopped)


def _common(precision: Precision, processes: Processes, device: torch.device) -> Precision:
    """The choice of rank 0 in all processes, which may have measured differently."""
    rounded = torch.tensor(float(precision.dtype == "bfloat16"), device=device)
    processes.share([rounded])
    if precision.dtype == "float16":
        return precision
    return Precision("bfloat16" if rounded else "float32", precision.channels_last)
