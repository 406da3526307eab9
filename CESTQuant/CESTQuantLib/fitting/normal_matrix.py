"""Normal matrices J^T J of many voxels, in the layout that suits their order.

Few parameters: elementwise sums and an unrolled Cholesky, voxels last. Many (a five-pool Lorentzian has 16): batched
matrix products and LAPACK, voxels first. The two have the same interface, in which vectors are (p, voxel).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from . import cholesky as voxelwise_cholesky

LARGEST_ELEMENTWISE = 6


@dataclass(frozen=True)
class NormalMatrix:
    """J^T J of each voxel; subclasses hold `values` in their own layout."""

    values: Tensor
    voxel_dimension: ClassVar[int]

    @staticmethod
    def of(jacobian: Tensor, residual: Tensor) -> tuple[NormalMatrix, Tensor]:
        """Normal matrices and J^T r (p, voxel) from Jacobians (p, m, voxel) and residuals (m, voxel)."""
        if len(jacobian) <= LARGEST_ELEMENTWISE:
            return ElementwiseNormalMatrix.of(jacobian, residual)
        return BatchedNormalMatrix.of(jacobian, residual)

    def at(self, index: Tensor) -> NormalMatrix:
        """Those of some voxels."""
        return type(self)(self.values.index_select(self.voxel_dimension, index))

    def joined(self, other: NormalMatrix) -> NormalMatrix:
        """These and the other's voxels."""
        return type(self)(torch.cat((self.values, other.values), self.voxel_dimension))

    def diagonal(self) -> Tensor:
        """(p, voxel), a view."""
        raise NotImplementedError

    def where(self, chosen: Tensor, other: NormalMatrix) -> NormalMatrix:
        """The other's where chosen (voxel,), these elsewhere."""
        raise NotImplementedError

    def times(self, vector: Tensor) -> Tensor:
        """Matrix times vector; (p, voxel)."""
        raise NotImplementedError

    def solve(self, right: Tensor, unit: Tensor, damping: Tensor) -> Tensor:
        """Solve (U N U + damping) x = right, where U = diag(unit) makes the diagonal of U N U one or zero.

        A zero unit holds a parameter: its row and column become those of the identity.
        """
        raise NotImplementedError

    def inverse(self, unit: Tensor) -> Tensor:
        """Inverse of U N U with the held parameters' rows and columns those of the identity; (p, p, voxel)."""
        raise NotImplementedError


class ElementwiseNormalMatrix(NormalMatrix):
    """Values (p, p, voxel)."""

    voxel_dimension = -1

    @staticmethod
    def of(jacobian: Tensor, residual: Tensor) -> tuple[NormalMatrix, Tensor]:
        jacobian = jacobian.contiguous()
        count, _, voxels = jacobian.shape
        values = jacobian.new_empty(count, count, voxels)
        products = jacobian * residual
        gradient = products.sum(1)
        for row in range(count):  # in one buffer: fresh memory for each row costs as much as the sums
            sums = torch.mul(jacobian[row:], jacobian[row], out=products[row:]).sum(1)
            values[row, row:] = sums
            values[row:, row] = sums
        return ElementwiseNormalMatrix(values), gradient

    def diagonal(self) -> Tensor:
        return self.values.diagonal().T

    def where(self, chosen: Tensor, other: NormalMatrix) -> NormalMatrix:
        return ElementwiseNormalMatrix(torch.where(chosen, other.values, self.values))

    def times(self, vector: Tensor) -> Tensor:
        return (self.values * vector).sum(1)

    def _scaled(self, unit: Tensor, diagonal: Tensor) -> Tensor:
        matrix = self.values * unit * unit.unsqueeze(1)
        matrix.diagonal().copy_(diagonal.unsqueeze(-1).expand(-1, len(unit)))
        return matrix

    def solve(self, right: Tensor, unit: Tensor, damping: Tensor) -> Tensor:
        return voxelwise_cholesky.solve(self._scaled(unit, 1 + damping), right)

    def inverse(self, unit: Tensor) -> Tensor:
        return voxelwise_cholesky.inverse(self._scaled(unit, torch.ones_like(unit[0])))


class BatchedNormalMatrix(NormalMatrix):
    """Values (voxel, p, p). Fastest where the Jacobian is a permuted view of (voxel, p, m) memory."""

    voxel_dimension = 0

    @staticmethod
    def of(jacobian: Tensor, residual: Tensor) -> tuple[NormalMatrix, Tensor]:
        rows = jacobian.permute(2, 0, 1).contiguous()
        gradient = torch.bmm(rows, residual.T.unsqueeze(2)).squeeze(2)
        return BatchedNormalMatrix(torch.bmm(rows, rows.transpose(1, 2))), gradient.T.contiguous()

    def diagonal(self) -> Tensor:
        return self.values.diagonal(dim1=1, dim2=2).T

    def where(self, chosen: Tensor, other: NormalMatrix) -> NormalMatrix:
        return BatchedNormalMatrix(torch.where(chosen[:, None, None], other.values, self.values))

    def times(self, vector: Tensor) -> Tensor:
        return torch.bmm(self.values, vector.T.unsqueeze(2)).squeeze(2).T

    def _scaled(self, unit: Tensor, diagonal: Tensor) -> Tensor:
        unit = unit.T.contiguous()
        matrix = self.values * unit.unsqueeze(1)
        matrix *= unit.unsqueeze(2)
        matrix.diagonal(dim1=1, dim2=2).copy_(diagonal.unsqueeze(1).expand_as(unit))
        return matrix

    def solve(self, right: Tensor, unit: Tensor, damping: Tensor) -> Tensor:
        factor, failed = torch.linalg.cholesky_ex(self._scaled(unit, 1 + damping))
        solution = torch.cholesky_solve(right.T.unsqueeze(2), factor).squeeze(2).T
        # singular at working precision: downhill, until the damping has grown
        return torch.where(failed == 0, solution, right / (1 + damping))

    def inverse(self, unit: Tensor) -> Tensor:
        factor, failed = torch.linalg.cholesky_ex(self._scaled(unit, torch.ones_like(unit[0])))
        inverse = torch.cholesky_inverse(factor)
        return torch.where((failed == 0)[:, None, None], inverse, torch.inf).permute(1, 2, 0)
