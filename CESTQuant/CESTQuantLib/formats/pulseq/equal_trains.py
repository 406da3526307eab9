"""Whether a pulseq file plays equal trains or single blocks, which a protocol describes without its events."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from ...physics.events import EventPulse, Play, Spoil
from ...physics.pulse_shapes import PulseShape, PulseTrain
from .sequence import PlayedSequence, Saturation
from .trains import TrainOnRaster, on_raster, train_of_definitions

MOST_SHAPE_SAMPLES = 2048
"""Most samples of equal duration with which a protocol describes a pulse."""


def plays_equal_trains(sequence: PlayedSequence, reference: Saturation) -> bool:
    """Whether a protocol without events plays the same: equal pulses in everything, in all sequence."""
    if not _continues_as_protocols_do(sequence):
        return False
    single = len(reference.plays) == 1 and sequence.first_pulse(reference).is_block
    if _shape(sequence.first_pulse(reference)) is None:
        return False
    return all(
        _is_equal_train(sequence, saturation, reference, any_duration=single)
        for saturation in sequence.saturations
        if saturation.plays
    )


def _is_equal_train(
    sequence: PlayedSequence, saturation: Saturation, reference: Saturation, *, any_duration: bool
) -> bool:
    gap_s = reference.waits_s[1] if len(reference.plays) > 1 else 0.0
    first, like = sequence.first_pulse(saturation), sequence.first_pulse(reference)
    same_shape = first.is_block if any_duration else _same_envelope(first, like)
    return same_shape and _is_regular(sequence, saturation, len(reference.plays), gap_s)


def _is_regular(sequence: PlayedSequence, saturation: Saturation, count: int, gap_s: float) -> bool:
    """Whether a saturation is one pulse so many times, after equal gaps, with coherent phases and without spoilers."""
    plays = saturation.plays
    if len(plays) != count or saturation.spoiled:
        return False
    if len({(play.pulse, play.frequency_Hz) for play in plays}) > 1:
        return False
    same_gaps = all(math.isclose(gap, gap_s, rel_tol=0, abs_tol=1e-9) for gap in saturation.waits_s[1:-1])
    return same_gaps and _phases_are_coherent(sequence, plays)


def _phases_are_coherent(sequence: PlayedSequence, plays: Sequence[Play]) -> bool:
    """Whether phases advance during pulses and not during gaps, to the rounding of the file."""
    advance = elapsed = fastest = 0.0
    first = plays[0].phase_rad
    for play in plays:
        tolerance = 1e-4 + 2 * math.pi * 1e-6 * fastest * elapsed
        if abs(math.remainder(play.phase_rad - first - advance, 2 * math.pi)) > tolerance:
            return False
        duration = sequence.events.pulses[play.pulse].total_s
        fastest = max(fastest, abs(play.frequency_Hz))
        elapsed += duration
        advance += 2 * math.pi * play.frequency_Hz * duration
    return True


def _continues_as_protocols_do(sequence: PlayedSequence) -> bool:
    """Whether excitations and carried-over magnetisation are those of a protocol from which the file was written.

    Such a protocol hands the magnetisation on unchanged, so the phases have to advance over all sequence,
    unless an ideal readout leaves nothing transverse.
    """
    if not (sequence.excited or sequence.carried_over):
        return True
    if not sequence.from_protocol:
        return False
    if any(isinstance(event, Spoil) for events in sequence.events.measurements for event in events) and (
        sequence.definitions.number("readout_spoiled") != 1
    ):
        return False
    if sequence.definitions.number("readout_spoiled") == 1:
        return True
    plays = [e for events in sequence.events.measurements for e in events if isinstance(e, Play)]
    return not sequence.carried_over or _phases_are_coherent(sequence, plays)


def stated_train(sequence: PlayedSequence) -> tuple[PulseTrain, list[float]] | None:
    """Return the train of the definitions, and B1 in uT of every measurement.

    None where there is none, or where what is played does not agree with it to the rounding of the file.
    """
    train = train_of_definitions(sequence.definitions) if sequence.from_protocol else None
    if train is None or not _continues_as_protocols_do(sequence):
        return None
    played, gap_s, found = TrainOnRaster(train), on_raster(train.delay_s), []
    for saturation in sequence.saturations:
        b1 = played.b1_uT(sequence.first_pulse(saturation)) if saturation.plays else 0.0
        regular = not saturation.plays or _is_regular(sequence, saturation, train.n_pulses, gap_s)
        if b1 is None or not regular:
            return None
        found.append(b1)
    return train, found


def train_of(sequence: PlayedSequence, reference: Saturation) -> PulseTrain | None:
    """Return the train of equal pulses; None for single blocks."""
    pulse = sequence.first_pulse(reference)
    if len(reference.plays) == 1 and pulse.is_block:
        return None
    shape = _shape(pulse)
    assert shape is not None  # see plays_equal_trains
    count, delay = len(reference.plays), reference.waits_s[1] if len(reference.plays) > 1 else 0.0
    return PulseTrain(count, pulse.total_s, delay, shape)


def _same_envelope(one: EventPulse, other: EventPulse) -> bool:
    """Whether two pulses have the same relative amplitudes, the same phases and durations."""
    if len(one.amplitude_uT) != len(other.amplitude_uT):
        return False
    if not np.allclose(one.duration_s, other.duration_s, rtol=1e-9, atol=0):
        return False
    first, second = (
        np.array(pulse.amplitude_uT) * np.exp(1j * np.array(pulse.phase_rad)) / max(pulse.amplitude_uT)
        for pulse in (one, other)
    )
    return bool(np.allclose(first, second, rtol=0, atol=1e-6))


def _shape(pulse: EventPulse) -> PulseShape | None:
    """The pulse as samples of equal duration; None where these would be too many."""
    durations = np.array(pulse.duration_s)
    counts = durations / durations.min()
    repeats = np.round(counts).astype(int)
    if repeats.sum() > MOST_SHAPE_SAMPLES or not np.allclose(counts, repeats, rtol=0, atol=1e-6):
        return None
    amplitude = torch.from_numpy(np.repeat(np.array(pulse.amplitude_uT), repeats))
    phase = np.repeat(np.array(pulse.phase_rad) - pulse.phase_rad[0], repeats)
    if np.all(np.abs(np.sin(phase)) < 1e-6):  # a real pulse, which may change its sign
        return PulseShape("samples", amplitude * torch.from_numpy(np.sign(np.cos(phase))), absolute=True)
    return PulseShape("samples", amplitude, torch.from_numpy(phase), absolute=True)
