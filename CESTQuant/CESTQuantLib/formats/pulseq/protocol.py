"""The protocol of the measurements of a pulseq file, as simple as what is played allows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ...physics.events import Play, Sample, waiting_time_s
from ...physics.protocol import Protocol
from .equal_trains import plays_equal_trains, stated_train, train_of
from .offsets import played_offsets
from .sequence import ROUNDING, PlayedSequence, Saturation


def protocol_of(sequence: PlayedSequence, notes: list[str]) -> Protocol:
    """Return the protocol; ``notes`` gains what is guessed or contradicts itself.

    Raises:
        ValueError: The protocol of the file cannot be used.
    """
    pulses = sequence.events.pulses
    times = [_duration_s(sequence, saturation) for saturation in sequence.saturations]
    reference = max(sequence.saturations, key=lambda saturation: len(saturation.plays))
    stated = stated_train(sequence)
    simple = stated is not None or plays_equal_trains(sequence, reference)
    train = stated[0] if stated is not None else train_of(sequence, reference) if simple else None
    if simple and train is not None:
        times = [train.total_time_s] * len(times)
    else:  # a measurement without RF may be called as long as the others, but not longer than it waits
        longest = max(times)
        times = [
            time if s.plays else min(longest, s.waits_s[0]) for time, s in zip(times, sequence.saturations, strict=True)
        ]
    energies = [sum(pulses[play.pulse].energy_uT2_s for play in s.plays) for s in sequence.saturations]
    b1 = [math.sqrt(energy / time) if time > 0 else 0.0 for energy, time in zip(energies, times, strict=True)]
    if stated is not None:
        b1 = stated[1]
    elif train is not None:
        b1 = [
            pulses[s.plays[0].pulse].energy_uT2_s ** 0.5 / (train.duration_s + train.delay_s) ** 0.5 if s.plays else 0.0
            for s in sequence.saturations
        ]
    protocol = Protocol(
        field_strength_T=sequence.field_T,
        offsets_ppm=sequence.quantity("offsets_ppm", played_offsets(sequence, notes)),
        b1_uT=sequence.quantity("b1_uT", b1),
        saturation_time_s=(
            sequence.quantity("saturation_time_s", times) if train is None else torch.tensor(times, dtype=torch.float64)
        ),
        pulses=train,
        post_delay_s=sequence.quantity("post_delay_s", [s.post_delay_s for s in sequence.saturations]),
        initial_magnetisation=_initial_magnetization(sequence),
        magnetisation_carried_over=sequence.carried_over,
        signal_normalisation=_normalization(sequence),
        larmor_frequency_MHz=sequence.larmor_MHz,
        gamma_rad_per_s_per_uT=sequence.gamma,
        events=None if simple else sequence.events,
    )
    protocol = _with_readout(sequence, protocol) if sequence.excited else _with_recovery(sequence, protocol, notes)
    if sequence.from_protocol and (m0 := sequence.definitions.numbers("m0_measurements")):
        protocol = replace(protocol, m0_measurements=tuple(int(number) for number in m0))
    initial = sequence.stated("initial_recovery_s")
    if initial is not None:
        protocol = replace(protocol, initial_recovery_s=torch.from_numpy(initial))
        if not simple:
            return protocol
        protocol = replace(protocol, initial_recovery_s=_waited_for(sequence, protocol))
    return protocol


def _waited_for(sequence: PlayedSequence, protocol: Protocol) -> Tensor:
    """The initial recovery of the protocol where it agrees with the wait before a saturation; otherwise this wait.

    Files of earlier versions do not play it. Without RF, nothing tells where the saturation begins.
    """
    lead_in = protocol.lead_in_s.numpy()
    echo = protocol.echo_time_s if sequence.excited else 0.0
    recovery = np.concatenate(([0.0], protocol.recovery_time_s.numpy()[:-1] - echo)).clip(min=0)
    overhead = np.concatenate(([0.0], np.resize(_overhead(sequence), len(lead_in))[:-1]))
    waited = np.array([saturation.recovery_s for saturation in sequence.saturations])
    agrees = [
        np.isclose(waited, np.maximum(recovery, least) - overhead, rtol=ROUNDING, atol=ROUNDING)
        for least in (lead_in, 0.0)
    ]
    kept = agrees[0] | agrees[1] | sequence.silent
    if sequence.carried_over:
        kept[1:] = True
    return torch.where(torch.from_numpy(kept), protocol.initial_recovery_s, torch.from_numpy(waited))


def _initial_magnetization(sequence: PlayedSequence) -> float:
    stated = sequence.definitions.number("initial_magnetisation") if sequence.from_protocol else None
    return 1.0 if stated is None else stated


def _normalization(sequence: PlayedSequence) -> str:
    stated = sequence.definitions.text("signal_normalisation")
    return stated or ("l2" if sequence.excited else "m0")


def _with_readout(sequence: PlayedSequence, protocol: Protocol) -> Protocol:
    excitations = [_excitation(sequence, m) for m in range(protocol.measurement_count)]
    angles, durations, echoes = zip(*excitations, strict=True)
    spoiled = sequence.definitions.number("readout_spoiled") == 1
    return replace(
        protocol,
        recovery_time_s=sequence.quantity("recovery_time_s", _recovery(sequence, echoes[0])),
        readout_flip_angle_deg=sequence.quantity("readout_flip_angle_deg", angles),
        readout_pulse_s=0.0 if spoiled else durations[0],
        echo_time_s=echoes[0],
    )


def _with_recovery(sequence: PlayedSequence, protocol: Protocol, notes: list[str]) -> Protocol:
    leading = [saturation.recovery_s for saturation in sequence.saturations]
    if not sequence.from_protocol:
        recovery = sequence.quantity("recovery_time_s", [*leading[1:], _trailing_s(sequence)])
        initial = sequence.quantity(
            "initial_recovery_s", _before_saturation(sequence, protocol.saturation_time_s.tolist(), notes)
        )
        protocol = replace(protocol, initial_recovery_s=initial, recovery_time_s=recovery)
    stated = sequence.definitions.numbers("recovery_time_s")
    if stated is not None and len(stated) in (1, protocol.measurement_count):
        protocol = replace(protocol, recovery_time_s=torch.tensor(stated, dtype=torch.float64))
    return protocol


def _before_saturation(sequence: PlayedSequence, times: Sequence[float], notes: list[str]) -> list[float]:
    """Free time in s before every saturation; without RF the saturation, with B1 0, is a part of the free time."""
    left = [s.waits_s[0] - (0.0 if s.plays else time) for s, time in zip(sequence.saturations, times, strict=True)]
    short = next((m for m, rest in enumerate(left) if rest < -1e-9), None)
    if short is not None:
        notes.append(
            f"measurement {short + 1} has no RF and waits {sequence.saturations[short].waits_s[0]:.4g} s, less than a "
            f"pulse train lasts; it is simulated with {times[short]:.4g} s, which matters only if the "
            "magnetisation does not start at equilibrium"
        )
    return [max(rest, 0.0) for rest in left]


def _trailing_s(sequence: PlayedSequence) -> float:
    """Free time in s after the last sample."""
    events = sequence.events.measurements[-1]
    place = next(i for i, event in enumerate(events) if isinstance(event, Sample))
    return waiting_time_s(events[place:])


def _excitation(sequence: PlayedSequence, m: int) -> tuple[float, float, float]:
    """Flip angle in degrees, duration in s and time in s to the sample of an excitation."""
    place = sequence.events.excitation(m)
    assert place is not None
    events = sequence.events.before_sample(m)
    play = events[place]
    assert isinstance(play, Play)
    pulse = sequence.events.pulses[play.pulse]
    angle = math.degrees(abs(pulse.area_uT_s) * sequence.gamma)
    return round(angle, 3), pulse.total_s, waiting_time_s(events[place:])


def _recovery(sequence: PlayedSequence, echo_time: float) -> np.ndarray:
    """Time in s from every excitation to the next saturation.

    Where the sequence leaves it open, it is the one that is stated, or the median of the others. A file written by
    :mod:`.write` says how much of it is taken up by the sample and the ideal excitation; there, a recovery that is
    shorter than the echo and the initial recovery of the next measurement is the one that is stated.
    """
    known = [s.recovery_s if s.plays else math.nan for s in sequence.saturations[1:]]
    known.append(_trailing_s(sequence) or math.nan)
    usual = float(np.nanmedian(known)) if np.isfinite(known).any() else 0.0
    played = echo_time + np.where(np.isnan(known), usual, known)
    stated, initial = sequence.stated("recovery_time_s"), sequence.stated("initial_recovery_s")
    overhead = _overhead(sequence)
    played = played + (overhead if overhead.shape == played.shape else 0.0)
    if stated is None:
        return played
    lead_in = np.zeros_like(stated) if initial is None or sequence.carried_over else np.append(initial[1:], 0.0)
    hidden = np.isclose(played, echo_time + lead_in, rtol=ROUNDING, atol=ROUNDING) & (stated < played)
    return np.where(hidden | np.isnan(known), stated, played)


def _overhead(sequence: PlayedSequence) -> np.ndarray:
    """Time in s that sample and ideal excitation take out of the recoveries, (measurement,), or (1,) without any."""
    return np.array(sequence.definitions.numbers("readout_overhead_s") or [0.0])


def _duration_s(sequence: PlayedSequence, saturation: Saturation) -> float:
    pulses = math.fsum(sequence.events.pulses[play.pulse].total_s for play in saturation.plays)
    return pulses + math.fsum(saturation.waits_s[1:-1]) if saturation.plays else 0.0
