"""Statistics of maps over regions, weighted by partial volume."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np

from .results.statistics import Distribution

LEAST_SHARE = 0.5
"""Smallest partial volume with which a voxel counts; below, it shows mostly other tissue."""
HISTOGRAM_BINS = 30
_WHISKERS = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Sample:
    """Values of a map in a region, with their weights.

    Attributes:
        values: Values, shape (n,), finite.
        weights: Partial volumes, shape (n,), at least ``LEAST_SHARE``.
        index: Position (k, j, i) of each voxel, shape (n, 3).
    """

    values: np.ndarray
    weights: np.ndarray
    index: np.ndarray

    @classmethod
    def of(cls, array: np.ndarray, weights: np.ndarray, least_share: float = LEAST_SHARE) -> Sample:
        """Take the voxels with a value of which at least ``least_share`` lies in the region.

        Args:
            array: Map (K, J, I).
            weights: Partial volumes (K, J, I).
            least_share: Smallest partial volume that counts.
        """
        index = np.argwhere(np.isfinite(array) & (weights >= least_share))
        where = tuple(index.T)
        return cls(array[where].astype(np.float64), weights[where].astype(np.float64), index)

    def __len__(self) -> int:
        return len(self.values)


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> float:
    """Return the mean; NaN where the weights sum to nothing."""
    total = float(weights.sum())
    return float((values * weights).sum() / total) if total > 0 else nan


def weighted_sd(values: np.ndarray, weights: np.ndarray) -> float:
    """Return the standard deviation for weights that say how much each value counts; 0 for a single value.

    It is the unbiased ``Σ w (v - m)² / (Σw - Σw² / Σw)``, which is the usual one where all weights are equal.
    """
    total = float(weights.sum())
    if total <= 0:
        return nan
    freedom = total - float(np.square(weights).sum()) / total
    squares = float((weights * np.square(values - weighted_mean(values, weights))).sum())
    return float(np.sqrt(squares / freedom)) if len(values) > 1 and freedom > 0 else 0.0


def weighted_quantiles(values: np.ndarray, weights: np.ndarray, probabilities: tuple[float, ...]) -> list[float]:
    """Return quantiles of a weighted sample, interpolated linearly; with equal weights those of ``numpy.quantile``.

    Args:
        values: Values, shape (n,).
        weights: Positive weights, shape (n,).
        probabilities: Wanted probabilities, 0 to 1.
    """
    if len(values) == 0:
        return [nan] * len(probabilities)
    order = np.argsort(values, kind="stable")
    sorted_weights = weights[order]
    middles = np.cumsum(sorted_weights) - sorted_weights / 2
    span = middles[-1] - middles[0]
    positions = (middles - middles[0]) / span if span > 0 else np.zeros(len(values))
    return [float(value) for value in np.interp(probabilities, positions, values[order])]


def distribution(sample: Sample, region: str, quantity: str, edges: np.ndarray) -> Distribution:
    """Return histogram and box plot of a sample.

    Args:
        sample: Values of the region.
        region: Name of the region.
        quantity: Name of the map.
        edges: Edges of the bins; values beyond count in the outermost bins.
    """
    clipped = np.clip(sample.values, edges[0], edges[-1])
    counts, _ = np.histogram(clipped, edges, weights=sample.weights)
    total = counts.sum()
    low, q1, median, q3, high = weighted_quantiles(sample.values, sample.weights, _WHISKERS)
    return Distribution(region, quantity, edges, counts / total if total > 0 else counts, (low, q1, median, q3, high))


def common_edges(arrays: list[np.ndarray]) -> np.ndarray:
    """Return the edges of a histogram that holds the values of several maps but for their most extreme half percent.

    Args:
        arrays: Values of any shape; NaN does not count.
    """
    values = np.concatenate([array[np.isfinite(array)].ravel() for array in arrays]) if arrays else np.empty(0)
    low, high = np.quantile(values, [0.005, 0.995]) if values.size else (0.0, 1.0)
    if high <= low:
        high = low + max(abs(low), 1.0) * 1e-3
    return np.linspace(low, high, HISTOGRAM_BINS + 1)
