"""The signal of a preparation of which every event is given, by the Bloch-McConnell equations.

The magnetisation is kept in the frame of water. A pulse is evaluated in the frame that rotates at its frequency and
coincides with that of water at the start of the pulse, where its phase is the one given. Within one train this is the
phase rule of pulseq-cest.

Pulses of the same envelope and frequency share one propagator, whatever their phases: a phase only turns the
magnetisation before the pulse and back after it. Measurements that start afresh are played side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..events import EventPulse, Events, Play, Sample, Spoil, Wait
from . import propagators
from .equations import WATER, x_row, y_row, z_row

Generator = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Generator (n, n + 1, k, voxel) of RF frequencies (k, 1) in Hz, amplitudes (k, 1) in uT and phases (k, 1) in rad."""
FreeEvolution = Callable[[Tensor], Tensor]
"""Propagators (n, n + 1, k, voxel) of waiting times (k,) in s."""

NUMBERS_PER_CHUNK = 2**19
"""Numbers in the propagators that are computed at a time; with all that is computed on the way about 70 MB."""
_TINY_SIGNAL_SQUARED = 1e-30


@dataclass(frozen=True)
class _Step:
    """One step of a measurement.

    Attributes:
        propagator: Its number in the table of propagators.
        before_rad: Angle by which the transverse magnetisation is turned before it.
        after_rad: The same after it.
        keeps_transverse: Whether the transverse magnetisation survives.
        sample: The sample that is taken after it, or None.
    """

    propagator: int
    before_rad: float = 0.0
    after_rad: float = 0.0
    keeps_transverse: bool = True
    sample: Sample | None = None


class EventPlayer:
    """Plays events.

    Args:
        events: What is played.
        generator: Gives the generators of the evolution during RF.
        free: Gives the propagators of the evolution without RF.
        transverse_pools: Number of pools with transverse magnetisation.
    """

    def __init__(self, events: Events, generator: Generator, free: FreeEvolution, transverse_pools: int) -> None:
        self.events, self.generator, self.free = events, generator, free
        self.rows_x = [x_row(pool) for pool in range(transverse_pools)]
        self.rows_y = [y_row(pool) for pool in range(transverse_pools)]

    def signal(self, start: Tensor, *, carried_over: bool) -> Tensor:
        """Return the signal (measurement, voxel).

        Args:
            start: Magnetisation (n, 1, voxel) with which the first measurement starts, or every one of them.
            carried_over: Whether a measurement starts from what the last one left.
        """
        if not carried_over:
            return self._side_by_side(
                [self.events.measurements[i] for i in range(len(self.events.measurements))], start
            )
        joined = [event for events in self.events.measurements for event in events]
        return self._side_by_side([joined], start)

    def excited(self, start: Tensor) -> Tensor:
        """Return the signal (measurement, voxel) of the excitations and what follows them alone."""
        parts = []
        for m, events in enumerate(self.events.measurements):
            place = self.events.excitation(m)
            sample = next(i for i, event in enumerate(events) if isinstance(event, Sample))
            parts.append(events[sample if place is None else place : sample + 1])
        return self._side_by_side(parts, start)

    def _side_by_side(self, measurements: Sequence[Sequence[Play | Wait | Spoil | Sample]], start: Tensor) -> Tensor:
        """Samples (measurement, voxel), or (sample, voxel) of one measurement with several."""
        table = _Table(self.events.pulses, measurements)
        steps = [table.steps(events) for events in measurements]
        all_propagators = table.propagators(self.generator, self.free, start)
        count, longest = len(steps), max(len(part) for part in steps)
        nothing = _Step(table.identity)
        magnetization = start.expand(-1, count, -1)
        signals: list[list[Tensor]] = [[] for _ in steps]
        for place in range(longest):
            current = [part[place] if place < len(part) else nothing for part in steps]
            magnetization = self._turned(magnetization, [step.before_rad for step in current])
            index = [step.propagator for step in current]
            if any(i != table.identity for i in index):
                chosen = all_propagators[:, :, torch.tensor(index, device=start.device)]
                magnetization = propagators.apply(chosen, magnetization)
            magnetization = self._turned(magnetization, [step.after_rad for step in current])
            magnetization = self._spoiled(magnetization, [step.keeps_transverse for step in current])
            for m, step in enumerate(current):
                if step.sample is not None:
                    signals[m].append(self._sampled(magnetization[:, m], step.sample))
        return torch.stack([signal for of_measurement in signals for signal in of_measurement])

    def _turned(self, magnetization: Tensor, angles_rad: list[float]) -> Tensor:
        """The magnetisation turned about z by an angle for every measurement."""
        if not any(angles_rad):
            return magnetization
        angle = magnetization.new_tensor(angles_rad)[:, None]
        cosine, sine = torch.cos(angle), torch.sin(angle)
        rows = list(magnetization.unbind(0))
        for ix, iy in zip(self.rows_x, self.rows_y, strict=True):
            x, y = rows[ix], rows[iy]
            rows[ix], rows[iy] = x * cosine - y * sine, x * sine + y * cosine
        return torch.stack(rows)

    def _spoiled(self, magnetization: Tensor, kept: list[bool]) -> Tensor:
        if all(kept):
            return magnetization
        factor = magnetization.new_tensor([float(keep) for keep in kept])[:, None]
        rows = list(magnetization.unbind(0))
        for row in (*self.rows_x, *self.rows_y):
            rows[row] = rows[row] * factor
        return torch.stack(rows)

    @staticmethod
    def _sampled(magnetization: Tensor, sample: Sample) -> Tensor:
        if not sample.transverse:
            return magnetization[z_row(WATER)]
        x, y = magnetization[x_row(WATER)], magnetization[y_row(WATER)]
        return torch.sqrt(x**2 + y**2 + _TINY_SIGNAL_SQUARED)


class _Table:
    """The different propagators of some measurements: pulses, waiting times and, last, the identity."""

    def __init__(
        self, pulses: tuple[EventPulse, ...], measurements: Sequence[Sequence[Play | Wait | Spoil | Sample]]
    ) -> None:
        self.pulses = pulses
        events = {event for part in measurements for event in part}
        played = {(event.pulse, event.frequency_Hz) for event in events if isinstance(event, Play)}
        self.played = {key: i for i, key in enumerate(sorted(played))}
        waits = sorted({event.duration_s for event in events if isinstance(event, Wait)})
        self.waits = {duration: len(self.played) + i for i, duration in enumerate(waits)}
        self.identity = len(self.played) + len(self.waits)

    def steps(self, events: Sequence[Play | Wait | Spoil | Sample]) -> list[_Step]:
        """The steps of a measurement."""
        result = []
        for event in events:
            if isinstance(event, Play):
                advance = 2 * math.pi * event.frequency_Hz * self.pulses[event.pulse].total_s
                after = math.remainder(event.phase_rad + advance, 2 * math.pi)
                number = self.played[event.pulse, event.frequency_Hz]
                result.append(_Step(number, math.remainder(-event.phase_rad, 2 * math.pi), after))
            elif isinstance(event, Wait):
                result.append(_Step(self.waits[event.duration_s]))
            elif isinstance(event, Spoil):
                result.append(_Step(self.identity, keeps_transverse=False))
            else:
                result.append(_Step(self.identity, sample=event))
        return result

    def propagators(self, generator: Generator, free: FreeEvolution, like: Tensor) -> Tensor:
        """All propagators (n, n + 1, k, voxel) in the order of their numbers."""
        parts = []
        for number in sorted({pulse for pulse, _ in self.played}):
            frequencies = [frequency for pulse, frequency in self.played if pulse == number]
            parts.append(_of_pulse(self.pulses[number], frequencies, generator, like))
        if self.waits:
            parts.append(free(like.new_tensor(list(self.waits))))
        rows = len(like)
        if not parts:
            return like.new_zeros(rows, rows + 1, 1, like.shape[-1])
        return torch.cat([*parts, torch.zeros_like(parts[0][:, :, :1])], 2)


def _of_pulse(pulse: EventPulse, frequencies: list[float], generator: Generator, like: Tensor) -> Tensor:
    """Propagators (n, n + 1, frequency, voxel) of a pulse with phase 0 at its start."""
    rows, voxels = len(like), like.shape[-1]
    numbers = rows * (rows + 1) * voxels
    steps = len(pulse.amplitude_uT)
    steps_at_once = min(steps, max(1, NUMBERS_PER_CHUNK // numbers))
    frequencies_at_once = max(1, NUMBERS_PER_CHUNK // (numbers * steps_at_once))
    results = []
    for first in range(0, len(frequencies), frequencies_at_once):
        some = like.new_tensor(frequencies[first : first + frequencies_at_once])
        result = None
        for step in range(0, steps, steps_at_once):
            part = slice(step, step + steps_at_once)
            later = _of_steps(pulse, part, some, generator, like)
            result = later if result is None else propagators.compose(later, result)
        assert result is not None
        results.append(result)
    return torch.cat(results, 2)


def _of_steps(pulse: EventPulse, part: slice, frequencies: Tensor, generator: Generator, like: Tensor) -> Tensor:
    """Propagators (n, n + 1, frequency, voxel) of some successive steps of a pulse."""
    amplitude, phase, duration = (
        like.new_tensor(values[part]).repeat_interleave(len(frequencies))[:, None]
        for values in (pulse.amplitude_uT, pulse.phase_rad, pulse.duration_s)
    )
    count = len(amplitude) // len(frequencies)
    one = propagators.propagator(generator(frequencies.repeat(count)[:, None], amplitude, phase), duration)
    rows, columns, _, voxels = one.shape
    one = one.reshape(rows, columns, count, len(frequencies), voxels)
    while one.shape[2] > 1:
        odd = one[:, :, -1:] if one.shape[2] % 2 else None
        pairs = propagators.compose(one[:, :, 1::2], one[:, :, : 2 * (one.shape[2] // 2) : 2])
        one = pairs if odd is None else torch.cat([pairs, odd], 2)
    return one[:, :, 0]
