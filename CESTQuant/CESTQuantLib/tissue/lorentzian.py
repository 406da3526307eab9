"""Multi-pool Lorentzian fit of Z-spectra, in one step or background first.

One step: all lines at once (Windschuh et al., NMR Biomed 2015;28:529). Two steps: water and semisolid are
fitted to the offsets outside the CEST and NOE ranges, then the lines of the remaining difference (Deshmane et
al., Magn Reson Med 2019;81:2412).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from NeuroCESTLib.core.progress import Progress

from ..fitting.least_squares import FitResult, levenberg_marquardt
from ..formats.presets import FOLDER as PRESETS
from .lorentzian_model import LorentzianModel, LorentzianPool, Range

__all__ = [
    "LorentzianFit",
    "LorentzianModel",
    "LorentzianPool",
    "Range",
    "TwoStepFit",
    "fit_lorentzian",
    "fit_lorentzian_two_step",
    "two_step_preset",
]


@dataclass(frozen=True)
class LorentzianFit:
    """Lines of each voxel; NaN where the status says the voxel was not fitted.

    Attributes:
        baseline: (voxel,) Zi, with its standard error `baseline_sd`.
        amplitude, width_ppm, position_ppm: (voxel, pool), with standard errors `.._sd` (NaN at a bound); a
            tied position has the water's error.
        rmse, status: (voxel,).
    """

    model: LorentzianModel
    fit: FitResult
    baseline: Tensor
    baseline_sd: Tensor
    amplitude: Tensor
    amplitude_sd: Tensor
    width_ppm: Tensor
    width_ppm_sd: Tensor
    position_ppm: Tensor
    position_ppm_sd: Tensor

    @property
    def rmse(self) -> Tensor:
        return self.fit.rmse

    @property
    def status(self) -> Tensor:
        return self.fit.status

    def index(self, pool: str) -> int:
        """Place of a pool in the model; ValueError for an unknown one."""
        if pool not in self.model.names:
            raise ValueError(f"the fit has no pool '{pool}' (it has {', '.join(self.model.names)})")
        return self.model.names.index(pool)

    def line(self, pool: str, offsets_ppm: Tensor) -> Tensor:
        """A pool's line at offsets (n,) or (voxel, n); (voxel, n)."""
        place = self.index(pool)
        quarter = self.width_ppm[:, place, None].square() / 4
        distance = offsets_ppm.to(quarter) - self.position_ppm[:, place, None]
        return self.amplitude[:, place, None] * quarter / (quarter + distance.square())

    def spectrum(self, offsets_ppm: Tensor, without: Iterable[str] = ()) -> Tensor:
        """Fitted Z (voxel, n) at offsets (n,) or (voxel, n); with pools left out, their reference."""
        left_out = [self.index(pool) for pool in without]
        spectrum = self.baseline.unsqueeze(1)
        for place, pool in enumerate(self.model.names):
            if place not in left_out:
                spectrum = spectrum - self.line(pool, offsets_ppm)
        return spectrum.expand(-1, offsets_ppm.shape[-1])


def fit_lorentzian(
    z: Tensor,
    offsets_ppm: Tensor,
    model: LorentzianModel,
    *,
    valid: Tensor | None = None,
    start_from_mean: bool = True,
    tolerance: float | None = 1e-5,
    max_iterations: int = 100,
    correlation: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> LorentzianFit:
    """Fit the model's lines to each voxel.

    Args:
        z: (voxel, offset) normalised signal, float32 or float64.
        offsets_ppm: (offset,), or (voxel, offset) where they differ (B0-corrected).
        valid: (voxel, offset) bool; other measurements are left out.
        start_from_mean: fit the mean spectrum first and start every voxel there: fewer iterations, and the
            voxels end in the same local minimum.
        tolerance, max_iterations, correlation, threads, progress: as in `levenberg_marquardt`.

    Raises:
        ValueError: counts of offsets and measurements that differ.
    """
    if offsets_ppm.shape[-1] != z.shape[1]:
        raise ValueError(f"offsets_ppm has {offsets_ppm.shape[-1]} values but the signal has {z.shape[1]} measurements")
    offsets_ppm = offsets_ppm.to(z)
    start, lower, upper = model.limits()
    settings = {"tolerance": tolerance, "max_iterations": max_iterations}
    damping = 0.1
    if start_from_mean:
        start = _start_from_mean(z, offsets_ppm, model, valid, settings)
        damping = 0.01
    common = offsets_ppm.ndim == 1
    column = offsets_ppm.unsqueeze(1) if common else None
    result = levenberg_marquardt(
        (lambda parameters: model.predict(parameters, column)) if common else model.predict,
        z,
        start,
        lower,
        upper,
        arguments=() if common else (offsets_ppm,),
        valid=valid,
        start_damping=damping,
        correlation=correlation,
        threads=threads,
        progress=progress,
        **settings,
    )
    return _named(model, result)


def _start_from_mean(
    z: Tensor, offsets_ppm: Tensor, model: LorentzianModel, valid: Tensor | None, settings: dict
) -> Tensor:
    """Parameters of the mean spectrum, or the model's starts where that cannot be fitted; (p,) float64."""
    start, lower, upper = model.limits()
    known = z.isfinite() & (z != 0).any(1, keepdim=True)
    if valid is not None:
        known &= valid
    count = known.sum(0)
    if not bool(count.any()):
        return start
    mean = (torch.where(known, z, 0.0).sum(0) / count.clamp_min(1)).double()
    offsets = offsets_ppm if offsets_ppm.ndim == 1 else offsets_ppm.nanmean(0)
    column = offsets.double().unsqueeze(1)
    fit = levenberg_marquardt(
        lambda parameters: model.predict(parameters, column),
        mean.unsqueeze(0),
        start,
        lower,
        upper,
        valid=(count > 0).unsqueeze(0),
        correlation=False,
        **settings,
    )
    # a tenth of the way back to the model's starts, which takes a parameter at its bound off it
    return torch.where(fit.parameters[0].isfinite(), 0.9 * fit.parameters[0].to(start) + 0.1 * start, start)


def _named(model: LorentzianModel, fit: FitResult) -> LorentzianFit:
    count = len(model.pools)
    own = {pool: 1 + 2 * count + place for place, pool in enumerate(model.free_positions)}
    position_sd = [fit.standard_errors[:, own.get(pool, own[0])] for pool in range(count)]
    return LorentzianFit(
        model=model,
        fit=fit,
        baseline=fit.parameters[:, 0],
        baseline_sd=fit.standard_errors[:, 0],
        amplitude=fit.parameters[:, 1 : 1 + count],
        amplitude_sd=fit.standard_errors[:, 1 : 1 + count],
        width_ppm=fit.parameters[:, 1 + count : 1 + 2 * count],
        width_ppm_sd=fit.standard_errors[:, 1 + count : 1 + 2 * count],
        position_ppm=model.positions(fit.parameters.T).T,
        position_ppm_sd=torch.stack(position_sd, 1),
    )


@dataclass(frozen=True)
class TwoStepFit:
    """Background lines, and those of what lies below it (positions relative to the water)."""

    background: LorentzianFit
    residual: LorentzianFit

    def reference(self, offsets_ppm: Tensor) -> Tensor:
        """Background spectrum at offsets (n,); (voxel, n)."""
        return self.background.spectrum(offsets_ppm)


def fit_lorentzian_two_step(
    z: Tensor,
    offsets_ppm: Tensor,
    background: LorentzianModel,
    residual_pools: tuple[LorentzianPool, ...],
    excluded_ppm: tuple[tuple[float, float], ...],
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> TwoStepFit:
    """Fit the background outside `excluded_ppm`, then the residual's lines relative to the fitted water
    position.

    Args:
        z: (voxel, offset); offsets_ppm: (offset,).
        excluded_ppm: ranges (from, to) that the background fit leaves out.
    """
    used = torch.ones_like(offsets_ppm, dtype=torch.bool)
    for low, high in excluded_ppm:
        used &= (offsets_ppm < low) | (offsets_ppm > high)
    first = fit_lorentzian(z[:, used], offsets_ppm[used], background, threads=threads, progress=_half(progress, 0.0))
    difference = z - first.spectrum(offsets_ppm)  # minus the sum of the remaining lines
    model = LorentzianModel(residual_pools, Range(0.0, 0.0, 0.0), background.source)
    relative = offsets_ppm.to(z) - first.position_ppm[:, :1]
    second = fit_lorentzian(difference, relative, model, threads=threads, progress=_half(progress, 0.5))
    return TwoStepFit(first, second)


def two_step_preset(
    name: str = "lorentzian_3T_two_step",
) -> tuple[LorentzianModel, tuple[LorentzianPool, ...], tuple[tuple[float, float], ...]]:
    """Background model, residual pools and excluded ranges of a preset file."""
    description = json.loads((PRESETS / f"{name}.json").read_text(encoding="utf-8"))
    background = LorentzianModel.from_dict(description)
    pools = LorentzianModel.from_dict({**description, "pools": description["residual_pools"]}).pools
    excluded = tuple((low, high) for low, high in description["excluded_from_background_ppm"])
    return background, pools, excluded


def _half(progress: Progress | None, done: float) -> Progress | None:
    if progress is None:
        return None
    return lambda fraction, message: progress(done + fraction / 2, message)
