"""Fit of all voxels together under a Markov field: linearise, smooth, and fit every voxel given its neighbours.

The joint fit minimises the squared residuals of all voxels over the noise variance plus the neg-log probability of the
differences between neighbours (``markov_field``). From the voxels' own fits it repeats three steps:

1. Evaluate the model once and form the normal equations of every voxel.
2. Solve for all voxels at once by conjugate gradients, with the strength of the prior and its edges from the evidence.
3. Fit every voxel, with the full model and its bounds, given its neighbours: a Gaussian prior about their mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from NeuroCESTLib.core.messages.input_errors import InputError
from NeuroCESTLib.core.progress import Progress, part, silent

from ..least_squares import JACOBIAN_VALUES_PER_CHUNK, levenberg_marquardt
from ..problem import GaussianPrior, LeastSquaresProblem
from ..statistics import FitResult
from .markov_field import (
    Evidence,
    Field,
    conditional_prior,
    first_field,
    held_at_bounds,
    posterior_variance,
    smooth,
)
from .neighbors import Neighbors

ROUNDS = 3
SPARED = 0.2
"""Weight of a pair, relative to 1 for a typical one, below which the report counts it as an edge."""


@dataclass(frozen=True)
class SpatialFit:
    """A fit under the spatial prior.

    Attributes:
        result: Parameters with the standard deviations of their posterior.
        spread: (p,) tau: how much neighbours differ typically, in units of the parameters.
        error_ratio: (p,) median of the standard deviation over the standard error of the voxels' own fits.
        edges: Share of the neighbouring pairs across which hardly anything is smoothed.
        noise_sd: Standard deviation of a measurement that weighed data against neighbours.
    """

    result: FitResult
    spread: Tensor
    error_ratio: Tensor
    edges: float
    noise_sd: float

    def summary(self, names: Sequence[str]) -> Mapping[str, float]:
        """Return the numbers for the report; ``names`` are those of the parameters."""
        numbers = {"spatial_prior noise_sd": self.noise_sd, "spatial_prior edges": self.edges}
        for name, spread, ratio in zip(names, self.spread.tolist(), self.error_ratio.tolist(), strict=True):
            numbers[f"spatial_prior spread {name}"] = spread
            numbers[f"spatial_prior error_ratio {name}"] = ratio
        return {name: value for name, value in numbers.items() if math.isfinite(value)}


def pooled_noise(fit: FitResult, valid: Tensor | None, measurements: int) -> float:
    """Estimate the noise of a measurement from the residuals of all voxels: the median over voxels.

    Raises:
        ValueError: No voxel has more measurements than fitted values.
    """
    used = torch.full_like(fit.rmse, measurements) if valid is None else valid.sum(1).to(fit.rmse)
    degrees = used - fit.standard_errors.isfinite().sum(1)
    variance = (fit.rmse.square() * used / degrees)[fit.fitted & (degrees > 0)]
    if not len(variance):
        raise InputError(
            "noise-sd", "the spatial prior needs the noise of the signal, which no residual tells: give it (noise_sd)"
        )
    return math.sqrt(float(variance.median()))


def fit_with_neighbors(
    own: FitResult,
    problem: LeastSquaresProblem,
    neighbors: Neighbors,
    *,
    max_iterations: int = 60,
    tolerance: float | None = None,
    chunk_voxels: int | None = None,
    threads: int | None = None,
    progress: Progress = silent,
) -> SpatialFit:
    """Fit all voxels under the spatial prior.

    Voxels that have no fit of their own take no part and keep what they have.

    Args:
        own: The voxels' own fits.
        problem: What they fit; ``noise_sd``, where given, weighs the data against the neighbours.
        neighbors: Pairs of neighbouring voxels.
        max_iterations: As in ``levenberg_marquardt``.
        tolerance: As in ``levenberg_marquardt``.
        chunk_voxels: As in ``levenberg_marquardt``.
        threads: As in ``levenberg_marquardt``.
        progress: Called with the share that is done; what it raises cancels the fit.

    Raises:
        ValueError: The noise is not given and cannot be estimated.
    """
    if problem.noise_sd is None:
        noise = pooled_noise(own, problem.valid, problem.data.shape[1])
    else:
        noise = float(problem.noise_sd.median())
    usable = own.fitted & own.parameters.isfinite().all(1)
    index = torch.nonzero(usable).flatten()
    pairs = neighbors.among(usable)
    if not len(pairs):
        nothing = own.parameters.new_full((problem.parameter_count,), torch.nan)
        return SpatialFit(own, nothing, nothing, math.nan, noise)
    joint = _of_voxels(problem, index, noise)
    values, result = own.parameters[index], own
    precision, gradient = _normal_equations(joint, values, noise, chunk_voxels)
    units = precision.diagonal(dim1=1, dim2=2).clamp_min(1e-30).rsqrt().median(0).values
    lower, upper = (bound.double() / units for bound in (joint.lower, joint.upper))
    field = first_field(_evidence(precision, gradient, values.double(), units), pairs)
    of_rounds = part(progress, 0.0, 0.8)
    for number in range(ROUNDS):
        of_rounds(number / ROUNDS, "Spatial prior")
        evidence = _evidence(precision, gradient, values.double(), units)
        evidence = held_at_bounds(evidence, pairs, field, lower, upper)
        of_smoothing = part(of_rounds, (number + 0.2) / ROUNDS, (number + 0.5) / ROUNDS)
        smoothed, field = smooth(evidence, pairs, field, progress=of_smoothing)
        smoothed = smoothed.clamp(lower, upper)
        mean, pull = conditional_prior(smoothed, pairs, field)
        prior = _combined(joint.prior, mean * units, pull / units.square())
        result = levenberg_marquardt(
            joint.model,
            joint.data,
            (smoothed * units).to(joint.data),
            joint.lower,
            joint.upper,
            arguments=joint.arguments,
            valid=joint.valid,
            prior_mean=prior.mean,
            prior_sd=prior.sd,
            noise_sd=noise,
            max_iterations=max_iterations,
            tolerance=tolerance,
            start_damping=1e-3,
            chunk_voxels=chunk_voxels,
            threads=threads,
            progress=part(of_rounds, (number + 0.5) / ROUNDS, (number + 1) / ROUNDS),
        )
        values = torch.where(result.parameters.isfinite(), result.parameters, values)
        precision, gradient = _normal_equations(joint, values, noise, chunk_voxels)
    evidence = _evidence(precision, gradient, values.double(), units)
    evidence = replace(evidence, free=result.standard_errors.isfinite())
    variance = posterior_variance(evidence, pairs, field, progress=part(progress, 0.8, 1.0))
    deviation = (variance.sqrt() * units).to(result.standard_errors)
    result = replace(result, standard_errors=deviation)
    ratio = (deviation / own.standard_errors[index]).nanmedian(0).values
    return SpatialFit(own.replaced(result, index), field.spread * units, ratio, _share_of_edges(field), noise)


def _share_of_edges(field: Field) -> float:
    return float((field.weight < SPARED * field.weight.median()).double().mean())


def _of_voxels(problem: LeastSquaresProblem, index: Tensor, noise: float) -> LeastSquaresProblem:
    """Return the problem of some voxels (n,)."""

    def chosen(values: Tensor) -> Tensor:
        return values[index] if values.ndim == 2 else values

    prior = problem.prior
    return replace(
        problem,
        data=problem.data[index],
        start=chosen(problem.start),
        lower=chosen(problem.lower),
        upper=chosen(problem.upper),
        arguments=tuple(argument[index] for argument in problem.arguments),
        valid=None if problem.valid is None else problem.valid[index],
        prior=None if prior is None else GaussianPrior(chosen(prior.mean), chosen(prior.sd)),
        noise_sd=torch.full_like(problem.data[index][:, 0], noise),
        different=None if problem.different is None else problem.different[index],
    )


def _normal_equations(
    problem: LeastSquaresProblem, values: Tensor, noise: float, chunk_voxels: int | None
) -> tuple[Tensor, Tensor]:
    """Return precision (voxel, p, p) and gradient (voxel, p) of data and model priors at ``values``, float64."""
    voxels, count = values.shape
    chunk = chunk_voxels or max(1024, JACOBIAN_VALUES_PER_CHUNK // (count * problem.data.shape[1]))
    precision = values.new_empty(voxels, count, count, dtype=torch.float64)
    gradient = values.new_empty(voxels, count, dtype=torch.float64)
    for first in range(0, voxels, chunk):
        part_ = slice(first, min(first + chunk, voxels))
        batch = problem.batch(torch.arange(part_.start, part_.stop, device=values.device), problem.used_data(part_))
        at = values[part_].T.contiguous()
        prediction, jacobian = batch.model(at, *batch.arguments)
        residual = prediction - batch.data
        if batch.weight is not None:
            residual, jacobian = residual * batch.weight, jacobian * batch.weight
        rows = jacobian.permute(2, 0, 1)
        normal = torch.bmm(rows, rows.transpose(1, 2))
        slope = torch.bmm(rows, residual.T.unsqueeze(2)).squeeze(2)
        if batch.prior is not None:
            normal = normal + torch.diag_embed(batch.prior.precision.T)
            slope = slope + batch.prior.gradient(at).T
        precision[part_], gradient[part_] = normal, slope
    return precision.nan_to_num() / noise**2, gradient.nan_to_num() / noise**2


def _evidence(precision: Tensor, gradient: Tensor, values: Tensor, units: Tensor) -> Evidence:
    """Scale the linearised fit about ``values`` (voxel, p) by the units (p,)."""
    linear = torch.einsum("vpq,vq->vp", precision, values) - gradient
    return Evidence(
        precision * units * units.unsqueeze(1),
        linear * units,
        torch.ones_like(values, dtype=torch.bool),
        values / units,
    )


def _combined(prior: GaussianPrior | None, mean: Tensor, precision: Tensor) -> GaussianPrior:
    """Join the pull of the neighbours, (voxel, p) each, with the priors of the model."""
    if prior is not None:
        own = prior.sd.to(precision).square().reciprocal()
        mean = (precision * mean + own * prior.mean.to(mean)) / (precision + own).clamp_min(1e-300)
        precision = precision + own
    return GaussianPrior(mean, precision.rsqrt())
