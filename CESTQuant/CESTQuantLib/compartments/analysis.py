"""The analysis of one visit or two: from maps, segmentation and anatomy to numbers with their errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from NeuroCESTLib.core.progress import Progress, part, silent

from .inputs import CestMaps, Settings, VisitInput
from .partial_volumes import partial_volumes
from .regions import RegionMask, regions_of
from .resampling import mean_error
from .results import NAN, Analysis, Region, Statistics, Visit
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
    masks = regions_of(visit, settings)
    grid = masks[0].grid if masks else None
    regions = _on_maps(masks, visit.cest, np.eye(4))
    cest = visit.cest
    if cest is None:
        return Visit(visit.name, None, {}, {}, regions, grid, warnings=("this visit has no CEST maps",))
    return Visit(
        visit.name,
        cest.grid,
        cest.maps,
        cest.units,
        regions,
        grid,
        statistics_of(visit.name, cest, regions, settings),
        unsaturated=cest.unsaturated,
        warnings=cest.notes,
    )


def _on_maps(masks: Sequence[RegionMask], cest: CestMaps | None, cest_to_anatomy: np.ndarray) -> tuple[Region, ...]:
    """Bring regions to the grid of the maps as partial volumes."""
    if not masks:
        return ()
    shares = {mask.name: np.zeros((0, 0, 0), np.float32) for mask in masks}
    if cest is not None:
        shares = partial_volumes({m.name: m.mask for m in masks}, masks[0].grid, cest.grid, cest_to_anatomy)
    voxel = 0.0 if cest is None else cest.grid.voxel_ml
    return tuple(
        Region(
            mask.name,
            mask.kind,
            shares[mask.name],
            mask.mask,
            float(mask.mask.sum()) * mask.grid.voxel_ml,
            float(shares[mask.name].sum()) * voxel,
            mask.color,
        )
        for mask in masks
    )


def quantities_of(cest: CestMaps) -> list[str]:
    """Return the names of the maps that get a row: all but the standard errors and the status."""
    return [name for name in cest.maps if not name.endswith("_sd") and name != "status"]


def statistics_of(visit: str, cest: CestMaps, regions: Sequence[Region], settings: Settings) -> tuple[Statistics, ...]:
    """Return the statistics of every map over every region."""
    rows = []
    for region in regions:
        for quantity in quantities_of(cest):
            rows.append(_row(visit, cest, region, quantity, settings))
    return tuple(rows)


def _row(visit: str, cest: CestMaps, region: Region, quantity: str, settings: Settings) -> Statistics:
    array = cest.maps[quantity]
    sample = Sample.of(array, region.weights)
    valued = float(region.weights[np.isfinite(array)].sum()) * cest.grid.voxel_ml
    coverage = min(valued / region.volume_ml, 1.0) if region.volume_ml > 0 else NAN
    unit = cest.units.get(quantity, "")
    if len(sample) == 0:
        return Statistics(visit, region.name, quantity, unit, 0, coverage)
    values, weights = sample.values, sample.weights
    error = mean_error(sample, voxel_sd=cest.maps.get(f"{quantity}_sd"), draws=settings.draws, seed=settings.seed)
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
    )
