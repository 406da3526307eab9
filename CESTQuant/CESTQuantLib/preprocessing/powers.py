"""Acquisitions at several powers: the spectrum of one of them, corrected for B1 where there is a map."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection
from dataclasses import replace

import torch
from torch import Tensor

from NeuroCESTLib.core.messages.input_errors import InputError

from ..fitting.interpolation import numbered_offsets
from ..physics.protocol import Protocol
from ..tissue.spectra import ZSpectra
from .fields import interpolate_b1

POWER_TOLERANCE_UT = 1e-3
SATURATION_TIMES = ("saturation_time_s", "post_delay_s")
"""Times of the protocol that change a spectrum, so that its measurements must agree in them."""
TIME_TOLERANCE_S, RELATIVE_TIME_TOLERANCE = 1e-3, 1e-3
"""Differences between the times of the measurements of a spectrum that are due to rounding."""
_ROUNDING = 1e-3
"""Relative error of the limits as a message gives them, which are accepted too."""
FARTHEST_EXTRAPOLATION = 0.2
"""Share of the lowest or highest power by which the wanted one may lie beyond it, where a B1 map interpolates."""
LITTLE_EXTRAPOLATION = 0.05
"""Share of the wanted power by which the actual powers of a voxel may miss it without a warning."""


def acquired_powers_uT(protocol: Protocol) -> Tensor:
    """Return the distinct B1 values of a protocol in uT, ascending, rounded to 0.001 uT.

    Measurements without saturation, such as those of M0, have no power among others that are saturated.
    """
    return torch.unique(torch.round(protocol.b1_uT[_saturated(protocol)], decimals=3))


def _saturated(protocol: Protocol) -> Tensor:
    """Whether measurements are saturated, (measurement,): all of them where the protocol knows it of none."""
    powers, times = torch.round(protocol.b1_uT, decimals=3) > 0, protocol.saturation_time_s > 0
    saturated = powers & times if bool((powers & times).any()) else powers  # the times may be unknown
    return saturated if bool(saturated.any()) else torch.ones_like(saturated)


def by_power(spectra: ZSpectra) -> tuple[ZSpectra, Tensor, list[Tensor]]:
    """Return the spectra of all powers, without measurements that are not saturated if others are.

    Args:
        spectra: Spectra as acquired, at one or several powers.

    Returns:
        The saturated measurements, the powers in uT, ascending, and the indices of the measurements at each power.

    Raises:
        ValueError: The saturation time or the delay after it varies within a power, so that its measurements are not
            one spectrum.
    """
    used, powers, members = _split(spectra)
    indices = [_indices(member) for member in members]
    for index in indices:
        _of_one_saturation(used.select(index))
    return used, powers, indices


def _split(spectra: ZSpectra) -> tuple[ZSpectra, Tensor, list[Tensor]]:
    """Saturated measurements, the powers (power,) in uT, and whether a measurement is at each power, (measurement,)."""
    powers = acquired_powers_uT(spectra.protocol)
    saturated = _saturated(spectra.protocol)
    if not bool(saturated.all()):
        spectra = spectra.select(saturated)
    return spectra, powers, [(spectra.protocol.b1_uT - power).abs() < POWER_TOLERANCE_UT for power in powers]


def at_one_power(spectra: ZSpectra, power_uT: float | None, *, varying: Collection[str] = ()) -> ZSpectra:
    """Return the spectra at one power, without measurements that are not saturated if others are.

    Args:
        spectra: Spectra as acquired, at one or several powers.
        power_uT: Wanted B1 in uT; None if only one power was acquired.
        varying: Which of ``SATURATION_TIMES`` may differ between the measurements, for methods that take each with its
            own. Where spectra are interpolated to the wanted power, none may.

    Returns:
        All saturated measurements if only one power was acquired. Otherwise, with a map of the relative B1, the spectra
        interpolated to the wanted power; without a map, the measurements that were acquired at it.

    Raises:
        ValueError: Several powers were acquired and none is chosen, the wanted power is not positive or was not
            acquired, the offsets differ between the powers, so that nothing can be interpolated, or the saturation
            time or the delay after it varies, so that the measurements are not one spectrum.
    """
    if power_uT is not None and not 0 < power_uT < math.inf:
        raise InputError("power", f"the power must be a positive number of uT, not {power_uT:g}")
    spectra, powers, members = _split(spectra)
    listed = ", ".join(f"{power:g}" for power in powers.tolist())
    if len(powers) == 1:
        if power_uT is not None and float(powers) > 0 and abs(float(powers) - power_uT) >= POWER_TOLERANCE_UT:
            raise InputError("power", f"no measurement at {power_uT:g} uT; the only power is {listed} uT")
        return _of_one_saturation(spectra, varying)
    if power_uT is None:
        raise InputError(
            "protocol", f"the protocol has {len(powers)} powers ({listed} uT); choose one for the contrast (--power)"
        )
    if spectra.b1_relative is not None:
        low, high = float(powers[0]), float(powers[-1])
        lowest, highest = low * (1 - FARTHEST_EXTRAPOLATION), high * (1 + FARTHEST_EXTRAPOLATION)
        if not lowest * (1 - _ROUNDING) <= power_uT <= highest * (1 + _ROUNDING):
            raise InputError(
                "power",
                f"{power_uT:g} uT is too far from the acquired powers ({listed} uT) to be interpolated: choose a power "
                f"between {lowest:.4g} and {highest:.4g} uT",
            )
        return _interpolated(_of_one_saturation(spectra), spectra.b1_relative, powers, members, power_uT)
    for power, member in zip(powers, members, strict=True):
        if abs(float(power) - power_uT) < POWER_TOLERANCE_UT:
            return _of_one_saturation(spectra.select(member), varying)
    raise InputError("power", f"no measurement at {power_uT:g} uT; the powers are {listed} uT")


def corrects_b1(spectra: ZSpectra) -> bool:
    """Return whether ``at_one_power`` interpolates these spectra to the nominal B1."""
    return spectra.b1_relative is not None and len(acquired_powers_uT(spectra.protocol)) > 1


def b1_warnings(spectra: ZSpectra, power_uT: float | None) -> list[str]:
    """Return sentences for the user about what a B1 map cannot do for the spectra at one power.

    Args:
        spectra: Spectra as acquired, at one or several powers.
        power_uT: Wanted B1 in uT; None if only one power was acquired.
    """
    if spectra.b1_relative is None:
        return []
    powers = acquired_powers_uT(spectra.protocol)
    if len(powers) == 1:
        return ["the B1 map is not used: with a single power the contrast cannot be corrected for B1"]
    if power_uT is None:  # which is refused
        return []
    relative = spectra.b1_relative.to(spectra.signal)
    usable = (relative > 0) & torch.isfinite(spectra.signal).any(1)
    too_low = relative * float(powers[-1]) < power_uT * (1 - LITTLE_EXTRAPOLATION)
    too_high = relative * float(powers[0]) > power_uT * (1 + LITTLE_EXTRAPOLATION)
    beyond = int((usable & (too_low | too_high)).sum())
    if not beyond:
        return []
    return [
        f"{power_uT:g} uT lies beyond the actual B1 of all acquisitions in {beyond} of {int(usable.sum())} voxels "
        f"({100 * beyond / int(usable.sum()):.0f} %), whose spectra are extrapolated"
    ]


def _of_one_saturation(spectra: ZSpectra, varying: Collection[str] = ()) -> ZSpectra:
    """Return the spectra if all of their measurements have the same times, but for those that may vary."""
    for name in (name for name in SATURATION_TIMES if name not in varying):
        shortest, longest = getattr(spectra.protocol, name).aminmax()
        if float(longest - shortest) > TIME_TOLERANCE_S + RELATIVE_TIME_TOLERANCE * float(longest):
            raise InputError(
                "protocol",
                f"the measurements are not one spectrum, because {name} of the protocol varies from "
                f"{float(shortest):g} to {float(longest):g} s: give the measurements of each time as an acquisition of "
                "its own, correct them for their finite saturation (--quass), or use a method that simulates every "
                "measurement (r1rho, bloch-mcconnell)",
            )
    return spectra


def _interpolated(
    spectra: ZSpectra, b1_relative: Tensor, powers: Tensor, members: list[Tensor], power_uT: float
) -> ZSpectra:
    """Spectra at ``power_uT``, interpolated between the powers, whose measurements are ``members``.

    Offsets that differ by their rounding are the same. Where offsets are repeated more often at one power than at
    another, repeats are averaged.
    """
    numbers = torch.tensor(numbered_offsets(spectra.protocol.offsets_ppm))
    rows = [index[torch.argsort(numbers[index], stable=True)] for index in map(_indices, members)]
    _require_same_offsets(spectra.protocol, numbers, rows, powers)
    signals = [spectra.signal[:, index] for index in rows]
    chosen = rows[0]
    if any(not torch.equal(numbers[index], numbers[rows[0]]) for index in rows):
        signals = [_mean_of_repeats(signal, numbers[index]) for signal, index in zip(signals, rows, strict=True)]
        chosen = chosen[numbers[chosen].diff(prepend=torch.tensor([-1])) > 0]
    signal = interpolate_b1(torch.stack(signals), powers.to(spectra.signal.device), b1_relative, power_uT)
    protocol = spectra.protocol.select(chosen)
    protocol = replace(protocol, b1_uT=torch.full_like(protocol.b1_uT, power_uT))
    return replace(spectra, signal=signal, protocol=protocol, valid=None)


def _require_same_offsets(protocol: Protocol, numbers: Tensor, rows: list[Tensor], powers: Tensor) -> None:
    """Refuse powers that do not have the same offsets, of which each has a number (measurement,)."""
    for one, other in itertools.permutations(range(len(rows)), 2):
        lacking = [index for index in rows[one].tolist() if int(numbers[index]) not in numbers[rows[other]]]
        if lacking:
            offsets = [f"{offset:g}" for offset in protocol.offsets_ppm[lacking].unique().tolist()]
            listed = ", ".join(offsets[:3]) + (f" and {len(offsets) - 3} more" if len(offsets) > 3 else "")
            raise InputError(
                "protocol",
                f"interpolation in B1 needs the same offsets at every power, but {float(powers[other]):g} uT lacks "
                f"{listed} ppm, which {float(powers[one]):g} uT has: leave out the B1 map (--b1), or the offsets that "
                "not all powers have",
            )


def _indices(member: Tensor) -> Tensor:
    return torch.nonzero(member).flatten()


def _mean_of_repeats(signal: Tensor, numbers: Tensor) -> Tensor:
    """Mean (voxel, n) of the measurements (voxel, measurement) that have the same of n numbers, in ascending order."""
    _, place, count = numbers.to(signal.device).unique(return_inverse=True, return_counts=True)
    return signal.new_zeros(len(signal), len(count)).index_add_(1, place, signal) / count
