"""The modes of the magnetisation that outlive continuous-wave saturation, in real arithmetic.

Exchange with the pools equilibrates, and precession often dies out, long before the locked water magnetisation reaches
its steady state. What is left of the deviation w from it is then the mode of the smallest decay rate alone, or that and
the two conjugate modes of precessing water; every mode contributes
``exp(A t) w = exp(s t) x (x, w) / (x, x)`` with A x = s x. The bilinear product ``(u, v)`` sums x and z components and
subtracts y ones, with weights 1/fraction of the pools; A is symmetric in it, because rotations are skew and exchange
obeys detailed balance. Inverse iteration with Rayleigh quotients therefore converges cubically (Ostrowski, Arch Ration
Mech Anal 1959;3:325), from shift 0 in three solutions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..pools import Scalar
from .resolvents import Resolvents, State, System, Vector

LARGEST_CHANGE = 1e-7
"""Change of the rate in the last iteration, relative to the distance of other modes, with which x is exact to 1e-10."""
ITERATIONS = 2
FURTHER_ITERATIONS = 2
"""Iterations in the measurements in which the first ones are not enough."""
_BESIDE = 1 + 1e-10
"""Factor of the shift, so that the system is never exactly singular."""
_TINY_FREQUENCY_SQUARED = 1e-6
_TINY_FRACTION = 1e-30
"""Weight of an absent pool, whose magnetisation is zero."""


@dataclass(frozen=True)
class SlowMode:
    """The slowest mode of every measurement and voxel.

    Attributes:
        system: All pools under RF.
        rate: s in 1/s, negative, (measurement, voxel).
        mode: x, of any length.
        change: Change of s in the last iteration.
    """

    system: System
    rate: Tensor
    mode: State[Tensor]
    change: Tensor

    @classmethod
    def of(cls, system: System, deviation: State[Tensor], at_zero: Resolvents) -> SlowMode:
        """Find the mode by inverse iteration.

        Args:
            system: All pools under RF.
            deviation: Magnetisation less its steady state, with which the iteration starts.
            at_zero: Resolvents of the pools at z = 0.
        """
        zero = torch.zeros((), dtype=torch.float64, device=system.w1.device)
        mode = system.resolve(zero, deviation, at_zero)
        rate = -_quotient(system, mode, deviation)
        return cls(system, rate, mode, rate).iterated(ITERATIONS)

    def iterated(self, iterations: int) -> SlowMode:
        """Return the mode after further iterations."""
        rate, mode, change = self.rate, self.mode, self.change
        for _ in range(iterations):
            shift = rate * _BESIDE
            following = self.system.resolve(shift, mode)
            change = _quotient(self.system, following, mode)
            rate, mode = shift - change, following
        return SlowMode(self.system, rate, mode, change)

    def measurements(self, rows: Tensor) -> SlowMode:
        """Return the mode in some measurements (n,)."""
        return SlowMode(
            self.system.measurements(rows), self.rate[rows], self.mode.measurements(rows), self.change[rows]
        )

    @classmethod
    def of_precession(cls, system: System) -> SlowMode:
        """Find the mode in which water precesses about the effective field, in the positive sense; its rate is complex.

        The iteration starts with water alone, whose mode is known in closed form without relaxation.
        """
        water, w1 = system.water, system.w1
        total = (w1 * w1 + water.offset * water.offset + _TINY_FREQUENCY_SQUARED).sqrt()
        exchange: Scalar = 0.0
        for pool in system.pools:
            exchange = exchange + pool.fraction * pool.k
        decay = water.R2 - (water.R2 - water.R1) / 2 * (w1 / total) ** 2 + exchange
        rate = torch.complex(*torch.broadcast_tensors(-decay, total))
        still = torch.zeros_like(rate)
        start: State[Tensor] = State(
            Vector((water.offset / total).to(rate), torch.full_like(rate, -1j), (w1 / total).to(rate)),
            tuple(Vector(still, still, still) for _ in system.pools),
            None if system.semisolid is None else still,
        )
        mode = system.resolve(rate, start)
        change = _quotient(system, mode, start)
        return cls(system, rate - change, mode, change).iterated(ITERATIONS - 1)

    def found(self, gap: Tensor, separation: Tensor) -> Tensor:
        """Return where the mode is exact and slower than others, bool (measurement, voxel).

        Args:
            gap: Smallest decay rate of the others in 1/s; broadcasts.
            separation: Smallest distance from any other mode in 1/s; broadcasts.
        """
        decay = -self.rate.real
        return (self.change.abs() <= LARGEST_CHANGE * separation) & (decay < gap) & (decay > 0)

    def amplitude(self, deviation: State[Tensor], duration_s: Tensor) -> Tensor:
        """Return the factor of x in what is left of a deviation after a time, (measurement, voxel)."""
        product = _product(self.system, self.mode, deviation)
        return torch.exp(self.rate * duration_s) * product / _product(self.system, self.mode, self.mode)


def _quotient(system: System, following: State[Tensor], mode: State[Tensor]) -> Tensor:
    """Return by how much the shift of an inverse iteration lies above the Rayleigh quotient of its result."""
    return _product(system, following, mode) / _product(system, following, following)


def _product(system: System, u: State[Tensor], v: State[Tensor]) -> Tensor:
    """Return the bilinear product of two states in which the generator is symmetric."""
    total = _of_vectors(u.water, v.water)
    for pool, first, second in zip(system.pools, u.pools, v.pools, strict=True):
        total = torch.addcmul(total, _of_vectors(first, second), _weight(pool.fraction))
    if system.semisolid is not None and u.semisolid is not None and v.semisolid is not None:
        total = torch.addcmul(total, u.semisolid * v.semisolid, _weight(system.semisolid.fraction))
    return total


def _of_vectors(u: Vector[Tensor], v: Vector[Tensor]) -> Tensor:
    return torch.addcmul(torch.addcmul(u.x * v.x, u.z, v.z), u.y, v.y, value=-1)


def _weight(fraction: Scalar) -> Tensor:
    return 1 / torch.as_tensor(fraction, dtype=torch.float64).clamp_min(_TINY_FRACTION)
