"""What anatomy says about a predicted segmentation: what an enhancing ring encloses is tumour core."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from ..images.labels import CAVITY, ENHANCING, NECROTIC_CORE

_LEAST_DIRECTIONS = 2
"""In how many of the three slice directions a voxel must be enclosed, as rings are often open at one end."""


def with_enclosed_core(labels: sitk.Image) -> sitk.Image:
    """Assign what enhancing tumour encloses to the non-enhancing core.

    A voxel is enclosed if no path within its slice leads around the enhancing tumour to the border, in at least two of
    the three slice directions.

    Args:
        labels: Classes (uint8).

    Returns:
        Classes of the same grid; enclosed background and oedema have become core. A resection cavity stays one.
    """
    array = sitk.GetArrayFromImage(labels)
    enhancing = array == ENHANCING
    if not enhancing.any():
        return labels
    corners = np.argwhere(enhancing)
    box = tuple(slice(int(first), int(last) + 1) for first, last in zip(corners.min(0), corners.max(0), strict=True))
    ring = enhancing[box]
    votes = sum(_enclosed_in_slices(ring, axis).astype(np.uint8) for axis in range(3))
    part = array[box]
    inside = (votes >= _LEAST_DIRECTIONS) & ~ring & (part != CAVITY)
    if not inside.any():
        return labels
    array[box] = np.where(inside, NECROTIC_CORE, part)
    result = sitk.GetImageFromArray(array)
    result.CopyInformation(labels)
    return result


def _enclosed_in_slices(ring: np.ndarray, axis: int) -> np.ndarray:
    """Voxels (D, H, W) that a mask encloses within the slices perpendicular to an axis, the mask included."""
    slices = np.moveaxis(ring, axis, 0)
    filled = [sitk.GetArrayFromImage(sitk.BinaryFillhole(sitk.GetImageFromArray(s.astype(np.uint8)))) for s in slices]
    return np.moveaxis(np.stack(filled).astype(bool), 0, axis)
