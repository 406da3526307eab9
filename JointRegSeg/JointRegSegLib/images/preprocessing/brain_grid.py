"""The working grid around the brains of one or more visits."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from ..grid import LARGEST_GRID, WorkingGrid, grid_around, mask_corners
from .config import PreprocessingConfig

_SPARED_MM, _LEAST_MARGIN_MM = 4.0, 2.0
"""By how much the margin may be less, and the least margin, where sizes are rounded up to multiples."""


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
