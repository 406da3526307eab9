"""A whole protocol run through the Bloch-McConnell equations: saturation, delays, readout, recovery.

The rules are those of pulseq-cest: pulses are evaluated in the frame rotating at the RF offset; gaps, delays, readout
and recovery in the water frame; the magnetisation vector is handed over unchanged, without spoiling or phase jump.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor

from NeuroCESTLib.core.messages.input_errors import InputError

from ..events import Events
from ..pools import BROAD_T2_S, Scalar, Tissue
from ..protocol import Protocol
from ..pulse_shapes import PulseTrain
from . import propagators
from .damped_saturation import DampedSaturation
from .equations import WATER, Field, equilibrium, free_generator, rf_generator, spoiled, x_row, y_row, z_row
from .played_events import EventPlayer

_TINY_SIGNAL_SQUARED = 1e-30  # keeps the derivative of the magnitude finite where there is no signal


def bloch_mcconnell_signal(
    tissue: Tissue, protocol: Protocol, *, b0_shift_ppm: Scalar = 0.0, b1_relative: Scalar = 1.0, like: Tensor
) -> Tensor:
    """Compute the signal of a protocol by the Bloch-McConnell equations.

    Args:
        tissue: Pools whose values broadcast against (measurement, voxel).
        protocol: Acquisition.
        b0_shift_ppm: Local B0 shift in ppm; broadcasts like the tissue.
        b1_relative: RF amplitude relative to the nominal one; broadcasts like the tissue.
        like: Tensor that gives dtype and device of the result.

    Returns:
        Signal of shape (measurement, voxel), normalised as the protocol says: ``"m0"`` is relative to the same readout
        at equilibrium, ``"none"`` relative to the equilibrium magnetisation of water, and ``"l2"`` has norm 1 over the
        measurements. Without an excitation the signal is the longitudinal water magnetisation after the preparation.
        It is NaN in voxels of which a value is NaN or infinite (relaxation times may be infinite).
    """
    run = _Run(tissue, protocol, b0_shift_ppm, b1_relative, like)
    known = run.known
    if bool(known.all()) or not bool(known.any()):
        return run.normalized_signal()
    # The solution chooses its steps for all voxels together, so voxels without usable values must stay out of it.
    voxels = known.nonzero().squeeze(1)
    signal = run._of_voxels(voxels).normalized_signal()
    unknown = signal.new_full((len(signal), run.voxels), torch.nan)
    return unknown.index_copy(1, voxels, signal.expand(-1, len(voxels)))


class _Run:
    """One tissue under one protocol."""

    def __init__(
        self, tissue: Tissue, protocol: Protocol, b0_shift_ppm: Scalar, b1_relative: Scalar, like: Tensor
    ) -> None:
        self.tissue, self.protocol, self.like = tissue, protocol, like
        self.field = Field(protocol.rad_per_s_per_ppm, b0_shift_ppm)
        self.b1_relative = b1_relative
        scalars = [
            value if isinstance(value, Tensor) else like.new_tensor(value)
            for value in (*tissue.scalars(), b0_shift_ppm, b1_relative)
        ]
        shape = np.broadcast_shapes((1, 1), *(value.shape for value in scalars))
        self.voxels = shape[-1]
        self.per_measurement_tissue = shape[-2] != 1

    @property
    def excited(self) -> bool:
        """Whether the signal follows an excitation."""
        events = self.protocol.events
        if events is not None:
            return any(events.excitation(m) is not None for m in range(len(events.measurements)))
        return self.protocol.readout_flip_angle_deg is not None

    @property
    def excited_ideally(self) -> bool:
        """Whether the signal follows an excitation that takes no time and after which everything is spoiled."""
        return self.protocol.events is None and self.excited and self.protocol.readout_pulse_s == 0

    @property
    def known(self) -> Tensor:
        """Whether every value of a voxel and every rate that follows from them is finite, bool (voxel,)."""
        water, pools = self.tissue.water, [*self.tissue.transverse_pools, self.tissue.z_only_pool]
        values = [self.field.b0_shift_ppm, self.b1_relative, 1 / water.T1_s, 1 / water.T2_s]
        for pool in pools:
            if pool is not None:
                values += [pool.fraction, pool.k_Hz, pool.dw_ppm, 1 / pool.T1_s, 1 / pool.T2_s]
        known = torch.ones(self.voxels, dtype=torch.bool, device=self.like.device)
        for value in values:
            finite = torch.isfinite(torch.as_tensor(value, device=self.like.device))
            known = known & (finite.all(0) if finite.ndim > 1 else finite)
        return known

    def normalized_signal(self) -> Tensor:
        """Signal (measurement, voxel), normalised as the protocol says."""
        signal = self.signal()
        if self.protocol.signal_normalisation == "l2":
            return signal / torch.linalg.vector_norm(signal, dim=0)
        if self.protocol.signal_normalisation == "m0" and self.excited:
            return signal / self.equilibrium_signal()
        return signal

    def signal(self) -> Tensor:
        """Signal (measurement, voxel) relative to the equilibrium magnetisation of water.

        That of an ideal excitation is the one at its end if it is normalised, and else the one at the echo.
        """
        if self.protocol.events is not None:
            start = self._equilibrium(self.protocol.initial_magnetisation)
            return self._player(self.protocol.events).signal(
                start, carried_over=self.protocol.magnetisation_carried_over
            )
        return self._schedule() if self.protocol.magnetisation_carried_over else self._independent_measurements()

    def equilibrium_signal(self) -> Tensor:
        """Signal (measurement or 1, voxel) of the readout alone, from equilibrium."""
        if self.protocol.events is not None:
            return self._player(self.protocol.events).excited(self._equilibrium())
        return self._read(self._equilibrium())[0]

    def _equilibrium(self, scale: float = 1.0) -> Tensor:
        return equilibrium(self.tissue, self.like, torch.Size((1, self.voxels)), scale)

    def _player(self, events: Events) -> EventPlayer:
        """What plays events to this tissue."""
        if self.per_measurement_tissue:
            raise InputError(
                "protocol", "a sequence of single events cannot be played to a tissue that changes between measurements"
            )
        if any(quantity.requires_grad for quantity in self.protocol.tensors()):
            raise ValueError("a sequence of single events has no derivatives with respect to its offsets, B1 and times")
        hz_per_ppm = self.protocol.rad_per_s_per_ppm / (2 * math.pi)

        def generator(frequency_Hz: Tensor, amplitude_uT: Tensor, phase_rad: Tensor) -> Tensor:
            return self._rf(frequency_Hz / hz_per_ppm, amplitude_uT, phase_rad)

        def free(duration_s: Tensor) -> Tensor:
            batch = torch.Size((1, self.voxels))
            still = free_generator(self.tissue, self.field, like=self.like, batch=batch)
            return propagators.propagator(still, duration_s[:, None])

        return EventPlayer(events, generator, free, 1 + len(self.tissue.transverse_pools))

    def _independent_measurements(self) -> Tensor:
        """Signal (measurement, voxel) where every measurement starts afresh."""
        protocol = self.protocol
        wait = self._free(protocol.post_delay_s)
        start = self._start()
        if wait is None and protocol.readout_pulse_s == 0 and self._shares_at_echo is None:
            z = self._saturated(start, water_z_only=True)[0]
            if protocol.readout_flip_angle_deg is None:
                return z
            return z * torch.sin(self._flip_angle(protocol.readout_flip_angle_deg) * self.b1_relative)
        magnetization = self._saturated(start)
        if wait is not None:
            magnetization = propagators.apply(wait, magnetization)
        return self._read(magnetization)[0]

    def _schedule(self) -> Tensor:
        """Signal (measurement, voxel) where every measurement starts from what the last one left."""
        protocol = self.protocol
        wait = self._free(protocol.post_delay_s)
        magnetization = self._start()
        saturate = self._saturation(self._blocks())
        recover = self._free(self._recovery_after_readout())
        signals = []
        for m in range(protocol.measurement_count):
            one = slice(m, m + 1)
            magnetization = propagators.apply(saturate[:, :, one], magnetization)
            if wait is not None:
                magnetization = propagators.apply(_of_measurement(wait, m), magnetization)
            sample, magnetization = self._read(magnetization, one)
            if recover is not None:
                magnetization = propagators.apply(_of_measurement(recover, m), magnetization)
            signals.append(sample)
        return torch.cat(signals)

    def _start(self) -> Tensor:
        """Magnetisation (n, measurement or 1, voxel) before the first saturation."""
        protocol = self.protocol
        start = self._equilibrium(protocol.initial_magnetisation)
        if protocol.initial_magnetisation == 1:
            return start
        first = protocol.initial_recovery_s[:1] if protocol.magnetisation_carried_over else protocol.initial_recovery_s
        recover = self._free(first)
        return start if recover is None else propagators.apply(recover, start)

    def _blocks(self) -> Tensor:
        """Saturation of every measurement as (measurement, 3): offset (ppm), B1 (uT), duration (s)."""
        protocol = self.protocol
        return torch.stack([protocol.offsets_ppm, protocol.b1_uT, protocol.saturation_time_s], 1).to(self.like)

    def _saturated(self, start: Tensor, *, water_z_only: bool = False) -> Tensor:
        """Magnetisation (n, measurement, voxel), or only its water z (1, measurement, voxel), after the saturations.

        Where all precession dies out within a CW block, closed forms replace the matrix exponential.
        """
        blocks = self._blocks()
        wanted = slice(z_row(WATER), z_row(WATER) + 1) if water_z_only else slice(None)
        if self.protocol.pulses is not None or self.per_measurement_tissue:
            return propagators.apply(self._saturation(blocks), start)[wanted]
        result, exact = self._damped(blocks).after(start, wanted)
        result = result.to(self.like.dtype)
        if bool(exact.all()):
            return result
        rows, voxels = (~exact).any(1).nonzero().squeeze(1), (~exact).any(0).nonzero().squeeze(1)
        if len(rows) * self.voxels <= len(blocks) * len(voxels):
            some = start if start.shape[1] == 1 else start[:, rows]
            return result.index_copy(1, rows, propagators.apply(self._saturation(blocks[rows]), some)[wanted])
        part = self._of_voxels(voxels)
        return result.index_copy(2, voxels, propagators.apply(part._saturation(blocks), start[..., voxels])[wanted])

    def _of_voxels(self, voxels: Tensor) -> _Run:
        """Return the run of some voxels (n,)."""

        def of(value: Scalar) -> Scalar:
            return value[..., voxels] if isinstance(value, Tensor) and value.ndim and value.shape[-1] > 1 else value

        shift = of(self.field.b0_shift_ppm)
        return _Run(self.tissue.voxels(voxels), self.protocol, shift, of(self.b1_relative), self.like)

    def _damped(self, blocks: Tensor) -> DampedSaturation:
        offset_ppm, b1_uT, duration_s = _columns(blocks)
        return DampedSaturation.of(self.tissue, self.field, offset_ppm, self._w1(b1_uT), duration_s)

    def _saturation(self, blocks: Tensor) -> Tensor:
        """Propagators (n, n + 1, measurement, voxel); equal measurements are computed once."""
        index = None
        if not (blocks.requires_grad or self.per_measurement_tissue):
            blocks, index = torch.unique(blocks, dim=0, return_inverse=True)
        offset_ppm, b1_uT, duration_s = _columns(blocks)
        if self.protocol.pulses is None:
            result = propagators.propagator(self._rf(offset_ppm, b1_uT), duration_s)
        else:
            result = self._train(self.protocol.pulses, offset_ppm, b1_uT)
        return result if index is None or len(index) == len(blocks) == 1 else result[:, :, index]

    def _w1(self, b1_uT: Tensor) -> Tensor:
        return self.protocol.gamma_rad_per_s_per_uT * b1_uT * self.b1_relative

    def _rf(self, offset_ppm: Scalar, b1_uT: Tensor, phase_rad: Tensor | None = None) -> Tensor:
        """Generator (n, n + 1, measurement, voxel) during RF."""
        w1 = self._w1(b1_uT)
        batch = torch.Size(np.broadcast_shapes(w1.shape, torch.as_tensor(offset_ppm).shape, (1, self.voxels)))
        return rf_generator(self.tissue, self.field, offset_ppm, w1, phase_rad, like=self.like, batch=batch)

    def _train(self, train: PulseTrain, offset_ppm: Tensor, b1_uT: Tensor) -> Tensor:
        """Propagators of a pulse train; one pulse is propagated once per offset and reused over the whole train."""
        pulse = self._pulse(train, offset_ppm, b1_uT)
        gap = self._free(torch.tensor([train.delay_s], dtype=torch.float64))
        pulse_and_gap = pulse if gap is None else propagators.compose(gap, pulse)
        if train.n_pulses == 1:
            return pulse
        return propagators.compose(pulse, propagators.power(pulse_and_gap, train.n_pulses - 1))

    def _pulse(self, train: PulseTrain, offset_ppm: Tensor, b1_uT: Tensor) -> Tensor:
        """Propagators of one pulse; samples of equal amplitude and phase are computed once."""
        shape = train.shape
        scale = b1_uT / train.rms_of_unit_peak
        phases = shape.phase_rad if shape.phase_rad is not None else torch.zeros_like(shape.amplitude)
        samples = torch.stack([shape.amplitude, phases], 1)
        distinct, index = torch.unique(torch.round(samples, decimals=12), dim=0, return_inverse=True)
        distinct = distinct.to(self.like.dtype).to(self.like.device)
        dwell = self.like.new_tensor(train.duration_s / len(shape.amplitude))
        steps = []
        for amplitude, phase in distinct:
            generator = self._rf(offset_ppm, amplitude * scale, None if shape.phase_rad is None else phase)
            steps.append(propagators.propagator(generator, dwell))
        result = steps[index[0]]
        for i in index[1:].tolist():
            result = propagators.compose(steps[i], result)
        return result

    def _free(self, duration_s: Tensor) -> Tensor | None:
        """Propagators (n, n + 1, measurement or 1, voxel) of free evolution; None where it takes no time."""
        if not duration_s.requires_grad:
            duration_s = duration_s[:1] if bool((duration_s == duration_s[0]).all()) else duration_s
            if not bool(duration_s.any()):
                return None
        duration = duration_s.to(self.like.dtype).to(self.like.device)[:, None]
        measurements = self.protocol.measurement_count if self.per_measurement_tissue else 1
        batch = torch.Size((measurements, self.voxels))
        generator = free_generator(self.tissue, self.field, like=self.like, batch=batch)
        return propagators.propagator(generator, duration)

    def _recovery_after_readout(self) -> Tensor:
        """Time from the state that ``_read`` leaves to the next saturation, (measurement,)."""
        at_echo = self.excited and not self.excited_ideally
        return self.protocol.recovery_time_s - (self.protocol.echo_time_s if at_echo else 0.0)

    def _read(self, magnetization: Tensor, measurements: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Signal (measurement, voxel) and magnetisation after the readout (after a real pulse, at the echo)."""
        protocol = self.protocol
        if protocol.readout_flip_angle_deg is None:
            return magnetization[z_row(WATER)], magnetization
        if protocol.readout_pulse_s == 0:
            angle = self._flip_angle(protocol.readout_flip_angle_deg)[measurements] * self.b1_relative
            turned = _of_measurements(self._turned, measurements, 1)
            signal, shares = magnetization[z_row(WATER)], self._shares_at_echo
            if shares is not None:
                shares = _of_measurements(shares, measurements, 1)
                signal = (shares * magnetization[z_row(WATER) : 3 * len(shares) : 3]).sum(0)
            return signal * torch.sin(angle), spoiled(magnetization, torch.cos(angle), turned)
        magnetization = propagators.apply(_of_measurements(self._excitation, measurements, 2), magnetization)
        x, y = magnetization[x_row(WATER)], magnetization[y_row(WATER)]
        return torch.sqrt(x**2 + y**2 + _TINY_SIGNAL_SQUARED), magnetization

    def _flip_angle(self, flip_angle_deg: Tensor) -> Tensor:
        """Nominal flip angles in rad, (measurement, 1)."""
        return torch.deg2rad(flip_angle_deg).to(self.like.dtype).to(self.like.device)[:, None]

    @functools.cached_property
    def _turned(self) -> Tensor:
        """Whether an ideal excitation turns water and every pool with transverse magnetisation.

        Boolean (pool, measurement or 1, voxel or 1). Pools whose T2 is shorter than any excitation are left alone.
        """
        turned = [torch.ones(1, 1, dtype=torch.bool, device=self.like.device)]
        for pool in self.tissue.transverse_pools:
            turned.append(torch.as_tensor(pool.T2_s, device=self.like.device) >= BROAD_T2_S)
        return torch.stack(torch.broadcast_tensors(*turned))

    @functools.cached_property
    def _shares_at_echo(self) -> Tensor | None:
        """Share of the magnetisation that an ideal excitation turns, of every pool, in the signal at the echo.

        (pool, measurement or 1, voxel), in phase with the signal of equilibrium, so that a signal keeps its sign. None
        where the signal does not depend on the echo, because it is normalised or not excited ideally.
        """
        protocol = self.protocol
        if not self.excited_ideally or protocol.signal_normalisation != "none":
            return None
        echo = self._free(torch.tensor([protocol.echo_time_s], dtype=torch.float64))
        if echo is None:
            return None
        turned = self._turned
        of_y, of_z = slice(y_row(WATER), 3 * len(turned), 3), slice(z_row(WATER), 3 * len(turned), 3)
        unmoved = torch.zeros_like(echo[y_row(WATER), of_y])
        unmoved[WATER] = 1.0
        x = torch.where(turned, echo[x_row(WATER), of_y], 0.0)
        y = torch.where(turned, echo[y_row(WATER), of_y] + unmoved, 0.0)
        fractions = self._equilibrium()[of_z]
        x_in_phase, y_in_phase = (x * fractions).sum(0), (y * fractions).sum(0)
        return (x * x_in_phase + y * y_in_phase) / torch.hypot(x_in_phase, y_in_phase)

    @functools.cached_property
    def _excitation(self) -> Tensor:
        """Propagators (n, n + 1, measurement or 1, voxel) of the readout pulse and the time to its echo."""
        protocol = self.protocol
        if protocol.readout_flip_angle_deg is None:
            raise InputError("protocol", "the protocol has no excitation")
        flip_angle = self._flip_angle(protocol.readout_flip_angle_deg)
        b1 = flip_angle / (protocol.readout_pulse_s * protocol.gamma_rad_per_s_per_uT)
        if not b1.requires_grad and bool((b1 == b1[0]).all()) and not self.per_measurement_tissue:
            b1 = b1[:1]
        pulse = propagators.propagator(self._rf(0.0, b1), self.like.new_tensor(protocol.readout_pulse_s))
        echo = self._free(torch.tensor([protocol.echo_time_s], dtype=torch.float64))
        return pulse if echo is None else propagators.compose(echo, pulse)


def _columns(blocks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Offset (ppm), B1 (uT) and duration (s) of saturation blocks (measurement, 3), each (measurement, 1)."""
    offset_ppm, b1_uT, duration_s = (column[:, None] for column in blocks.unbind(1))
    return offset_ppm, b1_uT, duration_s


def _of_measurement(propagator: Tensor, measurement: int) -> Tensor:
    """Propagator of one measurement, with its axis kept; a propagator that all share is returned as it is."""
    return propagator if propagator.shape[2] == 1 else propagator[:, :, measurement : measurement + 1]


def _of_measurements(values: Tensor, measurements: slice, axis: int) -> Tensor:
    """Values of some measurements, whose axis is given; values that all measurements share are returned as they are."""
    return values if values.shape[axis] == 1 else values.movedim(axis, 0)[measurements].movedim(0, axis)
