"""Lorentzian fits of Z-spectra in two steps (Deshmane et al., Magn Reson Med 2019;81:2412).

Water and semisolid are fitted to the offsets outside the CEST and NOE ranges, then the lines of the remaining
difference.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from NeuroCESTLib.core.checked_json import read_json
from NeuroCESTLib.core.progress import Progress, part, silent

from ..formats.presets import FOLDER as PRESETS
from .lorentzian import LorentzianFit, fit_lorentzian
from .lorentzian_model import LorentzianModel, LorentzianPool, Range


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
        description = dict(read_json(path))
        residual_pools = description.pop("residual_pools")
        excluded = tuple((low, high) for low, high in description.pop("excluded_from_background_ppm"))
        background = LorentzianModel.from_dict(description, str(path))
        residual = LorentzianModel.from_dict({**description, "pools": residual_pools}, str(path))
        return cls(background, residual.pools, excluded)


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


def fit_lorentzian_two_step(
    z: Tensor,
    offsets_ppm: Tensor,
    model: TwoStepModel,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> TwoStepFit:
    """Fit the background outside the excluded ranges, then the lines of the residual.

    Args:
        z: (voxel, offset) normalised signal.
        offsets_ppm: (offset,).
        model: Background, lines of the residual and excluded ranges.
        threads: As in ``levenberg_marquardt``.
        progress: As in ``levenberg_marquardt``.
    """
    progress = progress or silent
    used = torch.ones_like(offsets_ppm, dtype=torch.bool)
    for low, high in model.excluded_ppm:
        used &= (offsets_ppm < low) | (offsets_ppm > high)
    background = fit_lorentzian(
        z[:, used], offsets_ppm[used], model.background, threads=threads, progress=part(progress, 0.0, 0.5)
    )
    difference = z - background.spectrum(offsets_ppm)  # minus the sum of the remaining lines
    residual_model = LorentzianModel(model.residual_pools, Range(0.0, 0.0, 0.0), model.background.source)
    relative = offsets_ppm.to(z) - background.position_ppm[:, :1]
    residual = fit_lorentzian(difference, relative, residual_model, threads=threads, progress=part(progress, 0.5, 1.0))
    return TwoStepFit(background, residual)
