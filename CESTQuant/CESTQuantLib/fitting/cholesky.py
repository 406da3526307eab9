"""Small symmetric positive systems, one a voxel, with the voxels last.

The factorisation is unrolled over the matrix order (2 to about 20) and vectorised over the voxels: for the
many small normal matrices of a parametric map this is faster than a batched LAPACK call, and needs no
transposition.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _factorise(matrix: Tensor, right_hand_sides: Tensor) -> tuple[Tensor, Tensor]:
    """Cholesky factor with the forward-substituted right-hand sides appended below it.

    The pivots are floored at the rounding error of a unit diagonal, so that a numerically singular direction
    gives a huge (later rejected) step and never a NaN.

    Args:
        matrix: (p, p, voxel), scaled to a diagonal of about one.
        right_hand_sides: (r, p, voxel).

    Returns:
        rows (p + r, p, voxel): the factor L (strictly lower part), then the forward-substituted sides;
        inverse_pivots (p, voxel): 1 / L_kk.
    """
    order = matrix.shape[0]
    rows = torch.cat((matrix, right_hand_sides))
    floor = torch.finfo(matrix.dtype).eps
    inverse_pivots = torch.empty_like(matrix[0])
    for k in range(order):
        inverse_pivots[k] = rows[k, k].clamp_min(floor).rsqrt()
        column = rows[k + 1 :, k].mul_(inverse_pivots[k])
        if k + 1 < order:
            pivot_row = column[: order - k - 1]
            rows[k + 1 :, k + 1 :].addcmul_(column.unsqueeze(1), pivot_row.unsqueeze(0), value=-1)
    return rows, inverse_pivots


def _back_substitute(rows: Tensor, inverse_pivots: Tensor) -> Tensor:
    """Solve L^T x = y for the sides that `_factorise` appended; returns (r, p, voxel)."""
    order = inverse_pivots.shape[0]
    solution = rows[order:]
    for k in range(order - 1, -1, -1):
        solution[:, k].mul_(inverse_pivots[k])
        if k:
            solution[:, :k].addcmul_(solution[:, k : k + 1], rows[k, :k], value=-1)
    return solution


def solve(matrix: Tensor, right_hand_side: Tensor) -> Tensor:
    """Solve A x = b for each voxel; matrix (p, p, voxel), right_hand_side (p, voxel) -> (p, voxel)."""
    return _back_substitute(*_factorise(matrix, right_hand_side.unsqueeze(0)))[0]


def inverse(matrix: Tensor) -> Tensor:
    """Inverse of each voxel's matrix; (p, p, voxel) -> (p, p, voxel)."""
    order, _, voxels = matrix.shape
    identity = torch.eye(order, dtype=matrix.dtype, device=matrix.device)
    return _back_substitute(*_factorise(matrix, identity.unsqueeze(-1).expand(-1, -1, voxels)))
