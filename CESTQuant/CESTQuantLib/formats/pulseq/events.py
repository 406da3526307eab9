"""What a pulseq file plays for every measurement: its blocks as pulses, delays, spoilers and samples."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ...physics.events import Event, EventPulse, Events, Play, Sample, Spoil, Wait
from .rules import RULES
from .shapes import PulseSamples, pulse_samples, reduced
from .text import Block, RfEvent, SequenceFile
from .trains import states_train

HARDWARE_TIME_S = 2e-3
"""Longest dead, ringdown or sampling time in s within a block that the rules of pulseq-cest leave out."""
LONGEST_EXCITATION_S = 0.01
"""Longest pulse in s that may be an excitation."""
SPOILING_AREA_PER_M = 500.0
"""Net gradient area in 1/m (one cycle in 2 mm) from which a gradient dephases by the rules of pulseq."""
_SILENT_SHARE = 1e-6
"""Amplitude relative to the peak below which a sample counts as zero."""
_PULSE_TOLERANCE = 3e-5
"""Error of the rotation by a pulse with which its samples may be averaged."""


@dataclass
class PlayedFile:
    """What a file plays.

    Attributes:
        events: The events of every measurement.
        notes: What was guessed or left out, as sentences for a warning.
    """

    events: Events
    notes: list[str]


@dataclass
class _Pulses:
    """The different pulses of a file, each decoded once.

    Attributes:
        file: The file.
        hz_per_uT: Conversion from Hz to uT.
        phase_sense: Sign of the phase shapes, see :func:`.pulse_samples`.
        pulses: The pulses found so far.
        numbers: Number of a pulse, None where it has no amplitude, and the silent times in s at its start and end, by
            the numbers of its shapes and its amplitude in Hz.
        shapes: Decoded samples of unit amplitude, and the silent times around them, by the numbers of their shapes.
        places: Numbers of the pulses.
    """

    file: SequenceFile
    hz_per_uT: float
    phase_sense: int
    pulses: list[EventPulse] = field(default_factory=list)
    numbers: dict[tuple[int, int, int, float], tuple[int | None, float, float]] = field(default_factory=dict)
    shapes: dict[tuple[int, int, int], tuple[PulseSamples, float, float]] = field(default_factory=dict)
    places: dict[EventPulse, int] = field(default_factory=dict)

    def of(self, rf: RfEvent) -> tuple[int | None, float, float]:
        """Number of the pulse of an RF event, and the silent times in s at its start and end."""
        key = (*self._shapes_of(rf), rf.amplitude_Hz)
        if key not in self.numbers:
            self.numbers[key] = self._add(rf)
        return self.numbers[key]

    def _add(self, rf: RfEvent) -> tuple[int | None, float, float]:
        samples, before, after = self._audible(rf)
        if rf.amplitude_Hz == 0 or not len(samples.envelope):
            return None, before, after
        envelope = samples.envelope * rf.amplitude_Hz / self.hz_per_uT
        pulse = EventPulse(
            tuple(np.abs(envelope).tolist()), tuple(np.angle(envelope).tolist()), tuple(samples.duration_s.tolist())
        )
        if pulse not in self.places:
            self.places[pulse] = len(self.pulses)
            self.pulses.append(pulse)
        return self.places[pulse], before, after

    def _audible(self, rf: RfEvent) -> tuple[PulseSamples, float, float]:
        """The samples of unit amplitude without the zeros at the start and end, and the times in s of these.

        A file that was written from a pulse train keeps its zeros, because they are part of its pulses there.
        The samples are averaged as far as the largest amplitude with which the file plays the shape allows.
        """
        key = self._shapes_of(rf)
        if key not in self.shapes:
            samples = self._samples(rf)
            loud = np.nonzero(np.abs(samples.envelope) > _SILENT_SHARE * np.abs(samples.envelope).max())[0]
            first, end = (int(loud[0]), int(loud[-1]) + 1) if len(loud) else (len(samples.envelope),) * 2
            if states_train(self.file.definitions) and len(loud):
                first, end = 0, len(samples.envelope)
            before, after = samples.duration_s[:first].sum(), samples.duration_s[end:].sum()
            played = PulseSamples(samples.envelope[first:end], samples.duration_s[first:end])
            peak = 2 * math.pi * self._peaks_Hz[key]
            self.shapes[key] = reduced(played, peak, _PULSE_TOLERANCE), float(before), float(after)
        return self.shapes[key]

    def _shapes_of(self, rf: RfEvent) -> tuple[int, int, int]:
        """Numbers of the shapes of an event, of which equal ones have the same number."""
        magnitude = self.file.shape(rf.magnitude_id).number
        phase = 0 if rf.phase_id == 0 else self.file.shape(rf.phase_id).number
        return magnitude, phase, self.file.shape(rf.time_id).number if rf.time_id > 0 else rf.time_id

    @functools.cached_property
    def _peaks_Hz(self) -> dict[tuple[int, int, int], float]:
        """The largest amplitude in Hz with which shapes are played."""
        peaks: dict[tuple[int, int, int], float] = {}
        for event in {block.rf for block in self.file.blocks if block.rf is not None}:
            key = self._shapes_of(event)
            peaks[key] = max(peaks.get(key, 0.0), abs(event.amplitude_Hz))
        return peaks

    def _samples(self, rf: RfEvent) -> PulseSamples:
        raster = self.file.rf_raster_s / 2 if rf.time_id < 0 else self.file.rf_raster_s
        return pulse_samples(
            self.file.shape(rf.magnitude_id),
            None if rf.phase_id == 0 else self.file.shape(rf.phase_id),
            self.file.shape(rf.time_id) if rf.time_id > 0 else None,
            raster,
            self.phase_sense,
        )


def played_events(
    file: SequenceFile, field_strength_T: float, gamma_rad_per_s_per_uT: float, rules: str = RULES[0]
) -> PlayedFile:
    """Return what a pulseq file plays for every measurement.

    The rules of ``"pulseq-cest"`` are those of the simulators of that community, for whose files they are made. A block
    with RF plays the RF alone, without the dead and ringdown times around it (longer ones than ``HARDWARE_TIME_S`` are
    played). A block with an ADC event takes the sample at its start. A block of gradients with one along z dephases all
    transverse magnetisation at its end; other gradients do nothing. The phase shape of a pulse counts in the sense
    opposite to that of its phase offset: the adiabatic pulses of the pulseq-cest library are written for this.

    The rules of ``"pulseq"`` are those of the format: all blocks take their whole duration, gradients along any axis
    dephase where their net area is at least ``SPOILING_AREA_PER_M`` and no RF is played, and phase shapes count in the
    sense of the phase offset.

    Args:
        file: The file.
        field_strength_T: Static field in T, which converts frequencies given in ppm.
        gamma_rad_per_s_per_uT: Gyromagnetic ratio in rad/(s uT), which converts Hz into uT.
        rules: One of ``RULES``.

    Raises:
        ValueError: The rules are unknown, or the file cannot be played.
    """
    if rules not in RULES:
        raise ValueError(f"the rules '{rules}' are unknown; use one of {', '.join(RULES)}")
    hz_per_uT = gamma_rad_per_s_per_uT / (2 * math.pi)
    player = _Player(file, _Pulses(file, hz_per_uT, -1 if rules == "pulseq-cest" else 1), field_strength_T, rules)
    for block in file.blocks:
        player.play(block)
    return player.finish()


class _Player:
    """Turns blocks into events."""

    def __init__(self, file: SequenceFile, pulses: _Pulses, field_strength_T: float, rules: str) -> None:
        self.file, self.pulses, self.rules = file, pulses, rules
        self.larmor_MHz = pulses.hz_per_uT * field_strength_T
        self.events: list[Event] = []
        self.uses: dict[int, str] = {}
        """Initial of the purpose of the pulses by their place in ``events``."""
        self.samples: list[int] = []
        """Places of the samples."""

    def play(self, block: Block) -> None:
        """Add the events of a block."""
        if block.rf is not None and block.samples:
            raise ValueError(f"block {block.number} plays RF and samples at the same time, which is not supported")
        if block.samples:
            self.samples.append(len(self.events))
            self.events.append(Sample())
            self._wait(block.duration_s, hardware=True)
        elif block.rf is not None:
            self._play_rf(block, block.rf)
        else:
            self._wait(block.duration_s)
            if self._dephases(block):
                self.events.append(Spoil())

    def _play_rf(self, block: Block, rf: RfEvent) -> None:
        number, before, after = self.pulses.of(rf)
        played = 0.0 if number is None else self.pulses.pulses[number].total_s
        self._wait(rf.delay_s, hardware=True)
        self._wait(before)
        if number is not None:
            frequency = rf.frequency_Hz + rf.frequency_ppm * self.larmor_MHz
            phase = rf.phase_rad + rf.phase_rad_per_MHz * self.larmor_MHz + 2 * math.pi * frequency * before
            self.uses[len(self.events)] = rf.use
            self.events.append(Play(number, frequency, math.remainder(phase, 2 * math.pi)))
        self._wait(after)
        self._wait(max(0.0, block.duration_s - rf.delay_s - before - played - after), hardware=True)

    def _wait(self, duration_s: float, *, hardware: bool = False) -> None:
        """Wait; hardware times are left out by the rules of pulseq-cest where they are short."""
        if hardware and self.rules == "pulseq-cest" and duration_s <= HARDWARE_TIME_S + 1e-9:
            return
        if duration_s <= 1e-9:
            return
        if self.events and isinstance(last := self.events[-1], Wait):
            self.events[-1] = Wait(round(last.duration_s + duration_s, 12))
        else:
            self.events.append(Wait(round(duration_s, 12)))

    def _dephases(self, block: Block) -> bool:
        if self.rules == "pulseq-cest":
            return block.gradients[2] is not None
        areas = [abs(gradient.area_per_m) for gradient in block.gradients if gradient is not None]
        return max(areas, default=0.0) >= SPOILING_AREA_PER_M

    def finish(self) -> PlayedFile:
        """The measurements."""
        if not self.samples:
            raise ValueError("the sequence has no ADC event, so no measurement")
        if not self.pulses.pulses:
            raise ValueError("the sequence has no saturation pulse")
        notes = self._notes_of_extensions()
        readouts = self._readouts_per_measurement(notes)
        taken = self.samples[::readouts]
        if readouts > 1:
            notes.append(
                f"{readouts} samples belong to every measurement, of which the first is taken for its signal; "
                "the others, and the pulses between them, are played"
            )
        # a measurement begins with what follows the last readout of the one before, which may be a recovery
        firsts = [0, *(self.samples[m * readouts - 1] + 1 for m in range(1, len(taken)))]
        ends = [*firsts[1:], len(self.events)]
        transverse = self._excited(list(zip(firsts, taken, strict=True)), notes)
        measurements = [
            tuple(
                Sample(transverse) if isinstance(event, Sample) else event
                for i, event in enumerate(self.events[first:end], first)
                if i == place or not isinstance(event, Sample)
            )
            for first, place, end in zip(firsts, taken, ends, strict=True)
        ]
        return PlayedFile(Events(tuple(self.pulses.pulses), tuple(measurements)), notes)

    def _notes_of_extensions(self) -> list[str]:
        notes = []
        for name, meaning in (("RF_SHIMS", "shims of the RF"), ("ROTATIONS", "rotations of gradients")):
            if name in (extension.upper() for extension in self.file.extensions):
                notes.append(f"{meaning} are not played")
        if "DELAYS" in (extension.upper() for extension in self.file.extensions):
            notes.append("soft delays are played as long as the blocks of the file are")
        return notes

    def _readouts_per_measurement(self, notes: list[str]) -> int:
        """Number of samples of every measurement, from the number of offsets.

        Files of the pulseq-cest library have an M0 image without RF that is not in their list of offsets, and end with
        measurements of B1 that are not in it either.
        """
        offsets = self.file.definitions.numbers("offsets_ppm")
        if offsets is None:
            stated = self.file.definitions.number("num_meas")
            count = len(self.samples) if stated is None or len(self.samples) % max(1, int(stated)) else int(stated)
            return len(self.samples) // max(1, count)
        readouts, over = divmod(len(self.samples), len(offsets) + 1)
        if not over and self._silent_measurements(readouts) == 1:
            notes.append(
                "the sequence has one measurement more than offsets_ppm has values, and one of them plays no RF: it is "
                "taken for the M0 image"
            )
            return readouts
        readouts, over = divmod(len(self.samples), len(offsets))
        if not over:
            if readouts > 1 and self._repeats(offsets):
                notes.append(f"the list of offsets_ppm is played {readouts} times, one pass after the other")
                return 1
            return readouts
        if readouts == 1 and self._ends_with_others(over):
            notes.append(
                f"the sequence ends with {over} measurements that have no value in offsets_ppm, as measurements of B1 "
                "have none; they are played, those without RF as M0 images"
            )
            return 1
        raise ValueError(f"offsets_ppm has {len(offsets)} values but the sequence has {len(self.samples)} measurements")

    def _repeats(self, offsets: Sequence[float]) -> bool:
        """Whether the list of offsets is played several times over, rather than several samples taken at each offset.

        The frequencies decide, whatever the field: they are in proportion to the list, over and over.
        """
        played = np.array([self._longest_Hz(f, e) for f, e in itertools.pairwise([0, *self.samples])])
        listed = np.resize(np.array(offsets), len(played))
        heard = np.isfinite(played)
        if not heard.any() or np.ptp(listed[heard]) == 0:
            return False
        scale = float(np.dot(played[heard], listed[heard]) / np.dot(listed[heard], listed[heard]))
        return bool(np.allclose(played[heard], scale * listed[heard], rtol=1e-3, atol=abs(scale) * 0.02))

    def _longest_Hz(self, first: int, end: int) -> float:
        """Frequency at which RF is played longest between two places; NaN where none is played."""
        times: dict[float, float] = {}
        for event in self.events[first:end]:
            if isinstance(event, Play):
                times[event.frequency_Hz] = times.get(event.frequency_Hz, 0.0) + self._pulse(event).total_s
        return max(times, key=lambda frequency: times[frequency], default=math.nan)

    def _silent_measurements(self, readouts: int) -> int:
        """Number of measurements of so many samples each that play no RF."""
        bounds = [0, *self.samples[readouts - 1 :: readouts]]
        return sum(self._rests(first, end) for first, end in itertools.pairwise(bounds))

    def _ends_with_others(self, count: int) -> bool:
        """Whether the definitions say that so many measurements without a value in ``offsets_ppm`` end the file."""
        number = self.file.definitions.number
        of_b1 = (number("numB1scans") or 0) * (number("numB1Maps") or 0)
        return count == of_b1 or number("num_meas") == len(self.samples)

    def _rests(self, first: int, end: int) -> bool:
        """Whether no RF is played between two places."""
        return not any(isinstance(event, Play) for event in self.events[first:end])

    def _excited(self, parts: Sequence[tuple[int, int]], notes: list[str]) -> bool:
        """Whether the last pulse before every sample is its excitation, for the first and last place of every part.

        Files of version 1.5 say so. In others it is taken for one, with a note, where it is short, at the frequency of
        water and of the same length in all measurements, nothing is spoiled after it, and pulses of another kind come
        before it in some measurement; but not where it tips back what an equal pulse has tipped before, as in a spin
        lock.
        """
        last = [self._last_pulse(first, place) for first, place in parts]
        uses = {"" if place is None else self.uses[place] for place in last}
        if "e" in uses:
            if uses != {"e"}:
                raise ValueError("some measurements are read after an excitation and others are not; all must be alike")
            return True
        places = [place for place in last if place is not None]
        guessed = len(places) == len(last) and not uses & set("pir") and self._look_like_excitations(parts, places)
        if guessed:
            notes.append(
                "the last pulse before every sample is taken for its excitation, so the signal is the transverse "
                "magnetisation"
            )
        return guessed

    def _last_pulse(self, first: int, place: int) -> int | None:
        """Place of the last pulse before a sample, unless there is none or it is spoiled."""
        for i in range(place - 1, first - 1, -1):
            if isinstance(self.events[i], Play):
                return i
            if isinstance(self.events[i], Spoil):
                return None
        return None

    def _look_like_excitations(self, parts: Sequence[tuple[int, int]], last: Sequence[int]) -> bool:
        plays = [self._play_at(place) for place in last]
        duration_s = self._pulse(plays[0]).total_s
        alike = all(math.isclose(self._pulse(play).total_s, duration_s, rel_tol=1e-6) for play in plays)
        if not alike or duration_s > LONGEST_EXCITATION_S or any(play.frequency_Hz != 0 for play in plays):
            return False
        others = [
            [self._play_at(i) for i in range(first, place) if isinstance(self.events[i], Play)]
            for (first, _), place in zip(parts, last, strict=True)
        ]
        tipped_back = any(
            self._tips_alike(other, play) for before, play in zip(others, plays, strict=True) for other in before
        )
        return any(others) and not tipped_back

    def _pulse(self, play: Play) -> EventPulse:
        return self.pulses.pulses[play.pulse]

    def _play_at(self, place: int) -> Play:
        event = self.events[place]
        assert isinstance(event, Play)
        return event

    def _tips_alike(self, one: Play, other: Play) -> bool:
        """Whether two pulses turn by the same angle in the same time at the same frequency."""
        pulses = self._pulse(one), self._pulse(other)
        angles, durations = [abs(pulse.area_uT_s) for pulse in pulses], [pulse.total_s for pulse in pulses]
        return one.frequency_Hz == other.frequency_Hz and all(
            math.isclose(*pair, rel_tol=1e-3) for pair in (angles, durations)
        )
