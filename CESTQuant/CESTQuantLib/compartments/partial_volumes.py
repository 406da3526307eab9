"""Partial volumes: which share of each CEST voxel lies in a mask on another, mostly finer, grid.

CEST maps stay as they are; the masks are brought to them. Where the axes of both grids are parallel the shares are
exact; otherwise they are means over points that are spread evenly over each voxel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .grid import Grid

MOST_MASKS = 60
"""Masks that are sampled together, one bit each."""
_PARALLEL = 1e-4
"""Largest difference of a direction cosine from 0 or 1 with which axes count as parallel."""
_POINTS_PER_SPACING = 2
"""Points along an axis per voxel of the mask, for grids that are not parallel."""
_MOST_POINTS_PER_AXIS = 16
_CHUNK_POINTS = 2_000_000


def partial_volumes(
    masks: Mapping[str, np.ndarray], grid: Grid, onto: Grid, onto_to_masks: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Return the share of each voxel that lies in each mask.

    Args:
        masks: Boolean masks (K, J, I) by name.
        grid: Grid of the masks. Beyond it there is nothing of them.
        onto: Grid whose voxels are asked about.
        onto_to_masks: Matrix (4, 4) that maps points of the space of ``onto`` to that of the masks, RAS in mm; the
            identity by default.

    Returns:
        Shares from 0 to 1, float32, of the shape of ``onto``, by name.
    """
    if not masks:
        return {}
    moved = Grid(onto.shape, (np.eye(4) if onto_to_masks is None else onto_to_masks) @ onto.ijk_to_ras)
    to_masks = np.linalg.inv(grid.ijk_to_ras) @ moved.ijk_to_ras
    axes = _parallel_axes(grid, moved)
    if axes is not None:
        return {name: _exact(mask, to_masks, axes, onto.shape) for name, mask in masks.items()}
    return _sampled(masks, to_masks, onto.shape)


def _parallel_axes(grid: Grid, onto: Grid) -> list[int] | None:
    """For each axis (i, j, k) of the masks' grid the parallel one of the other grid; None if they are not parallel."""
    cosines = np.abs((grid.ijk_to_ras[:3, :3] / grid.spacing_mm).T @ (onto.ijk_to_ras[:3, :3] / onto.spacing_mm))
    nearest = np.rint(cosines)
    if np.abs(cosines - nearest).max() > _PARALLEL or (nearest.sum(0) != 1).any() or (nearest.sum(1) != 1).any():
        return None
    return [int(axis) for axis in nearest.argmax(1)]


def _exact(mask: np.ndarray, to_masks: np.ndarray, axes: Sequence[int], shape: tuple[int, int, int]) -> np.ndarray:
    """Multiply the mask by one matrix of overlaps along each axis."""
    sizes = shape[::-1]
    values = mask.astype(np.float32).transpose(2, 1, 0)
    for axis, other in enumerate(axes):
        overlaps = _overlaps(sizes[other], to_masks[axis, other], to_masks[axis, 3], values.shape[axis])
        values = np.moveaxis(np.tensordot(overlaps, values, (1, axis)), 0, axis)
    return np.ascontiguousarray(values.transpose(np.argsort(axes)).transpose(2, 1, 0))


def _overlaps(size: int, step: float, start: float, mask_size: int) -> np.ndarray:
    """Share of each voxel's length that lies in each voxel of the mask, float32 (size, mask_size), along one axis."""
    centers = start + step * np.arange(size)
    low, high = centers - abs(step) / 2, centers + abs(step) / 2
    edges = np.arange(mask_size) - 0.5
    common = np.minimum(high[:, None], edges + 1) - np.maximum(low[:, None], edges)
    return (np.clip(common, 0, None) / abs(step)).astype(np.float32)


def _sampled(
    masks: Mapping[str, np.ndarray], to_masks: np.ndarray, shape: tuple[int, int, int]
) -> dict[str, np.ndarray]:
    names = list(masks)
    found: dict[str, np.ndarray] = {}
    for start in range(0, len(names), MOST_MASKS):
        some = names[start : start + MOST_MASKS]
        found |= _sampled_together({name: masks[name] for name in some}, to_masks, shape)
    return found


def _sampled_together(
    masks: Mapping[str, np.ndarray], to_masks: np.ndarray, shape: tuple[int, int, int]
) -> dict[str, np.ndarray]:
    """Look up, at points spread over each voxel, in which masks they lie; only voxels that may touch a mask count."""
    bits = np.zeros(next(iter(masks.values())).shape, np.int64)
    for number, mask in enumerate(masks.values()):
        bits |= mask.astype(np.int64) << number
    found = {name: np.zeros(shape, np.float32) for name in masks}
    voxels, centers = _voxels_near(bits, to_masks, shape)
    if len(voxels) == 0:
        return found
    inside = _points_of_a_voxel(to_masks)
    step = max(1, _CHUNK_POINTS // len(inside))
    for first in range(0, len(voxels), step):
        points = centers[first : first + step, None] + inside
        values = _looked_up(bits, points.reshape(-1, 3)).reshape(points.shape[:2])
        for number, name in enumerate(masks):
            found[name].reshape(-1)[voxels[first : first + step]] = (values >> number & 1).mean(1)
    return found


def _points_of_a_voxel(to_masks: np.ndarray) -> np.ndarray:
    """Points (n, 3) spread evenly over a voxel, relative to its centre, in indices of the masks."""
    lengths = np.abs(to_masks[:3, :3]).max(0)  # of the voxel's edges, in voxels of the masks
    counts = np.clip(np.ceil(_POINTS_PER_SPACING * lengths), 2, _MOST_POINTS_PER_AXIS).astype(int)
    along = [(np.arange(n) + 0.5) / n - 0.5 for n in counts]
    steps = np.stack(np.meshgrid(*along, indexing="ij"), axis=-1).reshape(-1, 3)
    return steps @ to_masks[:3, :3].T


def _voxels_near(bits: np.ndarray, to_masks: np.ndarray, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Flat indices of the voxels that may touch a mask, and their centres (n, 3) in indices of the masks."""
    filled = np.argwhere(bits)
    if len(filled) == 0:
        return np.empty(0, np.int64), np.empty((0, 3))
    centers = Grid(shape, to_masks).points()
    reach = np.abs(to_masks[:3, :3]).sum(1) / 2 + 1
    low, high = filled.min(0)[::-1] - reach, filled.max(0)[::-1] + reach
    voxels = np.flatnonzero(((centers >= low) & (centers <= high)).all(1))
    return voxels, centers[voxels]


def _looked_up(bits: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Values at the nearest voxels of points (n, 3) in the order (i, j, k); 0 beyond the grid."""
    i, j, k = np.floor(points + 0.5).astype(np.int64).T
    slices, rows, columns = bits.shape
    here = (i >= 0) & (i < columns) & (j >= 0) & (j < rows) & (k >= 0) & (k < slices)
    values = np.zeros(len(points), np.int64)
    values[here] = bits[k[here], j[here], i[here]]
    return values
