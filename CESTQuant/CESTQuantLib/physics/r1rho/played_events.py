"""A preparation of which every event is given, through rotating-frame relaxation: spin locks with their tip pulses.

Short pulses turn the magnetisation, which relaxes freely in the halves of their time before and after. During a longer
block the part of the magnetisation along the effective field relaxes with R1rho towards its steady state (Trott and
Palmer, J Magn Reson 2002;154:157; Zaiss and Bachert, NMR Biomed 2013;26:507), and the part across it turns about the
field and decays with R2rho. Without tip pulses this is the saturation block of :mod:`.block` with the transverse term
that is left out there; with perfect ones it is a spin lock, whose magnetisation lies along the field from the start.

Against the Bloch-McConnell equations Z is within 6e-3 for spin locks, T2 preparations and fat saturation. What is left
out is the magnetisation of the pools themselves: they follow the water from the first moment and are not turned by tip
pulses. After a spin lock, the error is that of water alone and, added up over the pools, less than their fractions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from NeuroCESTLib.core.messages.input_errors import InputError

from ..events import Event, EventPulse, Events, Play, Sample, Spoil, Wait
from ..lineshapes import saturation_rate
from ..pools import Scalar, Semisolid, Tissue
from ..protocol import Protocol
from .exchange import EffectiveField, Exchange, free_relaxation_rate
from .inputs import SoluteInputs

LONGEST_TIP_S = 0.005
"""Longest pulse in s that only turns the magnetisation."""
_TINY = 1e-12
_Vector: TypeAlias = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class _State:
    """Water and semisolid magnetisation (voxel,) in the frame of water."""

    x: Tensor
    y: Tensor
    z: Tensor
    c: Tensor

    def turned(self, angle_rad: Tensor | float) -> _State:
        """The state turned about z."""
        angle = torch.as_tensor(angle_rad, dtype=self.x.dtype, device=self.x.device)
        cosine, sine = torch.cos(angle), torch.sin(angle)
        return replace(self, x=self.x * cosine - self.y * sine, y=self.x * sine + self.y * cosine)


class EventSignal:
    """The signal of events by the R1rho solution.

    Args:
        tissue: Pools whose values are numbers or tensors (voxel,); a semisolid pool has z-only coupling.
        protocol: Acquisition with events.
        b0_shift_ppm: Local B0 shift in ppm.
        b1_relative: RF amplitude relative to the nominal one.
        like: Tensor that gives dtype and device.

    Raises:
        ValueError: A long pulse is not a block.
    """

    def __init__(
        self, tissue: Tissue, protocol: Protocol, *, b0_shift_ppm: Scalar, b1_relative: Scalar, like: Tensor
    ) -> None:
        def tensor(value: Scalar) -> Tensor:
            return value.to(like) if isinstance(value, Tensor) else like.new_tensor(value)

        assert protocol.events is not None
        require_playable(protocol.events)
        self.protocol, self.events = protocol, protocol.events
        ppm = protocol.rad_per_s_per_ppm
        self.shift = tensor(b0_shift_ppm) * ppm
        self.b1_relative = tensor(b1_relative)
        self.R1, self.R2 = 1 / tensor(tissue.water.T1_s), 1 / tensor(tissue.water.T2_s)
        self.solutes = [
            SoluteInputs(tensor(pool.fraction), tensor(pool.k_Hz), 1 / tensor(pool.T2_s), tensor(pool.dw_ppm) * ppm)
            for pool in tissue.solutes
        ]
        self.R2_free = free_relaxation_rate(self.R2, self.solutes)
        self.semisolid = tissue.semisolid
        self.fc = self.kc = self.R1c = like.new_zeros(())
        if (pool := tissue.semisolid) is not None:
            self.fc, self.kc, self.R1c = tensor(pool.fraction), tensor(pool.k_Hz), 1 / tensor(pool.T1_s)
        shapes = [tensor(value).shape for value in (*tissue.scalars(), b0_shift_ppm, b1_relative)]
        self.nothing = like.new_zeros(np.broadcast_shapes((1,), *shapes))

    def signal(self) -> Tensor:
        """Signal (measurement, voxel) relative to the equilibrium magnetisation of water."""
        state = start = self._equilibrium(self.protocol.initial_magnetisation)
        signals = []
        for events in self.events.measurements:
            if not self.protocol.magnetisation_carried_over:
                state = start
            for event in events:
                if isinstance(event, Sample):
                    signals.append(_sampled(state, event))
                else:
                    state = self._after(state, event)
        return torch.stack(signals)

    def equilibrium_signal(self) -> Tensor:
        """Signal (measurement, voxel) of the excitations and what follows them alone."""
        signals = []
        for m, events in enumerate(self.events.measurements):
            place = self.events.excitation(m)
            state = self._equilibrium()
            for event in events[0 if place is None else place :]:
                if isinstance(event, Sample):
                    signals.append(_sampled(state, event))
                    break
                if place is not None:
                    state = self._after(state, event)
        return torch.stack(signals)

    def _equilibrium(self, scale: float = 1.0) -> _State:
        return _State(self.nothing, self.nothing, self.nothing + scale, self.nothing + scale * self.fc)

    def _after(self, state: _State, event: Event) -> _State:
        """The state after an event."""
        if isinstance(event, Wait):
            return self._waited(state, event.duration_s)
        if isinstance(event, Spoil):
            return replace(state, x=self.nothing, y=self.nothing)
        assert isinstance(event, Play)
        pulse = self.events.pulses[event.pulse]
        offset = self.shift - 2 * math.pi * event.frequency_Hz
        play = self._tipped if pulse.total_s <= LONGEST_TIP_S else self._locked
        after = play(state.turned(-event.phase_rad), pulse, offset, event.frequency_Hz)
        return after.turned(event.phase_rad + 2 * math.pi * event.frequency_Hz * pulse.total_s)

    def _w1(self, amplitude_uT: float) -> Tensor:
        return self.protocol.gamma_rad_per_s_per_uT * amplitude_uT * self.b1_relative

    def _tipped(self, state: _State, pulse: EventPulse, offset: Tensor, frequency_Hz: float) -> _State:
        """The state, in the frame of the RF, after a pulse that is too short for exchange along its field."""
        state = self._relaxed_freely(state, pulse.total_s / 2)
        x, y, z, c = state.x, state.y, state.z, state.c
        for amplitude, phase, duration in zip(pulse.amplitude_uT, pulse.phase_rad, pulse.duration_s, strict=True):
            w1 = self._w1(amplitude)
            c = c * torch.exp(-self._saturation_rate(w1, offset) * duration)
            wx, wy, wz = -w1 * math.cos(phase), -w1 * math.sin(phase), offset
            x, y, z = _rotated((x, y, z), (wx, wy, wz), duration)
        return self._relaxed_freely(_State(x, y, z, c), pulse.total_s / 2)

    def _locked(self, state: _State, pulse: EventPulse, offset: Tensor, frequency_Hz: float) -> _State:
        """The state, in the frame of the RF, after a block: relaxed along the effective field and across it."""
        w1, phase = self._w1(pulse.amplitude_uT[0]), pulse.phase_rad[0]
        field = EffectiveField.of(w1, offset)
        exchange = sum((Exchange.of(field, offset, solute).rate for solute in self.solutes), self.nothing)
        rate = field.cos2 * self.R1 + field.sin2 * self.R2 + exchange
        rate_across = (field.sin2 * self.R1 + (1 + field.cos2) * self.R2_free + exchange) / 2
        sense = torch.where(offset < 0, -1.0, 1.0).to(offset)  # the axis points to positive z
        cosine = torch.sqrt(field.cos2)
        sine = -sense * torch.sqrt(field.sin2)
        nx, ny = sine * math.cos(phase), sine * math.sin(phase)
        before = nx * state.x + ny * state.y + cosine * state.z
        along, c = self._relaxed(before, state.c, rate, cosine, self._saturation_rate(w1, offset), pulse.total_s)
        across = state.x - nx * before, state.y - ny * before, state.z - cosine * before
        turning = -w1 * math.cos(phase), -w1 * math.sin(phase), offset
        x, y, z = _rotated(across, turning, pulse.total_s)
        decay = torch.exp(-rate_across * pulse.total_s)
        return _State(nx * along + x * decay, ny * along + y * decay, cosine * along + z * decay, c)

    def _saturation_rate(self, w1: Tensor, offset: Tensor) -> Tensor:
        pool: Semisolid | None = self.semisolid
        if pool is None:
            return self.nothing
        ppm = self.protocol.rad_per_s_per_ppm
        T2 = torch.as_tensor(pool.T2_s).to(self.nothing)
        detuning = offset + torch.as_tensor(pool.dw_ppm).to(self.nothing) * ppm
        return saturation_rate(pool.lineshape, w1, detuning, T2, pool.bridge_ppm * ppm)

    def _relaxed(
        self, m: Tensor, c: Tensor, rate: Tensor, cosine: Tensor, saturation: Tensor, duration_s: float
    ) -> tuple[Tensor, Tensor]:
        """Magnetisation along the field, and that of the semisolid pool, after some time.

        m' = -(rate + f k cos^2) m + k cos c + R1 cos and c' = f k cos m - (k + R1c + saturation) c + R1c f.
        """
        if self.semisolid is None:
            steady = cosine * self.R1 / rate
            return steady + (m - steady) * torch.exp(-rate * duration_s), c
        B, C = self.kc * cosine, self.fc * self.kc * cosine
        A, D = rate + C * cosine, self.kc + self.R1c + saturation
        b1, b2 = self.R1 * cosine, self.R1c * self.fc
        determinant = rate * D + C * cosine * (self.R1c + saturation)
        m_steady, c_steady = (D * b1 + B * b2) / determinant, (A * b2 + C * b1) / determinant
        dm, dc = m - m_steady, c - c_steady
        mean, half = -(A + D) / 2, (D - A) / 2
        s = torch.sqrt(half * half + B * C + _TINY)
        fast, slow = torch.exp((mean - s) * duration_s), torch.exp(-determinant / (s - mean) * duration_s)
        P, S = (slow + fast) / 2, (slow - fast) / (2 * s)
        return m_steady + P * dm + S * (half * dm + B * dc), c_steady + P * dc + S * (C * dm - half * dc)

    def _waited(self, state: _State, duration_s: float) -> _State:
        """The state after free evolution in the frame of water."""
        return self._relaxed_freely(state, duration_s).turned(self.shift * duration_s)

    def _relaxed_freely(self, state: _State, duration_s: float) -> _State:
        decay = torch.exp(-self.R2_free * duration_s)
        z, c = self._relaxed(state.z, state.c, self.R1, torch.ones_like(state.z), self.nothing, duration_s)
        return _State(state.x * decay, state.y * decay, z, c)


def _rotated(vector: _Vector, turning: _Vector, duration_s: float) -> _Vector:
    """A vector that has turned about an axis, whose length is the angular frequency in rad/s."""
    x, y, z = vector
    total = torch.sqrt(sum((component * component for component in turning), torch.zeros_like(x)) + _TINY)
    nx, ny, nz = (component / total for component in turning)
    cosine, sine = torch.cos(total * duration_s), torch.sin(total * duration_s)
    along = (nx * x + ny * y + nz * z) * (1 - cosine)
    return (
        x * cosine + (ny * z - nz * y) * sine + nx * along,
        y * cosine + (nz * x - nx * z) * sine + ny * along,
        z * cosine + (nx * y - ny * x) * sine + nz * along,
    )


def _sampled(state: _State, sample: Sample) -> Tensor:
    return torch.sqrt(state.x**2 + state.y**2 + _TINY**2) if sample.transverse else state.z


def require_playable(events: Events) -> None:
    """Refuse events that this solution would play as something else.

    Raises:
        ValueError: A pulse that is longer than a tip pulse is no block.
    """
    for m, played in enumerate(events.measurements, start=1):
        for event in played:
            if isinstance(event, Play) and not _is_playable(events.pulses[event.pulse]):
                raise InputError(
                    "protocol",
                    f"measurement {m} plays a shaped pulse of {events.pulses[event.pulse].total_s:g} s, and the R1rho "
                    "engine plays blocks and short pulses only; use bloch-mcconnell",
                )


def _is_playable(pulse: EventPulse) -> bool:
    return pulse.is_block or pulse.total_s <= LONGEST_TIP_S
