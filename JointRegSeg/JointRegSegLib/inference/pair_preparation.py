"""Both visits on one working grid: the grid, the normalised images, and what is known of their tumours there."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import SimpleITK as sitk
import torch
from torch import Tensor

from ..images.grid import LARGEST_GRID, LARGEST_TILED_GRID, WorkingGrid
from ..images.preprocessing.brain_grid import brain_grid
from ..images.preprocessing.config import PreprocessingConfig
from ..images.preprocessing.preparation import prepare_checked
from ..images.preprocessing.prepared_study import PreparedStudy
from ..images.preprocessing.resampling import labels_on_grid, mask_on_grid
from ..network.weights import LoadedWeights
from ..registration.affine import AffineResult
from .checks import CheckedPair, CheckedStudy
from .network_pass import finest_spacing_mm, network_preprocessing, preprocessing_of
from .settings import InferenceSettings
from .uncertainty import Segmentation

_COARSEST_FACTOR = 4
"""Largest number by which the wanted voxel size of a working grid that would be too large is multiplied."""
_FINEST_MM, _COARSEST_MM = 1.0, 2.0
"""Smallest and largest voxel size in mm of a working grid that follows the images."""


@dataclass(frozen=True)
class PreparedPair:
    """Both studies on one working grid, the moving one after the affine alignment."""

    fixed: PreparedStudy
    moving: PreparedStudy
    alignment: AffineResult
    configs: tuple[PreprocessingConfig, PreprocessingConfig]  # preprocessing of the fixed and of the moving study
    background: float  # intensity outside of the brain
    is_coarse: bool  # whether the grid is coarser than wanted, because it would have too many voxels

    @property
    def grid(self) -> WorkingGrid:
        return self.fixed.grid


def prepare_pair(
    pair: CheckedPair, alignment: AffineResult, weights: LoadedWeights | None, settings: InferenceSettings
) -> PreparedPair:
    """Both studies, normalised, on a working grid around both brains."""
    config = _preprocessing(pair, weights, settings)
    affine = alignment.transform
    grid, is_coarse = _pair_grid([(pair.fixed.brain, None), (pair.moving.brain, affine)], config, pair)
    sides = (pair.fixed, None), (pair.moving, affine)
    configs = [config if weights is None else preprocessing_of(side, weights) for side, _ in sides]
    fixed, moving = (
        prepare_checked(side.study, side.brain, own, grid, to_side, side.coverage)
        for (side, to_side), own in zip(sides, configs, strict=True)
    )
    return PreparedPair(fixed, moving, alignment, (configs[0], configs[1]), config.background, is_coarse)


def _pair_grid(
    brains: list[tuple[sitk.Image, sitk.Transform | None]], config: PreprocessingConfig, pair: CheckedPair
) -> tuple[WorkingGrid, bool]:
    """Grid around both brains, with voxels larger than wanted where it would have too many; and whether they are."""
    for factor in range(1, _COARSEST_FACTOR + 1):
        coarser = replace(config, spacing_mm=config.spacing_mm * factor)
        grid = brain_grid(brains, coarser, pair.fixed.study.reference, LARGEST_TILED_GRID)
        if math.prod(grid.shape) <= LARGEST_GRID:
            return grid, factor > 1
    return brain_grid(brains, config, pair.fixed.study.reference), False  # tells how large it would be


def _preprocessing(
    pair: CheckedPair, weights: LoadedWeights | None, settings: InferenceSettings
) -> PreprocessingConfig:
    """That of the network; without one, on voxels as fine as those of the images, within limits."""
    if weights is not None:
        return network_preprocessing(weights)
    if settings.spacing_mm is not None:
        return PreprocessingConfig(spacing_mm=settings.spacing_mm)
    finest_mm = finest_spacing_mm(pair.fixed.study, pair.moving.study)
    return PreprocessingConfig(spacing_mm=min(max(finest_mm, _FINEST_MM), _COARSEST_MM))


def classes_on_grid(checked: CheckedStudy, segmentation: Segmentation | None, prepared: PreparedStudy) -> Tensor | None:
    """Classes of a study on the working grid, (D, H, W) uint8; None if they are not known."""
    if checked.given_labels is not None:
        return labels_on_grid(checked.given_labels, prepared.grid, prepared.transform)
    return None if segmentation is None else segmentation.labels


def tumor_on_grid(checked: CheckedStudy, classes: Tensor | None, prepared: PreparedStudy) -> Tensor | None:
    """Tumour, cavity and plain mask of a study on the working grid, (1, 1, D, H, W) bool; None if none is known."""
    found = None if classes is None else classes > 0
    if checked.study.left_out is not None:
        mask = torch.from_numpy(mask_on_grid(checked.study.left_out, prepared.grid, prepared.transform))
        found = mask if found is None else found | mask.to(found.device)
    return None if found is None else found[None, None]
