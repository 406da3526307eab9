"""What the picture of an evaluated case shows: everything on one grid around the fixed brain."""

from __future__ import annotations

import math

import numpy as np
import SimpleITK as sitk

from ..findings.result import JointResult
from ..images.grid import WorkingGrid
from ..images.modalities import TITLES
from ..images.preprocessing.brain_grid import brain_grid
from ..images.preprocessing.config import PreprocessingConfig
from ..images.study import StudyImages
from ..pictures.cases import SHOWN_MODALITIES, CasePicture

SPACING_MM = 1.5
"""Voxel size of the grid that pictures are cut from."""


def study_picture(
    name: str, study: StudyImages, expected: sitk.Image | None, predicted: sitk.Image | None
) -> CasePicture:
    """Show a single visit.

    Args:
        name: Name of the study.
        study: Its images, with the brain mask.
        expected: Reference classes, or None.
        predicted: Predicted classes, or None.

    Returns:
        The picture of a case without a moving study.
    """
    grid, shown = _grid_around(study), _shown_modality(study)
    return CasePicture(
        name,
        "",
        TITLES[shown],
        _volume(study.images[shown], grid),
        labels=_classes(expected, grid),
        predicted=_classes(predicted, grid),
    )


def pair_picture(
    names: tuple[str, str], fixed: StudyImages, moving: StudyImages, expected: sitk.Image | None, result: JointResult
) -> CasePicture:
    """Show two visits and the map between them.

    Args:
        names: Names of the fixed and the moving study.
        fixed: Images of the fixed study, with the brain mask.
        moving: Images of the moving study.
        expected: Reference classes of the fixed study, or None.
        result: Segmentation, transforms and Jacobian of the pair.

    Returns:
        The picture; its Jacobian map is NaN outside the brain.
    """
    grid, shown = _grid_around(fixed), _shown_modality(fixed, moving)
    before = after = jacobian = None
    if shown in moving.images:
        before = _volume(moving.images[shown], grid, result.affine)
        after = _volume(moving.images[shown], grid, result.moving_to_fixed)
        jacobian = sitk.GetArrayFromImage(grid.resample(result.jacobian, None, outside=math.nan))
        brain = sitk.GetArrayFromImage(grid.resample(result.fixed_mask, None, sitk.sitkNearestNeighbor))
        jacobian[brain == 0] = math.nan
    return CasePicture(
        *names,
        TITLES[shown],
        _volume(fixed.images[shown], grid),
        before,
        after,
        _classes(expected, grid),
        _classes(result.fixed_labels, grid),
        jacobian,
    )


def _grid_around(study: StudyImages) -> WorkingGrid:
    """A grid along the patient's axes around the brain."""
    if study.brain_mask is None:
        raise ValueError(f"the {study.name} study has no brain mask to cut its picture by")
    config = PreprocessingConfig(spacing_mm=SPACING_MM, multiple_of=1)
    return brain_grid([(study.brain_mask, None)], config, study.reference)


def _shown_modality(fixed: StudyImages, *others: StudyImages) -> str:
    """The preferred modality that all studies have, or else the first one of the fixed study."""
    common = [m for m in SHOWN_MODALITIES if all(m in study.images for study in (fixed, *others))]
    return common[0] if common else fixed.present[0]


def _volume(image: sitk.Image, grid: WorkingGrid, transform: sitk.Transform | None = None) -> np.ndarray:
    """The image on the grid (D, H, W), from 0 to about 1, so that both studies have the same brightness."""
    values = sitk.GetArrayFromImage(grid.resample(sitk.Cast(image, sitk.sitkFloat32), transform))
    values -= values.min()
    tissue = values[values > 0]
    return values / np.percentile(tissue, 99) if tissue.size else np.zeros_like(values)


def _classes(image: sitk.Image | None, grid: WorkingGrid) -> np.ndarray | None:
    if image is None:
        return None
    return sitk.GetArrayFromImage(grid.resample(image, None, sitk.sitkNearestNeighbor))
