"""One saturation block: water z (and semisolid z) after continuous-wave RF, with hand-derived derivatives.

This is the analytic R1rho solution, transient and steady state, with the exact 2 x 2 treatment of a z-only semisolid
pool. Against the full Bloch-McConnell equations it leaves out the transverse term sin^2(theta) cos(weff t)
exp(-R2rho t) in Z, where R2rho is at least (1 + cos^2(theta)) / (2 T2). Where the saturation is not long against
T2, this is nearly all of the error: for water alone with T2 = 2 s after 2 s at 2 uT and 3 T, Z is off by up to 0.41
near water and by 0.12 at 1 ppm. :func:`.regime.missing_term` gives the size of the term.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .exchange import EffectiveField, Exchange, FieldGradients
from .inputs import BlockInputs, SemisolidInputs, SoluteInputs
from .locked_water import Coupled, WaterAlone

_NO_SOLUTE_GRADIENTS: SoluteInputs[Tensor | None] = SoluteInputs(None, None, None, None)


@dataclass(frozen=True)
class Block:
    """A solved saturation block; all tensors broadcast against each other.

    Attributes:
        inputs: Inputs of the block.
        field: Effective field of water.
        exchanges: Exchange of every solute pool.
        R1rho: Relaxation rate of water along the effective field in 1/s.
        locked: Solution for the locked magnetisation.
    """

    inputs: BlockInputs[Tensor]
    field: EffectiveField
    exchanges: tuple[Exchange, ...]
    R1rho: Tensor
    locked: WaterAlone | Coupled

    @classmethod
    def solve(cls, inputs: BlockInputs[Tensor]) -> Block:
        """Solve a block."""
        field = EffectiveField.of(inputs.w1, inputs.offset)
        R1rho = torch.addcmul(field.cos2 * inputs.R1, field.sin2, inputs.R2)
        exchanges = []
        for solute in inputs.solutes:
            exchanges.append(Exchange.of(field, inputs.offset, solute))
            R1rho = R1rho + exchanges[-1].rate
        locked: WaterAlone | Coupled
        if inputs.semisolid is None:
            locked = WaterAlone.solve(inputs, field.cos2, R1rho)
        else:
            locked = Coupled.solve(inputs, inputs.semisolid, field.cos2, R1rho)
        return cls(inputs, field, tuple(exchanges), R1rho, locked)

    def starting_from(self, z0: Tensor, c0: Tensor) -> Block:
        """Return the block solved for other magnetisation before it, of which only the locked part depends on that."""
        return replace(self, inputs=replace(self.inputs, z0=z0, c0=c0), locked=self.locked.starting_from(z0, c0))

    @property
    def z(self) -> Tensor:
        """Longitudinal water magnetisation after the block."""
        return self.locked.z

    @property
    def c(self) -> Tensor:
        """Longitudinal semisolid magnetisation after the block (unchanged c0 without such a pool)."""
        return self.locked.c

    def gradients(
        self, gz: Tensor | float, gc: Tensor | float, needed: BlockInputs[bool]
    ) -> BlockInputs[Tensor | None]:
        """Return the reverse-mode derivatives of gz z + gc c.

        Args:
            gz: Weight of water z after the block.
            gc: Weight of semisolid z after the block.
            needed: Inputs with respect to which derivatives are needed.

        Returns:
            Derivatives at the full broadcast shape, None where not needed. Where neither RF nor offset differ between
            voxels, theirs are summed over the voxels already.
        """
        of_field = needed.w1 or needed.offset
        locked = self.locked.gradients(gz, gc, needed, of_field)
        of_solutes: list[SoluteInputs[Tensor | None]] = []
        of_exchanges: list[FieldGradients] = []
        for exchange, of_solute in zip(self.exchanges, needed.solutes, strict=True):
            if not (of_field or any(of_solute.flat())):
                of_solutes.append(_NO_SOLUTE_GRADIENTS)
                continue
            gradients = exchange.gradients(locked.R1rho, of_solute, of_field=of_field)
            of_solutes.append(gradients.solute)
            if gradients.field is not None:
                of_exchanges.append(gradients.field)
        g_w1 = g_offset = None
        if of_field and locked.cos2 is not None:
            g_w1, g_offset = self.field_gradients(locked.R1rho, locked.cos2, of_exchanges)
        return BlockInputs(
            w1=g_w1 if needed.w1 else None,
            offset=g_offset if needed.offset else None,
            duration=locked.duration if needed.duration else None,
            z0=locked.z0 if needed.z0 else None,
            c0=locked.c0 if needed.c0 else None,
            R1=locked.R1 if needed.R1 else None,
            R2=locked.R1rho * self.field.sin2 if needed.R2 else None,
            solutes=tuple(of_solutes),
            semisolid=_where_needed(locked.semisolid, needed.semisolid),
        )

    def field_gradients(
        self, g_R1rho: Tensor, g_cos2: Tensor, of_exchanges: Sequence[FieldGradients]
    ) -> tuple[Tensor, Tensor]:
        """Return the derivatives with respect to w1 and offset of what depends on them through the effective field.

        Args:
            g_R1rho: Derivative of a scalar with respect to R1rho.
            g_cos2: That with respect to cos^2(theta) at fixed R1rho.
            of_exchanges: Those of the exchange of every solute pool with respect to its part of the effective field.
        """
        inputs, field = self.inputs, self.field
        same_everywhere = inputs.w1.shape[-1:] == inputs.offset.shape[-1:] == (1,)

        def summed(g: Tensor) -> Tensor:
            return g.sum(-1, keepdim=True) if same_everywhere else g

        g_tilt = summed(g_R1rho * (inputs.R2 - inputs.R1) - g_cos2)
        g_total, g_w1_squared, g_offset = (g_tilt.new_zeros(()) for _ in range(3))
        for exchange in of_exchanges:
            g_tilt = g_tilt + summed(exchange.sin2)
            g_total = g_total + summed(exchange.total)
            g_w1_squared = g_w1_squared + summed(exchange.w1_squared)
            g_offset = g_offset + summed(exchange.pool_offset)
        g_tilt = g_tilt / field.total
        g_w1_squared = g_w1_squared + g_total + g_tilt * field.cos2
        g_offset_squared = g_total - g_tilt * field.sin2
        return 2 * inputs.w1 * g_w1_squared, g_offset + 2 * inputs.offset * g_offset_squared


def _where_needed(
    gradients: SemisolidInputs[Tensor] | None, needed: SemisolidInputs[bool] | None
) -> SemisolidInputs[Tensor | None] | None:
    if gradients is None or needed is None:
        return None
    return SemisolidInputs(*(g if n else None for g, n in zip(gradients.flat(), needed.flat(), strict=True)))
