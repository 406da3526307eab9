"""Protocols of saturation-transfer preparations from pulseq sequence files (.seq)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..physics.events import Event, EventPulse, Events, Play, Sample, Spoil, Wait, waiting_time_s
from ..physics.protocol import Protocol
from ..physics.pulse_shapes import PulseShape, PulseTrain
from ..physics.units import GAMMA_RAD_PER_S_PER_UT
from .protocol_json import SAME_OFFSET_PPM
from .pulseq_events import played_events
from .pulseq_field import SAME_FIELD, field_of_definitions
from .pulseq_rules import RULES
from .pulseq_text import Definitions, SequenceFile, read_sequence_file

MOST_SHAPE_SAMPLES = 2048
"""Most samples of equal duration with which a protocol describes a pulse."""
_M0_OFFSET_PPM = -300.0
"""Offset in ppm of an M0 image without RF whose offset the file does not say."""
_DEFINITIONS_OF_PROTOCOL = "signal_normalisation"
"""Definition by which files are known that were written from a protocol."""


def read_seq(
    path: str | Path,
    gamma_rad_per_s_per_uT: float | None = None,
    field_strength_T: float | None = None,
    *,
    rules: str = RULES[0],
    carried_over: bool | None = None,
) -> Protocol:
    """Read the protocol of a pulseq file, which is played as it is written.

    A file whose measurements are equal trains, or single blocks, becomes a protocol of offsets, B1 and durations. That
    is checked of every pulse: envelope, amplitude, frequency, phase and the gaps around it. Everything else becomes a
    protocol with :attr:`.Protocol.events`. What is guessed or left out, and contradictions within the file or between
    the file and the arguments, are named in warnings.

    Where the samples follow an excitation, the magnetisation is carried over; otherwise every measurement starts at
    equilibrium, as in the pulseq-cest library.

    Args:
        path: pulseq file.
        gamma_rad_per_s_per_uT: Gyromagnetic ratio in rad/(s uT), which converts the Hz of the file into uT and ppm; by
            default the definition in the file, or that of the proton.
        field_strength_T: Static field in T at which the file is played; by default the definition ``B0`` of the file
            in any case, or its ``FREQ`` in MHz.
        rules: ``"pulseq-cest"`` or ``"pulseq"``, see :func:`.played_events`.
        carried_over: Whether a measurement starts from what the last one left; None decides as above.

    Raises:
        ValueError: The file cannot be read or played; the message names the file.
    """
    path = Path(path)
    file = read_sequence_file(path)
    return protocol_of_file(
        file, path, gamma_rad_per_s_per_uT, field_strength_T, rules=rules, carried_over=carried_over
    )


def protocol_of_file(
    file: SequenceFile,
    path: Path,
    gamma_rad_per_s_per_uT: float | None = None,
    field_strength_T: float | None = None,
    *,
    rules: str = RULES[0],
    carried_over: bool | None = None,
) -> Protocol:
    """Return the protocol of a file that has been read; the arguments are those of :func:`read_seq`.

    Raises:
        ValueError: The file cannot be played; the message names ``path``.
    """
    notes: list[str] = []
    try:
        gamma = gamma_rad_per_s_per_uT or file.definitions.number("gamma_rad_per_s_per_uT") or GAMMA_RAD_PER_S_PER_UT
        field = _field(file.definitions, gamma, field_strength_T, notes)
        played = played_events(file, field, gamma, rules)
        notes += played.notes
        protocol = _Reader(file.definitions, played.events, field, gamma, carried_over, notes).protocol()
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    for note in notes:
        warnings.warn(f"{path}: {note}", stacklevel=3)
    return protocol


def _field(definitions: Definitions, gamma: float, wanted: float | None, notes: list[str]) -> float:
    stated = field_of_definitions(definitions, gamma, notes)
    if wanted is None:
        if stated is None:
            raise ValueError("the definition B0 is missing; add it to the file or give a protocol.json")
        return stated
    if stated is not None and not math.isclose(stated, wanted, rel_tol=SAME_FIELD):
        notes.append(
            f"the file is made for {stated:g} T but is played at {wanted:g} T, where its frequencies in Hz are other "
            "offsets in ppm; make the two fields equal"
        )
    return wanted


@dataclass(frozen=True)
class _Saturation:
    """The preparation of a measurement before its excitation.

    Attributes:
        plays: The pulses.
        waits_s: Free time in s before each of them and after the last; without pulses, all of it.
        spoiled: Whether something is spoiled between the first and the last pulse.
    """

    plays: tuple[Play, ...]
    waits_s: tuple[float, ...]
    spoiled: bool

    @classmethod
    def of(cls, events: Sequence[Event]) -> _Saturation:
        """Return the preparation that some events are."""
        plays: list[Play] = []
        waits = [0.0]
        spoiled = spoils = False
        for event in events:
            if isinstance(event, Play):
                spoiled = spoiled or (spoils and bool(plays))
                plays.append(event)
                waits.append(0.0)
                spoils = False
            elif isinstance(event, Wait):
                waits[-1] += event.duration_s
            elif isinstance(event, Spoil):
                spoils = True
        return cls(tuple(plays), tuple(waits), spoiled)

    @property
    def recovery_s(self) -> float:
        """Free time in s before the first pulse."""
        return self.waits_s[0] if self.plays else 0.0

    @property
    def post_delay_s(self) -> float:
        """Free time in s after the last pulse."""
        return self.waits_s[-1] if self.plays else 0.0


class _Reader:
    """The protocol of a file that has been played."""

    def __init__(
        self,
        definitions: Definitions,
        events: Events,
        field: float,
        gamma: float,
        carried_over: bool | None,
        notes: list[str],
    ) -> None:
        self.definitions, self.events, self.field, self.gamma, self.notes = definitions, events, field, gamma, notes
        self.saturations = [_Saturation.of(events.preparation(m)) for m in range(len(events.measurements))]
        self.silent = np.array([not saturation.plays for saturation in self.saturations])
        if self.silent.all():
            raise ValueError("the sequence has no saturation pulse")
        self.excited = events.excitation(0) is not None
        self.from_protocol = definitions.text(_DEFINITIONS_OF_PROTOCOL) is not None
        larmor = definitions.number("larmor_frequency_MHz") if self.from_protocol else None
        self.larmor_MHz = larmor
        self.hz_per_ppm = larmor or gamma * field / (2 * math.pi)
        stated = definitions.number("magnetisation_carried_over")
        if carried_over is None:
            carried_over = stated == 1 if stated is not None else self.excited
        self.carried_over = carried_over

    def protocol(self) -> Protocol:
        """The protocol, as simple as what is played allows."""
        pulses = self.events.pulses
        times = [self._duration_s(saturation) for saturation in self.saturations]
        reference = max(self.saturations, key=lambda saturation: len(saturation.plays))
        simple = self._is_simple(reference)
        train = self._train(reference) if simple else None
        if simple and train is not None:
            times = [train.total_time_s] * len(times)
        else:  # a measurement without RF may be called as long as the others, but not longer than it waits
            longest = max(times)
            times = [
                time if s.plays else min(longest, s.waits_s[0]) for time, s in zip(times, self.saturations, strict=True)
            ]
        energies = [sum(pulses[play.pulse].energy_uT2_s for play in s.plays) for s in self.saturations]
        b1 = [math.sqrt(energy / time) if time > 0 else 0.0 for energy, time in zip(energies, times, strict=True)]
        if train is not None:
            b1 = [
                pulses[s.plays[0].pulse].energy_uT2_s ** 0.5 / (train.duration_s + train.delay_s) ** 0.5
                if s.plays
                else 0.0
                for s in self.saturations
            ]
        protocol = Protocol(
            field_strength_T=self.field,
            offsets_ppm=self._quantity("offsets_ppm", self._offsets()),
            b1_uT=self._quantity("b1_uT", b1),
            saturation_time_s=self._quantity("saturation_time_s", times),
            pulses=train,
            post_delay_s=self._quantity("post_delay_s", [s.post_delay_s for s in self.saturations]),
            initial_magnetisation=self._initial_magnetization(),
            magnetisation_carried_over=self.carried_over,
            signal_normalisation=self._normalization(),
            larmor_frequency_MHz=self.larmor_MHz,
            gamma_rad_per_s_per_uT=self.gamma,
            events=None if simple else self.events,
        )
        protocol = self._with_readout(protocol) if self.excited else self._with_recovery(protocol)
        if self.from_protocol and (m0 := self.definitions.numbers("m0_measurements")):
            protocol = replace(protocol, m0_measurements=tuple(int(number) for number in m0))
        stated = self.definitions.numbers("initial_recovery_s") if self.from_protocol else None
        if stated is not None and len(stated) in (1, protocol.measurement_count):
            protocol = replace(protocol, initial_recovery_s=torch.tensor(stated, dtype=torch.float64))
        return protocol

    def _initial_magnetization(self) -> float:
        stated = self.definitions.number("initial_magnetisation") if self.from_protocol else None
        return 1.0 if stated is None else stated

    def _normalization(self) -> str:
        stated = self.definitions.text("signal_normalisation")
        return stated or ("l2" if self.excited else "m0")

    def _with_readout(self, protocol: Protocol) -> Protocol:
        excitations = [self._excitation(m) for m in range(protocol.measurement_count)]
        angles, durations, echoes = zip(*excitations, strict=True)
        spoiled = self.definitions.number("readout_spoiled") == 1
        return replace(
            protocol,
            recovery_time_s=self._quantity("recovery_time_s", self._recovery(echoes[0])),
            readout_flip_angle_deg=self._quantity("readout_flip_angle_deg", angles),
            readout_pulse_s=0.0 if spoiled else durations[0],
            echo_time_s=echoes[0],
        )

    def _with_recovery(self, protocol: Protocol) -> Protocol:
        leading = [saturation.recovery_s for saturation in self.saturations]
        if not self.from_protocol:
            recovery = self._quantity("recovery_time_s", [*leading[1:], self._trailing_s()])
            initial = self._quantity("initial_recovery_s", self._before_saturation(protocol.saturation_time_s.tolist()))
            protocol = replace(protocol, initial_recovery_s=initial, recovery_time_s=recovery)
        stated = self.definitions.numbers("recovery_time_s")
        if stated is not None and len(stated) in (1, protocol.measurement_count):
            protocol = replace(protocol, recovery_time_s=torch.tensor(stated, dtype=torch.float64))
        return protocol

    def _before_saturation(self, times: Sequence[float]) -> list[float]:
        """Free time in s before every saturation; without RF the saturation, with B1 0, is a part of the free time."""
        left = [s.waits_s[0] - (0.0 if s.plays else time) for s, time in zip(self.saturations, times, strict=True)]
        short = next((m for m, rest in enumerate(left) if rest < -1e-9), None)
        if short is not None:
            self.notes.append(
                f"measurement {short + 1} has no RF and waits {self.saturations[short].waits_s[0]:.4g} s, less than a "
                f"pulse train lasts; it is simulated with {times[short]:.4g} s, which matters only if the "
                "magnetisation does not start at equilibrium"
            )
        return [max(rest, 0.0) for rest in left]

    def _trailing_s(self) -> float:
        """Free time in s after the last sample."""
        events = self.events.measurements[-1]
        place = next(i for i, event in enumerate(events) if isinstance(event, Sample))
        return waiting_time_s(events[place:])

    def _excitation(self, m: int) -> tuple[float, float, float]:
        """Flip angle in degrees, duration in s and time in s to the sample of an excitation."""
        place = self.events.excitation(m)
        assert place is not None
        events = self.events.before_sample(m)
        play = events[place]
        assert isinstance(play, Play)
        pulse = self.events.pulses[play.pulse]
        angle = math.degrees(abs(pulse.area_uT_s) * self.gamma)
        return round(angle, 3), pulse.total_s, waiting_time_s(events[place:])

    def _recovery(self, echo_time: float) -> np.ndarray:
        """Time in s from every excitation to the next saturation.

        Where the sequence leaves it open, it is the median of the others. A file written by :mod:`.pulseq_write` says
        how much of it is taken up by the sample and the ideal excitation.
        """
        known = [s.recovery_s if s.plays else math.nan for s in self.saturations[1:]]
        known.append(self._trailing_s() or math.nan)
        usual = float(np.nanmedian(known)) if np.isfinite(known).any() else 0.0
        played = np.array([echo_time + (usual if math.isnan(delay) else delay) for delay in known])
        overhead = np.array(self.definitions.numbers("readout_overhead_s") or [0.0])
        return played + (overhead if overhead.shape == played.shape else 0.0)

    def _quantity(self, name: str, played: Sequence[float] | np.ndarray) -> Tensor:
        """A quantity per measurement: what the definitions say where it agrees with what is played to rounding.

        Measurements without RF play nothing that tells their offset or duration; there the definitions decide.
        """
        values = np.asarray(played, dtype=float)
        stated = self.definitions.numbers(name) if self.from_protocol else None
        if stated is not None and len(stated) == len(values):
            heard = ~self.silent
            if name == "readout_flip_angle_deg":
                heard = np.ones_like(self.silent)
            elif name == "recovery_time_s":  # ends with the RF of the next measurement
                heard = ~np.append(self.silent[1:], False)
            if np.allclose(np.array(stated)[heard], values[heard], rtol=2e-5, atol=2e-5):
                values = np.array(stated)
        return torch.from_numpy(values.copy())

    def _duration_s(self, saturation: _Saturation) -> float:
        pulses = math.fsum(self.events.pulses[play.pulse].total_s for play in saturation.plays)
        return pulses + math.fsum(saturation.waits_s[1:-1]) if saturation.plays else 0.0

    # offsets

    def _offsets(self) -> list[float]:
        """Offset in ppm at which is played longest; that of the definitions only where this is open."""
        stated = self._stated_offsets()
        offsets, differing = [], []
        scale = 1.0 if self.from_protocol else self._scale_of_field()
        for m, saturation in enumerate(self.saturations):
            frequencies = self.events.longest_Hz(m)
            played = [frequency / self.hz_per_ppm for frequency in frequencies]
            if stated is not None and (not played or len(played) > 1):
                offsets.append(stated[m])
                continue
            offsets.append(played[0] if played else self._m0_offset_ppm())
            if stated is None:
                continue
            every = [play.frequency_Hz / self.hz_per_ppm for play in saturation.plays]
            nearest = min(every, key=lambda offset: abs(offset * scale - stated[m]))
            if abs(nearest * scale - stated[m]) <= max(SAME_OFFSET_PPM, 1e-3 * abs(stated[m])):
                offsets[m] = nearest  # not the offset of a preparation that takes longer
            else:
                differing.append(m)
        if stated is not None and differing:
            m = differing[0]
            where = "" if scale == 1 else f" at {self.field / scale:g} T"
            self.notes.append(
                f"measurement {m + 1} plays {offsets[m] * scale:.4g} ppm{where} but offsets_ppm says {stated[m]:.4g}; "
                "what is played counts"
            )
        if stated is None and self.silent.any():
            numbers = ", ".join(str(m + 1) for m in np.flatnonzero(self.silent))
            self.notes.append(
                f"no offset is known of the measurements without RF ({numbers}), which are taken for M0 images at "
                f"{self._m0_offset_ppm():g} ppm; add the definition offsets_ppm or M0_offset"
            )
        return offsets

    def _m0_offset_ppm(self) -> float:
        """Offset of M0 images without RF that offsets_ppm does not list."""
        stated = self.definitions.number("M0_offset")
        return _M0_OFFSET_PPM if stated is None else stated

    def _stated_offsets(self) -> list[float] | None:
        """The offsets of the definitions; None where they do not belong to the measurements.

        The list may be played several times, and measurements without RF that are not in it are M0 images.
        """
        stated = self.definitions.numbers("offsets_ppm")
        if stated is None:
            return None
        unsaturated = self._m0_offset_ppm()
        if len(stated) + 1 == len(self.saturations) and self.silent.sum() == 1:
            stated.insert(int(self.silent.argmax()), unsaturated)
        passes, over = divmod(len(self.saturations), len(stated))
        if not over:
            return stated * passes
        for m in range(len(stated), len(self.saturations)):
            played = self.events.longest_Hz(m)
            stated.append(played[0] / self.hz_per_ppm * self._scale_of_field() if played else unsaturated)
        return stated if len(stated) == len(self.saturations) else None

    def _scale_of_field(self) -> float:
        """Ratio of the field at which the file is played to that for which it is made."""
        stated = field_of_definitions(self.definitions, self.gamma)
        return 1.0 if stated is None else self.field / stated

    # equal trains

    def _is_simple(self, reference: _Saturation) -> bool:
        """Whether a protocol without events plays the same: equal pulses in everything, in all measurements."""
        if (self.excited or self.carried_over) and not self._continues_as_protocols_do():
            return False
        single = len(reference.plays) == 1 and self._pulse_of(reference).is_block
        if _shape(self._pulse_of(reference)) is None:
            return False
        return all(
            self._is_equal_train(saturation, reference, any_duration=single)
            for saturation in self.saturations
            if saturation.plays
        )

    def _pulse_of(self, saturation: _Saturation, number: int = 0) -> EventPulse:
        return self.events.pulses[saturation.plays[number].pulse]

    def _is_equal_train(self, saturation: _Saturation, reference: _Saturation, *, any_duration: bool) -> bool:
        plays = saturation.plays
        if len(plays) != len(reference.plays) or saturation.spoiled:
            return False
        if len({(play.pulse, play.frequency_Hz) for play in plays}) > 1:
            return False
        gaps = (*saturation.waits_s[1:-1], *reference.waits_s[1:-1])
        same_gaps = all(math.isclose(gap, gaps[0], rel_tol=0, abs_tol=1e-9) for gap in gaps)
        first, like = self._pulse_of(saturation), self._pulse_of(reference)
        same_shape = first.is_block if any_duration else _same_envelope(first, like)
        return same_gaps and same_shape and self._phases_are_coherent(plays)

    def _phases_are_coherent(self, plays: Sequence[Play]) -> bool:
        """Whether phases advance during pulses and not during gaps, to the rounding of the file."""
        advance = elapsed = fastest = 0.0
        first = plays[0].phase_rad
        for play in plays:
            tolerance = 1e-4 + 2 * math.pi * 1e-6 * fastest * elapsed
            if abs(math.remainder(play.phase_rad - first - advance, 2 * math.pi)) > tolerance:
                return False
            duration = self.events.pulses[play.pulse].total_s
            fastest = max(fastest, abs(play.frequency_Hz))
            elapsed += duration
            advance += 2 * math.pi * play.frequency_Hz * duration
        return True

    def _continues_as_protocols_do(self) -> bool:
        """Whether excitations and carried-over magnetisation are those of a protocol from which the file was written.

        Such a protocol hands the magnetisation on unchanged, so the phases have to advance over all measurements,
        unless an ideal readout leaves nothing transverse.
        """
        if not self.from_protocol:
            return False
        if any(isinstance(event, Spoil) for events in self.events.measurements for event in events) and (
            self.definitions.number("readout_spoiled") != 1
        ):
            return False
        if self.definitions.number("readout_spoiled") == 1:
            return True
        plays = [e for events in self.events.measurements for e in events if isinstance(e, Play)]
        return not self.carried_over or self._phases_are_coherent(plays)

    def _train(self, reference: _Saturation) -> PulseTrain | None:
        """The train of equal pulses; None for single blocks."""
        pulse = self._pulse_of(reference)
        if len(reference.plays) == 1 and pulse.is_block:
            return None
        shape = _shape(pulse)
        assert shape is not None  # _is_simple
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
