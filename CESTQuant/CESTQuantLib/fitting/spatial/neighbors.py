"""Which voxels of a mask are neighbours, and how closely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Neighbors:
    """Pairs of voxels that share a face.

    Attributes:
        first: (pair,) index of one voxel of every pair.
        second: (pair,) index of the other one.
        closeness: (pair,) squared ratio of the smallest voxel spacing to the distance of the pair, so that neighbours
            across thick slices count less than those in the plane.
    """

    first: Tensor
    second: Tensor
    closeness: Tensor

    @classmethod
    def of_mask(cls, voxels: np.ndarray, shape: Sequence[int], spacing: Sequence[float]) -> Neighbors:
        """Find the neighbours within a mask.

        Args:
            voxels: (voxel,) flat indices of the voxels of the mask, ascending.
            shape: Shape of the grid, such as (K, J, I).
            spacing: Distance of voxels along each axis of ``shape``, in mm.
        """
        number = np.full(int(np.prod(shape)), -1, dtype=np.int64)
        number[voxels] = np.arange(len(voxels))
        grid = number.reshape(shape)
        firsts, seconds, closeness = [], [], []
        for axis, step in enumerate(spacing):
            first = np.take(grid, np.arange(shape[axis] - 1), axis).ravel()
            second = np.take(grid, np.arange(1, shape[axis]), axis).ravel()
            both = (first >= 0) & (second >= 0)
            firsts.append(first[both])
            seconds.append(second[both])
            closeness.append(np.full(int(both.sum()), (min(spacing) / step) ** 2))
        return cls(*(torch.from_numpy(np.concatenate(parts)) for parts in (firsts, seconds, closeness)))

    def __len__(self) -> int:
        return len(self.first)

    def among(self, usable: Tensor) -> Neighbors:
        """Return the pairs of which both voxels are usable (voxel,), numbered among the usable voxels alone."""
        number = usable.long().cumsum(0) - 1
        first, second, closeness = (values.to(usable.device) for values in (self.first, self.second, self.closeness))
        both = usable[first] & usable[second]
        return Neighbors(number[first[both]], number[second[both]], closeness[both])

    def differences(self, values: Tensor) -> Tensor:
        """Return first minus second of values (.., voxel) for every pair; (.., pair)."""
        return values.index_select(-1, self.first) - values.index_select(-1, self.second)

    def gathered(self, of_pairs: Tensor, voxels: int) -> Tensor:
        """Return the transpose of ``differences``: pairs (.., pair) added to the first and subtracted at the second."""
        total = of_pairs.new_zeros(*of_pairs.shape[:-1], voxels)
        return total.index_add_(-1, self.first, of_pairs).index_add_(-1, self.second, of_pairs, alpha=-1)

    def summed(self, of_pairs: Tensor, voxels: int) -> Tensor:
        """Return the sum over the pairs of every voxel; (.., pair) -> (.., voxel)."""
        total = of_pairs.new_zeros(*of_pairs.shape[:-1], voxels)
        return total.index_add_(-1, self.first, of_pairs).index_add_(-1, self.second, of_pairs)
