"""What a label map and its images say against a convention: the order of the compartments, and their brightness.

Compartments of a tumour have an order: oedema lies outside of core and enhancing tumour, and nothing lies inside a
resection cavity. From a voxel inside, one sees what surrounds it in most directions; from outside one sees the inside
in few. And the enhancing tumour is the brightest compartment on T1 with contrast agent, where a cavity is dark.

Thresholds: of ten real maps (nine of BraTS 2021, one of TCGA) none contradicts its own convention, with or without
images.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .labels import CAVITY, EDEMA, ENHANCING

_REVERSED = 0.3
"""Excess of the view from the oedema to a compartment, over the view back, that contradicts the order."""
_ENCLOSED = 0.8
"""Share of directions in which a compartment sees the cavity that contradicts the cavity."""
_CLEARLY_BRIGHTER = 0.5
"""Difference of brightness, in standard deviations of the brain around, that is no accident."""
_FEWEST_VOXELS = 20


def contradictions(
    labels: np.ndarray, classes: Mapping[int, int], t1ce: np.ndarray | None = None, name: str = ""
) -> list[str]:
    """Return what speaks against reading a label map by a convention.

    Args:
        labels: Whole numbers (D, H, W).
        classes: Number in ``labels.LABELS`` by number in the map.
        t1ce: T1 with contrast agent on the same grid, or None.
        name: Name of the convention, for the sentences.

    Returns:
        A sentence for each contradiction; none if the map fits.
    """
    present = [int(value) for value in np.unique(labels) if classes.get(int(value), 0)]
    used = np.argwhere(np.isin(labels, present))
    if not len(used):
        return []
    box = tuple(
        slice(max(int(low) - 10, 0), int(high) + 11) for low, high in zip(used.min(0), used.max(0), strict=True)
    )
    inside = labels[box]
    masks = {value: inside == value for value in present}
    found = _order(masks, classes, name)
    if t1ce is not None:
        found += _brightness(masks, classes, t1ce[box], name)
    return found


def view(of: np.ndarray, towards: np.ndarray) -> float:
    """Return the share of directions along the axes in which voxels of one mask see another mask.

    Args:
        of: Mask (D, H, W) of the voxels that look; not empty.
        towards: Mask of the same shape.

    Returns:
        Mean share from 0 to 1 of the six directions in which the other mask lies anywhere on the way to the border.
    """
    total = 0
    for axis in range(of.ndim):
        for turned_of, turned in ((of, towards), (np.flip(of, axis), np.flip(towards, axis))):
            total += int(np.logical_or.accumulate(turned, axis=axis)[turned_of].sum())
    return total / (2 * of.ndim * int(of.sum()))


def _order(masks: Mapping[int, np.ndarray], classes: Mapping[int, int], name: str) -> list[str]:
    found = []
    for value, mask in masks.items():
        for other, around in masks.items():
            if other == value or classes[other] == classes[value]:
                continue
            if classes[other] == EDEMA and classes[value] != CAVITY:
                if view(around, mask) - view(mask, around) > _REVERSED:
                    found.append(f"{value} encloses {other}, which would be the oedema in {name}")
            elif classes[other] == CAVITY and view(mask, around) > _ENCLOSED:
                found.append(f"{other}, which would be the resection cavity in {name}, encloses {value}")
    return found


def _brightness(masks: Mapping[int, np.ndarray], classes: Mapping[int, int], t1ce: np.ndarray, name: str) -> list[str]:
    brain = np.isfinite(t1ce) & (t1ce > np.nanmin(t1ce))
    healthy = brain & ~np.logical_or.reduce(list(masks.values()))
    if healthy.sum() < _FEWEST_VOXELS or len(masks) < 2:
        return []
    low, high = np.percentile(t1ce[healthy], (25, 75))
    spread = (high - low) / 1.349 or 1.0
    seen = {value: mask & brain for value, mask in masks.items()}
    levels = {value: float(np.median(t1ce[mask])) / spread for value, mask in seen.items() if mask.sum()}
    found = []
    for value, level in levels.items():
        others = [other for number, other in levels.items() if classes[number] != classes[value]]
        if not others:
            continue
        if classes[value] == ENHANCING and level < max(others) - _CLEARLY_BRIGHTER:
            found.append(f"{value}, which would be the enhancing tumour in {name}, is not the brightest on T1ce")
        if classes[value] == CAVITY and level > max(others) + _CLEARLY_BRIGHTER:
            found.append(f"{value}, which would be the resection cavity in {name}, is the brightest on T1ce")
    return found
