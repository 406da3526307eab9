"""Numerical Bloch-McConnell equations (McConnell 1958), assembled from named terms.

Magnetisation is ordered x, y, z of water, then x, y, z of every further pool, then z of a z-only semisolid pool;
all batch axes come last, see :mod:`propagators`. Every input may carry gradients.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from ..lineshapes import saturation_rate
from ..pools import Pool, Scalar, Tissue

WATER = 0


@dataclass(frozen=True)
class Field:
    """Angular frequency of one ppm in rad/s, and the local B0 shift in ppm (it moves all pools together)."""

    rad_per_s_per_ppm: float
    b0_shift_ppm: Scalar = 0.0


def state_size(tissue: Tissue) -> int:
    """Number of magnetisation components."""
    return 3 * (1 + len(tissue.transverse_pools)) + (tissue.z_only_pool is not None)


def _x(pool: int) -> int:
    return 3 * pool


def _y(pool: int) -> int:
    return 3 * pool + 1


def _z(pool: int) -> int:
    return 3 * pool + 2


class Terms:
    """Coefficients d(row)/dt per column of a linear system under assembly; equal places add up."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.constant = size
        self.values: dict[tuple[int, int], Scalar] = defaultdict(float)

    def add(self, row: int, column: int, value: Scalar) -> None:
        self.values[row, column] = self.values[row, column] + value

    def generator(self, like: Tensor, batch: torch.Size) -> Tensor:
        """The tensor [A | c] of shape (n, n + 1, *batch) with the dtype and device of ``like``."""
        zero = like.new_zeros(()).expand(batch)
        rows = [
            torch.stack([self._entry(row, column, zero) for column in range(self.size + 1)]) for row in range(self.size)
        ]
        return torch.stack(rows)

    def _entry(self, row: int, column: int, zero: Tensor) -> Tensor:
        if (row, column) not in self.values:
            return zero
        value = self.values[row, column]
        return (value if isinstance(value, Tensor) else zero.new_tensor(value)).to(zero.dtype).expand(zero.shape)


def add_relaxation(terms: Terms, tissue: Tissue) -> None:
    """-R2 x, -R2 y, -R1 (z - M0) of every pool; M0 is the pool's fraction (water 1)."""
    for pool, (fraction, T1_s, T2_s) in enumerate(
        [(1.0, tissue.water.T1_s, tissue.water.T2_s)] + [(p.fraction, p.T1_s, p.T2_s) for p in tissue.transverse_pools]
    ):
        terms.add(_x(pool), _x(pool), -1 / T2_s)
        terms.add(_y(pool), _y(pool), -1 / T2_s)
        terms.add(_z(pool), _z(pool), -1 / T1_s)
        terms.add(_z(pool), terms.constant, fraction / T1_s)
    if (semisolid := tissue.z_only_pool) is not None:
        z = terms.size - 1
        terms.add(z, z, -1 / semisolid.T1_s)
        terms.add(z, terms.constant, semisolid.fraction / semisolid.T1_s)


def add_precession(terms: Terms, tissue: Tissue, field: Field, frame_offset_ppm: Scalar) -> None:
    """Precession of every pool at its own offset from the frame (the RF offset, or 0 for the water frame)."""
    shifts: list[Scalar] = [0.0] + [p.dw_ppm for p in tissue.transverse_pools]
    for pool, dw_ppm in enumerate(shifts):
        offset = (dw_ppm + field.b0_shift_ppm - frame_offset_ppm) * field.rad_per_s_per_ppm
        terms.add(_x(pool), _y(pool), -offset)
        terms.add(_y(pool), _x(pool), offset)


def add_nutation(terms: Terms, tissue: Tissue, w1_rad_per_s: Scalar, phase_rad: Scalar = 0.0) -> None:
    """Rotation of every pool about the RF field of angular amplitude w1 and phase."""
    if isinstance(phase_rad, Tensor):
        along_x, along_y = w1_rad_per_s * torch.cos(phase_rad), w1_rad_per_s * torch.sin(phase_rad)
    else:
        along_x, along_y = w1_rad_per_s, None
    for pool in range(1 + len(tissue.transverse_pools)):
        terms.add(_y(pool), _z(pool), along_x)
        terms.add(_z(pool), _y(pool), -along_x)
        if along_y is not None:
            terms.add(_x(pool), _z(pool), -along_y)
            terms.add(_z(pool), _x(pool), along_y)


def add_exchange(terms: Terms, tissue: Tissue) -> None:
    """Exchange of every pool with water: pool to water at k, water to pool at fraction x k."""

    def exchange(water_row: int, pool_row: int, pool: Pool) -> None:
        forward = pool.fraction * pool.k_Hz
        terms.add(water_row, water_row, -forward)
        terms.add(water_row, pool_row, pool.k_Hz)
        terms.add(pool_row, pool_row, -pool.k_Hz)
        terms.add(pool_row, water_row, forward)

    for index, pool in enumerate(tissue.transverse_pools, start=1):
        for component in (_x, _y, _z):
            exchange(component(WATER), component(index), pool)
    if tissue.z_only_pool is not None:
        exchange(_z(WATER), terms.size - 1, tissue.z_only_pool)


def add_semisolid_saturation(
    terms: Terms, tissue: Tissue, field: Field, rf_offset_ppm: Scalar, w1_rad_per_s: Scalar
) -> None:
    """Saturation of a z-only semisolid pool at the rate w1^2 pi g."""
    semisolid = tissue.z_only_pool
    if semisolid is None:
        return
    offset_ppm = torch.as_tensor(semisolid.dw_ppm + field.b0_shift_ppm - rf_offset_ppm)
    rate = saturation_rate(
        semisolid.lineshape,
        torch.as_tensor(w1_rad_per_s, dtype=offset_ppm.dtype),
        offset_ppm * field.rad_per_s_per_ppm,
        torch.as_tensor(semisolid.T2_s, dtype=offset_ppm.dtype),
        semisolid.bridge_ppm * field.rad_per_s_per_ppm,
    )
    terms.add(terms.size - 1, terms.size - 1, -rate)


def rf_generator(
    tissue: Tissue,
    field: Field,
    rf_offset_ppm: Scalar,
    w1_rad_per_s: Scalar,
    phase_rad: Scalar = 0.0,
    *,
    like: Tensor,
    batch: torch.Size,
) -> Tensor:
    """Generator (n, n + 1, *batch) during RF, in the frame rotating at the RF offset."""
    terms = Terms(state_size(tissue))
    add_relaxation(terms, tissue)
    add_exchange(terms, tissue)
    add_precession(terms, tissue, field, rf_offset_ppm)
    add_nutation(terms, tissue, w1_rad_per_s, phase_rad)
    add_semisolid_saturation(terms, tissue, field, rf_offset_ppm, w1_rad_per_s)
    return terms.generator(like, batch)


def free_generator(tissue: Tissue, field: Field, *, like: Tensor, batch: torch.Size) -> Tensor:
    """Generator (n, n + 1, *batch) without RF, in the water frame."""
    terms = Terms(state_size(tissue))
    add_relaxation(terms, tissue)
    add_exchange(terms, tissue)
    add_precession(terms, tissue, field, 0.0)
    return terms.generator(like, batch)


def equilibrium(tissue: Tissue, like: Tensor, batch: torch.Size, scale: Scalar = 1.0) -> Tensor:
    """Magnetisation (n, *batch) with every pool's z at ``scale`` times its fraction."""
    zero = like.new_zeros(()).expand(batch)
    fractions: list[Scalar] = [1.0] + [p.fraction for p in tissue.transverse_pools]
    components: list[Tensor] = []
    for fraction in fractions:
        components += [zero, zero, zero + fraction * scale]
    if tissue.z_only_pool is not None:
        components.append(zero + tissue.z_only_pool.fraction * scale)
    return torch.stack(components)
