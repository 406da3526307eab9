"""Rotating-frame relaxation under continuous-wave RF (Trott and Palmer 2002; Zaiss and Bachert 2013).

All quantities are tensors that broadcast together: angular frequencies in rad/s, rates in 1/s. Each class keeps the
intermediate values of its formula so that the hand-derived derivatives beside it can use them.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

_TINY_FREQUENCY_SQUARED = 1e-6  # (rad/s)^2; gives theta = 0 where neither RF nor offset is left
_TINY = 1e-20


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
        numerator = k * (dw * dw + R2 * width) + R2 * field.total
        denominator = width * field.w1_squared + k * (width * width + pool_offset * pool_offset) + _TINY
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

    def d_fraction(self) -> Tensor:
        return self.k * self.ratio

    def d_k(self) -> Tensor:
        d_numerator = self.dw * self.dw + self.R2 * (self.width + self.k)
        d_denominator = (
            self.field.w1_squared + self.width * (self.width + 2 * self.k) + self.pool_offset * self.pool_offset
        )
        return self.fraction * self.ratio + self._relative(d_numerator, d_denominator)

    def d_R2(self) -> Tensor:
        d_numerator = self.field.total + self.k * (self.width + self.R2)
        return self._relative(d_numerator, self.field.w1_squared + 2 * self.k * self.width)

    def d_sin2(self) -> Tensor:
        return self.fraction * self.k * self.numerator / self.denominator

    def d_total(self) -> Tensor:
        """At fixed theta and fixed w1."""
        return self.rate * self.R2 / self.numerator

    def d_w1_squared(self) -> Tensor:
        """Of the denominator alone."""
        return -self.rate * self.width / self.denominator

    def d_pool_offset(self) -> Tensor:
        return -self.rate * (2 * self.k * self.pool_offset) / self.denominator

    def d_dw(self) -> Tensor:
        """At fixed pool offset."""
        return self.rate * (2 * self.k * self.dw) / self.numerator

    def _relative(self, d_numerator: Tensor, d_denominator: Tensor) -> Tensor:
        return self.rate * (d_numerator / self.numerator - d_denominator / self.denominator)
