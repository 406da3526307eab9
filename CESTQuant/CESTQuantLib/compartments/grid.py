"""Voxel grids as the science of compartments sees them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Grid:
    """A voxel grid in space.

    Attributes:
        shape: Number of voxels (K, J, I).
        ijk_to_ras: Matrix (4, 4) from voxel index (i, j, k, 1) to world coordinates (R, A, S, 1) in mm.
    """

    shape: tuple[int, int, int]
    ijk_to_ras: np.ndarray

    @property
    def spacing_mm(self) -> np.ndarray:
        """Voxel size along (i, j, k) in mm."""
        return np.linalg.norm(self.ijk_to_ras[:3, :3], axis=0)

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in ml."""
        return float(abs(np.linalg.det(self.ijk_to_ras[:3, :3]))) / 1000

    def points(self) -> np.ndarray:
        """Return the centres of all voxels, RAS in mm, of shape (K * J * I, 3) in the order of a raveled array."""
        return self.at(index_points(self.shape))

    def at(self, indices: np.ndarray) -> np.ndarray:
        """Return world coordinates (n, 3), RAS in mm, of continuous indices (n, 3) in the order (i, j, k)."""
        return indices @ self.ijk_to_ras[:3, :3].T + self.ijk_to_ras[:3, 3]

    def indices(self, points: np.ndarray) -> np.ndarray:
        """Return continuous indices (n, 3) in the order (i, j, k) of world coordinates (n, 3), RAS in mm."""
        inverse = np.linalg.inv(self.ijk_to_ras)
        return points @ inverse[:3, :3].T + inverse[:3, 3]


def index_points(shape: tuple[int, int, int]) -> np.ndarray:
    """Return the indices (i, j, k) of all voxels, float64 (K * J * I, 3), in the order of a raveled array."""
    k, j, i = np.meshgrid(*(np.arange(n, dtype=np.float64) for n in shape), indexing="ij")
    return np.stack([i.ravel(), j.ravel(), k.ravel()], axis=1)
