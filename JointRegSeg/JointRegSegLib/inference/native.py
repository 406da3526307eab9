"""Results of the working grid brought to the native grid of each study."""

from __future__ import annotations

from dataclasses import dataclass

import SimpleITK as sitk
from torch import Tensor

from ..images.grid import WorkingGrid, labels_to_native, to_native
from ..images.labels import CLASSES
from .checks import CheckedStudy
from .plausibility import with_enclosed_core
from .region_volumes import without_islands
from .settings import InferenceSettings
from .uncertainty import Segmentation, entropy


@dataclass(frozen=True)
class NativeSegmentation:
    """Segmentation of one study on its native grid.

    Attributes:
        labels: Classes (uint8), the given ones where there are any; None if there are neither given nor predicted ones.
        uncertainty: Entropy of the predicted classes, 0 to 1; None unless the labels are predicted.
        counts: Voxels (variant, class) by which the predicted volumes vary; None unless the labels are predicted.
        probabilities: Predicted class probabilities by class name; empty unless they are kept.
    """

    labels: sitk.Image | None
    uncertainty: sitk.Image | None
    counts: Tensor | None
    probabilities: dict[str, sitk.Image]


def native_segmentation(
    checked: CheckedStudy,
    segmentation: Segmentation | None,
    grid: WorkingGrid,
    to_grid: sitk.Transform | None,
    settings: InferenceSettings,
) -> NativeSegmentation:
    """Bring the segmentation of a study to its native grid.

    Args:
        checked: The study; a segmentation that came with it replaces the network's.
        segmentation: The network's segmentation on the working grid; None without one.
        grid: The working grid.
        to_grid: Maps points of the study to points of the working grid (LPS mm); None for the identity.
        settings: Settings of the run.
    """
    native = checked.study.reference
    labels, uncertainty, counts = checked.given_labels, None, None
    if segmentation is not None and labels is None:
        labels = native_labels(segmentation, grid, native, settings.smallest_island_ml, to_grid)
        uncertainty = to_native(entropy(segmentation.probabilities), grid, native, to_grid)
        counts = segmentation.counts
    probabilities: dict[str, sitk.Image] = {}
    if segmentation is not None and settings.keep_probabilities:
        for name, values in zip(CLASSES, segmentation.probabilities, strict=True):
            outside = float(name == CLASSES[0])  # beyond the working grid everything is background
            probabilities[name] = to_native(values, grid, native, to_grid, outside)
    return NativeSegmentation(labels, uncertainty, counts, probabilities)


def native_labels(
    segmentation: Segmentation,
    grid: WorkingGrid,
    native: sitk.Image,
    smallest_island_ml: float,
    to_grid: sitk.Transform | None = None,
) -> sitk.Image:
    """Return the classes (uint8) of a segmentation on a native grid.

    What enhancing tumour encloses is core, and small islands are removed.

    Args:
        segmentation: Segmentation on the working grid.
        grid: The working grid.
        native: Image that has the native grid.
        smallest_island_ml: Smallest volume in ml of a connected part of the tumour that is kept.
        to_grid: Maps native points to points of the working grid (LPS mm); None for the identity.
    """
    labels = with_enclosed_core(labels_to_native(segmentation.probabilities, grid, native, to_grid))
    return without_islands(labels, smallest_island_ml)
