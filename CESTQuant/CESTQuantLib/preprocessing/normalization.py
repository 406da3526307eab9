"""Normalisation of measured signals by their reference images."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import torch
from torch import Tensor

from ..physics.protocol import Protocol
from ..tissue.spectra import ZSpectra
from .reference import INTERPOLATED, blocks, in_time, m0_measurements, shared_noise


def normalize(
    raw: Tensor,
    protocol: Protocol,
    reference: Tensor | None,
    *,
    over_time: str = INTERPOLATED,
    where: str = "the signal",
) -> ZSpectra:
    """Normalise raw signals as the protocol says.

    - ``m0``: divide by the reference. Without one, the measurements that the protocol names, else the farthest from
      water if they lie at least 20 ppm off resonance, serve as reference and are left out of the spectra (see
      :func:`.m0_measurements`). Parts of another receiver gain are divided by their own reference (see
      :func:`.blocks`).
    - ``l2``: divide by the root sum of squares over the measurements.
    - ``none``: leave the signals as they are.

    Args:
        raw: Signals (voxel, measurement) in scanner units.
        protocol: Protocol of these measurements.
        reference: M0 of shape (voxel,), or (voxel, n): with n equal to the number of measurements, each measurement has
            its own reference; other n are references acquired evenly over the acquisition.
        over_time: How several references act: ``interpolated`` linearly in time, or their ``mean``.
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
    times = torch.arange(raw.shape[1], dtype=torch.float64)
    if reference is not None:
        reference = reference.double()
        reference = reference[:, None] if reference.ndim == 1 else reference
        at = torch.linspace(0, raw.shape[1] - 1, reference.shape[1], dtype=torch.float64)
        shared = shared_noise(at, times, over_time, reference)
        return ZSpectra(_divide(raw, in_time(reference, at, times, over_time)), protocol, reference_noise=shared)
    chosen = m0_measurements(protocol, where).index
    keep = torch.ones(raw.shape[1], dtype=torch.bool)
    keep[chosen] = False
    signal, shared = _divided_by_own(raw, protocol, chosen, over_time)
    return ZSpectra(signal[:, keep], _without_references(protocol, keep), reference_noise=shared)


def _divided_by_own(raw: Tensor, protocol: Protocol, chosen: Tensor, over_time: str) -> tuple[Tensor, float]:
    """Divide all measurements by those that are chosen as M0, part by part; the share of the noise as shared_noise."""
    edges = [*blocks(raw[:, chosen], chosen, protocol), raw.shape[1]]
    parts, shared = [], 0.0
    for first, end in itertools.pairwise(edges):
        own = chosen[(chosen >= first) & (chosen < end)]
        at, times = own.double(), torch.arange(first, end, dtype=torch.float64)
        parts.append(_divide(raw[:, first:end], in_time(raw[:, own], at, times, over_time)))
        shared += (len(times) / raw.shape[1]) ** 2 * shared_noise(at, times, over_time, raw[:, own])
    return torch.cat(parts, 1), shared


def spectrum_protocol(protocol: Protocol) -> Protocol:
    """Return the protocol of the spectra that :func:`normalize` gives for a scan without an M0 image.

    Args:
        protocol: Protocol of the scan. The measurements that it names as M0 are left out where signals are divided by
            them; a protocol that names none is returned as it is. Gradients are kept.

    Raises:
        ValueError: All measurements are M0.
    """
    if protocol.signal_normalisation != "m0" or not protocol.m0_measurements:
        return protocol
    keep = torch.ones(protocol.measurement_count, dtype=torch.bool)
    keep[m0_measurements(protocol).index] = False
    return _without_references(protocol, keep)


def _without_references(protocol: Protocol, keep: Tensor) -> Protocol:
    """Protocol of the measurements to keep, which starts from what leading M0 measurements leave.

    An M0 measurement is taken to sample the equilibrium. Where magnetisation is carried over, the excitation leaves the
    cosine of its flip angle, and that recovers until the first saturation.
    """
    kept = protocol.select(keep)
    first = int(torch.nonzero(keep)[0])
    if first == 0 or not protocol.magnetisation_carried_over or protocol.events is not None:
        return kept
    angle = protocol.readout_flip_angle_deg
    left = 1.0 if angle is None else math.cos(math.radians(float(angle[first - 1].detach())))
    # The first value is that of the first measurement. The others are those of methods that let every saturation start
    # alike, which warn of that.
    recovery_s = torch.full_like(kept.initial_recovery_s, float(protocol.recovery_time_s[first - 1].detach()))
    return replace(kept, initial_magnetisation=left, initial_recovery_s=recovery_s)


def _divide(raw: Tensor, reference: Tensor) -> Tensor:
    usable = torch.isfinite(reference) & (reference > 0)
    return torch.where(usable, raw / torch.where(usable, reference, 1.0), torch.nan)
