"""Starts, bounds and priors of the fitted values of a model, and which of the bounds nature sets."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...fitting.least_squares import FitResult
from ...fitting.problem import GaussianPrior
from ...fitting.statistics import with_natural_limits
from ..model import FitParameter


def bounds_of(parameters: Sequence[FitParameter], like: Tensor) -> tuple[Tensor, Tensor, Tensor, GaussianPrior | None]:
    """Return start, lower and upper bounds (p,) and the priors of a model, in dtype and on the device of ``like``."""
    start, lower, upper = (
        torch.tensor([getattr(p, name) for p in parameters]).to(like) for name in ("start", "lower", "upper")
    )
    if all(p.prior is None for p in parameters):
        return start, lower, upper, None
    priors = [(0.0, torch.inf) if p.prior is None else p.prior for p in parameters]
    return start, lower, upper, GaussianPrior(*torch.tensor(priors).to(like).T)


def at_natural_limits(fit: FitResult, parameters: Sequence[FitParameter], lower: Tensor, upper: Tensor) -> FitResult:
    """Tell amounts and rates of zero, which nature sets, from other bounds."""
    amount = torch.tensor([p.path.endswith((".fraction", ".k_Hz", "noise_floor")) for p in parameters])
    return with_natural_limits(fit, lower, upper, torch.stack((amount & (lower.cpu() == 0), torch.zeros_like(amount))))
