"""The analysis of one visit or two: from maps, segmentation and anatomy to numbers with their errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np

from NeuroCESTLib.core.progress import Progress, part, silent

from .anatomy.alignment import align, anatomy_on_maps, require_same_side
from .anatomy.cut_off import LEAST_ML, is_cut_off, touches_border
from .anatomy.regions import RegionMasks, regions_of
from .anatomy.segment_names import CAVITY, compartments_and_segments
from .change import changes_between
from .grid import Grid
from .growth import followed_lesions, grid_before, maps_on_first, moved_points, registration_quality, transitions_of
from .inputs import CestMaps, Settings, VisitInput
from .partial_volumes import partial_volumes
from .region_spectra import region_spectrum
from .region_statistics import quantities_of, statistics_of
from .response import lesions_of, response
from .results.analysis import Analysis, Between
from .results.regions import Region
from .results.response import Lesion, Response
from .results.spectrum import RegionSpectrum
from .results.visit import Visit
from .sampling import nearest
from .statistics import LEAST_SHARE, Sample, common_edges, distribution

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
    if not any(visit.segmentation or visit.anatomy for visit in inputs):
        raise ValueError("no region is known: give the segmentation of a visit (--segmentation)")
    inputs = [_with_note_on_empty(visit, inputs) for visit in inputs]
    first, second = inputs[0], inputs[1] if second is not None else None
    if second is None:
        visit, _ = analyze_visit(first, chosen, progress)
        return Analysis((_with_distributions([visit])[0],), None, asdict(chosen))
    registration = {} if between is None else registration_quality(first, second, between)
    one, masks_one = analyze_visit(first, chosen, part(progress, 0.0, 0.4))
    two, masks_two = analyze_visit(second, chosen, part(progress, 0.4, 0.8))
    if between is not None:
        cut_one = _beyond_first(two, first, between)
        cut_two = _beyond_second(one, second, between)
        one, two = _cut_off(one, cut_one), _cut_off(two, cut_two)
    progress(0.8, "change between the visits")
    visits = _with_distributions([one, two])
    happened = _between(visits, (masks_one, masks_two), chosen, between)
    return Analysis(tuple(visits), replace(happened, registration=registration), asdict(chosen))


def _with_note_on_empty(visit: VisitInput, visits: Sequence[VisitInput]) -> VisitInput:
    """Return a visit with a sentence for the user where its whole segmentation is empty.

    Raises:
        ValueError: No visit has a voxel, or the segmentation does not know a compartment of a tumour.
    """
    given = visit.segmentation
    if given is None or given.is_filled:
        return visit
    if not any(each.segmentation is not None and each.segmentation.is_filled for each in visits):
        raise ValueError(f"the segmentation {given.called} is empty: no voxel is set")
    if not compartments_and_segments(given.masks)[0]:
        raise ValueError(
            f"the segmentation {given.called} is empty, and none of its segments is named as a part of a tumour, so "
            "that nothing tells whether there is no tumour: name one, as 'enhancing tumour'"
        )
    note = (
        f"the segmentation {given.called} is empty, so that this visit counts as one without a tumour: check that the "
        "segmentation did not fail"
    )
    return replace(visit, notes=(note, *visit.notes))


def _with_distributions(visits: list[Visit]) -> list[Visit]:
    """Add histograms with bins that the visits share."""
    names = [name for visit in visits for name in quantities_of(visit.maps)]
    edges = {name: common_edges([visit.maps[name] for visit in visits if name in visit.maps]) for name in names}
    found = []
    for visit in visits:
        distributions = [
            distribution(sample, region.name, name, edges[name])
            for region in visit.regions
            for name in quantities_of(visit.maps)
            if len(sample := Sample.of(visit.maps[name], region.weights))
        ]
        found.append(replace(visit, distributions=tuple(distributions)))
    return found


def _between(
    visits: Sequence[Visit],
    masks: tuple[RegionMasks, RegionMasks],
    settings: Settings,
    transform: sitk.Transform | None,
) -> Between:
    first, second = visits
    notes = [f"{visit.name} has no CEST maps: no CEST value can change" for visit in visits if visit.grid is None]
    measures = _response(visits, masks, transform, notes)
    found = Between(changes_between(first, second, settings), measures)
    few = sorted({row.region for row in found.changes if not row.enough})
    if few:
        notes.append(f"too little is seen at one of the visits for a reliable change: {', '.join(few)}")
    if transform is None:
        return replace(found, warnings=tuple(notes))
    grown = transitions_of(*masks, transform)
    if grown is not None:
        transitions, labels, kept, grid, jacobian, left_out_ml = grown
        found = replace(
            found,
            transitions=transitions,
            transition_labels=labels,
            kept=kept,
            transition_grid=grid,
            jacobian=jacobian,
        )
        if left_out_ml >= LEAST_ML:
            notes.append(
                f"one of the visits does not show the place of {left_out_ml:.2f} ml of tumour of the other, which are "
                "left out of the transitions"
            )
        folded = [entry.region for entry in jacobian if entry.folded > 0]
        if folded:
            notes.append(f"the deformation folds in: {', '.join(folded)}")
    if first.grid is not None and second.grid is not None and first.alignment and second.alignment:
        names = [name for name in quantities_of(first.maps) if name in second.maps]
        moved = maps_on_first(
            {name: second.maps[name] for name in names},
            second.grid,
            first.grid,
            first.alignment.cest_to_anatomy,
            second.alignment.cest_to_anatomy,
            transform,
        )
        change = {name: moved[name] - first.maps[name] for name in names}
        found = replace(found, change_maps=change, second_maps=moved)
        if not any(np.isfinite(array).any() for array in change.values()):
            notes.append("the slabs of the two visits do not overlap: there are no change maps")
    return replace(found, warnings=tuple(notes))


def _response(
    visits: Sequence[Visit], masks: tuple[RegionMasks, RegionMasks], transform: sitk.Transform | None, notes: list[str]
) -> Response | None:
    first, second = visits
    if first.lesions is None or second.lesions is None:
        unknown = [visit.name for visit in visits if visit.lesions is None]
        if len(unknown) == 1:
            notes.append(
                f"there are no measures in the manner of RANO, because the segmentation of {unknown[0]} does not know "
                "an enhancing tumour: name that compartment there too, even if it is empty"
            )
        return None
    cavities = [visit.region(CAVITY) for visit in visits]
    cavities_ml = [0.0 if cavity is None else cavity.volume_ml for cavity in cavities]
    count, same, beyond = None, None, set[int]()
    if transform is not None:
        measurable = {number for number, lesion in enumerate(second.lesions, start=1) if lesion.measurable}
        same, *others = followed_lesions(*masks, transform)
        new, beyond = (found & measurable for found in others)
        count = len(new)
        if beyond:
            notes.append(
                f"measurable lesions of {second.name} lie beyond the segmentation or the anatomy of {first.name}, so "
                f"that nothing tells whether they are new: {len(beyond)}"
            )
    enhancing = [visit.region("enhancing_tumor") for visit in visits]
    at_least = [region is not None and region.at_least for region in enhancing]
    cut_off = at_least[0] or bool(beyond), at_least[1]
    return response(first.lesions, second.lesions, (cavities_ml[0], cavities_ml[1]), count, same, cut_off)


def _beyond_second(first: Visit, given: VisitInput, transform: sitk.Transform) -> set[str]:
    """Names of the compartments that the first visit has where the images of the second one, ``given``, end."""
    tumor = _tumor(first)
    if first.mask_grid is None or not tumor or not given.anatomy:
        return set()
    box, grid = _box_around(tumor, first.mask_grid)
    moved = moved_points(grid, transform)
    return {
        region.name for region in tumor if is_cut_off(moved[region.mask[box].ravel()], grid, given.anatomy, beyond=True)
    }


def _beyond_first(second: Visit, given: VisitInput, transform: sitk.Transform) -> set[str]:
    """Names of the compartments that the second visit has where the images of the first one, ``given``, end."""
    tumor = _tumor(second)
    if second.mask_grid is None or not tumor or not given.anatomy:
        return set()
    grid = grid_before(_box_around(tumor, second.mask_grid)[1], transform)
    points, indices = grid.points(), second.mask_grid.indices(moved_points(grid, transform))
    return {
        region.name
        for region in tumor
        if is_cut_off(points[nearest(region.mask, indices)], grid, given.anatomy, beyond=True)
    }


def _tumor(visit: Visit) -> list[Region]:
    """The compartments of a visit that are not empty."""
    return [region for region in visit.regions if region.kind == "tumor" and region.mask.any()]


def _box_around(regions: Sequence[Region], grid: Grid) -> tuple[tuple[slice, ...], Grid]:
    """The part of a grid that holds all of some regions, as slices and as a grid."""
    places = np.argwhere(np.any([region.mask for region in regions], axis=0))
    low, high = places.min(0), places.max(0) + 1
    k, j, i = (int(n) for n in high - low)
    start = np.eye(4)
    start[:3, 3] = low[::-1]
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return box, Grid((k, j, i), grid.ijk_to_ras @ start)


def _cut_off(visit: Visit, names: set[str]) -> Visit:
    """A visit with the compartments marked whose volume is only the least one, because the images end there."""
    regions = tuple(replace(region, at_least=region.at_least or region.name in names) for region in visit.regions)
    found = [now for now, before in zip(regions, visit.regions, strict=True) if now.at_least > before.at_least]
    return replace(visit, regions=regions, warnings=(*visit.warnings, *_cut_off_notes(found)))


def _cut_off_notes(regions: Sequence[Region]) -> list[str]:
    """Tell which compartments the anatomical images do not show whole."""
    names = ", ".join(region.title.lower() for region in regions)
    return (
        [f"the anatomy may not show all of the tumour, and the volumes are the least ones of: {names}"] if names else []
    )


def analyze_visit(visit: VisitInput, settings: Settings, progress: Progress = silent) -> tuple[Visit, RegionMasks]:
    """Analyse one visit; see :func:`analyze`.

    Returns:
        The visit, and its regions in the space of the anatomy.
    """
    progress(0.0, f"{visit.name}: regions")
    alignment = align(visit)
    cest_to_anatomy = np.eye(4) if alignment is None else alignment.cest_to_anatomy
    found = regions_of(visit, settings, cest_to_anatomy)
    cest = visit.cest
    regions = _on_maps(found, visit, cest_to_anatomy)
    shown_notes = _cut_off_notes([region for region in regions if region.at_least])
    if not visit.anatomy and found.compartments and touches_border(list(found.compartments.values())):
        shown_notes.append(
            "the tumour touches the border of its segmentation, and without an anatomical image nothing tells whether "
            "it is cut off there: give the anatomy (--anatomy)"
        )
    if cest is None:
        notes = ("this visit has no CEST maps", *found.notes, *visit.notes, *shown_notes)
        alone = Visit(visit.name, None, {}, {}, regions, found.grid, midplane=found.midplane, warnings=notes)
        return replace(alone, lesions=_lesions(found)), found
    if alignment is not None:
        require_same_side(visit, alignment, found.midplane)
    progress(0.5, f"{visit.name}: spectra")
    spectra = _spectra(cest, regions, settings)
    rows = statistics_of(visit.name, cest, regions, spectra, settings)
    reasons = alignment.reasons if alignment else ()
    notes = (
        *reasons,
        *found.notes,
        *visit.notes,
        *shown_notes,
        *_coverage_notes(visit.name, regions),
        *(spectrum.note for spectrum in spectra if spectrum.note),
    )
    result = Visit(
        visit.name,
        cest.grid,
        cest.maps,
        cest.units,
        regions,
        found.grid,
        rows,
        spectra=spectra,
        anatomy=None if alignment is None else anatomy_on_maps(visit, alignment),
        alignment=alignment,
        midplane=found.midplane,
        lesions=_lesions(found),
        unsaturated=cest.unsaturated,
        warnings=notes,
    )
    return result, found


def _lesions(found: RegionMasks) -> tuple[Lesion, ...] | None:
    enhancing = found.compartments.get("enhancing_tumor")
    if enhancing is None or found.grid is None:
        return None
    return lesions_of(enhancing, found.grid, found.compartments.get(CAVITY))


def _coverage_notes(visit: str, regions: Sequence[Region]) -> list[str]:
    """Tell which compartments the slab shows in part only, and refuse where it shows nothing of any."""
    tumor = [region for region in regions if region.kind == "tumor" and region.volume_ml > 0]
    seen = [region for region in regions if region.kind in ("tumor", "segment") and region.covered_ml > 0]
    if tumor and not seen:
        raise ValueError(
            f"{visit}: the CEST slab shows nothing of the segmentation: check that both are of the same visit, and "
            "give their alignment or register them (--to-anatomy, --register)"
        )
    thin = [region.title.lower() for region in seen if not (region.weights >= LEAST_SHARE).any()]
    notes = (
        [f"no CEST voxel lies in it by half or more, so that there are no numbers of: {', '.join(thin)}"]
        if thin
        else []
    )
    partial = [
        f"{region.title.lower()} {100 * region.coverage:.0f} %"
        for region in tumor
        if region.coverage < 0.95 and region.name != CAVITY
    ]
    return [*notes, f"the CEST slab covers the tumour in part: {', '.join(partial)}"] if partial else notes


def _spectra(cest: CestMaps, regions: Sequence[Region], settings: Settings) -> tuple[RegionSpectrum, ...]:
    if cest.acquisition is None or not settings.fit_spectra:
        return ()
    found = [region_spectrum(region, cest.acquisition) for region in regions]
    return tuple(spectrum for spectrum in found if spectrum is not None)


def _on_maps(found: RegionMasks, visit: VisitInput, cest_to_anatomy: np.ndarray) -> tuple[Region, ...]:
    """Bring regions to the grid of the maps as partial volumes."""
    if found.grid is None:
        return ()
    cest = visit.cest
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
            region.kind == "tumor" and is_cut_off(_points_of(region.mask, found.grid), found.grid, visit.anatomy),
        )
        for region in found.regions
    )


def _points_of(mask: np.ndarray, grid: Grid) -> np.ndarray:
    """Centres (n, 3), RAS in mm, of the voxels of a mask."""
    return grid.at(np.argwhere(mask)[:, ::-1].astype(np.float64))
