"""Distances between the surfaces of two segmentations, in mm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk

HD95_ONE_EMPTY_MM = 373.13
"""Distance where exactly one segmentation is empty: the convention of BraTS, which is the diagonal of 240 x 240 x 155
voxels of 1 mm (373.1286)."""


def hd95(a: np.ndarray, b: np.ndarray, spacing_mm: Sequence[float] = (1.0, 1.0, 1.0)) -> float:
    """Compute the 95th percentile of the Hausdorff distance between two masks.

    It is the larger of the two directed 95th percentiles (linear interpolation) of the distances from the surface
    voxels of one mask to the nearest surface voxel of the other, measured between voxel centres. A voxel of the mask
    belongs to the surface if a voxel across one of its faces, or the outside of the image, is not in the mask.

    Args:
        a: Mask (D, H, W) bool.
        b: Mask of the same shape.
        spacing_mm: Voxel size in mm along the array's axes (k, j, i).

    Returns:
        The distance in mm; 0 where both masks are empty, ``HD95_ONE_EMPTY_MM`` where exactly one is.
    """
    a_to_b, b_to_a = surface_distances(a, b, spacing_mm)
    if a_to_b is None or b_to_a is None:
        return HD95_ONE_EMPTY_MM if np.any(a) or np.any(b) else 0.0
    return float(max(np.percentile(a_to_b, 95), np.percentile(b_to_a, 95)))


def surface_distances(
    a: np.ndarray, b: np.ndarray, spacing_mm: Sequence[float] = (1.0, 1.0, 1.0)
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Compute the distances between the surfaces of two masks in both directions.

    Args:
        a: Mask (D, H, W) bool.
        b: Mask of the same shape.
        spacing_mm: Voxel size in mm along the array's axes (k, j, i).

    Returns:
        Distances (n,) in mm from the surface voxels of ``a`` to the surface of ``b``, and those from ``b`` to ``a``;
        both are None where either mask is empty.

    Raises:
        ValueError: The masks are not three-dimensional or have different shapes, or a spacing is not positive.
    """
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    if a.shape != b.shape or a.ndim != 3:
        raise ValueError(f"masks have the shapes {a.shape} and {b.shape}; both must have the same shape (D, H, W)")
    if len(spacing_mm) != 3 or not all(np.isfinite(value) and value > 0 for value in spacing_mm):
        raise ValueError(f"spacing_mm is {tuple(spacing_mm)} but must be three positive numbers")
    if not a.any() or not b.any():
        return None, None
    box = _bounding_box(a | b)
    surfaces = [surface(mask)[box] for mask in (a, b)]
    to_a, to_b = (_distance_to(mask, spacing_mm) for mask in surfaces)
    return to_b[surfaces[0]], to_a[surfaces[1]]


def surface(mask: np.ndarray) -> np.ndarray:
    """Find the surface voxels of a mask.

    Args:
        mask: Mask (D, H, W) bool.

    Returns:
        Mask of the same shape: voxels with a neighbour across a face that is outside the mask or outside the image.
    """
    padded = np.pad(mask, 1)
    inner = mask.copy()
    for axis in range(3):
        for shift in (-1, 1):
            inner &= np.roll(padded, shift, axis)[1:-1, 1:-1, 1:-1]
    return mask & ~inner


def _distance_to(mask: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Exact Euclidean distance of every voxel centre to the nearest voxel of the mask, by Maurer's algorithm."""
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing([float(value) for value in reversed(list(spacing_mm))])
    distance = sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True)
    return np.maximum(sitk.GetArrayFromImage(distance), 0.0)  # negative inside


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    box = []
    for axis in range(3):
        filled = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return tuple(box)
