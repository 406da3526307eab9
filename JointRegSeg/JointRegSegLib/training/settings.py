"""How a network is trained: optimiser, learning rate, length, precision, seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

_CHOICES = {
    "optimiser": ("adam", "adamw", "sgd"),
    "schedule": ("plateau", "cosine", "one_cycle", "constant"),
    "precision": ("auto", "float32", "bfloat16", "float16"),
    "monitor": ("loss", "dice"),
    "device": ("auto", "cpu", "cuda"),
}
_POSITIVE = ("learning_rate", "batch_size", "accumulation", "validate_every_batches", "checkpoint_minutes")
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


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of the training loop; the defaults are those of Estienne et al. 2020.

    A *step* is one update of the weights; an *epoch* is ``validate_every_batches`` steps and ends with a validation.

    optimiser, learning_rate, weight_decay, momentum (of sgd): as torch has them.
    schedule: of the learning rate. 'plateau': times ``learning_rate_factor`` after ``learning_rate_patience`` epochs
        without improvement. 'cosine' and 'one_cycle' fall to ``final_rate`` of it at the end of the training;
        'one_cycle' rises in the first 30 %. All rise linearly over ``warmup_steps``.
    gradient_clip: largest norm of all gradients, 0 for none.
    batch_size: pairs a step, over all processes. accumulation: passes that a step is divided into, to save memory.
    epochs, steps, time_limit_minutes: whichever is reached first ends the training; 0 for no limit. The time is that
        of all sessions of a resumed training; a schedule that ends with it depends on the speed of the machine.
    patience: epochs without improvement after which the training ends; 0 for never.
    monitor: what improvement is: lower validation 'loss', or higher mean 'dice' of the three regions.
    ema_decay: of an exponential moving average of the weights, which is validated and kept; 0 for none.
    precision: 'auto' takes the fastest of the device. channels_last: null lets the device decide.
    seed: of weights, order, augmentation and dropout. workers: processes that prepare pairs, ``prefetch`` steps ahead.
    threads: of torch in this process, 0 for its default. device: where to train.
    checkpoint_minutes: longest time that a crash loses. pictures: validation cases drawn after each epoch,
        with the curves.
    brain_share: part that the brain takes of the block on which the weights segment a study, written into them; 0 for
        the mean over the patches of the training. Less of it makes a network with instance norm find more tumour.
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

    optimiser: str = "adam"
    learning_rate: float = 2e-3
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
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r} but must be one of {', '.join(choices)}")
        for name in _WHOLE:
            if not _is(getattr(self, name), int):
                raise ValueError(f"{name} is {getattr(self, name)!r} but must be a whole number of at least 0")
        for name, value in vars(self).items():
            if name not in _CHOICES and name != "channels_last" and not _is(value, int | float):
                raise ValueError(f"{name} is {value!r} but must be a number of at least 0")
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)!r} but must be positive")
        if not (self.epochs or self.steps or self.time_limit_minutes):
            raise ValueError("the training has no end: give epochs, steps or time_limit_minutes")
        for name in ("learning_rate_factor", "final_rate", "ema_decay", "momentum", "brain_share"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name} is {getattr(self, name)!r} but must lie between 0 and 1")
        if self.ema_decay == 1:
            raise ValueError("ema_decay is 1, which would keep the first weights for ever; use a value such as 0.999")
        if self.channels_last not in (None, True, False):
            raise ValueError(f"channels_last is {self.channels_last!r} but must be true, false or null")
        if self.batch_size % self.accumulation:
            raise ValueError(f"batch_size {self.batch_size} is not divisible by accumulation {self.accumulation}")

    @property
    def last_step(self) -> int:
        """The step that ends the training at the latest; 0 where only the time does."""
        ends = [end for end in (self.steps, self.epochs * self.validate_every_batches) if end]
        return min(ends, default=0)

    def share_done(self, step: int, seconds: float) -> float:
        """How much of the training is behind it after ``step`` steps and so many seconds: 0 … 1."""
        shares = [step / self.last_step] if self.last_step else []
        if self.time_limit_minutes:
            shares.append(seconds / 60 / self.time_limit_minutes)
        return min(max(shares), 1.0)

    def rate(self, step: int, share: float, reductions: int = 0) -> float:
        """Learning rate of the step with the number ``step`` (from 0) after ``reductions`` on plateaus."""
        rise = min((step + 1) / self.warmup_steps, 1.0) if self.warmup_steps else 1.0
        if self.schedule == "plateau":
            return self.learning_rate * rise * self.learning_rate_factor**reductions
        if self.schedule == "constant":
            return self.learning_rate * rise
        if self.schedule == "one_cycle":
            if share < _RISE:
                return self.learning_rate * rise * (0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * share / _RISE)))
            share = (share - _RISE) / (1 - _RISE)
        fall = 0.5 * (1 + math.cos(math.pi * share))
        return self.learning_rate * rise * (self.final_rate + (1 - self.final_rate) * fall)


_RISE = 0.3


def _is(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
