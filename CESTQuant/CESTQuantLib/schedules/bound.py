"""Designing a schedule by the Cramer-Rao bound: cheap, smooth, without a network; from several starts."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from NeuroCESTLib.core.progress import Progress
from NeuroCESTLib.core.tensor_files import load_tensors, save_tensors

from ..networks.training import TrainingDiverged
from ..physics.protocol import Protocol
from .chain import Problem
from .cramer_rao import covariance_bound, design_loss, signal_and_jacobian
from .trainable import LOGIT_PER_RAW, TrainableSchedule

KIND = "neurocest schedule checkpoint"
MOMENTS = 40
"""Of every descent are recorded, and written to the checkpoint."""


@dataclass(frozen=True)
class BoundSettings:
    """Minimisation of the bound: ``steps`` of Adam from the best of ``starts`` (the given schedule and random ones).

    Every step draws ``voxels``; with few of them, the rare voxels that dominate the mean make the descent noisy and
    its end depend on chance. rate: of Adam, in units of the sigmoids' logits.
    """

    steps: int = 600
    starts: int = 4
    first_steps: int = 150
    voxels: int = 256
    rate: float = 0.1


def schedule_bound(
    schedule: TrainableSchedule | Protocol, problem: Problem, objective: str, voxels: int, generator: torch.Generator
) -> Tensor:
    """The objective (see ``cramer_rao.design_loss``) of a schedule over ``voxels`` random voxels."""
    protocol = schedule.protocol() if isinstance(schedule, TrainableSchedule) else schedule
    values = problem.draw(voxels, generator)
    signal, jacobian = signal_and_jacobian(problem.tissue.tissue, values, problem.prior_sd(), protocol, problem.engine)
    covariance = covariance_bound(signal, jacobian, problem.mean_noise_sd, protocol.signal_normalisation)
    return design_loss(covariance, range(len(problem.targets)), objective, problem.weights)


def minimise_bound(
    schedule: TrainableSchedule,
    problem: Problem,
    objective: str = "crlb-a",
    settings: BoundSettings | None = None,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    writes_checkpoint: bool = True,
) -> list[dict]:
    """Train a schedule on the Cramer-Rao bound, in place; the history (``loss``, ``schedule``) of some 40 moments.

    checkpoint: written, atomically, at these moments; where it exists the descent goes on from it, to the same end as
    without the interruption. Raises TrainingDiverged where the bound is not finite and ValueError for a checkpoint of
    another descent.
    """
    settings = settings or BoundSettings()
    given = _raws(schedule)
    whose = {"kind": KIND, "settings": asdict(settings), "objective": objective, "seed": seed, "given": given}
    saved = _read(checkpoint, whose)
    found, losses = saved.get("found", []), saved.get("losses", [])

    def report(low: float, high: float, prefix: str = "") -> Progress:
        say = progress or (lambda fraction, message: None)
        return lambda fraction, message: say(low + (high - low) * fraction, prefix + message)

    def descend(steps: int, generator: torch.Generator, report: Progress) -> list[dict]:
        descent = _Descent(schedule, problem, objective, settings, steps, generator)
        if "descent" in saved:
            descent.restore(saved.pop("descent"))

        def keep() -> None:
            if checkpoint is not None and writes_checkpoint:
                save_tensors({**whose, "found": found, "losses": losses, "descent": descent.state()}, checkpoint)

        descent.run(keep, report)
        return descent.history

    share = 0.3 / settings.starts
    for start in range(len(found), settings.starts):
        _set(schedule, given if start == 0 else _random_raw(schedule, _seeded(seed, 7, start)))
        descend(
            settings.first_steps,
            _seeded(seed, 8, start),
            report(start * share, (start + 1) * share, f"start {start + 1} of {settings.starts}, "),
        )
        with torch.no_grad():
            loss = float(schedule_bound(schedule, problem, objective, 2000, _seeded(seed, 9)))
        losses.append(loss if math.isfinite(loss) else math.inf)
        found.append(_raws(schedule))
    _set(schedule, found[losses.index(min(losses))])
    return descend(settings.steps, _seeded(seed, 10), report(0.3, 1.0))


class _Descent:
    """Adam on the bound from where the schedule is; can be interrupted at every recorded moment."""

    def __init__(
        self,
        schedule: TrainableSchedule,
        problem: Problem,
        objective: str,
        settings: BoundSettings,
        steps: int,
        generator: torch.Generator,
    ) -> None:
        self.schedule, self.problem, self.objective, self.voxels = schedule, problem, objective, settings.voxels
        rate = settings.rate / LOGIT_PER_RAW
        self.optimiser = torch.optim.Adam(schedule.parameters(), rate)
        self.rates = torch.optim.lr_scheduler.OneCycleLR(self.optimiser, rate, total_steps=max(steps, 2))
        self.generator, self.step, self.steps = generator, 0, steps
        self.history: list[dict] = []

    def run(self, keep: Callable[[], None], report: Progress) -> None:
        every = max(1, self.steps // MOMENTS)
        while self.step < self.steps:
            loss = self._step()
            if self.step % every == 1 or every == 1 or self.step == self.steps:
                values = {name: value.detach().tolist() for name, value in self.schedule.values().items()}
                self.history.append({"step": self.step, "loss": loss, "schedule": values})
                keep()
                report(self.step / self.steps, f"{self.objective}: step {self.step} of {self.steps}, {loss:.4g}")

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
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.rates.step()
        self.step += 1
        return float(loss.detach())

    def state(self) -> dict:
        return {
            "step": self.step,
            "history": self.history,
            "raws": _raws(self.schedule),
            "optimiser": self.optimiser.state_dict(),
            "rates": self.rates.state_dict(),
            "generator": self.generator.get_state(),
        }

    def restore(self, state: dict) -> None:
        _set(self.schedule, state["raws"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.rates.load_state_dict(state["rates"])
        self.generator.set_state(state["generator"])
        self.step, self.history = state["step"], state["history"]


def _read(checkpoint: Path | None, whose: dict) -> dict:
    """What a checkpoint of the same descent holds; nothing where there is none, and a warning if it is damaged."""
    if checkpoint is None or not checkpoint.exists():
        return {}
    try:
        saved = load_tensors(checkpoint, "checkpoint")
    except ValueError:
        warnings.warn(f"{checkpoint}: the checkpoint is damaged, so the optimisation starts anew", stacklevel=3)
        return {}
    same = all(saved.get(key) == value for key, value in whose.items() if key != "given")
    if not same or [raw.tolist() for raw in saved["given"]] != [raw.tolist() for raw in whose["given"]]:
        raise ValueError(f"{checkpoint}: the checkpoint belongs to another optimisation; remove it to start anew")
    return saved


def _raws(schedule: TrainableSchedule) -> list[Tensor]:
    return [raw.detach().clone() for raw in schedule.raw.values()]


def _random_raw(schedule: TrainableSchedule, generator: torch.Generator) -> list[Tensor]:
    shares = [torch.rand(raw.shape, generator=generator, dtype=raw.dtype) for raw in schedule.raw.values()]
    return [torch.logit(0.1 + 0.8 * share) / LOGIT_PER_RAW for share in shares]


@torch.no_grad()
def _set(schedule: TrainableSchedule, raws: Sequence[Tensor]) -> None:
    for raw, value in zip(schedule.raw.values(), raws, strict=True):
        raw.copy_(value)


def _seeded(*numbers: int) -> torch.Generator:
    """A generator for one purpose: the same numbers give the same draws."""
    return torch.Generator().manual_seed(sum(n * 1_009**p for p, n in enumerate(reversed(numbers))) % 2**62)
