"""Levenberg-Marquardt iterations on a set of voxels, each with its own damping, bounds and convergence.

Tensors here are voxel-last: parameters (p, voxel), predictions (m, voxel), Jacobians (p, m, voxel).
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from enum import IntEnum

import torch
from torch import Tensor

from .normal_matrix import NormalMatrix

# (parameters (p, voxel), *arguments (.., voxel)) -> prediction (m, voxel), jacobian (p, m, voxel)
Model = Callable[..., tuple[Tensor, Tensor]]

SMALLEST_DAMPING = 1e-7
FASTEST_SHRINK = 0.2
STALLED_DAMPING = 1e9  # no step, however short, lowers the residual any more
TRUSTED_DAMPING = 1e-2  # below it the step is close enough to Gauss-Newton to judge convergence by


class Status(IntEnum):
    """Outcome of a voxel's fit."""

    MASKED = 0  # not fitted (set by the caller)
    CONVERGED = 1
    AT_BOUND = 2  # converged with at least one parameter at a bound
    FAILED = 3  # the model gave no finite prediction
    NOT_ENOUGH_POINTS = 4
    INVALID_DATA = 5  # NaN or infinite values, or a signal of zeros
    ITERATION_LIMIT = 6  # not converged; the best parameters found are kept


@dataclass(frozen=True)
class Problem:
    """Data and settings of some voxels; `weight` (m, voxel) is 0 or 1, priors are in units of the noise."""

    model: Model
    data: Tensor  # (m, voxel)
    arguments: tuple[Tensor, ...]  # (.., voxel)
    lower: Tensor  # (p, voxel)
    upper: Tensor  # (p, voxel)
    weight: Tensor | None = None
    prior_mean: Tensor | None = None  # (p, voxel)
    prior_precision: Tensor | None = None  # (p, voxel): (noise sd / prior sd)^2

    def at(self, index: Tensor) -> Problem:
        """The same problem for some of its voxels."""

        return self._each(lambda tensors: tensors[0].index_select(-1, index), self)

    def joined(self, other: Problem) -> Problem:
        """Both problems' voxels, these first."""
        return self._each(lambda tensors: torch.cat(tensors, -1), self, other)

    @staticmethod
    def _each(function: Callable[[list[Tensor]], Tensor], *problems: Problem) -> Problem:
        given = (problem.arguments for problem in problems)
        changed = {"arguments": tuple(function(list(each)) for each in zip(*given, strict=True))}
        for name in ("data", "lower", "upper", "weight", "prior_mean", "prior_precision"):
            tensors = [getattr(problem, name) for problem in problems]
            changed[name] = None if tensors[0] is None else function(tensors)
        return replace(problems[0], **changed)

    def prior_cost(self, parameters: Tensor) -> Tensor:
        """Squared distance from the prior means in units of the noise variance; (voxel,)."""
        return (self.prior_precision * (parameters - self.prior_mean).square()).sum(0)


@dataclass
class State:
    """Where voxels stand: parameters and the normal equations there."""

    parameters: Tensor  # (p, voxel)
    cost: Tensor  # (voxel,) residual sum of squares, with the prior term
    gradient: Tensor  # (p, voxel) J^T r
    normal: NormalMatrix  # J^T J

    def at(self, index: Tensor) -> State:
        vectors = (self.parameters, self.cost, self.gradient)
        return State(*(vector.index_select(-1, index) for vector in vectors), self.normal.at(index))

    def joined(self, other: State) -> State:
        return State(
            torch.cat((self.parameters, other.parameters), -1),
            torch.cat((self.cost, other.cost)),
            torch.cat((self.gradient, other.gradient), -1),
            self.normal.joined(other.normal),
        )

    def where(self, accepted: Tensor, other: State) -> State:
        """The other state in the accepted voxels, this one elsewhere."""
        return State(
            torch.where(accepted, other.parameters, self.parameters),
            torch.where(accepted, other.cost, self.cost),
            torch.where(accepted, other.gradient, self.gradient),
            self.normal.where(accepted, other.normal),
        )


def _linearise(problem: Problem, parameters: Tensor) -> State:
    """Normal equations at `parameters`."""
    prediction, jacobian = problem.model(parameters, *problem.arguments)
    residual = prediction - problem.data
    if problem.weight is not None:
        residual = residual * problem.weight
        jacobian = jacobian * problem.weight
    cost = residual.square().sum(0)
    normal, gradient = NormalMatrix.of(jacobian, residual)
    if problem.prior_precision is not None:
        cost += problem.prior_cost(parameters)
        gradient += problem.prior_precision * (parameters - problem.prior_mean)
        normal.diagonal().add_(problem.prior_precision)
    return State(parameters, cost, gradient, normal)


def scales(normal: NormalMatrix, free: Tensor) -> Tensor:
    """(p, voxel): the change of each parameter that moves the data by one; zero where it is held."""
    diagonal = normal.diagonal()
    movable = free & (diagonal > torch.finfo(diagonal.dtype).tiny)
    return torch.where(movable, diagonal, 1.0).rsqrt() * movable


def _solve_scaled(state: State, gradient: Tensor, unit: Tensor, damping: Tensor) -> tuple[Tensor, Tensor]:
    """Marquardt's step where `unit` is not zero, and its decrement -gradient.step."""
    downhill = -gradient * unit
    scaled_step = state.normal.solve(downhill, unit, damping)
    return scaled_step * unit, (scaled_step * downhill).sum(0)


def _bounded_step(problem: Problem, state: State, damping: Tensor) -> tuple[Tensor, Tensor]:
    """Parameters after Marquardt's step within the bounds, and the decrement of the step before they cut it.

    Parameters pressed against a bound are held. Those that the step would carry over one are put on it, and
    the others are solved for again given that move.
    """
    lower, upper, parameters = problem.lower, problem.upper, state.parameters
    pressed = (parameters <= lower) & (state.gradient > 0)
    pressed |= (parameters >= upper) & (state.gradient < 0)
    unit = scales(state.normal, ~pressed)
    step, decrement = _solve_scaled(state, state.gradient, unit, damping)
    target = parameters + step
    inside = (target >= lower) & (target <= upper)
    cut = (~inside).any(0).nonzero().squeeze(1)
    if len(cut):
        some, held = state.at(cut), ~inside[:, cut]
        move = (target[:, cut].clamp(lower[:, cut], upper[:, cut]) - some.parameters) * held
        gradient = some.gradient + some.normal.times(move)
        step, _ = _solve_scaled(some, gradient, unit[:, cut] * ~held, damping[cut])
        target[:, cut] = some.parameters + step + move
    return target.clamp(lower, upper), decrement


class ActiveSet:
    """Voxels being fitted together; finished ones leave, others may join.

    A voxel has converged when the undamped step would lower its residual sum of squares by less than
    `tolerance` of it (or by less than the rounding error of the data).
    """

    def __init__(
        self,
        problem: Problem,
        start: Tensor,
        index: Tensor,
        max_iterations: int,
        tolerance: float,
        damping: float,
    ) -> None:
        """start (p, voxel) within the bounds; index (voxel,): the caller's numbers of these voxels."""
        self.problem, self.index = problem, index
        self.max_iterations, self.tolerance = max_iterations, tolerance
        self.state = _linearise(problem, start)
        finite = self.state.cost.isfinite() & self.state.normal.diagonal().isfinite().all(0)
        self.status = torch.where(finite, 0, int(Status.FAILED))  # 0: still running
        self.iterations = torch.zeros_like(self.status)
        self.damping = torch.full_like(self.state.cost, damping)
        self.growth = torch.full_like(self.damping, 2.0)
        self.trial = start
        self.floor = (4 * torch.finfo(start.dtype).eps) ** 2 * problem.data.square().sum(0)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def finished(self) -> Tensor:
        """(voxel,) bool."""
        return self.status != 0

    def propose(self) -> None:
        """First half of an iteration of every unfinished voxel: the step, and who has converged."""
        problem, state = self.problem, self.state
        trial, decrement = _bounded_step(problem, state, self.damping)
        converged = decrement <= self.tolerance * state.cost + self.floor
        converged &= self.damping <= TRUSTED_DAMPING
        running = ~self.finished
        # the last step is too small to be worth a check, but brings the parameters closer still
        state.parameters = torch.where(converged & running, trial, state.parameters)
        converged |= (self.damping >= STALLED_DAMPING) | (trial == state.parameters).all(0)
        self.status[converged & running] = int(Status.CONVERGED)
        self.trial = trial

    def advance(self) -> None:
        """Second half: the model at the proposed step of every voxel, accepted where it lowers the residual."""
        problem, state, trial = self.problem, self.state, self.trial
        running = ~self.finished
        self.iterations += running
        step = trial - state.parameters
        curvature = (state.normal.times(step) * step).sum(0)
        predicted = -2 * (state.gradient * step).sum(0) - curvature
        proposal = _linearise(problem, trial)
        reduction = state.cost - proposal.cost
        accepted = (reduction > 0) & (reduction >= 1e-4 * predicted) & running
        gain = (reduction / predicted.clamp_min(torch.finfo(predicted.dtype).tiny)).clamp(0, 1)
        self.state = state.where(accepted, proposal)
        shrink = (1 - (2 * gain - 1) ** 3).clamp_min(FASTEST_SHRINK)
        self.damping = self.damping * torch.where(accepted, shrink, self.growth)
        self.damping.clamp_min_(SMALLEST_DAMPING)
        self.growth = torch.where(accepted, 2.0, 2 * self.growth)
        self.status[running & (self.iterations >= self.max_iterations)] = int(Status.ITERATION_LIMIT)

    def select(self, chosen: Tensor) -> ActiveSet:
        """The voxels at positions `chosen` (n,) as a set of their own."""
        part = copy(self)
        part.problem, part.state = self.problem.at(chosen), self.state.at(chosen)
        part.trial = self.trial.index_select(-1, chosen)
        for name in _PER_VOXEL:
            setattr(part, name, getattr(self, name)[chosen])
        return part

    def joined(self, other: ActiveSet) -> ActiveSet:
        """Both sets in one."""
        both = copy(self)
        both.problem, both.state = self.problem.joined(other.problem), self.state.joined(other.state)
        both.trial = torch.cat((self.trial, other.trial), -1)
        for name in _PER_VOXEL:
            setattr(both, name, torch.cat((getattr(self, name), getattr(other, name))))
        return both


_PER_VOXEL = ("index", "status", "iterations", "damping", "growth", "floor")
