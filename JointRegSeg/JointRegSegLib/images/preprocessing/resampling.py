"""Images, masks and labels on the working grid."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor

from ..grid import WorkingGrid
from ..labels import LABELS
from .config import INTERPOLATIONS


def image_on_grid(
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
