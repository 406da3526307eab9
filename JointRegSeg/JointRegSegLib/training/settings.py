"""How a network is trained: optimiser, learning rate, length, precision, seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, TypeGuard

_CHOICES = {
    "optimiser": ("adam", "adamw", "sgd"),
    "schedule": ("plateau", "cosine", "one_cycle", "constant"),
    "precision": ("auto", "float32", "bfloat16", "float16"),
    "monitor": ("loss", "dice"),
    "device": ("auto", "cpu", "cuda"),
}
_POSITIVE = ("learning_rate", "batch_size", "accumulation", "validate_every_batches", "checkpoint_minutes")
_AT_MOST_ONE = ("encoder_rate", "learning_rate_factor", "final_rate", "ema_decay", "momentum", "brain_share")
_WHOLE = (
    "batch_size",
    "accumulation",
    "epochs",
    "steps",
    "validate_every_batches",
    "learning_rate_patience",
    "patience",
    "warmup_steps",
    "seed",
    "workers",
    "threads",
    "pictures",
    "prefetch",
)
LARGEST_SEED = 10**12
"""Largest seed: the random numbers of every step have seeds about a million times as large, in 64 bits."""
_RISE = 0.3
"""Part of the training in which the schedule 'one_cycle' raises the learning rate."""
_FIRST_RATE = 0.04
"""Learning rate at the start of the schedule 'one_cycle', relative to the highest one."""


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of the training loop; the defaults are those of Estienne et al. 2020.

    A *step* is one update of the weights. An *epoch* is ``validate_every_batches`` steps and ends with a validation.

    Attributes:
        optimiser: ``adam``, ``adamw`` or ``sgd``, as in torch.
        learning_rate: Highest learning rate.
        encoder_rate: Learning rate of the encoder relative to that of the heads, at most 1; 0 keeps its weights.
        weight_decay: Weight decay, as in torch.
        momentum: Momentum of ``sgd``.
        schedule: Course of the learning rate. ``plateau`` multiplies it by ``learning_rate_factor`` after
            ``learning_rate_patience`` epochs without improvement. ``cosine`` and ``one_cycle`` fall to the fraction
            ``final_rate`` of it at the end of the training; ``one_cycle`` rises in the first 30 %. All of them,
            ``constant`` too, rise linearly over ``warmup_steps``.
        learning_rate_factor: Factor of a reduction on a plateau.
        learning_rate_patience: Epochs without improvement before a reduction; 0 for no reduction.
        final_rate: Learning rate at the end relative to the highest one.
        warmup_steps: Steps of the linear rise.
        gradient_clip: Largest norm of all gradients; 0 for no limit.
        batch_size: Pairs per step, over all processes.
        accumulation: Forward passes that a step is divided into, to save memory.
        epochs: Length in epochs; of ``epochs``, ``steps`` and ``time_limit_minutes`` whichever is reached first ends
            the training, and 0 stands for no limit.
        steps: Length in steps.
        time_limit_minutes: Length in minutes over all sessions of a resumed training; a schedule that ends with it
            depends on the speed of the machine.
        validate_every_batches: Steps per epoch.
        patience: Epochs without improvement after which the training ends; 0 for never.
        monitor: What counts as improvement: a lower validation ``loss``, or a higher mean ``dice`` of the regions.
        ema_decay: Decay of an exponential moving average of the weights, which is validated and kept; 0 for none.
        precision: Number format of the convolutions; ``auto`` takes the fastest one of the device.
        channels_last: Memory order of the convolutions; None (null) lets the device decide.
        seed: Seed of weights, order, augmentation and dropout.
        workers: Processes that prepare pairs.
        prefetch: Steps that they prepare ahead.
        threads: Threads of torch in this process; 0 for its default.
        device: ``auto``, ``cpu`` or ``cuda``.
        checkpoint_minutes: Largest time between checkpoints, which a crash can lose.
        pictures: Validation cases that are drawn after each epoch, with the curves; 0 for no pictures.
        brain_share: Fraction of brain in the block on which a network with the normalisation 'instance' segments a
            study, which is written into its weights; 0 for the mean over the patches of the training. Other networks do
            not depend on it.
    """

    FREE_ON_RESUME: ClassVar[tuple[str, ...]] = (
        "epochs",
        "steps",
        "time_limit_minutes",
        "workers",
        "threads",
        "device",
        "checkpoint_minutes",
        "pictures",
        "prefetch",
        "accumulation",
        "brain_share",
    )
    """Settings that may change when a training is resumed."""

    optimiser: str = "adam"
    learning_rate: float = 2e-3
    encoder_rate: float = 1.0
    weight_decay: float = 0.0
    momentum: float = 0.9
    schedule: str = "plateau"
    learning_rate_factor: float = 0.2
    learning_rate_patience: int = 30
    final_rate: float = 0.01
    warmup_steps: int = 0
    gradient_clip: float = 0.0
    batch_size: int = 2
    accumulation: int = 1
    epochs: int = 200
    steps: int = 0
    time_limit_minutes: float = 0.0
    validate_every_batches: int = 100
    patience: int = 50
    monitor: str = "loss"
    ema_decay: float = 0.0
    precision: str = "auto"
    channels_last: bool | None = None
    seed: int = 0
    workers: int = 0
    prefetch: int = 2
    threads: int = 0
    device: str = "auto"
    checkpoint_minutes: float = 10.0
    pictures: int = 2
    brain_share: float = 0.0

    def __post_init__(self) -> None:
        self._check_types()
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)!r} but must be positive")
        if not (self.epochs or self.steps or self.time_limit_minutes):
            raise ValueError("the training has no end: give epochs, steps or time_limit_minutes")
        for name in _AT_MOST_ONE:
            if getattr(self, name) > 1:
                raise ValueError(f"{name} is {getattr(self, name)!r} but must lie between 0 and 1")
        if self.ema_decay == 1:
            raise ValueError("ema_decay is 1, which would keep the first weights for ever; use a value such as 0.999")
        if self.batch_size % self.accumulation:
            raise ValueError(f"batch_size {self.batch_size} is not divisible by accumulation {self.accumulation}")

    def _check_types(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r} but must be one of {', '.join(choices)}")
        for name in _WHOLE:
            if not _is_amount(getattr(self, name)) or not isinstance(getattr(self, name), int):
                raise ValueError(f"{name} is {getattr(self, name)!r} but must be a whole number of at least 0")
        for name, value in vars(self).items():
            if name not in _CHOICES and name != "channels_last" and not _is_amount(value):
                raise ValueError(f"{name} is {value!r} but must be a number of at least 0")
        if self.seed > LARGEST_SEED:
            raise ValueError(f"seed is {self.seed} but must be at most {LARGEST_SEED}")
        if self.channels_last not in (None, True, False):
            raise ValueError(f"channels_last is {self.channels_last!r} but must be true, false or null")

    @property
    def last_step(self) -> int:
        """Step that ends the training at the latest; 0 where only time does."""
        ends = [end for end in (self.steps, self.epochs * self.validate_every_batches) if end]
        return min(ends, default=0)

    def share_done(self, step: int, seconds: float) -> float:
        """Compute the fraction of the training that is done, 0 to 1.

        Args:
            step: Steps so far.
            seconds: Time so far.
        """
        shares = [step / self.last_step] if self.last_step else []
        if self.time_limit_minutes:
            shares.append(seconds / 60 / self.time_limit_minutes)
        return min(max(shares), 1.0)

    def end_reason(self, step: int, seconds: float, epochs_without_improvement: int) -> str:
        """Say why the training ends here; an empty text if it goes on.

        Args:
            step: Steps so far.
            seconds: Time so far.
            epochs_without_improvement: Epochs since the best validation.
        """
        if self.last_step and step >= self.last_step:
            return "all steps"
        if self.time_limit_minutes and seconds >= 60 * self.time_limit_minutes:
            return f"{self.time_limit_minutes:g} minutes"
        if self.patience and epochs_without_improvement >= self.patience:
            return f"no improvement for {self.patience} epochs"
        return ""

    def rate(self, step: int, share: float, reductions: int = 0) -> float:
        """Compute the learning rate of a step.

        Args:
            step: Number of the step, from 0.
            share: Fraction of the training that is done.
            reductions: Reductions on plateaus so far.
        """
        rise = min((step + 1) / self.warmup_steps, 1.0) if self.warmup_steps else 1.0
        if self.schedule == "plateau":
            return self.learning_rate * rise * self.learning_rate_factor**reductions
        if self.schedule == "constant":
            return self.learning_rate * rise
        if self.schedule == "one_cycle":
            if share < _RISE:
                risen = 0.5 * (1 - math.cos(math.pi * share / _RISE))
                return self.learning_rate * rise * (_FIRST_RATE + (1 - _FIRST_RATE) * risen)
            share = (share - _RISE) / (1 - _RISE)
        fall = 0.5 * (1 + math.cos(math.pi * share))
        return self.learning_rate * rise * (self.final_rate + (1 - self.final_rate) * fall)


def _is_amount(value: Any) -> TypeGuard[float]:
    """Whether a value is a finite number of at least 0."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
