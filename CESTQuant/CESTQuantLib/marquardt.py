"""Levenberg-Marquardt iterations on one chunk of voxels, each with its own damping, bounds and convergence.

Tensors here are voxel-last: parameters (p, voxel), predictions (m, voxel), Jacobians (p, m, voxel).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum

import torch
from torch import Tensor

from . import voxelwise_cholesky

# (parameters (p, voxel), *arguments (.., voxel)) -> prediction (m, voxel), jacobian (p, m, voxel)
Model = Callable[..., tuple[Tensor, Tensor]]

START_DAMPING = 1e-2
SMALLEST_DAMPING = 1e-7
STALLED_DAMPING = 1e9  # no step, however short, lowers the residual any more
TRUSTED_DAMPING = 1e-2  # below it the step is close enough to Gauss-Newton to judge convergence by
COMPACT_AT = 0.2  # share of finished voxels at which the others are moved together


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
    """Data and settings of a chunk; `weight` (m, voxel) is 0 or 1, priors are in units of the noise."""

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

        def pick(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.index_select(-1, index)

        return replace(
            self,
            data=pick(self.data),
            arguments=tuple(pick(argument) for argument in self.arguments),
            lower=pick(self.lower),
            upper=pick(self.upper),
            weight=pick(self.weight),
            prior_mean=pick(self.prior_mean),
            prior_precision=pick(self.prior_precision),
        )

    def prior_cost(self, parameters: Tensor) -> Tensor:
        """Squared distance from the prior means in units of the noise variance; (voxel,)."""
        return (self.prior_precision * (parameters - self.prior_mean).square()).sum(0)


@dataclass
class State:
    """Where a chunk's voxels stand: parameters and the normal equations there."""

    parameters: Tensor  # (p, voxel)
    cost: Tensor  # (voxel,) residual sum of squares, with the prior term
    gradient: Tensor  # (p, voxel) J^T r
    normal_matrix: Tensor  # (p, p, voxel) J^T J

    def at(self, index: Tensor) -> State:
        return State(*(getattr(self, name).index_select(-1, index) for name in self.__dataclass_fields__))

    def put(self, index: Tensor, other: State) -> None:
        for name in self.__dataclass_fields__:
            getattr(self, name).index_copy_(-1, index, getattr(other, name))

    def take(self, accepted: Tensor, other: State) -> None:
        for name in self.__dataclass_fields__:
            setattr(self, name, torch.where(accepted, getattr(other, name), getattr(self, name)))


def _linearise(problem: Problem, parameters: Tensor) -> State:
    """Normal equations at `parameters`."""
    prediction, jacobian = problem.model(parameters, *problem.arguments)
    residual = prediction - problem.data
    if problem.weight is not None:
        residual = residual * problem.weight
        jacobian = jacobian * problem.weight
    cost = residual.square().sum(0)
    gradient = (jacobian * residual).sum(1)
    count = parameters.shape[0]
    normal_matrix = parameters.new_empty(count, count, parameters.shape[1])
    for row in range(count):
        products = (jacobian[row:] * jacobian[row]).sum(1)
        normal_matrix[row, row:] = products
        normal_matrix[row:, row] = products
    if problem.prior_precision is not None:
        cost += problem.prior_cost(parameters)
        gradient += problem.prior_precision * (parameters - problem.prior_mean)
        normal_matrix.diagonal().add_(problem.prior_precision.T)
    return State(parameters, cost, gradient, normal_matrix)


def scales(normal_matrix: Tensor, free: Tensor) -> Tensor:
    """(p, voxel): the change of each parameter that moves the data by one; zero where it is held."""
    diagonal = normal_matrix.diagonal().T
    movable = free & (diagonal > torch.finfo(diagonal.dtype).tiny)
    return torch.where(movable, diagonal, 1.0).rsqrt() * movable


def _damped_step(problem: Problem, state: State, damping: Tensor) -> tuple[Tensor, Tensor]:
    """Marquardt's step with the pressed bounds held, and the decrement -g.step (both before clipping)."""
    pressed = (state.parameters <= problem.lower) & (state.gradient > 0)
    pressed |= (state.parameters >= problem.upper) & (state.gradient < 0)
    unit = scales(state.normal_matrix, ~pressed)
    matrix = state.normal_matrix * unit * unit.unsqueeze(1)
    matrix.diagonal().copy_((1 + damping).unsqueeze(-1).expand(-1, unit.shape[0]))
    downhill = -state.gradient * unit
    scaled_step = voxelwise_cholesky.solve(matrix, downhill)
    return scaled_step * unit, (scaled_step * downhill).sum(0)


def fit_chunk(
    problem: Problem, start: Tensor, max_iterations: int, tolerance: float
) -> tuple[State, Tensor, Tensor]:
    """Fit all voxels of a chunk.

    A voxel has converged when the undamped step would lower its residual sum of squares by less than
    `tolerance` of it (or by less than the rounding error of the data).

    Returns:
        the final state, status (voxel,) uint8 and iterations (voxel,) int32.
    """
    state = _linearise(problem, start)
    final = State(*(getattr(state, name).clone() for name in State.__dataclass_fields__))
    voxels = start.shape[1]
    status = torch.full((voxels,), Status.ITERATION_LIMIT, dtype=torch.uint8, device=start.device)
    iterations = torch.full((voxels,), max_iterations, dtype=torch.int32, device=start.device)
    finite = state.cost.isfinite() & state.normal_matrix.diagonal().isfinite().all(-1)
    status[~finite] = Status.FAILED

    index = finite.nonzero().squeeze(1)
    if len(index) < voxels:
        problem, state = problem.at(index), state.at(index)
    damping = torch.full_like(state.cost, START_DAMPING)
    growth = torch.full_like(state.cost, 2.0)
    done = torch.zeros_like(state.cost, dtype=torch.bool)
    floor = (4 * torch.finfo(start.dtype).eps) ** 2 * problem.data.square().sum(0)

    for iteration in range(max_iterations):
        step, decrement = _damped_step(problem, state, damping)
        trial = (state.parameters + step).clamp(problem.lower, problem.upper)
        finished = (decrement <= tolerance * state.cost + floor) & (damping <= TRUSTED_DAMPING)
        finished |= (damping >= STALLED_DAMPING) | (trial == state.parameters).all(0)
        finished &= ~done
        iterations[index[finished]] = iteration
        done |= finished

        if int(done.sum()) >= COMPACT_AT * len(index):
            final.put(index, state)
            status[index[done]] = Status.CONVERGED
            remaining = (~done).nonzero().squeeze(1)
            if len(remaining) == 0:
                return final, status, iterations
            index = index[remaining]
            problem, state = problem.at(remaining), state.at(remaining)
            damping, growth, done, floor = (x[remaining] for x in (damping, growth, done, floor))
            trial = trial.index_select(-1, remaining)

        step = trial - state.parameters
        curvature = ((state.normal_matrix * step).sum(1) * step).sum(0)
        predicted = -2 * (state.gradient * step).sum(0) - curvature
        proposal = _linearise(problem, trial)
        reduction = state.cost - proposal.cost
        accepted = (reduction > 0) & (reduction >= 1e-4 * predicted) & ~done
        gain = (reduction / predicted.clamp_min(torch.finfo(predicted.dtype).tiny)).clamp(0, 1)
        state.take(accepted, proposal)
        shrink = (1 - (2 * gain - 1) ** 3).clamp_min(0.1)
        damping = (damping * torch.where(accepted, shrink, growth)).clamp_min(SMALLEST_DAMPING)
        growth = torch.where(accepted, 2.0, 2 * growth)

    final.put(index, state)
    status[index[done]] = Status.CONVERGED
    return final, status, iterations
