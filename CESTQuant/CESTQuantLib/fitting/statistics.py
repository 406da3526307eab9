"""Standard errors, correlations and goodness of fit from the normal equations at the solution."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .marquardt import ActiveSet, Status, scales


@dataclass(frozen=True)
class FitResult:
    """Fitted parameters of each voxel; NaN where the status says the voxel was not fitted.

    Attributes:
        parameters: (voxel, p).
        standard_errors: (voxel, p); variance RSS/(m - free parameters) (or the given noise's) times the
            inverse normal matrix. A parameter at a bound is no free parameter: its error is NaN, and those of
            the others hold given its value. NaN too where the data do not determine the parameter, or leave
            no freedom.
        correlation: (voxel, p, p) of the estimates, NaN in the same places; None if not asked for.
        rmse: (voxel,) root mean square of the residual over the valid measurements.
        status: (voxel,) uint8, see `Status`.
        iterations: (voxel,) int32.
    """

    parameters: Tensor
    standard_errors: Tensor
    correlation: Tensor | None
    rmse: Tensor
    status: Tensor
    iterations: Tensor

    @property
    def fitted(self) -> Tensor:
        """(voxel,) True where there are parameters."""
        return (
            (self.status == Status.CONVERGED)
            | (self.status == Status.AT_BOUND)
            | (self.status == Status.ITERATION_LIMIT)
        )


@dataclass(frozen=True)
class Summary:
    """Voxel-last outcome of a fit; NaN where the fit failed."""

    parameters: Tensor  # (p, voxel)
    standard_errors: Tensor  # (p, voxel)
    correlation: Tensor | None  # (p, p, voxel)
    rmse: Tensor  # (voxel,)
    status: Tensor  # (voxel,) uint8


def summarise(finished: ActiveSet, points: Tensor, noise_variance: Tensor | None, with_correlation: bool) -> Summary:
    """Summarise the fit of voxels that have finished.

    Args:
        points: (voxel,) number of valid measurements.
        noise_variance: (voxel,) where known; otherwise RSS / (points - free parameters).
    """
    problem, state, status, nan = finished.problem, finished.state, finished.status, torch.nan
    parameters = state.parameters
    free = (parameters > problem.lower) & (parameters < problem.upper)
    failed = status == Status.FAILED
    status = torch.where((status == Status.CONVERGED) & ~free.all(0), int(Status.AT_BOUND), status)

    residual_sum = state.cost
    if problem.prior_precision is not None:
        residual_sum = (state.cost - problem.prior_cost(parameters)).clamp_min(0)
    if noise_variance is None:
        freedom = points - free.sum(0)
        noise_variance = torch.where(freedom > 0, residual_sum / freedom.clamp_min(1), nan)

    unit = scales(state.normal, free)
    free = unit > 0
    inverse = state.normal.inverse(unit)
    variance = inverse.diagonal().T  # in scaled units: one for an uncorrelated parameter
    known = free & (variance < 0.1 / torch.finfo(variance.dtype).eps) & ~failed
    deviation = torch.where(known, variance, nan).sqrt()
    correlation = inverse / (deviation * deviation.unsqueeze(1)) if with_correlation else None
    return Summary(
        parameters=torch.where(failed, nan, parameters),
        standard_errors=deviation * unit * noise_variance.sqrt(),
        correlation=correlation,
        rmse=torch.where(failed, nan, (residual_sum / points).sqrt()),
        status=status.to(torch.uint8),
    )
