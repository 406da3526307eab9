"""Intensity normalisation of one volume."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

NORMALISATIONS = ("zscore", "percentile", "histogram", "zscore_crop")
ZSCORE_RANGE = (-3.0, 6.0)
LANDMARK_PERCENTILES = (1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 99)
"""Percentiles of the brain that 'histogram' moves to their standard positions (Nyul and Udupa 1999)."""
_REMEDY = "check the brain mask, choose another image or leave it out"
_STANDARD = tuple(NormalDist().inv_cdf(p / 100) for p in LANDMARK_PERCENTILES)


def background_value(method: str) -> float:
    """Value of voxels outside of the brain after a normalisation, and of an absent modality."""
    return {"zscore": ZSCORE_RANGE[0], "histogram": ZSCORE_RANGE[0], "percentile": 0.0, "zscore_crop": 0.0}[method]


def normalise(
    values: np.ndarray,
    mask: np.ndarray,
    method: str = "zscore",
    landmarks: tuple[float, ...] | None = None,
    title: str = "the image",
) -> np.ndarray:
    """Normalised values, float32, of the same shape.

    'zscore': zero mean and unit variance in the mask, clipped to [-3, 6], -3 outside. 'percentile': the 1st and 99th
    percentile of the mask become 0 and 1, clipped, 0 outside. 'histogram': percentiles of the mask move to
    ``landmarks`` (default: those of a normal distribution), linear in between, clipped and outside as for 'zscore'.
    'zscore_crop': zero mean and unit variance over the whole array with zeros outside of the mask, as Estienne et al.
    2020 did it, not clipped.

    Raises ValueError, naming ``title``, where the values in the mask do not vary.
    """
    inside = values[mask]
    if inside.size == 0 or not float(np.ptp(inside)) > 0:
        raise ValueError(f"{title} is constant inside of the brain: {_REMEDY}")
    low, high = ZSCORE_RANGE
    if method == "zscore":
        mean, sd = float(inside.mean(dtype=np.float64)), float(inside.std(dtype=np.float64))
        return _outside(np.clip((values - mean) / sd, low, high), mask, low)
    if method == "percentile":
        first, last = np.percentile(inside, (1, 99))
        if not last > first:
            raise ValueError(f"{title} hardly varies inside of the brain: {_REMEDY}")
        return _outside(np.clip((values - first) / (last - first), 0, 1), mask, 0.0)
    if method == "histogram":
        at, to = histogram_positions(inside), np.array(_STANDARD if landmarks is None else landmarks)
        return _outside(np.clip(_piecewise(values, at, to), low, high), mask, low)
    if method == "zscore_crop":
        crop = np.where(mask, values, 0).astype(np.float64)
        return ((crop - crop.mean()) / crop.std()).astype(np.float32)
    raise ValueError(f"normalisation '{method}' is unknown: use {', '.join(NORMALISATIONS)}")


def histogram_positions(inside: np.ndarray) -> np.ndarray:
    """Intensities at the landmark percentiles, made strictly increasing."""
    positions = np.percentile(inside, LANDMARK_PERCENTILES)
    smallest = 1e-6 * max(float(np.ptp(positions)), 1e-6)
    return np.maximum.accumulate(positions + smallest * np.arange(len(positions)))


def histogram_landmarks(volumes: list[np.ndarray]) -> tuple[float, ...]:
    """Standard positions of the landmarks learned from brains: mean over volumes, each z-scored first.

    volumes: one array of brain intensities each.
    """
    found = [histogram_positions((v - v.mean()) / v.std()) for v in volumes]
    return tuple(float(x) for x in np.mean(found, axis=0))


def _piecewise(values: np.ndarray, at: np.ndarray, to: np.ndarray) -> np.ndarray:
    """Linear between the landmarks; beyond them with the slope of the outermost pieces."""
    result = np.interp(values, at, to)
    for beyond, a, b in ((values < at[0], 0, 1), (values > at[-1], -2, -1)):
        slope = (to[b] - to[a]) / (at[b] - at[a])
        edge = a if a == 0 else b
        result[beyond] = to[edge] + slope * (values[beyond] - at[edge])
    return result


def _outside(values: np.ndarray, mask: np.ndarray, background: float) -> np.ndarray:
    return np.where(mask, values, background).astype(np.float32)
