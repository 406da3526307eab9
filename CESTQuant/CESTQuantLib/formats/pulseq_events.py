"""The events of a pulseq file (.seq), read through pypulseq: the pulses of every measurement and their delays."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from NeuroCESTLib.core.packages import MissingPackage

MAX_SAMPLES = 200
"""Samples kept of a shaped pulse; longer shapes are averaged down."""
_SILENT_HZ = 1e-6


@dataclass(frozen=True)
class Pulse:
    """An RF pulse.

    Attributes:
        amplitude_uT: Samples of equal duration in uT; one sample is a block pulse.
        phase_rad: RF phase of every sample in rad; None for a constant phase.
        duration_s: Duration in s.
        frequency_Hz: Frequency offset in Hz.
        gamma_rad_per_s_per_uT: Gyromagnetic ratio in rad/(s uT) with which uT were calculated from Hz.
        silent_s: Duration of zero samples in s, which count as a gap after the pulse.
    """

    amplitude_uT: tuple[float, ...]
    phase_rad: tuple[float, ...] | None
    duration_s: float
    frequency_Hz: float
    gamma_rad_per_s_per_uT: float
    silent_s: float = 0.0

    @property
    def root_mean_square_uT(self) -> float:
        """Root mean square of the amplitude in uT."""
        return float(np.sqrt(np.mean(np.square(self.amplitude_uT))))

    @property
    def flip_angle_deg(self) -> float:
        """Flip angle on resonance in degrees."""
        return math.degrees(float(np.mean(self.amplitude_uT)) * self.duration_s * self.gamma_rad_per_s_per_uT)

    def same_shape(self, other: Pulse) -> bool:
        """Return whether another pulse has the same duration, relative amplitudes and phases."""
        same_duration = math.isclose(self.duration_s, other.duration_s, rel_tol=1e-6)
        return same_duration and self._relative() == other._relative()

    def _relative(self) -> tuple[tuple[float, ...], tuple[float, ...] | None]:
        peak = max(map(abs, self.amplitude_uT)) or 1.0
        return tuple(round(a / peak, 6) for a in self.amplitude_uT), self.phase_rad


@dataclass
class Measurement:
    """What is played for one measurement.

    Attributes:
        pulses: The pulses.
        delays_s: Free time in s before each of them.
        post_delay_s: Free time in s between the last pulse and the sample.
        trailing_s: Free time in s after the last sample of the sequence.
    """

    pulses: list[Pulse]
    delays_s: list[float]
    post_delay_s: float
    trailing_s: float = 0.0


def load_sequence(path: Path) -> Any:
    """Read a pulseq file.

    Returns:
        The ``pypulseq.Sequence``.

    Raises:
        ValueError: The file is missing, damaged, truncated or empty, or pypulseq is not installed.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; give a pulseq .seq file")
    try:
        import pypulseq
    except ImportError:
        raise MissingPackage("pypulseq", f"{path}: .seq files need the package") from None
    if _ends_within_a_shape(path):
        raise ValueError(f"{path}: the file ends in the middle of a pulse shape; it is truncated")
    sequence = pypulseq.Sequence()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sequence.read(str(path))
    except Exception:  # the parser of pypulseq raises errors of many types
        raise ValueError(f"{path}: not a readable pulseq file: it is damaged or of another type") from None
    if not sequence.block_events:
        raise ValueError(f"{path}: the pulseq file holds no blocks")
    return sequence


def definition(definitions: Mapping[str, Any], name: str, default: float) -> float:
    """Return a number from the definitions of a sequence."""
    return float(np.ravel(definitions.get(name, default))[0])


def measurements_of(sequence: Any, field_T: float, gamma_rad_per_s_per_uT: float) -> list[Measurement]:
    """Return what a sequence plays for every measurement; a measurement ends with an ADC event.

    Args:
        sequence: A ``pypulseq.Sequence``.
        field_T: Static field in T, which converts frequencies given in ppm.
        gamma_rad_per_s_per_uT: Gyromagnetic ratio in rad/(s uT), which converts Hz into uT.

    Raises:
        ValueError: A block cannot be read, or there is no ADC event.
    """
    pulses: dict[tuple[int, ...], Pulse] = {}
    result: list[Measurement] = []
    current, idle = Measurement([], [], 0.0), 0.0
    for number, events in sequence.block_events.items():
        key = tuple(np.ravel(events).tolist())
        block = _block(sequence, number)
        if block.rf is not None:
            if key not in pulses:
                pulses[key] = _pulse(block.rf, field_T, gamma_rad_per_s_per_uT)
            current.pulses.append(pulses[key])
            current.delays_s.append(idle)
            idle = pulses[key].silent_s
        elif block.adc is not None:
            current.post_delay_s = idle
            result.append(current)
            current, idle = Measurement([], [], 0.0), 0.0
        else:
            idle += float(block.block_duration)
    if not result:
        raise ValueError("the sequence has no ADC event, so no measurement")
    result[-1].trailing_s = idle
    return result


def _ends_within_a_shape(path: Path) -> bool:
    """Whether the samples of a shape run up to the end of the file, where the parser of pypulseq would not stop."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (UnicodeDecodeError, OSError):
        return False  # the parser fails on it and says so
    sections = [line.strip() for line in lines if line.startswith("[")]
    last_line = lines[-1].strip() or (lines[-2].strip() if len(lines) > 1 else "")
    return bool(sections) and sections[-1] == "[SHAPES]" and last_line not in ("", "#")


def _block(sequence: Any, number: int) -> Any:
    try:
        return sequence.get_block(number)
    except Exception as error:  # events or shapes that the file refers to and does not hold
        raise ValueError(f"block {number} cannot be read ({type(error).__name__}); is the file complete?") from None


def _pulse(rf: Any, field_T: float, gamma: float) -> Pulse:
    hz_per_uT = gamma / (2 * math.pi)
    frequency = float(rf.freq_offset) + float(getattr(rf, "freq_ppm", 0.0)) * hz_per_uT * field_T
    signal, duration = np.asarray(rf.signal), _duration(rf)
    played = np.abs(signal) > _SILENT_HZ
    silent = duration * float(np.mean(~played)) if played.any() else 0.0
    if silent > 0:  # the pulseq-cest simulators play zero samples as a gap after the pulse
        signal, duration = signal[played], duration - silent
    amplitude, phase = _amplitude_and_phase(signal)
    return Pulse(
        tuple((amplitude / hz_per_uT).tolist()),
        None if phase is None else tuple(phase.tolist()),
        duration,
        frequency,
        gamma,
        silent,
    )


def _amplitude_and_phase(signal: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Amplitude in Hz and phase in rad of complex samples: one sample of a block, few of a shape; None for no phase."""
    magnitude, phase = np.abs(signal), np.angle(signal)
    constant = np.ptp(magnitude) <= 1e-6 * magnitude.max() if magnitude.max() > 0 else True
    phase_constant = np.ptp(phase) < 1e-9
    if constant and phase_constant:
        return np.array([float(magnitude[0])]), None
    if len(signal) > MAX_SAMPLES:
        parts = np.array_split(signal, MAX_SAMPLES)
        signal = np.array([part.mean() for part in parts])
        magnitude, phase = np.abs(signal), np.angle(signal)
    if phase_constant:
        return magnitude, None
    if np.all(np.abs(np.sin(phase[magnitude > 0])) < 1e-6):  # a real pulse that changes sign
        return np.sign(np.cos(phase)) * magnitude, None
    return magnitude, phase


def _duration(rf: Any) -> float:
    """Duration of a shape: of all its samples where their times are the middles of equal dwells, else to the last."""
    times = np.asarray(rf.t, dtype=float)
    if len(times) > 1:
        dwell = float(times[1] - times[0])
        if math.isclose(times[0], dwell / 2, rel_tol=0.01) and np.allclose(np.diff(times), dwell, rtol=1e-3):
            return dwell * len(times)
    return float(rf.shape_dur)
