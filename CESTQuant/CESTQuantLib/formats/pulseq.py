"""Protocols of saturation-transfer preparations from pulseq sequence files (.seq)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..physics.protocol import Protocol
from ..physics.pulse_shapes import PulseShape, PulseTrain
from ..physics.units import GAMMA_RAD_PER_S_PER_UT, rad_per_s_per_ppm
from .pulseq_events import Measurement, Pulse, definition, load_sequence, measurements_of

LONGEST_READOUT_PULSE_S = 0.01
"""Longest pulse in s that may be the readout."""


def read_seq(path: str | Path, gamma_rad_per_s_per_uT: float | None = None) -> Protocol:
    """Read the protocol of a pulseq file whose measurements differ in offset, amplitude and duration only.

    A short last pulse at the water frequency that follows a saturation is taken for the readout; then nothing is
    spoiled and the magnetisation is carried over. Otherwise every measurement starts at equilibrium, as in the
    pulseq-cest library, whose simulators also leave out the dead and ringdown times inside an RF block. The static
    field is the definition ``B0`` of the file.

    Args:
        path: pulseq file.
        gamma_rad_per_s_per_uT: Gyromagnetic ratio in rad/(s uT), which converts the Hz of the file into uT and ppm; by
            default the definition in the file, or that of the proton.

    Raises:
        ValueError: The file is no such sequence, or pypulseq is not installed; the message names the file.
    """
    path = Path(path)
    sequence = load_sequence(path)
    try:
        return _protocol(sequence, gamma_rad_per_s_per_uT)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


@dataclass(frozen=True)
class _Readout:
    """The readout pulse of every measurement.

    Attributes:
        flip_angles_deg: Flip angles in degrees.
        duration_s: Duration of the pulse in s.
        echo_time_s: Time from the end of the pulse to the sample in s.
    """

    flip_angles_deg: list[float]
    duration_s: float
    echo_time_s: float


@dataclass(frozen=True)
class _Saturation:
    """The saturation of every measurement.

    Attributes:
        train: Pulse train; None for CW.
        b1_uT: Root-mean-square B1 in uT over pulses and gaps.
        times_s: Duration in s.
    """

    train: PulseTrain | None
    b1_uT: list[float]
    times_s: list[float]


def _protocol(sequence: Any, gamma: float | None) -> Protocol:
    definitions = sequence.definitions
    if definitions.get("B0") is None:
        raise ValueError("the definition B0 is missing; add it to the file or give a protocol.json")
    field = definition(definitions, "B0", 0.0)
    gamma = gamma or definition(definitions, "gamma_rad_per_s_per_uT", GAMMA_RAD_PER_S_PER_UT)
    measurements, readout = _separate_readout(measurements_of(sequence, field, gamma))
    saturation = _saturation(measurements)
    written_from_protocol = "signal_normalisation" in definitions
    given = definitions if written_from_protocol else {}
    silent = np.array([not m.pulses for m in measurements])

    def quantity(name: str, played: Sequence[float] | np.ndarray) -> Tensor:
        return torch.from_numpy(_exact(given, name, np.asarray(played, dtype=float), silent))

    protocol = Protocol(
        field_strength_T=field,
        offsets_ppm=quantity("offsets_ppm", _offsets(definitions, measurements, rad_per_s_per_ppm(field, gamma))),
        b1_uT=quantity("b1_uT", saturation.b1_uT),
        saturation_time_s=quantity("saturation_time_s", saturation.times_s),
        pulses=saturation.train,
        post_delay_s=quantity("post_delay_s", [m.post_delay_s if m.pulses else 0.0 for m in measurements]),
        initial_magnetisation=definition(given, "initial_magnetisation", 1.0),
        larmor_frequency_MHz=(
            definition(given, "larmor_frequency_MHz", 0.0) if "larmor_frequency_MHz" in given else None
        ),
        gamma_rad_per_s_per_uT=gamma,
    )
    if readout is not None:
        spoiled = definition(definitions, "readout_spoiled", 0.0) == 1
        return replace(
            protocol,
            recovery_time_s=quantity("recovery_time_s", _recovery(definitions, measurements, readout.echo_time_s)),
            readout_flip_angle_deg=quantity("readout_flip_angle_deg", readout.flip_angles_deg),
            readout_pulse_s=0.0 if spoiled else readout.duration_s,
            echo_time_s=readout.echo_time_s,
            magnetisation_carried_over=definition(definitions, "magnetisation_carried_over", 1.0) == 1,
            signal_normalisation=str(definitions.get("signal_normalisation", "l2")),
        )
    if written_from_protocol:
        protocol = replace(
            protocol,
            magnetisation_carried_over=definition(definitions, "magnetisation_carried_over", 0.0) == 1,
            signal_normalisation=str(definitions["signal_normalisation"]),
        )
    else:
        leading = [m.delays_s[0] if m.pulses else 0.0 for m in measurements]
        recovery = quantity("recovery_time_s", [*leading[1:], measurements[-1].trailing_s])
        initial = quantity("initial_recovery_s", leading)
        protocol = replace(protocol, initial_recovery_s=initial, recovery_time_s=recovery)
    if "recovery_time_s" in definitions:
        recovery = torch.from_numpy(np.ravel(definitions["recovery_time_s"]).astype(float))
        protocol = replace(protocol, recovery_time_s=recovery)
    return protocol


def _exact(definitions: Mapping[str, Any], name: str, played: np.ndarray, silent: np.ndarray) -> np.ndarray:
    """Values of a quantity: those of the definitions where they agree with what is played, to the format's rounding.

    Measurements without RF (``silent``) play nothing that tells their offset or duration; there the definitions decide.
    """
    if name not in definitions:
        return played
    try:
        given = np.ravel(definitions[name]).astype(float)
    except ValueError:
        return played
    if len(given) != len(played):
        return played
    heard = ~silent
    if name == "readout_flip_angle_deg":
        heard = ~np.zeros_like(silent)
    elif name == "recovery_time_s":  # ends with the RF of the next measurement
        heard = ~np.append(silent[1:], False)
    return given if np.allclose(given[heard], played[heard], rtol=2e-5, atol=2e-5) else played


def _recovery(definitions: Mapping[str, Any], measurements: list[Measurement], echo_time: float) -> np.ndarray:
    """Time in s from every excitation to the next saturation.

    Where the sequence leaves it open, it is the median of the others. A file written by :mod:`.pulseq_write` says how
    much of it is taken up by the sample and the ideal excitation.
    """
    known = [m.delays_s[0] if m.pulses else math.nan for m in measurements[1:]]
    known.append(measurements[-1].trailing_s or math.nan)
    usual = float(np.nanmedian(known)) if np.isfinite(known).any() else 0.0
    played = np.array([echo_time + (usual if math.isnan(delay) else delay) for delay in known])
    overhead = np.ravel(definitions.get("readout_overhead_s", 0.0)).astype(float)
    return played + (overhead if overhead.shape == played.shape else 0.0)


def _separate_readout(measurements: list[Measurement]) -> tuple[list[Measurement], _Readout | None]:
    """Measurements without their readout pulse, and the readout; None where there is none."""
    last = [m.pulses[-1] for m in measurements if m.pulses]
    if len(last) < len(measurements) or max(len(m.pulses) for m in measurements) == 1:
        return measurements, None
    candidate = last[0]
    is_readout = (
        candidate.duration_s <= LONGEST_READOUT_PULSE_S
        and all(pulse.frequency_Hz == 0 and pulse.same_shape(candidate) for pulse in last)
        and any(not m.pulses[0].same_shape(candidate) for m in measurements)
    )
    if not is_readout:
        return measurements, None
    saturations = [
        Measurement(m.pulses[:-1], m.delays_s, m.delays_s[-1] if len(m.pulses) > 1 else 0.0, m.trailing_s)
        for m in measurements
    ]
    angles = [round(pulse.flip_angle_deg, 3) for pulse in last]
    return saturations, _Readout(angles, candidate.duration_s, measurements[0].post_delay_s)


def _offsets(definitions: Mapping[str, Any], measurements: list[Measurement], rad_per_s_per_ppm: float) -> list[float]:
    """Offsets in ppm of the pulses played; those of the definitions only where a measurement plays none."""
    hz_per_ppm = rad_per_s_per_ppm / (2 * math.pi)
    if "larmor_frequency_MHz" in definitions:
        hz_per_ppm = definition(definitions, "larmor_frequency_MHz", 0.0)
    given = definitions.get("offsets_ppm")
    given = None if given is None else np.ravel(given).astype(float)
    if given is not None and len(given) != len(measurements):
        raise ValueError(f"offsets_ppm has {len(given)} values but the sequence has {len(measurements)} measurements")
    return [
        m.pulses[0].frequency_Hz / hz_per_ppm if m.pulses else (0.0 if given is None else given[i])
        for i, m in enumerate(measurements)
    ]


def _saturation(measurements: list[Measurement]) -> _Saturation:
    reference = max(measurements, key=lambda m: len(m.pulses))
    if not reference.pulses:
        raise ValueError("the sequence has no saturation pulse")
    pulse, count = reference.pulses[0], len(reference.pulses)
    delay = reference.delays_s[1] if count > 1 else 0.0
    for number, measurement in enumerate(measurements, start=1):
        if measurement.pulses and not _is_the_same_train(measurement, pulse, count, delay):
            raise ValueError(f"measurement {number} has other pulses than the first; only equal trains are supported")
    rms = [m.pulses[0].root_mean_square_uT if m.pulses else 0.0 for m in measurements]
    if count == 1 and len(pulse.amplitude_uT) == 1:
        longest = max(p.duration_s for m in measurements for p in m.pulses)
        return _Saturation(None, rms, [m.pulses[0].duration_s if m.pulses else longest for m in measurements])
    phase = None if pulse.phase_rad is None else torch.tensor(pulse.phase_rad, dtype=torch.float64)
    shape = PulseShape("samples", torch.tensor(pulse.amplitude_uT, dtype=torch.float64), phase, absolute=True)
    train = PulseTrain(count, pulse.duration_s, delay, shape)
    return _Saturation(train, [b1 * train.duty_cycle**0.5 for b1 in rms], [train.total_time_s] * len(measurements))


def _is_the_same_train(measurement: Measurement, pulse: Pulse, count: int, delay: float) -> bool:
    """Whether a measurement plays ``count`` pulses of one shape with equal gaps; blocks may differ in duration."""
    pulses = measurement.pulses
    same_shape = len(pulse.amplitude_uT) == 1 or all(p.same_shape(pulse) for p in pulses)
    gaps = measurement.delays_s[1 : len(pulses)]
    return len(pulses) == count and same_shape and all(math.isclose(gap, delay, abs_tol=1e-6) for gap in gaps)
