"""A whole protocol run through the Bloch-McConnell equations: saturation, delays, readout, recovery.

Rules (those of pulseq-cest): pulses are evaluated in the frame rotating at the RF offset; gaps, delays, readout and
recovery in the water frame; the magnetisation vector is handed over unchanged, without spoiling or phase jump.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from ..pools import Scalar, Tissue
from ..protocol import Protocol, PulseTrain
from . import propagators
from .damped_saturation import DampedSaturation
from .equations import Field, equilibrium, free_generator, rf_generator


def bloch_mcconnell_signal(
    tissue: Tissue, protocol: Protocol, *, b0_shift_ppm: Scalar = 0.0, b1_relative: Scalar = 1.0, like: Tensor
) -> Tensor:
    """Signal (measurement, voxel) of a protocol, normalised as the protocol says.

    'm0' is relative to the same readout at equilibrium, 'none' to the equilibrium water magnetisation. Tissue
    values and fields broadcast against (measurement, voxel); ``like`` gives dtype and device. Without an
    excitation the signal is the longitudinal water magnetisation after the preparation.
    """
    run = _Run(tissue, protocol, b0_shift_ppm, b1_relative, like)
    signal = run.signal()
    if protocol.signal_normalisation == "l2":
        return signal / torch.linalg.vector_norm(signal, dim=0)
    if protocol.signal_normalisation == "m0" and protocol.readout_flip_angle_deg is not None:
        return signal / run.equilibrium_signal()
    return signal


class _Run:
    def __init__(
        self, tissue: Tissue, protocol: Protocol, b0_shift_ppm: Scalar, b1_relative: Scalar, like: Tensor
    ) -> None:
        self.tissue, self.protocol, self.like = tissue, protocol, like
        self.field = Field(protocol.rad_per_s_per_ppm, b0_shift_ppm)
        self.b1_relative = b1_relative
        scalars = [
            like.new_tensor(v) if not isinstance(v, Tensor) else v
            for v in (*tissue.scalars(), b0_shift_ppm, b1_relative)
        ]
        shape = torch.broadcast_shapes((1, 1), *(s.shape for s in scalars))
        self.voxels = shape[-1]
        self.per_measurement_tissue = shape[-2] != 1

    def signal(self) -> Tensor:
        protocol = self.protocol
        wait = self._free(protocol.post_delay_s)
        start = self._start()
        if not protocol.magnetisation_carried_over:
            if wait is None and protocol.readout_pulse_s == 0:
                z = self._saturated(start, water_z_only=True)[0]
                return (
                    z
                    if protocol.readout_flip_angle_deg is None
                    else z * torch.sin(self._flip_angle() * self.b1_relative)
                )
            magnetisation = self._saturated(start)
            if wait is not None:
                magnetisation = propagators.apply(wait, magnetisation)
            return self._read(magnetisation)[0]
        saturate = self._saturation(self._rows())
        recover = self._free(self._recovery_after_readout())
        magnetisation, signals = start, []
        for m in range(protocol.measurement_count):
            one = slice(m, m + 1)
            magnetisation = propagators.apply(saturate[:, :, one], magnetisation)
            if wait is not None:
                magnetisation = propagators.apply(_row(wait, m), magnetisation)
            sample, magnetisation = self._read(magnetisation, one)
            if recover is not None:
                magnetisation = propagators.apply(_row(recover, m), magnetisation)
            signals.append(sample)
        return torch.cat(signals)

    def _start(self) -> Tensor:
        """Magnetisation (n, measurement or 1, voxel) before the first saturation."""
        protocol = self.protocol
        start = equilibrium(self.tissue, self.like, torch.Size((1, self.voxels)), protocol.initial_magnetisation)
        if protocol.initial_magnetisation == 1:
            return start
        first = protocol.initial_recovery_s[:1] if protocol.magnetisation_carried_over else protocol.initial_recovery_s
        recover = self._free(first)
        return start if recover is None else propagators.apply(recover, start)

    def equilibrium_signal(self) -> Tensor:
        """Signal (measurement or 1, voxel) of the readout alone, from equilibrium."""
        start = equilibrium(self.tissue, self.like, torch.Size((1, self.voxels)))
        return self._read(start)[0]

    def _rows(self) -> Tensor:
        """Offset (ppm), B1 (uT) and duration (s) of every measurement, (measurement, 3)."""
        protocol = self.protocol
        rows = torch.stack([protocol.offsets_ppm, protocol.b1_uT, protocol.saturation_time_s], 1)
        return rows.to(self.like)

    def _saturated(self, start: Tensor, *, water_z_only: bool = False) -> Tensor:
        """Magnetisation (n, measurement, voxel), or its water z alone (1, …), after saturations from ``start``.

        Where all precession dies out within a CW block, contour integration replaces the matrix exponential.
        """
        rows = self._rows()
        exact = slice(2, 3) if water_z_only else slice(None)
        if self.protocol.pulses is not None or self.per_measurement_tissue:
            return propagators.apply(self._saturation(rows), start)[exact]
        holds = self._damped(rows).holds()

        def start_of(chosen: Tensor) -> Tensor:
            return start if start.shape[1] == 1 else start[:, chosen]

        parts = []
        if bool(holds.any()):
            damped = self._damped(rows[holds]).magnetisation(start_of(holds), water_z_only=water_z_only)
            parts.append(damped.to(self.like.dtype))
        if not bool(holds.all()):
            parts.append(propagators.apply(self._saturation(rows[~holds]), start_of(~holds))[exact])
        if len(parts) == 1:
            return parts[0]
        order = torch.argsort(torch.cat([torch.nonzero(holds), torch.nonzero(~holds)]).flatten())
        return torch.cat(parts, 1)[:, order]

    def _damped(self, rows: Tensor) -> DampedSaturation:
        offset, b1, duration = (column[:, None] for column in rows.unbind(1))
        return DampedSaturation(self.tissue, self.field, offset, self._w1(b1), duration)

    def _saturation(self, rows: Tensor) -> Tensor:
        """Propagators (n, n + 1, measurement, voxel); equal measurements are computed once."""
        index = None
        if not (rows.requires_grad or self.per_measurement_tissue):
            rows, index = torch.unique(rows, dim=0, return_inverse=True)
        offset, b1, duration = (column[:, None] for column in rows.unbind(1))
        if self.protocol.pulses is None:
            result = propagators.propagator(self._rf(offset, b1), duration)
        else:
            result = self._train(self.protocol.pulses, offset, b1)
        return result if index is None or len(index) == len(rows) == 1 else result[:, :, index]

    def _w1(self, b1_uT: Tensor) -> Tensor:
        return self.protocol.gamma_rad_per_s_per_uT * b1_uT * self.b1_relative

    def _rf(self, offset_ppm: Scalar, b1_uT: Tensor, phase_rad: Scalar = 0.0) -> Tensor:
        w1 = self._w1(b1_uT)
        batch = torch.broadcast_shapes(w1.shape, torch.as_tensor(offset_ppm).shape, (1, self.voxels))
        return rf_generator(self.tissue, self.field, offset_ppm, w1, phase_rad, like=self.like, batch=batch)

    def _train(self, train: PulseTrain, offset_ppm: Tensor, b1_uT: Tensor) -> Tensor:
        """One pulse is propagated once per offset and reused over the whole train."""
        pulse = self._pulse(train, offset_ppm, b1_uT)
        gap = self._free(torch.tensor([train.delay_s], dtype=torch.float64))
        pulse_and_gap = pulse if gap is None else propagators.compose(gap, pulse)
        return propagators.compose(pulse, _power(pulse_and_gap, train.n_pulses - 1)) if train.n_pulses > 1 else pulse

    def _pulse(self, train: PulseTrain, offset_ppm: Tensor, b1_uT: Tensor) -> Tensor:
        shape = train.shape
        scale = b1_uT / train.rms_of_unit_peak
        phases = shape.phase_rad if shape.phase_rad is not None else torch.zeros_like(shape.amplitude)
        rounded = torch.stack([shape.amplitude, phases], 1)
        distinct, index = torch.unique(torch.round(rounded, decimals=12), dim=0, return_inverse=True)
        distinct = distinct.to(self.like.dtype).to(self.like.device)
        dwell = self.like.new_tensor(train.duration_s / len(shape.amplitude))
        steps = []
        for amplitude, phase in distinct:
            phase_argument = phase if shape.phase_rad is not None else 0.0
            steps.append(propagators.propagator(self._rf(offset_ppm, amplitude * scale, phase_argument), dwell))
        result = steps[index[0]]
        for i in index[1:].tolist():
            result = propagators.compose(steps[i], result)
        return result

    def _free(self, duration_s: Tensor) -> Tensor | None:
        """Propagators (n, n + 1, measurement or 1, voxel) of free evolution; None where there is none."""
        if not duration_s.requires_grad:
            duration_s = duration_s[:1] if bool((duration_s == duration_s[0]).all()) else duration_s
            if not bool(duration_s.any()):
                return None
        duration = duration_s.to(self.like.dtype).to(self.like.device)[:, None]
        generator = free_generator(
            self.tissue, self.field, like=self.like, batch=torch.Size((self._tissue_rows(), self.voxels))
        )
        return propagators.propagator(generator, duration)

    def _tissue_rows(self) -> int:
        return self.protocol.measurement_count if self.per_measurement_tissue else 1

    def _recovery_after_readout(self) -> Tensor:
        used = self.protocol.echo_time_s if self.protocol.readout_flip_angle_deg is not None else 0.0
        return self.protocol.recovery_time_s - used

    def _read(self, magnetisation: Tensor, rows: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Signal (measurement, voxel) and magnetisation after the readout (at the echo)."""
        protocol = self.protocol
        if protocol.readout_flip_angle_deg is None:
            return magnetisation[2], magnetisation
        if protocol.readout_pulse_s == 0:
            angle = self._flip_angle()[rows] * self.b1_relative
            return magnetisation[2] * torch.sin(angle), _spoil(magnetisation, torch.cos(angle))
        excite = self._excitation
        if excite.shape[2] != 1:
            excite = excite[:, :, rows]
        magnetisation = propagators.apply(excite, magnetisation)
        tiny = 1e-30
        return torch.sqrt(magnetisation[0] ** 2 + magnetisation[1] ** 2 + tiny), magnetisation

    def _flip_angle(self) -> Tensor:
        """Flip angles in rad, (measurement, 1)."""
        return torch.deg2rad(self.protocol.readout_flip_angle_deg).to(self.like.dtype).to(self.like.device)[:, None]

    @functools.cached_property
    def _excitation(self) -> Tensor:
        """Propagators (n, n + 1, measurement or 1, voxel) of the readout pulse and the time to its echo."""
        protocol = self.protocol
        b1 = self._flip_angle() / (protocol.readout_pulse_s * protocol.gamma_rad_per_s_per_uT)
        if not b1.requires_grad and bool((b1 == b1[0]).all()) and not self.per_measurement_tissue:
            b1 = b1[:1]
        pulse = propagators.propagator(self._rf(0.0, b1), self.like.new_tensor(protocol.readout_pulse_s))
        echo = self._free(torch.tensor([protocol.echo_time_s], dtype=torch.float64))
        return pulse if echo is None else propagators.compose(echo, pulse)


def _row(propagator: Tensor, measurement: int) -> Tensor:
    return propagator if propagator.shape[2] == 1 else propagator[:, :, measurement : measurement + 1]


def _power(propagator: Tensor, exponent: int) -> Tensor:
    """Propagator applied ``exponent`` (at least 1) times, by repeated squaring."""
    result, base = None, propagator
    for bit in range(math.floor(math.log2(exponent)) + 1):
        if exponent >> bit & 1:
            result = base if result is None else propagators.compose(base, result)
        if exponent >> (bit + 1):
            base = propagators.compose(base, base)
    return result


def _spoil(magnetisation: Tensor, cosine: Tensor) -> Tensor:
    """Ideal spoiled excitation: transverse components vanish, longitudinal ones keep cos(flip angle)."""
    n = magnetisation.shape[0]
    transverse = 3 * (n // 3)
    zero = torch.zeros_like(magnetisation[0] * cosine)
    return torch.stack([zero if i < transverse and i % 3 != 2 else magnetisation[i] * cosine + zero for i in range(n)])
