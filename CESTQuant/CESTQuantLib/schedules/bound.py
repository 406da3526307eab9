"""Design of a schedule by the Cramér-Rao bound: cheap, smooth, without a network, and from several starts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from NeuroCESTLib.core.checked_json import number, whole_number
from NeuroCESTLib.core.checkpoints import Checkpoint
from NeuroCESTLib.core.processes import Processes
from NeuroCESTLib.core.progress import Progress, part, silent
from NeuroCESTLib.core.stored_values import Numbers, check_optimizer

from ..networks.training import TrainingDiverged
from ..physics.protocol import Protocol
from ..preprocessing.normalization import spectrum_protocol
from .cramer_rao import covariance_bound, design_loss, signal_and_jacobian
from .problem import EstimationProblem
from .trainable import LOGIT_PER_RAW, Moment, TrainableSchedule

MOMENTS = 40
"""Moments of every descent that are recorded, and at which the checkpoint is written."""
_KIND = "neurocest schedule checkpoint"
_FORM = {
    "settings": {},
    "objective": str,
    "seed": int,
    "given": [Numbers("f", 1)],
    "found": [[Numbers("f", 1)]],
    "losses": [float],
    "descent": {
        "step": int,
        "history": [{"step": int, "loss": float, "schedule": {}}],
        "raws": [Numbers("f", 1)],
        "optimiser": {"state": {}, "param_groups": [{}]},
        "rates": {},
        "generator": Numbers("i", 1),
    },
}
"""Form of a checkpoint, see ``stored_values``."""
_COMPARED_VOXELS = 2000
"""Voxels on which the ends of the first descents are compared."""
_SHARE_OF_STARTS = 0.3
"""Share of the progress that the first descents take."""


@dataclass(frozen=True)
class BoundSettings:
    """How to minimise the bound; the fields are keys of ``crlb`` in a configuration.

    Attributes:
        steps: Steps of Adam from the best of all starts.
        starts: Number of starts: the given schedule and random ones.
        first_steps: Steps of Adam from every start.
        voxels: Voxels that every step draws. With few of them, the rare voxels that dominate the mean make the descent
            noisy and its end depend on chance.
        rate: Learning rate of Adam, in units of the sigmoids' logits.

    Raises:
        ValueError: A number is out of its range.
    """

    steps: int = 600
    starts: int = 4
    first_steps: int = 150
    voxels: int = 256
    rate: float = 0.1

    def __post_init__(self) -> None:
        for name, least in (("steps", 0), ("starts", 1), ("first_steps", 0), ("voxels", 1)):
            object.__setattr__(self, name, whole_number(getattr(self, name), name, least))
        if not number(self.rate, "rate") > 0:
            raise ValueError(f"rate is {self.rate:g} but must be positive")


def schedule_bound(
    schedule: TrainableSchedule | Protocol,
    problem: EstimationProblem,
    objective: str,
    voxels: int,
    generator: torch.Generator,
) -> Tensor:
    """Compute the objective of a schedule over random voxels.

    Args:
        schedule: Schedule or protocol; M0 measurements that the signals are divided by are no signals themselves.
        problem: What is to be estimated.
        objective: One of ``cramer_rao.OBJECTIVES``.
        voxels: Number of voxels.
        generator: Random numbers to draw them with.

    Returns:
        Loss, a scalar, see :func:`cramer_rao.design_loss`.
    """
    protocol = spectrum_protocol(schedule.protocol() if isinstance(schedule, TrainableSchedule) else schedule)
    values = problem.draw(voxels, generator)
    signal, jacobian = signal_and_jacobian(problem.tissue.tissue, values, problem.prior_sd(), protocol, problem.engine)
    covariance = covariance_bound(signal, jacobian, problem.mean_noise_sd, protocol.signal_normalisation)
    return design_loss(covariance, range(len(problem.targets)), objective, problem.weights)


def minimize_bound(
    schedule: TrainableSchedule,
    problem: EstimationProblem,
    objective: str = "crlb-a",
    settings: BoundSettings | None = None,
    *,
    seed: int = 0,
    progress: Progress = silent,
    checkpoint: Path | None = None,
    processes: Processes | None = None,
    on_moment: Callable[[Sequence[Moment]], None] | None = None,
) -> list[Moment]:
    """Train a schedule, in place, on the Cramér-Rao bound.

    Args:
        schedule: Schedule to train.
        problem: What is to be estimated.
        objective: One of ``cramer_rao.OBJECTIVES``.
        settings: How to minimise.
        seed: Seed of the starts and of the voxels.
        progress: Called at every recorded moment; may raise to cancel.
        checkpoint: File that is written at every recorded moment. Where it exists, the descent continues from it, to
            the same end as without the interruption.
        processes: This process among those that do the same; the first one writes the checkpoint.
        on_moment: Called at every recorded moment with those of the descent so far.

    Returns:
        About ``MOMENTS`` moments (step, loss and schedule) of the last descent.

    Raises:
        TrainingDiverged: The bound is not finite.
        ValueError: The checkpoint belongs to another descent.
    """
    settings = settings or BoundSettings()
    given = _raws(schedule)
    file = Checkpoint(checkpoint, _KIND, "optimisation", (processes or Processes()).writes, _FORM)
    identity = {"settings": asdict(settings), "objective": objective, "seed": seed, "given": given}
    saved = _load(file, identity)
    if saved:
        trial = _Descent(schedule, problem, objective, settings, settings.steps, _seeded(seed))
        fits = file.restore(saved, lambda state: trial.restore(state["descent"], state["found"]))
        _set(schedule, given)
        saved = saved if fits else {}
    ends: list[list[Tensor]] = saved.get("found", [])
    losses: list[float] = saved.get("losses", [])

    def descend(steps: int, generator: torch.Generator, report: Progress) -> list[Moment]:
        descent = _Descent(schedule, problem, objective, settings, steps, generator)
        if "descent" in saved:
            descent.restore(saved.pop("descent"))
        for moment in descent.moments():
            file.save({**identity, "found": ends, "losses": losses, "descent": descent.state()})
            if on_moment is not None:
                on_moment(descent.history)
            report(moment["step"] / steps, f"{objective}: step {moment['step']} of {steps}, {moment['loss']:.4g}")
        return descent.history

    for start in range(len(ends), settings.starts):
        _set(schedule, given if start == 0 else _random_raws(schedule, _seeded(seed, 7, start)))
        first, last = (_SHARE_OF_STARTS * number / settings.starts for number in (start, start + 1))
        descend(
            settings.first_steps,
            _seeded(seed, 8, start),
            part(progress, first, last, f"start {start + 1} of {settings.starts}, "),
        )
        with torch.no_grad():
            loss = float(schedule_bound(schedule, problem, objective, _COMPARED_VOXELS, _seeded(seed, 9)))
        losses.append(loss if math.isfinite(loss) else math.inf)
        ends.append(_raws(schedule))
    _set(schedule, ends[losses.index(min(losses))])
    return descend(settings.steps, _seeded(seed, 10), part(progress, _SHARE_OF_STARTS, 1.0))


class _Descent:
    """Adam on the bound from where the schedule is; it can be interrupted at every recorded moment."""

    def __init__(
        self,
        schedule: TrainableSchedule,
        problem: EstimationProblem,
        objective: str,
        settings: BoundSettings,
        steps: int,
        generator: torch.Generator,
    ) -> None:
        self.schedule, self.problem, self.objective, self.voxels = schedule, problem, objective, settings.voxels
        rate = settings.rate / LOGIT_PER_RAW
        self.optimizer = torch.optim.Adam(schedule.parameters(), rate)
        self.rates = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, rate, total_steps=max(steps, 2))
        self.generator, self.step, self.steps = generator, 0, steps
        self.history: list[Moment] = []

    def moments(self) -> Iterator[Moment]:
        """Descend, and return every recorded moment when it is reached."""
        every = max(1, self.steps // MOMENTS)
        while self.step < self.steps:
            loss = self._step()
            if self.step % every == 1 or every == 1 or self.step == self.steps:
                self.history.append({"step": self.step, "loss": loss, "schedule": self.schedule.plain_values()})
                yield self.history[-1]

    def _step(self) -> float:
        try:
            loss = schedule_bound(self.schedule, self.problem, self.objective, self.voxels, self.generator)
        except torch.linalg.LinAlgError:
            loss = torch.tensor(torch.nan)
        if not bool(torch.isfinite(loss)):
            raise TrainingDiverged(
                f"the objective {self.objective} is not a number after {self.step} of {self.steps} "
                "steps; lower the rate of crlb or narrow the limits"
            )
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.rates.step()
        self.step += 1
        return float(loss.detach())

    def state(self) -> dict[str, Any]:
        """Return everything that the next step depends on."""
        return {
            "step": self.step,
            "history": self.history,
            "raws": _raws(self.schedule),
            "optimiser": self.optimizer.state_dict(),
            "rates": self.rates.state_dict(),
            "generator": self.generator.get_state(),
        }

    def restore(self, state: dict[str, Any], ends: Sequence[Sequence[Tensor]] = ()) -> None:
        """Go back to a state; ``ends`` are those of earlier descents, which are only tried."""
        for raws in ends:
            _set(self.schedule, raws)
        _set(self.schedule, state["raws"])
        check_optimizer(state["optimiser"], self.optimizer, "checkpoint")
        self.optimizer.load_state_dict(state["optimiser"])
        self.rates.load_state_dict(state["rates"])
        self.generator.set_state(state["generator"])
        self.step, self.history = state["step"], state["history"]


def _load(file: Checkpoint, identity: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint of the same descent holds; nothing where there is none."""
    saved = file.load()
    if saved is None:
        return {}
    same = all(saved.get(key) == value for key, value in identity.items() if key != "given")
    file.require_same_run(same and _numbers(saved["given"]) == _numbers(identity["given"]))
    return saved


def _numbers(raws: Sequence[Tensor]) -> list[list[float]]:
    return [raw.tolist() for raw in raws]


def _raws(schedule: TrainableSchedule) -> list[Tensor]:
    return [raw.detach().clone() for raw in schedule.raw.values()]


def _random_raws(schedule: TrainableSchedule, generator: torch.Generator) -> list[Tensor]:
    shares = [torch.rand(raw.shape, generator=generator, dtype=raw.dtype) for raw in schedule.raw.values()]
    return [torch.logit(0.1 + 0.8 * share) / LOGIT_PER_RAW for share in shares]


@torch.no_grad()
def _set(schedule: TrainableSchedule, raws: Sequence[Tensor]) -> None:
    for raw, value in zip(schedule.raw.values(), raws, strict=True):
        raw.copy_(value)


def _seeded(*numbers: int) -> torch.Generator:
    """Random numbers for one purpose: the same numbers give the same draws."""
    return torch.Generator().manual_seed(sum(n * 1_009**p for p, n in enumerate(reversed(numbers))) % 2**62)
