"""Tumour classes, the resection cavity, and the regions on which segmentations are scored.

How the numbers of a label file become classes is told in ``NeuroCESTLib.core.labels.conventions``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from NeuroCESTLib.core.labels.conventions import CAVITY, EDEMA, ENHANCING, LABELS, NECROTIC_CORE

if TYPE_CHECKING:
    from torch import Tensor

CLASSES = LABELS[:CAVITY]
"""Name of each class of the network by its number; the necrotic core stands for the whole non-enhancing core."""

UNLABELED = 255
"""Value of voxels without a label, which losses and scores ignore."""

REGIONS: dict[str, tuple[int, ...]] = {
    "whole_tumor": (1, 2, 3),
    "tumor_core": (1, 3),
    "enhancing_tumor": (3,),
}
"""Nested regions on which segmentations are scored, each with the numbers of its classes."""


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


def classes_of_probabilities(probabilities: Tensor) -> Tensor:
    """Decide the class of every voxel from the probabilities of a network for tumours.

    A voxel is tumour where its three compartments together are more probable than the background, and than a cavity. Of
    a tumour, it is oedema where that is more probable than both parts of the core together. Taking the largest of the
    single probabilities instead would leave out of the tumour what is surely tumour but of an uncertain compartment.

    Args:
        probabilities: Class probabilities (class, D, H, W), numbered as in ``LABELS``. With fewer classes than
            ``CLASSES`` the most probable class is taken.

    Returns:
        Class numbers (D, H, W), uint8.
    """
    if len(probabilities) < len(CLASSES):
        return probabilities.max(0).indices.byte()
    core, enhancing, edema = probabilities[NECROTIC_CORE], probabilities[ENHANCING], probabilities[EDEMA]
    whole_core = core + enhancing
    tumor = whole_core + edema
    others = [0, *range(CAVITY, len(probabilities))]
    other, number = probabilities[others].max(0)
    other_class = number if len(others) == 1 else number + (CAVITY - 1) * (number > 0)
    inside = NECROTIC_CORE + (ENHANCING - NECROTIC_CORE) * (enhancing > core).byte()
    inside = inside.masked_fill_(edema > whole_core, EDEMA)
    return inside.where(tumor > other, other_class.byte())


def is_tumor(classes: Tensor) -> Tensor:
    """Tell which voxels of classes (D, H, W) are tumour: any compartment, but not a resection cavity."""
    return (classes > 0) & (classes < CAVITY)


def classes_of_logits(logits: Tensor) -> Tensor:
    """Decide the class of every voxel from class scores (class, D, H, W), see ``classes_of_probabilities``."""
    return classes_of_probabilities(logits.detach().float().softmax(0))


def check_classes(classes: np.ndarray, source: str) -> None:
    """Check that an array holds numbers of ``LABELS`` only.

    Args:
        classes: Array of any shape.
        source: What the array is, for messages.

    Raises:
        ValueError: It holds another value.
    """
    values = np.unique(classes)
    if values.size and not np.isin(values, np.arange(len(LABELS))).all():
        known = ", ".join(f"{number} {name}" for number, name in enumerate(LABELS))
        odd = ", ".join(f"{value:g}" for value in values[~np.isin(values, np.arange(len(LABELS)))][:6])
        raise ValueError(f"the {source} has the unknown class {odd}; the classes are {known}")
