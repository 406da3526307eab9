"""A super-resolution network applied to the voxels of a visit, whatever their position and direction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk
import torch

from ..images.normalization import ZSCORE_RANGE
from ..images.study import StudyImages
from ..network.precision import require_finite
from ..network.resolution import LOWEST, OUTSIDE
from ..tasks.super_resolution import SuperResolution, refined
from .weights import StudyWeights

ALIKE = 1.2
"""Ratio to the voxel size of the training within which an image keeps its own voxels."""


@torch.no_grad()
def super_resolved(
    study: StudyImages, mask: sitk.Image, weights: StudyWeights, task: SuperResolution, device: torch.device | str
) -> tuple[dict[str, sitk.Image], list[str]]:
    """Divide the voxels of images by the factor of a task.

    The network works along the axes of the first image that are nearest to left-right, posterior-anterior and
    inferior-superior. Outside the brain, of which it knows nothing, the images are interpolated by cubic B-splines.

    Args:
        study: Images; those that the network knows are used.
        mask: Brain.
        weights: Network.
        task: Its super-resolution.
        device: Device to compute on.

    Returns:
        Images in single precision by modality, with the direction of the first image; their voxels divide its own, so
        that both cover the same space. And sentences for the user.

    Raises:
        ValueError: An image is too small.
    """
    known = weights.network.config.modalities
    images = {modality: study.images[modality] for modality in study.present if modality in known}
    original = next(iter(images.values()))
    turn = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(original.GetDirection())
    first = sitk.DICOMOrient(original, "RAS")
    wanted = [weights.preparation.preprocessing.spacing_mm * each for each in task.factor]
    grid, notes = _coarse_grid(first, wanted)
    shape = grid.GetSize()[::-1]
    if problem := task.coarse_problem(shape, weights.network.config):
        raise ValueError(problem)
    brain = sitk.GetArrayFromImage(_onto(sitk.Cast(mask != 0, sitk.sitkFloat32), grid)) >= 0.5
    if not brain.any():
        raise ValueError(f"the brain of the {study.name} study lies outside its first image")
    coarse = np.full((len(known), *shape), OUTSIDE, np.float32)
    scales, natives = {}, {}
    for modality, image in images.items():
        if modality != next(iter(images)) and not _same_grid(image, original):
            notes.append(f"{study.title(modality)} has another grid than the first image, onto which it is resampled")
        natives[modality] = _onto(image, grid)
        values = sitk.GetArrayFromImage(natives[modality])
        mean, sd = float(values[brain].mean()), float(values[brain].std())
        if not sd > 0:
            raise ValueError(
                f"{study.title(modality)} is constant inside the brain: choose another image or leave it out"
            )
        scales[modality] = mean, sd
        coarse[known.index(modality)] = np.where(brain, np.clip((values - mean) / sd, LOWEST, ZSCORE_RANGE[1]), OUTSIDE)
    network = weights.network.to(device).eval()
    finer = network.refine(task, torch.from_numpy(coarse)[None].to(device))[0].cpu()
    require_finite(network.config.name, finer)
    fine = finer.numpy()
    inside = sitk.GetArrayFromImage(refined(_like(brain.astype(np.float32), grid), task.factor, sitk.sitkLinear)) >= 0.5
    found = {}
    for modality, (mean, sd) in scales.items():
        plain = refined(natives[modality], task.factor)
        values = np.where(inside, fine[known.index(modality)] * sd + mean, sitk.GetArrayViewFromImage(plain))
        found[modality] = sitk.DICOMOrient(_like(values.astype(np.float32), plain), turn)
    return found, notes


def _coarse_grid(image: sitk.Image, wanted_mm: Sequence[float]) -> tuple[sitk.Image, list[str]]:
    """Image whose grid the network works on: the given one, or one with the voxels of the training, which is told."""
    spacing = np.array(image.GetSpacing())
    ratio = spacing / np.array(wanted_mm)
    if ratio.max() <= ALIKE and ratio.min() >= 1 / ALIKE:
        return image, []
    size = [max(1, round(n * r)) for n, r in zip(image.GetSize(), ratio, strict=True)]
    grid = sitk.Image(size, sitk.sitkUInt8)
    grid.SetDirection(image.GetDirection())
    grid.SetSpacing([float(mm) for mm in wanted_mm])
    middle = [(n - 1) / 2 for n in image.GetSize()]
    offset = np.array(image.GetDirection()).reshape(3, 3) @ (np.array(wanted_mm) * (np.array(size) - 1) / 2)
    grid.SetOrigin((np.array(image.TransformContinuousIndexToPhysicalPoint(middle)) - offset).tolist())
    note = (
        f"the first image has voxels of {_times(spacing)} mm (left-right, posterior-anterior, inferior-superior), but "
        f"the network was trained with {_times(wanted_mm)} mm, to which it is resampled first"
    )
    return grid, [note]


def _onto(image: sitk.Image, grid: sitk.Image) -> sitk.Image:
    """Resample an image to a grid, linearly and after a blur where the grid is coarser; its border is continued."""
    ratio = np.array(grid.GetSpacing()) / np.array(sitk.DICOMOrient(image, "RAS").GetSpacing())
    image = sitk.Cast(sitk.DICOMOrient(image, "RAS"), sitk.sitkFloat32)
    sigma = np.where(ratio > 1.25, np.sqrt(np.maximum(ratio**2 - 1, 0)) / 2.355, 0) * np.array(image.GetSpacing())
    if sigma.any():
        image = sitk.DiscreteGaussian(image, variance=(sigma**2).tolist(), useImageSpacing=True)
    padded = sitk.ZeroFluxNeumannPad(image, [1] * 3, [1] * 3)
    return sitk.Resample(padded, grid, sitk.Transform(3, sitk.sitkIdentity), sitk.sitkLinear, 0.0, sitk.sitkFloat32)


def _like(values: np.ndarray, grid: sitk.Image) -> sitk.Image:
    image = sitk.GetImageFromArray(values)
    image.CopyInformation(grid)
    return image


def _same_grid(one: sitk.Image, other: sitk.Image) -> bool:
    return one.GetSize() == other.GetSize() and all(
        np.allclose(get(one), get(other), atol=1e-3)
        for get in (sitk.Image.GetSpacing, sitk.Image.GetOrigin, sitk.Image.GetDirection)
    )


def _times(numbers: Sequence[float] | np.ndarray) -> str:
    return " x ".join(f"{number:.3g}" for number in numbers)
