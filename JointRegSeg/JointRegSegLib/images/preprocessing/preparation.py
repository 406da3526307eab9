"""Preparation of a visit: its images on the working grid, normalised, with what each of them shows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import SimpleITK as sitk
import torch

from NeuroCESTLib.core.messages.input_errors import InputError

from ..coverage import Coverage, study_coverage
from ..grid import WorkingGrid
from ..modalities import MODALITIES
from ..normalization import normalize
from ..study import StudyImages, checked_study
from .bias_field import correct_bias
from .brain_grid import brain_grid
from .config import PreprocessingConfig
from .prepared_study import PreparedStudy
from .resampling import image_on_grid, mask_on_grid


def prepare_study(
    images: Mapping[str, sitk.Image],
    mask: sitk.Image | None,
    config: PreprocessingConfig | None = None,
    grid: WorkingGrid | None = None,
    transform: sitk.Transform | None = None,
    name: str = "study",
) -> PreparedStudy:
    """Resample all modalities of a study to one RAS grid around the brain, and normalise them.

    Args:
        images: Images by modality. Their grids may differ in direction and spacing, as long as they overlap in space.
        mask: Brain mask on any grid; None to estimate it.
        config: Settings; None for the defaults.
        grid: Working grid; None for one around the brain.
        transform: Map from points of that grid to points of the study (LPS mm), such as the affine to the fixed study.
        name: Name of the study in messages.

    Raises:
        ValueError: An image cannot be used, see ``study.checked_study``; the message names it.
    """
    study, _ = checked_study(StudyImages(images, mask, None, name))
    mask = study.brain_mask
    if mask is None:
        from ..brain_mask import estimate_brain_mask

        mask = estimate_brain_mask(study).mask
    grid = brain_grid([(mask, transform)], config or PreprocessingConfig(), study.reference) if grid is None else grid
    return prepare_checked(study, mask, config or PreprocessingConfig(), grid, transform)


def prepare_checked(
    study: StudyImages,
    mask: sitk.Image,
    config: PreprocessingConfig,
    grid: WorkingGrid,
    transform: sitk.Transform | None = None,
    coverage: Mapping[str, Coverage] | None = None,
) -> PreparedStudy:
    """Prepare a study that was checked already; see `prepare_study`.

    Voxels that an image does not show have the value of an absent modality, and are left out of its normalisation.

    Args:
        study: The study.
        mask: Its brain.
        config: Settings.
        grid: The working grid.
        transform: Map from points of the grid to points of the study (LPS mm); None for the identity.
        coverage: What each image shows, by modality; None to find out.
    """
    inside = mask_on_grid(mask, grid, transform)
    if not inside.any():
        raise InputError(study.name, f"the brain of the {study.name} study lies outside the working grid")
    channels = np.full((len(MODALITIES), *grid.shape), config.background, dtype=np.float32)
    uncorrected = channels.copy() if config.n4 else None
    seen = np.zeros(channels.shape, dtype=bool)
    beyond = np.zeros(grid.shape, dtype=bool)
    coverage = study_coverage(study, mask) if coverage is None else coverage
    for channel, modality in enumerate(MODALITIES):
        if modality not in study.images:
            continue
        raw, shown = image_on_grid(study.images[modality], grid, transform, config.interpolation)
        shown, cut_off = _covered(shown, coverage[modality], grid, transform)
        if (shown & inside).sum() < 100:
            raise ValueError(f"{study.title(modality)} does not reach the brain: choose another image or leave it out")
        landmarks = config.histogram_landmarks.get(modality)
        if uncorrected is not None:
            uncorrected[channel] = normalize(
                raw, shown & inside, config.normalisation, landmarks, study.title(modality)
            )
            raw = correct_bias(raw, shown & inside, grid)
        channels[channel] = normalize(raw, shown & inside, config.normalisation, landmarks, study.title(modality))
        seen[channel] = shown
        beyond |= cut_off
    return PreparedStudy(
        torch.from_numpy(channels),
        torch.from_numpy(inside),
        grid,
        study.present,
        transform,
        study.name,
        torch.from_numpy(seen),
        torch.from_numpy(beyond) if beyond.any() else None,
        config.n4,
        None if uncorrected is None else torch.from_numpy(uncorrected),
    )


def _covered(
    field_of_view: np.ndarray, coverage: Coverage, grid: WorkingGrid, transform: sitk.Transform | None
) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (D, H, W) that an image shows, and those just behind the planes at which it cuts the brain off."""
    shown, beyond = field_of_view, np.zeros(1, bool)
    if coverage.seen is not None:  # a voxel that is interpolated with one that was not acquired is not shown either
        missing = sitk.Cast(coverage.seen == 0, sitk.sitkFloat32)
        shown = shown & ~(sitk.GetArrayFromImage(grid.resample(missing, transform)) > 0)
    if coverage.beyond is not None:
        beyond = sitk.GetArrayFromImage(grid.resample(coverage.beyond, transform, sitk.sitkNearestNeighbor)) > 0
        beyond &= ~shown
    return shown, beyond
