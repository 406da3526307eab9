"""Continuous-wave saturation by contour integration, for pools whose precession dies out within it.

M(t) = Mss + exp(A t) (M0 - Mss), where exp(A t) w is the sum over nodes of 2 Re[c (z - A t)^-1 w] on Talbot's contour
around the negative real axis (Weideman, SIAM J Numer Anal 2006;44:2342; Dingfelder and Weideman, Numer Algorithms
2015;68:167). The sum is exact to 6e-11 for every rate on the negative real axis and for every oscillation damped by at
least exp(-25), so it holds wherever :meth:`DampedSaturation.holds` says so. Pools exchange with water only: each
resolvent is a handful of 3 x 3 inverses in closed form, many times cheaper than the exponential of the full matrix.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from ..pools import Scalar, Tissue
from .equations import WATER, Field, x_row, y_row, z_row
from .resolvents import State, Vector, system_of

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
        self.system = system_of(tissue, field, rf_offset_ppm.double(), w1_rad_per_s.double())

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

    def _steady_and_away(self, start: Tensor) -> tuple[State[Tensor], State[Scalar]]:
        """The steady state, and how far from it the start is."""
        zero = torch.zeros((), dtype=torch.float64, device=start.device)
        steady = self.system.resolve(zero, self.system.source())
        rows = start.double().unbind(0)

        def away_of(pool: int, vector: Vector[Tensor]) -> Vector[Scalar]:
            return Vector(rows[x_row(pool)] - vector.x, rows[y_row(pool)] - vector.y, rows[z_row(pool)] - vector.z)

        pools = tuple(away_of(number, vector) for number, vector in enumerate(steady.pools, start=1))
        semisolid = None if steady.semisolid is None else rows[-1] - steady.semisolid
        return steady, State(away_of(WATER, steady.water), pools, semisolid)

    def _nodes(self) -> Tensor:
        """Nodes of the contour over the duration, (node, measurement, 1)."""
        nodes, _ = _contour()
        return torch.from_numpy(nodes).to(self.duration.device)[:, None, None] / self.duration

    def _sum(self, values: Tensor) -> Tensor:
        """Contour integral of values at the nodes (node, measurement, voxel)."""
        _, contour_weights = _contour()
        weights = 2 * torch.from_numpy(contour_weights).to(self.duration.device)[:, None, None] / self.duration
        return (weights * values).real.sum(0)
