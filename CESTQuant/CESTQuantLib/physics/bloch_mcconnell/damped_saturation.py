"""Continuous-wave saturation by contour integration, for pools whose precession dies out within it.

M(t) = Mss + exp(A t) (M0 - Mss), with exp(A t) w = sum over nodes of 2 Re[c (z - A t)^-1 w] on Talbot's contour around
the negative real axis (Weideman 2006; Dingfelder and Weideman, Numer Algorithms 2015;68:167). The sum is exact to
6e-11 for every rate on the negative real axis and for every oscillation damped by at least exp(-25), so it holds
wherever :meth:`DampedSaturation.holds` says so. Pools exchange with water only: each resolvent is a handful of 3 x 3
inverses in closed form, many times cheaper than the exponential of the full matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from ..lineshapes import saturation_rate
from ..pools import Scalar, Tissue
from .equations import Field

DAMPING = 23.0
"""Exponent by which precession must have decayed; exp(-23) = 1e-10."""
_NODES = 18


@cache
def _contour() -> tuple[np.ndarray, np.ndarray]:
    """Nodes z and weights c in the upper half plane."""
    theta = np.pi * (2 * np.arange(_NODES // 2) + 1) / _NODES
    sigma, mu, nu, alpha = 0.6122, 0.5017, 0.2645, 0.6407
    z = _NODES * (-sigma + mu * theta / np.tan(alpha * theta) + 1j * nu * theta)
    slope = _NODES * (mu / np.tan(alpha * theta) - mu * alpha * theta / np.sin(alpha * theta) ** 2 + 1j * nu)
    return z, np.exp(z) * slope / (1j * _NODES)


@dataclass(frozen=True)
class _Pattern:
    """The 3 x 3 matrix [[a, -b, -c], [b, d, e], [-c, -e, g]]: the resolvent of a pool under RF, and sums of such."""

    a: Tensor
    b: Tensor
    c: Tensor
    d: Tensor
    e: Tensor
    g: Tensor

    @classmethod
    def resolvent(cls, z: Tensor, r1: Tensor, r2: Tensor, offset: Tensor, w1: Tensor) -> _Pattern:
        """Inverse of z - A for one pool with total decay rates r1, r2, precessing at ``offset`` and nutating at w1."""
        alpha, beta = z + r2, z + r1
        both, square = alpha * beta, alpha * alpha + offset * offset
        inverse = 1 / (beta * square + alpha * (w1 * w1))
        alpha, both = alpha * inverse, both * inverse
        return cls(
            both + (w1 * w1) * inverse,
            offset * (beta * inverse),
            (offset * w1) * inverse,
            both,
            alpha * w1,
            square * inverse,
        )

    def times(self, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return (
            self.a * x - self.b * y - self.c * z,
            self.b * x + self.d * y + self.e * z,
            self.g * z - self.c * x - self.e * y,
        )


@dataclass(frozen=True)
class _PoolRates:
    """Rates in 1/s and angular frequencies in rad/s of one pool, broadcasting over (measurement, voxel)."""

    fraction: Scalar
    k: Scalar
    R1: Scalar
    R2: Scalar
    offset: Tensor


@dataclass(frozen=True)
class _System:
    """All pools under RF; state vectors are lists of components, water first, a z-only pool last."""

    water: _PoolRates
    pools: tuple[_PoolRates, ...]
    semisolid: tuple[Scalar, Scalar, Scalar, Tensor] | None  # fraction, k, R1, saturation rate
    w1: Tensor

    def source(self) -> list[Scalar]:
        """The inhomogeneous part of dM/dt."""
        components: list[Scalar] = [0.0, 0.0, self.water.R1]
        for pool in self.pools:
            components += [0.0, 0.0, pool.R1 * pool.fraction]
        if self.semisolid is not None:
            components.append(self.semisolid[2] * self.semisolid[0])
        return components

    def resolve(self, z: Tensor, right: Sequence[Scalar], *, water_z_only: bool = False) -> list[Tensor]:
        """Solution x of (z - A) x = right, by eliminating every pool from the equations of water."""
        leave, leave_z = 0.0, 0.0
        rx, ry, rz = right[:3]
        total = None
        resolvents = []
        for i, pool in enumerate(self.pools, start=1):
            resolvent = _Pattern.resolvent(z, pool.R1 + pool.k, pool.R2 + pool.k, pool.offset, self.w1)
            resolvents.append(resolvent)
            inflow = resolvent.times(*right[3 * i : 3 * i + 3])
            rx, ry, rz = rx + pool.k * inflow[0], ry + pool.k * inflow[1], rz + pool.k * inflow[2]
            back = pool.fraction * pool.k * pool.k
            own = [back * v for v in vars(resolvent).values()]
            total = own if total is None else [t + v for t, v in zip(total, own, strict=True)]
            leave = leave + pool.fraction * pool.k
        semisolid_inverse = None
        if self.semisolid is not None:
            fraction, k, R1, rate = self.semisolid
            semisolid_inverse = 1 / (z + (R1 + k + rate))
            rz = rz + k * (semisolid_inverse * right[-1])
            leave_z = fraction * k - (fraction * k * k) * semisolid_inverse
        a, b, c, d, e, g = total if total is not None else [0.0] * 6
        alpha = z + (self.water.R2 + leave)
        A, B, C = alpha - a, alpha - d, z + (self.water.R1 + leave) + leave_z - g
        p, q, s = self.water.offset + b, c, -(self.w1 + e)
        AB, BC, AC, ps, As = A * B, B * C, A * C, p * s, A * s
        pp, ss, qq, pq, qs, pC, Bq = p * p, s * s, q * q, p * q, q * s, p * C, B * q
        inverse = 1 / (A * (BC + ss) + pp * C + (2 * ps - Bq) * q)
        z_water = (ps - Bq) * rx + (As + pq) * ry + (AB + pp) * rz
        if water_z_only:
            return [z_water * inverse]
        x_water = ((BC + ss) * rx - (pC + qs) * ry + (ps - Bq) * rz) * inverse
        y_water = ((pC + qs) * rx + (AC - qq) * ry - (As + pq) * rz) * inverse
        z_water = z_water * inverse
        solution = [x_water, y_water, z_water]
        for i, (pool, resolvent) in enumerate(zip(self.pools, resolvents, strict=True), start=1):
            forward = pool.fraction * pool.k
            own = zip(right[3 * i : 3 * i + 3], (x_water, y_water, z_water), strict=True)
            solution += resolvent.times(*(r + forward * w for r, w in own))
        if semisolid_inverse is not None:
            solution.append(semisolid_inverse * (right[-1] + fraction * k * z_water))
        return solution


class DampedSaturation:
    """CW saturation of a tissue; rf_offset_ppm, duration_s: (measurement, 1), w1 broadcasts to (measurement, voxel).

    Float64 inside, whatever the inputs.
    """

    def __init__(
        self, tissue: Tissue, field: Field, rf_offset_ppm: Tensor, w1_rad_per_s: Tensor, duration_s: Tensor
    ) -> None:
        self.duration = duration_s.double()
        self.system = _system(tissue, field, rf_offset_ppm.double(), w1_rad_per_s.double())

    @torch.no_grad()
    def holds(self) -> Tensor:
        """(measurement,) bool: whether the precession of every pool in every voxel dies out within the saturation.

        The oscillating modes of a pool decay with r2 - (r2 - r1)/2 sin^2(theta), r1 and r2 being its total rates.
        """
        w1_squared = self.system.w1 * self.system.w1
        result = torch.ones(len(self.duration), dtype=torch.bool, device=self.duration.device)
        for pool in (self.system.water, *self.system.pools):
            sin2 = w1_squared / (w1_squared + pool.offset * pool.offset + 1e-6)
            rate = pool.R2 + pool.k - (pool.R2 - pool.R1) / 2 * sin2
            result &= (rate * self.duration).amin(1) >= DAMPING
        return result

    def magnetisation(self, start: Tensor, *, water_z_only: bool = False) -> Tensor:
        """Magnetisation (n, measurement, voxel) from start (n, 1, voxel), ordered as in :mod:`bloch_mcconnell`.

        With ``water_z_only`` just that component, (1, measurement, voxel).
        """
        system, start = self.system, start.double()
        steady = system.resolve(torch.zeros((), dtype=torch.float64, device=start.device), system.source())
        away = [m0 - m for m0, m in zip(start, steady, strict=True)]
        nodes, weights = (torch.from_numpy(v).to(start.device)[:, None, None] for v in _contour())
        decayed = system.resolve(nodes / self.duration, away, water_z_only=water_z_only)
        kept = steady[2:3] if water_z_only else steady
        weights = 2 * weights / self.duration
        return torch.stack([m + (weights * x).real.sum(0) for m, x in zip(kept, decayed, strict=True)])


def _system(tissue: Tissue, field: Field, rf_offset_ppm: Tensor, w1: Tensor) -> _System:
    def double(value: Scalar) -> Scalar:
        return value.double() if isinstance(value, Tensor) else value

    ppm, b0 = field.rad_per_s_per_ppm, double(field.b0_shift_ppm)

    def rates(fraction: Scalar, k: Scalar, T1_s: Scalar, T2_s: Scalar, dw_ppm: Scalar) -> _PoolRates:
        offset = (double(dw_ppm) + b0 - rf_offset_ppm) * ppm
        return _PoolRates(double(fraction), double(k), 1 / double(T1_s), 1 / double(T2_s), offset)

    water = rates(1.0, 0.0, tissue.water.T1_s, tissue.water.T2_s, 0.0)
    pools = tuple(rates(p.fraction, p.k_Hz, p.T1_s, p.T2_s, p.dw_ppm) for p in tissue.transverse_pools)
    semisolid, s = None, tissue.z_only_pool
    if s is not None:
        detuning = (double(s.dw_ppm) + b0 - rf_offset_ppm) * ppm
        T2_s = torch.as_tensor(double(s.T2_s), dtype=torch.float64)
        rate = saturation_rate(s.lineshape, w1, detuning, T2_s, s.bridge_ppm * ppm)
        semisolid = (double(s.fraction), double(s.k_Hz), 1 / double(s.T1_s), rate)
    return _System(water, pools, semisolid, w1)
