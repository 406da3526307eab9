"""Training of reconstruction networks: RMSprop, early stopping, checkpoints that resume to the same trajectory."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from NeuroCESTLib.core.checkpoints import Checkpoint
from NeuroCESTLib.core.processes import Processes
from NeuroCESTLib.core.progress import Progress, silent
from NeuroCESTLib.core.stored_values import Numbers, check_optimizer, check_weights
from NeuroCESTLib.core.threads import torch_threads

from .architecture import ReconstructionNetwork
from .objective import Batch, BatchSource, Objective, supervised_objective
from .settings import CHANGEABLE, TrainingSettings

_KIND = "neurocest training checkpoint"
_FORM = {
    "settings": {},
    "options": {},
    "epoch": int,
    "weights": {},
    "best": {},
    "optimizer": {"state": {}, "param_groups": [{}]},
    "generator": Numbers("i", 1),
    "result": {"loss": [float], "validation_loss": [float], "best_epoch": int, "stopped": str},
}
"""Form of a checkpoint, see ``stored_values``."""
_EXPLODED = 1000.0
"""A loss of this many times that of predicting the mean shows that the network has lost what it had learned."""
_HOPELESS = 2.0
"""A training whose best loss is this many times that of predicting the mean has learned nothing."""
_LEAST_STEPS = 50
"""Steps after which a training can be called hopeless; the first steps of RMSprop are large."""
_STEPS_PER_CHECK = 64
"""Steps between checks of the loss, each of which waits for the device."""


class TrainingDiverged(ValueError):  # noqa: N818  a sentence for the user, who can act on it
    """The loss became NaN, infinite or huge; the network is in its last good state again, if there is one."""


@dataclass
class TrainingResult:
    """Course of a training.

    Attributes:
        loss: Reported loss of every epoch; in supervised training the mean squared error of the normalised targets.
        validation_loss: The same of the held-out samples; empty where there are none.
        best_epoch: Number of the best epoch, from 1.
        stopped: Why the training ended.
        times_s: Wall times in s of the steps around and with the training.
    """

    loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    best_epoch: int = 0
    stopped: str = "all epochs"
    times_s: dict[str, float] = field(default_factory=dict)

    @property
    def judged(self) -> list[float]:
        """Losses that decide on the best epoch: those of the held-out samples where there are some."""
        return self.validation_loss or self.loss


def train_network(
    network: ReconstructionNetwork,
    batches: BatchSource,
    settings: TrainingSettings | None = None,
    progress: Progress = silent,
    checkpoint: str | Path | None = None,
    *,
    objective: Objective | None = None,
    schedule_parameters: Sequence[nn.Parameter] = (),
    processes: Processes | None = None,
    after_epoch: Callable[[int, TrainingResult], None] | None = None,
) -> TrainingResult:
    """Train a network in place; at the end it has the weights of its best epoch.

    Args:
        network: Network to train.
        batches: Samples to train on.
        settings: How to train.
        progress: Called after every epoch; it may raise to cancel, and the checkpoint stays.
        checkpoint: File that is written after every epoch. Where it exists, the training continues from it, to the same
            result as without the interruption. Learning rates, epochs and patience may differ from those of the
            checkpoint. A damaged checkpoint is put aside with a warning.
        objective: What to minimise; by default the supervised loss.
        schedule_parameters: Acquisition parameters that are trained too, at ``settings.schedule_rate``.
        processes: This process among those that train together; by default it is the only one.
        after_epoch: Called with the epoch, from 1, and the result so far.

    Raises:
        TrainingDiverged: The loss or a weight is not finite, or the loss exploded; the last good checkpoint is kept and
            loaded. Or even the best epoch is far worse than predicting the mean.
        ValueError: The checkpoint belongs to another training.
    """
    settings, processes = settings or TrainingSettings(), processes or Processes()
    objective = objective or supervised_objective(network, settings, batches.validation())
    file = Checkpoint(None if checkpoint is None else Path(checkpoint), _KIND, "training", processes.writes, _FORM)
    run = _Run(network, batches, settings, objective, list(schedule_parameters), processes)
    run.resume(file)
    while not run.is_over:
        with _return_to_last_good_state(run, file):
            run.train_epoch()
        if after_epoch is not None:  # before the checkpoint, so that a killed run repeats a record but never lacks one
            after_epoch(run.epoch, run.result)
        file.save(run.state())
        progress(run.epoch / settings.epochs, run.message())
    run.load_best()
    if run.is_hopeless:
        file.remove()  # there is nothing in it to go on from
        raise TrainingDiverged(
            f"the training diverged: the loss of its best epoch ({run.result.best_epoch}) is "
            f"{min(run.result.judged):.3g}, that of predicting the mean {objective.baseline:.3g}; "
            "lower the learning rate, or train for longer"
        )
    return run.result


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: steps on a few hundred samples are too small for several, which wait for each other."""
    with torch_threads(1):
        yield


@contextlib.contextmanager
def _return_to_last_good_state(run: _Run, file: Checkpoint) -> Iterator[None]:
    """Where an epoch diverges, restore the state before it, from the checkpoint or from memory, and say so."""
    before = copy.deepcopy(run.state()) if file.path is None else None  # an optimiser writes into its state
    epoch = run.epoch + 1
    try:
        yield
    except FloatingPointError as error:
        advice = "there is no earlier state to go back to; lower the learning rate"
        good = before if file.path is None else file.load()
        if good is not None:
            run.restore(good)
            run.load_best()
            if file.path is not None:
                advice = (
                    f"the last good checkpoint (epoch {run.epoch}) is kept in '{file.path}'; "
                    "repeat with a lower learning rate to go on from there"
                )
            elif run.epoch:
                advice = f"the network is again that of epoch {run.epoch}; lower the learning rate"
        raise TrainingDiverged(f"the training diverged in epoch {epoch} ({error}): {advice}") from None


class _Run:
    """State of a training: everything that the next epoch depends on."""

    def __init__(
        self,
        network: ReconstructionNetwork,
        batches: BatchSource,
        settings: TrainingSettings,
        objective: Objective,
        schedule: list[nn.Parameter],
        processes: Processes,
    ) -> None:
        self.network, self.batches, self.settings, self.objective = network, batches, settings, objective
        self.schedule, self.processes = schedule, processes
        groups: list[dict[str, Any]] = [{"params": list(network.parameters()), "lr": settings.learning_rate}]
        if schedule:
            groups.append({"params": schedule, "lr": settings.schedule_rate})
        self.rates: list[float] = [group["lr"] for group in groups]
        self.optimizer = torch.optim.RMSprop(groups, foreach=True)
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.result = TrainingResult()
        self.epoch, self.steps = 0, 0
        self.best: dict[str, Tensor] = {}

    @property
    def is_hopeless(self) -> bool:
        """Whether all epochs of a training that is not very short did worse than a network that has learned nothing."""
        return self.steps >= _LEAST_STEPS and min(self.result.judged) > _HOPELESS * self.objective.baseline

    @property
    def is_over(self) -> bool:
        """Whether the last epoch is done, or there was no improvement for too long."""
        return self.epoch >= self.settings.epochs or self._is_out_of_patience

    @property
    def _is_out_of_patience(self) -> bool:
        patience = self.settings.patience
        head_start = self.settings.head_start if self.schedule else 0
        return bool(patience) and self.epoch - max(self.result.best_epoch, head_start) >= patience

    def message(self) -> str:
        """Return what to show of the last epoch."""
        held_out = "".join(f", held out {loss:.3g}" for loss in self.result.validation_loss[-1:])
        return f"epoch {self.epoch}: loss {self.result.loss[-1]:.3g}{held_out}"

    def train_epoch(self) -> None:
        """Train for one epoch and judge it.

        Raises:
            FloatingPointError: The loss or a weight is not finite, or the loss exploded.
        """
        self._set_rates()
        torch.manual_seed(self.settings.seed * 1_000_003 + self.epoch)  # of dropout
        for parameter in self.schedule:
            parameter.requires_grad_(self.epoch >= self.settings.head_start)
        self.network.train()
        total, count = torch.zeros((), dtype=torch.float64), 0
        for batch in self.batches.epoch(self.generator):
            total += self._step(batch)
            count += 1
            if count % _STEPS_PER_CHECK == 0:
                _require_finite(total)
        if count == 0:
            raise ValueError("the training data hold no batch")
        loss = total / count
        self.processes.average([loss])
        _require_finite(loss)
        if not all(bool(torch.isfinite(value).all()) for value in self._weights().values()):
            raise FloatingPointError("weights are not finite")
        self.epoch += 1
        self.steps = count * self.epoch
        self.result.loss.append(float(loss))
        self._judge()

    def _set_rates(self) -> None:
        """Let the learning rates decay along a cosine."""
        share = self.epoch / self.settings.epochs
        factor = self.settings.final_rate + (1 - self.settings.final_rate) * 0.5 * (1 + math.cos(math.pi * share))
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor

    def _step(self, batch: Batch) -> Tensor:
        losses = self.objective.loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        losses.minimized.backward()
        if self.processes.count > 1:
            trained = (*self.network.parameters(), *self.schedule)
            self.processes.average([p.grad for p in trained if p.grad is not None])
        if self.objective.largest_gradient:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.objective.largest_gradient)
        self.optimizer.step()
        return losses.reported.detach()

    @torch.no_grad()
    def _judge(self) -> None:
        """Keep the weights if the deciding loss is the lowest so far."""
        held_out = self.batches.validation()
        if held_out is not None:
            self.network.eval()
            loss = self.objective.loss(held_out).reported.double()
            self.processes.average([loss])
            _require_finite(loss)
            self.result.validation_loss.append(float(loss))
        losses, baseline = self.result.judged, self.objective.baseline
        if losses[-1] > _EXPLODED * baseline:
            raise FloatingPointError(f"the loss is {losses[-1]:.3g}, that of predicting the mean {baseline:.3g}")
        if losses[-1] <= min(losses):
            self.result.best_epoch = self.epoch
            self.best = self._weights()
        if self._is_out_of_patience:
            self.result.stopped = f"no improvement for {self.settings.patience} epochs"

    def _weights(self) -> dict[str, Tensor]:
        weights = {f"network.{name}": value.detach().clone() for name, value in self.network.state_dict().items()}
        return weights | {f"schedule.{i}": p.detach().clone() for i, p in enumerate(self.schedule)}

    @torch.no_grad()
    def _load_weights(self, weights: dict[str, Tensor]) -> None:
        check_weights(weights, self._weights(), "checkpoint")
        of_network = {
            name.removeprefix("network."): value for name, value in weights.items() if name.startswith("network.")
        }
        self.network.load_state_dict(of_network)
        for i, parameter in enumerate(self.schedule):
            parameter.copy_(weights[f"schedule.{i}"])

    def load_best(self) -> None:
        """Put the weights of the best epoch into the network and the schedule."""
        if self.best:
            self._load_weights(self.best)
        for parameter in self.schedule:
            parameter.requires_grad_(True)
        self.network.eval()

    def state(self) -> dict[str, Any]:
        """Return everything that the next epoch depends on."""
        return {
            "settings": self.settings.plain(),
            "options": self.network.options,
            "epoch": self.epoch,
            "weights": self._weights(),
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "result": asdict(self.result),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a state."""
        if state["best"]:
            self._load_weights(state["best"])  # so that it is known to fit
        self._load_weights(state["weights"])
        check_optimizer(state["optimizer"], self.optimizer, "checkpoint")
        if state["optimizer"]["state"]:
            self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.result, self.epoch, self.best = TrainingResult(**state["result"]), state["epoch"], state["best"]

    def resume(self, file: Checkpoint) -> None:
        """Continue from a checkpoint, if there is one.

        Raises:
            ValueError: It belongs to another training.
        """
        state = file.load()
        if state is None:
            return
        settings = {name: value for name, value in state["settings"].items() if name not in CHANGEABLE}
        file.require_same_run(settings == self.settings.lasting() and state["options"] == self.network.options)
        before = self.state()
        if not file.restore(state, self.restore):
            self.restore(before)
            self.optimizer.load_state_dict(before["optimizer"])


def _require_finite(loss: Tensor) -> None:
    if not bool(torch.isfinite(loss)):
        raise FloatingPointError(f"the loss is {float(loss):g}")
