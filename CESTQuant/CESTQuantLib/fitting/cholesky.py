"""Cholesky solutions of many small symmetric positive-definite systems, one per voxel, with the voxel axis last.

The factorisation is unrolled over the order of the matrix (2 to about 20) and vectorised over the voxels. For the many
small normal matrices of a parametric map this is faster than a batched LAPACK call, and it needs no transposition.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _factorize(matrix: Tensor, right_hand_sides: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the Cholesky factor and forward-substitute the right-hand sides on the way.

    Pivots are not allowed to fall below the rounding error of a unit diagonal. A numerically singular direction then
    gives a huge step, which the fit rejects, and never a NaN.

    Args:
        matrix: (p, p, voxel), scaled to a diagonal of about one.
        right_hand_sides: (r, p, voxel).

    Returns:
        The rows (p + r, p, voxel): first the factor L (strictly lower part), then the solutions y of L y = b; and the
        inverse pivots 1 / L_kk, (p, voxel).
    """
    order = matrix.shape[0]
    rows = torch.cat((matrix, right_hand_sides))
    smallest_pivot = torch.finfo(matrix.dtype).eps
    inverse_pivots = torch.empty_like(matrix[0])
    for k in range(order):
        inverse_pivots[k] = rows[k, k].clamp_min(smallest_pivot).rsqrt()
        column = rows[k + 1 :, k].mul_(inverse_pivots[k])
        if k + 1 < order:
            pivot_row = column[: order - k - 1]
            rows[k + 1 :, k + 1 :].addcmul_(column.unsqueeze(1), pivot_row.unsqueeze(0), value=-1)
    return rows, inverse_pivots


def _back_substitute(rows: Tensor, inverse_pivots: Tensor) -> Tensor:
    """Solve L^T x = y for the right-hand sides that ``_factorize`` appended; returns (r, p, voxel)."""
    order = inverse_pivots.shape[0]
    solution = rows[order:]
    for k in range(order - 1, -1, -1):
        solution[:, k].mul_(inverse_pivots[k])
        if k:
            solution[:, :k].addcmul_(solution[:, k : k + 1], rows[k, :k], value=-1)
    return solution


def solve(matrix: Tensor, right_hand_side: Tensor) -> Tensor:
    """Solve A x = b in every voxel.

    Args:
        matrix: A, (p, p, voxel), symmetric positive definite and scaled to a diagonal of about one.
        right_hand_side: b, (p, voxel).

    Returns:
        x, (p, voxel).
    """
    return _back_substitute(*_factorize(matrix, right_hand_side.unsqueeze(0)))[0]


def inverse(matrix: Tensor) -> Tensor:
    """Invert the matrix of every voxel.

    Args:
        matrix: (p, p, voxel), symmetric positive definite and scaled to a diagonal of about one.

    Returns:
        (p, p, voxel).
    """
    order, _, voxels = matrix.shape
    identity = torch.eye(order, dtype=matrix.dtype, device=matrix.device)
    return _back_substitute(*_factorize(matrix, identity.unsqueeze(-1).expand(-1, -1, voxels)))
