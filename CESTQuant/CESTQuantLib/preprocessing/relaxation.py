"""T1 and T2 of water from their own acquisitions: recovery after inversion or saturation, flip angles, and echoes.

The amplitudes enter each model linearly, so that for every relaxation time the best ones follow by linear least
squares, and one unknown is left (variable projection). It is looked for on a grid and then ever more finely, so that no
start is needed and no local minimum is taken for the solution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from NeuroCESTLib.core.messages.input_errors import InputError
from NeuroCESTLib.core.progress import Progress, silent

from ..fitting.marquardt import Status
from .magnitudes import bright_voxels

_GRID = 96
_ZOOMS = 5
_ZOOM_POINTS = 21
_CHUNK_VOXELS = 2048
_STEP = 1e-4
"""Relative step of the derivative by the relaxation time."""
LARGEST_RESIDUAL = 0.1
"""Standard deviation of the residual, relative to the largest signal, from which a model does not explain a signal."""
RECOVERY_STARTS = (-1.2, 1.1)
"""Signal at time zero relative to the recovered one, which no inversion or saturation leaves outside of this range."""
_START_ERRORS = 3.0
"""Standard errors of its own by which a start has to lie outside of that range to tell of another signal."""
_VOXELS_BACKWARDS = (30, 1000)
"""Fewest and most bright voxels from which values in the reverse order are told."""
_BETTER_BACKWARDS = 0.5
"""Share of the misfit from which on values in the reverse order explain the signal instead."""

Basis = Callable[[Tensor, Tensor], Tensor]
"""Columns (…, measurement, amplitude) of a model from its settings (…, measurement) and a time (…) in s."""


@dataclass(frozen=True)
class RelaxationModel:
    """How a signal depends on a relaxation time.

    Attributes:
        quantity: Name of the map, ``t1_s`` or ``t2_s``.
        basis: Columns of the model.
        amplitudes: Number of amplitudes.
        limits_s: Shortest and longest relaxation time.
        signs_unknown: Whether the signal is the magnitude of one that passes through zero.
        title: What it is, for messages and reports.
        publication: Where it is described, if anywhere in particular.
    """

    quantity: str
    basis: Basis
    amplitudes: int
    limits_s: tuple[float, float]
    title: str
    publication: str = ""
    signs_unknown: bool = False


def _recovery(times_s: Tensor, t1_s: Tensor) -> Tensor:
    decay = torch.exp(-times_s / t1_s[..., None])
    return torch.stack((torch.ones_like(decay), -decay), -1)


def _echoes(times_s: Tensor, t2_s: Tensor) -> Tensor:
    return torch.exp(-times_s / t2_s[..., None])[..., None]


MODELS: Mapping[str, RelaxationModel] = {
    "inversion-recovery": RelaxationModel(
        "t1_s",
        _recovery,
        2,
        (0.02, 10.0),
        "inversion recovery, |a - b exp(-TI/T1)|",
        "Barral et al., Magn Reson Med 2010;64:1057",
        signs_unknown=True,
    ),
    "saturation-recovery": RelaxationModel("t1_s", _recovery, 2, (0.02, 10.0), "saturation recovery, a - b exp(-t/T1)"),
    "multi-echo": RelaxationModel(
        "t2_s", _echoes, 1, (0.002, 3.0), "spin echoes, a exp(-TE/T2)", "Meiboom and Gill, Rev Sci Instrum 1958;29:688"
    ),
}
"""Models by the times of their measurements."""

FLIP_ANGLES = "variable-flip-angle"
KINDS = (*MODELS, FLIP_ANGLES)


def flip_angle_model(repetition_time_s: float) -> RelaxationModel:
    """Return the model of spoiled gradient echoes at several flip angles (rad).

    Args:
        repetition_time_s: Time between excitations in s.
    """

    def spoiled(angles_rad: Tensor, t1_s: Tensor) -> Tensor:
        decay = torch.exp(-repetition_time_s / t1_s[..., None])
        return (torch.sin(angles_rad) * (1 - decay) / (1 - torch.cos(angles_rad) * decay))[..., None]

    title = "spoiled gradient echoes, a sin(α)(1 - E1)/(1 - cos(α) E1)"
    return RelaxationModel("t1_s", spoiled, 1, (0.02, 10.0), title, "Deoni et al., Magn Reson Med 2003;49:515")


@dataclass(frozen=True)
class RelaxationFit:
    """Result of a fit.

    Attributes:
        time_s: Relaxation time (voxel,) in s; NaN where there is none.
        error_s: Its standard error (voxel,).
        rmse: Root mean square misfit (voxel,) relative to the largest signal.
        status: ``Status`` (voxel,), uint8: ``POOR_FIT`` where the residual is large, or a recovery starts clearly
            farther from zero than it ends, and everywhere if the values explain the signal in the reverse order.
    """

    time_s: Tensor
    error_s: Tensor
    rmse: Tensor
    status: Tensor


def fit_relaxation(
    signal: Tensor, settings: Tensor, model: RelaxationModel, *, progress: Progress = silent
) -> RelaxationFit:
    """Fit the relaxation time of every voxel, with its standard error.

    Args:
        signal: Magnitudes (voxel, measurement).
        settings: Times in s, or flip angles in rad, (measurement,) or (voxel, measurement).
        model: What is fitted.
        progress: Called with the fraction done and a message; may raise to cancel.

    Raises:
        ValueError: There are too few different settings.
    """
    unknowns = model.amplitudes + 1
    settings = settings.double()
    if settings.shape[-1] != signal.shape[1]:
        raise ValueError(f"there are {settings.shape[-1]} values for {signal.shape[1]} measurements")
    ordered = settings.reshape(-1, settings.shape[-1]).sort(1).values
    if int(((ordered.diff(dim=1) > 0).sum(1) + 1).max()) < unknowns:  # in a voxel without B1 all flip angles are equal
        raise InputError("values", f"{model.title} needs at least {unknowns} different values")
    parts = []
    for first in range(0, len(signal), _CHUNK_VOXELS):
        chosen = slice(first, first + _CHUNK_VOXELS)
        own = settings[chosen] if settings.ndim == 2 else settings.expand(len(signal[chosen]), -1)
        parts.append(_fit(signal[chosen].double(), own, model))
        progress(min(1.0, (first + _CHUNK_VOXELS) / len(signal)), "fitting relaxation times")
    fit = RelaxationFit(*(torch.cat(values) for values in zip(*parts, strict=True)))
    if _is_backwards(signal, settings, model, fit.rmse):
        fit.status[fit.status == Status.CONVERGED] = int(Status.POOR_FIT)
    return fit


def _is_backwards(signal: Tensor, settings: Tensor, model: RelaxationModel, rmse: Tensor) -> bool:
    """Whether the settings explain the signal of the bright voxels much better in the reverse order."""
    fewest, most = _VOXELS_BACKWARDS
    usable = torch.nonzero(torch.isfinite(rmse)).flatten()
    if len(usable) < fewest:
        return False
    bright = usable[bright_voxels(signal[usable].abs().amax(1))]
    if len(bright) < fewest:
        return False
    chosen = bright[:: math.ceil(len(bright) / most)]
    backwards = (settings[chosen] if settings.ndim == 2 else settings.expand(len(chosen), -1)).flip(1)
    misfit = _fit(signal[chosen].double(), backwards, model)[2]
    return bool(misfit.median() < _BETTER_BACKWARDS * rmse[chosen].median())


def _fit(signal: Tensor, settings: Tensor, model: RelaxationModel) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    valid = torch.isfinite(signal).all(1) & torch.isfinite(settings).all(1) & (signal != 0).any(1)
    y = torch.where(valid[:, None], signal, 1.0)
    x = torch.where(valid[:, None], settings, settings.nan_to_num(1.0))
    log_low, log_high = (math.log(limit) for limit in model.limits_s)
    best = torch.full((len(y),), torch.inf, dtype=torch.float64)
    time, chosen = torch.zeros_like(best), y
    for candidate in _with_signs(y, x, model):
        found, misfit = _search(candidate, x, model, log_low, log_high)
        better = misfit < best
        best = torch.where(better, misfit, best)
        time, chosen = torch.where(better, found, time), torch.where(better[:, None], candidate, chosen)
    amplitudes = torch.linalg.lstsq(model.basis(x, time), chosen[..., None]).solution
    covariance, misfit = _covariance(chosen, x, time, amplitudes, model)
    error = covariance[:, -1, -1].sqrt()
    rmse = (misfit / y.shape[1]).sqrt() / y.abs().amax(1)
    step = (log_high - log_low) / (_GRID - 1)
    at_limit = (time.log() < log_low + 0.5 * step) | (time.log() > log_high - 0.5 * step)
    status = torch.full((len(y),), int(Status.CONVERGED), dtype=torch.uint8)
    status[_is_poor(y, misfit, amplitudes[..., 0], covariance, model)] = int(Status.POOR_FIT)
    status[at_limit] = int(Status.AT_BOUND)
    unusable = ~valid
    status[unusable] = int(Status.INVALID_DATA)
    empty = torch.full_like(time, torch.nan)
    kept = ~unusable
    return (
        torch.where(kept, time, empty),
        torch.where(kept & ~at_limit, error, empty),
        torch.where(kept, rmse, empty),
        status,
    )


def _is_poor(y: Tensor, misfit: Tensor, amplitudes: Tensor, covariance: Tensor, model: RelaxationModel) -> Tensor:
    """Whether a sum of squares (voxel,) is large, or amplitudes (voxel, n) are clearly not those of a recovery."""
    freedom = y.shape[1] - model.amplitudes - 1
    poor = (misfit / max(1, freedom)).sqrt() > LARGEST_RESIDUAL * y.abs().amax(1)
    if model.amplitudes == 1:
        return poor
    recovered, lost = amplitudes.unbind(1)
    start = 1 - lost / recovered
    slope = torch.stack((lost / recovered**2, -1 / recovered), 1)
    variance = (slope[:, None] @ covariance[:, :2, :2] @ slope[..., None]).flatten()
    allowed = _START_ERRORS * variance.clamp_min(0).sqrt().nan_to_num(0.0)  # as many values as unknowns give no error
    return poor | ~((start >= RECOVERY_STARTS[0] - allowed) & (start <= RECOVERY_STARTS[1] + allowed))


def _with_signs(y: Tensor, x: Tensor, model: RelaxationModel) -> list[Tensor]:
    """The signals that the magnitudes can come from: those before the zero crossing are negative."""
    if not model.signs_unknown:
        return [y]
    rank = x.argsort(1).argsort(1)
    return [torch.where(rank < count, -y, y) for count in range(y.shape[1] + 1)]


def _search(y: Tensor, x: Tensor, model: RelaxationModel, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Return the time (voxel,) of the least misfit, and the misfit."""
    grid = torch.linspace(low, high, _GRID, dtype=torch.float64).expand(len(y), -1)
    width = (high - low) / (_GRID - 1)
    for _ in range(_ZOOMS + 1):
        misfit = _misfit(y, x, grid.exp(), model)
        place = misfit.argmin(1, keepdim=True)
        center = grid.gather(1, place)
        found, least = center.squeeze(1), misfit.gather(1, place).squeeze(1)
        grid = (center + width * torch.linspace(-1, 1, _ZOOM_POINTS, dtype=torch.float64)).clamp(low, high)
        width *= 2 / (_ZOOM_POINTS - 1)
    return found.exp(), least


def _misfit(y: Tensor, x: Tensor, times_s: Tensor, model: RelaxationModel) -> Tensor:
    """Sum of squares (voxel, time) with the best amplitudes."""
    columns = model.basis(x[:, None, :], times_s)
    if model.amplitudes == 1:
        column = columns[..., 0]
        return (y**2).sum(1, keepdim=True) - (column * y[:, None]).sum(-1) ** 2 / (column**2).sum(-1).clamp_min(1e-300)
    first, second = columns[..., 0], columns[..., 1]
    first = first / first.norm(dim=-1, keepdim=True)
    second = second - (second * first).sum(-1, keepdim=True) * first
    second = second / second.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    explained = (first * y[:, None]).sum(-1) ** 2 + (second * y[:, None]).sum(-1) ** 2
    return (y**2).sum(1, keepdim=True) - explained


def _covariance(
    y: Tensor, x: Tensor, time_s: Tensor, amplitudes: Tensor, model: RelaxationModel
) -> tuple[Tensor, Tensor]:
    """Covariance (voxel, n, n) of the amplitudes and, last, the time, and the sum of squares (voxel,)."""
    columns = model.basis(x, time_s)
    residual = y - (columns @ amplitudes).squeeze(-1)
    squares = (residual**2).sum(1)
    ahead, behind = (model.basis(x, time_s * (1 + side * _STEP)) for side in (1, -1))
    slope = ((ahead - behind) @ amplitudes).squeeze(-1) / (2 * _STEP * time_s)[:, None]
    jacobian = torch.cat((columns, slope[..., None]), -1)
    freedom = y.shape[1] - jacobian.shape[-1]
    scale = jacobian.norm(dim=1).clamp_min(1e-300)
    if freedom < 1:
        return torch.full((len(y), scale.shape[1], scale.shape[1]), torch.nan, dtype=y.dtype), squares
    scaled = jacobian / scale[:, None]
    inverse = torch.linalg.pinv(scaled.transpose(1, 2) @ scaled, hermitian=True)
    variance = squares / freedom
    return variance[:, None, None] * inverse / (scale[:, :, None] * scale[:, None, :]), squares
