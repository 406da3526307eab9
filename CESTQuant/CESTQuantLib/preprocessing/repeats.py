"""The noise of an acquisition, from measurements that were made several times."""

from __future__ import annotations

import torch
from torch import Tensor

from ..fitting.interpolation import numbered_offsets
from ..physics.protocol import PER_MEASUREMENT, Protocol
from ..tissue.spectra import ZSpectra
from .magnitudes import bright_voxels

FEWEST_REPEATS = 3
"""Degrees of freedom that repeated measurements must have, taken together, for an estimate of the noise."""
SHARED_DEGREES = 10
"""Degrees of freedom for which the noise of all voxels counts against the repeats of one."""


def repeated_measurements(protocol: Protocol) -> list[list[int]]:
    """Return the indices of measurements that are equal in everything, group by group; offsets may be rounded.

    Measurements that start from what the last one has left, or of single events, are never equal.
    """
    if protocol.magnetisation_carried_over or protocol.events is not None:
        return []
    others = [name for name in PER_MEASUREMENT if name != "offsets_ppm"]
    settings = [value.tolist() for name in others if (value := getattr(protocol, name)) is not None]
    settings.insert(0, numbered_offsets(protocol.offsets_ppm))
    groups: dict[tuple[float, ...], list[int]] = {}
    for index, setting in enumerate(zip(*settings, strict=True)):
        groups.setdefault(tuple(round(value, 6) for value in setting), []).append(index)
    return [group for group in groups.values() if len(group) > 1]


def noise_of_repeats(spectra: ZSpectra) -> Tensor | None:
    """Estimate the standard deviation of a measurement of every voxel from its repeats and those of the other voxels.

    White noise in scanner units is the same everywhere and acts on the normalised signal as noise over M0; pulsation
    and ghosts disturb some voxels more than others. So the variance of a voxel is that of its own repeats, with as many
    degrees of freedom as they have, averaged with the variance that the noise of the image gives it, which counts as
    ``SHARED_DEGREES``. The noise of the image is the median over the usable voxels of tissue, so that a few disturbed
    or dim ones do not decide about it. Air, where there is no mask, does not count.

    Args:
        spectra: Normalised spectra.

    Returns:
        The standard deviation (voxel,), NaN where neither the repeats nor M0 tell it; None where too few measurements
        are repeated, and where the spectra were smoothed, which makes repeats alike.
    """
    groups = repeated_measurements(spectra.protocol)
    degrees = _degrees_of_freedom(groups)
    if spectra.smoothed or degrees < FEWEST_REPEATS:
        return None
    signal = spectra.signal.double()
    squares = torch.zeros_like(signal[:, 0])
    for group in groups:
        repeats = signal[:, group]
        squares = squares + (repeats - repeats.mean(1, keepdim=True)).square().sum(1)
    own = torch.where(torch.isfinite(signal).all(1), squares / degrees, torch.nan)
    level = torch.ones_like(own) if spectra.m0 is None else torch.where(spectra.m0 > 0, spectra.m0, torch.nan).to(own)
    of_image = (own * level.square())[_tissue(spectra)]
    of_image = of_image[torch.isfinite(of_image)]
    if len(of_image) == 0 or not float(of_image.median()) > 0:
        return None
    shared = of_image.median() / _median_of_variances(degrees, len(of_image)) / level.square()
    both = (degrees * own + SHARED_DEGREES * shared) / (degrees + SHARED_DEGREES)
    return torch.where(both.isfinite(), both, torch.where(own.isfinite(), own, shared)).sqrt()


def smoothing_warnings(spectra: ZSpectra) -> list[str]:
    """Return a sentence for the user where repeats would tell the noise, had the spectra not been smoothed."""
    if not spectra.smoothed or _degrees_of_freedom(repeated_measurements(spectra.protocol)) < FEWEST_REPEATS:
        return []
    return [
        "the noise is not estimated from the repeated measurements, which the smoothing has made alike: leave the "
        "smoothing out (--smooth-spectra) for standard errors from the repeats"
    ]


def _degrees_of_freedom(groups: list[list[int]]) -> int:
    return sum(len(group) - 1 for group in groups)


def typical_noise(noise_sd: float | Tensor, spectra: ZSpectra) -> float:
    """Return the median over the voxels of tissue of a noise per voxel; a single number is returned as it is."""
    return float(noise_sd[_tissue(spectra)].nanmedian()) if isinstance(noise_sd, Tensor) else noise_sd


def _tissue(spectra: ZSpectra) -> Tensor:
    """Whether voxels have a signal and are bright; all that have a signal count where the brightness is unknown."""
    usable = torch.isfinite(spectra.signal).all(1)
    if spectra.brightness is not None:
        usable &= torch.isfinite(spectra.brightness)
        if bool(usable.any()):
            usable[usable.clone()] = bright_voxels(spectra.brightness[usable])
    return usable


def _median_of_variances(degrees: int, voxels: int) -> float:
    """Return the expected median of variances that are estimated in a number of voxels, relative to the true one.

    In many voxels it is that of chi-square (Wilson and Hilferty, Proc Natl Acad Sci 1931;17:684); one has no bias.
    """
    return 1 - (1 - (1 - 2 / (9 * degrees)) ** 3) * (1 - 1 / voxels)
