"""The change of a region's mean between two visits."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan


@dataclass(frozen=True)
class Change:
    """Change of a region's mean between the visits: a row of ``changes.csv``.

    The interval of a volume comes from the error of the outlines alone, see ``Settings.segmentation_error_mm``; the
    parts of its standard error are NaN.

    Attributes:
        region: Name of the region.
        quantity: Name of the map, or ``volume``.
        unit: Unit.
        first: Value at the first visit.
        second: Value at the second visit.
        change: Second minus first.
        percent: Change in percent of the first value; NaN where that is not positive.
        lower: Lower limit of the confidence interval of the change.
        upper: Upper limit.
        level: Level of the interval, such as 0.95.
        se: Standard error of the change.
        se_fit: Part of it from the errors of the fits.
        se_spatial: Part of it from the voxels drawn, with their spatial correlation (block bootstrap); it contains what
            the errors of the fits contribute voxel by voxel.
        se_registration: Part of it from the errors of the alignment (perturbation).
        enough: Whether both visits show enough of the region for the interval to hold.
        pure_change: Change of the value of pure tissue, second minus first; NaN where one is not known.
        pure_lower: Lower limit of its confidence interval.
        pure_upper: Upper limit.
    """

    region: str
    quantity: str
    unit: str
    first: float
    second: float
    change: float
    percent: float
    lower: float
    upper: float
    level: float
    se: float
    se_fit: float
    se_spatial: float
    se_registration: float
    enough: bool
    pure_change: float = nan
    pure_lower: float = nan
    pure_upper: float = nan
