"""Resolvents (z - A)^-1 of the Bloch-McConnell generator under RF, in closed form.

All pools exchange with water only, so that every pool but water is eliminated by the inverse of its own 3 x 3 matrix,
and a 3 x 3 system of water remains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from ..lineshapes import saturation_rate
from ..pools import Scalar, Tissue
from .equations import Field

Component = TypeVar("Component", covariant=True)


@dataclass(frozen=True)
class Vector(Generic[Component]):
    """x, y and z of one pool."""

    x: Component
    y: Component
    z: Component


@dataclass(frozen=True)
class State(Generic[Component]):
    """Magnetisation, or its rate of change: of water, of the other pools, and z of a z-only semisolid pool."""

    water: Vector[Component]
    pools: tuple[Vector[Component], ...]
    semisolid: Component | None

    def components(self) -> list[Component]:
        """Return the components in the order of :mod:`.equations`."""
        vectors = (self.water, *self.pools)
        components = [component for vector in vectors for component in (vector.x, vector.y, vector.z)]
        return components if self.semisolid is None else [*components, self.semisolid]


@dataclass(frozen=True)
class Pattern:
    """The 3 x 3 matrix [[a, -b, -c], [b, d, e], [-c, -e, g]]: the resolvent of a pool under RF, and sums of such."""

    a: Tensor
    b: Tensor
    c: Tensor
    d: Tensor
    e: Tensor
    g: Tensor

    @classmethod
    def resolvent(cls, z: Tensor, r1: Scalar, r2: Scalar, offset: Tensor, w1: Tensor) -> Pattern:
        """Return the inverse of z - A for one pool.

        Args:
            z: Complex frequency in 1/s.
            r1: Total decay rate of z in 1/s, exchange included.
            r2: Total decay rate of x and y in 1/s, exchange included.
            offset: Angular frequency of the precession in rad/s.
            w1: Angular frequency of the nutation in rad/s.
        """
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

    def times(self, vector: Vector[Scalar]) -> Vector[Tensor]:
        """Return the product with a vector."""
        x, y, z = vector.x, vector.y, vector.z
        return Vector(
            self.a * x - self.b * y - self.c * z,
            self.b * x + self.d * y + self.e * z,
            self.g * z - self.c * x - self.e * y,
        )

    def scaled(self, factor: Scalar) -> Pattern:
        """Return the matrix times a number."""
        return Pattern(
            factor * self.a, factor * self.b, factor * self.c, factor * self.d, factor * self.e, factor * self.g
        )

    def plus(self, other: Pattern) -> Pattern:
        """Return the sum of two matrices."""
        return Pattern(
            self.a + other.a,
            self.b + other.b,
            self.c + other.c,
            self.d + other.d,
            self.e + other.e,
            self.g + other.g,
        )


@dataclass(frozen=True)
class WaterEquations:
    """The 3 x 3 system [[A, p, q], [-p, B, s], [q, -s, C]] x = right of water, all other pools being eliminated."""

    A: Tensor
    B: Tensor
    C: Tensor
    p: Tensor
    q: Scalar
    s: Tensor
    right: Vector[Scalar]

    def solve_z(self) -> Tensor:
        """Return z of the solution."""
        return self._z(*self._cofactors())

    def solve(self) -> Vector[Tensor]:
        """Return the solution."""
        p, q, s = self.p, self.q, self.s
        cofactors = xx, xz, yz, _, inverse = self._cofactors()
        xy, yy = p * self.C + q * s, self.A * self.C - q * q
        x, y, z = self.right.x, self.right.y, self.right.z
        return Vector((xx * x - xy * y + xz * z) * inverse, (xy * x + yy * y - yz * z) * inverse, self._z(*cofactors))

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
class PoolRates:
    """Rates of one pool with transverse magnetisation, which broadcast against (measurement, voxel).

    Attributes:
        fraction: Proton fraction (water = 1).
        k: Exchange rate to water in 1/s; 0 for water.
        R1: Longitudinal relaxation rate in 1/s.
        R2: Transverse relaxation rate in 1/s.
        offset: Offset from the RF in rad/s.
    """

    fraction: Scalar
    k: Scalar
    R1: Scalar
    R2: Scalar
    offset: Tensor


@dataclass(frozen=True)
class SemisolidRates:
    """Rates of the z-only semisolid pool, which broadcast against (measurement, voxel).

    Attributes:
        fraction: Proton fraction (water = 1).
        k: Exchange rate to water in 1/s.
        R1: Longitudinal relaxation rate in 1/s.
        saturation: Rate in 1/s at which the RF saturates the pool.
    """

    fraction: Scalar
    k: Scalar
    R1: Scalar
    saturation: Tensor


@dataclass(frozen=True)
class Resolvents:
    """Inverses of z - A of every pool by itself.

    Attributes:
        pools: Those of the pools with transverse magnetisation, water excepted.
        semisolid: That of the z-only semisolid pool; None without one.
    """

    pools: list[Pattern]
    semisolid: Tensor | None


@dataclass(frozen=True)
class System:
    """All pools under RF.

    Attributes:
        water: Rates of water.
        pools: Rates of the other pools with transverse magnetisation.
        semisolid: Rates of the z-only semisolid pool; None without one.
        w1: RF amplitude as an angular frequency in rad/s.
    """

    water: PoolRates
    pools: tuple[PoolRates, ...]
    semisolid: SemisolidRates | None
    w1: Tensor

    def source(self) -> State[Scalar]:
        """Return the inhomogeneous part of dM/dt."""
        return State(
            Vector(0.0, 0.0, self.water.R1),
            tuple(Vector(0.0, 0.0, pool.R1 * pool.fraction) for pool in self.pools),
            None if self.semisolid is None else self.semisolid.R1 * self.semisolid.fraction,
        )

    def resolve_water_z(self, z: Tensor, right: State[Scalar]) -> Tensor:
        """Return water z of the solution x of (z - A) x = right."""
        return self._water_equations(z, right, self._resolvents(z)).solve_z()

    def resolve(self, z: Tensor, right: State[Scalar]) -> State[Tensor]:
        """Return the solution x of (z - A) x = right, by eliminating every pool from the equations of water."""
        resolvents = self._resolvents(z)
        water = self._water_equations(z, right, resolvents).solve()
        pools = []
        for pool, resolvent, source in zip(self.pools, resolvents.pools, right.pools, strict=True):
            forward = pool.fraction * pool.k
            into = Vector(source.x + forward * water.x, source.y + forward * water.y, source.z + forward * water.z)
            pools.append(resolvent.times(into))
        semisolid = None
        if self.semisolid is not None and resolvents.semisolid is not None and right.semisolid is not None:
            into_semisolid = right.semisolid + self.semisolid.fraction * self.semisolid.k * water.z
            semisolid = resolvents.semisolid * into_semisolid
        return State(water, tuple(pools), semisolid)

    def _resolvents(self, z: Tensor) -> Resolvents:
        patterns = [
            Pattern.resolvent(z, pool.R1 + pool.k, pool.R2 + pool.k, pool.offset, self.w1) for pool in self.pools
        ]
        if self.semisolid is None:
            return Resolvents(patterns, None)
        rate = self.semisolid.R1 + self.semisolid.k + self.semisolid.saturation
        return Resolvents(patterns, 1 / (z + rate))

    def _water_equations(self, z: Tensor, right: State[Scalar], resolvents: Resolvents) -> WaterEquations:
        """The equations of water after the elimination of all pools: what leaves water comes back through them."""
        leave: Scalar = 0.0
        leave_z: Scalar = 0.0
        x, y, longitudinal = right.water.x, right.water.y, right.water.z
        back: Pattern | None = None
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
        sources = Vector(x, y, longitudinal)
        if back is None:
            return WaterEquations(transverse, transverse, C, self.water.offset, 0.0, -self.w1, sources)
        return WaterEquations(
            A=transverse - back.a,
            B=transverse - back.d,
            C=C - back.g,
            p=self.water.offset + back.b,
            q=back.c,
            s=-(self.w1 + back.e),
            right=sources,
        )


def system_of(tissue: Tissue, field: Field, rf_offset_ppm: Tensor, w1: Tensor) -> System:
    """Return the system of a tissue under RF, in float64.

    Args:
        tissue: Pools whose values broadcast against (measurement, voxel).
        field: Static field of the voxels.
        rf_offset_ppm: Offset of the RF from the nominal water frequency in ppm, (measurement, 1).
        w1: RF amplitude as an angular frequency in rad/s; broadcasts against (measurement, voxel).
    """

    def double(value: Scalar) -> Scalar:
        return value.double() if isinstance(value, Tensor) else value

    ppm, b0 = field.rad_per_s_per_ppm, double(field.b0_shift_ppm)

    def rates(fraction: Scalar, k: Scalar, T1_s: Scalar, T2_s: Scalar, dw_ppm: Scalar) -> PoolRates:
        offset = (double(dw_ppm) + b0 - rf_offset_ppm) * ppm
        return PoolRates(double(fraction), double(k), 1 / double(T1_s), 1 / double(T2_s), offset)

    water = rates(1.0, 0.0, tissue.water.T1_s, tissue.water.T2_s, 0.0)
    pools = tuple(rates(p.fraction, p.k_Hz, p.T1_s, p.T2_s, p.dw_ppm) for p in tissue.transverse_pools)
    semisolid = None
    if (s := tissue.z_only_pool) is not None:
        detuning = (double(s.dw_ppm) + b0 - rf_offset_ppm) * ppm
        T2_s = torch.as_tensor(double(s.T2_s), dtype=torch.float64)
        saturation = saturation_rate(s.lineshape, w1, detuning, T2_s, s.bridge_ppm * ppm)
        semisolid = SemisolidRates(double(s.fraction), double(s.k_Hz), 1 / double(s.T1_s), saturation)
    return System(water, pools, semisolid, w1)
