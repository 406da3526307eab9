"""Settings of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from NeuroCESTLib.core.checked_json import number, shortened, whole_number

CHANGEABLE = ("learning_rate", "schedule_rate", "final_rate", "epochs", "patience", "head_start")
"""Settings that may differ when a training continues from a checkpoint: how fast and how long it learns, not what."""
LARGEST_SEED = 10**12
"""Largest seed: the random numbers of every epoch and block have seeds about a million times as large, in 64 bits."""
NUISANCE_WEIGHT = 0.1
"""Weight in the loss of outputs that are no targets; the reliability map needs them."""


@dataclass(frozen=True)
class TrainingSettings:
    """How to train a network, and with it the acquisition parameters of a schedule if there are any.

    The defaults are those of the published chain (AutoCEST; Perlman et al., MRM 2022;87:2792).

    Attributes:
        epochs: Largest number of epochs.
        batch_size: Samples per step.
        learning_rate: Initial rate of RMSprop for the weights of the network.
        schedule_rate: Initial rate for acquisition parameters.
        final_rate: Share of the initial rates that is left at the end; they decay along a cosine.
        patience: Epochs without improvement after which the training stops early, of which those of the head start of a
            trained schedule do not count; 0 trains to the end.
        seed: Seed of the order of the samples, of their noise and of dropout.
        weights: Weight of every output in the loss; None weighs them equally.
        learn_spread: Whether the head of the uncertainties is trained too.
        head_start: Epochs in which only the network learns. An untrained network would move the acquisition parameters
            to where it happens to do best.

    Raises:
        ValueError: A number is out of its range.
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
        if abs(self.seed) > LARGEST_SEED:
            raise ValueError(f"seed is {shortened(self.seed)} but must lie between -{LARGEST_SEED} and {LARGEST_SEED}")
        for name in ("epochs", "batch_size", "learning_rate", "schedule_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"training: {name} is {getattr(self, name)!r} but must be positive")
        for name in ("patience", "head_start"):
            if getattr(self, name) < 0:
                raise ValueError(f"training: {name} must not be negative")

    @classmethod
    def from_config(cls, values: Mapping[str, Any]) -> TrainingSettings:
        """Take the settings from the keys of a configuration; those without a key have their defaults.

        Raises:
            ValueError: A number is unusable; the message names the key.
        """
        return cls(
            epochs=whole_number(values.get("epochs", cls.epochs), "epochs", 1),
            batch_size=whole_number(values.get("batch_size", cls.batch_size), "batch_size", 1),
            learning_rate=number(values.get("learning_rate", cls.learning_rate), "learning_rate"),
            schedule_rate=number(values.get("schedule_learning_rate", cls.schedule_rate), "schedule_learning_rate"),
            patience=whole_number(values.get("patience", cls.patience), "patience", 0),
            seed=whole_number(values.get("seed", cls.seed), "seed"),
        )

    def plain(self) -> dict[str, Any]:
        """Return all settings as plain values by name."""
        return asdict(self) | {"weights": None if self.weights is None else list(self.weights)}

    def lasting(self) -> dict[str, Any]:
        """Return the settings that a checkpoint is bound to, as plain values by name."""
        return {name: value for name, value in self.plain().items() if name not in CHANGEABLE}


def output_weights(outputs: Sequence[str], targets: Sequence[str]) -> tuple[float, ...]:
    """Return the weight of every output in the loss: 1 for targets, ``NUISANCE_WEIGHT`` for the others."""
    return tuple(1.0 if path in targets else NUISANCE_WEIGHT for path in outputs)
