"""Propagators of linear magnetisation dynamics dM/dt = A M + c, batched with the batch axes last.

A generator ``[A | c]`` and a propagator ``M -> M + X M + g`` are tensors of shape ``(n, n + 1, *batch)``: the square
part followed by the inhomogeneous column. With the small matrix axes first, every product is a handful of contiguous
multiply-adds over the whole batch, several times faster than batched matrix products for the 6 rows of two pools.
From 9 rows on batched products are faster; there the same tensors are views of memory with the matrix axes last.

Propagators hold X = exp(A t) - 1 rather than exp(A t), so that squaring keeps slow longitudinal decay exact.
Exponentials are always computed in float64: once the precession angle exceeds 1 rad, each further squaring doubles the
rounding error of the slow decay, which in float32 cost up to 1.5e-4 in Z. A float32 propagator is the rounded float64
one (5e-7 in Z).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_TAYLOR_ORDER = 16
_MAX_NORM = 0.7
"""Norm of A t up to which the Taylor series converges to rounding."""
_BATCHED_FROM = 9
"""Rows from which on batched matrix products beat multiply-adds over the batch (measured in the processor's cache)."""


def product(first: Tensor, second: Tensor) -> Tensor:
    """Multiply the square part of ``first`` by all of ``second``; both and the result are ``(n, n + 1, *batch)``."""
    n = first.shape[0]
    if n >= _BATCHED_FROM:
        return _matrix_first(torch.matmul(_matrix_last(first)[..., :n], _matrix_last(second)))
    result = first[:, 0, None] * second[None, 0]
    for k in range(1, n):
        result.addcmul_(first[:, k, None], second[None, k])
    return result


def compose(later: Tensor, earlier: Tensor) -> Tensor:
    """Return the propagator of ``earlier`` followed by ``later``, ``(n, n + 1, *batch)`` like both."""
    return later + earlier + product(later, earlier)


def power(propagator: Tensor, exponent: int) -> Tensor:
    """Return the propagator applied ``exponent`` (at least 1) times, by repeated squaring."""
    result, base = None, propagator
    while exponent > 1:
        if exponent & 1:
            result = base if result is None else compose(base, result)
        base = compose(base, base)
        exponent >>= 1
    return base if result is None else compose(base, result)


def apply(propagator: Tensor, magnetization: Tensor) -> Tensor:
    """Return the magnetisation ``(n, *batch)`` after a propagator ``(n, n + 1, *batch)``."""
    n = propagator.shape[0]
    if n >= _BATCHED_FROM:
        return magnetization + _change(_matrix_last(propagator), magnetization)
    change = propagator[:, n] + propagator[:, 0] * magnetization[0]
    for k in range(1, n):
        change = torch.addcmul(change, propagator[:, k], magnetization[k])
    return magnetization + change


def propagator(generator: Tensor, duration_s: Tensor) -> Tensor:
    """Compute the propagator of a generator by scaling and squaring.

    Args:
        generator: [A | c] of shape ``(n, n + 1, *batch)``.
        duration_s: Duration t in s; broadcasts against the batch.

    Returns:
        X = exp(A t) - 1 and g = (exp(A t) - 1) A^-1 c, of shape ``(n, n + 1, *batch)`` and the dtype of the generator.
        The inhomogeneous column needs no inverse of A.
    """
    exact = generator.double()
    if len(exact) >= _BATCHED_FROM:
        exact = _matrix_first(_matrix_last(exact).contiguous())
    steps = scaling_steps(exact, duration_s)
    x = _taylor(exact * (duration_s / 2**steps))
    for _ in range(steps):
        x = _plus_product(2.0, x, x, x)
    return x.to(generator.dtype)


def scaling_steps(generator: Tensor, duration_s: Tensor) -> int:
    """Return how often the duration must be halved for the Taylor series to converge to rounding.

    Generators that are not finite count for nothing: their propagators are not finite either.
    """
    n = generator.shape[0]
    norms = generator[:, :n].detach().abs().sum(1).amax(0) * duration_s.detach()
    norm = float(torch.where(torch.isfinite(norms), norms, 0.0).max())
    return max(0, math.ceil(math.log2(max(norm, 1e-30) / _MAX_NORM)))


def _taylor(a: Tensor) -> Tensor:
    """exp(a) - 1 of an affine generator to order 16 with six products (Paterson and Stockmeyer 1973)."""
    powers = [a]
    for _ in range(3):
        powers.append(product(a, powers[-1]))
    coefficient = [1 / math.factorial(i) for i in range(_TAYLOR_ORDER + 1)]

    def block(start: int) -> Tensor:
        total = powers[0] * coefficient[start + 1]
        for i in range(1, 4):
            total = torch.add(total, powers[i], alpha=coefficient[start + 1 + i])
        return total

    # exp(a) - 1 = B0 + a^4 (B1 + a^4 (B2 + a^4 B3)), where B_i holds the four powers from 4 i + 1 to 4 i + 4
    inner = block(12)
    for start in (8, 4, 0):
        inner = _plus_product(1.0, block(start), powers[3], inner)
    return inner


def _plus_product(scale: float, total: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """scale x total + product(first, second) in one pass; all three ``(n, n + 1, *batch)``."""
    n = first.shape[0]
    if n < _BATCHED_FROM:
        return product(first, second).add_(total, alpha=scale)
    added, left, right = (_matrix_last(matrices).reshape(-1, n, n + 1) for matrices in (total, first, second))
    result = torch.baddbmm(added, left[..., :n], right, beta=scale)
    return _matrix_first(result.reshape(_matrix_last(total).shape))


def _change(matrices: Tensor, magnetization: Tensor) -> Tensor:
    n = matrices.shape[-2]
    moved = torch.matmul(matrices[..., :n], magnetization.movedim(0, -1).unsqueeze(-1)).squeeze(-1)
    return (moved + matrices[..., n]).movedim(-1, 0)


def _matrix_last(tensor: Tensor) -> Tensor:
    return tensor.movedim((0, 1), (-2, -1))


def _matrix_first(tensor: Tensor) -> Tensor:
    return tensor.movedim((-2, -1), (0, 1))
