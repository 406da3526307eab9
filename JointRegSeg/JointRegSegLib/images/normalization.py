"""Intensity normalisation of one volume."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from torch import Tensor

NORMALIZATIONS = ("zscore", "percentile", "histogram", "zscore_crop")
ZSCORE_RANGE = (-3.0, 6.0)
LANDMARK_PERCENTILES = (1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 99)
"""Percentiles of the brain that 'histogram' maps to their standard positions (Nyul and Udupa 1999)."""
_MAD_TO_SD = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""
_LEAST_DEVIATION = 1e-3
_REMEDY = "check the brain mask, choose another image or leave it out"
_STANDARD = tuple(NormalDist().inv_cdf(p / 100) for p in LANDMARK_PERCENTILES)


def robust_center_and_deviation(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the median of values and their robust standard deviation, from the median absolute deviation.

    Vessels, or skull that was left over, do not change these as they would mean and standard deviation.

    Args:
        values: At least one value, of any shape and unit.

    Returns:
        Two scalars in the unit of the values; the deviation is at least 0.001.
    """
    center = values.median()
    return center, (_MAD_TO_SD * (values - center).abs().median()).clamp_min(_LEAST_DEVIATION)


def background_value(method: str) -> float:
    """Return the value of voxels outside of the brain and of absent modalities after a normalisation.

    Raises:
        ValueError: The method is unknown; the message lists the known ones.
    """
    check_normalization(method)
    return {"zscore": ZSCORE_RANGE[0], "histogram": ZSCORE_RANGE[0], "percentile": 0.0, "zscore_crop": 0.0}[method]


def check_normalization(method: str) -> None:
    """Check the name of a normalisation.

    Raises:
        ValueError: The method is unknown; the message lists the known ones.
    """
    if method not in NORMALIZATIONS:
        raise ValueError(f"normalisation '{method}' is unknown; use one of {', '.join(NORMALIZATIONS)}")


def normalize(
    values: np.ndarray,
    mask: np.ndarray,
    method: str = "zscore",
    landmarks: tuple[float, ...] | None = None,
    title: str = "the image",
) -> np.ndarray:
    """Normalise the intensities of one volume.

    Args:
        values: Intensities (D, H, W).
        mask: Brain (D, H, W), boolean.
        method: One of the following.
            'zscore': zero mean and unit variance in the mask, clipped to [-3, 6]; -3 outside.
            'percentile': the 1st and 99th percentile of the mask become 0 and 1, clipped; 0 outside.
            'histogram': percentiles of the mask are mapped to ``landmarks``, linearly in between; clipped, and outside
            of the mask, as for 'zscore'.
            'zscore_crop': zero mean and unit variance over the whole array with zeros outside of the mask, not clipped,
            as in Estienne et al. 2020.
        landmarks: Standard positions of `LANDMARK_PERCENTILES`; None for those of a normal distribution.
        title: Name of the image in messages.

    Returns:
        Normalised values (D, H, W), float32.

    Raises:
        ValueError: The intensities in the mask do not vary, or the method is unknown.
    """
    check_normalization(method)
    inside = values[mask]
    if inside.size == 0 or not float(np.ptp(inside)) > 0:
        raise ValueError(f"{title} is constant inside the brain: {_REMEDY}")
    low, high = ZSCORE_RANGE
    if method == "zscore":
        mean, sd = float(inside.mean(dtype=np.float64)), float(inside.std(dtype=np.float64))
        return _outside(np.clip((values - mean) / sd, low, high), mask, low)
    if method == "percentile":
        first, last = np.percentile(inside, (1, 99))
        if not last > first:
            raise ValueError(f"{title} hardly varies inside the brain: {_REMEDY}")
        return _outside(np.clip((values - first) / (last - first), 0, 1), mask, 0.0)
    if method == "histogram":
        positions, standard = histogram_positions(inside), np.array(_STANDARD if landmarks is None else landmarks)
        return _outside(np.clip(_piecewise(values, positions, standard), low, high), mask, low)
    crop = np.where(mask, values, 0).astype(np.float64)
    return ((crop - crop.mean()) / crop.std()).astype(np.float32)


def histogram_positions(inside: np.ndarray) -> np.ndarray:
    """Return the intensities at the landmark percentiles of values (n,), made strictly increasing."""
    positions = np.percentile(inside, LANDMARK_PERCENTILES)
    smallest = 1e-6 * max(float(np.ptp(positions)), 1e-6)
    return np.maximum.accumulate(positions + smallest * np.arange(len(positions)))


def histogram_landmarks(volumes: list[np.ndarray]) -> tuple[float, ...]:
    """Learn the standard positions of the landmarks as the mean over z-scored brains.

    Args:
        volumes: Intensities (n,) in the brain of each volume.

    Returns:
        One position for each of `LANDMARK_PERCENTILES`.
    """
    found = [histogram_positions((v - v.mean()) / v.std()) for v in volumes]
    return tuple(float(x) for x in np.mean(found, axis=0))


def _piecewise(values: np.ndarray, positions: np.ndarray, standard: np.ndarray) -> np.ndarray:
    """Map intensities linearly between the landmarks, and beyond them with the slope of the outermost pieces."""
    result = np.interp(values, positions, standard)
    for beyond, a, b in ((values < positions[0], 0, 1), (values > positions[-1], -2, -1)):
        slope = (standard[b] - standard[a]) / (positions[b] - positions[a])
        edge = a if a == 0 else b
        result[beyond] = standard[edge] + slope * (values[beyond] - positions[edge])
    return result


def _outside(values: np.ndarray, mask: np.ndarray, background: float) -> np.ndarray:
    return np.where(mask, values, background).astype(np.float32)
