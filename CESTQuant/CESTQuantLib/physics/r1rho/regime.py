"""Where the analytic solution cannot be trusted."""

from __future__ import annotations

from ..protocol import Protocol

NEAR_WATER_PPM = 1.0
"""Within this distance from water the analytic solution needs a saturation that is long against T2."""
LONG_AGAINST_T2 = 10.0
"""Saturation time in units of T2 from which the analytic solution also holds near water."""


def regime_warnings(protocol: Protocol, T2_s: float) -> tuple[str, ...]:
    """Name the measurements for which the analytic solution cannot be trusted, see :mod:`.block`.

    Args:
        protocol: Acquisition.
        T2_s: Transverse relaxation time of water in s, the longest that is possible.
    """
    if protocol.events is not None:  # the transverse part is not left out there
        return ()
    warnings = []
    near = (protocol.offsets_ppm.abs() < NEAR_WATER_PPM) & (protocol.saturation_time_s < LONG_AGAINST_T2 * T2_s)
    if protocol.pulses is not None:
        warnings.append(
            "R1rho treats pulse trains as continuous-wave saturation of equal power (error of 0.04 to 0.12 in Z): "
            "prefer bloch-mcconnell"
        )
    near = near & (protocol.b1_uT > 0)
    if bool(near.any()):
        warnings.append(
            f"{int(near.sum())} measurements lie within {NEAR_WATER_PPM:g} ppm of water and are saturated for less "
            f"than {LONG_AGAINST_T2:g} T2 (T2 up to {T2_s:g} s): the analytic solution fails there, "
            "prefer bloch-mcconnell"
        )
    if protocol.readout_pulse_s > 0:
        warnings.append("R1rho assumes a spoiled readout, which this protocol does not have: prefer bloch-mcconnell")
    return tuple(warnings)
