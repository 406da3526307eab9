"""From the volumes of a visit to a normalised tensor on an isotropic RAS grid around the brain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor

from .grid import WorkingGrid, grid_around, mask_corners
from .modalities import MODALITIES
from .normalization import NORMALISATIONS, background_value, normalise
from .study import StudyImages, checked_study

LEAST_MARGIN_MM = 2.0
LEARN = "learn"
"""In a training configuration, instead of histogram landmarks: those of the studies that are trained on."""
INTERPOLATIONS = {"linear": sitk.sitkLinear, "bspline": sitk.sitkBSpline}


@dataclass(frozen=True)
class PreprocessingConfig:
    """How studies become tensors; saved with the weights of a network.

    spacing_mm: of the isotropic working grid. normalisation: see ``normalisation.normalise``. n4: correct the bias
    field first. interpolation: 'linear' or 'bspline' for images; labels are interpolated one-hot and linearly.
    crop_margin_mm: from the brain to the border of the grid; down to 2 mm where sizes are rounded up to multiples.
    multiple_of: divisor of the grid's sizes (16 for four halvings, times the stride of the network).
    histogram_landmarks: for 'histogram', by modality; one without has those of a normal distribution.
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
            raise ValueError(f"spacing_mm is {self.spacing_mm}: use 0.2 ... 8 mm")
        if self.normalisation not in NORMALISATIONS:
            raise ValueError(f"normalisation '{self.normalisation}' is unknown: use {', '.join(NORMALISATIONS)}")
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(f"interpolation '{self.interpolation}' is unknown: use {', '.join(INTERPOLATIONS)}")
        marks = self.histogram_landmarks
        if not isinstance(marks, Mapping) or not all(isinstance(v, list | tuple) for v in marks.values()):
            raise ValueError(f"histogram_landmarks is {marks!r} but must be an object with numbers by modality")
        if unknown := [modality for modality in marks if modality not in MODALITIES]:
            raise ValueError(f"histogram_landmarks: unknown modality {unknown[0]!r}; use {', '.join(MODALITIES)}")
        if self.crop_margin_mm < 0 or self.multiple_of < 1:
            raise ValueError("crop_margin_mm must not be negative, multiple_of at least 1")

    @property
    def background(self) -> float:
        """Value outside of the brain and of absent modalities."""
        return background_value(self.normalisation)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = asdict(self)
        values["histogram_landmarks"] = {m: list(v) for m, v in self.histogram_landmarks.items()}
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PreprocessingConfig:
        """Checked settings from plain values; ValueError names unknown keys and those that there are."""
        known = [f.name for f in fields(cls)]
        if unknown := sorted(set(values) - set(known)):
            raise ValueError(f"preprocessing: unknown keys {', '.join(unknown)}; use {', '.join(known)}")
        return cls(**dict(values))


@dataclass(frozen=True)
class PreparedStudy:
    """A study on a working grid.

    images: (modality, D, H, W) float32, in the order of ``MODALITIES``, absent ones at the background value.
    mask: (D, H, W) bool, the brain. present: modalities that were given. transform: points of the grid to points of
    the study's own space (LPS mm), None for the identity.
    """

    images: Tensor
    mask: Tensor
    grid: WorkingGrid
    present: tuple[str, ...]
    transform: sitk.Transform | None = None
    name: str = "study"


def brain_grid(
    masks: list[tuple[sitk.Image, sitk.Transform | None]], config: PreprocessingConfig, anchor: sitk.Image
) -> WorkingGrid:
    """The working grid around brains: masks with the linear transforms from points of the grid to theirs."""
    points = []
    for mask, transform in masks:
        corners = mask_corners(mask)
        if transform is not None:
            back = transform.GetInverse()
            corners = np.array([back.TransformPoint(c.tolist()) for c in corners])
        points.append(corners)
    margins = (config.crop_margin_mm, min(config.crop_margin_mm, LEAST_MARGIN_MM))
    around, spacing, multiple = np.concatenate(points), config.spacing_mm, config.multiple_of
    grids = [grid_around(around, spacing, margin, multiple, anchor.GetOrigin()) for margin in margins]
    return grids[0] if multiple == 1 else grids[1]


def prepare_study(
    images: Mapping[str, sitk.Image],
    mask: sitk.Image | None,
    config: PreprocessingConfig | None = None,
    grid: WorkingGrid | None = None,
    transform: sitk.Transform | None = None,
    name: str = "study",
) -> PreparedStudy:
    """All modalities of a study, normalised, on one RAS grid around the brain.

    The images may have different grids of any direction and spacing, as long as they overlap in space. mask: the
    brain, on any grid; estimated where it is None. grid: the working grid to use (default: one around the brain).
    transform: points of that grid to points of the study (LPS mm), such as the affine to the fixed study.

    Raises:
        ValueError: one sentence that names the image and what is wrong, see ``study_images.checked_study``.
    """
    study, _ = checked_study(StudyImages(images, mask, None, name))
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
) -> PreparedStudy:
    """As ``prepare_study``, for a study that was checked already."""
    inside = mask_on_grid(mask, grid, transform)
    if not inside.any():
        raise ValueError(f"the brain of the {study.name} study lies outside of the working grid")
    channels = np.full((len(MODALITIES), *grid.shape), config.background, dtype=np.float32)
    for channel, modality in enumerate(MODALITIES):
        if modality not in study.images:
            continue
        raw, seen = _on_grid(study.images[modality], grid, transform, config.interpolation)
        if (seen & inside).sum() < 100:
            raise ValueError(f"{study.title(modality)} does not reach the brain: choose another image or leave it out")
        if config.n4:
            raw = correct_bias(raw, seen & inside, grid)
        landmarks = config.histogram_landmarks.get(modality)
        channels[channel] = normalise(raw, seen & inside, config.normalisation, landmarks, study.title(modality))
    return PreparedStudy(
        torch.from_numpy(channels), torch.from_numpy(inside), grid, study.present, transform, study.name
    )


def mask_on_grid(mask: sitk.Image, grid: WorkingGrid, transform: sitk.Transform | None = None) -> np.ndarray:
    """A mask on the working grid, (D, H, W) bool: at least half of the voxel inside, by linear interpolation."""
    image = sitk.Cast(sitk.Cast(mask, sitk.sitkFloat32) != 0, sitk.sitkFloat32)
    return sitk.GetArrayFromImage(grid.resample(image, transform)) >= 0.5


def labels_on_grid(
    labels: sitk.Image, grid: WorkingGrid, transform: sitk.Transform | None = None, classes: int = 4
) -> Tensor:
    """Labels 0 … classes - 1 on the working grid, (D, H, W) uint8: one-hot, linear, the largest share wins."""
    best = np.full(grid.shape, 0.5, dtype=np.float32)
    share = np.zeros(grid.shape, dtype=np.float32)
    winner = np.zeros(grid.shape, dtype=np.uint8)
    parts = []
    for value in range(1, classes):
        part = sitk.Cast(labels == value, sitk.sitkFloat32)
        parts.append(sitk.GetArrayFromImage(grid.resample(part, transform)))
        share += parts[-1]
    best = 1 - share  # the background's
    for value, part in enumerate(parts, start=1):
        better = part > best
        best[better], winner[better] = part[better], value
    return torch.from_numpy(winner)


def correct_bias(values: np.ndarray, mask: np.ndarray, grid: WorkingGrid) -> np.ndarray:
    """N4 (Tustison et al. 2010) inside the mask, the field found on voxels of about 4 mm; (D, H, W)."""
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
    """Values and field of view, both (D, H, W), of an image on the working grid; smoothed before it gets coarser."""
    spacing = np.array(image.GetSpacing())
    ratio = grid.spacing_mm / spacing
    # the Gaussian that takes a voxel of the image's size to one of the grid's, as variances of boxes add
    sigma = np.where(ratio > 1.25, np.sqrt(np.maximum(ratio**2 - 1, 0) / 12) * spacing, 0.0)
    if sigma.any():
        image = sitk.DiscreteGaussian(image, variance=(sigma**2).tolist(), useImageSpacing=True)
    outside = float(np.finfo(np.float32).min)
    values = sitk.GetArrayFromImage(grid.resample(image, transform, INTERPOLATIONS[interpolation], outside))
    seen = values > outside
    values[~seen] = 0.0
    return values, seen
