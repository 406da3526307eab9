"""A brain whose mid-sagittal plane, tissue and tumour are known at every point, on any grid and in any pose."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from geometries import rotation

from CESTQuantLib.compartments.grid import Grid

HALF_AXES_MM = np.array([62.0, 78.0, 55.0])
TUMOR_MM = np.array([28.0, 12.0, 8.0])
"""Centre of the tumour in the coordinates of the head."""


def grid_around(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], turn: np.ndarray | None = None
) -> Grid:
    """Return a grid that is centred on the origin, with axes turned by a rotation matrix (3, 3)."""
    matrix = np.eye(4)
    matrix[:3, :3] = (np.eye(3) if turn is None else turn) * np.array(spacing)
    matrix[:3, 3] = -matrix[:3, :3] @ ((np.array(shape[::-1]) - 1) / 2)
    return Grid(shape, matrix)


@dataclass(frozen=True)
class Brain:
    """A head in a pose.

    Attributes:
        turn_deg: Rotation about R, A and S in degrees.
        shift_mm: Position of its centre, RAS in mm.
        seed: Seed of the folds, by which two people differ.
        tumor_scale: Size of the tumour.
        size: Size of the head.
    """

    turn_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    seed: int = 1
    tumor_scale: float = 1.0
    size: float = 1.0
    folds: np.ndarray = field(init=False, repr=False)
    ventricle_mm: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        object.__setattr__(self, "ventricle_mm", rng.uniform([4, 15, 8], [9, 35, 16]))
        object.__setattr__(self, "folds", rng.uniform([0.08, 0.06, 0.08, 0], [0.2, 0.16, 0.2, 2 * np.pi], (6, 4)))

    @property
    def normal(self) -> np.ndarray:
        """Normal of the mid-sagittal plane."""
        return rotation(self.turn_deg)[:, 0]

    def inside(self, points: np.ndarray) -> np.ndarray:
        """Return points (n, 3), RAS in mm, in the coordinates of the head."""
        return (points - np.array(self.shift_mm)) @ rotation(self.turn_deg) / self.size

    def tissue(self, points: np.ndarray) -> np.ndarray:
        """Return 0 for air, 1 for fluid, 2 for grey and 3 for white matter, 4 for oedema and 5 for enhancing tumour."""
        q = self.inside(points)
        x = np.abs(q[:, 0])
        radius = np.linalg.norm(q / HALF_AXES_MM, axis=1)
        wave = sum(
            np.cos(a * x + phase) * np.cos(b * q[:, 1] + phase) * np.cos(c * q[:, 2] - phase)
            for a, b, c, phase in self.folds
        )
        labels = np.zeros(len(points), np.int64)
        labels[radius < 1] = 1
        labels[radius < 0.96] = 2
        labels[radius < 0.76 + 0.08 * wave] = 3
        deep_gray = ((x - 18) / 8) ** 2 + ((q[:, 1] - 2) / 13) ** 2 + ((q[:, 2] - 0) / 10) ** 2 < 1
        wide, long, high = self.ventricle_mm
        ventricle = ((x - wide - 2) / wide) ** 2 + ((q[:, 1] + 5) / long) ** 2 + ((q[:, 2] - 8) / high) ** 2 < 1
        labels[deep_gray & (radius < 0.9)] = 2
        labels[ventricle] = 1
        radii = np.array([15.0, 18.0, 15.0]) * max(self.tumor_scale, 1e-6)
        tumor = np.linalg.norm((q - TUMOR_MM) / radii, axis=1)
        labels[(tumor < 1) & (radius < 0.9)] = 4
        labels[(tumor < 0.6) & (radius < 0.9)] = 5
        return labels

    def on(self, grid: Grid) -> np.ndarray:
        """Return the tissue (K, J, I) at the voxels of a grid."""
        return self.tissue(grid.points()).reshape(grid.shape)

    def image(self, grid: Grid, intensities: tuple[float, ...], noise: float = 0.01) -> np.ndarray:
        """Return an image (K, J, I) with an intensity for each tissue, and noise relative to the brightest."""
        values = np.array(intensities)[self.on(grid)]
        noisy = values + noise * max(intensities) * np.random.default_rng(self.seed).standard_normal(values.shape)
        return np.abs(noisy).astype(np.float32)


T1_WEIGHTED = (0.0, 150.0, 500.0, 800.0, 420.0, 650.0)
UNSATURATED = (0.0, 1000.0, 800.0, 680.0, 900.0, 840.0)
