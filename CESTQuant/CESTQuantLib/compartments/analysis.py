"""The analysis of one visit or two: from maps, segmentation and anatomy to numbers with their errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np

from NeuroCESTLib.core.progress import Progress, part, silent

from .inputs import CestMaps, Settings, VisitInput
from .partial_volumes import partial_volumes
from .region_spectra import region_spectrum
from .regions import RegionMasks, regions_of
from .resampling import mean_error
from .results import CONTRALATERAL, NAN, Analysis, Region, RegionSpectrum, Statistics, Visit
from .statistics import Sample, weighted_mean, weighted_quantiles, weighted_sd

if TYPE_CHECKING:
    import SimpleITK as sitk


def analyze(
    first: VisitInput,
    second: VisitInput | None = None,
    settings: Settings | None = None,
    between: sitk.Transform | None = None,
    progress: Progress = silent,
) -> Analysis:
    """Analyse one visit or two.

    Args:
        first: The earlier visit.
        second: The later visit, or None.
        settings: Settings; by default those of :class:`Settings`.
        between: Map of points of the first visit's anatomy to the second visit's, LPS mm; None if it is unknown.
        progress: Called with the fraction done and a message; may raise to cancel.

    Returns:
        Numbers and images of the visits, and what changed between them.

    Raises:
        ValueError: The inputs of a visit do not belong together; the message names the visit and the remedy.
    """
    chosen = settings or Settings()
    inputs = [first] if second is None else [first, second]
    share = 1 / len(inputs)
    visits = [
        analyze_visit(each, chosen, part(progress, number * share, (number + 1) * share))
        for number, each in enumerate(inputs)
    ]
    return Analysis(tuple(visits), None, asdict(chosen))


def analyze_visit(visit: VisitInput, settings: Settings, progress: Progress = silent) -> Visit:
    """Analyse one visit; see :func:`analyze`."""
    progress(0.0, f"{visit.name}: regions")
    cest_to_anatomy = np.eye(4)
    found = regions_of(visit, settings, cest_to_anatomy)
    cest = visit.cest
    regions = _on_maps(found, cest, cest_to_anatomy)
    if cest is None:
        notes = ("this visit has no CEST maps", *found.notes)
        return Visit(visit.name, None, {}, {}, regions, found.grid, midplane=found.midplane, warnings=notes)
    progress(0.5, f"{visit.name}: spectra")
    spectra = _spectra(cest, regions, settings)
    rows = statistics_of(visit.name, cest, regions, spectra, settings)
    notes = (*found.notes, *cest.notes, *(spectrum.note for spectrum in spectra if spectrum.note))
    return Visit(
        visit.name,
        cest.grid,
        cest.maps,
        cest.units,
        regions,
        found.grid,
        rows,
        spectra=spectra,
        midplane=found.midplane,
        unsaturated=cest.unsaturated,
        warnings=notes,
    )


def _spectra(cest: CestMaps, regions: Sequence[Region], settings: Settings) -> tuple[RegionSpectrum, ...]:
    if cest.acquisition is None or not settings.fit_spectra:
        return ()
    found = [region_spectrum(region, cest.acquisition) for region in regions]
    return tuple(spectrum for spectrum in found if spectrum is not None)


def _on_maps(found: RegionMasks, cest: CestMaps | None, cest_to_anatomy: np.ndarray) -> tuple[Region, ...]:
    """Bring regions to the grid of the maps as partial volumes."""
    if found.grid is None:
        return ()
    shares = {region.name: np.zeros((0, 0, 0), np.float32) for region in found.regions}
    if cest is not None:
        shares = partial_volumes({r.name: r.mask for r in found.regions}, found.grid, cest.grid, cest_to_anatomy)
    voxel = 0.0 if cest is None else cest.grid.voxel_ml
    return tuple(
        Region(
            region.name,
            region.kind,
            shares[region.name],
            region.mask,
            float(region.mask.sum()) * found.grid.voxel_ml,
            float(shares[region.name].sum()) * voxel,
            region.color,
        )
        for region in found.regions
    )


def quantities_of(cest: CestMaps) -> list[str]:
    """Return the names of the maps that get a row: all but the standard errors and the status."""
    return [name for name in cest.maps if not name.endswith("_sd") and name != "status"]


def statistics_of(
    visit: str, cest: CestMaps, regions: Sequence[Region], spectra: Sequence[RegionSpectrum], settings: Settings
) -> tuple[Statistics, ...]:
    """Return the statistics of every map over every region, with the fits and in relation to the contralateral one."""
    fits = {spectrum.region: spectrum.values for spectrum in spectra}
    rows = [
        replace(row, fit=fitted[0], fit_se=fitted[1])
        for region in regions
        for quantity in quantities_of(cest)
        for row in [_row(visit, cest, region, quantity, settings)]
        for fitted in [fits.get(region.name, {}).get(quantity, (NAN, NAN))]
    ]
    reference = {row.quantity: row for row in rows if row.region == CONTRALATERAL}
    return tuple(_in_relation(row, reference[row.quantity]) if row.quantity in reference else row for row in rows)


def _in_relation(row: Statistics, reference: Statistics) -> Statistics:
    """Add ratio and difference to the reference region."""
    difference_se = float(np.hypot(row.mean_se, reference.mean_se)) if row.region != reference.region else 0.0
    ratio = row.mean / reference.mean if reference.mean > 0 else NAN
    return replace(row, ratio=ratio, difference=row.mean - reference.mean, difference_se=difference_se)


def _row(visit: str, cest: CestMaps, region: Region, quantity: str, settings: Settings) -> Statistics:
    array = cest.maps[quantity]
    sample = Sample.of(array, region.weights)
    valued = float(region.weights[np.isfinite(array)].sum()) * cest.grid.voxel_ml
    coverage = min(valued / region.volume_ml, 1.0) if region.volume_ml > 0 else NAN
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
    )


def _variance_weighted(sample: Sample, errors: np.ndarray | None) -> float:
    if errors is None:
        return NAN
    each = errors[tuple(sample.index.T)]
    known = np.isfinite(each) & (each > 0)
    return weighted_mean(sample.values[known], sample.weights[known] / np.square(each[known].astype(np.float64)))


def _reliability_weighted(sample: Sample, reliability: np.ndarray | None) -> float:
    if reliability is None:
        return NAN
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
