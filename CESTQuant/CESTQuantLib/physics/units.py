"""Physical constants and the one conversion between ppm and angular frequency."""

from __future__ import annotations

import math

GAMMA_RAD_PER_S_PER_UT = 267.5154109126009
"""Gyromagnetic ratio of the proton, rad/(s uT) (42.5764 MHz/T)."""

WATER_PROTON_MM = 110000.0
"""Concentration of water protons in mM that converts a proton fraction into a solute concentration."""


def rad_per_s_per_ppm(field_strength_T: float, gamma_rad_per_s_per_uT: float = GAMMA_RAD_PER_S_PER_UT) -> float:
    """Angular frequency of one ppm at a static field, in rad/s (equal to gamma in rad/(s uT) times B0 in T)."""
    return gamma_rad_per_s_per_uT * field_strength_T


def rad_per_s_per_ppm_from_larmor(larmor_frequency_MHz: float) -> float:
    """Angular frequency of one ppm for a measured Larmor frequency in MHz, in rad/s."""
    return 2 * math.pi * larmor_frequency_MHz


def concentration_mM(fraction, protons: float):
    """Solute concentration in mM from its proton fraction (water = 1) and its exchangeable protons per molecule."""
    return fraction * WATER_PROTON_MM / protons
