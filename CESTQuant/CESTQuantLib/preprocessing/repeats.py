"""The noise of an acquisition, from measurements that were made several times."""

from __future__ import annotations

import torch

from ..physics.protocol import PER_MEASUREMENT, Protocol
from ..tissue.spectra import ZSpectra
from .magnitudes import bright_voxels

FEWEST_REPEATS = 3
"""Degrees of freedom that repeated measurements must have, taken together, for an estimate of the noise."""


def repeated_measurements(protocol: Protocol) -> list[list[int]]:
    """Return the indices of measurements that are equal in everything, group by group.

    Measurements that start from what the last one has left, or of single events, are never equal.
    """
    if protocol.magnetisation_carried_over or protocol.events is not None:
        return []
    settings = [value.tolist() for name in PER_MEASUREMENT if (value := getattr(protocol, name)) is not None]
    groups: dict[tuple[float, ...], list[int]] = {}
    for index, setting in enumerate(zip(*settings, strict=True)):
        groups.setdefault(tuple(round(value, 6) for value in setting), []).append(index)
    return [group for group in groups.values() if len(group) > 1]


def noise_of_repeats(spectra: ZSpectra) -> float | None:
    """Estimate the standard deviation of a measurement from repeats, pooled over the usable voxels of tissue.

    Air, where there is no mask, does not count: its signal relative to M0 is noise divided by noise.

    Args:
        spectra: Normalised spectra.

    Returns:
        The standard deviation; None where too few measurements are repeated.
    """
    groups = repeated_measurements(spectra.protocol)
    if sum(len(group) - 1 for group in groups) < FEWEST_REPEATS:
        return None
    usable = torch.isfinite(spectra.signal).all(1)
    if spectra.brightness is not None:
        usable &= torch.isfinite(spectra.brightness)
        if bool(usable.any()):
            usable[usable.clone()] = bright_voxels(spectra.brightness[usable])
    signal = spectra.signal[usable].double()
    if len(signal) == 0:
        return None
    squares, degrees = 0.0, 0
    for group in groups:
        repeats = signal[:, group]
        squares += float((repeats - repeats.mean(1, keepdim=True)).square().sum())
        degrees += (len(group) - 1) * len(signal)
    return (squares / degrees) ** 0.5 or None
