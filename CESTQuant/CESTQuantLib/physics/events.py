"""Preparations of which every event is given: pulses of any amplitude, frequency and phase, delays, spoilers, samples.

Such a preparation is needed where the pulses of a protocol are not equal: see :mod:`.protocol`. Frequencies are
those of the RF in Hz, because that is what a scanner plays at any field.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from NeuroCESTLib.core.checked_json import check_keys, number, whole_number


@dataclass(frozen=True)
class EventPulse:
    """The envelope of a pulse, as stretches of constant amplitude and phase.

    Attributes:
        amplitude_uT: RF amplitude of every stretch in uT.
        phase_rad: RF phase of every stretch in rad.
        duration_s: Duration of every stretch in s.

    Raises:
        ValueError: The stretches differ in number, or a value is not finite or a duration not positive.
    """

    amplitude_uT: tuple[float, ...]
    phase_rad: tuple[float, ...]
    duration_s: tuple[float, ...]

    def __post_init__(self) -> None:
        if not len(self.amplitude_uT) == len(self.phase_rad) == len(self.duration_s) > 0:
            raise ValueError("a pulse needs as many amplitudes as phases and durations, at least one")
        if not all(map(math.isfinite, (*self.amplitude_uT, *self.phase_rad, *self.duration_s))):
            raise ValueError("a pulse contains a value that is not finite")
        if min(self.duration_s) <= 0:
            raise ValueError("a pulse contains a duration that is not positive")

    @functools.cached_property
    def total_s(self) -> float:
        """Duration in s."""
        return math.fsum(self.duration_s)

    @functools.cached_property
    def energy_uT2_s(self) -> float:
        """Integral of the squared amplitude in uT^2 s."""
        return math.fsum(a * a * t for a, t in zip(self.amplitude_uT, self.duration_s, strict=True))

    @functools.cached_property
    def area_uT_s(self) -> complex:
        """Integral of the complex amplitude in uT s."""
        parts = zip(self.amplitude_uT, self.phase_rad, self.duration_s, strict=True)
        return sum(complex(a * math.cos(p), a * math.sin(p)) * t for a, p, t in parts)

    @property
    def is_block(self) -> bool:
        """Whether amplitude and phase are constant."""
        return len(self.amplitude_uT) == 1


@dataclass(frozen=True)
class Play:
    """A pulse is played.

    Attributes:
        pulse: Number of the pulse in :attr:`Events.pulses`.
        frequency_Hz: RF frequency in Hz from the nominal water frequency.
        phase_rad: RF phase in rad at the start of the pulse.
    """

    pulse: int
    frequency_Hz: float
    phase_rad: float


@dataclass(frozen=True)
class Wait:
    """Nothing is played for ``duration_s`` seconds."""

    duration_s: float


@dataclass(frozen=True)
class Spoil:
    """All transverse magnetisation is dephased."""


@dataclass(frozen=True)
class Sample:
    """The signal of the measurement is taken.

    Attributes:
        transverse: Whether the signal is the magnitude of the transverse water magnetisation after an excitation;
            otherwise it is the longitudinal water magnetisation.
    """

    transverse: bool = False


Event: TypeAlias = Play | Wait | Spoil | Sample


@dataclass(frozen=True)
class Events:
    """Everything that is played for every measurement.

    Attributes:
        pulses: The different pulses.
        measurements: The events of every measurement in their order, each with one sample. What follows the sample
            matters only where the magnetisation is carried over.

    Raises:
        ValueError: A measurement has no sample or several, refers to a pulse that is not there, or a value is not
            finite.
    """

    pulses: tuple[EventPulse, ...]
    measurements: tuple[tuple[Event, ...], ...]

    def __post_init__(self) -> None:
        for number_, events in enumerate(self.measurements, start=1):
            if sum(isinstance(event, Sample) for event in events) != 1:
                raise ValueError(f"measurement {number_} must have one sample")
            for event in events:
                _check(event, len(self.pulses), number_)

    def select(self, index: Tensor | slice) -> Events:
        """Return the events of some measurements: indices, a boolean mask of shape (measurement,), or a slice."""
        chosen = torch.arange(len(self.measurements))[index if isinstance(index, slice) else index.cpu()]
        return Events(self.pulses, tuple(self.measurements[i] for i in chosen.tolist()))

    def before_sample(self, measurement: int) -> tuple[Event, ...]:
        """Return the events of a measurement up to its sample."""
        events = self.measurements[measurement]
        place = next(i for i, event in enumerate(events) if isinstance(event, Sample))
        return events[:place]

    def excitation(self, measurement: int) -> int | None:
        """Return the place of the excitation among the events; None where the sample is longitudinal."""
        events = self.measurements[measurement]
        place = next(i for i, event in enumerate(events) if isinstance(event, Sample))
        sample = events[place]
        if not (isinstance(sample, Sample) and sample.transverse):
            return None
        return max((i for i in range(place) if isinstance(events[i], Play)), default=None)

    def preparation(self, measurement: int) -> tuple[Event, ...]:
        """Return the events of a measurement up to its excitation, or to its sample where there is none."""
        place = self.excitation(measurement)
        return self.before_sample(measurement) if place is None else self.measurements[measurement][:place]

    def longest_Hz(self, measurement: int) -> list[float]:
        """Return the frequencies that a preparation plays at least half as long as the longest, as they appear."""
        times: dict[float, float] = {}
        for event in self.preparation(measurement):
            if isinstance(event, Play):
                times[event.frequency_Hz] = times.get(event.frequency_Hz, 0.0) + self.pulses[event.pulse].total_s
        longest = max(times.values(), default=0.0)
        return [frequency for frequency, time in times.items() if time >= 0.5 * longest]

    def duty_cycle(self, measurement: int) -> float | None:
        """Return the fraction of pulses and gaps during which RF is on before the excitation; None without RF.

        As in a train of equal pulses, every pulse counts with the gap after it; that of the last is the mean gap.
        """
        on_s, gaps_s, gap_s = 0.0, [], 0.0
        for event in self.preparation(measurement):
            pulse = self.pulses[event.pulse] if isinstance(event, Play) else None
            if pulse is not None and pulse.energy_uT2_s > 0:
                if on_s > 0 and gap_s > 0:
                    gaps_s.append(gap_s)
                on_s, gap_s = on_s + pulse.total_s, 0.0
            elif pulse is not None:
                gap_s += pulse.total_s
            elif isinstance(event, Wait):
                gap_s += event.duration_s
        if on_s == 0:
            return None
        return on_s / (on_s + math.fsum(gaps_s) * (1 + 1 / max(len(gaps_s), 1)))

    @property
    def only_blocks(self) -> bool:
        """Whether no measurement plays more than one continuous-wave block before its excitation or sample."""
        for m in range(len(self.measurements)):
            plays = [event for event in self.preparation(m) if isinstance(event, Play)]
            if len(plays) > 1 or not all(self.pulses[play.pulse].is_block for play in plays):
                return False
        return True

    def description(self) -> dict[str, Any]:
        """Return the value of the protocol key ``events`` that describes these events."""
        pulses = [
            {"amplitude_uT": list(p.amplitude_uT), "phase_rad": list(p.phase_rad), "duration_s": list(p.duration_s)}
            for p in self.pulses
        ]
        return {"pulses": pulses, "measurements": [[_described(e) for e in events] for events in self.measurements]}

    @classmethod
    def from_description(cls, values: Any) -> Events:
        """Return the events that the protocol key ``events`` describes.

        Raises:
            ValueError: The description is not usable.
        """
        values = check_keys(values, ("pulses", "measurements"), "events")
        pulses, measurements = values.get("pulses"), values.get("measurements")
        if not isinstance(pulses, Sequence) or not isinstance(measurements, Sequence):
            raise ValueError("events: pulses and measurements are lists")
        return cls(
            tuple(_pulse_of(pulse, f"events: pulse {i}") for i, pulse in enumerate(pulses)),
            tuple(_events_of(events, f"events: measurement {i}") for i, events in enumerate(measurements, start=1)),
        )


def _check(event: Event, pulses: int, measurement: int) -> None:
    if isinstance(event, Play):
        if not 0 <= event.pulse < pulses:
            raise ValueError(f"measurement {measurement} plays pulse {event.pulse}, but there are {pulses}")
        if not (math.isfinite(event.frequency_Hz) and math.isfinite(event.phase_rad)):
            raise ValueError(f"measurement {measurement} has a frequency or phase that is not finite")
    if isinstance(event, Wait) and not 0 <= event.duration_s < math.inf:
        raise ValueError(f"measurement {measurement} waits for {event.duration_s:g} s, which is not possible")


def _described(event: Event) -> list[Any]:
    if isinstance(event, Play):
        return ["play", event.pulse, event.frequency_Hz, event.phase_rad]
    if isinstance(event, Wait):
        return ["wait", event.duration_s]
    if isinstance(event, Spoil):
        return ["spoil"]
    return ["sample", "transverse" if event.transverse else "longitudinal"]


def _pulse_of(values: Any, where: str) -> EventPulse:
    values = check_keys(values, ("amplitude_uT", "phase_rad", "duration_s"), where)

    def listed(key: str) -> tuple[float, ...]:
        entries = values.get(key)
        if not isinstance(entries, Sequence):
            raise ValueError(f"{where}: {key} is a list of numbers")
        return tuple(number(entry, f"{where}: {key}") for entry in entries)

    return EventPulse(listed("amplitude_uT"), listed("phase_rad"), listed("duration_s"))


def _events_of(values: Any, where: str) -> tuple[Event, ...]:
    if not isinstance(values, Sequence):
        raise ValueError(f"{where} is a list of events")
    return tuple(_event_of(event, where) for event in values)


def _event_of(values: Any, where: str) -> Event:
    kind, *rest = values if isinstance(values, Sequence) and values else [None]
    if kind == "play" and len(rest) == 3:
        return Play(whole_number(rest[0], where, 0), number(rest[1], where), number(rest[2], where))
    if kind == "wait" and len(rest) == 1:
        return Wait(number(rest[0], where))
    if kind == "spoil" and not rest:
        return Spoil()
    if kind == "sample" and rest in (["longitudinal"], ["transverse"]):
        return Sample(rest == ["transverse"])
    raise ValueError(
        f"{where}: an event is [play, pulse, Hz, rad], [wait, s], [spoil] or [sample, longitudinal or transverse]"
    )


def waiting_time_s(events: Iterable[Event]) -> float:
    """Return the time in s for which nothing is played."""
    return math.fsum(event.duration_s for event in events if isinstance(event, Wait))
