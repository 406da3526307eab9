"""The shapes of pulseq files, and RF pulses from them, as runs of constant samples.

A shape is stored as the differences of its samples, in which repeated differences are counted. A constant stretch of
any length is therefore two numbers, and stays two numbers here.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

MOST_SAMPLES = 5_000_000
"""Samples to which a shape may be expanded; only ramps and irregular shapes are, constant stretches are not."""
_EQUAL = 1e-9
_RAMP_STEPS = 128
"""Steps of a linear ramp between the sample times of a pulse with few of them."""


@dataclass(frozen=True)
class Runs:
    """Stretches of equal samples.

    Attributes:
        values: Value of every stretch, (run,).
        counts: Number of samples of every stretch, (run,).
    """

    values: np.ndarray
    counts: np.ndarray

    @property
    def ends(self) -> np.ndarray:
        """Number of samples up to the end of every stretch, (run,)."""
        return np.cumsum(self.counts)

    def samples(self) -> np.ndarray:
        """Return every sample; the shape must be short."""
        return np.repeat(self.values, self.counts)


@dataclass(frozen=True)
class CompressedShape:
    """A shape as the file stores it.

    Attributes:
        number: Number in the file.
        count: Number of samples.
        text: The stored numbers.
        may_be_raw: Whether as many numbers as samples are the samples themselves, as from version 1.4 on.
    """

    number: int
    count: int
    text: str
    may_be_raw: bool

    @functools.cached_property
    def runs(self) -> Runs:
        """The samples; decoded once.

        Raises:
            ValueError: The stored numbers do not give the number of samples, or it is too large.
        """
        try:
            stored = np.array(self.text.split("#")[0].split(), dtype=float)
        except ValueError:
            raise ValueError(f"shape {self.number} holds something that is not a number; the file is damaged") from None
        if not np.isfinite(stored).all() or self.count == 0:
            raise ValueError(f"shape {self.number} holds no finite numbers; the file is damaged")
        if self.may_be_raw and len(stored) == self.count:
            return _merged(stored, np.ones(self.count, dtype=np.int64))
        differences, counts = _run_lengths(stored)
        if int(counts.sum()) != self.count:
            raise ValueError(
                f"shape {self.number} has {int(counts.sum())} samples instead of {self.count}; is the file complete?"
            )
        return self._integrated(differences, counts)

    def _integrated(self, differences: np.ndarray, counts: np.ndarray) -> Runs:
        """Samples from runs of equal differences, of which the zeros stay runs and the ramps are expanded."""
        flat = np.abs(differences) <= 1e-12
        expanded = np.where(flat, 1, counts)
        if int(expanded.sum()) > MOST_SAMPLES:
            raise ValueError(f"shape {self.number} needs more than {MOST_SAMPLES} different samples, which is too many")
        values = np.cumsum(np.repeat(np.where(flat, 0.0, differences), expanded))
        return _merged(values, np.repeat(np.where(flat, counts, 1), expanded))

    def integral(self, times: CompressedShape | None) -> tuple[float, float]:
        """Return the duration of a gradient and the integral over it, both in rasters.

        Args:
            times: Sample times in rasters, between which the gradient is linear; None for one sample a raster.
        """
        if times is None:
            return float(self.count), float((self.runs.values * self.runs.counts).sum())
        t, values = times.runs.samples(), self.runs.samples()
        if len(t) != len(values):
            raise ValueError(f"shapes {self.number} and {times.number} differ in length; the file is damaged")
        return float(t[-1]), float((np.diff(t) * (values[1:] + values[:-1])).sum() / 2)


def _run_lengths(stored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Differences and their counts: two equal numbers are followed by the count of further ones."""
    values, counts, i, end = [], [], 0, len(stored)
    numbers = stored.tolist()
    while i < end:
        if i + 2 < end and numbers[i] == numbers[i + 1]:
            values.append(numbers[i])
            counts.append(int(numbers[i + 2]) + 2)
            i += 3
        else:
            values.append(numbers[i])
            counts.append(1)
            i += 1
    return np.array(values), np.array(counts, dtype=np.int64)


def _merged(values: np.ndarray, counts: np.ndarray) -> Runs:
    """Runs of which neighbours of equal value are joined."""
    scale = max(float(np.abs(values).max()), 1e-300)
    first = np.concatenate(([True], np.abs(np.diff(values)) > _EQUAL * scale))
    starts = np.nonzero(first)[0]
    return Runs(values[starts], np.add.reduceat(counts, starts))


@dataclass(frozen=True)
class PulseSamples:
    """An RF pulse as stretches of constant complex amplitude.

    Attributes:
        envelope: Complex amplitude, (step,), in the unit of the magnitude shape.
        duration_s: Duration of every stretch in s, (step,).
    """

    envelope: np.ndarray
    duration_s: np.ndarray

    @property
    def total_s(self) -> float:
        """Duration in s."""
        return float(self.duration_s.sum())


def pulse_samples(
    magnitude: CompressedShape,
    phase: CompressedShape | None,
    times: CompressedShape | None,
    raster_s: float,
    phase_sense: int,
) -> PulseSamples:
    """Return a pulse from its shapes.

    Args:
        magnitude: Shape of the magnitude.
        phase: Shape of the phase in turns; None for none.
        times: Sample times in rasters; None for one sample a raster. Samples at the middles of equal intervals fill
            these; samples at other times are joined linearly.
        raster_s: Raster in s.
        phase_sense: 1 where the phase shape counts as the phase offset does, -1 where it counts the other way.
    """
    if phase is not None and phase.count != magnitude.count:
        raise ValueError(f"shapes {magnitude.number} and {phase.number} differ in length; the file is damaged")
    if times is not None:
        if times.count != magnitude.count:
            raise ValueError(f"shapes {magnitude.number} and {times.number} differ in length; the file is damaged")
        t = times.runs.samples()
        dwell = float(t[1] - t[0]) if len(t) > 1 else 0.0
        if not (
            dwell > 0 and math.isclose(t[0], dwell / 2, rel_tol=0.01) and np.allclose(np.diff(t), dwell, rtol=1e-3)
        ):
            return _linear(t * raster_s, _complex(magnitude.runs.samples(), phase, phase_sense))
        raster_s *= dwell
    if phase is None:
        return PulseSamples(magnitude.runs.values.astype(complex), magnitude.runs.counts * raster_s)
    ends = np.union1d(magnitude.runs.ends, phase.runs.ends)
    levels = magnitude.runs.values[np.searchsorted(magnitude.runs.ends, ends)]
    turns = phase.runs.values[np.searchsorted(phase.runs.ends, ends)]
    return PulseSamples(levels * np.exp(phase_sense * 2j * np.pi * turns), np.diff(ends, prepend=0) * raster_s)


def _complex(levels: np.ndarray, phase: CompressedShape | None, phase_sense: int) -> np.ndarray:
    if phase is None:
        return levels.astype(complex)
    return levels * np.exp(phase_sense * 2j * np.pi * phase.runs.samples())


def _linear(t: np.ndarray, envelope: np.ndarray) -> PulseSamples:
    """Steps of an envelope that is linear between its samples; constant stretches are one step."""
    per_interval = max(1, min(_RAMP_STEPS, 8 * _RAMP_STEPS // len(t)))
    steps = np.where(envelope[1:] == envelope[:-1], 1, per_interval)
    place = (np.arange(steps.sum()) - np.repeat(np.cumsum(steps) - steps, steps) + 0.5) / np.repeat(steps, steps)
    first, change = np.repeat(envelope[:-1], steps), np.repeat(np.diff(envelope), steps)
    values = np.concatenate((envelope[:1], first + change * place))
    durations = np.concatenate((t[:1], np.repeat(np.diff(t) / steps, steps)))
    return PulseSamples(values[durations > 0], durations[durations > 0])


_DETUNINGS_RAD_PER_S = np.concatenate((-np.geomspace(8000, 100, 5), [0.0], np.geomspace(100, 8000, 5)))
_STEP_COUNTS = (128, 256, 512, 1024, 2048, 4096, 8192)


def reduced(samples: PulseSamples, peak_rad_per_s: float, tolerance: float) -> PulseSamples:
    """Return a pulse with as few equal steps as turn a spin 1/2 in the same way.

    The rotation is compared at detunings up to 8000 rad/s (10 ppm at 3 T) on both sides, without relaxation.

    Args:
        samples: The pulse.
        peak_rad_per_s: Amplitude in rad/s of the unit of the envelope.
        tolerance: Largest change of the Cayley-Klein parameters.
    """
    if len(samples.envelope) <= _STEP_COUNTS[0]:
        return samples
    exact = _rotation(samples, peak_rad_per_s)
    ends = np.concatenate(([0.0], np.cumsum(samples.duration_s)))
    area = np.concatenate(([0.0], np.cumsum(samples.envelope * samples.duration_s)))
    for count in _STEP_COUNTS:
        if count >= len(samples.envelope):
            break
        edges = np.linspace(0.0, ends[-1], count + 1)
        at_edges = np.interp(edges, ends, area.real) + 1j * np.interp(edges, ends, area.imag)
        duration = np.diff(edges)
        coarse = PulseSamples(np.diff(at_edges) / duration, duration)
        if np.abs(_rotation(coarse, peak_rad_per_s) - exact).max() <= tolerance:
            return coarse
    return samples


def _rotation(samples: PulseSamples, peak_rad_per_s: float) -> np.ndarray:
    """Cayley-Klein parameters (2, detuning) of a pulse."""
    product: np.ndarray | None = None
    for first in range(0, len(samples.envelope), 16384):  # bounds the memory
        part = slice(first, first + 16384)
        w1 = samples.envelope[part, None] * peak_rad_per_s
        dt = samples.duration_s[part, None]
        total = np.sqrt(np.abs(w1) ** 2 + _DETUNINGS_RAD_PER_S**2)
        sine = np.sin(total * dt / 2) / np.where(total > 0, total, 1.0)
        turns = np.stack([np.cos(total * dt / 2) - 1j * _DETUNINGS_RAD_PER_S * sine, -1j * w1 * sine])
        while turns.shape[1] > 1:
            if turns.shape[1] % 2:
                identity = np.stack([np.ones_like(turns[0, :1]), np.zeros_like(turns[0, :1])])
                turns = np.concatenate((turns, identity), 1)
            turns = _after(turns[:, 1::2], turns[:, ::2])
        product = turns[:, 0] if product is None else _after(turns[:, 0], product)
    assert product is not None
    return product


def _after(later: np.ndarray, earlier: np.ndarray) -> np.ndarray:
    """Cayley-Klein parameters of one rotation after another."""
    a = later[0] * earlier[0] - np.conj(later[1]) * earlier[1]
    return np.stack([a, later[1] * earlier[0] + np.conj(later[0]) * earlier[1]])
