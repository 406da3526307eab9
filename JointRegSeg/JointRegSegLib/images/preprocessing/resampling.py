"""Images, masks and labels on the working grid."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor

from ..grid import WorkingGrid
from ..labels import LABELS
from .config import INTERPOLATIONS

_NUDGE_VOXELS = (0.0011, 0.0017, 0.0023)
"""Distance along the axes of an image by which its labels are moved before they are resampled."""


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


def nudged(labels: sitk.Image) -> sitk.Image:
    """Return labels moved by thousandths of a voxel, in another direction than along any axis, edge or diagonal.

    A voxel that lies exactly between two classes, as on a grid shifted by half a voxel or with voxels of twice the
    size, then goes to one of them on one side of a region and to the other on the opposite side. The region keeps its
    volume, which it would not if all of these went to the same class. Labels on their own grid stay as they are.
    """
    step = np.array(labels.GetDirection()).reshape(3, 3) @ (np.array(labels.GetSpacing()) * _NUDGE_VOXELS)
    moved = sitk.Image(labels)
    moved.SetOrigin((np.array(labels.GetOrigin()) - step).tolist())
    return moved


def labels_on_grid(
    labels: sitk.Image, grid: WorkingGrid, transform: sitk.Transform | None = None, classes: int = len(LABELS)
) -> Tensor:
    """Resample labels to the working grid as one-hot images with linear interpolation.

    A voxel belongs to the background unless the other classes together have more than half of it, and then to the one
    of them with the largest share. A thin rim between others is so not lost to the background.

    Args:
        labels: Labels from 0 to classes - 1.
        grid: The working grid.
        transform: Map from points of the grid to points of the labels (LPS mm); None for the identity.
        classes: Number of classes.

    Returns:
        Labels (D, H, W), uint8.
    """
    labels = nudged(labels)
    shares = (
        (value, sitk.GetArrayFromImage(grid.resample(sitk.Cast(labels == value, sitk.sitkFloat32), transform)))
        for value in range(1, classes)
    )
    return torch.from_numpy(most_of_each_voxel(shares, grid.shape))


def most_of_each_voxel(shares: Iterable[tuple[int, np.ndarray]], shape: tuple[int, ...]) -> np.ndarray:
    """Return the class of every voxel (uint8), see `labels_on_grid`.

    Args:
        shares: Number of each class but the background, and its share of each voxel.
        shape: Shape of the shares.
    """
    together, largest = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
    winner = np.zeros(shape, dtype=np.uint8)
    for value, share in shares:
        together += share
        winner[share > largest] = value
        np.maximum(largest, share, out=largest)
    winner[together <= 0.5] = 0
    return winner
