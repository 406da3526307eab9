"""Measured Z-spectra: normalisation by reference images, and what counts as a usable voxel."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..physics.protocol import Protocol
from ..tissue.spectra import ZSpectra

FAR_OFF_RESONANCE_PPM = 20.0
"""Measurements at least this far from water may serve as M0 reference."""


def normalise(raw: Tensor, protocol: Protocol, reference: Tensor | None, *, where: str = "the signal") -> ZSpectra:
    """Normalise raw signals (voxel, measurement) as the protocol says.

    'm0': by ``reference`` of shape (voxel,), or (voxel, n): n = measurement count gives one reference per
    measurement; other n are references acquired evenly over the acquisition, interpolated linearly in time. Without
    one, the measurements at least 20 ppm off resonance serve (interpolated in time where interleaved) and are left
    out of the spectra. 'l2': by the root sum of squares over the measurements. 'none': as is. Voxels without any
    signal, all zeros, become NaN.

    Raises ValueError where the number of measurements and offsets differ or no reference is to be had.
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
            f"no M0 reference for {where}: give an M0 image, a measurement at least {FAR_OFF_RESONANCE_PPM:g} ppm off "
            "resonance, or set signal_normalisation to 'none' if it is normalised already"
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
    count = reference.shape[1]
    if count in (1, measurements):
        return reference
    position = torch.linspace(0, measurements - 1, count, dtype=torch.float64)
    return _interpolate(reference, position, torch.arange(measurements, dtype=torch.float64))


def _interpolate(values: Tensor, at: Tensor, wanted: Tensor) -> Tensor:
    """Linear interpolation along the last axis, constant beyond the ends."""
    if len(at) == 1:
        return values
    upper = torch.searchsorted(at, wanted).clamp(1, len(at) - 1)
    lower = upper - 1
    weight = ((wanted - at[lower]) / (at[upper] - at[lower])).clamp(0, 1)
    return values[:, lower] * (1 - weight) + values[:, upper] * weight


def region_statistics(values: Tensor) -> dict[str, float]:
    """Mean, SD, median, quartiles and count of the finite values."""
    finite = values[torch.isfinite(values)].double()
    if len(finite) == 0:
        nan = float("nan")
        return {"n": 0, "mean": nan, "sd": nan, "median": nan, "q1": nan, "q3": nan}
    quartiles = np.quantile(finite.cpu().numpy(), [0.25, 0.5, 0.75])  # torch.quantile stops at 2^24 values
    return {
        "n": len(finite),
        "mean": float(finite.mean()),
        "sd": float(finite.std()) if len(finite) > 1 else 0.0,
        "median": float(quartiles[1]),
        "q1": float(quartiles[0]),
        "q3": float(quartiles[2]),
    }
