"""The change between two visits with its confidence interval."""

from __future__ import annotations

from math import nan

import numpy as np

from .grid import Grid
from .inputs import Settings
from .resampling import FEWEST_BLOCKS
from .results.change import Change
from .results.regions import Region
from .results.statistics import Statistics
from .results.visit import Visit
from .sampling import linear
from .statistics import Sample, weighted_mean

VOLUME = "volume"
FEWEST_VOXELS = 10
LEAST_COVERAGE = 0.5
"""A change is marked as not enough where a visit has fewer voxels or shows less of the region."""


def alignment_se(array: np.ndarray, weights: np.ndarray, shifts_ijk: np.ndarray) -> float:
    """Return how much the mean of a region varies when its alignment is disturbed.

    Args:
        array: Map (K, J, I).
        weights: Partial volumes of the region (K, J, I).
        shifts_ijk: Disturbances (n, 3) in voxels, in the order (i, j, k).

    Returns:
        Standard deviation of the mean over the disturbances; NaN where the region has no voxel with a value.
    """
    means = []
    places = np.argwhere(weights > 0)
    if len(places) == 0 or len(shifts_ijk) < 2:
        return nan
    margin = np.ceil(np.abs(shifts_ijk).max(0)).astype(int)[::-1] + 1
    low = np.maximum(places.min(0) - margin, 0)
    high = np.minimum(places.max(0) + margin + 1, weights.shape)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    near, values = weights[box], array[box]
    k, j, i = np.meshgrid(*(np.arange(n, dtype=np.float64) for n in near.shape), indexing="ij")
    index = np.stack([i.ravel(), j.ravel(), k.ravel()], axis=1)
    # A slab shows nothing of what lies beyond it: its outermost slices are continued.
    limits = np.array(near.shape[::-1]) - 1
    for shift in shifts_ijk:
        moved = linear(near, np.clip(index + shift, 0, limits)).reshape(near.shape)
        sample = Sample.of(values, moved)
        if len(sample):
            means.append(weighted_mean(sample.values, sample.weights))
    return float(np.std(means, ddof=1)) if len(means) > 1 else nan


def disturbances(spacing_mm: np.ndarray, settings: Settings) -> np.ndarray:
    """Draw disturbances of an alignment, shape (perturbation, 3), in voxels in the order (i, j, k)."""
    rng = np.random.default_rng(settings.seed)
    drawn = rng.standard_normal((settings.perturbations, 3))
    return drawn * settings.alignment_error_mm / spacing_mm


def changes_between(first: Visit, second: Visit, settings: Settings) -> tuple[Change, ...]:
    """Return the change of every mean and of every volume that both visits have.

    The interval is that of Student's t with the degrees of freedom of Welch and Satterthwaite, from the number of
    blocks of the bootstrap. Its standard error combines the spatial error, to which the noise of the fits contributes
    voxel by voxel, with the error of the alignment, of both visits. In regions of few blocks the spatial error is at
    least that of the fits.

    The standard error of a volume is the area of its surface times the error of its outline, see
    :func:`volume_error_ml`. Each volume is measured in the space of its own visit, so that no registration enters.

    Args:
        first: The first visit.
        second: The second visit.
        settings: Level of the intervals, and the error of the outlines.
    """
    rows = []
    for row in first.statistics:
        other = second.row(row.region, row.quantity)
        if other is not None:
            rows.append(_change(row, other, settings.level))
    for region in first.regions:
        later = second.region(region.name)
        if region.kind == "tumor" and later is not None:
            errors = [
                nan if visit.mask_grid is None else volume_error_ml(each.mask, visit.mask_grid, settings)
                for visit, each in ((first, region), (second, later))
            ]
            rows.append(_volume_change(region, later, float(np.hypot(errors[0], errors[1])), settings.level))
    return tuple(rows)


def _change(first: Statistics, second: Statistics, level: float) -> Change:
    both = (first, second)
    squares = [_random_error(row) ** 2 for row in both]
    spatial = float(np.sqrt(sum(squares)))
    alignment = _together([row.mean_se_alignment for row in both])
    se = float(np.hypot(spatial, np.nan_to_num(alignment)))
    freedom = [max(row.blocks - 1, 1) for row in both]
    parts = sum(square**2 / each for square, each in zip(squares, freedom, strict=True))
    combined = se**4 / parts if parts > 0 else np.inf
    reach = student_quantile(0.5 + level / 2, float(combined)) * se if np.isfinite(combined) else nan
    change = second.mean - first.mean
    return Change(
        first.region,
        first.quantity,
        first.unit,
        first.mean,
        second.mean,
        change,
        100 * change / first.mean if first.mean > 0 else nan,
        change - reach,
        change + reach,
        level,
        se,
        _together([row.mean_se_fit for row in both]),
        _together([row.mean_se for row in both]),
        alignment,
        all(row.n >= FEWEST_VOXELS and row.coverage >= LEAST_COVERAGE for row in both),
        *_pure_change(first, second, level),
    )


def _pure_change(first: Statistics, second: Statistics, level: float) -> tuple[float, float, float]:
    """Change of the value of pure tissue, with its interval; many blocks stand behind each error.

    The error of the fit's solution is nearly the same at both visits and leaves their difference.
    """
    change = second.pure - first.pure
    reach = student_quantile(0.5 + level / 2, 1e5) * float(np.hypot(first.pure_random_se, second.pure_random_se))
    return change, change - reach, change + reach


def _random_error(row: Statistics) -> float:
    """Error of a mean from noise: what the voxels show; with few blocks at least that of the fits."""
    if row.blocks >= FEWEST_BLOCKS:
        return row.mean_se
    return float(np.fmax(row.mean_se, row.mean_se_fit))


def _together(errors: list[float]) -> float:
    return float(np.sqrt(np.square(errors).sum())) if np.isfinite(errors).any() and np.isfinite(errors).all() else nan


def volume_error_ml(mask: np.ndarray, grid: Grid, settings: Settings) -> float:
    """Return the standard error of a region's volume that an outline too far outside or inside causes, in ml.

    To first order the volume changes by the area of the surface times the shift of the outline. The area comes from the
    faces between voxels inside and outside of the region: seen along the three axes, a surface of all directions shows
    on average 3/2 of its area (Cauchy-Crofton).

    Args:
        mask: The region, bool (K, J, I).
        grid: Its voxel grid.
        settings: Error of the outline.
    """
    faces_mm2 = grid.voxel_ml * 1000 / grid.spacing_mm[::-1]
    seen_mm2 = sum(
        float(np.count_nonzero(np.diff(np.pad(mask, [(int(n == axis),) * 2 for n in range(3)]), axis=axis))) * area
        for axis, area in enumerate(faces_mm2)
    )
    return 2 / 3 * float(seen_mm2) * settings.segmentation_error_mm / 1000


def _volume_change(first: Region, second: Region, se: float, level: float) -> Change:
    change = second.volume_ml - first.volume_ml
    percent = 100 * change / first.volume_ml if first.volume_ml > 0 else nan
    reach = student_quantile(0.5 + level / 2, 1e5) * se
    volumes = (first.volume_ml, second.volume_ml, change, percent, change - reach, change + reach)
    enough = not (first.at_least or second.at_least)
    return Change(first.name, VOLUME, "ml", *volumes, level, se, nan, nan, nan, enough)


def student_quantile(probability: float, freedom: float) -> float:
    """Return a quantile of Student's t distribution by inverting its integral.

    Args:
        probability: Between 0.5 and 1.
        freedom: Degrees of freedom, at least 1.
    """
    # With x = tan(a) √freedom the density becomes cos(a)^(freedom - 1), which is smooth on a finite range.
    angles = (np.arange(20_000) + 0.5) * (np.pi / 2) / 20_000
    freedom = min(max(freedom, 1.0), 1e5)
    density = np.cos(angles) ** (freedom - 1)
    below = np.cumsum(density) / density.sum()
    angle = float(np.interp(2 * probability - 1, below, angles + (angles[1] - angles[0]) / 2))
    return float(np.tan(angle) * np.sqrt(freedom))
