"""Magnetisation carried from measurement to measurement: saturation, delay, excitation, recovery, as affine maps.

Between its start and its readout every measurement acts on the longitudinal state (water z, semisolid c) as an affine
map, state -> A state + b. The maps of all measurements are solved in one batched call; only the short recursion through
the start values is sequential. Readouts are ideal and spoiled: the signal is z sin(flip angle), and z cos(flip angle)
stays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..protocol import Protocol
from .block import Block
from .inputs import BlockInputs
from .locked_water import Coupled
from .saturation import saturate


@dataclass(frozen=True)
class WaterMap:
    """The map z -> slope z + constant of water alone; tensors broadcast against (measurement, voxel)."""

    slope: Tensor
    constant: Tensor

    def then(self, later: WaterMap) -> WaterMap:
        """Return this map followed by another one."""
        return WaterMap(later.slope * self.slope, torch.addcmul(later.constant, later.slope, self.constant))


@dataclass(frozen=True)
class CoupledMap:
    """The map (z, c) -> (zz z + zc c + z, cz z + cc c + c); tensors broadcast against (measurement, voxel).

    Attributes:
        zz: What water z contributes to itself.
        zc: What semisolid z contributes to water z.
        cz: What water z contributes to semisolid z.
        cc: What semisolid z contributes to itself.
        z: Constant part of water z.
        c: Constant part of semisolid z.
    """

    zz: Tensor
    zc: Tensor
    cz: Tensor
    cc: Tensor
    z: Tensor
    c: Tensor

    def then(self, later: CoupledMap) -> CoupledMap:
        """Return this map followed by another one."""
        return CoupledMap(
            zz=later.zz * self.zz + later.zc * self.cz,
            zc=later.zz * self.zc + later.zc * self.cc,
            cz=later.cz * self.zz + later.cc * self.cz,
            cc=later.cz * self.zc + later.cc * self.cc,
            z=later.zz * self.z + later.zc * self.c + later.z,
            c=later.cz * self.z + later.cc * self.c + later.c,
        )

    def apply(self, z: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Return water z and semisolid z after the map."""
        after_z = torch.addcmul(torch.addcmul(self.z, self.zz, z), self.zc, c)
        return after_z, torch.addcmul(torch.addcmul(self.c, self.cz, z), self.cc, c)

    def one_later(self, count: int) -> CoupledMap:
        """Return the maps of ``count`` measurements, each at the place of the measurement that follows."""
        return CoupledMap(*(part.expand(count, -1).roll(1, 0) for part in self._parts()))

    def measurements(self, count: int) -> list[CoupledMap]:
        """Return the map of each of ``count`` measurements, of tensors of shape (voxel,)."""
        return [
            CoupledMap(*parts) for parts in zip(*(p.expand(count, -1).unbind(0) for p in self._parts()), strict=True)
        ]

    def _parts(self) -> tuple[Tensor, ...]:
        return self.zz, self.zc, self.cz, self.cc, self.z, self.c


def longitudinal_magnetization(
    inputs: BlockInputs[Tensor], protocol: Protocol, flip_angle_rad: Tensor | None, like: Tensor
) -> Tensor:
    """Compute the longitudinal water magnetisation just before every readout of a schedule.

    Args:
        inputs: Inputs of the saturation blocks of all measurements, (measurement, 1) or (measurement, voxel); the start
            values z0 and c0 are those of the first measurement.
        protocol: Schedule.
        flip_angle_rad: Flip angles in rad, (measurement, voxel or 1); None where the readout leaves z as it is.
        like: Tensor that gives dtype and device.

    Returns:
        Water z of shape (measurement, voxel).
    """
    delay, recovery = (value.to(like)[:, None] for value in (protocol.post_delay_s, protocol.recovery_time_s))
    remaining = like.new_ones(1, 1) if flip_angle_rad is None else torch.cos(flip_angle_rad)
    z, c = (start.reshape(1, -1) if start.ndim == 0 else start for start in (inputs.z0, inputs.c0))
    if inputs.semisolid is None:
        return _water_recursion(inputs, delay, recovery, remaining, z, protocol.measurement_count)
    return _coupled_recursion(inputs, delay, recovery, remaining, z, c, protocol.measurement_count)


def recovery_inputs(inputs: BlockInputs[Tensor], duration: Tensor, z0: Tensor, c0: Tensor) -> BlockInputs[Tensor]:
    """Return the inputs of the block that stands for free longitudinal recovery: no RF, no exchange with solutes.

    Args:
        inputs: Inputs of a saturation block of the same tissue.
        duration: Duration of the recovery in s, (measurement, 1).
        z0: Water z before it.
        c0: Semisolid z before it.
    """
    zero = torch.zeros_like(duration)
    semisolid = None if inputs.semisolid is None else replace(inputs.semisolid, saturation_rate=zero)
    return BlockInputs(zero, zero, duration, z0, c0, inputs.R1, inputs.R2, semisolid=semisolid)


def takes_time(duration: Tensor) -> bool:
    """Return whether a duration is not 0 everywhere, or carries gradients."""
    return duration.requires_grad or bool(duration.any())


def _water_map(inputs: BlockInputs[Tensor]) -> WaterMap:
    """The map of a saturation block, which is solved for the start values 0 and 1."""
    one = torch.ones_like(inputs.duration[..., :1, :1])
    z, _ = saturate(replace(inputs, z0=torch.stack([one * 0, one]), c0=torch.stack([one * 0, one * 0])))
    of_zero, of_one = z
    return WaterMap(of_one - of_zero, of_zero)


def _free_water_map(inputs: BlockInputs[Tensor], duration: Tensor) -> WaterMap:
    """The map of free recovery with R1."""
    decay = torch.exp(-duration * inputs.R1)
    return WaterMap(decay, 1 - decay)


def _coupled_map(inputs: BlockInputs[Tensor]) -> CoupledMap:
    """The map of a saturation block.

    Where derivatives are asked for, it is that of the autograd function for the start values (0, 0), (1, 0) and (0, 1).
    """
    if not (torch.is_grad_enabled() and any(value.requires_grad for value in inputs.flat())):
        locked = Block.solve(inputs).locked
        if isinstance(locked, Coupled):
            return CoupledMap(*locked.affine())
    one = torch.ones_like(inputs.duration[..., :1, :1])
    zero = one * 0
    z, c = saturate(replace(inputs, z0=torch.stack([zero, one, zero]), c0=torch.stack([zero, zero, one])))
    (z_of_none, z_of_z, z_of_c), (c_of_none, c_of_z, c_of_c) = z, c
    return CoupledMap(
        zz=z_of_z - z_of_none,
        zc=z_of_c - z_of_none,
        cz=c_of_z - c_of_none,
        cc=c_of_c - c_of_none,
        z=z_of_none,
        c=c_of_none,
    )


def _free_coupled_map(inputs: BlockInputs[Tensor], duration: Tensor) -> CoupledMap:
    """The map of free recovery: the same 2 x 2 solution as under RF, without RF."""
    if not duration.requires_grad and bool((duration == duration[0]).all()):
        duration = duration[:1]
    zero = torch.zeros_like(duration)
    return _coupled_map(recovery_inputs(inputs, duration, zero, zero))


def _water_recursion(
    inputs: BlockInputs[Tensor], delay: Tensor, recovery: Tensor, remaining: Tensor, z: Tensor, count: int
) -> Tensor:
    """z before every readout: z_1 = a_1 z_0 + b_1, z_m = a_m (r (k z_(m-1)) + s) + b_m, with r, s of the recovery."""
    prepare = _water_map(inputs)
    if takes_time(delay):
        prepare = prepare.then(_free_water_map(inputs, delay))
    recover = _free_water_map(inputs, recovery) if takes_time(recovery) else None
    shape = np.broadcast_shapes(
        prepare.slope.shape, z.shape, remaining.shape, (1, 1) if recover is None else recover.slope.shape
    )
    slopes, constants = (part.expand(count, shape[-1]) for part in (prepare.slope, prepare.constant))
    between = remaining if recover is None else remaining * recover.slope
    chained = torch.cat([slopes[:1], slopes[1:] * between.expand(count, -1)[:-1]])
    if recover is not None:
        gained = recover.constant.expand(count, shape[-1])
        constants = torch.cat([constants[:1], torch.addcmul(constants[1:], slopes[1:], gained[:-1])])
    return _AffineRecursion.apply(chained, constants, z.expand(1, shape[-1])[0])


class _AffineRecursion(torch.autograd.Function):
    """z_m = a_m z_(m-1) + b_m for m = 1 ... n, from z_0; (n, voxel). The backward pass runs the adjoint recursion."""

    @staticmethod
    def forward(ctx: Any, slopes: Tensor, constants: Tensor, start: Tensor) -> Tensor:
        z = torch.empty_like(constants, memory_format=torch.contiguous_format)
        previous = start
        for m in range(len(slopes)):
            previous = torch.addcmul(constants[m], slopes[m], previous, out=z[m])
        ctx.save_for_backward(slopes, z, start)
        return z

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        slopes, z, start = ctx.saved_tensors
        adjoint = gradient.clone()
        for m in range(len(slopes) - 1, 0, -1):
            adjoint[m - 1].addcmul_(slopes[m], adjoint[m])
        previous = torch.cat([start[None], z[:-1]])
        return adjoint * previous, adjoint, slopes[0] * adjoint[0]


def _coupled_recursion(
    inputs: BlockInputs[Tensor], delay: Tensor, recovery: Tensor, remaining: Tensor, z: Tensor, c: Tensor, count: int
) -> Tensor:
    """The same with a semisolid pool, whose longitudinal magnetisation the spoiled excitation leaves as it is."""
    prepare = _coupled_map(inputs)
    if takes_time(delay):
        prepare = prepare.then(_free_coupled_map(inputs, delay))
    step = prepare
    if takes_time(recovery):
        # recovery after readout m - 1 comes before preparation m; nothing comes before the first
        step = _free_coupled_map(inputs, recovery).one_later(count).then(prepare)
    remaining = remaining.expand(count, -1)
    steps = [*prepare.measurements(count)[:1], *step.measurements(count)[1:]]
    result = []
    for m in range(count):
        if m:
            z = z * remaining[m - 1]
        z, c = steps[m].apply(z, c)
        result.append(z)
    return torch.cat(torch.broadcast_tensors(*result))
