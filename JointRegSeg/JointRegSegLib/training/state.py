"""Where a training is (step, time, best validation, sums of the present epoch), and how it ended."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from torch import nn

from NeuroCESTLib.core.stored_values import check_stored

from .log import Row


@dataclass
class TrainingState:
    """Numbers that a checkpoint stores besides the weights.

    Attributes:
        step: Steps so far.
        seconds: Time so far in s, over all sessions.
        best_step: Step of the best validation.
        best_score: Its score, the lower the better; NaN before the first validation.
        stale: Epochs since the best validation.
        stale_rate: Epochs since the best validation or the latest reduction of the learning rate.
        sums: Sums of the losses over the steps of this epoch, by name.
        counts: Number of steps in each sum.
    """

    step: int = 0
    seconds: float = 0.0
    best_step: int = 0
    best_score: float = math.nan
    stale: int = 0
    stale_rate: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, checkpoint: Mapping[str, Any]) -> TrainingState:
        """Take the numbers from a checkpoint.

        Raises:
            ValueError: A number cannot be that of a training.
        """
        state = cls(**{entry.name: checkpoint[entry.name] for entry in fields(cls)})
        whole = (state.step, state.best_step, state.stale, state.stale_rate, *state.counts.values())
        check_stored(list(whole), [int], "checkpoint")
        check_stored(list(state.sums.values()), [float], "checkpoint")
        if min(whole) < 0 or not state.seconds >= 0 or state.sums.keys() != state.counts.keys():
            raise ValueError("checkpoint: the state of the training is damaged")
        return state

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        return asdict(self)

    def add(self, losses: Mapping[str, float]) -> None:
        """Count a step with its losses."""
        self.step += 1
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def mean(self, name: str) -> float:
        """Return the mean of a loss over the steps of this epoch."""
        return self.sums[name] / self.counts[name]

    def end_epoch(self) -> Row:
        """Return the means of all losses over the steps of this epoch, and begin the next one."""
        row = {name: self.mean(name) for name in self.sums}
        self.sums, self.counts = {}, {}
        return row

    def improves(self, score: float) -> bool:
        """Record the score of a validation, and tell whether it is the best so far."""
        if math.isnan(self.best_score) or score < self.best_score:
            self.best_score, self.best_step, self.stale, self.stale_rate = score, self.step, 0, 0
            return True
        self.stale += 1
        self.stale_rate += 1
        return False


class TrainingDiverged(ValueError):  # noqa: N818  a sentence for the user, who can act on it
    """The loss or a gradient became NaN or infinite; the last good checkpoint is kept."""


@dataclass(frozen=True)
class TrainingResult:
    """Result of a training.

    Attributes:
        network: Network with the best weights.
        rows: Rows of the log, one per epoch.
        best_step: Step of the best validation.
        best_score: Its monitored value: the loss, or the mean Dice.
        steps: Number of steps.
        seconds: Time in s over all sessions.
        stopped: Why the training ended.
    """

    network: nn.Module
    rows: list[Row]
    best_step: int
    best_score: float
    steps: int
    seconds: float
    stopped: str
