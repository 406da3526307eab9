"""Where the analytic solution cannot be trusted."""

from __future__ import annotations

import torch
from torch import Tensor

from ..protocol import Protocol

LARGEST_MISSING_TERM = 7e-3
"""Size of the missing transverse term in Z above which there is a warning, as it is after 10 T2 on resonance."""


def missing_term(protocol: Protocol, T2_s: float) -> Tensor:
    """Return how large the transverse term in Z may be that the analytic solution leaves out, see :mod:`.block`.

    The term decays with the relaxation of water alone here; T1, exchange and a semisolid pool only speed this up.

    Args:
        protocol: Acquisition without events.
        T2_s: Transverse relaxation time of water in s, the longest that is possible.

    Returns:
        Sizes (measurement,), 0 where nothing is saturated.
    """
    w1 = protocol.gamma_rad_per_s_per_uT * protocol.b1_uT.detach()
    offset = protocol.rad_per_s_per_ppm * protocol.offsets_ppm.detach()
    time_s = protocol.saturation_time_s.detach()
    saturated = (w1 > 0) & (time_s > 0)
    sin2 = w1.square() / torch.where(saturated, w1.square() + offset.square(), 1.0)
    return torch.where(saturated, sin2 * torch.exp(-(2 - sin2) / (2 * T2_s) * time_s), 0.0)


def regime_warnings(protocol: Protocol, T2_s: float) -> tuple[str, ...]:
    """Name the measurements for which the analytic solution cannot be trusted, see :mod:`.block`.

    Args:
        protocol: Acquisition.
        T2_s: Transverse relaxation time of water in s, the longest that is possible.
    """
    if protocol.events is not None:  # the transverse part is not left out there
        return ()
    warnings = []
    if protocol.pulses is not None:
        warnings.append(
            "R1rho treats pulse trains as continuous-wave saturation of equal power (error of 0.04 to 0.12 in Z): "
            "prefer bloch-mcconnell"
        )
    missing = missing_term(protocol, T2_s)
    short = missing > LARGEST_MISSING_TERM
    if bool(short.any()):
        farthest = round(float(protocol.offsets_ppm.detach()[short].abs().max()), 3)
        warnings.append(
            f"in {int(short.sum())} of {len(short)} measurements, up to {farthest:g} ppm from water, the saturation is "
            f"short against T2 of water (up to {T2_s:g} s), and R1rho leaves out a transverse term of up to "
            f"{float(missing.max()):.2g} in Z: prefer bloch-mcconnell"
        )
    if protocol.readout_pulse_s > 0:
        warnings.append("R1rho assumes a spoiled readout, which this protocol does not have: prefer bloch-mcconnell")
    return tuple(warnings)
