"""Fits with the Bloch-McConnell equations, from the R1rho fit where that holds."""

from __future__ import annotations

import os
from dataclasses import replace

import torch
from torch import Tensor

from NeuroCESTLib.core.progress import Progress, part
from NeuroCESTLib.core.threads import in_threads

from ...fitting.least_squares import FitResult, Model
from ..r1rho_jacobian import has_analytic_jacobian
from ..spectra import ZSpectra
from .bounds import bounds_of
from .iterations import DAMPING_FROM_START, iterate
from .r1rho import fit_r1rho_from
from .several_starts import SUSPICIOUS, best_fit, other_minimum, start_points
from .signal_model import SignalModel, maps_of_model

SMALL_CORRECTION = 0.1
"""Reduction of the sum of squares up to which a correction of the R1rho fit is believed."""
TOLERANCE_AFTER_CORRECTION = 1e-6
"""The last step, which is taken without another evaluation, is below 0.01 standard errors then."""
PROPAGATORS_PER_CHUNK = 2**13
"""Measurements x voxels x perturbed copies at a time: their matrices then stay in the L2 cache."""
PROPAGATORS_PER_CHUNK_CARRIED_OVER = 2**15
"""Larger where measurements are stepped through one by one, so that each step is long enough to be worth a call."""
POINTS_PER_CHUNK_CLOSED_FORM = 2**14
"""The same for independent measurements after continuous-wave saturation, which need no matrices."""


def fit_bloch_mcconnell(spectra: ZSpectra, model: SignalModel, max_iterations: int, progress: Progress) -> FitResult:
    """Fit from the R1rho fit where that holds, and from what other minima of it promise as much."""
    protocol, parameters = model.protocol, model.tissue.parameters
    carried_over = protocol.magnetisation_carried_over
    copies = len(parameters) + 1
    points = PROPAGATORS_PER_CHUNK_CARRIED_OVER if carried_over else PROPAGATORS_PER_CHUNK
    if protocol.pulses is None and protocol.events is None and not carried_over:
        points = POINTS_PER_CHUNK_CLOSED_FORM
    chunk = max(1, points // (protocol.measurement_count * copies))
    derivatives = model.with_finite_differences()

    def fit(
        some: ZSpectra,
        start: Tensor | None,
        share: Progress,
        damping: float | None = None,
        tolerance: float | None = None,
    ) -> FitResult:
        return iterate(some, model, derivatives, torch.float64, max_iterations, share, start, chunk, damping, tolerance)

    starts = start_points(parameters)
    analytic = protocol.pulses is None and not carried_over and has_analytic_jacobian(model.tissue, protocol)
    if not analytic and len(starts) == 1:
        return fit(spectra, None, progress)
    r1rho = replace(model, engine="r1rho")
    of_starts = [part(progress, 0.2 * n / len(starts), 0.2 * (n + 1) / len(starts)) for n in range(len(starts))]
    fits = [
        fit_r1rho_from(start, spectra, r1rho, max_iterations, share)
        for start, share in zip(starts, of_starts, strict=True)
    ]
    best = best_fit(fits)
    corrected = best.parameters.double()
    if analytic:
        corrected = _towards_bloch_mcconnell(spectra, model, r1rho.with_analytic_jacobian(), corrected)
    tolerance = TOLERANCE_AFTER_CORRECTION if analytic else None
    found = fit(spectra, corrected, part(progress, 0.2, 0.6 if len(starts) > 1 else 1.0), tolerance=tolerance)
    if len(starts) == 1:
        return found
    other, promising = other_minimum(fits, best, parameters)
    if not analytic:  # the analytic solution ranks the minima only roughly
        promising = torch.ones_like(promising)
    index = torch.nonzero(promising).flatten()
    if len(index):
        again = fit(spectra.of_voxels(index), other[index].double(), part(progress, 0.6, 0.8))
        found = found.replaced_where_better(again, index)
    index = torch.nonzero(found.cost > SUSPICIOUS * found.cost.nanmedian()).flatten()
    for number, start in enumerate(starts if len(index) else []):
        share = part(progress, 0.8 + 0.2 * number / len(starts), 0.8 + 0.2 * (number + 1) / len(starts))
        given = None if start is None else start.to(spectra.signal.device).expand(len(index), -1)
        again = fit(spectra.of_voxels(index), given, share, DAMPING_FROM_START)
        found = found.replaced_where_better(again, index)
    return found


def _towards_bloch_mcconnell(spectra: ZSpectra, model: SignalModel, analytic: Model, start: Tensor) -> Tensor:
    """Correct the R1rho fit by a Gauss-Newton step with its own derivatives and the numerical solution's residuals.

    The derivatives of both solutions are alike, so that a single simulation brings the parameters to some 0.002
    standard errors from the minimum; an iteration of the fit takes a simulation for every parameter besides.

    Args:
        spectra: Signals.
        model: Numerical model.
        analytic: Prediction and Jacobian of the R1rho model.
        start: (voxel, p) parameters of the R1rho fit.

    Returns:
        (voxel, p); the start where the step is not small, or where there are priors.
    """
    _, lower, upper, prior = bounds_of(model.tissue.parameters, start)
    if prior is not None:
        return start
    maps = tuple(values.to(start) for values in maps_of_model(spectra, model.tissue).values())
    moved = start.clone()

    @torch.no_grad()
    def move(voxels: Tensor) -> None:
        some = tuple(values[voxels] for values in maps)
        data, used = spectra.signal[voxels].to(start), spectra.valid
        weight = torch.ones_like(data) if used is None else used[voxels].to(data)
        first = start[voxels]
        jacobian = analytic(first.T.contiguous(), *some)[1].permute(2, 0, 1) * weight.unsqueeze(1)
        scale = jacobian.square().sum(2).clamp_min(1e-30).rsqrt()
        rows = jacobian * scale.unsqueeze(2)
        factor, failed = torch.linalg.cholesky_ex(rows @ rows.mT)
        residual = torch.where(weight > 0, model.predict(first.T.contiguous(), *some).T - data, 0.0)
        downhill = (rows @ residual.unsqueeze(2)).neg()
        step = torch.cholesky_solve(downhill, factor)
        small = (step * downhill).sum((1, 2)) <= SMALL_CORRECTION * residual.square().sum(1)
        now = (first + step.squeeze(2) * scale).clamp(lower, upper)
        good = (failed == 0) & small & now.isfinite().all(1)
        moved[voxels] = torch.where(good.unsqueeze(1), now, first)

    chunk = max(1, POINTS_PER_CHUNK_CLOSED_FORM // model.protocol.measurement_count)
    in_threads(move, torch.arange(len(start), device=start.device).split(chunk), os.cpu_count())
    return moved
