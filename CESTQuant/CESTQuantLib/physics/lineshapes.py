"""Absorption lineshapes of the semisolid pool, and the rate at which RF saturates it.

All functions return pi g in s, where g is normalised over angular frequency: the integral of g(offset) over all offsets
in rad/s is 1, so that of pi g is pi. The saturation rate is then w1^2 pi g (Henkelman et al., Magn Reson Med
1993;29:759). To add a lineshape, write its function and name it in ``LINESHAPES``: model files, scenarios, pool files,
messages and both engines take their lineshapes from there.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


def lorentzian(offset_rad_per_s: Tensor, T2_s: Tensor) -> Tensor:
    """Return the Lorentzian absorption pi g = T2 / (1 + (offset T2)^2) in s.

    Args:
        offset_rad_per_s: Offset of the RF from the centre of the line, in rad/s.
        T2_s: Transverse relaxation time of the pool in s; broadcasts against the offset.
    """
    return T2_s / (1 + (offset_rad_per_s * T2_s) ** 2)


def gaussian(offset_rad_per_s: Tensor, T2_s: Tensor) -> Tensor:
    """Return the Gaussian absorption pi g = pi T2 / sqrt(2 pi) exp(-(offset T2)^2 / 2) in s.

    With Delta the offset in Hz, this is pi times g(Delta) = T2 / sqrt(2 pi) exp(-(2 pi Delta T2)^2 / 2) of Henkelman
    et al., Magn Reson Med 1993;29:759. It fits agar and other gels; tissue has longer wings (Morrison and Henkelman,
    Magn Reson Med 1995;33:475).

    Args:
        offset_rad_per_s: Offset of the RF from the centre of the line, in rad/s.
        T2_s: Transverse relaxation time of the pool in s; broadcasts against the offset.
    """
    return math.sqrt(math.pi / 2) * T2_s * torch.exp(-0.5 * (offset_rad_per_s * T2_s) ** 2)


def super_lorentzian(offset_rad_per_s: Tensor, T2_s: Tensor, bridge_rad_per_s: float) -> Tensor:
    """Return the super-Lorentzian absorption pi g in s, by exact quadrature.

    It is the average of Gaussian lines over the orientations of axially symmetric molecules (Henkelman et al., Magn
    Reson Med 1993;29:759; Morrison and Henkelman, Magn Reson Med 1995;33:475):
    ``pi g = pi sqrt(2/pi) T2 integral over u in [0, 1] of exp(-2 (offset T2 / s)^2) / s`` with ``s = |3 u^2 - 1|``.
    It has a logarithmic singularity at its centre. For ``|offset| < bridge_rad_per_s`` it is continued by the
    parabola in the offset that meets the exact lineshape with equal value and slope.

    Args:
        offset_rad_per_s: Offset of the RF from the centre of the line, in rad/s.
        T2_s: Transverse relaxation time of the pool in s; broadcasts against the offset.
        bridge_rad_per_s: Half-width of the bridged centre in rad/s.
    """
    distinct, index = _distinct_rows(offset_rad_per_s, T2_s)
    magnitude = distinct.abs()
    outside = torch.clamp(magnitude, min=bridge_rad_per_s)
    scale = math.pi * math.sqrt(2 / math.pi) * T2_s

    def exact(offset: Tensor) -> Tensor:
        return scale * _super_lorentzian_integral(offset * T2_s)

    value = exact(outside)
    if bool((magnitude < bridge_rad_per_s).any()):
        edge = magnitude.new_tensor(bridge_rad_per_s)
        step = 1e-3 * bridge_rad_per_s
        slope = (exact(edge + step) - exact(edge - step)) / (2 * step)
        parabola = exact(edge) + slope * (magnitude**2 - edge**2) / (2 * edge)
        value = torch.where(magnitude < bridge_rad_per_s, parabola, value)
    return value if index is None else value[index]


def _distinct_rows(offset: Tensor, T2_s: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the distinct rows of offsets (measurement, voxel), and which of them each measurement has.

    A protocol repeats its offsets under every power, and their quadrature is then done once. The index is None where
    T2 has rows of its own or the offsets take part in a derivative, so that all rows are returned.
    """
    if offset.ndim != 2 or offset.requires_grad or (T2_s.ndim > 1 and T2_s.shape[-2] != 1):
        return offset, None
    distinct, index = torch.unique(offset, dim=0, return_inverse=True)
    return (offset, None) if len(distinct) == len(offset) else (distinct, index)


def _super_lorentzian_integral(x: Tensor) -> Tensor:
    """Integral over u in [0, 1] of exp(-2 (x/s)^2) / s with s = |3u^2 - 1|, for x > 0; accurate to 1e-12.

    The peak at s = 0 is resolved by integrating over log s on both sides of u = 1/sqrt(3).
    """
    root3 = math.sqrt(3.0)
    cutoff = 4.25  # exp(-2 * 4.25^2) = 2e-16: nothing left for s < x / 4.25
    smallest = x / cutoff

    def side(largest: float, sign: float) -> Tensor:
        node, weight = _gauss_legendre(48, x)
        low = torch.log(torch.clamp(smallest, max=largest))
        span = math.log(largest) - low
        s = torch.exp(low + node * span)
        integrand = torch.exp(-2 * (x / s) ** 2) / (2 * root3 * torch.sqrt(1 + sign * s))
        return (weight * integrand).sum(0) * span

    node, weight = _gauss_legendre(16, x)
    u = node / math.sqrt(6.0)  # s from 1 down to 1/2, smooth in u
    s = 1 - 3 * u**2
    center = (weight * torch.exp(-2 * (x / s) ** 2) / s).sum(0) / math.sqrt(6.0)
    return side(2.0, 1.0) + side(0.5, -1.0) + center


def _gauss_legendre(count: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and weights on [0, 1] along a new first axis in front of the axes of ``like``."""
    nodes, weights = _nodes_and_weights(count)
    shape = (count,) + (1,) * like.ndim
    return like.new_tensor(nodes).reshape(shape), like.new_tensor(weights).reshape(shape)


@functools.cache
def _nodes_and_weights(count: int) -> tuple[np.ndarray, np.ndarray]:
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return (nodes + 1) / 2, weights / 2


@dataclass(frozen=True)
class Lineshape:
    """An absorption lineshape that a z-only semisolid pool may have.

    Attributes:
        title: Name in text.
        absorption: Function of the offset (rad/s) and T2 (s) that returns pi g in s; tensors broadcast. A singular
            lineshape also takes the half-width of its bridged centre in rad/s.
        singular: Whether the lineshape diverges at its centre, so that the centre is bridged.
    """

    title: str
    absorption: Callable[..., Tensor]
    singular: bool = False


LINESHAPES: dict[str, Lineshape] = {
    "lorentzian": Lineshape("Lorentzian", lorentzian),
    "superlorentzian": Lineshape("super-Lorentzian", super_lorentzian, singular=True),
    "gaussian": Lineshape("Gaussian", gaussian),
}
"""Lineshapes by the name that model files, scenarios and pool files give them."""


def lineshape_named(name: str) -> Lineshape:
    """Return a lineshape by its name in ``LINESHAPES``.

    Raises:
        ValueError: There is no such lineshape; the message lists the known ones.
    """
    if not isinstance(name, str) or name not in LINESHAPES:
        raise ValueError(f"semisolid lineshape '{name}' is unknown; use one of {', '.join(LINESHAPES)}")
    return LINESHAPES[name]


def plain_name(name: str) -> str:
    """Return the name of a lineshape without capitals, hyphens and underscores.

    Files of other simulators spell names in several ways: 'Super-Lorentzian' is 'superlorentzian'.
    """
    return name.lower().replace("-", "").replace("_", "")


def saturation_rate(
    lineshape: str, w1_rad_per_s: Tensor, offset_rad_per_s: Tensor, T2_s: Tensor, bridge_rad_per_s: float
) -> Tensor:
    """Return the rate R_rf = w1^2 pi g(offset) in 1/s at which RF saturates a z-only semisolid pool.

    Args:
        lineshape: Name in ``LINESHAPES``.
        w1_rad_per_s: RF amplitude as an angular frequency in rad/s.
        offset_rad_per_s: Offset of the RF from the centre of the pool's line, in rad/s; tensors broadcast.
        T2_s: Transverse relaxation time of the pool in s.
        bridge_rad_per_s: Half-width in rad/s of the bridged centre of a singular lineshape; not used by the others.

    Raises:
        ValueError: The lineshape is unknown.
    """
    shape = lineshape_named(lineshape)
    bridge = (bridge_rad_per_s,) if shape.singular else ()
    return w1_rad_per_s**2 * shape.absorption(offset_rad_per_s, T2_s, *bridge)
