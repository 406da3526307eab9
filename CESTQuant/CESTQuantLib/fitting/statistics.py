"""Standard errors, correlations and goodness of fit from the normal equations at the solution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .marquardt import ActiveSet, Status, parameter_scales
from .problem import Model

VOXELS_PER_CHUNK = 4096
"""Voxels whose Jacobians are held at a time."""
SMALLEST_CURVATURE = 1e-12
"""Added to the diagonal of scaled normal matrices, which keeps them regular."""
LOW_CHI_SQUARE = 0.3
"""Median reduced chi-square that no right noise gives, however few degrees of freedom there are."""
FEWEST_CHI_SQUARES = 20
"""Voxels that this median needs."""


@dataclass(frozen=True)
class FitResult:
    """Fitted parameters of every voxel; NaN where the status says that the voxel was not fitted.

    Attributes:
        parameters: (voxel, p).
        standard_errors: (voxel, p). The covariance is the noise variance times the inverse normal matrix; the noise
            variance is the given one, or the residual sum of squares over (m - free parameters). A parameter at a
            bound is not free: its error is NaN, and those of the others hold given its value. Errors are NaN also where
            the data do not determine the parameter or leave no degree of freedom.
        correlation: (voxel, p, p) of the estimates, NaN in the same places; None if not asked for.
        rmse: (voxel,) root mean square of the residual over the valid measurements, in units of the data.
        status: (voxel,) uint8, see ``Status``.
        iterations: (voxel,) int32.
        cost: (voxel,) root of what the fit minimised, the squares of residual and priors, over the valid measurements,
            in units of the data; without priors it is ``rmse``.
    """

    parameters: Tensor
    standard_errors: Tensor
    correlation: Tensor | None
    rmse: Tensor
    status: Tensor
    iterations: Tensor
    cost: Tensor

    @property
    def fitted(self) -> Tensor:
        """Which voxels have parameters; (voxel,) bool."""
        return (
            (self.status == Status.CONVERGED)
            | (self.status == Status.AT_BOUND)
            | (self.status == Status.AT_NATURAL_LIMIT)
            | (self.status == Status.ITERATION_LIMIT)
        )

    def replaced_where_better(self, other: FitResult, index: Tensor) -> FitResult:
        """Return the fit in which voxels are those of another fit where that is fitted at a lower cost.

        Args:
            other: Fit of n voxels.
            index: Their indices (n,) in this fit.
        """
        worst = torch.full_like(other.cost, torch.inf)
        here = torch.where(self.fitted[index], self.cost[index], worst)
        better = torch.where(other.fitted, other.cost, worst) < here
        return self.replaced(other, index[better], better)

    def replaced(self, other: FitResult, index: Tensor, chosen: Tensor | None = None) -> FitResult:
        """Return the fit in which voxels are those of another fit.

        Args:
            other: Fit of n voxels.
            index: Indices in this fit of those that are taken from the other one.
            chosen: Which voxels of the other fit these are, (n,) bool; None for all, in the order of ``index`` (n,).
        """

        def merged(old: Tensor, new: Tensor) -> Tensor:
            result = old.clone()
            result[index] = (new if chosen is None else new[chosen]).to(old.dtype)
            return result

        correlation = self.correlation
        if correlation is not None and other.correlation is not None:
            correlation = merged(correlation, other.correlation)
        return FitResult(
            merged(self.parameters, other.parameters),
            merged(self.standard_errors, other.standard_errors),
            correlation,
            merged(self.rmse, other.rmse),
            merged(self.status, other.status),
            merged(self.iterations, other.iterations),
            merged(self.cost, other.cost),
        )


def reduced_chi_square(fit: FitResult, noise_sd: float | Tensor, valid: Tensor | None, measurements: int) -> Tensor:
    """Compute the sum of squared residuals over the noise variance and the degrees of freedom.

    It is about 1 where the model explains the signal, for any model; its standard deviation is then the root of 2 over
    the degrees of freedom, the measurements without the free parameters.

    Args:
        fit: Result of a fit.
        noise_sd: Standard deviation of a measurement, one value or (voxel,).
        valid: (voxel, m) bool, the measurements that were used; None for all.
        measurements: m.

    Returns:
        (voxel,); NaN where the voxel is not fitted or no degree of freedom is left.
    """
    used = torch.full_like(fit.rmse, measurements) if valid is None else valid.sum(1).to(fit.rmse)
    degrees = used - fit.standard_errors.isfinite().sum(1)
    square = fit.rmse.square() * used / degrees.clamp_min(1) / noise_sd**2
    return torch.where(degrees > 0, square, torch.nan)


def noise_warnings(chi_square: Tensor, noise_sd: float) -> tuple[str, ...]:
    """Return a sentence where residuals are much smaller than the noise that is taken for theirs.

    Args:
        chi_square: (voxel,) reduced chi-square; NaN where there is none.
        noise_sd: Standard deviation of a measurement, for the message.
    """
    known = chi_square[torch.isfinite(chi_square)]
    if len(known) < FEWEST_CHI_SQUARES or not float(known.median()) < LOW_CHI_SQUARE:
        return ()
    return (
        f"the residuals are much smaller than the noise of {noise_sd:.2g} (median of chi2_reduced "
        f"{float(known.median()):.2g}, where about 1 is expected), so that what follows from it is wrong: check the "
        "noise (noise_sd), and that repeated measurements differ in nothing but noise",
    )


def with_natural_limits(fit: FitResult, lower: Tensor, upper: Tensor, natural: Tensor) -> FitResult:
    """Tell voxels at a limit that nature sets from those at a bound that only the model sets.

    Args:
        fit: Result of a fit.
        lower: Its lower bounds (p,).
        upper: Its upper bounds (p,).
        natural: Whether a parameter at a bound may stay there: (2, p) for the lower and the upper bounds, or
            (2, voxel, p).

    Returns:
        The result, in which voxels have the status ``AT_NATURAL_LIMIT`` if they were ``AT_BOUND`` and all their
        parameters at bounds may stay there, as fixed ones (whose bounds are equal) always may.
    """
    if not bool(natural.any()):
        return fit
    doubtful = at_doubtful_bounds(fit.parameters, lower, upper, natural)
    excused = (fit.status == Status.AT_BOUND) & ~doubtful.any(1)
    return replace(fit, status=torch.where(excused, int(Status.AT_NATURAL_LIMIT), fit.status).to(torch.uint8))


def at_doubtful_bounds(parameters: Tensor, lower: Tensor, upper: Tensor, natural: Tensor) -> Tensor:
    """Return which parameters (voxel, p) lie at a bound that only the model sets; see ``with_natural_limits``."""
    below = parameters <= lower.to(parameters)
    above = parameters >= upper.to(parameters)
    natural = natural.to(parameters.device)
    return ((below & ~natural[0]) | (above & ~natural[1])) & (lower < upper).to(parameters.device)


def with_reference_noise(
    fit: FitResult,
    model: Model,
    reference_noise: float,
    valid: Tensor | None = None,
    arguments: Sequence[Tensor] = (),
) -> FitResult:
    """Widen the standard errors by the noise of M0, which changes all signals of a voxel in proportion.

    A fit to signals that are too high by a share e moves by ``e N^-1 J^T Z``, with the Jacobian J of the free
    parameters, ``N = J^T J`` and the fitted signals Z. So the variance of a parameter grows by the factor
    ``1 + r (N^-1 J^T Z)^2 / N^-1``, where r is the variance of M0 relative to that of a measurement. A fit under the
    spatial prior averages this part of the noise over neighbours as it does the other one, and has the same factor.

    Args:
        fit: Fit without priors of single parameters.
        model: Prediction (measurement, voxel) and Jacobian (p, measurement, voxel) of parameters (p, voxel) and of
            ``arguments`` (.., voxel).
        reference_noise: r, see ``ZSpectra``.
        valid: (voxel, measurement) bool, the measurements that were used; None for all.
        arguments: Tensors (voxel, ..), such as offsets that differ between voxels.
    """
    errors = fit.standard_errors.clone()
    free = errors.isfinite()
    index = torch.nonzero(fit.fitted & free.any(1)).flatten()
    for some in index.split(VOXELS_PER_CHUNK) if len(index) else ():
        signal, jacobian = model(fit.parameters[some].T, *(argument[some].T for argument in arguments))
        columns = (jacobian.permute(2, 1, 0) * free[some].unsqueeze(1)).double()
        if valid is not None:
            columns = columns * valid[some].unsqueeze(2)
        scaled, inverse, _ = _scaled_normal_equations(columns)
        response = (inverse @ (scaled.mT @ signal.T.double().unsqueeze(2))).squeeze(2)
        factor = 1 + reference_noise * response.square() / inverse.diagonal(dim1=1, dim2=2)
        errors[some] *= factor.sqrt().to(errors.dtype)
    return replace(fit, standard_errors=errors)


def estimator_gain(columns: Tensor) -> Tensor:
    """Return the matrices (voxel, p, m) by which the noise of the measurements moves the estimates.

    Args:
        columns: (voxel, m, p) float64 Jacobians; columns and rows of zeros are those of held parameters and of
            measurements that are left out.
    """
    scaled, inverse, size = _scaled_normal_equations(columns)
    return inverse @ scaled.mT / torch.where(size > 0, size, 1.0).unsqueeze(2)


def errors_of_unequal_noise(columns: Tensor, noise: Tensor, residual_sum: Tensor) -> Tensor:
    """Compute standard errors of an unweighted fit whose measurements are not equally noisy.

    The estimates move by ``G e`` with the noise e and the gain ``G = (J^T J)^-1 J^T``, and what is left of it in the
    residual is ``(I - J G) e``. So where the noise is known up to a factor, the residual tells this factor, and the
    covariance is ``G diag(noise^2) G^T`` times its square.

    Args:
        columns: (voxel, m, p) float64 Jacobians J, as for ``estimator_gain``.
        noise: (voxel, m) standard deviations of the measurements up to a factor per voxel.
        residual_sum: (voxel,) sum of the squared residuals.

    Returns:
        (voxel, p); NaN or infinite where no degree of freedom is left.
    """
    gain = estimator_gain(columns)
    left = 1 - (columns * gain.mT).sum(2)
    scale = residual_sum / (left * noise.square()).sum(1)
    return ((gain * noise.unsqueeze(1)).square().sum(2) * scale.unsqueeze(1)).sqrt()


def _scaled_normal_equations(columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return columns (voxel, m, p) of unit length, the inverse of their normal matrix, and the lengths (voxel, p)."""
    size = torch.linalg.vector_norm(columns, dim=1)
    scaled = columns / torch.where(size > 0, size, 1.0).unsqueeze(1)
    normal = scaled.mT @ scaled + torch.diag_embed((size == 0) * 1.0 + SMALLEST_CURVATURE)
    return scaled, torch.linalg.inv(normal), size


@dataclass(frozen=True)
class Summary:
    """Outcome of the fit of a batch of voxels, voxel-last; NaN where the fit failed.

    Attributes:
        parameters: (p, voxel).
        standard_errors: (p, voxel).
        correlation: (p, p, voxel); None if not asked for.
        rmse: (voxel,).
        status: (voxel,) uint8.
        cost: (voxel,).
    """

    parameters: Tensor
    standard_errors: Tensor
    correlation: Tensor | None
    rmse: Tensor
    status: Tensor
    cost: Tensor


def summarize(
    finished: ActiveSet, valid_counts: Tensor, noise_variance: Tensor | None, with_correlation: bool
) -> Summary:
    """Summarise the fit of voxels that have finished.

    Args:
        finished: The voxels with the normal equations at their solution.
        valid_counts: (voxel,) number of valid measurements.
        noise_variance: (voxel,) where known; None to estimate it as RSS / (valid measurements - free parameters).
        with_correlation: Whether to give the correlation matrices.
    """
    batch, point, status, nan = finished.batch, finished.point, finished.status, torch.nan
    parameters = point.parameters
    free = (parameters > batch.lower) & (parameters < batch.upper)
    failed = status == Status.FAILED
    stopped = ~free & (batch.lower < batch.upper)  # equal bounds only fix a parameter
    status = torch.where((status == Status.CONVERGED) & stopped.any(0), int(Status.AT_BOUND), status)

    residual_sum = point.cost
    if batch.prior is not None:
        residual_sum = (point.cost - batch.prior.cost(parameters)).clamp_min(0)
    if noise_variance is None:
        degrees_of_freedom = valid_counts - free.sum(0)
        noise_variance = torch.where(degrees_of_freedom > 0, residual_sum / degrees_of_freedom.clamp_min(1), nan)

    scale = parameter_scales(point.normal, free)
    free = scale > 0
    inverse = point.normal.inverse(scale)
    variance = inverse.diagonal().T  # of the scaled parameters: one where a parameter is uncorrelated with the others
    determined = free & (variance < 0.1 / torch.finfo(variance.dtype).eps) & ~failed
    deviation = torch.where(determined, variance, nan).sqrt()
    correlation = inverse / (deviation * deviation.unsqueeze(1)) if with_correlation else None
    return Summary(
        parameters=torch.where(failed, nan, parameters),
        standard_errors=deviation * scale * noise_variance.sqrt(),
        correlation=correlation,
        rmse=torch.where(failed, nan, (residual_sum / valid_counts).sqrt()),
        status=status.to(torch.uint8),
        cost=torch.where(failed, nan, (point.cost / valid_counts).sqrt()),
    )
