"""A pulse train of a protocol in a pulseq file: its definitions, its rasters, and whether a file plays its pulses.

The format knows neither names of shapes nor times finer than its rasters, so the definitions keep them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from ...physics.events import EventPulse
from ...physics.pulse_shapes import PulseShape, PulseTrain
from .text import Definitions

BLOCK_RASTER_S = 1e-5
RF_RASTER_S = 1e-6
_SAME_AMPLITUDE = 2e-5
"""Difference between two amplitudes, relative to the peak, that is due to the digits of a file."""
_SAMPLES = "samples"
"""Definition ``pulse_shape`` of a pulse that has no name but samples."""


def on_raster(duration_s: float) -> float:
    """Return a duration in s rounded to the raster of the blocks."""
    return round(float(duration_s) / BLOCK_RASTER_S) * BLOCK_RASTER_S


def samples_on_raster(train: PulseTrain) -> np.ndarray:
    """Return a pulse on the RF raster, (point,) complex, in the unit of its shape."""
    shape, points = train.shape, round(on_raster(train.duration_s) / RF_RASTER_S)
    place = np.minimum((np.arange(points) + 0.5) * len(shape.amplitude) / max(points, 1), len(shape.amplitude) - 1)
    samples = shape.amplitude.detach().cpu().double().numpy().astype(complex)
    if shape.phase_rad is not None:
        samples = samples * np.exp(1j * shape.phase_rad.detach().cpu().double().numpy())
    return samples[place.astype(np.int64)]


def states_train(definitions: Definitions) -> bool:
    """Return whether a file was written from a protocol with a train, whose pulses it plays with their silent ends."""
    return definitions.text("pulse_shape") is not None


def definitions_of_train(train: PulseTrain) -> dict[str, Any]:
    """Return the definitions from which :func:`train_of_definitions` makes the same train."""
    shape = train.shape
    values: dict[str, Any] = {
        "n_pulses": train.n_pulses,
        "pulse_duration_s": repr(train.duration_s),
        "pulse_delay_s": repr(train.delay_s),
        "pulse_shape": _SAMPLES if shape.absolute else shape.name,
    }
    if shape.absolute:
        values["pulse_samples_uT"] = [repr(value) for value in shape.amplitude.tolist()]
        if shape.phase_rad is not None:
            values["pulse_phase_rad"] = [repr(value) for value in shape.phase_rad.tolist()]
    return values


def train_of_definitions(definitions: Definitions) -> PulseTrain | None:
    """Return the train that the definitions of a file describe; None where they describe none."""
    name = definitions.text("pulse_shape")
    count, duration, delay = (definitions.number(key) for key in ("n_pulses", "pulse_duration_s", "pulse_delay_s"))
    if name is None or count is None or duration is None or delay is None:
        return None
    try:
        if name != _SAMPLES:
            return PulseTrain(int(count), duration, delay, PulseShape.named(name))
        amplitude, phase = definitions.numbers("pulse_samples_uT"), definitions.numbers("pulse_phase_rad")
        shape = PulseShape(
            _SAMPLES,
            torch.tensor(amplitude or [], dtype=torch.float64),
            None if phase is None else torch.tensor(phase, dtype=torch.float64),
            absolute=True,
        )
        return PulseTrain(int(count), duration, delay, shape)
    except ValueError:  # not the definitions of a train, or damaged; what is played counts
        return None


class TrainOnRaster:
    """A pulse train as a file plays it."""

    def __init__(self, train: PulseTrain) -> None:
        self.train = train
        samples = samples_on_raster(train)
        self._ends = np.arange(len(samples) + 1) * RF_RASTER_S
        self._area = np.concatenate(([0.0], np.cumsum(samples))) * RF_RASTER_S

    def b1_uT(self, pulse: EventPulse) -> float | None:
        """Return the ``b1_uT`` with which the train plays a pulse of a file; None where it does not play this pulse.

        The stretches of the file may be means over several samples of the train.
        """
        if not math.isclose(pulse.total_s, self._ends[-1], rel_tol=0, abs_tol=1e-9):
            return None
        duration = np.array(pulse.duration_s)
        edges = np.concatenate(([0.0], np.cumsum(duration)))
        area = np.interp(edges, self._ends, self._area.real) + 1j * np.interp(edges, self._ends, self._area.imag)
        expected = np.diff(area) / duration
        found = np.array(pulse.amplitude_uT) * np.exp(1j * np.array(pulse.phase_rad))
        scale = np.vdot(expected, found * duration) / np.vdot(expected, expected * duration).real
        if np.abs(found - scale * expected).max() > _SAME_AMPLITUDE * np.abs(found).max():
            return None
        return float(abs(scale)) * self.train.rms_of_unit_peak
