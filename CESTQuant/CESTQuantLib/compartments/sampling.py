"""Values of images at points, and images on coarser grids."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import SimpleITK as sitk

from .grid import Grid
from .inputs import Image


def linear(array: np.ndarray, indices: np.ndarray, outside: float = 0.0) -> np.ndarray:
    """Interpolate linearly at continuous indices.

    Args:
        array: Values (K, J, I).
        indices: Places (n, 3) in the order (i, j, k).
        outside: Value of places farther than half a voxel outside of the grid.

    Returns:
        Values (n,), float64; NaN where a neighbour with a weight is NaN.
    """
    sizes = np.array(array.shape[::-1])
    inside = ((indices >= -0.5) & (indices <= sizes - 0.5)).all(1)
    place = np.clip(indices[inside], 0, sizes - 1)
    low = np.minimum(np.floor(place).astype(np.int64), np.maximum(sizes - 2, 0))
    share = place - low
    found = np.zeros(len(place))
    for corner in range(8):
        offset = np.array([corner & 1, corner >> 1 & 1, corner >> 2 & 1])
        weight = np.where(offset, share, 1 - share).prod(1)
        i, j, k = np.minimum(low + offset, sizes - 1).T
        used = weight > 0
        found[used] += weight[used] * array[k[used], j[used], i[used]]
    values = np.full(len(indices), outside)
    values[inside] = found
    return values


def nearest(array: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Return the values (n,) at the voxels nearest to continuous indices (n, 3) in the order (i, j, k); 0 outside."""
    i, j, k = np.floor(indices + 0.5).astype(np.int64).T
    slices, rows, columns = array.shape
    here = (i >= 0) & (i < columns) & (j >= 0) & (j < rows) & (k >= 0) & (k < slices)
    values = np.zeros(len(indices), array.dtype)
    values[here] = array[k[here], j[here], i[here]]
    return values


def on_grid(array: np.ndarray, source: Grid, onto: Grid, onto_to_source: np.ndarray, outside: float) -> np.ndarray:
    """Interpolate an image linearly at the voxels of another grid.

    Args:
        array: Values (K, J, I) on ``source``.
        source: Grid of the image.
        onto: Wanted grid.
        onto_to_source: Matrix (4, 4) from points of the space of ``onto`` to those of the image, RAS in mm.
        outside: Value beyond the image.

    Returns:
        Values of the shape of ``onto``, float32.
    """
    moved = Grid(onto.shape, onto_to_source @ onto.ijk_to_ras)
    return linear(array, source.indices(moved.points()), outside).reshape(onto.shape).astype(np.float32)


def mask_on_grid(mask: np.ndarray, source: Grid, onto: Grid) -> np.ndarray:
    """Return a mask at the voxels of another grid of the same space, by the nearest voxel, bool (K, J, I).

    Args:
        mask: Boolean mask on ``source``.
        source: Grid of the mask.
        onto: Wanted grid, of any size.
    """
    to_source = np.linalg.inv(source.ijk_to_ras) @ onto.ijk_to_ras
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(to_source[:3, :3].ravel().tolist())
    transform.SetTranslation(to_source[:3, 3].tolist())
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    empty = sitk.Image([int(n) for n in onto.shape[::-1]], sitk.sitkUInt8)
    return sitk.GetArrayFromImage(sitk.Resample(image, empty, transform, sitk.sitkNearestNeighbor, 0)) != 0


def coarse(image: Image, spacing_mm: float) -> Image:
    """Average an image over blocks of voxels that are not larger than ``spacing_mm``.

    Args:
        image: The image.
        spacing_mm: Wanted spacing; axes that are coarser already stay as they are.
    """
    factors = np.maximum(1, np.floor(spacing_mm / image.grid.spacing_mm + 0.01)).astype(int)
    factors = np.minimum(factors, image.array.shape[::-1])
    i, j, k = (int(factor) for factor in factors)
    shape = tuple(n // f for n, f in zip(image.array.shape, (k, j, i), strict=True))
    cut = image.array[: shape[0] * k, : shape[1] * j, : shape[2] * i]
    means = cut.reshape(shape[0], k, shape[1], j, shape[2], i).mean((1, 3, 5), dtype=np.float32)
    step = np.diag([i, j, k, 1.0])
    step[:3, 3] = (factors - 1) / 2
    return replace(image, array=means, grid=Grid(means.shape, image.grid.ijk_to_ras @ step))
