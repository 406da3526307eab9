"""Writing a protocol as a pulseq sequence file (.seq), through pypulseq.

For every measurement a file holds: the initial recovery (carried over: of the first), saturation (a delay where B1 is
0), post-delay, excitation, echo delay, one ADC sample as placeholder of the site's readout, a spoiler where the
protocol's readout is spoiled, and the rest of the recovery, without the initial recovery of the next measurement.
Sample and ideal excitation, which take no time in the protocol, are taken out of this rest (as far as it holds them;
the definition ``readout_overhead_s`` says how much), so that the file lasts as long as the protocol says.
The numbers of the protocol are kept in the definitions, because the format rounds amplitudes and frequencies to six
digits and durations to its rasters, a measurement without RF has no frequency, and a pulse has no name.
:func:`.read_seq` returns the same protocol.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from NeuroCESTLib.core.packages import MissingPackage
from NeuroCESTLib.core.whole_files import whole_file

from ...physics.events import EventPulse, Events, Play, Spoil, Wait
from ...physics.protocol import PER_MEASUREMENT, Protocol
from ...physics.pulse_shapes import PulseTrain
from .trains import BLOCK_RASTER_S, RF_RASTER_S, definitions_of_train, on_raster, samples_on_raster

IDEAL_PULSE_S = 5e-4
"""Duration in s of the excitation pulse that stands for an ideal one."""
SAMPLE_S = BLOCK_RASTER_S
"""Duration in s of the ADC sample that stands for the readout."""
SPOILER_S = 1e-3
"""Duration in s of the spoiler."""


def write_seq(protocol: Protocol, path: str | Path) -> None:
    """Write a protocol as a pulseq file, whole or not at all; durations are rounded to 10 us.

    Continuous-wave blocks are written as two-sample block pulses, so that the file stays small. The phases of the
    pulses advance during pulses and not during gaps, so that the file plays what the protocol means. Phases within a
    pulse are written in the sense of pulseq-cest, see :func:`.played_events`.

    Args:
        protocol: Protocol to write.
        path: File to write; its name must end in ``.seq``.

    Raises:
        ValueError: pypulseq is not installed, or the file cannot be written.
    """
    pypulseq = _pypulseq(path)
    path = Path(path)
    if path.suffix != ".seq":
        raise ValueError(f"cannot write '{path}': the name of a pulseq file must end in .seq")
    writer = _Writer(pypulseq, protocol)
    for measurement in range(protocol.measurement_count):
        writer.add(measurement)
    with whole_file(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        writer.sequence.write(str(temporary))


class _Writer:
    """A sequence that grows measurement by measurement."""

    def __init__(self, pypulseq: Any, protocol: Protocol) -> None:
        self.pypulseq, self.protocol = pypulseq, protocol
        self.system = pypulseq.Opts(
            max_grad=40,
            grad_unit="mT/m",
            max_slew=130,
            slew_unit="T/m/s",
            rf_dead_time=0.0,
            rf_ringdown_time=0.0,
            adc_dead_time=0.0,
            rf_raster_time=RF_RASTER_S,
            block_duration_raster=BLOCK_RASTER_S,
            gamma=protocol.gamma_rad_per_s_per_uT * 1e6 / (2 * math.pi),
            B0=protocol.field_strength_T,
        )
        self.sequence = pypulseq.Sequence(system=self.system)
        self.values = {
            name: getattr(protocol, name).detach().cpu().double().numpy()
            for name in PER_MEASUREMENT
            if getattr(protocol, name) is not None
        }
        self.lead_in = [*protocol.lead_in_s.tolist(), 0.0]
        self.overhead = [self._overhead(m) for m in range(protocol.measurement_count)]
        for name, value in self._definitions().items():
            self.sequence.set_definition(name, value)
        self.hz_per_ppm = protocol.rad_per_s_per_ppm / (2 * math.pi)
        self.hz_per_uT = protocol.gamma_rad_per_s_per_uT / (2 * math.pi)
        self.phase_rad = 0.0
        """Phase that the RF has gained during the pulses played so far."""

    def add(self, m: int) -> None:
        """Add the blocks of one measurement."""
        protocol = self.protocol
        if not protocol.magnetisation_carried_over:
            self.phase_rad = 0.0
        if protocol.events is not None:
            self._events(protocol.events, m)
            return
        self._wait(self.lead_in[m])
        self._saturate(m)
        self._wait(self.values["post_delay_s"][m])
        echo = 0.0
        if protocol.readout_flip_angle_deg is not None:
            echo = protocol.echo_time_s
            duration = on_raster(protocol.readout_pulse_s or IDEAL_PULSE_S)
            angle = math.radians(self.values["readout_flip_angle_deg"][m])
            self._play(self._block_pulse(angle, duration, use="excitation"), duration)
            self._wait(echo)
        self._sample()
        rest = on_raster(self._rest(m) - self.overhead[m])
        if protocol.readout_flip_angle_deg is not None and protocol.readout_pulse_s == 0 and rest >= SPOILER_S:
            self.sequence.add_block(self._spoiler(SPOILER_S))
            rest -= SPOILER_S
        self._wait(rest)

    def _rest(self, m: int) -> float:
        """Recovery in s that is left between the echo and the initial recovery of the next measurement."""
        echo = self.protocol.echo_time_s if self.protocol.readout_flip_angle_deg is not None else 0.0
        return max(0.0, float(self.values["recovery_time_s"][m]) - echo - self.lead_in[m + 1])

    def _overhead(self, m: int) -> float:
        """Time in s that sample and ideal excitation take out of the recovery, which may be shorter."""
        ideal = self.protocol.readout_flip_angle_deg is not None and self.protocol.readout_pulse_s == 0
        return on_raster(min(SAMPLE_S + ideal * IDEAL_PULSE_S, self._rest(m)))

    def _saturate(self, m: int) -> None:
        protocol, b1 = self.protocol, float(self.values["b1_uT"][m])
        frequency = _as_written(float(self.values["offsets_ppm"][m]) * self.hz_per_ppm)
        if b1 == 0:
            self._wait(self.values["saturation_time_s"][m])
        elif protocol.pulses is None:
            duration = on_raster(self.values["saturation_time_s"][m])
            if duration > 0:
                angle = 2 * math.pi * b1 * self.hz_per_uT * duration
                self._play(self._block_pulse(angle, duration, frequency), duration)
        else:
            self._train(protocol.pulses, b1, frequency)

    def _train(self, train: PulseTrain, b1: float, frequency: float) -> None:
        pulse = self._shaped_pulse(train, b1 / train.rms_of_unit_peak, frequency)
        for n in range(train.n_pulses):
            if n:
                self._wait(train.delay_s)
            self._play(pulse, on_raster(train.duration_s))

    def _play(self, pulse: SimpleNamespace, duration: float) -> None:
        """Add a pulse with the phase that continues those before it."""
        pulse.phase_offset = self.phase_rad % (2 * math.pi)
        self.sequence.add_block(pulse)
        self.phase_rad += 2 * math.pi * pulse.freq_offset * duration

    def _events(self, events: Events, m: int) -> None:
        """Add single events as they are."""
        excitation, played = events.excitation(m), events.measurements[m]
        for place, event in enumerate(played):
            if isinstance(event, Play):
                pulse = self._pulse_of_events(events.pulses[event.pulse], _as_written(event.frequency_Hz))
                pulse.phase_offset = event.phase_rad % (2 * math.pi)
                pulse.use = "excitation" if place == excitation else "preparation"
                self.sequence.add_block(pulse)
            elif isinstance(event, Wait):
                if not (place + 1 < len(played) and isinstance(played[place + 1], Spoil)):
                    self._wait(event.duration_s)
            elif isinstance(event, Spoil):  # it takes the time for which the magnetisation has waited
                before = played[place - 1] if place else None
                waited = on_raster(before.duration_s) if isinstance(before, Wait) else 0.0
                self.sequence.add_block(self._spoiler(max(waited, SPOILER_S)))
            else:
                self._sample()

    def _pulse_of_events(self, pulse: EventPulse, frequency: float) -> SimpleNamespace:
        amplitude = self.hz_per_uT * np.array(pulse.amplitude_uT)
        if pulse.is_block and pulse.phase_rad[0] == 0:
            duration = round(pulse.total_s / RF_RASTER_S) * RF_RASTER_S
            return self._block_pulse(2 * math.pi * amplitude[0] * duration, duration, frequency)
        points = max(1, round(pulse.total_s / RF_RASTER_S))
        ends = np.cumsum(pulse.duration_s)
        place = np.minimum(np.searchsorted(ends, (np.arange(points) + 0.5) * RF_RASTER_S), len(ends) - 1)
        return self._sampled_pulse(amplitude[place] * np.exp(-1j * np.array(pulse.phase_rad)[place]), frequency)

    def _sample(self) -> None:
        self.sequence.add_block(self.pypulseq.make_adc(num_samples=1, dwell=SAMPLE_S, system=self.system))

    def _spoiler(self, duration: float) -> SimpleNamespace:
        return self.pypulseq.make_trapezoid("z", area=600.0, duration=duration, system=self.system)

    def _block_pulse(
        self, angle_rad: float, duration: float, frequency: float = 0.0, use: str = "saturation"
    ) -> SimpleNamespace:
        return self.pypulseq.make_block_pulse(
            angle_rad, duration=duration, freq_offset=frequency, system=self.system, use=use
        )

    def _shaped_pulse(self, train: PulseTrain, scale: float, frequency: float) -> SimpleNamespace:
        shape, duration = train.shape, on_raster(train.duration_s)
        if len(shape.amplitude) == 1 and shape.phase_rad is None:
            angle = 2 * math.pi * scale * float(shape.amplitude[0]) * self.hz_per_uT * duration
            return self._block_pulse(angle, duration, frequency)
        return self._sampled_pulse(scale * self.hz_per_uT * np.conj(samples_on_raster(train)), frequency)

    @staticmethod
    def _sampled_pulse(signal: np.ndarray, frequency: float) -> SimpleNamespace:
        """A pulse of complex samples in Hz on the RF raster."""
        points, duration = len(signal), len(signal) * RF_RASTER_S
        return SimpleNamespace(
            type="rf",
            signal=signal,
            t=(np.arange(points) + 0.5) * RF_RASTER_S,
            shape_dur=duration,
            freq_offset=frequency,
            phase_offset=0.0,
            freq_ppm=0.0,
            phase_ppm=0.0,
            dead_time=0.0,
            ringdown_time=0.0,
            delay=0.0,
            center=duration / 2,
            use="saturation",
        )

    def _wait(self, duration_s: float) -> None:
        duration = on_raster(duration_s)
        if duration > 0:
            self.sequence.add_block(self.pypulseq.make_delay(duration))

    def _definitions(self) -> dict[str, Any]:
        protocol = self.protocol
        values: dict[str, Any] = {name: value.tolist() for name, value in self.values.items()}
        if protocol.larmor_frequency_MHz is not None:
            values["larmor_frequency_MHz"] = protocol.larmor_frequency_MHz
        if protocol.m0_measurements:
            values["m0_measurements"] = list(protocol.m0_measurements)
        if protocol.pulses is not None and protocol.events is None:
            values |= definitions_of_train(protocol.pulses)
        return values | {
            "B0": protocol.field_strength_T,
            "num_meas": protocol.measurement_count,
            "readout_overhead_s": self.overhead,
            "gamma_rad_per_s_per_uT": repr(protocol.gamma_rad_per_s_per_uT),
            "magnetisation_carried_over": int(protocol.magnetisation_carried_over),
            "signal_normalisation": protocol.signal_normalisation,
            "initial_magnetisation": protocol.initial_magnetisation,
            "readout_spoiled": int(protocol.readout_flip_angle_deg is not None and protocol.readout_pulse_s == 0),
        }


def _as_written(frequency_Hz: float) -> float:
    """The frequency with the six digits that the file keeps, so that phases can follow it."""
    return float(f"{frequency_Hz:.6g}")


def _pypulseq(path: str | Path) -> Any:
    try:
        import pypulseq
    except ImportError:
        raise MissingPackage("pypulseq", "writing .seq files needs the package") from None
    return pypulseq
