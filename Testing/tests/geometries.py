"""Voxel grids for tests: anisotropic, rotated, oblique and left-handed ones."""

from __future__ import annotations

import numpy as np

from NeuroCESTLib.scene.geometry import Geometry


def rotation(degrees: tuple[float, float, float]) -> np.ndarray:
    """Return the rotation matrix (3, 3) about R, then A, then S."""
    x, y, z = np.radians(degrees)
    about_r = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_a = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_s = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return about_s @ about_a @ about_r


SHAPE = (4, 5, 6)
SPACING = (0.9, 1.7, 3.1)
ORIGIN = (-31.0, 12.5, 7.25)

GRIDS = {
    "axial": Geometry.from_spacing(SHAPE, (1, 1, 1)),
    "anisotropic": Geometry.from_spacing(SHAPE, SPACING, ORIGIN),
    "rotated": Geometry.from_spacing(SHAPE, SPACING, ORIGIN, rotation((0, 0, 90))),
    "oblique": Geometry.from_spacing(SHAPE, SPACING, ORIGIN, rotation((12, -25, 40))),
    "LPS": Geometry.from_spacing(SHAPE, SPACING, ORIGIN, np.diag([-1.0, -1, 1])),
    "left-handed": Geometry.from_spacing(SHAPE, SPACING, ORIGIN, np.diag([-1.0, 1, 1])),
    "left-handed oblique": Geometry.from_spacing(
        SHAPE, SPACING, ORIGIN, rotation((5, 10, -33)) @ np.diag([1.0, -1, 1])
    ),
    "sagittal": Geometry.from_spacing(SHAPE, SPACING, ORIGIN, np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]])),
}


def world_ramp(geometry: Geometry) -> np.ndarray:
    """Return values (K, J, I) that are linear in world coordinates, which linear interpolation reproduces exactly."""
    k, j, i = np.meshgrid(*[np.arange(n) for n in geometry.shape], indexing="ij")
    ras = np.stack([i, j, k, np.ones_like(i)], axis=-1) @ geometry.ijk_to_ras.T
    return ras[..., 0] + 2 * ras[..., 1] - 3 * ras[..., 2] + 5
