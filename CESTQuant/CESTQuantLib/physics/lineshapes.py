"""Absorption lineshapes of the semisolid pool and its saturation rate."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor


def lorentzian(offset_rad_per_s: Tensor, T2_s: Tensor) -> Tensor:
    """Normalised Lorentzian absorption g in s, times pi: T2 / (1 + (offset T2)^2)."""
    return T2_s / (1 + (offset_rad_per_s * T2_s) ** 2)


@functools.cache
def _nodes(count: int) -> tuple[np.ndarray, np.ndarray]:
    x, w = np.polynomial.legendre.leggauss(count)
    return (x + 1) / 2, w / 2


def _gauss(count: int, like: Tensor) -> tuple[Tensor, Tensor]:
    x, w = _nodes(count)
    shape = (count,) + (1,) * like.ndim
    return like.new_tensor(x).reshape(shape), like.new_tensor(w).reshape(shape)


def _super_lorentzian_integral(x: Tensor) -> Tensor:
    """Integral over u in [0, 1] of exp(-2 (x/s)^2) / s with s = |3u^2 - 1|, for x > 0; accurate to 1e-12.

    The peak at s = 0 is resolved by integrating over log s on both sides of u = 1/sqrt(3).
    """
    root3 = math.sqrt(3.0)
    cutoff = 4.25  # exp(-2 * 4.25^2) = 2e-16: nothing left for s < x / 4.25
    smallest = x / cutoff

    def side(largest: float, sign: float) -> Tensor:
        node, weight = _gauss(48, x)
        low = torch.log(torch.clamp(smallest, max=largest))
        span = math.log(largest) - low
        s = torch.exp(low + node * span)
        integrand = torch.exp(-2 * (x / s) ** 2) / (2 * root3 * torch.sqrt(1 + sign * s))
        return (weight * integrand).sum(0) * span

    node, weight = _gauss(16, x)
    u = node / math.sqrt(6.0)  # s from 1 down to 1/2, smooth in u
    s = 1 - 3 * u**2
    centre = (weight * torch.exp(-2 * (x / s) ** 2) / s).sum(0) / math.sqrt(6.0)
    return side(2.0, 1.0) + side(0.5, -1.0) + centre


def super_lorentzian(offset_rad_per_s: Tensor, T2_s: Tensor, bridge_rad_per_s: float) -> Tensor:
    """Super-Lorentzian absorption g in s, times pi (Henkelman 1993, Morrison 1995), by exact quadrature.

    It has a logarithmic singularity at its centre. For ``|offset| < bridge_rad_per_s`` it is continued by the
    parabola in the offset that meets the exact lineshape with equal value and slope.
    """
    magnitude = offset_rad_per_s.abs()
    outside = torch.clamp(magnitude, min=bridge_rad_per_s)
    scale = math.pi * math.sqrt(2 / math.pi) * T2_s

    def exact(offset: Tensor) -> Tensor:
        return scale * _super_lorentzian_integral(offset * T2_s)

    value = exact(outside)
    if not bool((magnitude < bridge_rad_per_s).any()):
        return value
    edge = torch.full_like(magnitude, bridge_rad_per_s)
    step = 1e-3 * bridge_rad_per_s
    slope = (exact(edge + step) - exact(edge - step)) / (2 * step)
    parabola = exact(edge) + slope * (magnitude**2 - edge**2) / (2 * edge)
    return torch.where(magnitude < bridge_rad_per_s, parabola, value)


def saturation_rate(
    lineshape: str, w1_rad_per_s: Tensor, offset_rad_per_s: Tensor, T2_s: Tensor, bridge_rad_per_s: float
) -> Tensor:
    """Rate R_rf = w1^2 pi g(offset) in 1/s at which RF saturates a semisolid pool; tensors broadcast."""
    if lineshape == "lorentzian":
        pi_g = lorentzian(offset_rad_per_s, T2_s)
    else:
        pi_g = super_lorentzian(offset_rad_per_s, T2_s, bridge_rad_per_s)
    return w1_rad_per_s**2 * pi_g
