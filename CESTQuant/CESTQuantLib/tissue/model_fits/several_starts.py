"""Several starts of a fit with several minima, and the best of the minima that they lead to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...fitting.least_squares import FitResult
from ..model import FitParameter

WIDE_RANGE = 1000.0
"""Ratio of the bounds of an exchange rate from which a fit starts from several rates."""
SLOWEST_HZ = 5.0
"""Rates below this hardly differ in their spectra."""
BEST_SEEN_HZ = 300.0
"""Rate of which the fewest protons are seen, in round numbers."""
FURTHER_STARTS = 5
PROMISING, ANALYTIC_ERROR = 1.5, 2e-3
"""Cost of another minimum of the R1rho fit, relative to the best one and beyond it, up to which it is tried."""
SUSPICIOUS = 1.3
"""Cost in units of the volume's median from which a voxel is fitted again from all starts."""


def start_points(parameters: Sequence[FitParameter]) -> list[Tensor | None]:
    """Return the starts of a fit: that of the model (None), and others where exchange rates have wide bounds.

    Slow exchange of many protons and fast exchange of few give similar spectra at one power, so a fit whose rate may
    lie anywhere over more than three orders of magnitude has several minima.

    Args:
        parameters: Fitted values of the model.

    Returns:
        None, followed by values (p,) in the order of the parameters.
    """
    wide = [p.path.endswith(".k_Hz") and p.upper > WIDE_RANGE * max(p.lower, SLOWEST_HZ) for p in parameters]
    if not any(wide):
        return [None]
    starts: list[Tensor | None] = [None]
    for share in torch.linspace(0.15, 0.95, FURTHER_STARTS).tolist():
        values = {parameter.path: parameter.start for parameter in parameters}
        for parameter, varied in zip(parameters, wide, strict=True):
            if varied:
                low = max(parameter.lower, SLOWEST_HZ)
                rate = low * (parameter.upper / low) ** share
                values[parameter.path] = rate
                fraction = f"{parameter.path.removesuffix('.k_Hz')}.fraction"
                if fraction in values:  # very slow and very fast exchange both take more protons to be seen
                    ratio = rate / BEST_SEEN_HZ
                    values[fraction] *= max(ratio, 1 / ratio) ** 0.5
        starts.append(torch.tensor([values[parameter.path] for parameter in parameters], dtype=torch.float64))
    return starts


def best_fit(fits: Sequence[FitResult]) -> FitResult:
    """Return the fit with the lowest cost in every voxel."""
    best = fits[0]
    everywhere = torch.arange(len(best.cost), device=best.cost.device)
    for fit in fits[1:]:
        best = best.replaced_where_better(fit, everywhere)
    return best


def other_minimum(
    fits: Sequence[FitResult], best: FitResult, parameters: Sequence[FitParameter]
) -> tuple[Tensor, Tensor]:
    """Return the best minimum (voxel, p) apart from the best one, and where it is promising (voxel,).

    Two minima are different where a rate differs by more than a fifth.
    """
    rates = [i for i, p in enumerate(parameters) if p.path.endswith(".k_Hz")]
    other, cost = best.parameters.clone(), torch.full_like(best.cost, torch.inf)
    for fit in fits:
        ratio = fit.parameters[:, rates].clamp_min(1e-6) / best.parameters[:, rates].clamp_min(1e-6)
        better = (ratio.log().abs().amax(1) > 0.2) & (fit.cost < cost)
        other[better], cost[better] = fit.parameters[better], fit.cost[better]
    return other, cost < PROMISING * best.cost + ANALYTIC_ERROR
