"""Continuous-wave saturation of pools whose precession dies out within it, that of water perhaps excepted.

M(t) = Mss + exp(A t) (M0 - Mss). Where exchange has equilibrated as well, a single mode is left of the exponential, or
three where water still precesses, see :mod:`.slow_mode`. Elsewhere, and for derivatives, contour integration serves if
all precession dies out: exp(A t) w is the sum over nodes of 2 Re[c (z - A t)^-1 w] on Talbot's contour around the
negative real axis (Weideman, SIAM J Numer Anal 2006;44:2342; Dingfelder and Weideman, Numer Algorithms 2015;68:167).
The sum is exact to 6e-11 for every rate on the negative real axis and for every oscillation damped by at least
exp(-25), so it holds wherever :meth:`DampedSaturation.holds` says so. Pools exchange with water only: each resolvent is
a handful of 3 x 3 inverses in closed form, many times cheaper than the exponential of the full matrix.
"""

from __future__ import annotations

from functools import cache, cached_property

import numpy as np
import torch
from torch import Tensor

from ..pools import Tissue
from .equations import WATER, Field, x_row, y_row, z_row
from .resolvents import PoolRates, State, System, Vector, system_of
from .slow_mode import FURTHER_ITERATIONS, SlowMode

DAMPING = 23.0
"""Exponent by which precession must have decayed; exp(-23) = 1e-10."""
_NODES = 18
_MARGIN = 0.999
"""Share of the smallest decay rate of the faster modes up to which slower ones are looked for."""


@cache
def _contour() -> tuple[np.ndarray, np.ndarray]:
    """Nodes z and weights c in the upper half plane."""
    theta = np.pi * (2 * np.arange(_NODES // 2) + 1) / _NODES
    sigma, mu, nu, alpha = 0.6122, 0.5017, 0.2645, 0.6407
    z = _NODES * (-sigma + mu * theta / np.tan(alpha * theta) + 1j * nu * theta)
    slope = _NODES * (mu / np.tan(alpha * theta) - mu * alpha * theta / np.sin(alpha * theta) ** 2 + 1j * nu)
    return z, np.exp(z) * slope / (1j * _NODES)


class DampedSaturation:
    """CW saturation of a tissue; computed in float64, whatever the inputs.

    Attributes:
        system: All pools under RF.
        duration: Duration in s, (measurement, 1).
    """

    def __init__(self, system: System, duration_s: Tensor) -> None:
        self.system, self.duration = system, duration_s

    @classmethod
    def of(
        cls, tissue: Tissue, field: Field, rf_offset_ppm: Tensor, w1_rad_per_s: Tensor, duration_s: Tensor
    ) -> DampedSaturation:
        """Describe the saturation of a tissue.

        Args:
            tissue: Pools whose values broadcast against (measurement, voxel).
            field: Static field of the voxels.
            rf_offset_ppm: Offset of the RF from the nominal water frequency in ppm, (measurement, 1).
            w1_rad_per_s: RF amplitude as an angular frequency in rad/s; broadcasts against (measurement, voxel).
            duration_s: Duration in s, (measurement, 1).
        """
        return cls(system_of(tissue, field, rf_offset_ppm.double(), w1_rad_per_s.double()), duration_s.double())

    def measurements(self, rows: Tensor) -> DampedSaturation:
        """Return the saturation of some measurements (n,)."""
        return DampedSaturation(self.system.measurements(rows), self.duration[rows])

    @torch.no_grad()
    def holds(self) -> Tensor:
        """Return whether the precession of every pool in every voxel dies out within the saturation.

        Returns:
            bool of shape (measurement,).
        """
        return self._precession_rate * self.duration[:, 0] >= DAMPING

    def after(self, start: Tensor, wanted: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Compute components of the magnetisation after the saturation.

        Args:
            start: Magnetisation before it, (n, measurement or 1, voxel), ordered as in :mod:`.equations`.
            wanted: Rows to return.

        Returns:
            The rows, each (measurement, voxel), and whether they are exact, bool (measurement, voxel).
        """
        zero = torch.zeros((), dtype=torch.float64, device=start.device)
        at_zero = self.system.resolvents(zero)
        steady = self.system.resolve(zero, self.system.source(), at_zero)
        final, away = steady.components()[wanted], _difference(start.double(), steady)
        exact = self.holds()
        rows, others = exact.nonzero().squeeze(1), (~exact).nonzero().squeeze(1)
        shape = np.broadcast_shapes(final[0].shape, away.water.z.shape)
        found = exact[:, None].expand(shape)

        def of(chosen: Tensor) -> tuple[DampedSaturation, list[Tensor], State[Tensor]]:
            return self.measurements(chosen), [each[chosen] for each in final], away.measurements(chosen)

        if steady.water.z.requires_grad:
            some, finals, aways = of(rows)
            empty = final[0].new_zeros(shape)
            contour = some._by_contour(finals, aways, wanted) if len(rows) else []
            return torch.stack([empty.index_copy(0, rows, each) for each in contour] or [empty] * len(final)), found
        equilibrated = self._pool_gap * self.duration >= _MARGIN * DAMPING
        if not bool(equilibrated.any()):
            rest = [each.new_zeros(shape) for each in final]
            if len(rows):
                some, finals, aways = of(rows)
                _put(some._by_contour(finals, aways, wanted), rows, rest)
            return torch.stack(rest), found
        mode = SlowMode.of(self.system, away, at_zero)
        if len(others) == 0:
            return torch.stack(self._damped(final, away, wanted, mode)), found
        result, found = [each.new_empty(shape) for each in final], found.clone()
        if len(rows):
            some, finals, aways = of(rows)
            _put(some._damped(finals, aways, wanted, mode.measurements(rows)), rows, result)
        some, finals, aways = of(others)
        precessing, found[others] = some._precessing(finals, aways, wanted, mode.measurements(others))
        _put(precessing, others, result)
        return torch.stack(result), found

    @cached_property
    def _precession_rate(self) -> Tensor:
        """Slowest decay of an oscillating mode in 1/s, (measurement,)."""
        return torch.minimum(self._oscillation(self.system.water).amin(1), self._pool_rate.amin(1))

    def _oscillation(self, pool: PoolRates) -> Tensor:
        """Decay of the oscillating modes of a pool in 1/s.

        It is r2 - (r2 - r1)/2 sin^2(theta), r1 and r2 being the total rates of the pool.
        """
        w1_squared = self.system.w1 * self.system.w1
        sin2 = w1_squared / (w1_squared + pool.offset * pool.offset + 1e-6)
        rate = pool.R2 + pool.k - (pool.R2 - pool.R1) / 2 * sin2
        return rate.expand(len(self.duration), -1)

    @cached_property
    def _pool_rate(self) -> Tensor:
        """Slowest decay in 1/s of the oscillating modes of all pools but water, (measurement, voxel or 1)."""
        slowest = torch.full_like(self.duration, torch.inf)
        for pool in self.system.pools:
            slowest = torch.minimum(slowest, self._oscillation(pool))
        return slowest

    @cached_property
    def _pool_gap(self) -> Tensor:
        """Slowest decay in 1/s of all modes but the three of water, (measurement, voxel or 1).

        The longitudinal magnetisation of a pool decays at least with its exchange and relaxation.
        """
        slowest = self._pool_rate
        longitudinal = [pool.k + pool.R1 for pool in self.system.pools]
        if (semisolid := self.system.semisolid) is not None:
            longitudinal.append(semisolid.k + semisolid.R1)
        for rate in longitudinal:
            slowest = torch.minimum(slowest, torch.as_tensor(rate, dtype=slowest.dtype, device=slowest.device))
        return _MARGIN * slowest

    @cached_property
    def _gap(self) -> Tensor:
        """Slowest decay in 1/s of all modes but that of the locked water, (measurement, voxel or 1)."""
        return torch.minimum(self._pool_gap, _MARGIN * self._oscillation(self.system.water))

    @property
    def _alone(self) -> Tensor:
        """Whether nothing but the mode of the locked water is left, bool (measurement, voxel or 1)."""
        return self._gap * self.duration >= _MARGIN * DAMPING

    def _damped(self, final: list[Tensor], away: State[Tensor], wanted: slice, mode: SlowMode) -> list[Tensor]:
        """Return components after the saturation where all precession dies out.

        Args:
            final: Components of the steady state.
            away: How far from it the start is.
            wanted: Rows of the components.
            mode: Slow mode after its first iterations.
        """
        if not bool(self._alone.any()):
            return self._by_contour(final, away, wanted)
        result, left = self._by_slow_mode(final, away, wanted, mode)
        if len(left):
            some = self.measurements(left)
            final, away = [component[left] for component in final], away.measurements(left)
            again = mode.measurements(left).iterated(FURTHER_ITERATIONS)
            better, left_again = some._by_slow_mode(final, away, wanted, again)
            if len(left_again):
                final, away = [component[left_again] for component in final], away.measurements(left_again)
                exact = some.measurements(left_again)._by_contour(final, away, wanted)
                _put(exact, left_again, better)
            _put(better, left, result)
        return result

    def _precessing(
        self, final: list[Tensor], away: State[Tensor], wanted: slice, mode: SlowMode
    ) -> tuple[list[Tensor], Tensor]:
        """Return components after the saturation where water may still precess, as :meth:`after` does.

        They are exact where the slow mode and the precession of water are found and all other modes have died out.
        """
        precession = SlowMode.of_precession(self.system)
        separation = torch.minimum(self._pool_gap, precession.rate.imag)
        found = self._pool_gap * self.duration >= _MARGIN * DAMPING
        found = found & mode.found(self._pool_gap, separation) & precession.found(self._pool_gap, separation)
        slow, fast = mode.amplitude(away, self.duration), precession.amplitude(away, self.duration)
        parts = zip(final, mode.mode.components()[wanted], precession.mode.components()[wanted], strict=True)
        return [f + slow * x + 2 * (fast * y).real for f, x, y in parts], found

    def _by_slow_mode(
        self, final: list[Tensor], away: State[Tensor], wanted: slice, mode: SlowMode
    ) -> tuple[list[Tensor], Tensor]:
        """Return components after the saturation, and in which measurements (n,) they are not exact.

        They are exact where the mode has been found, or where no mode is slower than the gap, so that nothing is left:
        the determinant of z - A, positive at z = 0, then has no change of sign down to minus the gap.
        """
        found = self._alone & mode.found(self._gap, self._gap)
        amplitude = torch.where(found, mode.amplitude(away, self.duration), 0.0)
        of_mode = mode.mode.components()[wanted]
        result = [f + torch.where(found, amplitude * x, 0.0) for f, x in zip(final, of_mode, strict=True)]
        rows = (~found.all(1)).nonzero().squeeze(1)
        if len(rows) == 0:
            return result, rows
        system = self.system.measurements(rows)
        gone = self._alone[rows] & (system.water_determinant(-self._gap[rows]) > 0)
        return result, rows[(~(found[rows] | gone)).any(1)]

    def _by_contour(self, final: list[Tensor], away: State[Tensor], wanted: slice) -> list[Tensor]:
        """Return components after the saturation from those of the steady state, and how far from it the start is."""
        if wanted == slice(z_row(WATER), z_row(WATER) + 1):
            decayed = [self.system.resolve_water_z(self._nodes(), away)]
        else:
            decayed = self.system.resolve(self._nodes(), away).components()[wanted]
        return [f + self._sum(nodes) for f, nodes in zip(final, decayed, strict=True)]

    def _nodes(self) -> Tensor:
        """Nodes of the contour over the duration, (node, measurement, 1)."""
        nodes, _ = _contour()
        return torch.from_numpy(nodes).to(self.duration.device)[:, None, None] / self.duration

    def _sum(self, values: Tensor) -> Tensor:
        """Contour integral of values at the nodes (node, measurement, voxel)."""
        _, contour_weights = _contour()
        weights = 2 * torch.from_numpy(contour_weights).to(self.duration.device)[:, None, None] / self.duration
        return (weights * values).real.sum(0)


def _put(components: list[Tensor], measurements: Tensor, into: list[Tensor]) -> None:
    """Write components of some measurements (n,) into those of all."""
    for component, of_some in zip(into, components, strict=True):
        component[measurements] = of_some


def _difference(start: Tensor, steady: State[Tensor]) -> State[Tensor]:
    """Return how far the magnetisation (n, measurement or 1, voxel) lies from the steady state."""
    rows = start.unbind(0)

    def away_of(pool: int, vector: Vector[Tensor]) -> Vector[Tensor]:
        return Vector(rows[x_row(pool)] - vector.x, rows[y_row(pool)] - vector.y, rows[z_row(pool)] - vector.z)

    pools = tuple(away_of(number, vector) for number, vector in enumerate(steady.pools, start=1))
    semisolid = None if steady.semisolid is None else rows[-1] - steady.semisolid
    return State(away_of(WATER, steady.water), pools, semisolid)
