"""Lorentzian fits of Z-spectra in two steps (Deshmane et al., Magn Reson Med 2019;81:2412).

Water and semisolid are fitted to the offsets outside the CEST and NOE ranges, then the lines of the remaining
difference.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from NeuroCESTLib.core.checked_json import check_keys, number, read_json
from NeuroCESTLib.core.messages.input_errors import InputError
from NeuroCESTLib.core.progress import Progress, part, silent

from ..fitting.least_squares import Status
from ..formats.presets import FOLDER as PRESETS
from .lorentzian import LorentzianFit, fit_lorentzian, with_noise_of_m0
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
        background = LorentzianModel.from_dict(values, source)
        residual = LorentzianModel.from_dict({**values, "pools": residual_pools}, f"{source}: residual_pools")
        return cls(background, residual.pools, tuple((low, high) for low, high in excluded))


@dataclass(frozen=True)
class TwoStepFit:
    """Result of a fit in two steps.

    Attributes:
        background: Lines of the background.
        residual: Lines of what the background leaves; positions are relative to the water.
    """

    background: LorentzianFit
    residual: LorentzianFit

    def reference(self, offsets_ppm: Tensor) -> Tensor:
        """Evaluate the background spectrum at offsets (n,); returns (voxel, n)."""
        return self.background.spectrum(offsets_ppm)

    def combined(self) -> LorentzianFit:
        """Return all lines as one fit: those of the background first, all positions on the axis of the offsets.

        Residual and status are those of both steps: a voxel counts as fitted where both are.
        """
        first, second = self.background, self.residual
        status = first.status.clone()
        for outcome in (Status.AT_NATURAL_LIMIT, Status.AT_BOUND, Status.ITERATION_LIMIT):
            status[(first.fit.fitted & second.fit.fitted) & (second.status == outcome)] = int(outcome)
        for outcome in (Status.AT_BOUND, Status.ITERATION_LIMIT):
            status[first.status == outcome] = int(outcome)
        status = torch.where(second.fit.fitted | ~first.fit.fitted, status, second.status)
        shifted = second.position_ppm + first.position_ppm[:, :1]
        return replace(
            first,
            model=replace(first.model, pools=(*first.model.pools, *second.model.pools)),
            fit=replace(second.fit, status=status),
            amplitude=torch.cat((first.amplitude, second.amplitude), 1),
            amplitude_sd=torch.cat((first.amplitude_sd, second.amplitude_sd), 1),
            width_ppm=torch.cat((first.width_ppm, second.width_ppm), 1),
            width_ppm_sd=torch.cat((first.width_ppm_sd, second.width_ppm_sd), 1),
            position_ppm=torch.cat((first.position_ppm, shifted), 1),
            position_ppm_sd=torch.cat((first.position_ppm_sd, second.position_ppm_sd), 1),
        )


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
        ValueError: No offset lies outside the excluded ranges.
    """
    used = _outside(offsets_ppm, model)
    if not bool(used.any()):
        raise InputError("lorentzian", "all offsets lie in the ranges that the background fit leaves out")
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
    return TwoStepFit(
        with_noise_of_m0(
            background, offsets_ppm[outside], reference_noise, None if valid is None else valid[:, outside]
        ),
        with_noise_of_m0(residual, relative, reference_noise, valid),
    )


def _outside(offsets_ppm: Tensor, model: TwoStepModel) -> Tensor:
    """Offsets (offset,) bool outside the ranges that the background fit leaves out."""
    outside = torch.ones_like(offsets_ppm, dtype=torch.bool)
    for low, high in model.excluded_ppm:
        outside &= (offsets_ppm < low) | (offsets_ppm > high)
    return outside
