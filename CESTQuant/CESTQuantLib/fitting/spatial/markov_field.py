"""A Markov field over neighbouring voxels, whose strength and edges follow from the data.

The voxels' data say of their parameters x (one vector per voxel, in units of a typical standard error)::

    -log p(data | x) = sum_v (x_v^T H_v x_v) / 2 - b_v^T x_v + constant

which is a linearised fit. Differences of neighbours have a scaled t distribution, common to all parameters of a pair::

    p(x_i - x_j) = integral over w of  N(0, tau^2 / (c w))  Gamma(w | nu / 2, nu / 2)

with the closeness c of the pair and one tau per parameter: small differences are smoothed as by a Gaussian Markov
field, while a pair across an edge gets a small weight w. Evidence (type II maximum likelihood) sets tau, by expectation
maximisation with a mean-field posterior of w (Lange et al., J Am Stat Assoc 1989;84:881, with the faster step of Kent
et al., J Stat Comput Simul 1994;50:103). Variances come from draws of the posterior by perturbation (Papandreou and
Yuille, NIPS 2010), in closed form within a voxel and sampled only for its neighbours (Siden et al., J Comput Graph
Stat 2018;27:274).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from NeuroCESTLib.core.progress import Progress, silent

from .neighbors import Neighbors

DEGREES_OF_FREEDOM = 1.0
"""nu of the t distribution: the smaller, the more an edge is spared."""
STEPS = 6
"""Expectation-maximisation steps for one linearisation."""
DRAWS = 2
"""Posterior draws from which these steps take the variance of differences; voxels make up for their small number."""
DRAWS_OF_VARIANCE = 12
CONJUGATE_GRADIENT_STEPS = 60
CONJUGATE_GRADIENT_TOLERANCE = 1e-3
SMALLEST_SPREAD = 0.25
"""Smallest tau, in units of the error of a parameter that is fitted alone.

Likelihoods of spreads far below the noise are flat, and expectation maximisation would drift to zero: a map in steps,
whose posterior promises what the data cannot say. With this limit noise still falls to about a sixth."""


@dataclass(frozen=True)
class Evidence:
    """What the data of all voxels say about their parameters.

    Attributes:
        precision: H, (voxel, p, p).
        linear: b, (voxel, p).
        free: (voxel, p) bool, false for parameters that are held.
        values: (voxel, p) current parameters; held ones keep them.
    """

    precision: Tensor
    linear: Tensor
    free: Tensor
    values: Tensor


@dataclass(frozen=True)
class Field:
    """State of the Markov field.

    Attributes:
        spread: tau, (p,), in units of the evidence.
        weight: w, (pair,).
    """

    spread: Tensor
    weight: Tensor


def first_field(evidence: Evidence, neighbors: Neighbors) -> Field:
    """Start from the differences that the voxels' own estimates have, noise included."""
    typical = neighbors.differences(evidence.values.T).abs().median(1).values / 0.6745
    return Field((0.5 * typical).clamp_min(SMALLEST_SPREAD), torch.ones_like(neighbors.closeness))


class _Posterior:
    """The Gaussian posterior of all voxels for given weights and spreads."""

    def __init__(self, evidence: Evidence, neighbors: Neighbors, field: Field) -> None:
        self.evidence, self.neighbors = evidence, neighbors
        self.coupling = (neighbors.closeness * field.weight / field.spread.square().unsqueeze(1)).to(evidence.precision)
        self.voxels = len(evidence.precision)
        self.pull = neighbors.summed(self.coupling, self.voxels).T  # (voxel, p)
        free = evidence.free.to(evidence.precision)
        block = evidence.precision * free.unsqueeze(1) * free.unsqueeze(2)
        block = block + torch.diag_embed(self.pull * free + (1 - free) + 1e-6)
        factor, _ = torch.linalg.cholesky_ex(block)
        self.conditional = torch.cholesky_inverse(factor)  # (voxel, p, p): covariance given the neighbours
        self.free = free

    def _apply(self, vectors: Tensor) -> Tensor:
        """Multiply vectors (draw, voxel, p) by the precision of the free parameters."""
        own = torch.einsum("vpq,dvq->dvp", self.evidence.precision, vectors)
        return (own + self.coupled(vectors)) * self.free

    def coupled(self, vectors: Tensor) -> Tensor:
        """Multiply vectors (draw, voxel, p) by the precision of the field alone."""
        differences = self.neighbors.differences(vectors.transpose(1, 2))
        return self.neighbors.gathered(self.coupling * differences, self.voxels).transpose(1, 2)

    def solve(self, right: Tensor, start: Tensor) -> Tensor:
        """Solve for vectors (draw, voxel, p) by conjugate gradients from ``start``, preconditioned voxel by voxel."""
        solution = start * self.free
        residual = right * self.free - self._apply(solution)
        stop = CONJUGATE_GRADIENT_TOLERANCE**2 * self._norm(right * self.free)
        ahead = self._preconditioned(residual)
        direction, energy = ahead, (residual * ahead).sum((1, 2))
        for _ in range(CONJUGATE_GRADIENT_STEPS):
            if bool((energy <= stop).all()):
                break
            image = self._apply(direction)
            length = energy / (direction * image).sum((1, 2)).clamp_min(1e-30)
            solution = solution + length[:, None, None] * direction
            residual = residual - length[:, None, None] * image
            ahead = self._preconditioned(residual)
            following = (residual * ahead).sum((1, 2))
            direction = ahead + (following / energy.clamp_min(1e-30))[:, None, None] * direction
            energy = following
        return solution

    def _preconditioned(self, vectors: Tensor) -> Tensor:
        return torch.einsum("vpq,dvq->dvp", self.conditional, vectors) * self.free

    def _norm(self, vectors: Tensor) -> Tensor:
        return (vectors * self._preconditioned(vectors)).sum((1, 2))

    def mean(self, start: Tensor) -> Tensor:
        """Return the most probable parameters (voxel, p)."""
        evidence = self.evidence
        held = evidence.values * (1 - self.free)
        moved = torch.einsum("vpq,vq->vp", evidence.precision, held) + self.coupled(held.unsqueeze(0))[0]
        return self.solve((evidence.linear - moved).unsqueeze(0), start.unsqueeze(0))[0] + held

    def perturbations(self, noise: Noise) -> Tensor:
        """Return right-hand sides (draw, voxel, p) whose solutions are draws of the posterior about its mean."""
        diagonal = torch.diag_embed(self.evidence.precision.diagonal(dim1=1, dim2=2).clamp_min(1e-6) * 1e-6)
        factor, failed = torch.linalg.cholesky_ex(self.evidence.precision + diagonal)
        factor = torch.where((failed == 0)[:, None, None], factor, 0.0)
        own = torch.einsum("vpq,dvq->dvp", factor, noise.voxels)
        between = self.neighbors.gathered(self.coupling.sqrt() * noise.pairs, self.voxels).transpose(1, 2)
        return own + between


@dataclass(frozen=True)
class Noise:
    """Standard normal numbers: (draw, voxel, p) and (draw, p, pair)."""

    voxels: Tensor
    pairs: Tensor

    @classmethod
    def draw(cls, count: int, evidence: Evidence, neighbors: Neighbors, seed: int) -> Noise:
        generator = torch.Generator().manual_seed(seed)
        voxels, parameters = evidence.linear.shape

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator).to(evidence.linear)

        return cls(normal(count, voxels, parameters), normal(count, parameters, len(neighbors)))


def smooth(
    evidence: Evidence, neighbors: Neighbors, field: Field, steps: int = STEPS, progress: Progress = silent
) -> tuple[Tensor, Field]:
    """Find the most probable parameters (voxel, p), and the field that the evidence asks for.

    Args:
        evidence: What the data of each voxel say.
        neighbors: Pairs of neighbouring voxels.
        field: Field to start from.
        steps: Number of rounds in which parameters and field are found in turn.
        progress: Called in every round; what it raises cancels the work.
    """
    noise = Noise.draw(DRAWS, evidence, neighbors, seed=1)
    mean, draws = evidence.values, torch.zeros_like(noise.voxels)
    voxels, parameters = evidence.values.shape
    # Differences around a loop add up to zero: the pairs of a grid are as many independent ones as it has voxels.
    independent = min(1.0, voxels / len(neighbors))
    for number in range(steps):
        progress(number / steps, "Spatial prior")
        posterior = _Posterior(evidence, neighbors, field)
        mean = posterior.mean(mean)
        draws = posterior.solve(posterior.perturbations(noise), draws)
        difference = neighbors.differences(mean.T).square()
        sampled = neighbors.differences(draws.transpose(1, 2)).square().mean(0)
        own = posterior.conditional.diagonal(dim1=1, dim2=2) * posterior.free
        local = own.T.index_select(1, neighbors.first) + own.T.index_select(1, neighbors.second)
        closeness = neighbors.closeness.to(difference)
        misfit = closeness * (difference + local) / field.spread.square().unsqueeze(1)
        weight = (DEGREES_OF_FREEDOM + independent * parameters) / (DEGREES_OF_FREEDOM + misfit.sum(0))
        scaled = (closeness * weight * (difference + sampled)).sum(1) / (independent * weight.sum())
        field = Field(scaled.sqrt().clamp_min(SMALLEST_SPREAD), weight)
    return _Posterior(evidence, neighbors, field).mean(mean), field


def conditional_prior(values: Tensor, neighbors: Neighbors, field: Field) -> tuple[Tensor, Tensor]:
    """Return mean and precision, (voxel, p) each, of every voxel given its neighbours."""
    coupling = (neighbors.closeness * field.weight / field.spread.square().unsqueeze(1)).to(values)
    columns = values.T
    precision = neighbors.summed(coupling, len(values))
    pull = neighbors.gathered(coupling * neighbors.differences(columns), len(values))
    mean = columns - pull / precision.clamp_min(1e-30)
    return mean.T, precision.T


def posterior_variance(evidence: Evidence, neighbors: Neighbors, field: Field, progress: Progress = silent) -> Tensor:
    """Return the marginal variance (voxel, p) of every parameter, and NaN for held ones.

    Args:
        evidence: What the data of each voxel say.
        neighbors: Pairs of neighbouring voxels.
        field: Field that the evidence asks for.
        progress: Called for every draw; what it raises cancels the work.
    """
    posterior = _Posterior(evidence, neighbors, field)
    total = torch.zeros_like(evidence.linear)
    for number in range(DRAWS_OF_VARIANCE):  # one at a time: memory does not grow with their number
        progress(number / DRAWS_OF_VARIANCE, "Standard errors under the spatial prior")
        noise = Noise.draw(1, evidence, neighbors, seed=100 + number)
        draw = posterior.solve(posterior.perturbations(noise), torch.zeros_like(noise.voxels))
        from_neighbors = posterior.pull * draw - posterior.coupled(draw)
        total += torch.einsum("vpq,vq->vp", posterior.conditional, (from_neighbors * posterior.free)[0]).square()
    variance = posterior.conditional.diagonal(dim1=1, dim2=2) + total / DRAWS_OF_VARIANCE
    return torch.where(evidence.free, variance, torch.nan)


def held_at_bounds(evidence: Evidence, neighbors: Neighbors, field: Field, lower: Tensor, upper: Tensor) -> Evidence:
    """Hold the parameters that lie at a bound while data and neighbours push them outwards."""
    posterior = _Posterior(replace(evidence, free=torch.ones_like(evidence.free)), neighbors, field)
    uphill = posterior._apply(evidence.values.unsqueeze(0))[0] - evidence.linear
    outwards = (evidence.values <= lower) & (uphill > 0)
    outwards |= (evidence.values >= upper) & (uphill < 0)
    return replace(evidence, free=~outwards)
