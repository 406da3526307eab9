"""QUASS: spectra as they would be after endless saturation and recovery (quasi-steady state).

Sun PZ, Magn Reson Med 2021;85:3281. For pulse trains the rates of pulses and gaps are averaged (interleaved saturation
and relaxation; Roeloffs et al., NMR Biomed 2015;28:40). A saturation of duration t that starts from the magnetisation
z0 leaves, with the relaxation rate R and the source S::

    z = p z0 exp(-R t) + (S / R) (1 - exp(-R t))
    continuous wave:              p = cos^2(theta),  S = R1 cos^2(theta),                   R = R1rho
    trains with duty cycle d:     p = 1,             S = R1 (d cos^2(theta) + 1 - d),       R = d R1rho + (1 - d) R1

R is found by bisection, since z falls monotonically with it, and the steady state is S / R. The start z0 follows from
the T1 of water and the recovery before the saturation; the delay after the saturation is undone in the same way. The
signal is relative to M0: fully relaxed (``equilibrium``), or acquired with the timing of the saturated measurements
(``same-delay``, as published), when it is smaller by 1 - exp(-R1 (recovery + saturation time)) after 90 degree pulses.

The formulas hold for water that decays with a single rate. A semisolid pool has its own start, and readouts leave it
alone: the magnetisation that it keeps goes over to water within some 50 ms, and the next saturation starts higher than
the formulas say. The tests give the errors on Bloch-McConnell data at offsets of 1 ppm and more, where T1 is the
observed one: with continuous waves and 90 degree pulses at most 0.001 without a semisolid pool, with one of 8 % up to
0.07 for 0.5 s and a recovery of 1 s and 0.001 for 2 s and 4 s; 0.02 for Gaussian trains of 1.5 s. Transverse
magnetisation that a short saturation leaves in water of long T2, as in phantoms, is not described: those need 2 s. On
the water line itself (cos^2(theta) below 0.5), where a rate may not be found, the measured value stays.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from NeuroCESTLib.core.messages.input_errors import InputError

from ..physics.protocol import Protocol
from ..physics.r1rho.exchange import EffectiveField
from ..tissue.spectra import ZSpectra
from .initial_z import initial_z

REFERENCES = ("equilibrium", "same-delay")
"""What M0 may be: fully relaxed, or acquired with the timing of the saturated measurements."""
ENDLESS_S = 100.0
"""Duration of the saturation in s of which the corrected spectra are."""
ON_WATER = 0.5
"""Below this cos^2(theta) the RF acts on water itself, which is in its steady state within its T2."""
SLOWEST_HZ, FASTEST_HZ = 1e-3, 1e5
BISECTIONS = 40


def quasi_steady_state(spectra: ZSpectra, reference: str = "equilibrium") -> ZSpectra:
    """Correct spectra for finite saturation time and recovery.

    Args:
        spectra: Spectra relative to M0 with a map of the T1 of water; those of B0 and B1 are used where given.
        reference: One of ``REFERENCES``.

    Returns:
        Spectra (voxel, measurement) of the steady state, NaN where no rate explains the signal, with the protocol of an
        endless saturation that starts afresh for every measurement.

    Raises:
        ValueError: T1, saturation time or M0 are unknown, the reference is unknown, or the sequence is neither a
            continuous wave nor a train of equal pulses.
    """
    protocol = spectra.protocol
    _require_usable(spectra, reference)
    assert spectra.t1_s is not None
    z = spectra.signal.double()
    r1 = torch.where(spectra.t1_s > 0, 1 / spectra.t1_s, torch.nan).to(z).unsqueeze(1)
    duration = _duration_s(protocol).to(z)
    delay = protocol.post_delay_s.to(z)
    m0 = _m0_of_reference(protocol, r1, reference)
    sampled = z * m0  # relative to equilibrium
    after = 1 - (1 - sampled) * torch.exp(r1 * delay)
    start = _start(protocol, r1, sampled)
    cos2, projection, source = _projection_and_source(spectra, r1)
    steady = source / _rate(after, projection * start, source, duration)
    steady = torch.where(steady.isnan() & (cos2 < ON_WATER), after, steady)
    corrected = torch.where(duration > 0, steady, sampled)
    return replace(spectra, signal=corrected.to(spectra.signal.dtype), protocol=_endless(protocol))


def _require_usable(spectra: ZSpectra, reference: str) -> None:
    protocol = spectra.protocol
    if reference not in REFERENCES:
        raise ValueError(f"the reference '{reference}' of QUASS is unknown; use one of {', '.join(REFERENCES)}")
    if spectra.t1_s is None:
        raise ValueError("QUASS needs the T1 of water: give a T1 map (--t1)")
    if not bool((protocol.saturation_time_s > 0).any()):
        raise InputError(
            "protocol", "the protocol gives no saturation time and B1; QUASS needs a protocol.json or .seq"
        )
    if protocol.signal_normalisation != "m0":
        raise InputError(
            "protocol",
            f"QUASS needs signals relative to M0, but signal_normalisation is '{protocol.signal_normalisation}'",
        )
    if protocol.events is not None and not protocol.events.only_blocks:
        raise InputError(
            "protocol", "QUASS holds for continuous waves and trains of equal pulses, but the sequence plays others"
        )


def _duration_s(protocol: Protocol) -> Tensor:
    """Return the duration of the saturation (measurement,) in s; that of a train follows from its pulses."""
    if protocol.pulses is None:
        return protocol.saturation_time_s
    return torch.where(protocol.saturation_time_s > 0, protocol.pulses.total_time_s, 0.0)


def _cos_of_readout(protocol: Protocol, like: Tensor) -> Tensor:
    """Return the share of z that the readout leaves, (measurement,); all of it without an excitation."""
    angle = protocol.readout_flip_angle_deg
    if angle is None:
        return torch.ones(protocol.measurement_count).to(like)
    return torch.cos(torch.deg2rad(angle.to(like)))


def _start(protocol: Protocol, r1: Tensor, sampled: Tensor) -> Tensor:
    """Return z of water before the saturation, (voxel, measurement)."""
    first = initial_z(protocol, 1 / r1[:, 0])
    if not protocol.magnetisation_carried_over:
        return first.expand_as(sampled)
    left = sampled * _cos_of_readout(protocol, r1)
    carried = 1 - (1 - left[:, :-1]) * torch.exp(-r1 * protocol.recovery_time_s.to(r1)[:-1])
    return torch.cat((first[:, :1], carried), 1)


def _m0_of_reference(protocol: Protocol, r1: Tensor, reference: str) -> Tensor:
    """Return the magnetisation of the M0 image relative to equilibrium, (voxel, measurement or 1)."""
    if reference == "equilibrium":
        return torch.ones_like(r1)
    free = _duration_s(protocol).to(r1) + protocol.post_delay_s.to(r1)
    if not protocol.magnetisation_carried_over:
        return 1 - (1 - _start(protocol, r1, torch.zeros_like(r1 * free))) * torch.exp(-r1 * free)
    decay = torch.exp(-r1 * (free + protocol.recovery_time_s.to(r1)))
    return (1 - decay) / (1 - _cos_of_readout(protocol, r1) * decay)


def _projection_and_source(spectra: ZSpectra, r1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return cos^2(theta), the locked share of the start, and the source of z in 1/s, (voxel, measurement) each."""
    protocol = spectra.protocol
    shift = torch.zeros_like(r1) if spectra.b0_shift_ppm is None else spectra.b0_shift_ppm.to(r1).unsqueeze(1)
    relative = torch.ones_like(r1) if spectra.b1_relative is None else spectra.b1_relative.to(r1).unsqueeze(1)
    during_pulses = protocol.b1_uT.to(r1) / protocol.duty_cycle**0.5
    w1 = protocol.gamma_rad_per_s_per_uT * during_pulses * relative
    offset = (protocol.offsets_ppm.to(r1) - shift) * protocol.rad_per_s_per_ppm
    cos2 = EffectiveField.of(w1, offset).cos2
    if protocol.pulses is None:
        return cos2, cos2, r1 * cos2
    duty = protocol.duty_cycle
    return cos2, torch.ones_like(cos2), r1 * (duty * cos2 + 1 - duty)


def _rate(z: Tensor, start: Tensor, source: Tensor, duration: Tensor) -> Tensor:
    """Return the rate (voxel, measurement) in 1/s at which the saturation leaves z; NaN where there is none."""

    def left(rate: Tensor) -> Tensor:
        decay = torch.exp(-rate * duration)
        return start * decay + source * (1 - decay) / rate

    low, high = torch.full_like(z, SLOWEST_HZ), torch.full_like(z, FASTEST_HZ)
    reachable = (z <= left(low)) & (z >= left(high))
    for _ in range(BISECTIONS):
        middle = (low * high).sqrt()
        too_fast = left(middle) < z
        low, high = torch.where(too_fast, low, middle), torch.where(too_fast, middle, high)
    return torch.where(reachable, (low * high).sqrt(), torch.nan)


def _endless(protocol: Protocol) -> Protocol:
    """Return the protocol of the corrected spectra."""
    pulses, endless_s = protocol.pulses, ENDLESS_S
    if pulses is not None:
        pulses = replace(pulses, n_pulses=max(pulses.n_pulses, int(ENDLESS_S / (pulses.duration_s + pulses.delay_s))))
        endless_s = pulses.total_time_s
    saturated = protocol.saturation_time_s > 0
    return replace(
        protocol,
        pulses=pulses,
        saturation_time_s=torch.where(saturated, endless_s, protocol.saturation_time_s),
        post_delay_s=torch.zeros_like(protocol.post_delay_s),
        recovery_time_s=torch.zeros_like(protocol.recovery_time_s),
        magnetisation_carried_over=False,
        readout_pulse_s=0.0,
        echo_time_s=0.0,
        initial_magnetisation=1.0,
        initial_recovery_s=torch.zeros_like(protocol.initial_recovery_s),
        events=None,
    )
