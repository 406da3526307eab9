"""Physical constants, and the conversions between ppm and angular frequency and from fraction to concentration."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

GAMMA_RAD_PER_S_PER_UT = 267.5154109126009
"""Gyromagnetic ratio of the proton in rad/(s uT); 42.5764 MHz/T."""

WATER_PROTON_MM = 110000.0
"""Concentration of water protons in mM, with which a proton fraction becomes a solute concentration."""

Value = TypeVar("Value", float, "Tensor")


def rad_per_s_per_ppm(field_strength_T: float, gamma_rad_per_s_per_uT: float = GAMMA_RAD_PER_S_PER_UT) -> float:
    """Return the angular frequency of one ppm in rad/s at a static field in T.

    It equals gamma in rad/(s uT) times the field in T.
    """
    return gamma_rad_per_s_per_uT * field_strength_T


def rad_per_s_per_ppm_from_larmor(larmor_frequency_MHz: float) -> float:
    """Return the angular frequency of one ppm in rad/s for a measured Larmor frequency in MHz."""
    return 2 * math.pi * larmor_frequency_MHz


def concentration_mM(fraction: Value, protons: float) -> Value:
    """Return the concentration of a solute in mM.

    Args:
        fraction: Proton fraction of the solute (water = 1), a number or a tensor of any shape.
        protons: Exchangeable protons per molecule.
    """
    return fraction * WATER_PROTON_MM / protons
