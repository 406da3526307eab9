"""Optional preparation of an acquisition before it is quantified, recorded for the report.

These are motion correction, denoising and smoothing, in this order.
"""

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
_TOLD_SHARE = 0.5
"""Motion, in voxels, from which on the position of the corrected images is told."""


@dataclass(frozen=True)
class Prepared:
    """A prepared acquisition.

    Attributes:
        study: The acquisition.
        record: What was done, for the report; empty where nothing was.
        maps: Further maps (voxel,) by name.
        warnings: Sentences for the user.
    """

    study: Study
    record: dict[str, Any] = field(default_factory=dict)
    maps: dict[str, torch.Tensor] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def prepare(
    study: Study,
    *,
    motion_correction: bool = False,
    denoising: bool = False,
    smoothing_ppm: float | None = None,
    progress: Progress = silent,
) -> Prepared:
    """Correct motion in an acquisition, denoise and smooth it.

    Args:
        study: Acquisition as measured.
        motion_correction: Whether to bring all measurements, and M0 images, into the position of one of them.
        denoising: Whether to remove noise by MP-PCA; M0 images that are not part of the signal stay as they are.
        smoothing_ppm: Width over which spectra are smoothed, or None.
        progress: Called with the fraction done and a message; may raise to cancel.

    Raises:
        ValueError: The acquisition is too small, or the width is unusable.
    """
    record: dict[str, Any] = {}
    maps: dict[str, torch.Tensor] = {}
    warnings: tuple[str, ...] = ()
    if motion_correction:
        study, record["motion"], warnings = _without_motion(study, progress)
    if denoising:
        study, maps, record["denoising"] = _denoised(study, progress)
    if smoothing_ppm is not None:
        study, told = _smoothed(study, smoothing_ppm)
        record["smoothing"] = {"width_ppm": smoothing_ppm}
        warnings += told
    return Prepared(study, record, maps, warnings)


def _without_motion(study: Study, progress: Progress) -> tuple[Study, dict[str, Any], tuple[str, ...]]:
    from ..preprocessing.motion import correct_motion

    first = 0 if study.reference is None else len(study.reference)
    images = study.raw if study.reference is None else np.concatenate([study.reference, study.raw])
    try:
        corrected, motion = correct_motion(images, study.geometry.spacing.tolist(), progress=progress)
    except ValueError as error:
        raise ValueError(f"{study.title}: {error}") from None
    names = [f"M0 {i + 1}" if first > 1 else "M0" for i in range(first)]
    names += [str(i + 1) for i in range(len(study.raw))]
    unmeasured = [name for name, measured in zip(names, motion.measured, strict=True) if not measured]
    record = {
        "method": "rigid, to synthetic references",
        "reference": names[motion.reference],
        "in_plane_only": motion.in_plane,
        "measurements": names,
        "translations_mm": np.round(motion.translations_mm, 4).tolist(),
        "rotations_deg": np.round(motion.rotations_deg, 4).tolist(),
        "displacements_mm": np.round(motion.displacements_mm, 4).tolist(),
        "errors_mm": np.round(motion.errors_mm, 4).tolist(),
        "resampled": [name for name, moved in zip(names, motion.moved, strict=True) if moved],
        "interpolated": unmeasured,
        "largest_displacement_mm": float(motion.displacements_mm.max()),
    }
    warnings = []
    largest = float(motion.displacements_mm.max())
    if largest > _TOLD_SHARE * min(study.geometry.spacing):
        warnings.append(
            f"the images of {study.title} were moved by up to {largest:.1f} mm into the position of "
            f"{_measurement(names[motion.reference])}: mask, maps and regions must fit that position"
        )
    found = len(names) - len(unmeasured)
    if found <= len(names) / 2:
        warnings.append(
            f"the position of only {found} of the {len(names)} images of {study.title} could be measured, so that "
            "motion between the others was not corrected: look at motion.png, and leave the correction out in case of "
            "doubt"
        )
    elif unmeasured:
        warnings.append(
            f"the position of {_listed(unmeasured)} of {study.title} could not be measured and was taken from the "
            "neighbouring measurements"
        )
    if motion.in_plane:
        warnings.append(
            f"{study.title} has too few slices to see motion through them, so only motion within the slices was "
            "corrected"
        )
    raw = corrected[first:].astype(study.raw.dtype, copy=False)
    reference = None if study.reference is None else corrected[:first]
    return replace(study, raw=raw, reference=reference), record, tuple(warnings)


def _measurement(name: str) -> str:
    return name if name.startswith("M0") else f"measurement {name}"


def _listed(names: list[str]) -> str:
    """Name measurements, at most ten of them."""
    shown = ", ".join(names[:10]) + (" and others" if len(names) > 10 else "")
    return f"measurement{'s' if len(names) > 1 else ''} {shown}"


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


def _smoothed(study: Study, width_ppm: float) -> tuple[Study, tuple[str, ...]]:
    import torch

    from ..preprocessing.reference import m0_measurements
    from ..preprocessing.spectral_smoothing import smoothing_matrix

    protocol = study.protocol
    kept = torch.zeros(protocol.measurement_count, dtype=torch.bool)
    if protocol.signal_normalisation == "m0" and study.reference is None:
        kept[m0_measurements(protocol, study.title).index] = True
    weights = smoothing_matrix(protocol, width_ppm, kept)
    smoothed = np.tensordot(weights.numpy(), np.asarray(study.raw, dtype=np.float64), axes=1)
    warnings = []
    if bool((weights == torch.eye(len(weights))).all()):
        warnings.append(
            f"the spectra of {study.title} were not smoothed: no offsets within the width of {width_ppm:g} ppm were "
            "measured with the same power, times and flip angle"
        )
    elif protocol.magnetisation_carried_over:
        warnings.append(
            f"the measurements of {study.title} start from what the one before has left (magnetisation_carried_over), "
            "so smoothing is right only where they recover or were made in the order of their offsets"
        )
    return replace(study, raw=smoothed.astype(study.raw.dtype)), tuple(warnings)
