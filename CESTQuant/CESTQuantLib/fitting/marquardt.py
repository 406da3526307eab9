"""Levenberg-Marquardt iterations on a batch of voxels, each with its own damping, bounds and convergence.

In every voxel the fit minimises, over the p parameters x within their bounds, the sum of squares::

    S(x) = sum_m w_m (f_m(x) - y_m)^2 + sum_p c_p (x_p - mu_p)^2

of the m measurements y, the model f, weights w of 0 or 1, and Gaussian priors of mean mu and precision
c = (noise sd / prior sd)^2. One iteration goes through these steps:

1. Linearise (``_linearize``). With the residual r = f(x) - y and the Jacobian J_pm = df_m/dx_p, the normal equations
   have the gradient g = J r and the normal matrix N = J J^T; a prior adds c (x - mu) to g and c to the diagonal of N.
2. Hold every parameter that lies at a bound while its gradient points outwards; it is released when the gradient turns.
3. Scale every free parameter by u_p = N_pp^(-1/2), so that U N U has a unit diagonal and a fraction of 1e-3 and a rate
   of 1e3 1/s can share one fit, and solve (U N U + lambda I) d = -U g for the step U d (Marquardt, SIAM J Appl Math
   1963;11:431).
4. Where the step crosses a bound, put those parameters on it and solve again for the others given that move.
5. Stop where the step would lower S by no more than the tolerance times S (``ActiveSet.propose``).
6. Otherwise evaluate the model at the proposed parameters. The gain ratio rho is the reduction of S over the reduction
   that the quadratic model predicts. Accept the step if S falls, and by at least 1e-4 of the prediction.
7. Adapt the damping of the voxel (Nielsen, IMM-REP-1999-05): after an accepted step multiply lambda by
   max(1/5, 1 - (2 rho - 1)^3); after a rejected one by nu, and double nu.

Tensors are voxel-last: parameters (p, voxel), predictions (m, voxel), Jacobians (p, m, voxel).
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from .normal_matrix import NormalMatrix, normal_equations
from .problem import VoxelBatch

SMALLEST_DAMPING = 1e-7
STRONGEST_DAMPING_DECREASE = 0.2
"""Smallest factor by which an accepted step multiplies the damping."""
SMALLEST_GAIN_RATIO = 1e-4
"""Smallest share of the predicted reduction with which a step is accepted."""
STALLED_DAMPING = 1e9
"""With this damping no step, however short, lowers the sum of squares any more."""
TRUSTED_DAMPING = 1e-2
"""Up to this damping a step is close enough to a Gauss-Newton step for its decrement to tell convergence."""


class Status(IntEnum):
    """Outcome of the fit of a voxel."""

    MASKED = 0
    """Not fitted (set by the caller)."""
    CONVERGED = 1
    AT_BOUND = 2
    """Converged with at least one parameter at a bound."""
    FAILED = 3
    """The model gave no finite prediction."""
    NOT_ENOUGH_POINTS = 4
    """Fewer valid measurements than parameters."""
    INVALID_DATA = 5
    """NaN or infinite values, or a signal of zeros."""
    ITERATION_LIMIT = 6
    """Not converged; the best parameters found are kept."""
    AT_NATURAL_LIMIT = 7
    """Converged with a parameter at a limit that nature sets, such as an amplitude of 0 or a baseline of 1."""
    POOR_FIT = 8
    """The fit ended, but the model does not explain the signal."""


UNUSABLE = (Status.FAILED, Status.NOT_ENOUGH_POINTS, Status.INVALID_DATA, Status.ITERATION_LIMIT, Status.POOR_FIT)
"""Outcomes without values, or with values that are not estimates; they stay out of the means over regions."""


_RUNNING = 0
"""Status of a voxel that is still being iterated."""


@dataclass(frozen=True)
class IterationSettings:
    """Settings of the iterations.

    Attributes:
        max_iterations: Model evaluations after the first one that a voxel may take.
        tolerance: Relative reduction of the sum of squares below which a voxel has converged.
        start_damping: Damping lambda of the first step, relative to the diagonal of the normal matrix.
    """

    max_iterations: int
    tolerance: float
    start_damping: float


@dataclass
class Linearization:
    """The normal equations of every voxel at its current parameters.

    Attributes:
        parameters: x, (p, voxel).
        cost: S(x), (voxel,), the sum of squares with the prior term.
        gradient: g = J r with the prior term, (p, voxel); half the gradient of S.
        normal: N = J J^T with the prior term.
    """

    parameters: Tensor
    cost: Tensor
    gradient: Tensor
    normal: NormalMatrix

    def at(self, index: Tensor) -> Linearization:
        """Return the equations of the voxels at the positions ``index`` (n,)."""
        return Linearization(
            self.parameters.index_select(-1, index),
            self.cost.index_select(-1, index),
            self.gradient.index_select(-1, index),
            self.normal.at(index),
        )

    def joined(self, other: Linearization) -> Linearization:
        """Return the equations of these voxels followed by those of the other ones."""
        return Linearization(
            torch.cat((self.parameters, other.parameters), -1),
            torch.cat((self.cost, other.cost)),
            torch.cat((self.gradient, other.gradient), -1),
            self.normal.joined(other.normal),
        )

    def where(self, accepted: Tensor, other: Linearization) -> Linearization:
        """Return the other equations where ``accepted`` (voxel,) is true, and these elsewhere."""
        return Linearization(
            torch.where(accepted, other.parameters, self.parameters),
            torch.where(accepted, other.cost, self.cost),
            torch.where(accepted, other.gradient, self.gradient),
            self.normal.where(accepted, other.normal),
        )


def _linearize(batch: VoxelBatch, parameters: Tensor) -> Linearization:
    """Evaluate the model at ``parameters`` (p, voxel) and form the normal equations there."""
    prediction, jacobian = batch.model(parameters, *batch.arguments)
    residual = prediction - batch.data
    if batch.weight is not None:
        residual = residual * batch.weight
        jacobian = jacobian * batch.weight
    cost = residual.square().sum(0)
    normal, gradient = normal_equations(jacobian, residual)
    if batch.prior is not None:
        cost += batch.prior.cost(parameters)
        gradient += batch.prior.gradient(parameters)
        normal.diagonal().add_(batch.prior.precision)
    return Linearization(parameters, cost, gradient, normal)


def parameter_scales(normal: NormalMatrix, free: Tensor) -> Tensor:
    """Return u = N_pp^(-1/2), the change of a parameter that moves the prediction by one.

    Args:
        normal: Normal matrices N.
        free: (p, voxel) bool, false for held parameters.

    Returns:
        (p, voxel); zero for held parameters and for those that the data do not depend on.
    """
    diagonal = normal.diagonal()
    movable = free & (diagonal > torch.finfo(diagonal.dtype).tiny)
    return torch.where(movable, diagonal, 1.0).rsqrt() * movable


def _damped_step(point: Linearization, gradient: Tensor, scale: Tensor, damping: Tensor) -> tuple[Tensor, Tensor]:
    """Solve for Marquardt's step (p, voxel), zero where the scale is, and its decrement -gradient.step (voxel,)."""
    downhill = -gradient * scale
    scaled_step = point.normal.solve(downhill, scale, damping)
    return scaled_step * scale, (scaled_step * downhill).sum(0)


def _bounded_step(batch: VoxelBatch, point: Linearization, damping: Tensor) -> tuple[Tensor, Tensor]:
    """Take Marquardt's step within the bounds.

    Args:
        batch: Voxels with their bounds.
        point: Normal equations at the current parameters.
        damping: (voxel,).

    Returns:
        The parameters after the step, (p, voxel), and the decrement of the step before the bounds cut it, (voxel,).
    """
    lower, upper, parameters = batch.lower, batch.upper, point.parameters
    held = (parameters <= lower) & (point.gradient > 0)
    held |= (parameters >= upper) & (point.gradient < 0)
    scale = parameter_scales(point.normal, ~held)
    step, decrement = _damped_step(point, point.gradient, scale, damping)
    target = parameters + step
    inside = (target >= lower) & (target <= upper)
    cut = (~inside).any(0).nonzero().squeeze(1)  # voxels whose step crosses a bound
    if len(cut):
        part, crossing = point.at(cut), ~inside[:, cut]
        move = (target[:, cut].clamp(lower[:, cut], upper[:, cut]) - part.parameters) * crossing
        gradient = part.gradient + part.normal.times(move)
        step, _ = _damped_step(part, gradient, scale[:, cut] * ~crossing, damping[cut])
        target[:, cut] = part.parameters + step + move
    return target.clamp(lower, upper), decrement


class ActiveSet:
    """Voxels that are iterated together; those that have finished leave, and others may join.

    A voxel has converged when a nearly undamped step would lower its sum of squares by no more than the tolerance times
    that sum, or by no more than the rounding error of its data.

    Attributes:
        batch: Data, bounds and priors of the voxels.
        index: (voxel,) the numbers of these voxels in the whole fit.
        settings: Settings of the iterations.
        point: Normal equations at the best parameters so far.
        trial: (p, voxel) proposed parameters.
        status: (voxel,) ``Status``, 0 while a voxel is still running.
        iterations: (voxel,) number of proposals evaluated.
        damping: (voxel,) lambda.
        damping_increase: (voxel,) nu, by which a rejected step multiplies the damping.
        rounding_error: (voxel,) changes of the sum of squares below this are rounding errors.
    """

    def __init__(self, batch: VoxelBatch, start: Tensor, index: Tensor, settings: IterationSettings) -> None:
        """Evaluate the model at ``start`` (p, voxel), which lies within the bounds."""
        self.batch, self.index, self.settings = batch, index, settings
        self.point = _linearize(batch, start)
        finite = self.point.cost.isfinite() & self.point.normal.diagonal().isfinite().all(0)
        self.status = torch.where(finite, _RUNNING, int(Status.FAILED))
        self.iterations = torch.zeros_like(self.status)
        self.damping = torch.full_like(self.point.cost, settings.start_damping)
        self.damping_increase = torch.full_like(self.damping, 2.0)
        self.trial = start
        self.rounding_error = (4 * torch.finfo(start.dtype).eps) ** 2 * batch.data.square().sum(0)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def finished(self) -> Tensor:
        """Which voxels are not iterated any more; (voxel,) bool."""
        return self.status != _RUNNING

    def propose(self) -> None:
        """Do the first half of an iteration: propose a step and find the voxels that have converged."""
        point = self.point
        trial, decrement = _bounded_step(self.batch, point, self.damping)
        converged = decrement <= self.settings.tolerance * point.cost + self.rounding_error
        converged &= self.damping <= TRUSTED_DAMPING
        running = ~self.finished
        # The last step is too small to be worth an evaluation, but brings the parameters closer still.
        point.parameters = torch.where(converged & running, trial, point.parameters)
        converged |= (self.damping >= STALLED_DAMPING) | (trial == point.parameters).all(0)
        self.status[converged & running] = int(Status.CONVERGED)
        self.trial = trial

    def advance(self) -> None:
        """Do the second half: evaluate the model at the proposed parameters and accept them where the cost falls."""
        point, trial = self.point, self.trial
        running = ~self.finished
        self.iterations += running
        step = trial - point.parameters
        curvature = (point.normal.times(step) * step).sum(0)
        predicted = -2 * (point.gradient * step).sum(0) - curvature
        proposal = _linearize(self.batch, trial)
        reduction = point.cost - proposal.cost
        accepted = (reduction > 0) & (reduction >= SMALLEST_GAIN_RATIO * predicted) & running
        gain_ratio = (reduction / predicted.clamp_min(torch.finfo(predicted.dtype).tiny)).clamp(0, 1)
        self.point = point.where(accepted, proposal)
        decrease = (1 - (2 * gain_ratio - 1) ** 3).clamp_min(STRONGEST_DAMPING_DECREASE)
        self.damping = self.damping * torch.where(accepted, decrease, self.damping_increase)
        self.damping.clamp_min_(SMALLEST_DAMPING)
        self.damping_increase = torch.where(accepted, 2.0, 2 * self.damping_increase)
        self.status[running & (self.iterations >= self.settings.max_iterations)] = int(Status.ITERATION_LIMIT)

    def select(self, chosen: Tensor) -> ActiveSet:
        """Return the voxels at the positions ``chosen`` (n,) as a set of their own."""
        part = copy(self)
        part.batch, part.point = self.batch.at(chosen), self.point.at(chosen)
        part.trial = self.trial.index_select(-1, chosen)
        for name in _PER_VOXEL:
            setattr(part, name, getattr(self, name)[chosen])
        return part

    def joined(self, other: ActiveSet) -> ActiveSet:
        """Return the voxels of both sets as one set, these first."""
        both = copy(self)
        both.batch, both.point = self.batch.joined(other.batch), self.point.joined(other.point)
        both.trial = torch.cat((self.trial, other.trial), -1)
        for name in _PER_VOXEL:
            setattr(both, name, torch.cat((getattr(self, name), getattr(other, name))))
        return both


_PER_VOXEL = ("index", "status", "iterations", "damping", "damping_increase", "rounding_error")
