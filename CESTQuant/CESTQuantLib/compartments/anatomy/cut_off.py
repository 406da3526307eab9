"""Whether the anatomical images of a visit show all of a region, or end within it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..grid import Grid
from ..inputs import Image
from ..sampling import coarse
from .regions import RegionMasks
from .structure import WORKING_MM, head_of

LEAST_ML = 0.02
"""Smallest volume of a region beyond the images, or in their outermost voxels, from which the region is cut off."""
_LEAST_SHARE = 0.1
"""Area of the head in the outermost slice, relative to the largest one, from which an image ends within the head.

An image that was cropped around the head or brain only touches it there.
"""


def is_cut_off(points: np.ndarray, source: Grid, images: Sequence[Image], beyond: bool = False) -> bool:
    """Return whether every image ends within a region, so that some of it is not shown.

    Args:
        points: Centres (n, 3) of the voxels of the region, RAS in mm in the space of the images.
        source: Grid that the voxels come from; its axes may be turned against those of the images.
        images: Anatomical images of a visit.
        beyond: Whether the region has to reach beyond an image; otherwise it suffices that it touches the border.
    """
    return bool(images) and all(_ends_within(points, source, image, beyond) for image in images)


def _ends_within(points: np.ndarray, source: Grid, image: Image, beyond: bool) -> bool:
    to_image = np.linalg.inv(image.grid.ijk_to_ras)
    indices = image.grid.indices(points)
    voxel = np.abs(to_image[:3, :3] @ source.ijk_to_ras[:3, :3]).sum(1)  # size of a voxel of the region in the image's
    reach = np.zeros(3) if beyond else 0.75 * np.maximum(voxel, 1.0)
    sizes = np.array(image.grid.shape[::-1])
    least = LEAST_ML / source.voxel_ml
    over = [(indices + 0.5 < reach).sum(0) >= least, (sizes - 0.5 - indices < reach).sum(0) >= least]
    return any(
        over[side][axis] and _ends_within_head(image, axis, side)
        for axis in range(3)
        if sizes[axis] > 1
        for side in (0, 1)
    )


def _ends_within_head(image: Image, axis: int, side: int) -> bool:
    """Whether the first (0) or last (1) slice along an axis (i, j, k) cuts through the head."""
    head = head_of(coarse(image, WORKING_MM).array)
    areas = head.sum(axis=tuple(n for n in range(3) if n != 2 - axis))
    return bool(areas[-1 if side else 0] >= _LEAST_SHARE * max(int(areas.max()), 1))


def touches_border(masks: Sequence[np.ndarray]) -> bool:
    """Return whether some voxels lie at a border of their grid, which was not just cropped around them.

    Args:
        masks: Boolean masks (K, J, I) on one grid.
    """
    mask = np.any(masks, axis=0)
    borders = [bool(mask.take(end, axis).any()) for axis in range(3) if mask.shape[axis] > 1 for end in (0, -1)]
    return any(borders) and not all(borders)


def shown_at(points: np.ndarray, masks: RegionMasks) -> np.ndarray:
    """Return whether a visit shows the tissue at points, bool (n,).

    The anatomical images tell it, because a segmentation is often cropped around the tumour. Without them, nothing
    tells what lies beyond a segmentation at whose border the tumour is cut off.

    Args:
        points: Points (n, 3) in the space of the anatomy, RAS in mm.
        masks: The compartments of the visit.
    """
    grids = [image.grid for image in masks.anatomy]
    if not grids and masks.grid is not None and touches_border(list(masks.compartments.values())):
        grids = [masks.grid]
    if not grids:
        return np.ones(len(points), bool)
    shown = np.zeros(len(points), bool)
    for grid in grids:
        indices = grid.indices(points)
        shown |= ((indices >= -0.5) & (indices <= np.array(grid.shape[::-1]) - 0.5)).all(1)
    return shown
