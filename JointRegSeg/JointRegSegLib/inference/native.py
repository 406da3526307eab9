"""Results of the working grid brought to the native grid of each study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import SimpleITK as sitk
import torch
from torch import Tensor

from NeuroCESTLib.core.progress import Progress, part

from ..findings.region_volumes import uncertain_volumes, voxel_ml, without_islands
from ..images.grid import LARGEST_TILED_GRID, WorkingGrid, labels_to_native, to_native
from ..images.labels import LABELS, classes_of_probabilities
from ..images.modalities import TITLES
from ..images.preprocessing.brain_grid import brain_grid
from ..images.preprocessing.preparation import prepare_checked
from ..images.study import same_grid
from ..network.tiles import tiles_note
from ..network.weights import LoadedWeights
from ..registration.transforms import warp_label_image
from .checks import CheckedStudy
from .network_pass import network_device, network_preprocessing, preprocessing_of
from .pair_pass import NetworkResult, segment_by_coverage
from .plausibility import with_enclosed_core
from .settings import InferenceSettings
from .uncertainty import Segmentation, entropy

_LEAST_LOST_ML = 0.02
"""Smallest volume beyond the native grid that is told."""


@dataclass(frozen=True)
class NativeSegmentation:
    """Segmentation of one study on its native grid.

    Attributes:
        labels: Classes (uint8) on the native grid, the given ones where there are any; None if there are neither given
            nor predicted ones.
        uncertainty: Entropy of the predicted classes, 0 to 1; None unless the labels are predicted.
        counts: Voxels (variant, class) by which the predicted volumes vary; None unless the labels are predicted.
        probabilities: Predicted class probabilities by class name; empty unless they are kept.
        uncertain_ml: Uncertain volume of each region in ml; None unless the labels are predicted.
        measured: The classes whose volumes are reported: given ones on their own grid, and predicted ones on the grid
            of the brain mask, which may reach beyond the native one.
    """

    labels: sitk.Image | None
    uncertainty: sitk.Image | None
    counts: Tensor | None
    probabilities: dict[str, sitk.Image]
    uncertain_ml: dict[str, float] | None = None
    measured: sitk.Image | None = None

    def notes(self, checked: CheckedStudy) -> list[str]:
        """Return a sentence if a part of the tumour lies beyond the native grid."""
        if self.measured is None or self.labels is None or same_grid(self.measured, self.labels):
            return []
        within = on_native_grid(sitk.Image(self.labels) * 0 + 1, self.measured)
        lost = (sitk.GetArrayViewFromImage(self.measured) != 0) & (sitk.GetArrayViewFromImage(within) == 0)
        if (lost_ml := int(lost.sum()) * voxel_ml(self.measured)) < _LEAST_LOST_ML:
            return []
        reference = TITLES[checked.study.reference_modality]
        return [
            f"{lost_ml:.2g} ml of the tumour of the {checked.study.name} study lie beyond its {reference} image: the "
            "volumes contain them, but the segmentation, which has the voxels of that image, does not"
        ]


def on_native_grid(mask: sitk.Image, native: sitk.Image) -> sitk.Image:
    """Return a mask at the voxels of an image."""
    if same_grid(mask, native):
        mask = sitk.Image(mask)
        mask.CopyInformation(native)
        return mask
    return sitk.Resample(mask, native, sitk.Transform(3, sitk.sitkIdentity), sitk.sitkNearestNeighbor)


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
    labels, measured = None, checked.given_labels
    uncertainty, counts = None, None
    if measured is not None and same_grid(measured, native):
        labels = measured = on_native_grid(measured, native)
    elif measured is not None:
        labels = warp_label_image(measured, native, sitk.Transform(3, sitk.sitkIdentity))
    uncertain_ml: dict[str, float] | None = None
    if segmentation is not None and labels is None:
        measured = native_labels(segmentation, grid, checked.brain, settings.smallest_island_ml, to_grid)
        labels = on_native_grid(measured, native)
        uncertainty = to_native(entropy(segmentation.probabilities), grid, native, to_grid)
        counts = segmentation.counts
        voxel_ml = grid.voxel_ml(None if to_grid is None else to_grid.GetInverse())
        uncertain_ml = uncertain_volumes(segmentation.probabilities, voxel_ml)
    probabilities: dict[str, sitk.Image] = {}
    if segmentation is not None and settings.keep_probabilities:
        for name, values in zip(LABELS, segmentation.probabilities, strict=False):
            outside = float(name == LABELS[0])  # beyond the working grid everything is background
            probabilities[name] = to_native(values, grid, native, to_grid, outside)
    return NativeSegmentation(labels, uncertainty, counts, probabilities, uncertain_ml, measured)


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
    labels = with_enclosed_core(
        labels_to_native(segmentation.probabilities, grid, native, to_grid, classes_of_probabilities)
    )
    return without_islands(labels, smallest_island_ml)


@dataclass(frozen=True)
class FinePair:
    """Segmentations of the fixed and of the moving visit.

    Attributes:
        segmentations: What the network says on each study's own working grid.
        grids: These grids.
        native: Results on the native grids.
        notes: Sentences for the user.
    """

    segmentations: tuple[Segmentation, Segmentation]
    grids: tuple[WorkingGrid, WorkingGrid]
    native: tuple[NativeSegmentation, NativeSegmentation]
    notes: tuple[str, ...]

    def on_grid(self, grid: WorkingGrid, affine: sitk.Transform) -> NetworkResult:
        """Bring the segmentations to the grid of the registration.

        Args:
            grid: That grid.
            affine: Map from points of the fixed to points of the moving study (LPS mm).
        """
        fixed, moving = (
            _on_grid(segmentation, own, grid, transform)
            for segmentation, own, transform in zip(self.segmentations, self.grids, (None, affine), strict=True)
        )
        return NetworkResult(fixed, moving, None)


def segment_finely(
    sides: Sequence[CheckedStudy], weights: LoadedWeights, settings: InferenceSettings, progress: Progress
) -> FinePair:
    """Segment two visits one after the other, each on the grid around its own brain.

    Args:
        sides: Fixed and moving visit.
        weights: Network with a segmentation head, with its preprocessing.
        settings: Settings of the run.
        progress: May raise to cancel.
    """
    config = network_preprocessing(weights)
    device = network_device(settings.device)
    found, grids, native = [], [], []
    notes: list[str] = []
    for number, side in enumerate(sides):
        grid = brain_grid([(side.brain, None)], config, side.study.reference, LARGEST_TILED_GRID)
        own = preprocessing_of(side, weights)
        study = prepare_checked(side.study, side.brain, own, grid, None, side.coverage)
        step = part(progress, number / 2, (number + 1) / 2)
        segmentation = segment_by_coverage(weights, study, config.background, settings.test_time_flips, device, step)
        native.append(native_segmentation(side, segmentation, grid, None, settings))
        found.append(segmentation)
        grids.append(grid)
        notes += tiles_note(side.study.name, grid)
    return FinePair((found[0], found[1]), (grids[0], grids[1]), (native[0], native[1]), tuple(notes))


def _on_grid(
    segmentation: Segmentation, own: WorkingGrid, grid: WorkingGrid, transform: sitk.Transform | None
) -> Segmentation:
    """Bring the probabilities to another grid; what lies beyond their own one is background."""
    parts = [
        torch.from_numpy(sitk.GetArrayFromImage(grid.resample(own.to_sitk(p), transform, outside=float(c == 0))))
        for c, p in enumerate(segmentation.probabilities)
    ]
    share = (own.spacing_mm / grid.spacing_mm) ** 3
    counts = (segmentation.counts.double() * share).round().long()
    removed = segmentation.removed
    if removed is not None:
        nearest = grid.resample(own.to_sitk(removed.to(torch.uint8)), transform, sitk.sitkNearestNeighbor)
        removed = torch.from_numpy(sitk.GetArrayFromImage(nearest) > 0)
    return Segmentation(torch.stack(parts), counts, removed)
