"""Rotating-frame relaxation of water by exchange with solutes under continuous-wave RF.

Trott and Palmer, J Magn Reson 2002;154:157; Zaiss and Bachert, NMR Biomed 2013;26:507. All quantities are tensors that
broadcast together: angular frequencies in rad/s, rates in 1/s. Each class keeps the intermediate values of its formula,
so that its hand-derived derivatives can use them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from .inputs import SoluteInputs

_TINY_FREQUENCY_SQUARED = 1e-6  # (rad/s)^2; gives theta = 0 where neither RF nor offset is left
_TINY = 1e-12  # (rad/s)^2; keeps 0/0 away where neither RF nor exchange is left


def free_relaxation_rate(R2: Tensor, solutes: Iterable[SoluteInputs[Tensor]]) -> Tensor:
    """Return the R2 of water in free precession, which exchange with solutes of small fractions broadens.

    Swift and Connick, J Chem Phys 1962;37:307: each pool adds ``f k [R2 (R2 + k) + dw^2] / [(R2 + k)^2 + dw^2]``.

    Args:
        R2: Transverse relaxation rate of water alone in 1/s.
        solutes: Pools that exchange with it.
    """
    for solute in solutes:
        width, squared = solute.R2 + solute.k, solute.dw * solute.dw
        share = (solute.R2 * width + squared) / (width * width + squared + _TINY)
        R2 = R2 + solute.fraction * solute.k * share
    return R2


@dataclass(frozen=True)
class EffectiveField:
    """The field along which the water magnetisation is locked, tilted by theta from z.

    Attributes:
        w1_squared: Squared RF amplitude in (rad/s)^2.
        offset_squared: Squared offset of water from the RF in (rad/s)^2.
        total: Their sum weff^2 in (rad/s)^2.
        sin2: sin^2(theta).
        cos2: cos^2(theta).
    """

    w1_squared: Tensor
    offset_squared: Tensor
    total: Tensor
    sin2: Tensor
    cos2: Tensor

    @classmethod
    def of(cls, w1: Tensor, offset: Tensor) -> EffectiveField:
        """Return the field of an RF amplitude and an offset of water from the RF, both in rad/s."""
        w1_squared = w1 * w1
        offset_squared = offset * offset + _TINY_FREQUENCY_SQUARED
        total = w1_squared + offset_squared
        return cls(w1_squared, offset_squared, total, w1_squared / total, offset_squared / total)


@dataclass(frozen=True)
class FieldGradients:
    """Derivatives with respect to what the effective field contributes to an exchange rate, each at fixed others.

    Attributes:
        sin2: With respect to sin^2(theta).
        total: With respect to weff^2.
        w1_squared: With respect to w1^2.
        pool_offset: With respect to the offset of the pool from the RF.
    """

    sin2: Tensor
    total: Tensor
    w1_squared: Tensor
    pool_offset: Tensor


@dataclass(frozen=True)
class ExchangeGradients:
    """Derivatives of an exchange rate.

    Attributes:
        solute: With respect to the quantities of the pool; None where not needed.
        field: With respect to the effective field; None where not needed.
    """

    solute: SoluteInputs[Tensor | None]
    field: FieldGradients | None


@dataclass(frozen=True)
class Exchange:
    """Exchange-dependent relaxation Rex of one solute pool, R_ex of Zaiss and Bachert (all orders in R2/k).

    ``Rex = f k sin^2(theta) [dw^2 + (R2/k) weff^2 + R2 (k + R2)] / [w1^2 (R2 + k)/k + (R2 + k)^2 + D^2]``; numerator
    and denominator are multiplied by k, so that k = 0 is no special case. D is the offset of the pool from the RF.

    Attributes:
        field: Effective field of water.
        solute: Quantities of the pool.
        pool_offset: D in rad/s.
        width: R2 + k in 1/s.
        numerator: The first bracket times k.
        denominator: The second bracket times k.
        ratio: Rex / (f k).
        rate: Rex in 1/s.
    """

    field: EffectiveField
    solute: SoluteInputs[Tensor]
    pool_offset: Tensor
    width: Tensor
    numerator: Tensor
    denominator: Tensor
    ratio: Tensor
    rate: Tensor

    @classmethod
    def of(cls, field: EffectiveField, offset: Tensor, solute: SoluteInputs[Tensor]) -> Exchange:
        """Return the exchange of a pool; ``offset`` is that of water from the RF in rad/s."""
        k, R2, dw = solute.k, solute.R2, solute.dw
        pool_offset = offset + dw
        width = R2 + k
        numerator = torch.addcmul(k * (dw * dw + R2 * width), R2, field.total)
        denominator = torch.addcmul(width * width, pool_offset, pool_offset)
        denominator = torch.addcmul(width * (field.w1_squared + _TINY), k, denominator)
        ratio = field.sin2 * numerator / denominator
        rate = solute.fraction * k * ratio
        return cls(field, solute, pool_offset, width, numerator, denominator, ratio, rate)

    def gradients(self, g: Tensor | float, needed: SoluteInputs[bool], *, of_field: bool = False) -> ExchangeGradients:
        """Return the reverse-mode derivatives of g times the rate.

        Args:
            g: Derivative of a scalar with respect to the rate.
            needed: Quantities of the pool with respect to which derivatives are needed.
            of_field: Whether derivatives with respect to the effective field are needed.
        """
        field, solute, k, R2, width = self.field, self.solute, self.solute.k, self.solute.R2, self.width
        g_over_denominator = g / self.denominator
        g_over_sin2 = g_over_denominator * self.numerator
        g_ratio = g_over_sin2 * field.sin2
        g_fraction = g_ratio * k if needed.fraction else None
        if not (needed.k or needed.R2 or needed.dw or of_field):
            return ExchangeGradients(SoluteInputs(g_fraction, None, None, None), None)
        exchanged = solute.fraction * k
        g_numerator = g_over_denominator * field.sin2 * exchanged
        g_denominator = g_ratio * exchanged / -self.denominator
        g_k = g_R2 = g_dw = field_gradients = None
        if needed.k:
            d_numerator = solute.dw * solute.dw + R2 * (width + k)
            d_denominator = torch.addcmul(
                field.w1_squared + width * (width + 2 * k), self.pool_offset, self.pool_offset
            )
            g_k = torch.addcmul(g_ratio * solute.fraction, g_numerator, d_numerator)
            g_k.addcmul_(g_denominator, d_denominator)
        if needed.R2:
            g_R2 = g_numerator * (field.total + k * (width + R2))
            g_R2.addcmul_(g_denominator, field.w1_squared + 2 * k * width)
        if needed.dw or of_field:
            g_offset = g_denominator * (2 * k * self.pool_offset)
            if needed.dw:
                g_dw = torch.addcmul(g_offset, g_numerator, 2 * k * solute.dw)
            if of_field:
                g_sin2 = g_over_sin2 * exchanged
                field_gradients = FieldGradients(g_sin2, g_numerator * R2, g_denominator * width, g_offset)
        return ExchangeGradients(SoluteInputs(g_fraction, g_k, g_R2, g_dw), field_gradients)
