"""What anatomy says about a predicted segmentation: where the core lies that does not enhance.

What an enhancing ring encloses is core. Where a tumour enhances, its necrosis lies within or beside the enhancing part,
so that core elsewhere is oedema; tumours that hardly enhance keep their core.
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from ..images.labels import CAVITY, EDEMA, ENHANCING, NECROTIC_CORE

_LEAST_DIRECTIONS = 2
"""In how many of the three slice directions a voxel must be enclosed, as rings are often open at one end."""
_GAP_MM = 10.0
"""Distance that the morphological closing of the enhancing tumour bridges; chosen by cross-validation."""
_BESIDE_MM = 2.0
"""Distance from the enhancing tumour within which core stays core; chosen by cross-validation."""
_LEAST_ENHANCING_SHARE = 0.1
"""Share of the core that must enhance for its other part to be judged by it."""


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


def without_distant_core(labels: sitk.Image) -> sitk.Image:
    """Assign core that lies neither within nor beside the enhancing tumour to the oedema.

    "Within" is the morphological closing of the enhancing tumour by a ball. Where less than a tenth of the core
    enhances, nothing changes.

    Args:
        labels: Classes (uint8).

    Returns:
        Classes of the same grid.
    """
    array = sitk.GetArrayFromImage(labels)
    core, enhancing = array == NECROTIC_CORE, array == ENHANCING
    if not core.any() or enhancing.sum() < _LEAST_ENHANCING_SHARE * (core.sum() + enhancing.sum()):
        return labels
    margin = np.ceil((_GAP_MM + 1) / np.array(labels.GetSpacing()[::-1])).astype(int)
    corners = np.argwhere(core | enhancing)
    box = tuple(
        slice(max(0, int(first - more)), int(last + more) + 1)
        for first, last, more in zip(corners.min(0), corners.max(0), margin, strict=True)
    )
    spacing = labels.GetSpacing()
    distance = _distance_mm(enhancing[box], spacing)
    within = _distance_mm(distance > _GAP_MM, spacing) > _GAP_MM
    distant = core[box] & ~within & (distance > _BESIDE_MM)
    if not distant.any():
        return labels
    array[box][distant] = EDEMA
    result = sitk.GetImageFromArray(array)
    result.CopyInformation(labels)
    return result


def _distance_mm(mask: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Distance in mm of every voxel (D, H, W) to a mask; infinite without one."""
    if not mask.any():
        return np.full(mask.shape, np.inf)
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(spacing)
    found = sitk.SignedMaurerDistanceMap(image, insideIsPositive=False, squaredDistance=False, useImageSpacing=True)
    return np.maximum(sitk.GetArrayFromImage(found), 0)


def _enclosed_in_slices(ring: np.ndarray, axis: int) -> np.ndarray:
    """Voxels (D, H, W) that a mask encloses within the slices perpendicular to an axis, the mask included."""
    slices = np.moveaxis(ring, axis, 0)
    filled = [sitk.GetArrayFromImage(sitk.BinaryFillhole(sitk.GetImageFromArray(s.astype(np.uint8)))) for s in slices]
    return np.moveaxis(np.stack(filled).astype(bool), 0, axis)
