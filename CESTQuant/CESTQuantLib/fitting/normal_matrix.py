"""Normal matrices N = J J^T of many voxels, in the memory layout that suits their order.

With few parameters, elementwise sums and the unrolled Cholesky factorisation are fastest, with the voxel axis last.
With many (a five-pool Lorentzian has 16), batched matrix products and LAPACK are, with the voxel axis first. Both
layouts have the same interface, in which vectors are (p, voxel).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from . import cholesky

LARGEST_ELEMENTWISE = 6
"""Number of parameters up to which the elementwise layout is used."""


@dataclass(frozen=True)
class NormalMatrix(ABC):
    """Normal matrices of a batch of voxels.

    Attributes:
        values: The matrices; the subclass says in which layout.
    """

    values: Tensor
    voxel_dimension: ClassVar[int]

    def at(self, index: Tensor) -> NormalMatrix:
        """Return the matrices of the voxels at the positions ``index`` (n,)."""
        return type(self)(self.values.index_select(self.voxel_dimension, index))

    def joined(self, other: NormalMatrix) -> NormalMatrix:
        """Return these matrices followed by those of ``other``, which has the same layout."""
        return type(self)(torch.cat((self.values, other.values), self.voxel_dimension))

    @abstractmethod
    def diagonal(self) -> Tensor:
        """Return the diagonals (p, voxel) as a view, which may be written to."""

    @abstractmethod
    def where(self, chosen: Tensor, other: NormalMatrix) -> NormalMatrix:
        """Return the matrices of ``other`` where ``chosen`` (voxel,) is true, and these elsewhere."""

    @abstractmethod
    def times(self, vector: Tensor) -> Tensor:
        """Multiply every matrix by its vector; (p, voxel) -> (p, voxel)."""

    @abstractmethod
    def solve(self, right_hand_side: Tensor, scale: Tensor, damping: Tensor) -> Tensor:
        """Solve the damped and scaled normal equations (U N U + damping I) x = b with U = diag(scale).

        Args:
            right_hand_side: b, (p, voxel).
            scale: (p, voxel) from ``marquardt.parameter_scales``, which makes the diagonal of U N U one. A scale of
                zero holds a parameter: its row and column are those of the identity.
            damping: (voxel,).

        Returns:
            x, (p, voxel).
        """

    @abstractmethod
    def inverse(self, scale: Tensor) -> Tensor:
        """Invert U N U; rows and columns of held parameters are those of the identity; returns (p, p, voxel)."""


def normal_equations(jacobian: Tensor, residual: Tensor) -> tuple[NormalMatrix, Tensor]:
    """Form the normal matrix J J^T and the gradient J r in the layout that suits the number of parameters.

    Args:
        jacobian: J, (p, m, voxel), the derivative of measurement m with respect to parameter p.
        residual: r, (m, voxel), prediction minus data.

    Returns:
        The normal matrices and the gradients (p, voxel); a gradient is half that of the sum of squares.
    """
    if len(jacobian) <= LARGEST_ELEMENTWISE:
        return _elementwise_equations(jacobian, residual)
    return _batched_equations(jacobian, residual)


class ElementwiseNormalMatrix(NormalMatrix):
    """Normal matrices stored as (p, p, voxel)."""

    voxel_dimension = -1

    def diagonal(self) -> Tensor:
        return self.values.diagonal().T

    def where(self, chosen: Tensor, other: NormalMatrix) -> NormalMatrix:
        return ElementwiseNormalMatrix(torch.where(chosen, other.values, self.values))

    def times(self, vector: Tensor) -> Tensor:
        return (self.values * vector).sum(1)

    def solve(self, right_hand_side: Tensor, scale: Tensor, damping: Tensor) -> Tensor:
        return cholesky.solve(self._scaled(scale, 1 + damping), right_hand_side)

    def inverse(self, scale: Tensor) -> Tensor:
        return cholesky.inverse(self._scaled(scale, torch.ones_like(scale[0])))

    def _scaled(self, scale: Tensor, diagonal: Tensor) -> Tensor:
        """Return U N U with its diagonal replaced by ``diagonal`` (voxel,)."""
        matrix = self.values * scale * scale.unsqueeze(1)
        matrix.diagonal().copy_(diagonal.unsqueeze(-1).expand(-1, len(scale)))
        return matrix


def _elementwise_equations(jacobian: Tensor, residual: Tensor) -> tuple[NormalMatrix, Tensor]:
    jacobian = jacobian.contiguous()
    count, _, voxels = jacobian.shape
    values = jacobian.new_empty(count, count, voxels)
    products = jacobian * residual
    gradient = products.sum(1)
    for row in range(count):  # in one buffer: allocating memory for each row costs as much as the sums
        sums = torch.mul(jacobian[row:], jacobian[row], out=products[row:]).sum(1)
        values[row, row:] = sums
        values[row:, row] = sums
    return ElementwiseNormalMatrix(values), gradient


class BatchedNormalMatrix(NormalMatrix):
    """Normal matrices stored as (voxel, p, p)."""

    voxel_dimension = 0

    def diagonal(self) -> Tensor:
        return self.values.diagonal(dim1=1, dim2=2).T

    def where(self, chosen: Tensor, other: NormalMatrix) -> NormalMatrix:
        return BatchedNormalMatrix(torch.where(chosen[:, None, None], other.values, self.values))

    def times(self, vector: Tensor) -> Tensor:
        return torch.bmm(self.values, vector.T.unsqueeze(2)).squeeze(2).T

    def solve(self, right_hand_side: Tensor, scale: Tensor, damping: Tensor) -> Tensor:
        factor, failed = torch.linalg.cholesky_ex(self._scaled(scale, 1 + damping))
        solution = torch.cholesky_solve(right_hand_side.T.unsqueeze(2), factor).squeeze(2).T
        # Singular at working precision: go downhill along the gradient until the damping has grown.
        return torch.where(failed == 0, solution, right_hand_side / (1 + damping))

    def inverse(self, scale: Tensor) -> Tensor:
        factor, failed = torch.linalg.cholesky_ex(self._scaled(scale, torch.ones_like(scale[0])))
        singular = (failed != 0) | (factor.diagonal(dim1=1, dim2=2) == 0).any(1)  # their inverse would raise an error
        identity = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
        inverse = torch.cholesky_inverse(torch.where(singular[:, None, None], identity, factor))
        return torch.where(singular[:, None, None], torch.inf, inverse).permute(1, 2, 0)

    def _scaled(self, scale: Tensor, diagonal: Tensor) -> Tensor:
        """Return U N U with its diagonal replaced by ``diagonal`` (voxel,)."""
        scale = scale.T.contiguous()
        matrix = self.values * scale.unsqueeze(1)
        matrix *= scale.unsqueeze(2)
        matrix.diagonal(dim1=1, dim2=2).copy_(diagonal.unsqueeze(1).expand_as(scale))
        return matrix


def _batched_equations(jacobian: Tensor, residual: Tensor) -> tuple[NormalMatrix, Tensor]:
    """Fastest where the Jacobian is a permuted view of (voxel, p, m) memory."""
    rows = jacobian.permute(2, 0, 1).contiguous()
    gradient = torch.bmm(rows, residual.T.unsqueeze(2)).squeeze(2)
    return BatchedNormalMatrix(torch.bmm(rows, rows.transpose(1, 2))), gradient.T.contiguous()
