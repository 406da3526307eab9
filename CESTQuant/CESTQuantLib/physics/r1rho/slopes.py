"""Signals of the analytic R1rho solution with their derivatives in given directions, also along a schedule.

The derivatives of every block with respect to its inputs are known in closed form, at the magnetisation that enters it.
A direction, such as the exchange rate of a pool, moves some of the inputs; what it does to the magnetisation is carried
on to the later measurements. One direction costs a small part of another simulation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..protocol import Protocol
from .block import Block
from .exchange import FieldGradients
from .inputs import BlockInputs, SoluteInputs
from .schedule import recovery_inputs

_EVERY_SOLUTE_INPUT = SoluteInputs(True, True, True, True)


@dataclass(frozen=True)
class Direction:
    """How fast the inputs of the saturation blocks change in a direction; each broadcasts to (measurement, voxel).

    Attributes:
        inputs: Derivatives of the inputs, None for those that do not change. That of c0 is at the first measurement.
        flip_angle: Derivative of the flip angle of the readout.
    """

    inputs: BlockInputs[Tensor | None]
    flip_angle: Tensor | None = None

    def without_rf(self) -> Direction:
        """Return the direction as it acts on free recovery."""
        semisolid = self.inputs.semisolid
        if semisolid is not None:
            semisolid = replace(semisolid, saturation_rate=None)
        return Direction(replace(self.inputs, w1=None, offset=None, R2=None, solutes=(), semisolid=semisolid))


@dataclass(frozen=True)
class _Stage:
    """A block of every measurement as an affine map of (z, c), and its direct derivatives in every direction.

    Attributes:
        zz: What water z contributes to itself, (measurement, voxel) like the others.
        zc: What semisolid z contributes to water z.
        cz: What water z contributes to semisolid z.
        cc: What semisolid z contributes to itself.
        z: Derivatives of water z at fixed start, (direction, measurement, voxel).
        c: Derivatives of semisolid z at fixed start, (direction, measurement, voxel).
    """

    zz: Tensor
    zc: Tensor
    cz: Tensor
    cc: Tensor
    z: Tensor
    c: Tensor

    def carry(self, m: int, z: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Carry derivatives (direction, voxel) through the block of a measurement."""
        return (
            torch.addcmul(torch.addcmul(self.z[:, m], self.zz[m], z), self.zc[m], c),
            torch.addcmul(torch.addcmul(self.c[:, m], self.cz[m], z), self.cc[m], c),
        )


def signal_and_slopes(
    inputs: BlockInputs[Tensor], directions: Sequence[Direction], protocol: Protocol, flip_angle: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Compute the signal of a protocol and its derivatives in some directions.

    Args:
        inputs: Inputs of the saturation blocks; z0 and c0 are those of the first measurement, or of all.
        directions: Directions.
        protocol: Acquisition, whose initial magnetisation is that of the inputs, without events and decay to an echo.
        flip_angle: Flip angles in rad, (measurement, voxel or 1); None where the readout leaves z as it is.

    Returns:
        The signal (measurement, voxel) and its derivatives (direction, measurement, voxel), without L2 normalisation.
    """
    count = protocol.measurement_count
    shapes = [value.shape for value in inputs.flat()] + ([] if flip_angle is None else [flip_angle.shape])
    shape = torch.Size(np.broadcast_shapes((count, 1), *shapes))
    like = inputs.w1

    def per_measurement(duration: Tensor) -> Tensor | None:
        return duration.to(like)[:, None] if bool(duration.any()) else None

    delay = per_measurement(protocol.post_delay_s)
    recovery = per_measurement(protocol.recovery_time_s) if protocol.magnetisation_carried_over else None
    cosine = like.new_ones(()).expand(shape) if flip_angle is None else torch.cos(flip_angle).expand(shape)
    # Solved once for any magnetisation, then evaluated for what enters each block.
    saturating = Block.solve(inputs)
    waiting, recovering = (
        None if duration is None else Block.solve(recovery_inputs(inputs, duration, inputs.z0, inputs.c0))
        for duration in (delay, recovery)
    )
    visited = _Visited.along(saturating, waiting, recovering, cosine, protocol.magnetisation_carried_over, shape)
    saturation = _stage(saturating.starting_from(*visited.before), directions, shape)
    free = [direction.without_rf() for direction in directions]
    wait = None if waiting is None else _stage(waiting.starting_from(*visited.saturated), free, shape)
    after = None if recovering is None else _stage(recovering.starting_from(*visited.excited), free, shape)
    angles = None
    if flip_angle is not None:
        still = torch.zeros((), dtype=like.dtype, device=like.device)
        moves = [still if d.flip_angle is None else d.flip_angle for d in directions]
        angles = torch.stack([move.expand(shape) for move in moves])
    start_c = [inputs.c0.new_zeros(shape[-1]) if d.inputs.c0 is None else d.inputs.c0 for d in directions]
    first_c = torch.stack([each.expand(shape[-1]) for each in start_c])
    z, c = torch.zeros_like(first_c), first_c
    slopes = torch.empty(len(directions), *shape, dtype=like.dtype, device=like.device)
    sine = None if flip_angle is None else torch.sin(flip_angle).expand(shape)
    for m in range(count):
        if m and not protocol.magnetisation_carried_over:
            z, c = torch.zeros_like(first_c), first_c
        elif m and after is not None:
            z, c = after.carry(m - 1, z, c)
        z, c = saturation.carry(m, z, c)
        if wait is not None:
            z, c = wait.carry(m, z, c)
        slopes[:, m] = z
        if sine is not None and angles is not None:
            z = z * cosine[m] - visited.read[m] * sine[m] * angles[:, m]
    signal = visited.read
    if sine is not None and angles is not None and protocol.signal_normalisation != "m0":
        slopes = slopes * sine + signal * cosine * angles
        signal = signal * sine
    return signal, slopes


@dataclass(frozen=True)
class _Visited:
    """Water z and semisolid z of a schedule, each (measurement, voxel).

    Attributes:
        before: Before the saturation.
        saturated: After it.
        read: Water z at the readout.
        excited: After the readout.
    """

    before: tuple[Tensor, Tensor]
    saturated: tuple[Tensor, Tensor]
    read: Tensor
    excited: tuple[Tensor, Tensor]

    @classmethod
    def along(
        cls,
        saturating: Block,
        waiting: Block | None,
        recovering: Block | None,
        cosine: Tensor,
        carried_over: bool,
        shape: torch.Size,
    ) -> _Visited:
        """Follow the magnetisation through all measurements."""
        inputs = saturating.inputs
        saturate = _Map(saturating, shape)
        wait = None if waiting is None else _Map(waiting, shape)
        recover = None if recovering is None else _Map(recovering, shape)
        first = inputs.z0.expand(shape[-1:]), inputs.c0.expand(shape[-1:])
        state = first
        rows: list[tuple[Tensor, ...]] = []
        for m in range(shape[0]):
            if not carried_over:
                state = first
            elif m and recover is not None:
                state = recover(m - 1, *state)
            saturated = saturate(m, *state)
            read = saturated if wait is None else wait(m, *saturated)
            rows.append((*state, *saturated, *read))
            state = read[0] * cosine[m], read[1]
        z, c, z_saturated, c_saturated, z_read, c_read = (torch.stack(each) for each in zip(*rows, strict=True))
        return cls((z, c), (z_saturated, c_saturated), z_read, (z_read * cosine, c_read))


class _Map:
    """The blocks of all measurements as maps of water z and semisolid z."""

    def __init__(self, block: Block, shape: torch.Size) -> None:
        parts = block.locked.affine()
        self.zz, self.zc, self.cz, self.cc, self.z, self.c = (part.expand(shape) for part in parts)

    def __call__(self, m: int, z: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        return (
            torch.addcmul(torch.addcmul(self.z[m], self.zz[m], z), self.zc[m], c),
            torch.addcmul(torch.addcmul(self.c[m], self.cz[m], z), self.cc[m], c),
        )


def _stage(block: Block, directions: Sequence[Direction], shape: torch.Size) -> _Stage:
    """Differentiate the blocks of all measurements at the magnetisation that enters them."""
    inputs = block.inputs
    everything = BlockInputs.from_flat([True] * len(inputs.flat()), len(inputs.solutes))
    of_z = block.locked.gradients(1.0, 0.0, everything, True)
    of_c = None if inputs.semisolid is None else block.locked.gradients(0.0, 1.0, everything, True)
    rates = _RateSlopes.of(block, any(d.inputs.w1 is not None or d.inputs.offset is not None for d in directions))
    nothing = inputs.w1.new_zeros(()).expand(shape)
    z: list[Tensor] = []
    c: list[Tensor] = []
    for direction in directions:
        given = direction.inputs
        R1rho, cos2 = rates.along(given)
        for gradients, slopes in ((of_z, z), (of_c, c)):
            if gradients is None:
                slopes.append(nothing)
                continue
            total = nothing if R1rho is None else gradients.R1rho * R1rho
            if cos2 is not None and gradients.cos2 is not None:
                total = total + gradients.cos2 * cos2
            if given.R1 is not None and gradients.R1 is not None:
                total = total + gradients.R1 * given.R1
            if given.semisolid is not None and gradients.semisolid is not None:
                for gradient, move in zip(gradients.semisolid.flat(), given.semisolid.flat(), strict=True):
                    total = total if move is None else total + gradient * move
            slopes.append(total.expand(shape))
    zero, one = nothing, inputs.w1.new_ones(()).expand(shape)
    return _Stage(
        zz=zero if of_z.z0 is None else of_z.z0.expand(shape),
        zc=zero if of_c is None or of_z.c0 is None else of_z.c0.expand(shape),
        cz=zero if of_c is None or of_c.z0 is None else of_c.z0.expand(shape),
        cc=one if of_c is None or of_c.c0 is None else of_c.c0.expand(shape),
        z=torch.stack(z),
        c=torch.stack(c),
    )


@dataclass(frozen=True)
class _RateSlopes:
    """Derivatives of R1rho, and of cos^2(theta) through the field, with respect to the inputs of a block."""

    block: Block
    solutes: list[SoluteInputs[Tensor | None]]
    w1: Tensor | None
    offset: Tensor | None

    @classmethod
    def of(cls, block: Block, of_field: bool) -> _RateSlopes:
        one = torch.ones_like(block.R1rho)
        found = [exchange.gradients(one, _EVERY_SOLUTE_INPUT, of_field=of_field) for exchange in block.exchanges]
        solutes = [each.solute for each in found]
        if not of_field:
            return cls(block, solutes, None, None)
        fields: list[FieldGradients] = [each.field for each in found if each.field is not None]
        return cls(block, solutes, *block.field_gradients(one, torch.zeros_like(one), fields))

    def along(self, given: BlockInputs[Tensor | None]) -> tuple[Tensor | None, Tensor | None]:
        """Return the derivatives of R1rho at fixed R1, and of cos^2(theta), in a direction, None for zero."""
        field, inputs = self.block.field, self.block.inputs
        R1rho = cos2 = None
        if given.w1 is not None and self.w1 is not None:
            R1rho = self.w1 * given.w1
            cos2 = -2 * inputs.w1 * field.cos2 / field.total * given.w1
        if given.offset is not None and self.offset is not None:
            R1rho = self.offset * given.offset if R1rho is None else R1rho + self.offset * given.offset
            by_offset = 2 * inputs.offset * field.sin2 / field.total * given.offset
            cos2 = by_offset if cos2 is None else cos2 + by_offset
        moved = [] if given.R2 is None else [field.sin2 * given.R2]
        for solute, moves in zip(self.solutes, given.solutes, strict=True):
            pairs = zip(solute.flat(), moves.flat(), strict=True)
            moved += [slope * move for slope, move in pairs if slope is not None and move is not None]
        for each in moved:
            R1rho = each if R1rho is None else R1rho + each
        return R1rho, cos2
