"""Normalisation of measured signals by their reference images."""

from __future__ import annotations

import torch
from torch import Tensor

from ..physics.protocol import Protocol
from ..tissue.spectra import ZSpectra

FAR_OFF_RESONANCE_PPM = 20.0
"""Measurements at least this far from water may serve as M0 reference."""


def normalize(raw: Tensor, protocol: Protocol, reference: Tensor | None, *, where: str = "the signal") -> ZSpectra:
    """Normalise raw signals as the protocol says.

    - ``m0``: divide by the reference. Without one, the measurements at least 20 ppm off resonance serve as reference
      (interpolated in time where they are interleaved) and are left out of the spectra.
    - ``l2``: divide by the root sum of squares over the measurements.
    - ``none``: leave the signals as they are.

    Args:
        raw: Signals (voxel, measurement) in scanner units.
        protocol: Protocol of these measurements.
        reference: M0 of shape (voxel,), or (voxel, n): with n equal to the number of measurements, each measurement has
            its own reference; other n are references acquired evenly over the acquisition, interpolated linearly in
            time.
        where: Name of the signal in messages.

    Returns:
        Spectra in float64. Voxels without any signal (all zeros) and signals without a positive reference are NaN.

    Raises:
        ValueError: The numbers of measurements and offsets differ, or there is no reference.
    """
    if raw.shape[1] != protocol.measurement_count:
        raise ValueError(
            f"the protocol has {protocol.measurement_count} offsets but {where} has {raw.shape[1]} measurements"
        )
    raw = raw.double()
    raw = torch.where((raw != 0).any(1, keepdim=True), raw, torch.nan)
    if protocol.signal_normalisation == "none":
        return ZSpectra(raw, protocol)
    if protocol.signal_normalisation == "l2":
        norm = torch.linalg.vector_norm(raw, dim=1, keepdim=True)
        return ZSpectra(_divide(raw, norm), protocol)
    if reference is not None:
        reference = reference.double()
        reference = reference[:, None] if reference.ndim == 1 else reference
        in_time = _in_time(reference, raw.shape[1])
        return ZSpectra(_divide(raw, in_time), protocol)
    far = protocol.offsets_ppm.abs() >= FAR_OFF_RESONANCE_PPM
    if not bool(far.any()) or bool(far.all()):
        raise ValueError(
            f"no M0 reference for {where}: give an M0 image or a measurement at least {FAR_OFF_RESONANCE_PPM:g} ppm "
            "off resonance, or set signal_normalisation to 'none' if the signal is normalised already"
        )
    index = torch.nonzero(far).flatten()
    references = raw[:, index]
    in_time = _interpolate(references, index.double(), torch.arange(raw.shape[1], dtype=torch.float64))
    keep = ~far
    return ZSpectra(_divide(raw, in_time)[:, keep], protocol.select(keep))


def _divide(raw: Tensor, reference: Tensor) -> Tensor:
    usable = torch.isfinite(reference) & (reference > 0)
    return torch.where(usable, raw / torch.where(usable, reference, 1.0), torch.nan)


def _in_time(reference: Tensor, measurements: int) -> Tensor:
    """Return the reference (voxel, 1) or (voxel, measurement) at the times of the measurements."""
    count = reference.shape[1]
    if count in (1, measurements):
        return reference
    position = torch.linspace(0, measurements - 1, count, dtype=torch.float64)
    return _interpolate(reference, position, torch.arange(measurements, dtype=torch.float64))


def _interpolate(values: Tensor, at: Tensor, wanted: Tensor) -> Tensor:
    """Interpolate linearly along the last axis; constant beyond the ends."""
    if len(at) == 1:
        return values
    upper = torch.searchsorted(at, wanted).clamp(1, len(at) - 1)
    lower = upper - 1
    weight = ((wanted - at[lower]) / (at[upper] - at[lower])).clamp(0, 1)
    return values[:, lower] * (1 - weight) + values[:, upper] * weight
