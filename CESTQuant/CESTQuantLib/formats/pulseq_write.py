"""Writing a protocol as a pulseq sequence file (.seq), through pypulseq.

For every measurement a file holds: saturation (a delay where B1 is 0), post-delay, excitation, echo delay, one ADC
sample as placeholder of the site's readout, a spoiler where the protocol's readout is spoiled, and the rest of the
recovery. Sample and ideal excitation, which take no time in the protocol, are taken out of the recovery (as far as it
holds them; the definition ``readout_overhead_s`` says how much), so that the file lasts as long as the protocol says.
The numbers of the protocol are kept in the definitions, because the format rounds amplitudes and frequencies to six
digits, and a measurement without RF has no frequency. :func:`.read_seq` returns the same protocol.
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

from ..physics.protocol import PER_MEASUREMENT, Protocol
from ..physics.pulse_shapes import PulseTrain

BLOCK_RASTER_S = 1e-5
RF_RASTER_S = 1e-6
IDEAL_PULSE_S = 5e-4
"""Duration in s of the excitation pulse that stands for an ideal one."""
SAMPLE_S = BLOCK_RASTER_S
"""Duration in s of the ADC sample that stands for the readout."""
SPOILER_S = 1e-3
"""Duration in s of the spoiler."""


def write_seq(protocol: Protocol, path: str | Path) -> None:
    """Write a protocol as a pulseq file, whole or not at all; durations are rounded to 10 us.

    Continuous-wave blocks are written as two-sample block pulses, so that the file stays small.

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
        self.overhead = [self._overhead(m) for m in range(protocol.measurement_count)]
        for name, value in self._definitions().items():
            self.sequence.set_definition(name, value)
        self.hz_per_ppm = protocol.rad_per_s_per_ppm / (2 * math.pi)
        self.hz_per_uT = protocol.gamma_rad_per_s_per_uT / (2 * math.pi)

    def add(self, m: int) -> None:
        """Add the blocks of one measurement."""
        protocol = self.protocol
        self._saturate(m)
        self._wait(self.values["post_delay_s"][m])
        echo = 0.0
        if protocol.readout_flip_angle_deg is not None:
            echo = protocol.echo_time_s
            duration = _on_raster(protocol.readout_pulse_s or IDEAL_PULSE_S)
            self.sequence.add_block(self._block_pulse(math.radians(self.values["readout_flip_angle_deg"][m]), duration))
            self._wait(echo)
        self.sequence.add_block(self.pypulseq.make_adc(num_samples=1, dwell=SAMPLE_S, system=self.system))
        rest = _on_raster(self._rest(m) - self.overhead[m])
        if protocol.readout_flip_angle_deg is not None and protocol.readout_pulse_s == 0 and rest >= SPOILER_S:
            spoiler = self.pypulseq.make_trapezoid("z", area=600.0, duration=SPOILER_S, system=self.system)
            self.sequence.add_block(spoiler)
            rest -= SPOILER_S
        self._wait(rest)

    def _rest(self, m: int) -> float:
        """Recovery in s that is left after the echo."""
        echo = self.protocol.echo_time_s if self.protocol.readout_flip_angle_deg is not None else 0.0
        return max(0.0, float(self.values["recovery_time_s"][m]) - echo)

    def _overhead(self, m: int) -> float:
        """Time in s that sample and ideal excitation take out of the recovery, which may be shorter."""
        ideal = self.protocol.readout_flip_angle_deg is not None and self.protocol.readout_pulse_s == 0
        return _on_raster(min(SAMPLE_S + ideal * IDEAL_PULSE_S, self._rest(m)))

    def _saturate(self, m: int) -> None:
        protocol, b1 = self.protocol, float(self.values["b1_uT"][m])
        frequency = float(self.values["offsets_ppm"][m]) * self.hz_per_ppm
        if b1 == 0:
            self._wait(self.values["saturation_time_s"][m])
        elif protocol.pulses is None:
            duration = _on_raster(self.values["saturation_time_s"][m])
            if duration > 0:
                angle = 2 * math.pi * b1 * self.hz_per_uT * duration
                self.sequence.add_block(self._block_pulse(angle, duration, frequency))
        else:
            self._train(protocol.pulses, b1, frequency)

    def _train(self, train: PulseTrain, b1: float, frequency: float) -> None:
        pulse = self._shaped_pulse(train, b1 / train.rms_of_unit_peak, frequency)
        pulse.id, pulse.shape_IDs = self.sequence.register_rf_event(pulse)
        for n in range(train.n_pulses):
            if n:
                self._wait(train.delay_s)
            self.sequence.add_block(pulse)

    def _block_pulse(self, angle_rad: float, duration: float, frequency: float = 0.0) -> SimpleNamespace:
        return self.pypulseq.make_block_pulse(
            angle_rad,
            duration=duration,
            freq_offset=frequency,
            system=self.system,
            use="saturation" if frequency or duration > 0.01 else "excitation",
        )

    def _shaped_pulse(self, train: PulseTrain, scale: float, frequency: float) -> SimpleNamespace:
        shape, duration = train.shape, _on_raster(train.duration_s)
        if len(shape.amplitude) == 1 and shape.phase_rad is None:
            angle = 2 * math.pi * scale * float(shape.amplitude[0]) * self.hz_per_uT * duration
            return self._block_pulse(angle, duration, frequency)
        points = round(duration / RF_RASTER_S)
        place = np.minimum((np.arange(points) + 0.5) * len(shape.amplitude) / points, len(shape.amplitude) - 1)
        place = place.astype(np.int64)
        signal = scale * self.hz_per_uT * shape.amplitude.double().numpy()[place].astype(complex)
        if shape.phase_rad is not None:
            signal = signal * np.exp(1j * shape.phase_rad.double().numpy()[place])
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
        duration = _on_raster(duration_s)
        if duration > 0:
            self.sequence.add_block(self.pypulseq.make_delay(duration))

    def _definitions(self) -> dict[str, Any]:
        protocol = self.protocol
        values: dict[str, Any] = {name: value.tolist() for name, value in self.values.items()}
        if protocol.larmor_frequency_MHz is not None:
            values["larmor_frequency_MHz"] = protocol.larmor_frequency_MHz
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


def _on_raster(duration_s: float) -> float:
    return round(float(duration_s) / BLOCK_RASTER_S) * BLOCK_RASTER_S


def _pypulseq(path: str | Path) -> Any:
    try:
        import pypulseq
    except ImportError:
        raise MissingPackage("pypulseq", "writing .seq files needs the package") from None
    return pypulseq
