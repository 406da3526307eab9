"""Distances between the surfaces of two segmentations, in mm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk

HD95_ONE_EMPTY_MM = 373.13
"""Distance where just one segmentation is empty: BraTS's convention, the diagonal of 240 x 240 x 155 voxels of 1 mm
(373.1286)."""


def hd95(a: np.ndarray, b: np.ndarray, spacing_mm: Sequence[float] = (1.0, 1.0, 1.0)) -> float:
    """95th percentile of the Hausdorff distance between two masks (D, H, W) bool, mm.

    The larger of both directions' 95th percentiles (linear interpolation) of the distances from the surface voxels of
    one mask to the nearest surface voxel of the other, between voxel centres. A surface voxel has a neighbour across a
    face, or the border of the image, that is not in the mask. Both empty: 0. One empty: ``HD95_ONE_EMPTY_MM``.

    spacing_mm: of the array's axes, in their order (k, j, i).
    """
    there, back = surface_distances(a, b, spacing_mm)
    if there is None or back is None:
        return 0.0 if there is None and back is None and not np.any(a) and not np.any(b) else HD95_ONE_EMPTY_MM
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))


def surface_distances(
    a: np.ndarray, b: np.ndarray, spacing_mm: Sequence[float] = (1.0, 1.0, 1.0)
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Distances of the surface voxels of ``a`` to the surface of ``b``, and the other way, mm; None where one is empty.

    Raises:
        ValueError: masks of different or not three-dimensional shapes, or a spacing that is not positive.
    """
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    if a.shape != b.shape or a.ndim != 3:
        raise ValueError(f"masks have the shapes {a.shape} and {b.shape}; both must be the same (D, H, W)")
    if len(spacing_mm) != 3 or not all(np.isfinite(value) and value > 0 for value in spacing_mm):
        raise ValueError(f"spacing_mm is {tuple(spacing_mm)} but must be three positive numbers")
    if not a.any() or not b.any():
        return None, None
    box = _bounding_box(a | b)
    surfaces = [surface(mask)[box] for mask in (a, b)]
    to_a, to_b = (_distance_to(mask, spacing_mm) for mask in surfaces)
    return to_b[surfaces[0]], to_a[surfaces[1]]


def surface(mask: np.ndarray) -> np.ndarray:
    """Voxels of a mask (D, H, W) with a face neighbour outside of it; outside of the image counts as outside."""
    padded = np.pad(mask, 1)
    inner = mask.copy()
    for axis in range(3):
        for shift in (-1, 1):
            inner &= np.roll(padded, shift, axis)[1:-1, 1:-1, 1:-1]
    return mask & ~inner


def _distance_to(mask: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Exact Euclidean distance of every voxel centre to the nearest one in the mask, by Maurer's algorithm."""
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
