"""Optional preparation of an acquisition before it is quantified: denoising and smoothing, recorded for the report."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from NeuroCESTLib.core.progress import Progress, silent

from .study import Study

if TYPE_CHECKING:
    import torch

NOISE_MAP = "noise_sd"
"""Name of the map of the noise that a denoising estimates."""


@dataclass(frozen=True)
class Prepared:
    """A prepared acquisition.

    Attributes:
        study: The acquisition.
        record: What was done, for the report; empty where nothing was.
        maps: Further maps (voxel,) by name.
    """

    study: Study
    record: dict[str, Any] = field(default_factory=dict)
    maps: dict[str, torch.Tensor] = field(default_factory=dict)


def prepare(study: Study, *, denoising: bool, smoothing_ppm: float | None, progress: Progress = silent) -> Prepared:
    """Denoise and smooth an acquisition.

    Args:
        study: Acquisition as measured.
        denoising: Whether to remove noise by MP-PCA; M0 images that are not part of the signal stay as they are.
        smoothing_ppm: Width over which spectra are smoothed, or None.
        progress: Called with the fraction done and a message; may raise to cancel.

    Raises:
        ValueError: The acquisition is too small, or the width is unusable.
    """
    record: dict[str, Any] = {}
    maps: dict[str, torch.Tensor] = {}
    if denoising:
        study, maps, record["denoising"] = _denoised(study, progress)
    if smoothing_ppm is not None:
        study = _smoothed(study, smoothing_ppm)
        record["smoothing"] = {"width_ppm": smoothing_ppm}
    return Prepared(study, record, maps)


def _denoised(study: Study, progress: Progress) -> tuple[Study, dict[str, torch.Tensor], dict[str, Any]]:
    import torch

    from ..preprocessing.denoising import denoise, patch_edges

    try:
        result = denoise(torch.from_numpy(np.asarray(study.raw)), progress=progress)
    except ValueError as error:
        raise ValueError(f"{study.title}: {error}") from None
    noise = result.noise_sd.reshape(-1)[study.voxels]
    record = {
        "method": "MP-PCA",
        "patch_voxels": list(reversed(patch_edges(study.geometry.shape, len(study.raw)))),
        "median_noise_sd": float(noise.median()),
        "median_components": float(result.components.reshape(-1)[study.voxels].median()),
        "publications": [
            "Veraart et al., NeuroImage 2016;142:394",
            "Cordero-Grande et al., NeuroImage 2019;200:391",
        ],
    }
    return replace(study, raw=result.images.numpy()), {NOISE_MAP: noise}, record


def _smoothed(study: Study, width_ppm: float) -> Study:
    import torch

    from ..preprocessing.reference import m0_measurements
    from ..preprocessing.spectral_smoothing import smoothing_matrix

    protocol = study.protocol
    kept = torch.zeros(protocol.measurement_count, dtype=torch.bool)
    if protocol.signal_normalisation == "m0" and study.reference is None:
        kept[m0_measurements(protocol, study.title).index] = True
    weights = smoothing_matrix(protocol.offsets_ppm.detach(), protocol.b1_uT.detach(), width_ppm, kept)
    smoothed = np.tensordot(weights.numpy(), np.asarray(study.raw, dtype=np.float64), axes=1)
    return replace(study, raw=smoothed.astype(study.raw.dtype))
