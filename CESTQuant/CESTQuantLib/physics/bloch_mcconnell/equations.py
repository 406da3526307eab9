"""Numerical Bloch-McConnell equations (McConnell, J Chem Phys 1958;28:430), assembled from named terms.

A magnetisation vector holds x, y and z of water, then x, y and z of every further pool, then z of a z-only semisolid
pool; :func:`x_row`, :func:`y_row` and :func:`z_row` give their rows. All batch axes come last, see
:mod:`.propagators`. Every input may carry gradients.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from ..lineshapes import saturation_rate
from ..pools import Pool, Scalar, Semisolid, Tissue, Water

WATER = 0
"""Number of the water pool; the pools with transverse magnetisation follow from 1."""


@dataclass(frozen=True)
class Field:
    """The static field of a voxel.

    Attributes:
        rad_per_s_per_ppm: Angular frequency of one ppm in rad/s.
        b0_shift_ppm: Local B0 shift in ppm, which moves all pools together.
    """

    rad_per_s_per_ppm: float
    b0_shift_ppm: Scalar = 0.0


def state_size(tissue: Tissue) -> int:
    """Return the number of magnetisation components."""
    return 3 * (1 + len(tissue.transverse_pools)) + (tissue.z_only_pool is not None)


def x_row(pool: int) -> int:
    """Return the row of a pool's x magnetisation."""
    return 3 * pool


def y_row(pool: int) -> int:
    """Return the row of a pool's y magnetisation."""
    return 3 * pool + 1


def z_row(pool: int) -> int:
    """Return the row of a pool's z magnetisation."""
    return 3 * pool + 2


class Terms:
    """The coefficients of a linear system under assembly.

    Attributes:
        size: Number n of rows.
        constant: Column of the inhomogeneous term.
        values: Coefficient d(row)/dt per unit of a column, by (row, column); terms at the same place add up.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.constant = size
        self.values: dict[tuple[int, int], Scalar] = defaultdict(float)

    def add(self, row: int, column: int, value: Scalar) -> None:
        """Add a term to a coefficient."""
        self.values[row, column] = self.values[row, column] + value

    def generator(self, like: Tensor, batch: torch.Size) -> Tensor:
        """Return the tensor [A | c] of shape ``(n, n + 1, *batch)`` with the dtype and device of ``like``."""
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
    """Add -R2 x, -R2 y and -R1 (z - M0) of every pool; M0 is the pool's fraction (water 1)."""
    pools: list[Water | Pool] = [tissue.water, *tissue.transverse_pools]
    for number, pool in enumerate(pools):
        fraction = pool.fraction if isinstance(pool, Pool) else 1.0
        terms.add(x_row(number), x_row(number), -1 / pool.T2_s)
        terms.add(y_row(number), y_row(number), -1 / pool.T2_s)
        terms.add(z_row(number), z_row(number), -1 / pool.T1_s)
        terms.add(z_row(number), terms.constant, fraction / pool.T1_s)
    if (semisolid := tissue.z_only_pool) is not None:
        z = terms.size - 1
        terms.add(z, z, -1 / semisolid.T1_s)
        terms.add(z, terms.constant, semisolid.fraction / semisolid.T1_s)


def add_precession(terms: Terms, tissue: Tissue, field: Field, frame_offset_ppm: Scalar) -> None:
    """Add the precession of every pool at its own offset from the frame (the RF offset, or 0 for the water frame)."""
    shifts: list[Scalar] = [0.0, *(pool.dw_ppm for pool in tissue.transverse_pools)]
    for number, dw_ppm in enumerate(shifts):
        offset = (dw_ppm + field.b0_shift_ppm - frame_offset_ppm) * field.rad_per_s_per_ppm
        terms.add(x_row(number), y_row(number), -offset)
        terms.add(y_row(number), x_row(number), offset)


def add_nutation(terms: Terms, tissue: Tissue, w1_rad_per_s: Scalar, phase_rad: Tensor | None = None) -> None:
    """Add the rotation of every pool about the RF field of angular amplitude w1 and phase (None: along x)."""
    along_x, along_y = w1_rad_per_s, None
    if phase_rad is not None:
        along_x, along_y = w1_rad_per_s * torch.cos(phase_rad), w1_rad_per_s * torch.sin(phase_rad)
    for number in range(1 + len(tissue.transverse_pools)):
        terms.add(y_row(number), z_row(number), along_x)
        terms.add(z_row(number), y_row(number), -along_x)
        if along_y is not None:
            terms.add(x_row(number), z_row(number), -along_y)
            terms.add(z_row(number), x_row(number), along_y)


def add_exchange(terms: Terms, tissue: Tissue) -> None:
    """Add the exchange of every pool with water: pool to water at k, water to pool at fraction x k."""

    def exchange(water_row: int, pool_row: int, pool: Pool | Semisolid) -> None:
        forward = pool.fraction * pool.k_Hz
        terms.add(water_row, water_row, -forward)
        terms.add(water_row, pool_row, pool.k_Hz)
        terms.add(pool_row, pool_row, -pool.k_Hz)
        terms.add(pool_row, water_row, forward)

    for number, pool in enumerate(tissue.transverse_pools, start=1):
        for row in (x_row, y_row, z_row):
            exchange(row(WATER), row(number), pool)
    if tissue.z_only_pool is not None:
        exchange(z_row(WATER), terms.size - 1, tissue.z_only_pool)


def add_semisolid_saturation(
    terms: Terms, tissue: Tissue, field: Field, rf_offset_ppm: Scalar, w1_rad_per_s: Scalar
) -> None:
    """Add the saturation of a z-only semisolid pool at the rate w1^2 pi g."""
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
    phase_rad: Tensor | None = None,
    *,
    like: Tensor,
    batch: torch.Size,
) -> Tensor:
    """Return the generator of the evolution during RF, in the frame rotating at the RF offset.

    Args:
        tissue: Pools whose values broadcast against the batch.
        field: Static field of the voxels.
        rf_offset_ppm: Offset of the RF from the nominal water frequency in ppm; broadcasts against the batch.
        w1_rad_per_s: RF amplitude as an angular frequency in rad/s; broadcasts against the batch.
        phase_rad: RF phase in rad; None for RF along x.
        like: Tensor that gives dtype and device.
        batch: Shape of the batch, usually (measurement, voxel).

    Returns:
        Generator [A | c] of shape ``(n, n + 1, *batch)``.
    """
    terms = Terms(state_size(tissue))
    add_relaxation(terms, tissue)
    add_exchange(terms, tissue)
    add_precession(terms, tissue, field, rf_offset_ppm)
    add_nutation(terms, tissue, w1_rad_per_s, phase_rad)
    add_semisolid_saturation(terms, tissue, field, rf_offset_ppm, w1_rad_per_s)
    return terms.generator(like, batch)


def free_generator(tissue: Tissue, field: Field, *, like: Tensor, batch: torch.Size) -> Tensor:
    """Return the generator ``(n, n + 1, *batch)`` of the evolution without RF, in the water frame."""
    terms = Terms(state_size(tissue))
    add_relaxation(terms, tissue)
    add_exchange(terms, tissue)
    add_precession(terms, tissue, field, 0.0)
    return terms.generator(like, batch)


def equilibrium(tissue: Tissue, like: Tensor, batch: torch.Size, scale: Scalar = 1.0) -> Tensor:
    """Return the magnetisation ``(n, *batch)`` with the z component of every pool at ``scale`` times its fraction."""
    zero = like.new_zeros(()).expand(batch)
    fractions: list[Scalar] = [1.0, *(pool.fraction for pool in tissue.transverse_pools)]
    components: list[Tensor] = []
    for fraction in fractions:
        components += [zero, zero, zero + fraction * scale]
    if tissue.z_only_pool is not None:
        components.append(zero + tissue.z_only_pool.fraction * scale)
    return torch.stack(components)


def spoiled(magnetization: Tensor, cosine: Tensor, turned: Tensor) -> Tensor:
    """Return the magnetisation ``(n, *batch)`` after an ideal excitation that leaves nothing transverse.

    A z-only semisolid pool, whose T2 is much shorter than an excitation, is not turned.

    Args:
        magnetization: Components before the excitation, shape ``(n, *batch)``.
        cosine: Cosine of the flip angle, which the longitudinal components keep; broadcasts against the batch.
        turned: Whether the excitation turns each of the pools with transverse magnetisation, boolean (pool, ...).
    """
    zero = torch.zeros_like(magnetization[z_row(WATER)] * cosine)
    z_only = magnetization[3 * len(turned) :]
    result = [zero] * (3 * len(turned)) + [z + zero for z in z_only]
    for pool, is_turned in enumerate(turned):
        result[z_row(pool)] = magnetization[z_row(pool)] * torch.where(is_turned, cosine, 1.0) + zero
    return torch.stack(result)
