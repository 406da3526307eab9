"""Preparation of a visit: from its volumes to a normalised tensor on an isotropic RAS grid around the brain."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor

from NeuroCESTLib.core.checked_json import number, settings_from_json
from NeuroCESTLib.core.messages.input_errors import InputError

from .coverage import Coverage, coverage_of
from .grid import LARGEST_GRID, WorkingGrid, grid_around, mask_corners
from .labels import LABELS
from .modalities import MODALITIES
from .normalization import LANDMARK_PERCENTILES, background_value, check_normalization, normalize
from .study import StudyImages, checked_study

_SPARED_MM, _LEAST_MARGIN_MM = 4.0, 2.0
"""By how much the margin may be less, and the least margin, where sizes are rounded up to multiples."""
LEARN = "learn"
"""Value of ``histogram_landmarks`` in training configurations: learn the landmarks from the training data."""
INTERPOLATIONS = {"linear": sitk.sitkLinear, "bspline": sitk.sitkBSpline}


@dataclass(frozen=True)
class PreprocessingConfig:
    """Settings by which studies become tensors; they are saved with the weights of a network.

    Attributes:
        spacing_mm: Voxel size of the isotropic working grid.
        normalisation: One of ``normalization.NORMALIZATIONS``, see ``normalization.normalize``.
        n4: Whether to correct the bias field first.
        interpolation: 'linear' or 'bspline' for images; labels are interpolated as one-hot images, linearly.
        crop_margin_mm: Least distance from the brain to the border of the grid. Where sizes are rounded up to
            multiples, up to 4 mm of it may be missing, but not of the last 2 mm.
        multiple_of: Divisor of the sizes of the grid: 16 for four halvings, times the stride of the network.
        histogram_landmarks: Landmarks of the normalisation 'histogram' by modality; modalities without them have those
            of a normal distribution.
    """

    spacing_mm: float = 1.0
    normalisation: str = "zscore"
    n4: bool = False
    interpolation: str = "linear"
    crop_margin_mm: float = 6.0
    multiple_of: int = 16
    histogram_landmarks: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("spacing_mm", "crop_margin_mm", "multiple_of"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int if name == "multiple_of" else int | float):
                kind = "a whole number" if name == "multiple_of" else "a number"
                raise ValueError(f"{name} is {value!r} but must be {kind}")
        if not isinstance(self.n4, bool):
            raise ValueError(f"n4 is {self.n4!r} but must be true or false")
        if not 0.2 <= self.spacing_mm <= 8:
            raise ValueError(f"spacing_mm is {self.spacing_mm}: use 0.2 to 8 mm")
        check_normalization(self.normalisation)
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(f"interpolation '{self.interpolation}' is unknown; use one of {', '.join(INTERPOLATIONS)}")
        marks = self.histogram_landmarks
        if not isinstance(marks, Mapping) or not all(isinstance(v, list | tuple) for v in marks.values()):
            raise ValueError(f"histogram_landmarks is {marks!r} but must be an object with numbers by modality")
        if unknown := [modality for modality in marks if modality not in MODALITIES]:
            raise ValueError(f"histogram_landmarks: unknown modality {unknown[0]!r}; use {', '.join(MODALITIES)}")
        for modality, positions in marks.items():
            _check_landmarks(positions, f"histogram_landmarks: {modality}")
        if self.crop_margin_mm < 0 or self.multiple_of < 1:
            raise ValueError("crop_margin_mm must not be negative, multiple_of at least 1")

    @property
    def background(self) -> float:
        """Value outside the brain and of absent modalities."""
        return background_value(self.normalisation)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as in a JSON file."""
        values = asdict(self)
        values["histogram_landmarks"] = {m: list(v) for m, v in self.histogram_landmarks.items()}
        return values

    @classmethod
    def from_dict(cls, values: Any, where: str = "preprocessing") -> PreprocessingConfig:
        """Build settings from plain values; those that are not given have their defaults.

        Args:
            values: Object as read from a file.
            where: File and section, with which every message begins.

        Raises:
            ValueError: A key is unknown or a value cannot be used; the message names it.
        """
        return settings_from_json(cls, values, where)


def _check_landmarks(positions: list[Any] | tuple[Any, ...], where: str) -> None:
    """Check the landmarks of a modality.

    Raises:
        ValueError: They are too few or too many, or not increasing numbers; the message begins with ``where``.
    """
    values = [number(position, f"{where}: a landmark") for position in positions]
    if len(values) != len(LANDMARK_PERCENTILES):
        raise ValueError(f"{where} has {len(values)} landmarks but needs {len(LANDMARK_PERCENTILES)}")
    if any(second <= first for first, second in itertools.pairwise(values)):
        raise ValueError(f"{where}: every landmark must be larger than the one before it")


@dataclass(frozen=True)
class PreparedStudy:
    """A study on a working grid.

    Attributes:
        images: Normalised images (modality, D, H, W), float32, in the order of ``MODALITIES``; absent ones have the
            background value.
        mask: Brain (D, H, W), boolean.
        grid: The working grid.
        present: Modalities that were given.
        transform: Map from points of the grid to points of the study's own space (LPS mm); None for the identity.
        name: Name of the study in messages.
        seen: Voxels that each image shows (modality, D, H, W), boolean, in the order of ``MODALITIES``; False for
            absent ones. None if every present image shows the whole grid.
        beyond: Voxels (D, H, W), boolean, just behind the planes at which images cut the brain off; None if the brain
            is whole.
        bias_corrected: Whether the bias fields of the images were corrected.
        uncorrected: The images without that correction, normalised likewise; None where there was none.
    """

    images: Tensor
    mask: Tensor
    grid: WorkingGrid
    present: tuple[str, ...]
    transform: sitk.Transform | None = None
    name: str = "study"
    seen: Tensor | None = None
    beyond: Tensor | None = None
    bias_corrected: bool = False
    uncorrected: Tensor | None = None

    def shown(self, modalities: Iterable[str]) -> Tensor:
        """Return the voxels (D, H, W), boolean, that an image of at least one of these modalities shows."""
        channels = [MODALITIES.index(m) for m in modalities if m in self.present]
        if not channels:
            return torch.zeros_like(self.mask)
        return torch.ones_like(self.mask) if self.seen is None else self.seen[channels].any(0)

    def outside(self, background: float) -> list[float]:
        """Return the value of each image outside the brain; ``background`` where the brain fills the grid."""
        beyond = torch.nonzero(~self.mask.flatten())
        if not len(beyond):
            return [background] * len(self.images)
        return [float(value) for value in self.images.flatten(1)[:, int(beyond[0])]]

    @property
    def voxel_ml(self) -> float:
        """Volume in ml of a voxel of the grid in the study's own space."""
        return self.grid.voxel_ml(self.transform)

    @property
    def extent(self) -> Tensor:
        """Brain (D, H, W), boolean, with the parts just behind the planes at which images cut it off."""
        return self.mask if self.beyond is None else self.mask | self.beyond


def brain_grid(
    masks: list[tuple[sitk.Image, sitk.Transform | None]],
    config: PreprocessingConfig,
    anchor: sitk.Image,
    largest: int = LARGEST_GRID,
) -> WorkingGrid:
    """Return the working grid around brains.

    Args:
        masks: Brain masks, each with the linear transform from points of the grid to points of the mask (LPS mm), or
            None for the identity.
        config: Spacing, margin and divisor of the sizes.
        anchor: Image from whose origin the voxel centres lie whole voxels away.
        largest: Largest number of voxels.

    Raises:
        ValueError: The grid would be too large.
    """
    points = []
    for mask, transform in masks:
        corners = mask_corners(mask)
        if transform is not None:
            back = transform.GetInverse()
            corners = np.array([back.TransformPoint(c.tolist()) for c in corners])
        points.append(corners)
    margin = config.crop_margin_mm
    if config.multiple_of > 1:
        margin = max(margin - _SPARED_MM, min(margin, _LEAST_MARGIN_MM))
    around = np.concatenate(points)
    return grid_around(around, config.spacing_mm, margin, config.multiple_of, anchor.GetOrigin(), largest)


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
        from .brain_mask import estimate_brain_mask

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
        raw, shown = _on_grid(study.images[modality], grid, transform, config.interpolation)
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


def study_coverage(study: StudyImages, mask: sitk.Image) -> dict[str, Coverage]:
    """Find out what each image of a study shows of its brain; see ``coverage.coverage_of``."""
    return {m: coverage_of(study.images[m], mask) for m in study.present}


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


def mask_on_grid(mask: sitk.Image, grid: WorkingGrid, transform: sitk.Transform | None = None) -> np.ndarray:
    """Resample a mask to the working grid: (D, H, W), true where at least half of a voxel lies inside."""
    image = sitk.Cast(sitk.Cast(mask, sitk.sitkFloat32) != 0, sitk.sitkFloat32)
    return sitk.GetArrayFromImage(grid.resample(image, transform)) >= 0.5


def labels_on_grid(
    labels: sitk.Image, grid: WorkingGrid, transform: sitk.Transform | None = None, classes: int = len(LABELS)
) -> Tensor:
    """Resample labels to the working grid as one-hot images with linear interpolation; the largest share wins.

    Args:
        labels: Labels from 0 to classes - 1.
        grid: The working grid.
        transform: Map from points of the grid to points of the labels (LPS mm); None for the identity.
        classes: Number of classes.

    Returns:
        Labels (D, H, W), uint8.
    """
    share = np.zeros(grid.shape, dtype=np.float32)
    winner = np.zeros(grid.shape, dtype=np.uint8)
    parts = []
    for value in range(1, classes):
        part = sitk.Cast(labels == value, sitk.sitkFloat32)
        parts.append(sitk.GetArrayFromImage(grid.resample(part, transform)))
        share += parts[-1]
    best = 1 - share  # that of the background
    for value, part in enumerate(parts, start=1):
        better = part > best
        best[better], winner[better] = part[better], value
    return torch.from_numpy(winner)


def correct_bias(values: np.ndarray, mask: np.ndarray, grid: WorkingGrid) -> np.ndarray:
    """Correct the bias field by N4 (Tustison et al. 2010), with the field estimated on voxels of about 4 mm.

    Args:
        values: Intensities (D, H, W).
        mask: Voxels from which the field is estimated (D, H, W), boolean.
        grid: Their working grid.

    Returns:
        Corrected intensities (D, H, W), float32.
    """
    image = grid.to_sitk(values - min(float(values[mask].min()), 0.0) + 1e-3)
    shrink = max(1, round(4 / grid.spacing_mm))
    small = sitk.Shrink(image, [shrink] * 3)
    small_mask = sitk.Shrink(grid.to_sitk(mask.astype(np.uint8)), [shrink] * 3)
    if not sitk.GetArrayViewFromImage(small_mask).any():
        return values
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations([30, 20, 10])
    n4.Execute(small, small_mask)
    field = np.exp(sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(image)))
    return (values / np.maximum(field, 1e-3)).astype(np.float32)


def _on_grid(
    image: sitk.Image, grid: WorkingGrid, transform: sitk.Transform | None, interpolation: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return values and field of view (D, H, W) of an image on the working grid, smoothed first if that is coarser."""
    spacing = np.array(image.GetSpacing())
    ratio = grid.spacing_mm / spacing
    # The Gaussian turns a voxel of the image into one of the grid, as the variances of boxes add.
    sigma = np.where(ratio > 1.25, np.sqrt(np.maximum(ratio**2 - 1, 0) / 12) * spacing, 0.0)
    if sigma.any():
        image = sitk.DiscreteGaussian(image, variance=(sigma**2).tolist(), useImageSpacing=True)
    outside = float(np.finfo(np.float32).min)
    values = sitk.GetArrayFromImage(grid.resample(image, transform, INTERPOLATIONS[interpolation], outside))
    seen = values > outside
    values[~seen] = 0.0
    return values, seen
