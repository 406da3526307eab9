"""Tumour classes, the regions on which segmentations are scored, and label maps of both BraTS conventions."""

from __future__ import annotations

import numpy as np

CLASSES = ("background", "necrotic_core", "edema", "enhancing_tumor")
"""Name of each class by its number; the necrotic core stands for the whole non-enhancing core."""

UNLABELED = 255
"""Value of voxels without a label, which losses and scores ignore."""

REGIONS: dict[str, tuple[int, ...]] = {
    "whole_tumor": (1, 2, 3),
    "tumor_core": (1, 3),
    "enhancing_tumor": (3,),
}
"""Nested regions on which segmentations are scored, each with the numbers of its classes."""

ENHANCING = CLASSES.index("enhancing_tumor")
"""Number of the enhancing tumour."""
_BRATS_ENHANCING = 4  # until BraTS 2021; since 2023 it is 3, as here
_KNOWN = (0, 1, 2, 3, _BRATS_ENHANCING)


def to_classes(array: np.ndarray, source: str) -> np.ndarray:
    """Convert a label map with the numbers 1, 2, 4 (BraTS until 2021) or 1, 2, 3 (since 2023) to ``CLASSES``.

    Args:
        array: Label map of any shape and number type; whole numbers only.
        source: Name of the file or node, for messages.

    Returns:
        uint8 array of the same shape with 0 background, 1 necrotic core, 2 oedema and 3 enhancing tumour.

    Raises:
        ValueError: The map has fractions, NaN, values that neither convention has, or both 3 and 4.
    """
    array = np.asarray(array)
    if array.size == 0:
        raise ValueError(f"the label map '{source}' is empty")
    values = _distinct(array)
    odd = [value for value in values if value not in _KNOWN]
    if odd:
        shown = ", ".join(f"{value:g}" for value in odd[:6]) + (", …" if len(odd) > 6 else "")
        kind = "labels must be whole numbers" if any(value != np.round(value) for value in odd) else "unknown labels"
        raise ValueError(
            f"the label map '{source}' has the value{'s' if len(odd) > 1 else ''} {shown} ({kind}); use 0 background, "
            "1 necrotic core, 2 oedema, 3 or 4 enhancing tumour"
        )
    if ENHANCING in values and _BRATS_ENHANCING in values:
        raise ValueError(
            f"the label map '{source}' has both 3 and 4 (values {', '.join(f'{value:g}' for value in values)}): "
            "enhancing tumour is 4 until BraTS 2021 and 3 since 2023, and 4 is the resection cavity in BraTS 2024; "
            "keep one of the two (set 4 to 0 in a map of BraTS 2024)"
        )
    classes = array.astype(np.uint8)
    classes[classes == _BRATS_ENHANCING] = ENHANCING
    return classes


def region(classes: np.ndarray, name: str) -> np.ndarray:
    """Select a region.

    Args:
        classes: Class numbers, of any shape.
        name: Region in ``REGIONS``.

    Returns:
        Boolean mask of the same shape.
    """
    mask = classes == REGIONS[name][0]
    for number in REGIONS[name][1:]:
        mask = mask | (classes == number)
    return mask


def _distinct(array: np.ndarray) -> list[float]:
    """Return the distinct values in ascending order, NaN last."""
    if array.dtype == np.uint8:  # counting avoids sorting millions of voxels
        return [float(value) for value in np.flatnonzero(np.bincount(array.reshape(-1)))]
    return [float(value) for value in np.unique(array)]
