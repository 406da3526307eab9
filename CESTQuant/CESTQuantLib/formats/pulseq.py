"""Reading pulseq sequence files (.seq) of saturation-transfer preparations, through pypulseq."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..physics.protocol import Protocol, PulseTrain
from ..physics.pulse_shapes import PulseShape
from ..physics.units import GAMMA_RAD_PER_S_PER_UT, rad_per_s_per_ppm

MAX_SAMPLES = 200
"""Samples kept of a shaped pulse; longer shapes are averaged down."""
LONGEST_READOUT_PULSE_S = 0.01
_SILENT_HZ = 1e-6


@dataclass(frozen=True)
class _Pulse:
    amplitude_uT: tuple[float, ...]
    phase_rad: tuple[float, ...] | None
    duration_s: float
    frequency_Hz: float
    gamma_rad_per_s_per_uT: float
    silent_s: float = 0.0  # zero samples, a gap after the pulse

    @property
    def root_mean_square_uT(self) -> float:
        return float(np.sqrt(np.mean(np.square(self.amplitude_uT))))

    @property
    def flip_angle_deg(self) -> float:
        return math.degrees(float(np.mean(self.amplitude_uT)) * self.duration_s * self.gamma_rad_per_s_per_uT)

    def same_shape(self, other: _Pulse) -> bool:
        return math.isclose(self.duration_s, other.duration_s, rel_tol=1e-6) and self._relative() == other._relative()

    def _relative(self) -> tuple:
        peak = max(map(abs, self.amplitude_uT)) or 1.0
        return tuple(round(a / peak, 6) for a in self.amplitude_uT), self.phase_rad


@dataclass
class _Measurement:
    """Pulses, the free time before each of them, between the last one and the sample, and after the last sample."""

    pulses: list[_Pulse]
    delays_s: list[float]
    post_delay_s: float
    trailing_s: float = 0.0


def read_seq(path: str | Path, gamma_rad_per_s_per_uT: float | None = None) -> Protocol:
    """Protocol of a pulseq file whose measurements differ in offset, amplitude and duration only.

    A short last pulse at the water frequency that follows a saturation is taken for the readout; then nothing is
    spoiled and the magnetisation is carried over. Otherwise every measurement starts at equilibrium, as in the
    pulseq-cest library, whose simulators also leave out the dead and ringdown times inside an RF block. The
    field ``B0`` comes from the file's definitions. Files hold Hz: ``gamma_rad_per_s_per_uT`` makes uT and ppm of them
    (default: the definition in the file, else the proton's).

    Raises ValueError naming the file for what is not such a sequence, and where pypulseq is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file; give a pulseq .seq file")
    sequence = _load(path)
    try:
        return _protocol(sequence, gamma_rad_per_s_per_uT)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _load(path: Path):
    try:
        import pypulseq
    except ImportError:
        raise ValueError(
            f"{path}: reading .seq files needs the package pypulseq; install it or give a protocol.json"
        ) from None
    if _ends_within_a_shape(path):
        raise ValueError(f"{path}: the file ends in the middle of a pulse shape; it is truncated")
    sequence = pypulseq.Sequence()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sequence.read(str(path))
    except Exception:  # pypulseq raises whatever its parser stumbles over
        raise ValueError(f"{path}: not a readable pulseq file: it is damaged or of another type") from None
    if not sequence.block_events:
        raise ValueError(f"{path}: the pulseq file holds no blocks")
    return sequence


def _ends_within_a_shape(path: Path) -> bool:
    """Whether the samples of a shape run up to the end of the file, where pypulseq's parser would not stop."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (UnicodeDecodeError, OSError):
        return False  # the parser stumbles over it and says so
    sections = [line.strip() for line in lines if line.startswith("[")]
    last_line = lines[-1].strip() or (lines[-2].strip() if len(lines) > 1 else "")
    return bool(sections) and sections[-1] == "[SHAPES]" and last_line not in ("", "#")


def _protocol(sequence, gamma: float | None) -> Protocol:
    field = sequence.definitions.get("B0")
    if field is None:
        raise ValueError("the definition B0 is missing; add it to the file or give a protocol.json")
    field = float(np.ravel(field)[0])
    definitions = sequence.definitions
    gamma = gamma or _number(definitions, "gamma_rad_per_s_per_uT", GAMMA_RAD_PER_S_PER_UT)
    measurements = _measurements(sequence, field, gamma)
    saturations, readout = _separate_readout(measurements)
    offsets = _offsets(sequence, saturations, rad_per_s_per_ppm(field, gamma))
    train, rms, times = _saturation(saturations)
    values = {"offsets_ppm": offsets, "b1_uT": rms, "saturation_time_s": times}
    values["post_delay_s"] = [m.post_delay_s if m.pulses else 0.0 for m in saturations]
    rules: dict = {}
    written_from_protocol = "signal_normalisation" in definitions
    if readout is None and not written_from_protocol:
        leading = [m.delays_s[0] if m.pulses else 0.0 for m in saturations]
        values["initial_recovery_s"] = leading
        values["recovery_time_s"] = [*leading[1:], saturations[-1].trailing_s]
    if readout is not None:
        angles, duration, echo_time = readout
        overhead = np.ravel(definitions.get("readout_overhead_s", 0.0)).astype(float)  # see pulseq_write
        played = np.array(_recovery(saturations, echo_time))
        values["recovery_time_s"] = played + (overhead if overhead.shape == played.shape else 0.0)
        values["readout_flip_angle_deg"] = angles
        spoiled = _number(definitions, "readout_spoiled", 0.0) == 1
        rules = {
            "readout_pulse_s": 0.0 if spoiled else duration,
            "echo_time_s": echo_time,
            "magnetisation_carried_over": _number(definitions, "magnetisation_carried_over", 1.0) == 1,
            "signal_normalisation": str(definitions.get("signal_normalisation", "l2")),
        }
    elif written_from_protocol:
        rules = {
            "magnetisation_carried_over": _number(definitions, "magnetisation_carried_over", 0.0) == 1,
            "signal_normalisation": str(definitions["signal_normalisation"]),
        }
    if written_from_protocol:
        rules["initial_magnetisation"] = _number(definitions, "initial_magnetisation", 1.0)
        if "larmor_frequency_MHz" in definitions:
            rules["larmor_frequency_MHz"] = _number(definitions, "larmor_frequency_MHz", 0.0)
    silent = np.array([not m.pulses for m in saturations])
    given = definitions if written_from_protocol else {}
    exact = {name: torch.from_numpy(_exact(given, name, played, silent)) for name, played in values.items()}
    if readout is None and "recovery_time_s" in definitions:
        exact["recovery_time_s"] = torch.from_numpy(np.ravel(definitions["recovery_time_s"]).astype(float))
    return Protocol(field, pulses=train, gamma_rad_per_s_per_uT=gamma, **exact, **rules)


def _number(definitions: dict, name: str, default: float) -> float:
    return float(np.ravel(definitions.get(name, default))[0])


def _exact(definitions: dict, name: str, played, silent: np.ndarray) -> np.ndarray:
    """Values of a quantity: the definitions' where they say what is played, to the rounding of the format.

    Measurements without RF (``silent``) play nothing that tells their offset or duration: there the definitions decide.
    """
    played = np.asarray(played, dtype=float)
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


def _recovery(measurements: list[_Measurement], echo_time: float) -> list[float]:
    """Time from every excitation to the next saturation; what the sequence leaves open is the median of the others."""
    known = [m.delays_s[0] if m.pulses else math.nan for m in measurements[1:]]
    known.append(measurements[-1].trailing_s or math.nan)
    usual = float(np.nanmedian(known)) if np.isfinite(known).any() else 0.0
    return [echo_time + (usual if math.isnan(delay) else delay) for delay in known]


def _measurements(sequence, field: float, gamma: float) -> list[_Measurement]:
    pulses: dict[tuple, _Pulse] = {}
    result: list[_Measurement] = []
    current, idle = _Measurement([], [], 0.0), 0.0
    for number, events in sequence.block_events.items():
        key = tuple(np.ravel(events).tolist())
        block = _block(sequence, number)
        if block.rf is not None:
            if key not in pulses:
                pulses[key] = _pulse(block.rf, field, gamma)
            current.pulses.append(pulses[key])
            current.delays_s.append(idle)
            idle = pulses[key].silent_s
        elif block.adc is not None:
            current.post_delay_s = idle
            result.append(current)
            current, idle = _Measurement([], [], 0.0), 0.0
        else:
            idle += float(block.block_duration)
    if not result:
        raise ValueError("the sequence has no ADC event, so no measurement")
    result[-1].trailing_s = idle
    return result


def _block(sequence, number: int):
    try:
        return sequence.get_block(number)
    except Exception as error:  # events or shapes that the file refers to and does not hold
        raise ValueError(f"block {number} cannot be read ({type(error).__name__}); is the file complete?") from None


def _pulse(rf, field: float, gamma: float) -> _Pulse:
    hz_per_uT = gamma / (2 * math.pi)
    frequency = float(rf.freq_offset) + float(getattr(rf, "freq_ppm", 0.0)) * hz_per_uT * field
    signal, duration = np.asarray(rf.signal), _duration(rf)
    played = np.abs(signal) > _SILENT_HZ
    silent = duration * float(np.mean(~played)) if played.any() else 0.0
    if silent > 0:  # the pulseq-cest simulators play zero samples as a gap after the pulse
        signal, duration = signal[played], duration - silent
    magnitude, phase = np.abs(signal), np.angle(signal)
    constant = np.ptp(magnitude) <= 1e-6 * magnitude.max() if magnitude.max() > 0 else True
    phase_constant = np.ptp(phase) < 1e-9
    if constant and phase_constant:
        return _Pulse((float(magnitude[0]) / hz_per_uT,), None, duration, frequency, gamma, silent)
    if len(signal) > MAX_SAMPLES:
        parts = np.array_split(signal, MAX_SAMPLES)
        signal = np.array([part.mean() for part in parts])
        magnitude, phase = np.abs(signal), np.angle(signal)
    sign = 1.0
    if not phase_constant and np.all(np.abs(np.sin(phase[magnitude > 0])) < 1e-6):
        sign, phase_constant = np.sign(np.cos(phase)), True  # a real pulse that changes sign
    return _Pulse(
        tuple((sign * magnitude / hz_per_uT).tolist()),
        None if phase_constant else tuple(phase.tolist()),
        duration,
        frequency,
        gamma,
        silent,
    )


def _duration(rf) -> float:
    """Duration of a shape: of all its samples where their times are the middles of equal dwells, else to the last."""
    times = np.asarray(rf.t, dtype=float)
    if len(times) > 1:
        dwell = float(times[1] - times[0])
        if math.isclose(times[0], dwell / 2, rel_tol=0.01) and np.allclose(np.diff(times), dwell, rtol=1e-3):
            return dwell * len(times)
    return float(rf.shape_dur)


def _separate_readout(
    measurements: list[_Measurement],
) -> tuple[list[_Measurement], tuple[list[float], float, float] | None]:
    """Measurements without their readout pulse, and its flip angles (deg), duration and echo time; or None."""
    last = [m.pulses[-1] if m.pulses else None for m in measurements]
    candidate = last[0]
    is_readout = (
        candidate is not None
        and max(len(m.pulses) for m in measurements) > 1
        and candidate.frequency_Hz == 0
        and candidate.duration_s <= LONGEST_READOUT_PULSE_S
        and all(p is not None and p.frequency_Hz == 0 and p.same_shape(candidate) for p in last)
        and any(not m.pulses[0].same_shape(candidate) for m in measurements)
    )
    if not is_readout:
        return measurements, None
    saturations = [
        _Measurement(m.pulses[:-1], m.delays_s, m.delays_s[-1] if len(m.pulses) > 1 else 0.0, m.trailing_s)
        for m in measurements
    ]
    angles = [round(p.flip_angle_deg, 3) for p in last]
    return saturations, (angles, candidate.duration_s, measurements[0].post_delay_s)


def _offsets(sequence, measurements: list[_Measurement], rad_per_s_per_ppm: float) -> torch.Tensor:
    """Offsets in ppm of the pulses played; those of the definitions only where a measurement plays none."""
    hz_per_ppm = rad_per_s_per_ppm / (2 * math.pi)
    if "larmor_frequency_MHz" in sequence.definitions:
        hz_per_ppm = _number(sequence.definitions, "larmor_frequency_MHz", 0.0)
    given = sequence.definitions.get("offsets_ppm")
    given = None if given is None else np.ravel(given).astype(float)
    if given is not None and len(given) != len(measurements):
        raise ValueError(f"offsets_ppm has {len(given)} values but the sequence has {len(measurements)} measurements")
    offsets = [
        m.pulses[0].frequency_Hz / hz_per_ppm if m.pulses else (0.0 if given is None else given[i])
        for i, m in enumerate(measurements)
    ]
    return torch.tensor(offsets, dtype=torch.float64)


def _saturation(measurements: list[_Measurement]) -> tuple[PulseTrain | None, list[float], list[float]]:
    """Train (None for CW), root-mean-square B1 in uT and duration in s of every measurement."""
    reference = max(measurements, key=lambda m: len(m.pulses))
    if not reference.pulses:
        raise ValueError("the sequence has no saturation pulse")
    pulse, count = reference.pulses[0], len(reference.pulses)
    delay = reference.delays_s[1] if count > 1 else 0.0
    for number, m in enumerate(measurements, start=1):
        differs = any(not p.same_shape(pulse) for p in m.pulses) and len(pulse.amplitude_uT) > 1
        uneven = count > 1 and any(not math.isclose(d, delay, abs_tol=1e-6) for d in m.delays_s[1 : len(m.pulses)])
        if (m.pulses and len(m.pulses) != count) or differs or uneven:
            raise ValueError(f"measurement {number} has other pulses than the first; only equal trains are supported")
    if count == 1 and len(pulse.amplitude_uT) == 1:
        longest = max(p.duration_s for m in measurements for p in m.pulses)
        times = [m.pulses[0].duration_s if m.pulses else longest for m in measurements]
        return None, [m.pulses[0].root_mean_square_uT if m.pulses else 0.0 for m in measurements], times
    phase = None if pulse.phase_rad is None else torch.tensor(pulse.phase_rad, dtype=torch.float64)
    shape = PulseShape("samples", torch.tensor(pulse.amplitude_uT, dtype=torch.float64), phase, absolute=True)
    train = PulseTrain(count, pulse.duration_s, delay, shape)
    rms = [m.pulses[0].root_mean_square_uT * train.duty_cycle**0.5 if m.pulses else 0.0 for m in measurements]
    return train, rms, [train.total_time_s] * len(measurements)
