"""Rotating-frame relaxation under continuous-wave RF (Trott and Palmer 2002; Zaiss and Bachert 2013).

All quantities are tensors that broadcast together: angular frequencies in rad/s, rates in 1/s. Each class keeps the
intermediate values of its formula so that the hand-derived derivatives beside it can use them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_TINY_FREQUENCY_SQUARED = 1e-6  # (rad/s)^2; gives theta = 0 where neither RF nor offset is left
_TINY = 1e-12  # (rad/s)^2; keeps 0/0 away where neither RF nor exchange is left


@dataclass(frozen=True)
class EffectiveField:
    """The field about which the water magnetisation is locked, tilted by theta from z.

    w1_squared, offset_squared, total (weff^2) in (rad/s)^2; sin2 and cos2 of theta.
    """

    w1_squared: Tensor
    offset_squared: Tensor
    total: Tensor
    sin2: Tensor
    cos2: Tensor

    @classmethod
    def of(cls, w1: Tensor, offset: Tensor) -> EffectiveField:
        w1_squared = w1 * w1
        offset_squared = offset * offset + _TINY_FREQUENCY_SQUARED
        total = w1_squared + offset_squared
        return cls(w1_squared, offset_squared, total, w1_squared / total, offset_squared / total)


@dataclass(frozen=True)
class Exchange:
    """Exchange-dependent relaxation Rex of one solute pool, Zaiss and Bachert's R_ex (all orders in R2b/k).

    Rex = f k sin2 [dw^2 + (R2/k) weff^2 + R2 (k + R2)] / [w1^2 (R2 + k)/k + (R2 + k)^2 + D^2], with numerator and
    denominator multiplied by k so that k = 0 is no special case. D = offset + dw is the pool's own offset.
    """

    field: EffectiveField
    fraction: Tensor
    k: Tensor
    R2: Tensor
    dw: Tensor
    pool_offset: Tensor
    width: Tensor
    numerator: Tensor
    denominator: Tensor
    ratio: Tensor
    rate: Tensor

    @classmethod
    def of(cls, field: EffectiveField, offset: Tensor, fraction: Tensor, k: Tensor, R2: Tensor, dw: Tensor) -> Exchange:
        pool_offset = offset + dw
        width = R2 + k
        numerator = torch.addcmul(k * (dw * dw + R2 * width), R2, field.total)
        denominator = torch.addcmul(width * width, pool_offset, pool_offset)
        denominator = torch.addcmul(width * (field.w1_squared + _TINY), k, denominator)
        ratio = field.sin2 * numerator / denominator
        return cls(
            field,
            fraction,
            k,
            R2,
            dw,
            pool_offset,
            width,
            numerator,
            denominator,
            ratio,
            fraction * k * ratio,
        )

    def gradients(self, g: Tensor | float, needed: Sequence[bool], of_field: bool) -> ExchangeGradients:
        """Reverse-mode derivatives of g * rate; ``needed``: whether by fraction, k, R2 and dw."""
        field, k, width = self.field, self.k, self.width
        by_fraction, by_k, by_R2, by_dw = needed
        g_over_denominator = g / self.denominator
        g_over_sin2 = g_over_denominator * self.numerator
        g_ratio = g_over_sin2 * field.sin2
        own: list[Tensor | None] = [g_ratio * k if by_fraction else None, None, None, None]
        if not (by_k or by_R2 or by_dw or of_field):
            return ExchangeGradients(own, None, None, None, None)
        exchanged = self.fraction * k
        by_numerator = g_over_denominator * field.sin2 * exchanged
        by_denominator = g_ratio * exchanged / -self.denominator
        if by_k:
            d_numerator = self.dw * self.dw + self.R2 * (width + k)
            d_denominator = torch.addcmul(
                field.w1_squared + width * (width + 2 * k), self.pool_offset, self.pool_offset
            )
            own[1] = torch.addcmul(g_ratio * self.fraction, by_numerator, d_numerator)
            own[1].addcmul_(by_denominator, d_denominator)
        if by_R2:
            own[2] = by_numerator * (field.total + k * (width + self.R2))
            own[2].addcmul_(by_denominator, field.w1_squared + 2 * k * width)
        by_offset = None
        if by_dw or of_field:
            by_offset = by_denominator * (2 * k * self.pool_offset)
        if by_dw:
            own[3] = torch.addcmul(by_offset, by_numerator, 2 * k * self.dw)
        if not of_field:
            return ExchangeGradients(own, None, None, None, None)
        return ExchangeGradients(
            own, g_over_sin2 * exchanged, by_numerator * self.R2, by_denominator * width, by_offset
        )


@dataclass(frozen=True)
class ExchangeGradients:
    """Derivatives by (fraction, k, R2, dw) and by what the field contributes: sin2, total, w1^2 and the pool's offset.

    Each at fixed others; None where it was not asked for.
    """

    own: list[Tensor | None]
    sin2: Tensor | None
    total: Tensor | None
    w1_squared: Tensor | None
    pool_offset: Tensor | None
