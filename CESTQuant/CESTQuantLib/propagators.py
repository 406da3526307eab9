"""Propagators of linear magnetisation dynamics dM/dt = A M + c, batched with the batch axes LAST.

A generator ``[A | c]`` and a propagator ``M -> M + X M + g`` are tensors of shape ``(n, n + 1, *batch)``: the
square part followed by the inhomogeneous column. Keeping the small matrix axes first makes every product a
handful of contiguous multiply-adds over the whole batch, several times faster than batched matrix products for
the 6 to 19 rows needed here. Propagators hold X = exp(A t) - 1 rather than exp(A t), so that squaring keeps slow
longitudinal decay exact. Exponentials are always taken in float64: once the precession angle exceeds 1 rad, each
further squaring doubles the rounding of the slow decay, which in float32 cost up to 1.5e-4 in Z. A float32
propagator is the rounded float64 one (5e-7 in Z).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_TAYLOR_ORDER = 16
_MAX_NORM = 0.7


def product(first: Tensor, second: Tensor) -> Tensor:
    """Product of the affine parts, (n, n + 1, *batch); the square part of ``first`` acts on ``second``."""
    n = first.shape[0]
    result = first[:, 0, None] * second[None, 0]
    for k in range(1, n):
        result.addcmul_(first[:, k, None], second[None, k])
    return result


def compose(later: Tensor, earlier: Tensor) -> Tensor:
    """Propagator of ``earlier`` followed by ``later``."""
    return later + earlier + product(later, earlier)


def apply(propagator: Tensor, magnetisation: Tensor) -> Tensor:
    """Magnetisation (n, *batch) after a propagator (n, n + 1, *batch)."""
    n = propagator.shape[0]
    change = propagator[:, n] + propagator[:, 0] * magnetisation[0]
    for k in range(1, n):
        change = torch.addcmul(change, propagator[:, k], magnetisation[k])
    return magnetisation + change


def scaling_steps(generator: Tensor, duration_s: Tensor) -> int:
    """Halvings of the duration after which the Taylor series of the exponential converges to rounding."""
    n = generator.shape[0]
    norm = (generator[:, :n].detach().abs().sum(1).amax(0) * duration_s.detach()).max()
    if not math.isfinite(float(norm)):
        return 0
    return max(0, math.ceil(math.log2(max(float(norm), 1e-30) / _MAX_NORM)))


def propagator(generator: Tensor, duration_s: Tensor) -> Tensor:
    """X = exp(A t) - 1 and g = (exp(A t) - 1) A^-1 c of a generator (n, n + 1, *batch), by scaling and squaring.

    duration_s: s, broadcasts against the batch. The inhomogeneous column needs no inverse of A.
    """
    exact = generator.double()
    steps = scaling_steps(exact, duration_s)
    x = _taylor(exact * (duration_s / 2**steps))
    for _ in range(steps):
        x = 2 * x + product(x, x)
    return x.to(generator.dtype)


def _taylor(a: Tensor) -> Tensor:
    """exp(a) - 1 of an affine generator to order 16 with six products (Paterson and Stockmeyer 1973)."""
    powers = [a]
    for _ in range(3):
        powers.append(product(a, powers[-1]))
    coefficient = [1 / math.factorial(i) for i in range(_TAYLOR_ORDER + 1)]

    def block(start: int) -> Tensor:
        total = powers[0] * coefficient[start + 1]
        for i in range(1, 3):
            total = total + powers[i] * coefficient[start + 1 + i]
        return total

    # exp(a) - 1 = B0 + a^4 (c4 + B1 + a^4 (c8 + B2 + a^4 (c12 + B3 + c16 a^4)))
    a4 = powers[3]
    inner = block(12) + a4 * coefficient[16]
    for start in (8, 4, 0):
        inner = block(start) + a4 * coefficient[start + 4] + product(a4, inner)
    return inner
