"""Designing a schedule by the Cramer-Rao bound: cheap, smooth, without a network; from several starts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .chain import Problem
from .cramer_rao import covariance_bound, design_loss, signal_and_jacobian
from .protocol import Protocol
from .schedule import LOGIT_PER_RAW, TrainableSchedule

Progress = Callable[[float, str], None]


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


def schedule_bound(schedule: TrainableSchedule | Protocol, problem: Problem, objective: str, voxels: int,
                   generator: torch.Generator) -> Tensor:  # fmt: skip
    """The objective (see ``cramer_rao.design_loss``) of a schedule over ``voxels`` random voxels."""
    protocol = schedule.protocol() if isinstance(schedule, TrainableSchedule) else schedule
    values = problem.draw(voxels, generator)
    signal, jacobian = signal_and_jacobian(problem.tissue.tissue, values, problem.prior_sd(), protocol, problem.engine)
    covariance = covariance_bound(signal, jacobian, problem.mean_noise_sd, protocol.signal_normalisation)
    return design_loss(covariance, range(len(problem.targets)), objective)


def minimise_bound(
    schedule: TrainableSchedule,
    problem: Problem,
    objective: str = "crlb-a",
    settings: BoundSettings | None = None,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[dict]:
    """Train a schedule on the Cramer-Rao bound, in place; the history (``loss``, ``schedule``) of some 40 moments."""
    settings = settings or BoundSettings()
    report = progress or (lambda fraction, message: None)
    given = [raw.detach().clone() for raw in schedule.raw.values()]
    candidates = []
    for start in range(settings.starts):
        _set(schedule, given if start == 0 else _random_raw(schedule, _seeded(seed, 7, start)))
        _descend(schedule, problem, objective, settings, settings.first_steps, _seeded(seed, 8, start))
        with torch.no_grad():
            loss = float(schedule_bound(schedule, problem, objective, 400, _seeded(seed, 9)))
        raws = [raw.detach().clone() for raw in schedule.raw.values()]
        candidates.append((loss if math.isfinite(loss) else math.inf, raws))
        report(0.3 * (start + 1) / settings.starts, f"{objective}: start {start + 1} of {settings.starts}")
    _set(schedule, min(candidates, key=lambda candidate: candidate[0])[1])
    return _descend(schedule, problem, objective, settings, settings.steps, _seeded(seed, 10),
                    lambda fraction, message: report(0.3 + 0.7 * fraction, message))  # fmt: skip


def _descend(schedule, problem, objective, settings, steps, generator, report=None) -> list[dict]:
    rate = settings.rate / LOGIT_PER_RAW
    optimiser = torch.optim.Adam(schedule.parameters(), rate)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=max(steps, 2))
    history: list[dict] = []
    for step in range(steps):
        loss = schedule_bound(schedule, problem, objective, settings.voxels, generator)
        if not bool(torch.isfinite(loss)):
            raise RuntimeError(f"the {objective} objective is not a number after {step} steps")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rates.step()
        if report is not None and (step % max(1, steps // 40) == 0 or step == steps - 1):
            values = {name: value.detach().tolist() for name, value in schedule.values().items()}
            history.append({"step": step + 1, "loss": float(loss.detach()), "schedule": values})
            report((step + 1) / steps, f"{objective}: step {step + 1} of {steps}, {float(loss.detach()):.4g}")
    return history


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
