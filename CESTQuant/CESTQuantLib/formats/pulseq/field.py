"""The static field for which a pulseq file is made, as its definitions say it."""

from __future__ import annotations

import math
import re

from .text import Definitions

SAME_FIELD = 5e-3
"""Relative difference up to which two static fields are the same magnet."""
STRONGEST_T = 30.0
"""Strongest field in T of a magnet."""
_WEAKEST_T = 1e-3
_VALUE = re.compile(r"(?:(?:B0|FREQ)\s*)?[:=]?\s*([-+]?[\d.]+(?:e[-+]?\d+)?)\s*([a-zµ]*)", re.IGNORECASE)
_TESLA = {"": 1.0, "t": 1.0, "tesla": 1.0, "mt": 1e-3, "g": 1e-4, "gauss": 1e-4}
_MEGAHERTZ = {"": 1.0, "mhz": 1.0, "khz": 1e-3, "hz": 1e-6}


def field_of_definitions(
    definitions: Definitions, gamma_rad_per_s_per_uT: float, notes: list[str] | None = None
) -> float | None:
    """Return the static field in T that the definitions give as ``B0``, or else as ``FREQ`` in MHz.

    Repeated names and units are understood. A ``B0`` that can only be a frequency in MHz, and a ``FREQ`` in Hz, are
    converted. Negative values stand for no field, as in the T1 and T2 preparations of the pulseq-cest library.

    Args:
        definitions: Definitions of the file.
        gamma_rad_per_s_per_uT: Gyromagnetic ratio in rad/(s uT).
        notes: Takes sentences on what was converted, is contradictory or cannot be read.

    Returns:
        The field, or None where the definitions give none.
    """
    notes = [] if notes is None else notes
    mhz_per_T = gamma_rad_per_s_per_uT / (2 * math.pi)
    for name in ("B0", "FREQ", "offsets_ppm"):
        if len(texts := definitions.texts(name)) > 1:
            shown = " and ".join(f"'{text[:40]}'" for text in texts)
            notes.append(f"{name} is defined as {shown}; '{(definitions.text(name) or '')[:40]}' counts")
    stated = _field_T(definitions.text("B0"), mhz_per_T, notes)
    of_frequency = _field_of_frequency_T(definitions.text("FREQ"), mhz_per_T, notes)
    if stated is None:
        return of_frequency
    if of_frequency is not None and not math.isclose(stated, of_frequency, rel_tol=SAME_FIELD):
        notes.append(f"B0 is {stated:.4g} T but FREQ is that of {of_frequency:.4g} T; B0 counts")
    return stated


def _parts(text: str) -> tuple[float, str] | None:
    """The number and the unit of a text."""
    match = _VALUE.fullmatch(text.strip().strip("[]"))
    try:
        return None if match is None else (float(match[1]), match[2].lower())
    except ValueError:
        return None


def _field_T(text: str | None, mhz_per_T: float, notes: list[str]) -> float | None:
    if text is None:
        return None
    value, unit = _parts(text) or (math.nan, "?")
    if unit in _MEGAHERTZ and unit:
        field = value * _MEGAHERTZ[unit] / mhz_per_T
    elif unit == "" and STRONGEST_T < value <= STRONGEST_T * mhz_per_T:
        field = value / mhz_per_T
    else:
        field = value * _TESLA.get(unit, math.nan)
    if field <= 0:
        return None
    if not _WEAKEST_T <= field <= STRONGEST_T:
        notes.append(f"the definition B0 is '{text[:40]}', which is not a field in T; it is not used")
        return None
    if not math.isclose(field, value):
        notes.append(f"the definition B0 is '{text[:40]}', which is taken for {field:.4g} T")
    return field


def _field_of_frequency_T(text: str | None, mhz_per_T: float, notes: list[str]) -> float | None:
    if text is None:
        return None
    value, unit = _parts(text) or (math.nan, "?")
    in_hertz = unit == "" and value > 1e6
    field = value * (1e-6 if in_hertz else _MEGAHERTZ.get(unit, math.nan)) / mhz_per_T
    if field <= 0:
        return None
    if not _WEAKEST_T <= field <= STRONGEST_T:
        notes.append(f"the definition FREQ is '{text[:40]}', which is not a frequency in MHz; it is not used")
        return None
    if in_hertz:
        notes.append(f"the definition FREQ is '{text[:40]}', which is taken to be in Hz")
    return field
