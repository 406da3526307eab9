"""Standard errors, correlations and goodness of fit from the normal equations at the solution."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from . import voxelwise_cholesky
from .marquardt import Problem, State, Status, scales


@dataclass(frozen=True)
class Summary:
    """Voxel-last outcome of a chunk; NaN where the fit failed."""

    parameters: Tensor  # (p, voxel)
    standard_errors: Tensor  # (p, voxel)
    correlation: Tensor | None  # (p, p, voxel)
    rmse: Tensor  # (voxel,)
    status: Tensor  # (voxel,) uint8


def summarise(
    problem: Problem,
    state: State,
    status: Tensor,
    points: Tensor,
    noise_variance: Tensor | None,
    with_correlation: bool,
) -> Summary:
    """Summarise a chunk's fit.

    Args:
        status: (voxel,) as `fit_chunk` left it.
        points: (voxel,) number of valid measurements.
        noise_variance: (voxel,) where known; otherwise RSS / (points - free parameters).
    """
    parameters, nan = state.parameters, torch.nan
    free = (parameters > problem.lower) & (parameters < problem.upper)
    failed = status == Status.FAILED
    status = torch.where((status == Status.CONVERGED) & ~free.all(0), int(Status.AT_BOUND), status)

    residual_sum = state.cost
    if problem.prior_precision is not None:
        residual_sum = (state.cost - problem.prior_cost(parameters)).clamp_min(0)
    if noise_variance is None:
        freedom = points - free.sum(0)
        noise_variance = torch.where(freedom > 0, residual_sum / freedom.clamp_min(1), nan)

    unit = scales(state.normal_matrix, free)
    free = unit > 0
    matrix = state.normal_matrix * unit * unit.unsqueeze(1)
    matrix.diagonal().copy_(torch.ones_like(unit.T))
    inverse = voxelwise_cholesky.inverse(matrix)
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
