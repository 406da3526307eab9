"""Lorentzian fits of Z-spectra in two steps (Deshmane et al., Magn Reson Med 2019;81:2412).

Water and semisolid are fitted to the offsets outside the CEST and NOE ranges, then the lines of the remaining
difference. The standard errors of these lines contain the uncertainty of the background.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from NeuroCESTLib.core.checked_json import check_keys, number, read_json
from NeuroCESTLib.core.messages.input_errors import InputError
from NeuroCESTLib.core.progress import Progress, part, silent

from ..fitting.interpolation import distinct_offsets
from ..fitting.least_squares import FitResult, Status
from ..fitting.statistics import VOXELS_PER_CHUNK, estimator_gain
from ..formats.presets import FOLDER as PRESETS
from .lorentzian import LorentzianFit, fit_lorentzian, named_lines, with_noise_of_m0
from .lorentzian_model import DESCRIPTION_KEYS, MODEL_KEYS, LorentzianModel, LorentzianPool, Range

TWO_STEP_KEYS = ("residual_pools", "excluded_from_background_ppm")
"""Keys that a two-step model has besides those of a Lorentzian model."""


@dataclass(frozen=True)
class TwoStepModel:
    """A background, and the lines that are fitted to what it leaves.

    Attributes:
        background: Water and semisolid.
        residual_pools: Lines of the residual, at positions relative to the water.
        excluded_ppm: Ranges (from, to) of offsets that the background fit leaves out.
    """

    background: LorentzianModel
    residual_pools: tuple[LorentzianPool, ...]
    excluded_ppm: tuple[tuple[float, float], ...]

    @classmethod
    def preset(cls, name: str = "lorentzian_3T_two_step") -> TwoStepModel:
        """Read the model of ``presets/<name>.json``."""
        path = PRESETS / f"{name}.json"
        return cls.from_dict(read_json(path), str(path))

    @classmethod
    def from_dict(cls, description: Any, source: str = "pool description") -> TwoStepModel:
        """Build a model from the content of its file.

        Args:
            description: Object with the keys of a Lorentzian model, whose ``pools`` are the background, and with
                ``residual_pools`` and ``excluded_from_background_ppm``, a list of ranges [from, to].
            source: What messages call it, usually the file.

        Raises:
            ValueError: The object describes no model; the message names ``source`` and the key.
        """
        values = check_keys(description, (*MODEL_KEYS, *TWO_STEP_KEYS), source, also=DESCRIPTION_KEYS)
        ranges, residual_pools = (values.pop(key, None) for key in reversed(TWO_STEP_KEYS))
        if not isinstance(ranges, list) or not all(isinstance(each, list) and len(each) == 2 for each in ranges):
            raise ValueError(f"{source}: excluded_from_background_ppm must be a list of ranges [from, to] in ppm")
        excluded = [tuple(number(end, f"{source}: excluded_from_background_ppm") for end in each) for each in ranges]
        if reversed_ranges := [f"[{low:g}, {high:g}]" for low, high in excluded if not low < high]:
            raise ValueError(
                f"{source}: excluded_from_background_ppm: the range {reversed_ranges[0]} must have its lower end first"
            )
        background = LorentzianModel.from_dict(values, source)
        if isinstance(residual_pools, list):
            residual_pools = [_at_fixed_position(pool, f"{source}: residual_pools") for pool in residual_pools]
        residual = LorentzianModel.from_dict({**values, "pools": residual_pools}, f"{source}: residual_pools")
        try:
            LorentzianModel((*background.pools, *residual.pools))
        except ValueError as error:
            raise ValueError(f"{source}: pools and residual_pools together: {error}") from None
        return cls(background, residual.pools, tuple((low, high) for low, high in excluded))


@dataclass(frozen=True)
class TwoStepFit:
    """Result of a fit in two steps.

    Attributes:
        background: Lines of the background.
        residual: Lines of what the background leaves; positions are relative to the water. Their standard errors
            contain the uncertainty of the background.
        position_ppm_sd: (voxel, pool) standard errors of the positions of the residual's lines on the axis of the
            offsets, which contain that of the water.
    """

    background: LorentzianFit
    residual: LorentzianFit
    position_ppm_sd: Tensor

    def reference(self, offsets_ppm: Tensor) -> Tensor:
        """Evaluate the background spectrum at offsets (n,); returns (voxel, n)."""
        return self.background.spectrum(offsets_ppm)

    def combined(self) -> LorentzianFit:
        """Return all lines as one fit: those of the background first, all positions on the axis of the offsets.

        Residual and status are those of both steps: a voxel counts as fitted where both are.
        """
        first, second = self.background, self.residual
        both = first.fit.fitted & second.fit.fitted
        status = first.status.clone()
        for outcome in (Status.AT_NATURAL_LIMIT, Status.AT_BOUND, Status.ITERATION_LIMIT):
            status[both & ((first.status == outcome) | (second.status == outcome))] = int(outcome)
        status = torch.where(second.fit.fitted | ~first.fit.fitted, status, second.status)
        positions = second.position_ppm + first.position_ppm[:, :1]
        count, further = len(first.model.pools), len(second.model.pools)

        def joined(of_first: Tensor, of_second: Tensor, of_positions: Tensor) -> Tensor:
            """Put what both steps have of each parameter into the order of one model."""
            own = of_first.split((1 + count, count, of_first.shape[1] - 1 - 2 * count), 1)
            amplitudes, widths = of_second[:, 1 : 1 + 2 * further].split(further, 1)
            return torch.cat((own[0], amplitudes, own[1], widths, own[2], of_positions), 1)

        model = replace(first.model, pools=(*first.model.pools, *second.model.pools))
        fit = FitResult(
            parameters=joined(first.fit.parameters, second.fit.parameters, positions),
            standard_errors=joined(first.fit.standard_errors, second.fit.standard_errors, second.position_ppm_sd),
            correlation=None,
            rmse=second.rmse,
            status=status,
            iterations=first.fit.iterations + second.fit.iterations,
            cost=second.fit.cost,
        )
        lines = named_lines(model, fit)
        return replace(lines, position_ppm_sd=torch.cat((first.position_ppm_sd, self.position_ppm_sd), 1))


def fit_background(
    z: Tensor,
    offsets_ppm: Tensor,
    model: TwoStepModel,
    *,
    valid: Tensor | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> LorentzianFit:
    """Fit the background to the offsets outside the excluded ranges; arguments as in ``fit_lorentzian_two_step``.

    Raises:
        ValueError: No offset lies outside the excluded ranges, or fewer different ones than the background has free
            values.
    """
    used = _outside(offsets_ppm, model)
    if not bool(used.any()):
        raise InputError("lorentzian", "all offsets lie in the ranges that the background fit leaves out")
    _, lower, upper = model.background.limits()
    free = int((lower < upper).sum())
    different = len(distinct_offsets(offsets_ppm[used]))
    if different < free:
        ranges = " and ".join(f"{low:g} to {high:g}" for low, high in model.excluded_ppm)
        raise InputError(
            "protocol",
            f"{different} different offsets lie outside of the ranges that the background fit leaves out ({ranges} "
            f"ppm), which are too few for its {free} values: acquire more of them, or choose a description that leaves "
            "out less",
        )
    return fit_lorentzian(
        z[:, used],
        offsets_ppm[used],
        model.background,
        valid=None if valid is None else valid[:, used],
        threads=threads,
        progress=progress,
    )


def fit_lorentzian_two_step(
    z: Tensor,
    offsets_ppm: Tensor,
    model: TwoStepModel,
    *,
    valid: Tensor | None = None,
    reference_noise: float = 0.0,
    threads: int | None = None,
    progress: Progress | None = None,
) -> TwoStepFit:
    """Fit the background outside the excluded ranges, then the lines of the residual.

    Args:
        z: (voxel, offset) normalised signal.
        offsets_ppm: (offset,).
        model: Background, lines of the residual and excluded ranges.
        valid: (voxel, offset) bool; other measurements are left out.
        reference_noise: Variance of M0 relative to that of a measurement, see ``ZSpectra``. Its noise changes the
            background and what it leaves in the same proportion, and widens the standard errors of both.
        threads: As in ``levenberg_marquardt``.
        progress: As in ``levenberg_marquardt``.

    Raises:
        ValueError: No offset lies outside the excluded ranges.
    """
    progress = progress or silent
    first = part(progress, 0.0, 0.5)
    background = fit_background(z, offsets_ppm, model, valid=valid, threads=threads, progress=first)
    difference = z - background.spectrum(offsets_ppm)  # minus the sum of the remaining lines
    residual_model = LorentzianModel(model.residual_pools, Range(0.0, 0.0, 0.0), model.background.source)
    relative = offsets_ppm.to(z) - background.position_ppm[:, :1]
    residual = fit_lorentzian(
        difference, relative, residual_model, valid=valid, threads=threads, progress=part(progress, 0.5, 1.0)
    )
    outside = _outside(offsets_ppm, model)
    errors, position_sd = _standard_errors(background, residual, offsets_ppm, outside, valid, reference_noise)
    beyond = None if valid is None else valid[:, outside]
    background = with_noise_of_m0(background, offsets_ppm[outside], reference_noise, beyond)
    _, lower, upper = residual_model.limits()
    fixed = (lower == upper)[-len(residual_model.pools) :].to(position_sd.device)
    return TwoStepFit(
        background,
        named_lines(residual_model, replace(residual.fit, standard_errors=errors)),
        torch.where(fixed, background.position_ppm_sd[:, :1], position_sd),
    )


def _standard_errors(
    background: LorentzianFit,
    residual: LorentzianFit,
    offsets_ppm: Tensor,
    outside: Tensor,
    valid: Tensor | None,
    reference_noise: float,
) -> tuple[Tensor, Tensor]:
    """Return the standard errors of the residual's parameters, which contain those of the background.

    The noise e moves the background by H e, where H is its gain over the offsets outside the excluded ranges, and the
    lines of the residual by T e with ``T = G - G B H``: G is their own gain, and B the Jacobian of the background at
    all offsets, of which the column of the water's position contains that the axis of the residual moves with the
    water. An error of M0 moves both in proportion to the signal.

    Args:
        background: First step.
        residual: Second step.
        offsets_ppm: (offset,).
        outside: (offset,) bool, the offsets that the background was fitted to.
        valid: (voxel, offset) bool; other measurements were left out.
        reference_noise: As in ``fit_lorentzian_two_step``.

    Returns:
        Standard errors (voxel, p) of the parameters and (voxel, pool) of the positions on the axis of the offsets.
    """
    first, second = background.fit, residual.fit
    water, place = 1 + 2 * len(background.model.pools), 1 + 2 * len(residual.model.pools)
    errors = torch.full_like(second.standard_errors, torch.nan)
    position_sd = errors[:, place:].clone()
    offsets = offsets_ppm.double().unsqueeze(1)
    index = torch.nonzero(first.fitted & second.fitted).flatten()
    for some in index.split(VOXELS_PER_CHUNK) if len(index) else ():
        used = torch.ones_like(offsets, dtype=torch.bool).T.expand(len(some), -1) if valid is None else valid[some]
        of_first, of_second = first.parameters[some].double(), second.parameters[some].double()
        free_first, free = first.standard_errors[some].isfinite(), second.standard_errors[some].isfinite()
        spectrum, slope = background.model.predict(of_first.T, offsets)
        lines, jacobian = residual.model.predict(of_second.T, offsets - of_first[:, water])
        slope, jacobian = (each.permute(2, 1, 0) * used.unsqueeze(2) for each in (slope, jacobian))
        own_slope = slope * free_first.unsqueeze(1)
        of_background = estimator_gain(own_slope * outside.unsqueeze(1))
        own_slope[:, :, water] += jacobian[:, :, place:].sum(2) * free_first[:, water : water + 1]
        gain = estimator_gain(jacobian * free.unsqueeze(1))
        total = gain - gain @ own_slope @ of_background
        points = used.sum(1)
        degrees = points - free_first.sum(1) - free.sum(1)
        variance = second.rmse[some].double().square() * points / degrees.clamp_min(1)
        variance = torch.where(degrees > 0, variance, torch.nan).unsqueeze(1)
        signal = ((spectrum + lines).T * used).unsqueeze(2)

        def deviation(gains: Tensor, signal: Tensor = signal, variance: Tensor = variance) -> Tensor:
            of_m0 = (gains @ signal).squeeze(2)
            return (variance * (gains.square().sum(2) + reference_noise * of_m0.square())).sqrt()

        errors[some] = torch.where(free, deviation(total), torch.nan).to(errors)
        positions = deviation(total[:, place:] + of_background[:, water : water + 1])
        known = free[:, place:] & free_first[:, water : water + 1]
        position_sd[some] = torch.where(known, positions, torch.nan).to(errors)
    return errors, position_sd


def _at_fixed_position(pool: Any, where: str) -> Any:
    """Return a line of the residual, whose axis starts at the water, with a fixed position for a tied one."""
    if not isinstance(pool, Mapping) or pool.get("offset_from_water_ppm") is None or "position_ppm" in pool:
        return pool
    rest = {key: value for key, value in pool.items() if key != "offset_from_water_ppm"}
    position = number(pool["offset_from_water_ppm"], f"{where}: pool '{pool.get('name')}': offset_from_water_ppm")
    return {**rest, "position_ppm": [position] * 3}


def _outside(offsets_ppm: Tensor, model: TwoStepModel) -> Tensor:
    """Offsets (offset,) bool outside the ranges that the background fit leaves out."""
    outside = torch.ones_like(offsets_ppm, dtype=torch.bool)
    for low, high in model.excluded_ppm:
        outside &= (offsets_ppm < low) | (offsets_ppm > high)
    return outside
