"""Two registered images in one: as a checkerboard, and their difference."""

from __future__ import annotations

import numpy as np

PERCENTILES = (1.0, 99.5)
"""Percentiles of an image for its scale; visits are acquired with different gains."""


def normalized(image: np.ndarray) -> np.ndarray:
    """Return an image on a common scale, so that images of different gain can be compared.

    Args:
        image: Values of any shape; the percentiles are those of the finite values that are not 0.

    Returns:
        Values of the same shape, float32, in which the upper percentile is 1. 0 stays 0, as in the background of
        magnitude images, unless the lower percentile is negative, which then is 0. NaN stays NaN.
    """
    array = np.asarray(image, dtype=np.float32)
    values = array[np.isfinite(array) & (array != 0)]
    if values.size == 0:
        return array
    low, high = (float(value) for value in np.percentile(values, PERCENTILES))
    low = min(low, 0.0)
    return (array - low) / max(high - low, 1e-12)


def checkerboard(fixed: np.ndarray, warped: np.ndarray, tile: tuple[int, int, int]) -> np.ndarray:
    """Return blocks of two images in turn, both on a common scale.

    Args:
        fixed: Image (K, J, I).
        warped: Image (K, J, I) on the same grid.
        tile: Size of a block in voxels, along (K, J, I).

    Returns:
        Image (K, J, I), float32.

    Raises:
        ValueError: The images have different shapes.
    """
    _require_same_shape(fixed, warped)
    blocks = np.indices(fixed.shape, sparse=True)
    k, j, i = (index // max(size, 1) for index, size in zip(blocks, tile, strict=True))
    return np.where((k + j + i) % 2 == 1, normalized(warped), normalized(fixed))


def difference(fixed: np.ndarray, warped: np.ndarray) -> np.ndarray:
    """Return the warped minus the fixed image, both on a common scale.

    Args:
        fixed: Image (K, J, I).
        warped: Image (K, J, I) on the same grid.

    Raises:
        ValueError: The images have different shapes.
    """
    _require_same_shape(fixed, warped)
    return normalized(warped) - normalized(fixed)


def _require_same_shape(fixed: np.ndarray, warped: np.ndarray) -> None:
    if fixed.shape != warped.shape:
        raise ValueError(f"the images have different shapes, {fixed.shape} and {warped.shape}")
