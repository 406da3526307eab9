"""Training of reconstruction networks: RMSprop, early stopping, checkpoints that resume to the same trajectory."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from NeuroCESTLib.core.progress import Progress
from NeuroCESTLib.core.tensor_files import load_tensors, save_tensors

from .architecture import Prediction, ReconstructionNetwork

Batch = tuple[Tensor, Tensor, Tensor | None]


CHANGEABLE = ("learning_rate", "schedule_rate", "final_rate", "epochs", "patience", "head_start")
"""Settings that may differ when a training goes on from a checkpoint: how fast and how long it learns, not what."""
_EXPLODED = 1000.0
"""An epoch whose loss is this many times that of predicting the mean has lost what was learned."""
_HOPELESS = 2.0
"""A training whose best loss is this many times that of predicting the mean has learned nothing."""
_LEAST_STEPS = 50
"""Steps after which this can be told; the first ones of RMSprop are large."""
_LEAST_BASELINE = 0.1
"""Least loss of predicting the mean that is believed: few held-out voxels may happen to be alike."""


class TrainingDiverged(ValueError):  # noqa: N818  a sentence for the user, who can act on it
    """The loss became NaN, infinite or huge; the network holds the last good state again, if there is one."""


class BatchSource(Protocol):
    """Where the training takes its data from; see :class:`dataset.SimulatedBatches` for one that is in memory."""

    def epoch(self, generator: torch.Generator) -> Iterable[Batch]:
        """Batches of one epoch: network input (voxel, measurement), normalised targets (voxel, output) and, or None,
        the logarithm of the RMS difference from the true signal (voxel,). All randomness comes from ``generator``."""

    def validation(self) -> Batch | None:
        """Held-out data in the same form, or None: then the training loss decides."""


@dataclass(frozen=True)
class Objective:
    """Another loss than the supervised one.

    loss: of a batch: what to minimise, and what to report. baseline: the reported loss of a network that has learned
    nothing. largest_gradient: norm to which the gradient of a step is cut, or None.
    """

    loss: Callable[[Batch], tuple[Tensor, Tensor]]
    baseline: float
    largest_gradient: float | None = None


@dataclass(frozen=True)
class TrainingSettings:
    """How to train; the defaults are those of the published chain.

    learning_rate, schedule_rate: of the network and of acquisition parameters; both decay by a cosine to ``final_rate``
    of themselves. patience: epochs without improvement after which training stops early (0: never). weights: of the
    outputs in the loss. learn_spread: also train the head of the uncertainties. head_start: epochs in which the network
    learns while acquisition parameters stay as they are: an untrained network would move them to where it does best.
    """

    epochs: int = 100
    batch_size: int = 256
    learning_rate: float = 1e-3
    schedule_rate: float = 1e-4
    final_rate: float = 0.01
    patience: int = 20
    seed: int = 0
    weights: tuple[float, ...] | None = None
    learn_spread: bool = True
    head_start: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "schedule_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"training: {name} is {getattr(self, name)!r} but must be positive")
        for name in ("patience", "head_start"):
            if getattr(self, name) < 0:
                raise ValueError(f"training: {name} must not be negative")


@dataclass
class TrainingResult:
    """Losses by epoch (mean squared error on the normalised targets), the best epoch, and why training ended."""

    loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    best_epoch: int = 0
    stopped: str = "all epochs"


def train_network(
    network: ReconstructionNetwork,
    batches: BatchSource,
    settings: TrainingSettings | None = None,
    progress: Progress | None = None,
    checkpoint: str | Path | None = None,
    *,
    objective: Objective | None = None,
    schedule_parameters: Sequence[nn.Parameter] = (),
    reduce: Callable[[list[Tensor]], None] | None = None,
    after_epoch: Callable[[int, TrainingResult], None] | None = None,
    writes_checkpoint: bool = True,
) -> TrainingResult:
    """Train ``network`` in place; at the end it holds the weights of the best epoch (by the held-out loss).

    checkpoint: file written, atomically, after every epoch; where it exists training resumes from it, to the same
    trajectory as without the interruption. Learning rates, epochs and patience may differ from those of the
    checkpoint, and a damaged one is left out with a warning. objective: instead of the supervised loss.
    schedule_parameters: trained too, at ``settings.schedule_rate``. reduce:
    averages tensors in place over the processes of a distributed run. after_epoch(epoch, result) for what is to be
    recorded. ``progress`` may raise to cancel: the checkpoint stays.

    Raises TrainingDiverged when the loss or a weight is not finite or the loss explodes, with the last good checkpoint
    kept and loaded, and when even the best epoch is far worse than predicting the mean; ValueError for a checkpoint of
    another training.
    """
    settings = settings or TrainingSettings()
    run = _Run(network, batches, settings, list(schedule_parameters), reduce, objective)
    path = Path(checkpoint) if checkpoint is not None else None
    if path is not None and path.exists():
        run.resume(path)
    report = progress or (lambda fraction, message: None)
    while run.epoch < settings.epochs and not run.finished:
        good, epoch = run.state() if path is None else None, run.epoch + 1
        try:
            run.train_epoch()
        except FloatingPointError as error:
            raise _diverged(run, epoch, path, good, error) from None
        if after_epoch is not None:  # before the checkpoint: a killed run then lacks no record, it repeats one
            after_epoch(run.epoch, run.result)
        if path is not None and writes_checkpoint:
            save_tensors(run.state(), path)
        report(run.epoch / settings.epochs, run.message())
    run.load_best()
    if run.is_hopeless:
        if path is not None and writes_checkpoint:
            path.unlink(missing_ok=True)  # there is nothing in it to go on from
        raise TrainingDiverged(
            f"the training diverged: the loss of its best epoch ({run.result.best_epoch}) is "
            f"{run.best_loss:.3g}, that of predicting the mean {run.baseline:.3g}; "
            "lower the learning rate, or train for longer"
        )
    return run.result


def training_loss(
    prediction: Prediction, targets: Tensor, log_rmse: Tensor | None, weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    """(loss to minimise, mean squared error of the targets).

    The uncertainties are learned by the Gaussian likelihood of the errors, which are constants to it.
    """
    error = prediction.mean - targets
    squared = error.square() if weights is None else error.square() * weights
    mse = squared.mean()
    variance = torch.exp(2 * prediction.log_sd)
    spread = (prediction.log_sd + 0.5 * error.detach().square() / variance).mean()
    if log_rmse is not None:
        spread = spread + (prediction.log_rmse - log_rmse).square().mean()
    return mse + spread, mse


class _Run:
    def __init__(
        self,
        network: ReconstructionNetwork,
        batches: BatchSource,
        settings: TrainingSettings,
        schedule: list[nn.Parameter],
        reduce: Callable[[list[Tensor]], None] | None,
        objective: Objective | None,
    ) -> None:
        self.network, self.batches, self.settings, self.reduce = network, batches, settings, reduce
        self.objective = objective
        self.weights = None if settings.weights is None else torch.tensor(settings.weights)
        self.schedule = schedule
        groups = [{"params": list(network.parameters()), "lr": settings.learning_rate}]
        if schedule:
            groups.append({"params": schedule, "lr": settings.schedule_rate})
        self.rates = [group["lr"] for group in groups]
        self.optimizer = torch.optim.RMSprop(groups, foreach=True)
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.result = TrainingResult()
        self.epoch, self.steps = 0, 0
        self.best: dict[str, Tensor] = {}
        self.baseline = self._baseline()

    @property
    def best_loss(self) -> float:
        """The lowest loss so far, on the held-out data where there are some."""
        return min(self.result.validation_loss or self.result.loss)

    @property
    def is_hopeless(self) -> bool:
        """Whether all epochs of a training that is not very short did worse than a network that has learned nothing."""
        return self.steps >= _LEAST_STEPS and self.best_loss > _HOPELESS * self.baseline

    @property
    def finished(self) -> bool:
        patience = self.settings.patience
        return bool(patience) and self.epoch - self.result.best_epoch >= patience and self.epoch > 0

    def message(self) -> str:
        held_out = "".join(f", held out {loss:.3g}" for loss in self.result.validation_loss[-1:])
        return f"epoch {self.epoch}: loss {self.result.loss[-1]:.3g}{held_out}"

    def train_epoch(self) -> None:
        share = self.epoch / self.settings.epochs
        factor = self.settings.final_rate + (1 - self.settings.final_rate) * 0.5 * (1 + math.cos(math.pi * share))
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        torch.manual_seed(self.settings.seed * 1_000_003 + self.epoch)  # dropout
        for parameter in self.schedule:
            parameter.requires_grad_(self.epoch >= self.settings.head_start)
        self.network.train()
        total, count = torch.zeros((), dtype=torch.float64), 0
        for batch in self.batches.epoch(self.generator):
            total += self._step(batch)
            count += 1
            if count % 64 == 0:
                _require_finite(total)
        if count == 0:
            raise ValueError("the training data hold no batch")
        loss = total / count
        if self.reduce is not None:
            self.reduce([loss])
        _require_finite(loss)
        if not all(bool(torch.isfinite(value).all()) for value in self._weights().values()):
            raise FloatingPointError("weights are not finite")
        self.epoch += 1
        self.steps = count * self.epoch
        self.result.loss.append(float(loss))
        self._judge()

    def _step(self, batch: Batch) -> Tensor:
        signal, targets, log_rmse = batch
        loss, mse = self.objective.loss(batch) if self.objective else self._loss(signal, targets, log_rmse)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.reduce is not None:
            self.reduce([p.grad for p in (*self.network.parameters(), *self.schedule) if p.grad is not None])
        if self.objective and self.objective.largest_gradient:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.objective.largest_gradient)
        self.optimizer.step()
        return mse.detach()

    def _loss(self, signal: Tensor, targets: Tensor, log_rmse: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.settings.learn_spread:
            return training_loss(self.network.predict(signal), targets, log_rmse, self.weights)
        squared = (self.network(signal) - targets).square()
        mse = (squared if self.weights is None else squared * self.weights).mean()
        return mse, mse

    @torch.no_grad()
    def _judge(self) -> None:
        """Remember the weights where the held-out loss (or else the training loss) is the lowest so far."""
        held_out = self.batches.validation()
        losses = self.result.loss
        if held_out is not None:
            self.network.eval()
            loss = self._loss(*held_out)[1].double()
            if self.reduce is not None:
                self.reduce([loss])
            _require_finite(loss)
            self.result.validation_loss.append(float(loss))
            losses = self.result.validation_loss
        if losses[-1] > _EXPLODED * self.baseline:
            raise FloatingPointError(f"the loss is {losses[-1]:.3g}, that of predicting the mean {self.baseline:.3g}")
        if losses[-1] <= min(losses):
            self.result.best_epoch = self.epoch
            self.best = self._weights()
        if self.finished:
            self.result.stopped = f"no improvement for {self.settings.patience} epochs"

    def _baseline(self) -> float:
        """Loss of a network that has learned nothing but the mean."""
        if self.objective is not None:
            return self.objective.baseline
        weight = 1.0 if self.weights is None else float(self.weights.mean())
        held_out = self.batches.validation()
        if held_out is None:
            return weight  # targets run from -1 to 1
        targets = held_out[1].detach()
        squared = (targets - targets.mean(0)).square()
        mean = float((squared if self.weights is None else squared * self.weights).mean())
        return max(mean, _LEAST_BASELINE * weight)

    def _weights(self) -> dict[str, Tensor]:
        weights = {f"network.{k}": v.detach().clone() for k, v in self.network.state_dict().items()}
        return weights | {f"schedule.{i}": p.detach().clone() for i, p in enumerate(self.schedule)}

    @torch.no_grad()
    def _load_weights(self, weights: dict[str, Tensor]) -> None:
        own = {k.removeprefix("network."): v for k, v in weights.items() if k.startswith("network.")}
        self.network.load_state_dict(own)
        for i, parameter in enumerate(self.schedule):
            parameter.copy_(weights[f"schedule.{i}"])

    def load_best(self) -> None:
        if self.best:
            self._load_weights(self.best)
        for parameter in self.schedule:
            parameter.requires_grad_(True)
        self.network.eval()

    def state(self) -> dict:
        """All that the next epoch depends on."""
        return {
            "kind": "neurocest training checkpoint",
            "settings": _plain(self.settings),
            "options": self.network.options,
            "epoch": self.epoch,
            "weights": self._weights(),
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "result": asdict(self.result),
        }

    def resume(self, path: Path) -> None:
        """Continue from a checkpoint; ValueError where it belongs to another training, a warning if it is damaged."""
        try:
            state = load_tensors(path, "training checkpoint")
            kind, settings, options = (state.get(key) for key in ("kind", "settings", "options"))
            if kind != "neurocest training checkpoint":
                raise ValueError("foreign file")
        except ValueError:
            warnings.warn(f"{path}: the checkpoint is damaged, so the training starts anew", stacklevel=3)
            path.unlink(missing_ok=True)
            return
        if _lasting(settings) != _lasting(_plain(self.settings)) or options != self.network.options:
            raise ValueError(f"{path}: the checkpoint belongs to another training; remove it to start anew")
        self._restore(state)

    def _restore(self, state: dict) -> None:
        self._load_weights(state["weights"])
        if state["optimizer"]["state"]:
            self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.result, self.epoch, self.best = TrainingResult(**state["result"]), state["epoch"], state["best"]


def _diverged(
    run: _Run, epoch: int, path: Path | None, good: dict | None, error: FloatingPointError
) -> TrainingDiverged:
    """Go back to the state before the epoch that diverged, and say so."""
    kept = "there is no earlier state to go back to; lower the learning rate"
    if good is None and path is not None and path.exists():
        good = load_tensors(path, "training checkpoint")
        kept = (
            f"the last good checkpoint (epoch {good['epoch']}) is kept in '{path}'; "
            "repeat with a lower learning rate to go on from there"
        )
    elif good is not None and good["epoch"]:
        kept = f"the network is again that of epoch {good['epoch']}; lower the learning rate"
    if good is not None:
        run._restore(good)
        run.load_best()
    return TrainingDiverged(f"the training diverged in epoch {epoch} ({error}): {kept}")


def lasting(settings: TrainingSettings) -> dict:
    """The settings that a checkpoint is bound to, as plain values."""
    return _lasting(_plain(settings))


def _lasting(settings: dict | None) -> dict:
    return {name: value for name, value in (settings or {}).items() if name not in CHANGEABLE}


def _require_finite(value: Tensor) -> None:
    if not bool(torch.isfinite(value)):
        raise FloatingPointError(f"the loss is {float(value):g}")


def _plain(settings: TrainingSettings) -> dict:
    values = asdict(settings)
    values["weights"] = list(settings.weights) if settings.weights is not None else None
    return values
