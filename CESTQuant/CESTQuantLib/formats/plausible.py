"""Values of files that can only be meant in another unit: what is impossible is refused, what is unusual is told."""

from __future__ import annotations

import math
import warnings

LONGEST_RELAXATION_S = 60.0
"""Relaxation times beyond this are those of no tissue or solution in s, but usual ones in ms."""
_USUAL_B1_RELATIVE = (0.1, 3.0)
_SAME_NUCLEUS = 0.01
"""Relative difference up to which a rounded gyromagnetic ratio is that of a nucleus."""
_MHZ_PER_T = {
    "1H": 42.577,
    "19F": 40.078,
    "3He": 32.434,
    "31P": 17.235,
    "129Xe": 11.777,
    "23Na": 11.262,
    "13C": 10.708,
    "2H": 6.536,
}
"""Gyromagnetic ratios of the nuclei of MR, without their signs."""


def gyromagnetic_ratio(rad_per_s_per_uT: float, name: str) -> float:
    """Return a gyromagnetic ratio in rad/(s uT) if it is that of a nucleus.

    Args:
        rad_per_s_per_uT: Value in the file.
        name: Name of the value, with which the message begins.

    Raises:
        ValueError: No nucleus of MR has it; the message says which unit it may have.
    """
    if not rad_per_s_per_uT > 0:
        raise ValueError(f"{name} is {rad_per_s_per_uT:g} but must be positive")
    if _nucleus(rad_per_s_per_uT / (2 * math.pi)):
        return rad_per_s_per_uT
    for factor, unit in ((1.0, "MHz/T"), (1e-6, "Hz/T"), (1e-6 / (2 * math.pi), "rad/(s T)")):
        if nucleus := _nucleus(rad_per_s_per_uT * factor):
            right = 2 * math.pi * rad_per_s_per_uT * factor
            raise ValueError(
                f"{name} is {rad_per_s_per_uT:g}, which is that of {nucleus} in {unit}: give {right:.5g} rad/(s uT)"
            )
    raise ValueError(
        f"{name} is {rad_per_s_per_uT:g}, which no nucleus of MR has: give it in rad/(s uT), 267.52 for protons"
    )


def _nucleus(MHz_per_T: float) -> str | None:
    """The nucleus with a gyromagnetic ratio, or None."""
    matching = (n for n, value in _MHZ_PER_T.items() if math.isclose(MHz_per_T, value, rel_tol=_SAME_NUCLEUS))
    return next(matching, None)


def initial_magnetization(value: float, name: str) -> float:
    """Return a share of the equilibrium magnetisation, from -1 after an inversion to 1.

    Raises:
        ValueError: The value lies beyond.
    """
    if abs(value) > 1 + 1e-6:
        raise ValueError(
            f"{name} is {value:g} but must lie between -1 and 1: give a share of the equilibrium, not percent"
        )
    return value


def relaxation_time(time_s: float, name: str) -> float:
    """Return a relaxation time in s.

    Raises:
        ValueError: The time is longer than that of any tissue.
    """
    if time_s > LONGEST_RELAXATION_S:
        raise ValueError(f"{name} is {time_s:g} s, which no tissue has: give times in s, not in ms, and rates in 1/s")
    return time_s


def warn_of_unusual_b1(b1_relative: float, name: str) -> None:
    """Tell a relative B1 that may be meant in percent."""
    least, most = _USUAL_B1_RELATIVE
    if not least <= b1_relative <= most:
        warnings.warn(
            f"{name} is {b1_relative:g}, which is unusual: check that it is relative to the nominal B1 (1), not in "
            "percent or uT",
            stacklevel=3,
        )
