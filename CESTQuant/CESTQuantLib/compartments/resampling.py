"""Standard errors of regional means: block bootstrap for noise and tissue that are correlated in space.

Neighbouring voxels share noise (through interpolation, filters and motion correction) and tissue, so that the mean of n
voxels is less certain than ``SD / √n``. Blocks of neighbours are drawn instead of single voxels (Künsch, Ann Stat
1989;17:1217).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np

from .statistics import Sample, weighted_mean

LARGEST_BLOCK = 5
"""Edge in voxels of the largest block in a plane; larger ones leave too few blocks."""
FEWEST_BLOCKS = 6
"""Blocks that a region needs; smaller blocks are taken where there are fewer."""
FEWEST_PAIRS = 8
_UNCORRELATED = 0.1


@dataclass(frozen=True)
class MeanError:
    """How certain a regional mean is.

    Attributes:
        se: Standard error from the block bootstrap; NaN where the region has fewer than two voxels.
        blocks: Number of blocks, which the degrees of freedom come from.
        fit_se: Standard error that the errors of the fits alone would cause; NaN without them.
    """

    se: float
    blocks: int
    fit_se: float = nan


def mean_error(sample: Sample, *, voxel_sd: np.ndarray | None = None, draws: int = 500, seed: int = 1) -> MeanError:
    """Estimate the standard error of a regional mean.

    Args:
        sample: Values of the region.
        voxel_sd: Map (K, J, I) of the standard errors of the values, or None.
        draws: Number of bootstrap samples.
        seed: Seed of the draws.
    """
    if len(sample) < 2:
        return MeanError(nan, len(sample), _fit_se(sample, voxel_sd, 1.0))
    correlations = correlations_of(sample)
    edge = min(max(1, 2 * len(correlations)), LARGEST_BLOCK)
    labels = blocks_of(sample.index, edge)
    count = int(labels.max()) + 1
    while count < FEWEST_BLOCKS and edge > 1:
        edge -= 1
        labels = blocks_of(sample.index, edge)
        count = int(labels.max()) + 1
    if count < 2:
        return MeanError(nan, count, _fit_se(sample, voxel_sd, 1.0))
    weights = np.bincount(labels, sample.weights, count)
    sums = np.bincount(labels, sample.weights * sample.values, count)
    chosen = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    means = (chosen @ sums) / (chosen @ weights)
    se = float(means.std(ddof=1) * np.sqrt(count / (count - 1))) * _beyond_blocks(correlations, edge)
    return MeanError(se, count, _fit_se(sample, voxel_sd, len(sample) / count))


def correlations_of(sample: Sample) -> list[float]:
    """Return the correlation of voxels 1, 2, … apart along rows and columns, up to where it falls below 0.1."""
    low = sample.index.min(0)
    shape = tuple(sample.index.max(0) - low + 1)
    where = tuple((sample.index - low).T)
    residual = np.full(shape, np.nan)
    residual[where] = sample.values - weighted_mean(sample.values, sample.weights)
    variance = float(np.nanmean(np.square(residual)))
    found: list[float] = []
    while variance > 0 and len(found) < LARGEST_BLOCK - 1:
        lag = len(found) + 1
        products = np.concatenate([_products(residual, axis, lag) for axis in (1, 2)])
        if len(products) < FEWEST_PAIRS or float(products.mean()) / variance < _UNCORRELATED:
            break
        found.append(min(float(products.mean()) / variance, 1.0))
    return found


def _beyond_blocks(correlations: list[float], edge: int) -> float:
    """Factor by which the error grows through the correlation between blocks, which drawing blocks ignores.

    Along an axis the variance of a mean grows by ``1 + 2 Σ ρ(k)``, of which blocks of edge l keep
    ``1 + 2 Σ ρ(k) (1 - k / l)``. Over the two axes of a slice that ratio of variances is squared, so that it is the
    ratio of the standard errors.
    """
    whole = 1 + 2 * sum(correlations)
    kept = 1 + 2 * sum(rho * max(1 - lag / edge, 0.0) for lag, rho in enumerate(correlations, start=1))
    return whole / kept


def _products(residual: np.ndarray, axis: int, lag: int) -> np.ndarray:
    """Products of residuals that lie ``lag`` voxels apart along an axis."""
    size = residual.shape[axis]
    if size <= lag:
        return np.empty(0)
    first, second = residual.take(range(size - lag), axis), residual.take(range(lag, size), axis)
    both = np.isfinite(first) & np.isfinite(second)
    return first[both] * second[both]


def blocks_of(index: np.ndarray, edge: int) -> np.ndarray:
    """Return the number, from 0, of the block of each voxel; a block is a square in one slice.

    Args:
        index: Position (k, j, i) of each voxel, shape (n, 3).
        edge: Edge of the square in voxels.
    """
    coarse = index.copy()
    coarse[:, 1:] //= edge
    return np.unique(coarse, axis=0, return_inverse=True)[1].reshape(-1)


def _fit_se(sample: Sample, voxel_sd: np.ndarray | None, per_block: float) -> float:
    """Standard error of the mean from the errors of the fits, which are taken as equal within a block."""
    if voxel_sd is None or len(sample) == 0:
        return nan
    errors = voxel_sd[tuple(sample.index.T)]
    known = np.isfinite(errors)
    if not known.any():
        return nan
    weights = sample.weights[known]
    independent = float(np.sqrt(np.square(weights * errors[known]).sum()) / weights.sum())
    return independent * float(np.sqrt(max(per_block, 1.0)))
