"""The values of one map over one region: the row of the table, and the histogram."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np


@dataclass(frozen=True)
class Statistics:
    """One map over one region at one visit: a row of ``compartments.csv``.

    All moments and quantiles weight each voxel by its partial volume. ``mean_se`` is from a block bootstrap and so
    allows for neighbouring voxels that are not independent.

    Attributes:
        visit: Name of the visit.
        region: Name of the region.
        quantity: Name of the map.
        unit: Unit of the map; empty for dimensionless quantities.
        n: Number of voxels with a value of which at least half lies in the region; these count.
        coverage: Share of the region, 0 to 1, that lies in voxels of the slab with a value of this map.
        mean: Mean.
        sd: Standard deviation.
        median: Median.
        q1: Lower quartile.
        q3: Upper quartile.
        fit: Quantity from the fit of the region's mean spectrum; NaN without one.
        fit_se: Its standard error.
        n_effective: Number of independent voxels that the mean is as certain as: ``(sd / mean_se)²``, at most n.
        p10: 10th percentile.
        p90: 90th percentile.
        mean_se: Standard error of the mean.
        variance_weighted_mean: Mean weighted by partial volume over the squared standard error of each voxel's fit; NaN
            without a map of standard errors.
        reliability_weighted_mean: Mean weighted by partial volume times reliability (the map ``reliable`` of a network;
            else ``1 / (1 + (rmse / median rmse)²)`` of a fit); NaN without either.
        ratio: Mean over the mean of the contralateral region; NaN without one.
        difference: Mean minus the mean of the contralateral region.
        difference_se: Standard error of the difference.
        mean_se_fit: Standard error of the mean that the errors of the fits alone would cause.
        mean_se_alignment: Standard deviation of the mean when the alignment of CEST and anatomy is disturbed.
        blocks: Number of blocks of the bootstrap, from which ``mean_se`` comes.
        pure: Value of a voxel that is full of the compartment, freed from its neighbours in mixed voxels; NaN for other
            regions and where the voxels do not determine it.
        pure_se: Its standard error, with those of the alignment and of the fit's solution.
        engine_error: How far the quantity is off in this region, at most, because the fit solves the Bloch-McConnell
            equations approximately; NaN where the fit of the mean spectrum does not tell.
    """

    visit: str
    region: str
    quantity: str
    unit: str
    n: int
    coverage: float
    mean: float = nan
    sd: float = nan
    median: float = nan
    q1: float = nan
    q3: float = nan
    fit: float = nan
    fit_se: float = nan
    n_effective: float = nan
    p10: float = nan
    p90: float = nan
    mean_se: float = nan
    variance_weighted_mean: float = nan
    reliability_weighted_mean: float = nan
    ratio: float = nan
    difference: float = nan
    difference_se: float = nan
    mean_se_fit: float = nan
    mean_se_alignment: float = nan
    blocks: int = 0
    pure: float = nan
    pure_se: float = nan
    engine_error: float = nan

    @property
    def pure_random_se(self) -> float:
        """Standard error of ``pure`` without the error of the fit's solution, which the visits share."""
        known = float(np.nan_to_num(self.engine_error))
        return float(np.sqrt(max(self.pure_se**2 - known**2, 0.0))) if np.isfinite(self.pure_se) else nan


@dataclass(frozen=True)
class Distribution:
    """Histogram and box plot of one map over one region, both weighted by partial volume.

    Attributes:
        region: Name of the region.
        quantity: Name of the map.
        edges: Edges of the bins, shape (bin + 1,); the same for all regions and visits of a quantity.
        share: Share of the region's volume in each bin, shape (bin,), sum 1.
        whiskers: 5th percentile, lower quartile, median, upper quartile and 95th percentile.
    """

    region: str
    quantity: str
    edges: np.ndarray
    share: np.ndarray
    whiskers: tuple[float, float, float, float, float]
