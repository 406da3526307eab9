"""Continuous-wave saturation by contour integration, for pools whose precession dies out within it.

M(t) = Mss + exp(A t) (M0 - Mss), where exp(A t) w is the sum over nodes of 2 Re[c (z - A t)^-1 w] on Talbot's contour
around the negative real axis (Weideman, SIAM J Numer Anal 2006;44:2342; Dingfelder and Weideman, Numer Algorithms
2015;68:167). The sum is exact to 6e-11 for every rate on the negative real axis and for every oscillation damped by at
least exp(-25), so it holds wherever :meth:`DampedSaturation.holds` says so. Pools exchange with water only: each
resolvent is a handful of 3 x 3 inverses in closed form, many times cheaper than the exponential of the full matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..lineshapes import saturation_rate
from ..pools import Scalar, Tissue
from .equations import WATER, Field, x_row, y_row, z_row

DAMPING = 23.0
"""Exponent by which precession must have decayed; exp(-23) = 1e-10."""
_NODES = 18

Component = TypeVar("Component", covariant=True)


@cache
def _contour() -> tuple[np.ndarray, np.ndarray]:
    """Nodes z and weights c in the upper half plane."""
    theta = np.pi * (2 * np.arange(_NODES // 2) + 1) / _NODES
    sigma, mu, nu, alpha = 0.6122, 0.5017, 0.2645, 0.6407
    z = _NODES * (-sigma + mu * theta / np.tan(alpha * theta) + 1j * nu * theta)
    slope = _NODES * (mu / np.tan(alpha * theta) - mu * alpha * theta / np.sin(alpha * theta) ** 2 + 1j * nu)
    return z, np.exp(z) * slope / (1j * _NODES)


@dataclass(frozen=True)
class _Vector(Generic[Component]):
    """x, y and z of one pool."""

    x: Component
    y: Component
    z: Component


@dataclass(frozen=True)
class _State(Generic[Component]):
    """Magnetisation, or its rate of change: of water, of the other pools, and z of a z-only semisolid pool."""

    water: _Vector[Component]
    pools: tuple[_Vector[Component], ...]
    semisolid: Component | None

    def components(self) -> list[Component]:
        """Components in the order of :mod:`.equations`."""
        vectors = (self.water, *self.pools)
        components = [component for vector in vectors for component in (vector.x, vector.y, vector.z)]
        return components if self.semisolid is None else [*components, self.semisolid]


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
    def resolvent(cls, z: Tensor, r1: Scalar, r2: Scalar, offset: Tensor, w1: Tensor) -> _Pattern:
        """Inverse of z - A for one pool with total decay rates r1, r2, precessing at ``offset`` and nutating at w1."""
        alpha, beta = z + r2, z + r1
        both, square = alpha * beta, alpha * alpha + offset * offset
        inverse = 1 / (beta * square + alpha * (w1 * w1))
        alpha, both = alpha * inverse, both * inverse
        return cls(
            a=both + (w1 * w1) * inverse,
            b=offset * (beta * inverse),
            c=(offset * w1) * inverse,
            d=both,
            e=alpha * w1,
            g=square * inverse,
        )

    def times(self, vector: _Vector[Scalar]) -> _Vector[Tensor]:
        """Product with a vector."""
        x, y, z = vector.x, vector.y, vector.z
        return _Vector(
            self.a * x - self.b * y - self.c * z,
            self.b * x + self.d * y + self.e * z,
            self.g * z - self.c * x - self.e * y,
        )

    def scaled(self, factor: Scalar) -> _Pattern:
        """The matrix times a number."""
        return _Pattern(
            factor * self.a, factor * self.b, factor * self.c, factor * self.d, factor * self.e, factor * self.g
        )

    def plus(self, other: _Pattern) -> _Pattern:
        """Sum of two matrices."""
        return _Pattern(
            self.a + other.a,
            self.b + other.b,
            self.c + other.c,
            self.d + other.d,
            self.e + other.e,
            self.g + other.g,
        )


@dataclass(frozen=True)
class _WaterEquations:
    """The 3 x 3 system [[A, p, q], [-p, B, s], [q, -s, C]] x = right of water, all other pools being eliminated."""

    A: Tensor
    B: Tensor
    C: Tensor
    p: Tensor
    q: Scalar
    s: Tensor
    right: _Vector[Scalar]

    def solve_z(self) -> Tensor:
        """z of the solution."""
        return self._z(*self._cofactors())

    def solve(self) -> _Vector[Tensor]:
        """The solution."""
        p, q, s = self.p, self.q, self.s
        cofactors = xx, xz, yz, _, inverse = self._cofactors()
        xy, yy = p * self.C + q * s, self.A * self.C - q * q
        x, y, z = self.right.x, self.right.y, self.right.z
        return _Vector((xx * x - xy * y + xz * z) * inverse, (xy * x + yy * y - yz * z) * inverse, self._z(*cofactors))

    def _z(self, xx: Tensor, xz: Tensor, yz: Tensor, zz: Tensor, inverse: Tensor) -> Tensor:
        return (xz * self.right.x + yz * self.right.y + zz * self.right.z) * inverse

    def _cofactors(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Cofactors xx, xz, yz and zz of the matrix, and the inverse of its determinant."""
        A, B, C, p, q, s = self.A, self.B, self.C, self.p, self.q, self.s
        ps, Bq, pp = p * s, B * q, p * p
        xx = B * C + s * s
        inverse = 1 / (A * xx + pp * C + (2 * ps - Bq) * q)
        return xx, ps - Bq, A * s + p * q, A * B + pp, inverse


@dataclass(frozen=True)
class _PoolRates:
    """Rates in 1/s and angular frequencies in rad/s of one pool, broadcasting over (measurement, voxel)."""

    fraction: Scalar
    k: Scalar
    R1: Scalar
    R2: Scalar
    offset: Tensor


@dataclass(frozen=True)
class _SemisolidRates:
    """Rates in 1/s of the z-only semisolid pool, broadcasting over (measurement, voxel)."""

    fraction: Scalar
    k: Scalar
    R1: Scalar
    saturation: Tensor


@dataclass(frozen=True)
class _Resolvents:
    """Inverses of z - A of every pool by itself; None where there is no z-only semisolid pool."""

    pools: list[_Pattern]
    semisolid: Tensor | None


@dataclass(frozen=True)
class _System:
    """All pools under RF."""

    water: _PoolRates
    pools: tuple[_PoolRates, ...]
    semisolid: _SemisolidRates | None
    w1: Tensor

    def source(self) -> _State[Scalar]:
        """The inhomogeneous part of dM/dt."""
        return _State(
            _Vector(0.0, 0.0, self.water.R1),
            tuple(_Vector(0.0, 0.0, pool.R1 * pool.fraction) for pool in self.pools),
            None if self.semisolid is None else self.semisolid.R1 * self.semisolid.fraction,
        )

    def resolve_water_z(self, z: Tensor, right: _State[Scalar]) -> Tensor:
        """Water z of the solution x of (z - A) x = right."""
        return self._water_equations(z, right, self._resolvents(z)).solve_z()

    def resolve(self, z: Tensor, right: _State[Scalar]) -> _State[Tensor]:
        """Solution x of (z - A) x = right, by eliminating every pool from the equations of water."""
        resolvents = self._resolvents(z)
        water = self._water_equations(z, right, resolvents).solve()
        pools = []
        for pool, resolvent, source in zip(self.pools, resolvents.pools, right.pools, strict=True):
            forward = pool.fraction * pool.k
            into = _Vector(source.x + forward * water.x, source.y + forward * water.y, source.z + forward * water.z)
            pools.append(resolvent.times(into))
        semisolid = None
        if self.semisolid is not None and resolvents.semisolid is not None and right.semisolid is not None:
            into_semisolid = right.semisolid + self.semisolid.fraction * self.semisolid.k * water.z
            semisolid = resolvents.semisolid * into_semisolid
        return _State(water, tuple(pools), semisolid)

    def _resolvents(self, z: Tensor) -> _Resolvents:
        patterns = [
            _Pattern.resolvent(z, pool.R1 + pool.k, pool.R2 + pool.k, pool.offset, self.w1) for pool in self.pools
        ]
        if self.semisolid is None:
            return _Resolvents(patterns, None)
        rate = self.semisolid.R1 + self.semisolid.k + self.semisolid.saturation
        return _Resolvents(patterns, 1 / (z + rate))

    def _water_equations(self, z: Tensor, right: _State[Scalar], resolvents: _Resolvents) -> _WaterEquations:
        """The equations of water after the elimination of all pools: what leaves water comes back through them."""
        leave: Scalar = 0.0
        leave_z: Scalar = 0.0
        x, y, longitudinal = right.water.x, right.water.y, right.water.z
        back: _Pattern | None = None
        for pool, resolvent, source in zip(self.pools, resolvents.pools, right.pools, strict=True):
            inflow = resolvent.times(source)
            x, y = x + pool.k * inflow.x, y + pool.k * inflow.y
            longitudinal = longitudinal + pool.k * inflow.z
            through_pool = resolvent.scaled(pool.fraction * pool.k * pool.k)
            back = through_pool if back is None else back.plus(through_pool)
            leave = leave + pool.fraction * pool.k
        if self.semisolid is not None and resolvents.semisolid is not None and right.semisolid is not None:
            fraction, k = self.semisolid.fraction, self.semisolid.k
            longitudinal = longitudinal + k * (resolvents.semisolid * right.semisolid)
            leave_z = fraction * k - (fraction * k * k) * resolvents.semisolid
        transverse = z + (self.water.R2 + leave)
        C = z + (self.water.R1 + leave) + leave_z
        sources = _Vector(x, y, longitudinal)
        if back is None:
            return _WaterEquations(transverse, transverse, C, self.water.offset, 0.0, -self.w1, sources)
        return _WaterEquations(
            A=transverse - back.a,
            B=transverse - back.d,
            C=C - back.g,
            p=self.water.offset + back.b,
            q=back.c,
            s=-(self.w1 + back.e),
            right=sources,
        )


class DampedSaturation:
    """CW saturation of a tissue; computed in float64, whatever the inputs.

    Args:
        tissue: Pools whose values broadcast against (measurement, voxel).
        field: Static field of the voxels.
        rf_offset_ppm: Offset of the RF from the nominal water frequency in ppm, (measurement, 1).
        w1_rad_per_s: RF amplitude as an angular frequency in rad/s; broadcasts against (measurement, voxel).
        duration_s: Duration in s, (measurement, 1).
    """

    def __init__(
        self, tissue: Tissue, field: Field, rf_offset_ppm: Tensor, w1_rad_per_s: Tensor, duration_s: Tensor
    ) -> None:
        self.duration = duration_s.double()
        self.system = _system(tissue, field, rf_offset_ppm.double(), w1_rad_per_s.double())

    @torch.no_grad()
    def holds(self) -> Tensor:
        """Return whether the precession of every pool in every voxel dies out within the saturation.

        The oscillating modes of a pool decay with r2 - (r2 - r1)/2 sin^2(theta), r1 and r2 being its total rates.

        Returns:
            bool of shape (measurement,).
        """
        w1_squared = self.system.w1 * self.system.w1
        result = torch.ones(len(self.duration), dtype=torch.bool, device=self.duration.device)
        for pool in (self.system.water, *self.system.pools):
            sin2 = w1_squared / (w1_squared + pool.offset * pool.offset + 1e-6)
            rate = pool.R2 + pool.k - (pool.R2 - pool.R1) / 2 * sin2
            result &= (rate * self.duration).amin(1) >= DAMPING
        return result

    def magnetization(self, start: Tensor) -> Tensor:
        """Return the magnetisation (n, measurement, voxel) after the saturation.

        Args:
            start: Magnetisation before it, (n, measurement or 1, voxel), ordered as in :mod:`.equations`.
        """
        steady, away = self._steady_and_away(start)
        decayed = self.system.resolve(self._nodes(), away)
        after = zip(steady.components(), decayed.components(), strict=True)
        return torch.stack([component + self._sum(nodes) for component, nodes in after])

    def water_z(self, start: Tensor) -> Tensor:
        """Return only water z (measurement, voxel) of :meth:`magnetization`."""
        steady, away = self._steady_and_away(start)
        return steady.water.z + self._sum(self.system.resolve_water_z(self._nodes(), away))

    def _steady_and_away(self, start: Tensor) -> tuple[_State[Tensor], _State[Scalar]]:
        """The steady state, and how far from it the start is."""
        zero = torch.zeros((), dtype=torch.float64, device=start.device)
        steady = self.system.resolve(zero, self.system.source())
        rows = start.double().unbind(0)

        def away_of(pool: int, vector: _Vector[Tensor]) -> _Vector[Scalar]:
            return _Vector(rows[x_row(pool)] - vector.x, rows[y_row(pool)] - vector.y, rows[z_row(pool)] - vector.z)

        pools = tuple(away_of(number, vector) for number, vector in enumerate(steady.pools, start=1))
        semisolid = None if steady.semisolid is None else rows[-1] - steady.semisolid
        return steady, _State(away_of(WATER, steady.water), pools, semisolid)

    def _nodes(self) -> Tensor:
        """Nodes of the contour over the duration, (node, measurement, 1)."""
        nodes, _ = _contour()
        return torch.from_numpy(nodes).to(self.duration.device)[:, None, None] / self.duration

    def _sum(self, values: Tensor) -> Tensor:
        """Contour integral of values at the nodes (node, measurement, voxel)."""
        _, contour_weights = _contour()
        weights = 2 * torch.from_numpy(contour_weights).to(self.duration.device)[:, None, None] / self.duration
        return (weights * values).real.sum(0)


def _system(tissue: Tissue, field: Field, rf_offset_ppm: Tensor, w1: Tensor) -> _System:
    def double(value: Scalar) -> Scalar:
        return value.double() if isinstance(value, Tensor) else value

    ppm, b0 = field.rad_per_s_per_ppm, double(field.b0_shift_ppm)

    def rates(fraction: Scalar, k: Scalar, T1_s: Scalar, T2_s: Scalar, dw_ppm: Scalar) -> _PoolRates:
        offset = (double(dw_ppm) + b0 - rf_offset_ppm) * ppm
        return _PoolRates(double(fraction), double(k), 1 / double(T1_s), 1 / double(T2_s), offset)

    water = rates(1.0, 0.0, tissue.water.T1_s, tissue.water.T2_s, 0.0)
    pools = tuple(rates(p.fraction, p.k_Hz, p.T1_s, p.T2_s, p.dw_ppm) for p in tissue.transverse_pools)
    semisolid = None
    if (s := tissue.z_only_pool) is not None:
        detuning = (double(s.dw_ppm) + b0 - rf_offset_ppm) * ppm
        T2_s = torch.as_tensor(double(s.T2_s), dtype=torch.float64)
        saturation = saturation_rate(s.lineshape, w1, detuning, T2_s, s.bridge_ppm * ppm)
        semisolid = _SemisolidRates(double(s.fraction), double(s.k_Hz), 1 / double(s.T1_s), saturation)
    return _System(water, pools, semisolid, w1)
