"""From an acquisition in the scene to the spectra that a method quantifies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from NeuroCESTLib.core.background import in_background
from NeuroCESTLib.core.progress import Progress, part, silent

from .maps import MapNodes, with_maps
from .preparation import Prepared, prepare

if TYPE_CHECKING:
    from ..tissue.model import TissueModel
    from ..tissue.spectra import ZSpectra
    from .study import Study


@dataclass(frozen=True)
class Preparation:
    """How an acquisition is changed before it is quantified.

    Attributes:
        motion_correction: Whether to bring all measurements into the position of one of them.
        denoising: Whether to remove noise by MP-PCA.
        smoothing_ppm: Width in ppm over which spectra are smoothed, or None.
        quass: ``equilibrium`` or ``same-delay`` for a correction of finite saturation time and recovery, or None.
    """

    motion_correction: bool = False
    denoising: bool = False
    smoothing_ppm: float | None = None
    quass: str | None = None


@dataclass(frozen=True)
class Acquired:
    """An acquisition that is ready for a method.

    Attributes:
        prepared: The acquisition, and what was done to it.
        spectra: Its normalised spectra with their maps.
        warnings: Sentences for the user.
    """

    prepared: Prepared
    spectra: ZSpectra
    warnings: tuple[str, ...]


def acquired(
    study: Study,
    nodes: MapNodes | None = None,
    model: TissueModel | None = None,
    model_source: Any = None,
    preparation: Preparation | None = None,
    progress: Progress = silent,
) -> Acquired:
    """Prepare an acquisition, normalise it and add its maps.

    Args:
        study: Acquisition as measured.
        nodes: B0, B1 and T1 maps in the scene; None for none.
        model: Tissue model, for the maps that it names.
        model_source: What the model was read from; maps may lie beside its file.
        preparation: How to prepare the acquisition; None to leave it as it is.
        progress: Called with the fraction done and a message; may raise to cancel.

    Raises:
        ValueError: The acquisition cannot be prepared or normalised, or a map is missing or unusable.
    """
    wanted = preparation or Preparation()
    prepared = _prepared(study, wanted, progress)
    normalized, noted = prepared.study.spectra()
    normalized = replace(normalized, smoothed=wanted.smoothing_ppm is not None)
    model_file = model_source if isinstance(model_source, str | Path) else None
    spectra, noted_of_maps = with_maps(prepared.study, normalized, nodes or MapNodes(), model, model_file)
    noted_of_quass: list[str] = []
    if wanted.quass:
        spectra, noted_of_quass = _steady(spectra, wanted.quass)
    warnings = (*prepared.study.warnings, *prepared.warnings, *noted, *noted_of_maps, *noted_of_quass)
    return Acquired(prepared, spectra, warnings)


def _prepared(study: Study, wanted: Preparation, progress: Progress) -> Prepared:
    if not wanted.motion_correction and not wanted.denoising and wanted.smoothing_ppm is None:
        return Prepared(study)
    return in_background(
        lambda report: prepare(
            study,
            motion_correction=wanted.motion_correction,
            denoising=wanted.denoising,
            smoothing_ppm=wanted.smoothing_ppm,
            progress=part(report, 0.0, 0.05),
        ),
        progress,
    )


def _steady(spectra: ZSpectra, reference: str) -> tuple[ZSpectra, list[str]]:
    """Return the spectra of the steady state, and a sentence where some have none."""
    import torch

    from ..preprocessing.quass import quasi_steady_state

    steady = quasi_steady_state(spectra, reference)
    usable = torch.isfinite(spectra.signal).all(1)
    lost = int((usable & ~torch.isfinite(steady.signal).all(1)).sum())
    if not lost:
        return steady, []
    return replace(steady, valid=torch.isfinite(steady.signal) & usable.unsqueeze(1)), [
        f"QUASS finds no steady state for some measurements of {lost} of {int(usable.sum())} voxels, mostly near water "
        "or with a T1 that does not belong to them: these measurements are left out"
    ]
