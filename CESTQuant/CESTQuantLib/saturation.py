"""The CEST saturation block: water z (and semisolid z) after continuous-wave RF, with hand-derived derivatives.

Analytic R1rho solution, transient and steady state, with the exact 2 x 2 treatment of a z-only semisolid pool.
Where it fails, against the full Bloch-McConnell equations: within about 1 ppm of water while the saturation is not
long against T2, since the transverse term sin^2(theta) cos(weff t) exp(-R2rho t) is left out (0.22 in Z at 2 uT for
2 s with T2 = 2 s; below 2e-3 beyond 1 ppm at 3 T).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .r1rho import EffectiveField, Exchange, ExchangeGradients
from .semisolid_lock import Coupled

FIXED_INPUTS = 7
"""Leading inputs of a block: w1, offset, duration, z0, c0, R1, R2."""
SOLUTE_INPUTS = 4
"""Inputs a solute: fraction, k, R2, dw."""
SEMISOLID_INPUTS = 4
"""Inputs of a semisolid pool: fraction, k, R1, saturation rate."""
POINTS_A_CHUNK = 2**14
"""Measurements x voxels solved at a time when derivatives are wanted."""


@dataclass(frozen=True)
class Block:
    """A solved saturation block; every tensor broadcasts against the others.

    inputs: w1 and offset of the RF from water (rad/s), duration (s), start values z0 of water and c0 of the
    semisolid pool, R1 and R2 of water (1/s), then (fraction, k, R2, dw in rad/s) a solute, then (fraction, k, R1,
    saturation rate) of the semisolid pool if there is one.
    """

    inputs: tuple[Tensor, ...]
    field: EffectiveField
    exchanges: tuple[Exchange, ...]
    R1rho: Tensor
    coupled: Coupled | None
    decay: Tensor | None
    steady: Tensor | None

    @classmethod
    def solve(cls, solutes: int, inputs: Sequence[Tensor]) -> Block:
        w1, offset, duration, z0, c0, R1, R2 = inputs[:FIXED_INPUTS]
        field = EffectiveField.of(w1, offset)
        R1rho = field.cos2 * R1 + field.sin2 * R2
        exchanges = []
        for p in range(solutes):
            first = FIXED_INPUTS + SOLUTE_INPUTS * p
            exchanges.append(Exchange.of(field, offset, *inputs[first : first + SOLUTE_INPUTS]))
            R1rho = R1rho + exchanges[-1].rate
        semisolid = inputs[FIXED_INPUTS + SOLUTE_INPUTS * solutes :]
        coupled = decay = steady = None
        if semisolid:
            coupled = Coupled.solve(R1rho, field.cos2, R1, z0, c0, duration, *semisolid)
        else:
            decay = torch.exp(-R1rho * duration)
            steady = field.cos2 * R1 / R1rho
        return cls(tuple(inputs), field, tuple(exchanges), R1rho, coupled, decay, steady)

    @property
    def z(self) -> Tensor:
        """Longitudinal water magnetisation after the block."""
        if self.coupled is not None:
            return self.coupled.z
        return torch.addcmul(self.steady, self.field.cos2 * self.inputs[3] - self.steady, self.decay)

    @property
    def c(self) -> Tensor:
        """Longitudinal semisolid magnetisation after the block (unchanged c0 without such a pool)."""
        return self.coupled.c if self.coupled is not None else self.inputs[4]

    def gradients(self, gz: Tensor | float, gc: Tensor | float, needed: Sequence[bool]) -> list[Tensor | None]:
        """Derivatives of gz * z + gc * c with respect to every needed input, at the full broadcast shape."""
        w1, offset, _, _, _, R1, R2 = self.inputs[:FIXED_INPUTS]
        field = self.field
        if self.coupled is None:
            g_R, g_cos2, g_t, g_z0, g_R1 = self._water_gradients(gz)
            g_c0, tail = gc, []
        else:
            g_R, g_cos2, g_t, g_z0, g_R1, g_c0, tail = self._coupled_gradients(gz, gc)
        result: list[Tensor | None] = [None] * len(self.inputs)
        result[2], result[3], result[4] = g_t, g_z0, g_c0
        result[5] = g_R1 + g_R * field.cos2
        result[6] = g_R * field.sin2
        of_field = needed[0] or needed[1]
        from_exchange = []
        for p, exchange in enumerate(self.exchanges):
            own = slice(FIXED_INPUTS + SOLUTE_INPUTS * p, FIXED_INPUTS + SOLUTE_INPUTS * (p + 1))
            if of_field or any(needed[own]):
                from_exchange.append(exchange.gradients(g_R, needed[own], of_field))
                result[own] = from_exchange[-1].own
        if of_field:
            result[0], result[1] = self._field_gradients(from_exchange, g_cos2 + g_R * R1, g_R * R2, w1, offset)
        if tail:
            result[-SEMISOLID_INPUTS:] = tail
        return [g if n else None for g, n in zip(result, needed, strict=True)]

    def _water_gradients(self, gz: Tensor | float) -> tuple[Tensor, ...]:
        _, _, duration, z0, _, R1, _ = self.inputs[:FIXED_INPUTS]
        start = self.field.cos2 * z0 - self.steady
        approach = 1 - self.decay
        g_R = -gz * (duration * self.decay * start + approach * self.steady / self.R1rho)
        g_cos2 = gz * (z0 * self.decay + approach * R1 / self.R1rho)
        g_t = -gz * self.R1rho * self.decay * start
        return (
            g_R,
            g_cos2,
            g_t,
            gz * self.field.cos2 * self.decay,
            gz * approach * self.field.cos2 / self.R1rho,
        )

    def _coupled_gradients(self, gz: Tensor | float, gc: Tensor | float) -> tuple:
        _, _, _, z0, _, R1, _ = self.inputs[:FIXED_INPUTS]
        fc, kc, R1c, _ = self.inputs[-SEMISOLID_INPUTS:]
        cos2 = self.field.cos2
        g = self.coupled.gradients(gz, gc)
        tail = [
            g["A"] * kc * cos2 + g["C"] * kc + g["b2"] * R1c,
            g["A"] * fc * cos2 + g["B"] * cos2 + g["C"] * fc + g["D"],
            g["D"] + g["b2"] * fc,
            g["D"],
        ]
        g_cos2 = g["A"] * fc * kc + g["B"] * kc + g["b1"] * R1 + g["z_start"] * z0
        return g["A"], g_cos2, g["t"], g["z_start"] * cos2, g["b1"] * cos2, g["c_start"], tail

    def _field_gradients(
        self, from_exchange: Sequence[ExchangeGradients], g_cos2: Tensor, g_sin2: Tensor, w1: Tensor, offset: Tensor
    ) -> tuple[Tensor, Tensor]:
        field = self.field
        g_total, g_w1_squared, g_offset = 0.0, 0.0, 0.0
        for exchange in from_exchange:
            g_sin2 = g_sin2 + exchange.sin2
            g_total = g_total + exchange.total
            g_w1_squared = g_w1_squared + exchange.w1_squared
            g_offset = g_offset + exchange.pool_offset
        g_tilt = (g_sin2 - g_cos2) / field.total
        g_w1_squared = g_w1_squared + g_total + g_tilt * field.cos2
        g_offset_squared = g_total - g_tilt * field.sin2
        return 2 * w1 * g_w1_squared, g_offset + 2 * offset * g_offset_squared


class _Saturation(torch.autograd.Function):
    """Keeps only the inputs and solves the block again in the backward pass, which costs less than remembering.

    Both passes go through the voxels (last axis) in chunks, so that what lies between inputs and results stays in the
    processor's cache.
    """

    @staticmethod
    def forward(ctx, solutes: int, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        ctx.solutes = solutes
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs)
        z, c = [], []
        for part in _chunks(inputs):
            block = Block.solve(solutes, [_voxels(i, part) for i in inputs])
            z.append(block.z)
            c.append(block.c)
        if len(z) == 1:
            return z[0], c[0].clone()
        coupled = c[0].shape == z[0].shape
        return torch.cat(z, -1), torch.cat(c, -1) if coupled else inputs[4].clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gz: Tensor | None, gc: Tensor | None):
        inputs, needed = ctx.saved_tensors, ctx.needs_input_grad[1:]
        parts = list(_chunks(inputs))
        found: list[list[Tensor]] = [[] for _ in inputs]
        for part in parts:
            some = [_voxels(i, part) for i in inputs]
            outer = [0.0 if g is None else _voxels(g, part) for g in (gz, gc)]
            gradients = Block.solve(ctx.solutes, some).gradients(*outer, needed)
            for place, (g, i) in enumerate(zip(gradients, some, strict=True)):
                if g is not None:
                    found[place].append((g if isinstance(g, Tensor) else torch.full_like(i, g)).sum_to_size(i.shape))
        return None, *(_joined(g, i) if n else None for g, i, n in zip(found, inputs, needed, strict=True))


def _chunks(inputs: Sequence[Tensor]) -> Iterator[slice]:
    """Slices of the last axis with about ``POINTS_A_CHUNK`` points each; everything at once on a GPU."""
    shape = torch.broadcast_shapes(*(i.shape for i in inputs))
    voxels = shape[-1] if shape else 1
    size = max(1, POINTS_A_CHUNK * voxels // max(1, math.prod(shape)))
    if inputs[0].device.type != "cpu" or voxels < 2 * size:
        size = voxels
    for first in range(0, voxels, size):
        yield slice(first, first + size)


def _voxels(tensor: Tensor, part: slice) -> Tensor:
    return tensor[..., part] if tensor.ndim and tensor.shape[-1] > 1 else tensor


def _joined(gradients: list[Tensor], like: Tensor) -> Tensor:
    if len(gradients) == 1:
        return gradients[0]
    per_voxel = like.ndim > 0 and like.shape[-1] > 1
    return torch.cat(gradients, -1) if per_voxel else torch.stack(gradients).sum(0)


def saturate(solutes: int, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Water z and semisolid z after a saturation block; differentiable in every input, see :class:`Block`."""
    return _Saturation.apply(solutes, *inputs)
