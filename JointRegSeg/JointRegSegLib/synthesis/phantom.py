"""A small head made of formulas, at two visits, for self-tests and as sample data; nothing is read or downloaded.

It is not anatomy but an ellipsoid with folds, ventricles and a tumour of three compartments. It is defined at every
point of space, so that both visits are exact on any grid, and the map between them is known in closed form. Training
data come from ``jointregseg synthesize`` instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..images.modalities import MODALITIES

RADII_MM = np.array([58.0, 70.0, 54.0])
"""Half axes of the head along right, anterior and superior."""
TUMOR_CENTER_MM = np.array([24.0, 12.0, 10.0])
"""Centre of the tumour, RAS."""
TUMOR_RADII_MM = {1: 8.0, 3: 13.0, 2: 21.0}
"""Outer radius of each class at the first visit."""
GROWTH = 1.15
"""Radii at the second visit relative to the first."""
_TISSUE = {"t1": (0, 110, 80, 35), "t1ce": (0, 115, 85, 38), "t2": (0, 70, 95, 180), "flair": (0, 75, 100, 30)}
"""Intensity of air, white matter, grey matter and fluid."""
_TUMOR = {"t1": (0, 45, 70, 75), "t1ce": (0, 45, 72, 190), "t2": (0, 150, 140, 110), "flair": (0, 90, 160, 125)}
"""Intensity of the classes by number."""
_ROTATION_DEG = (4.0, -3.0, 6.0)
_SHIFT_MM = np.array([3.0, -4.0, 2.5])
_WAVE_MM, _WAVE_LENGTH_MM = 2.5, 80.0


@dataclass(frozen=True)
class PhantomVisit:
    """One visit on a grid.

    Attributes:
        images: Image (K, J, I) float32 by modality.
        labels: Classes (K, J, I) uint8.
        brain: Brain (K, J, I) bool.
    """

    images: dict[str, np.ndarray]
    labels: np.ndarray
    brain: np.ndarray


def to_second_visit(points_mm: np.ndarray) -> np.ndarray:
    """Map points (..., 3) of the first visit to the second, RAS mm."""
    return points_mm @ _rotation().T + _SHIFT_MM + _wave(points_mm)


def to_first_visit(points_mm: np.ndarray) -> np.ndarray:
    """Map points (..., 3) of the second visit to the first, RAS mm: the inverse of ``to_second_visit`` to 1e-6 mm."""
    found = (points_mm - _SHIFT_MM) @ _rotation()
    for _ in range(25):  # each iteration reduces the error to a fifth
        found = (points_mm - _SHIFT_MM - _wave(found)) @ _rotation()
    return found


def make_visit(
    shape: tuple[int, int, int], ijk_to_ras: np.ndarray, second: bool = False, seed: int = 0
) -> PhantomVisit:
    """Make the head on a grid.

    Args:
        shape: Grid (K, J, I).
        ijk_to_ras: Matrix (4, 4) from voxel indices to RAS mm.
        second: Whether to make the second visit.
        seed: Seed of the noise.
    """
    k, j, i = np.meshgrid(*(np.arange(n, dtype=float) for n in shape), indexing="ij")
    points = np.stack([i, j, k], axis=-1) @ np.asarray(ijk_to_ras)[:3, :3].T + np.asarray(ijk_to_ras)[:3, 3]
    if second:
        points = to_first_visit(points)
    tissue = _tissue(points)
    labels = np.where(tissue > 0, _labels(points, GROWTH if second else 1.0), 0).astype(np.uint8)
    generator = np.random.default_rng(seed + second)
    images = {}
    for modality in MODALITIES:
        values = np.where(labels > 0, np.array(_TUMOR[modality])[labels], np.array(_TISSUE[modality])[tissue])
        noisy = values + generator.normal(0, 2.0, shape)
        images[modality] = np.where(tissue > 0, np.maximum(noisy, 1.0), 0.0).astype(np.float32)
    return PhantomVisit(images, labels, tissue > 0)


def _tissue(points: np.ndarray) -> np.ndarray:
    """Tissue at points (..., 3): 0 air, 1 white matter, 2 grey matter, 3 fluid."""
    x, y, z = np.moveaxis(points, -1, 0)
    radius = np.linalg.norm(points / RADII_MM, axis=-1)
    folds = 0.06 * (np.sin(x / 5.0 + 1) * np.sin(y / 6.0) + np.sin(y / 5.5 + 2) * np.sin(z / 5.0 + 0.5))
    tissue = np.where(radius + folds < 0.78, 1, 2)
    tissue = np.where(np.sin(x / 9.0) * np.sin(y / 11.0 + 1) * np.sin(z / 10.0 + 2) > 0.4, 2, tissue)  # deep nuclei
    for side in (-1, 1):
        ventricle = ((x - side * 12) / 7) ** 2 + ((y + 6) / 22) ** 2 + ((z - 4) / 9) ** 2 < 1
        tissue = np.where(ventricle, 3, tissue)
    tissue = np.where((np.abs(x) < 1.5) & (radius > 0.7), 3, tissue)  # the gap between the hemispheres
    return np.where(radius < 1, tissue, 0)


def _labels(points: np.ndarray, growth: float) -> np.ndarray:
    """Class at points (..., 3) of a tumour with lobes."""
    offset = points - TUMOR_CENTER_MM
    direction = np.arctan2(offset[..., 1], offset[..., 0])
    distance = np.linalg.norm(offset, axis=-1) / (growth * (1 + 0.12 * np.sin(3 * direction)))
    labels = np.zeros(distance.shape, int)
    for number, outer in sorted(TUMOR_RADII_MM.items(), key=lambda item: -item[1]):
        labels[distance < outer] = number
    return labels


def _wave(points: np.ndarray) -> np.ndarray:
    """Smooth deformation (..., 3) in mm at points (..., 3)."""
    cycled = points[..., [1, 2, 0]]
    return _WAVE_MM * np.sin(2 * np.pi * cycled / _WAVE_LENGTH_MM + np.array([0.3, 1.1, 2.0]))


def _rotation() -> np.ndarray:
    x, y, z = np.radians(_ROTATION_DEG)
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return about_z @ about_y @ about_x
