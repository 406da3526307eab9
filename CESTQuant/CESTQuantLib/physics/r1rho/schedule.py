"""Magnetisation carried from measurement to measurement: saturation, delay, excitation, recovery, as affine maps.

Between its start and its readout every measurement acts on the longitudinal state (water z, semisolid c) as an affine
map, state -> A state + b. The maps of all measurements are solved in one batched call; only the short recursion
through the start values is sequential. Readouts are ideal and spoiled: the signal is z sin(angle), z cos(angle) stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..protocol import Protocol
from .saturation import FIXED_INPUTS, SOLUTE_INPUTS, saturate

W1, OFFSET, DURATION, Z0, C0, R1, R2 = range(FIXED_INPUTS)


@dataclass(frozen=True)
class AffineMap:
    """(z, c) -> (zz z + zc c + z, cz z + cc c + c); tensors broadcast against (measurement, voxel).

    ``zc``, ``cz``, ``cc`` and ``c`` are None where there is no semisolid pool.
    """

    zz: Tensor
    z: Tensor
    zc: Tensor | None = None
    cz: Tensor | None = None
    cc: Tensor | None = None
    c: Tensor | None = None

    def then(self, later: AffineMap) -> AffineMap:
        """This map followed by another one."""
        if self.cc is None:
            return AffineMap(later.zz * self.zz, torch.addcmul(later.z, later.zz, self.z))
        return AffineMap(
            zz=later.zz * self.zz + later.zc * self.cz,
            zc=later.zz * self.zc + later.zc * self.cc,
            cz=later.cz * self.zz + later.cc * self.cz,
            cc=later.cz * self.zc + later.cc * self.cc,
            z=later.zz * self.z + later.zc * self.c + later.z,
            c=later.cz * self.z + later.cc * self.c + later.c,
        )

    def scaled_z(self, factor: Tensor) -> AffineMap:
        """This map followed by a multiplication of z."""
        if self.cc is None:
            return AffineMap(factor * self.zz, factor * self.z)
        return AffineMap(factor * self.zz, factor * self.z, factor * self.zc, self.cz, self.cc, self.c)


def block_map(solutes: int, inputs: Sequence[Tensor]) -> AffineMap:
    """The affine map of a saturation block (inputs of :class:`saturation.Block`; its start values are not used).

    The block is solved for the start values (0, 0), (1, 0) and, with a semisolid pool, (0, 1); offset, exchange and
    relaxation enter once.
    """
    semisolid = len(inputs) > FIXED_INPUTS + SOLUTE_INPUTS * solutes
    one = torch.ones_like(inputs[DURATION][..., :1, :1])
    starts_z = [one * 0, one, *([one * 0] if semisolid else [])]
    starts_c = [one * 0, one * 0, *([one] if semisolid else [])]
    probed = list(inputs)
    probed[Z0], probed[C0] = torch.stack(starts_z), torch.stack(starts_c)
    z, c = saturate(solutes, probed)
    if not semisolid:
        return AffineMap(z[1] - z[0], z[0])
    return AffineMap(zz=z[1] - z[0], zc=z[2] - z[0], cz=c[1] - c[0], cc=c[2] - c[0], z=z[0], c=c[0])


def free_map(duration: Tensor, solutes: int, inputs: Sequence[Tensor]) -> AffineMap | None:
    """The map of free longitudinal recovery for ``duration`` (measurement, 1) in s; None where it is always 0.

    Water recovers with R1; with a semisolid pool, by the same 2 x 2 solution as under RF, without RF.
    """
    if not duration.requires_grad and not bool(duration.any()):
        return None
    semisolid = inputs[FIXED_INPUTS + SOLUTE_INPUTS * solutes :]
    if not semisolid:
        decay = torch.exp(-duration * inputs[R1])
        return AffineMap(decay, 1 - decay)
    zero = torch.zeros_like(duration)
    free = [zero, zero, duration, zero, zero, inputs[R1], inputs[R2], *semisolid[:3], zero]
    return block_map(0, free)


def carried_over(
    inputs: Sequence[Tensor], solutes: int, protocol: Protocol, flip_angle_rad: Tensor | None, like: Tensor
) -> Tensor:
    """Longitudinal water magnetisation (measurement, voxel) just before every readout.

    inputs: of all measurements, as ``sequence.block_inputs`` makes them; the start values z0 and c0 are those of
    the first measurement. flip_angle_rad: (measurement, voxel or 1), None where the sample leaves z as it is.
    """
    prepare = block_map(solutes, inputs)
    wait = free_map(_column(protocol.post_delay_s, like), solutes, inputs)
    if wait is not None:
        prepare = prepare.then(wait)
    # from one readout to the next: excitation, recovery, then the next preparation
    after = free_map(_column(protocol.recovery_time_s, like), solutes, inputs)
    keep = like.new_ones(1, 1) if flip_angle_rad is None else torch.cos(flip_angle_rad)
    count = protocol.measurement_count
    z = inputs[Z0].reshape(1, -1) if inputs[Z0].ndim == 0 else inputs[Z0]
    c = inputs[C0].reshape(1, -1) if inputs[C0].ndim == 0 else inputs[C0]
    if prepare.cc is None:
        return _water_recursion(prepare, after, keep, z, count)
    return _coupled_recursion(prepare, after, keep, z, c, count)


def _water_recursion(prepare: AffineMap, after: AffineMap | None, keep: Tensor, z: Tensor, count: int) -> Tensor:
    """z before every readout: z_1 = a_1 z_0 + b_1, z_m = a_m (r (k z_(m-1)) + s) + b_m, with r, s of the recovery."""
    shape = torch.broadcast_shapes(prepare.zz.shape, z.shape, keep.shape, after.zz.shape if after else (1, 1))
    slope, start = prepare.zz.expand(count, shape[-1]), prepare.z.expand(count, shape[-1])
    back = keep.expand(count, -1) if after is None else (keep * after.zz).expand(count, -1)
    slopes = torch.cat([slope[:1], slope[1:] * back[:-1]])
    offsets = start
    if after is not None:
        gain = after.z.expand(count, shape[-1])
        offsets = torch.cat([start[:1], torch.addcmul(start[1:], slope[1:], gain[:-1])])
    return _AffineRecursion.apply(slopes, offsets, z.expand(1, shape[-1])[0])


class _AffineRecursion(torch.autograd.Function):
    """z_m = a_m z_(m-1) + b_m for m = 1 ... n, from z_0; (n, voxel). The backward pass runs the adjoint recursion."""

    @staticmethod
    def forward(ctx, slopes: Tensor, offsets: Tensor, start: Tensor) -> Tensor:
        z = torch.empty_like(offsets, memory_format=torch.contiguous_format)
        previous = start
        for m in range(len(slopes)):
            previous = torch.addcmul(offsets[m], slopes[m], previous, out=z[m])
        ctx.save_for_backward(slopes, z, start)
        return z

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor):
        slopes, z, start = ctx.saved_tensors
        adjoint = gradient.clone()
        for m in range(len(slopes) - 1, 0, -1):
            adjoint[m - 1].addcmul_(slopes[m], adjoint[m])
        previous = torch.cat([start[None], z[:-1]])
        return adjoint * previous, adjoint, slopes[0] * adjoint[0]


def _coupled_recursion(
    prepare: AffineMap, after: AffineMap | None, keep: Tensor, z: Tensor, c: Tensor, count: int
) -> Tensor:
    """The same with a semisolid pool, whose longitudinal magnetisation the spoiled excitation leaves alone."""
    step = prepare
    if after is not None:
        # recovery after readout m - 1 comes before preparation m; nothing comes before the first
        earlier = AffineMap(*(None if v is None else v.expand(count, -1).roll(1, 0) for v in _parts(after)))
        step = earlier.then(prepare)
    keep = keep.expand(count, -1)
    parts = [p.expand(count, -1).unbind(0) for p in _parts(step)]
    first = [p[:1].expand(1, -1)[0] for p in _parts(prepare)]
    result = []
    for m in range(count):
        zz, z1, zc, cz, cc, c1 = first if m == 0 else [p[m] for p in parts]
        if m:
            z = z * keep[m - 1]
        z, c = zz * z + zc * c + z1, cz * z + cc * c + c1
        result.append(z)
    return torch.cat(torch.broadcast_tensors(*result))


def _parts(affine: AffineMap) -> tuple[Tensor, ...]:
    return affine.zz, affine.z, affine.zc, affine.cz, affine.cc, affine.c


def _column(value: Tensor, like: Tensor) -> Tensor:
    return value.to(like)[:, None]
