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

    def measurements(self: State[Tensor], rows: Tensor) -> State[Tensor]:
        """Return the state of some measurements (n,)."""

        def of(vector: Vector[Tensor]) -> Vector[Tensor]:
            return Vector(_row(vector.x, rows), _row(vector.y, rows), _row(vector.z, rows))

        semisolid = None if self.semisolid is None else _row(self.semisolid, rows)
        return State(of(self.water), tuple(of(pool) for pool in self.pools), semisolid)


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
        both, w1_squared = alpha * beta, w1 * w1
        square = torch.addcmul(offset * offset, alpha, alpha)
        inverse = _inverse(torch.addcmul(beta * square, alpha, w1_squared))
        alpha, both = alpha * inverse, both * inverse
        return cls(
            a=torch.addcmul(both, w1_squared, inverse),
            b=beta * inverse * offset,
            c=(offset * w1) * inverse,
            d=both,
            e=alpha * w1,
            g=square * inverse,
        )

    def times(self, vector: Vector[Scalar]) -> Vector[Tensor]:
        """Return the product with a vector."""
        x, y, z = vector.x, vector.y, vector.z
        if isinstance(x, float) and isinstance(y, float) and x == y == 0.0:
            return Vector(-self.c * z, self.e * z, self.g * z)
        if not (isinstance(x, Tensor) and isinstance(y, Tensor) and isinstance(z, Tensor)):
            return Vector(
                self.a * x - self.b * y - self.c * z,
                self.b * x + self.d * y + self.e * z,
                self.g * z - self.c * x - self.e * y,
            )
        return Vector(
            torch.addcmul(self.a * x, self.b, y, value=-1).addcmul_(self.c, z, value=-1),
            torch.addcmul(self.b * x, self.d, y).addcmul_(self.e, z),
            torch.addcmul(self.g * z, self.c, x, value=-1).addcmul_(self.e, y, value=-1),
        )

    def scaled(self, factor: Scalar) -> Pattern:
        """Return the matrix times a number."""
        return Pattern(
            factor * self.a, factor * self.b, factor * self.c, factor * self.d, factor * self.e, factor * self.g
        )

    def plus(self, other: Pattern, factor: Scalar) -> Pattern:
        """Return the sum of this matrix and a number times another one."""
        pairs = ((mine, getattr(other, name)) for name, mine in vars(self).items())
        if isinstance(factor, Tensor):
            return Pattern(*(torch.addcmul(mine, factor, its) for mine, its in pairs))
        return Pattern(*(torch.add(mine, its, alpha=factor) for mine, its in pairs))


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

    def determinant(self) -> Tensor:
        """Return the determinant of the matrix."""
        return 1 / self._cofactors()[-1]

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
        inverse = _inverse(A * xx + pp * C + (2 * ps - Bq) * q)
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

    def measurements(self, rows: Tensor) -> PoolRates:
        """Return the rates of some measurements (n,)."""
        fraction, k, R1, R2 = (_rows(each, rows) for each in (self.fraction, self.k, self.R1, self.R2))
        return PoolRates(fraction, k, R1, R2, _row(self.offset, rows))


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

    def measurements(self, rows: Tensor) -> SemisolidRates:
        """Return the rates of some measurements (n,)."""
        fraction, k, R1 = (_rows(each, rows) for each in (self.fraction, self.k, self.R1))
        return SemisolidRates(fraction, k, R1, _row(self.saturation, rows))


def _rows(value: Scalar, rows: Tensor) -> Scalar:
    return _row(value, rows) if isinstance(value, Tensor) else value


def _row(value: Tensor, rows: Tensor) -> Tensor:
    return value[rows] if value.ndim > 1 and value.shape[-2] > 1 else value


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

    def measurements(self, rows: Tensor) -> System:
        """Return the system of some measurements (n,)."""
        return System(
            self.water.measurements(rows),
            tuple(pool.measurements(rows) for pool in self.pools),
            None if self.semisolid is None else self.semisolid.measurements(rows),
            _row(self.w1, rows),
        )

    def source(self) -> State[Scalar]:
        """Return the inhomogeneous part of dM/dt."""
        return State(
            Vector(0.0, 0.0, self.water.R1),
            tuple(Vector(0.0, 0.0, pool.R1 * pool.fraction) for pool in self.pools),
            None if self.semisolid is None else self.semisolid.R1 * self.semisolid.fraction,
        )

    def resolve_water_z(self, z: Tensor, right: State[Scalar]) -> Tensor:
        """Return water z of the solution x of (z - A) x = right."""
        return self._water_equations(z, right, self.resolvents(z)).solve_z()

    def water_determinant(self, z: Tensor) -> Tensor:
        """Return the determinant of (z - A) over the product of those of all pools but water."""
        return self._water_equations(z, self.source(), self.resolvents(z)).determinant()

    def resolve(self, z: Tensor, right: State[Scalar], resolvents: Resolvents | None = None) -> State[Tensor]:
        """Return the solution x of (z - A) x = right, by eliminating every pool from the equations of water.

        Args:
            z: Frequency in 1/s.
            right: Right-hand side.
            resolvents: Result of :meth:`resolvents` for this z, where several systems share it.
        """
        resolvents = resolvents or self.resolvents(z)
        water = self._water_equations(z, right, resolvents).solve()
        pools = []
        for pool, resolvent, source in zip(self.pools, resolvents.pools, right.pools, strict=True):
            forward = pool.fraction * pool.k
            into = Vector(
                _plus_product(source.x, forward, water.x),
                _plus_product(source.y, forward, water.y),
                _plus_product(source.z, forward, water.z),
            )
            pools.append(resolvent.times(into))
        semisolid = None
        if self.semisolid is not None and resolvents.semisolid is not None and right.semisolid is not None:
            into_semisolid = right.semisolid + self.semisolid.fraction * self.semisolid.k * water.z
            semisolid = resolvents.semisolid * into_semisolid
        return State(water, tuple(pools), semisolid)

    def resolvents(self, z: Tensor) -> Resolvents:
        """Return the inverses of z - A of every pool by itself."""
        patterns = [
            Pattern.resolvent(z, pool.R1 + pool.k, pool.R2 + pool.k, pool.offset, self.w1) for pool in self.pools
        ]
        if self.semisolid is None:
            return Resolvents(patterns, None)
        rate = self.semisolid.R1 + self.semisolid.k + self.semisolid.saturation
        return Resolvents(patterns, _inverse(z + rate))

    def _water_equations(self, z: Tensor, right: State[Scalar], resolvents: Resolvents) -> WaterEquations:
        """The equations of water after the elimination of all pools: what leaves water comes back through them."""
        leave: Scalar = 0.0
        leave_z: Scalar = 0.0
        x, y, longitudinal = right.water.x, right.water.y, right.water.z
        back: Pattern | None = None
        for pool, resolvent, source in zip(self.pools, resolvents.pools, right.pools, strict=True):
            inflow = resolvent.times(source)
            x, y = _plus_product(x, pool.k, inflow.x), _plus_product(y, pool.k, inflow.y)
            longitudinal = _plus_product(longitudinal, pool.k, inflow.z)
            through_pool = pool.fraction * pool.k * pool.k
            back = resolvent.scaled(through_pool) if back is None else back.plus(resolvent, through_pool)
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


def _inverse(value: Tensor) -> Tensor:
    """Return 1 / value; that of complex numbers is several times faster than torch's, which guards against overflow."""
    if not value.is_complex():
        return 1 / value
    return value.conj() / (value.real.square() + value.imag.square())


def _plus_product(total: Scalar, factor: Scalar, value: Tensor) -> Tensor:
    """Return total + factor value, in one pass where that is possible."""
    if isinstance(total, Tensor):
        if isinstance(factor, Tensor):
            return torch.addcmul(total, factor, value)
        return torch.add(total, value, alpha=factor)
    return total + factor * value


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
