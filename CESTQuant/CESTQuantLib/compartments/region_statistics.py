"""Statistics of the maps of a visit over its regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import nan

import numpy as np

from .anatomy.segment_names import COMPARTMENTS
from .change import alignment_se, disturbances
from .inputs import CestMaps, Settings
from .resampling import mean_error
from .results.regions import CONTRALATERAL, Region
from .results.spectrum import RegionSpectrum
from .results.statistics import Statistics
from .statistics import Sample, weighted_mean, weighted_quantiles, weighted_sd
from .unmixing import Mixture


def quantities_of(maps: Mapping[str, np.ndarray]) -> list[str]:
    """Return the names of the maps that get a row: all but the standard errors and the status."""
    return [name for name in maps if not name.endswith("_sd") and name != "status"]


def statistics_of(
    visit: str, cest: CestMaps, regions: Sequence[Region], spectra: Sequence[RegionSpectrum], settings: Settings
) -> tuple[Statistics, ...]:
    """Return the statistics of every map over every region, with the fits and in relation to the contralateral one."""
    fits = {spectrum.region: spectrum.values for spectrum in spectra}
    engine = {spectrum.region: spectrum.engine_errors for spectrum in spectra}
    rows = [
        replace(row, fit=fitted[0], fit_se=fitted[1], engine_error=engine.get(region.name, {}).get(quantity, nan))
        for region in regions
        for quantity in quantities_of(cest.maps)
        for row in [_row(visit, cest, region, quantity, settings)]
        for fitted in [fits.get(region.name, {}).get(quantity, (nan, nan))]
    ]
    rows = _with_pure_values(rows, cest, regions, settings)
    reference = {row.quantity: row for row in rows if row.region == CONTRALATERAL}
    return tuple(_in_relation(row, reference[row.quantity]) if row.quantity in reference else row for row in rows)


def _with_pure_values(
    rows: Sequence[Statistics], cest: CestMaps, regions: Sequence[Region], settings: Settings
) -> list[Statistics]:
    """Add the values of pure tissue to the rows of the compartments."""
    shares = {region.name: region.weights for region in regions if region.name in COMPARTMENTS}
    mixture = Mixture(shares, disturbances(cest.grid.spacing_mm, settings))
    found = {quantity: mixture.pure_values(cest.maps[quantity]) for quantity in quantities_of(cest.maps)}
    return [
        replace(row, pure=pure.value, pure_se=float(np.hypot(pure.se, np.nan_to_num(row.engine_error))))
        if (pure := found[row.quantity].get(row.region))
        else row
        for row in rows
    ]


def _in_relation(row: Statistics, reference: Statistics) -> Statistics:
    """Add ratio and difference to the reference region."""
    difference_se = float(np.hypot(row.mean_se, reference.mean_se)) if row.region != reference.region else 0.0
    ratio = row.mean / reference.mean if reference.mean > 0 else nan
    return replace(row, ratio=ratio, difference=row.mean - reference.mean, difference_se=difference_se)


def _row(visit: str, cest: CestMaps, region: Region, quantity: str, settings: Settings) -> Statistics:
    array = cest.maps[quantity]
    sample = Sample.of(array, region.weights)
    valued = float(region.weights[np.isfinite(array)].sum()) * cest.grid.voxel_ml
    coverage = min(valued / region.volume_ml, 1.0) if region.volume_ml > 0 else nan
    unit = cest.units.get(quantity, "")
    if len(sample) == 0:
        return Statistics(visit, region.name, quantity, unit, 0, coverage)
    values, weights = sample.values, sample.weights
    errors = cest.maps.get(f"{quantity}_sd")
    error = mean_error(sample, voxel_sd=errors, draws=settings.draws, seed=settings.seed)
    mean, sd = weighted_mean(values, weights), weighted_sd(values, weights)
    p10, q1, median, q3, p90 = weighted_quantiles(values, weights, (0.1, 0.25, 0.5, 0.75, 0.9))
    return Statistics(
        visit,
        region.name,
        quantity,
        unit,
        len(sample),
        coverage,
        mean,
        sd,
        median,
        q1,
        q3,
        p10=p10,
        p90=p90,
        mean_se=error.se,
        n_effective=min((sd / error.se) ** 2, len(sample)) if error.se > 0 else float(len(sample)),
        variance_weighted_mean=_variance_weighted(sample, errors),
        reliability_weighted_mean=_reliability_weighted(sample, reliability_of(cest.maps)),
        mean_se_fit=error.fit_se,
        mean_se_alignment=alignment_se(array, region.weights, disturbances(cest.grid.spacing_mm, settings)),
        blocks=error.blocks,
    )


def _variance_weighted(sample: Sample, errors: np.ndarray | None) -> float:
    if errors is None:
        return nan
    each = errors[tuple(sample.index.T)]
    known = np.isfinite(each) & (each > 0)
    return weighted_mean(sample.values[known], sample.weights[known] / np.square(each[known].astype(np.float64)))


def _reliability_weighted(sample: Sample, reliability: np.ndarray | None) -> float:
    if reliability is None:
        return nan
    return weighted_mean(sample.values, sample.weights * np.nan_to_num(reliability[tuple(sample.index.T)]))


def reliability_of(maps: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Return a map of 0 to 1 that says how far each voxel can be trusted; None where the maps do not say.

    It is the map ``reliable`` of a network, else ``1 / (1 + (rmse / median rmse)²)`` of a fit.
    """
    if "reliable" in maps:
        return maps["reliable"]
    rmse = maps.get("rmse")
    if rmse is None or not np.isfinite(rmse).any() or not np.nanmedian(rmse) > 0:
        return None
    return 1 / (1 + np.square(rmse / np.nanmedian(rmse)))
