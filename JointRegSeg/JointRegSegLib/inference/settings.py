"""Settings and results of ``inference.process_pair``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import SimpleITK as sitk

from ..images.modalities import MODALITIES
from ..registration.refinement_settings import check_regularizer

AFFINE_KINDS = ("none", "rigid", "affine")


@dataclass(frozen=True)
class InferenceSettings:
    """How a pair of studies is processed.

    affine: linear initialisation, 'none', 'rigid' or 'affine'. refine_iterations: iterations of the instance
    optimisation on each level; 0 leaves the network's deformation (or, without a network, the affine). time_limit_s:
    the optimisation ends after this time. regulariser, regularisation: what keeps it smooth, and its weight; None for
    those of ``RefinementSettings``. test_time_flips: segment mirrored copies too; uncertainty and intervals of
    volumes need it. keep_probabilities: return the class probabilities on the native grids. smallest_island_ml:
    connected parts of the predicted tumour below this volume are removed, except the largest part; 0 keeps all.
    spacing_mm: voxel size of the working grid without a network; a network has its own.
    registration_modalities: those that drive the optimisation, None for all that both studies have. device: of torch,
    None for the best one.
    """

    affine: str = "affine"
    refine_iterations: int | None = None
    time_limit_s: float | None = None
    regulariser: str | None = None
    regularisation: float | None = None
    test_time_flips: bool = True
    keep_probabilities: bool = False
    smallest_island_ml: float = 0.1
    spacing_mm: float = 1.0
    registration_modalities: tuple[str, ...] | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        if self.affine not in AFFINE_KINDS:
            raise ValueError(f"affine '{self.affine}' is unknown: use {', '.join(AFFINE_KINDS)}")
        if self.refine_iterations is not None and self.refine_iterations < 0:
            raise ValueError(f"refine_iterations is {self.refine_iterations}: use 0 or more")
        if self.time_limit_s is not None and not self.time_limit_s > 0:
            raise ValueError(f"the time limit time_limit_s is {self.time_limit_s}: use a positive time")
        if self.regulariser is not None:
            check_regularizer(self.regulariser)
        if self.regularisation is not None and not self.regularisation >= 0:
            raise ValueError(f"regularisation is {self.regularisation}: use 0 or more")
        if not self.smallest_island_ml >= 0:
            raise ValueError(f"smallest_island_ml is {self.smallest_island_ml}: use 0 or more")
        if not 0.2 <= self.spacing_mm <= 8:
            raise ValueError(f"spacing_mm is {self.spacing_mm}: use 0.2 to 8 mm")
        for modality in self.registration_modalities or ():
            if modality not in MODALITIES:
                raise ValueError(f"registration modality '{modality}' is unknown: use {', '.join(MODALITIES)}")


@dataclass(frozen=True)
class RegionVolume:
    """Volume of one compartment or region in one study, in ml; the interval spans the test-time variants (None
    without them)."""

    study: str
    region: str
    volume_ml: float
    low_ml: float | None = None
    high_ml: float | None = None


@dataclass(frozen=True)
class VolumeChange:
    """Change of one region from the fixed to the moving study.

    change_ml, change_percent: moving minus fixed (percent of fixed; None where the fixed one is empty), with the
    interval of ``change_ml``. moving_warped_ml: volume of the moving study's region on the fixed grid after the warp.
    fixed_deformed_ml: volume that the fixed study's region takes in the moving study according to the deformation
    (Jacobian determinants summed over it). None where there is no segmentation of that study; changes are None too
    where a predicted segmentation lacks the modality that shows the region.
    """

    region: str
    fixed_ml: float | None
    moving_ml: float | None
    change_ml: float | None
    change_percent: float | None
    low_ml: float | None
    high_ml: float | None
    moving_warped_ml: float | None
    fixed_deformed_ml: float | None


@dataclass(frozen=True)
class JointResult:
    """What ``process_pair`` found.

    fixed_labels, moving_labels: uint8 classes on the grid of each study's first image; None without weights and
        without given segmentations. fixed_uncertainty, moving_uncertainty: entropy 0 … 1 of the predicted classes on
        the same grids; None without weights. fixed_mask, moving_mask: the brains that were used.
    moving_to_fixed: maps points of the fixed space to the moving space (LPS mm), so that
        ``sitk.Resample(moving, fixed, moving_to_fixed)`` is the warped image. fixed_to_moving: its inverse.
        affine: its linear part alone.
    warped: modality to image of the moving study on the fixed study's grid; warped_labels alike.
    jacobian: determinant of moving_to_fixed on the fixed grid.
    volumes, changes: see ``RegionVolume`` and ``VolumeChange``. summary: numbers for the report, with times in
        seconds under 'seconds'. warnings: sentences for the user.
    probabilities: 'fixed' and 'moving' to {class name: image}; empty unless kept.
    """

    fixed_labels: sitk.Image | None
    moving_labels: sitk.Image | None
    fixed_uncertainty: sitk.Image | None
    moving_uncertainty: sitk.Image | None
    fixed_mask: sitk.Image
    moving_mask: sitk.Image
    moving_to_fixed: sitk.Transform
    fixed_to_moving: sitk.Transform
    affine: sitk.AffineTransform
    warped: Mapping[str, sitk.Image]
    warped_labels: sitk.Image | None
    jacobian: sitk.Image
    volumes: tuple[RegionVolume, ...]
    changes: tuple[VolumeChange, ...]
    summary: Mapping[str, Any]
    warnings: tuple[str, ...]
    probabilities: Mapping[str, Mapping[str, sitk.Image]] = field(default_factory=dict)
