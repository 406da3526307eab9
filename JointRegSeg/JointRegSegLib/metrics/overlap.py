"""Scores of a segmentation: overlap, surface distance and volume of the tumour regions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..images.labels import CAVITY, LABELS, REGIONS, region
from .surface_distance import hd95


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Compute the Dice overlap ``2 |a ∩ b| / (|a| + |b|)`` of two masks.

    Args:
        a: Mask of any shape.
        b: Mask of the same shape.

    Returns:
        The overlap; 1 where both masks are empty, 0 where one is (the convention of BraTS).

    Raises:
        ValueError: The masks have different shapes.
    """
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    if a.shape != b.shape:
        raise ValueError(f"masks have the shapes {a.shape} and {b.shape}; both must have the same shape")
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def region_scores(
    predicted: np.ndarray, expected: np.ndarray, spacing_mm: Sequence[float], distances: bool = True
) -> dict[str, float]:
    """Score the whole tumour, the tumour core and the enhancing tumour, and a resection cavity of the reference.

    Args:
        predicted: Predicted classes (D, H, W).
        expected: Reference classes (D, H, W).
        spacing_mm: Voxel size in mm along the array's axes (k, j, i).
        distances: Whether to compute surface distances, which take most of the time.

    Returns:
        ``dice_<region>`` and, with ``distances``, ``hd95_mm_<region>`` for each region of ``REGIONS``, and for
        ``resection_cavity`` where the reference has one, so that the same cases count for every network.
    """
    found, reference = np.asarray(predicted), np.asarray(expected)
    masks = {name: (region(found, name), region(reference, name)) for name in REGIONS}
    cavities = found == CAVITY, reference == CAVITY
    if cavities[1].any():
        masks[LABELS[CAVITY]] = cavities
    scores = {}
    for name, (a, b) in masks.items():
        scores[f"dice_{name}"] = dice(a, b)
        if distances:
            scores[f"hd95_mm_{name}"] = hd95(a, b, spacing_mm)
    return scores


def volume_ratios(before: np.ndarray, after: np.ndarray, voxel_ratio: float = 1.0) -> dict[str, float]:
    """Compare the volume of each tumour region after a warp with its volume before.

    Args:
        before: Classes before the warp, of any shape.
        after: Classes after the warp, of any shape.
        voxel_ratio: Voxel volume of ``after`` divided by the voxel volume of ``before``.

    Returns:
        ``volume_ratio_<region>``: 1 where the warp neither shrank nor enlarged the region, NaN where the region was
        empty before.
    """
    ratios = {}
    for name in REGIONS:
        count_before = int(region(np.asarray(before), name).sum())
        count_after = int(region(np.asarray(after), name).sum())
        ratios[f"volume_ratio_{name}"] = count_after * voxel_ratio / count_before if count_before else float("nan")
    return ratios
