"""The CEST saturation block: water z (and semisolid z) after continuous-wave RF, with hand-derived derivatives.

Analytic R1rho solution, transient and steady state, with the exact 2 x 2 treatment of a z-only semisolid pool.
Where it fails, against the full Bloch-McConnell equations: within about 1 ppm of water while the saturation is not
long against T2, since the transverse term sin^2(theta) cos(weff t) exp(-R2rho t) is left out (0.22 in Z at 2 uT for
2 s with T2 = 2 s; below 2e-3 beyond 1 ppm at 3 T).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from NeuroCESTLib.core.threads import in_threads

from .exchange import EffectiveField, Exchange, ExchangeGradients
from .locked_water import Coupled

FIXED_INPUTS = 7
"""Leading inputs of a block, at these places."""
W1, OFFSET, DURATION, Z0, C0, R1, R2 = range(FIXED_INPUTS)
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
        w1, offset, duration, z0, c0, R1_, R2_ = inputs[:FIXED_INPUTS]
        field = EffectiveField.of(w1, offset)
        R1rho = torch.addcmul(field.cos2 * R1_, field.sin2, R2_)
        exchanges = []
        for p in range(solutes):
            first = FIXED_INPUTS + SOLUTE_INPUTS * p
            exchanges.append(Exchange.of(field, offset, *inputs[first : first + SOLUTE_INPUTS]))
            R1rho = R1rho + exchanges[-1].rate
        semisolid = inputs[FIXED_INPUTS + SOLUTE_INPUTS * solutes :]
        coupled = decay = steady = None
        if semisolid:
            coupled = Coupled.solve(R1rho, field.cos2, R1_, z0, c0, duration, *semisolid)
        else:
            decay = torch.exp(-R1rho * duration)
            steady = field.cos2 * R1_ / R1rho
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
        """Derivatives of gz * z + gc * c with respect to every needed input, at the full broadcast shape.

        Where neither RF nor offset differ between voxels, theirs are summed over the voxels already.
        """
        field = self.field
        of_field = needed[W1] or needed[OFFSET]
        result: list[Tensor | None] = [None] * len(self.inputs)
        if self.coupled is None:
            g_R, g_cos2 = self._water_gradients(gz, needed, result)
            result[C0] = gc
        else:
            g_R, g_cos2 = self._coupled_gradients(gz, gc, result)
        if needed[R2]:
            result[R2] = g_R * field.sin2
        from_exchange = []
        for p, exchange in enumerate(self.exchanges):
            own = slice(FIXED_INPUTS + SOLUTE_INPUTS * p, FIXED_INPUTS + SOLUTE_INPUTS * (p + 1))
            if of_field or any(needed[own]):
                from_exchange.append(exchange.gradients(g_R, needed[own], of_field))
                result[own] = from_exchange[-1].own
        if of_field:
            result[W1], result[OFFSET] = self._field_gradients(g_R, g_cos2, from_exchange)
        return [g if n else None for g, n in zip(result, needed, strict=True)]

    def _water_gradients(
        self, gz: Tensor | float, needed: Sequence[bool], result: list[Tensor | None]
    ) -> tuple[Tensor, Tensor]:
        """By R1rho, and by cos2 at fixed R1rho; those by duration, z0 and R1 go to ``result``."""
        _, _, duration, z0, _, R1_, _ = self.inputs[:FIXED_INPUTS]
        cos2 = self.field.cos2
        decayed = gz * self.decay
        of_steady = (gz - decayed) / self.R1rho
        of_start = decayed * (cos2 * z0 - self.steady)
        g_R = torch.addcmul(of_steady * self.steady, of_start, duration).neg_()
        if needed[DURATION]:
            result[DURATION] = of_start * -self.R1rho
        if needed[Z0]:
            result[Z0] = decayed * cos2
        if needed[R1]:
            result[R1] = (of_steady + g_R) * cos2
        of_field = needed[W1] or needed[OFFSET]
        return g_R, torch.addcmul(decayed * z0, of_steady, R1_) if of_field else g_R

    def _coupled_gradients(
        self, gz: Tensor | float, gc: Tensor | float, result: list[Tensor | None]
    ) -> tuple[Tensor, Tensor]:
        """The same with a semisolid pool, whose own derivatives and that by c0 go to ``result`` too."""
        _, _, _, z0, _, R1_, _ = self.inputs[:FIXED_INPUTS]
        fc, kc, R1c, _ = self.inputs[-SEMISOLID_INPUTS:]
        cos2 = self.field.cos2
        g = self.coupled.gradients(gz, gc)
        result[DURATION], result[Z0], result[C0] = g["t"], g["z_start"] * cos2, g["c_start"]
        result[R1] = (g["b1"] + g["A"]) * cos2
        result[-SEMISOLID_INPUTS:] = [
            g["A"] * kc * cos2 + g["C"] * kc + g["b2"] * R1c,
            g["A"] * fc * cos2 + g["B"] * cos2 + g["C"] * fc + g["D"],
            g["D"] + g["b2"] * fc,
            g["D"],
        ]
        return g["A"], g["A"] * fc * kc + g["B"] * kc + g["b1"] * R1_ + g["z_start"] * z0

    def _field_gradients(
        self, g_R: Tensor, g_cos2: Tensor, from_exchange: Sequence[ExchangeGradients]
    ) -> tuple[Tensor, Tensor]:
        """By w1 and by the offset, through theta, the effective field and the pools' own offsets."""
        w1, offset, _, _, _, R1_, R2_ = self.inputs[:FIXED_INPUTS]
        field = self.field
        same_everywhere = w1.shape[-1:] == offset.shape[-1:] == (1,)

        def summed(g: Tensor) -> Tensor:
            return g.sum(-1, keepdim=True) if same_everywhere else g

        g_tilt = summed(g_R * (R2_ - R1_) - g_cos2)
        g_total, g_w1_squared, g_offset = 0.0, 0.0, 0.0
        for exchange in from_exchange:
            g_tilt = g_tilt + summed(exchange.sin2)
            g_total = g_total + summed(exchange.total)
            g_w1_squared = g_w1_squared + summed(exchange.w1_squared)
            g_offset = g_offset + summed(exchange.pool_offset)
        g_tilt = g_tilt / field.total
        g_w1_squared = g_w1_squared + g_total + g_tilt * field.cos2
        g_offset_squared = g_total - g_tilt * field.sin2
        return 2 * w1 * g_w1_squared, g_offset + 2 * offset * g_offset_squared


class _Saturation(torch.autograd.Function):
    """Keeps only the inputs and solves the block again in the backward pass.

    That takes a quarter of the memory of plain autograd, at some 0.7 of its speed.

    Both passes go through the voxels (last axis) in chunks, so that what lies between inputs and results stays in the
    processor's cache.
    """

    @staticmethod
    def forward(ctx, solutes: int, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        ctx.solutes = solutes
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs)

        def solve(part: slice) -> tuple[Tensor, Tensor]:
            block = Block.solve(solutes, [_voxels(i, part) for i in inputs])
            return block.z, block.c

        solved = _each(solve, _chunks(inputs))
        if len(solved) == 1:
            return solved[0][0], solved[0][1].clone()
        z, c = zip(*solved, strict=True)
        coupled = len(inputs) > FIXED_INPUTS + SOLUTE_INPUTS * solutes
        return torch.cat(z, -1), torch.cat(c, -1) if coupled else inputs[C0].clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gz: Tensor | None, gc: Tensor | None):
        inputs, needed = ctx.saved_tensors, ctx.needs_input_grad[1:]

        def derive(part: slice) -> list[Tensor | None]:
            some = [_voxels(i, part) for i in inputs]
            outer = [0.0 if g is None else _voxels(g, part) for g in (gz, gc)]
            gradients = Block.solve(ctx.solutes, some).gradients(*outer, needed)
            return [_reduced(g, i) for g, i in zip(gradients, some, strict=True)]

        found = zip(*_each(derive, _chunks(inputs)), strict=True)
        return None, *(_joined(g, i) if n else None for g, i, n in zip(found, inputs, needed, strict=True))


def _each(work: Callable[[slice], tuple | list], parts: list[slice]) -> list:
    """``work`` of every part; in threads where there are several, without gradients."""
    return [work(parts[0])] if len(parts) == 1 else in_threads(torch.no_grad()(work), parts)


def _chunks(inputs: Sequence[Tensor]) -> list[slice]:
    """Slices of the last axis with about ``POINTS_A_CHUNK`` points each; everything at once on a GPU."""
    shape = torch.broadcast_shapes(*(i.shape for i in inputs))
    voxels = shape[-1] if shape else 1
    size = max(1, POINTS_A_CHUNK * voxels // max(1, math.prod(shape)))
    if inputs[0].device.type != "cpu" or voxels < 2 * size:
        size = voxels
    return [slice(first, first + size) for first in range(0, voxels, size)]


def _voxels(tensor: Tensor, part: slice) -> Tensor:
    return tensor[..., part] if tensor.ndim and tensor.shape[-1] > 1 else tensor


def _reduced(gradient: Tensor | float | None, like: Tensor) -> Tensor | None:
    if gradient is None:
        return None
    return gradient.sum_to_size(like.shape) if isinstance(gradient, Tensor) else torch.full_like(like, gradient)


def _joined(gradients: Sequence[Tensor], like: Tensor) -> Tensor:
    if len(gradients) == 1:
        return gradients[0]
    per_voxel = like.ndim > 0 and like.shape[-1] > 1
    return torch.cat(gradients, -1) if per_voxel else torch.stack(gradients).sum(0)


def saturate(solutes: int, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Water z and semisolid z after a saturation block; differentiable in every input, see :class:`Block`."""
    return _Saturation.apply(solutes, *inputs)
