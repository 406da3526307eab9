"""Tables of a report: regions, changes, volumes, response, growth, and the checks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from NeuroCESTLib.report.numbers import NOTHING, error_text, interval_text, number_text
from NeuroCESTLib.report.page import Badge, Cell, Table

from ...compartments.results.change import Change
from ...compartments.results.regions import Region
from ...compartments.results.statistics import Statistics
from .growth import transition_title
from .material import Material, VisitMaterial, region_word

_MIXED = 0.05
"""Difference between mean and pure tissue, relative to the latter, from which a reader is told of it."""
VOLUME = "volume"
"""Quantity of the changes that are volumes."""


def summary_table(material: Material, quantities: Sequence[str], regions: Sequence[str]) -> Table | None:
    """Return the means of the most important maps at each visit, with their change; None without any."""
    names = [visit.visit.name for visit in material.visits]
    between = material.analysis.between
    changes = {} if between is None else _by_place([material.scaled(change) for change in between.changes])
    rows: list[list[Cell]] = []
    for quantity in quantities:
        for region in regions:
            known = [visit.visit.row(region, quantity) for visit in material.visits]
            if not any(row is not None and row.n > 0 for row in known):
                continue
            found = [None if row is None else material.scaled(row) for row in known]
            row: list[Cell] = [material.with_unit(quantity), material.region_title(region)]
            row += [NOTHING if each is None else error_text(each.mean, each.mean_se) for each in found]
            if len(names) > 1:
                row += _change_cells(changes.get((region, quantity)))
            rows.append(row)
    if not rows:
        return None
    columns = ["map", "region", *names]
    notes = ["Mean ± standard error (block bootstrap), weighted by partial volume.", *_mixed_note(material, quantities)]
    if len(names) > 1:
        columns += [f"change ({_level(material)} CI)", "change (%)"]
        notes.append("† A visit does not show enough of the region for the interval to hold.")
    return Table(columns, rows, "Regional means", notes)


def pure_table(material: Material, quantities: Sequence[str]) -> Table | None:
    """Return the values of pure tissue of each compartment at each visit, with their change; None without any."""
    names = [visit.visit.name for visit in material.visits]
    between = material.analysis.between
    changes = {} if between is None else _by_place([material.scaled(change) for change in between.changes])
    rows: list[list[Cell]] = []
    for quantity in quantities:
        for region in material.region_names(("tumor",)):
            known = [visit.visit.row(region, quantity) for visit in material.visits]
            found = [None if row is None else material.scaled(row) for row in known]
            if not any(row is not None and np.isfinite(row.pure) for row in found):
                continue
            row: list[Cell] = [material.with_unit(quantity), material.region_title(region)]
            row += [NOTHING if each is None else error_text(each.pure, each.pure_se) for each in found]
            if len(names) > 1:
                change = changes.get((region, quantity))
                row.append(NOTHING if change is None else _pure_interval(change))
            rows.append(row)
    if not rows:
        return None
    columns = ["map", "region", *names, *([f"change ({_level(material)} CI)"] if len(names) > 1 else [])]
    note = (
        "What a voxel would show that is full of the compartment, ± standard error: mixed voxels at its edges are "
        "taken apart. It describes the part of the tumour that lies in the CEST slab."
    )
    return Table(columns, rows, "Compartments without their neighbours (pure tissue)", [note])


def _pure_interval(change: Change) -> str:
    return interval_text(change.pure_change, change.pure_lower, change.pure_upper, signed=True)


def regions_table(material: Material, visit: VisitMaterial, quantity: str) -> Table | None:
    """Return the statistics of one map over all regions of a visit; None without any."""
    rows = [material.scaled(row) for row in visit.visit.statistics if row.quantity == quantity and row.n > 0]
    if not rows:
        return None
    columns = ["region", "n (effective)", "mean ± SE", "SD", "median (quartiles)"]
    cells = [_statistics_cells(material, row) for row in rows]
    further = [
        ("pure tissue", [error_text(row.pure, row.pure_se) for row in rows]),
        ("fit of mean spectrum", [error_text(row.fit, row.fit_se) for row in rows]),
        ("to contralateral", [number_text(row.ratio) for row in rows]),
        ("difference to it", [error_text(row.difference, row.difference_se) for row in rows]),
    ]
    for title, texts in further:
        if any(text != NOTHING for text in texts):
            columns.append(title)
            for row_cells, text in zip(cells, texts, strict=True):
                row_cells.append(text)
    return Table(columns, cells, caption=visit.visit.name)


def changes_table(material: Material, quantities: Sequence[str]) -> Table | None:
    """Return the changes of maps with the parts of their errors; None without changes."""
    between = material.analysis.between
    every = [material.scaled(change) for change in between.changes] if between is not None else []
    chosen = [change for quantity in quantities for change in every if change.quantity == quantity]
    if not chosen:
        return None
    first, second = (visit.visit.name for visit in material.visits)
    rows: list[list[Cell]] = [
        [
            material.with_unit(change.quantity),
            material.region_title(change.region),
            number_text(change.first),
            number_text(change.second),
            *_change_cells(change),
            number_text(change.se_fit, 2),
            number_text(change.se_spatial, 2),
            number_text(change.se_registration, 2),
        ]
        for change in chosen
    ]
    columns = ["map", "region", first, second, f"change ({_level(material)} CI)", "%", "SE: fit", "voxels", "alignment"]
    notes = [
        "The standard error has parts from the errors of the fits, from the voxels and their spatial correlation "
        "(which contains the former), and from the alignment of CEST and anatomy.",
        "† A visit does not show enough of the region for the interval to hold.",
    ]
    return Table(columns, rows, notes=notes)


def volumes_table(material: Material) -> Table | None:
    """Return the volume of each region at each visit, and the share that CEST covers; None without regions."""
    names = material.region_names(("tumor", "rim", "segment", "reference"))
    if not names:
        return None
    changes = {} if material.analysis.between is None else _by_place(material.analysis.between.changes)
    rows: list[list[Cell]] = []
    for name in names:
        found = [visit.visit.region(name) for visit in material.visits]
        row: list[Cell] = [material.region_title(name)]
        row += [NOTHING if region is None else volume_text(region) for region in found]
        if len(found) > 1:
            row += _change_cells(changes.get((name, VOLUME)))
        row += [NOTHING if region is None else _percent(region.coverage) for region in found]
        rows.append(row)
    visits = [visit.visit.name for visit in material.visits]
    columns = ["region", *(f"{visit} (ml)" for visit in visits)]
    columns += ["change (ml)", "change (%)"] if len(visits) > 1 else []
    columns += [f"covered by CEST, {visit}" for visit in visits]
    notes = []
    if len(visits) > 1:
        error = float(material.analysis.settings.get("segmentation_error_mm", 0.5))
        notes.append(
            f"The intervals ({_level(material)}) hold for outlines that lie too far outside or inside by {error:g} mm "
            "(SD) as a whole, independently at both visits."
        )
    if any(region.at_least for visit in material.visits for region in visit.visit.regions):
        notes.append(
            "≥ The anatomical images may not show all of the region. † Its change is then that of the parts shown."
        )
    return Table(columns, rows, "Volumes, and the share of each region in the CEST slab", notes)


def volume_text(region: Region) -> str:
    """Return the volume of a region in ml, with a sign before one that is only the least."""
    return f"{'≥ ' if region.at_least else ''}{number_text(region.volume_ml)}"


def response_tables(material: Material) -> list[Table]:
    """Return the measures in the manner of RANO with their caveat, and the single lesions; none without lesions."""
    tables = []
    between = material.analysis.between
    if between is not None and between.response is not None:
        found = between.response
        first, second = (visit.visit.name for visit in material.visits)
        rows: list[list[Cell]] = [
            ["enhancing lesions", found.counts[0], found.counts[1], found.counts[1] - found.counts[0], NOTHING],
            [
                "sum of bidimensional products (mm²)",
                *(number_text(product) for product in found.products_mm2),
                _signed_percent(found.product_percent),
                found.category,
            ],
            [
                "volume of the lesions (ml)",
                *(number_text(volume) for volume in found.volumes_ml),
                _signed_percent(found.volume_percent),
                found.volume_category,
            ],
        ]
        caption = "Measures in the manner of RANO"
        tables.append(Table(["measure", first, second, "change", "category"], rows, caption, [found.caveat]))
    lesions: list[list[Cell]] = [
        [
            visit.visit.name,
            number,
            number_text(lesion.longest_mm),
            number_text(lesion.perpendicular_mm),
            number_text(lesion.product_mm2),
            number_text(lesion.volume_ml),
            lesion.measurable,
        ]
        for visit in material.visits
        for number, lesion in enumerate((visit.visit.lesions or ())[:6], start=1)
    ]
    if lesions:
        columns = [
            "visit",
            "lesion",
            "longest (mm)",
            "perpendicular (mm)",
            "product (mm²)",
            "volume (ml)",
            "measurable",
        ]
        tables.append(Table(columns, lesions, "Enhancing lesions, largest first"))
    return tables


def growth_tables(material: Material) -> list[Table]:
    """Return the transitions of compartments and the growth of the tissue; none without a transform."""
    between = material.analysis.between
    if between is None:
        return []
    tables = []
    chosen = sorted(between.transitions, key=lambda transition: -transition.volume_ml)
    if chosen:
        rows: list[list[Cell]] = [
            [transition_title(t), number_text(t.volume_ml)] for t in chosen if t.volume_ml > 0.005
        ]
        tables.append(Table(["compartment at the first → second visit", "ml"], rows, "Transitions of tissue"))
    if between.jacobian:
        jacobian: list[list[Cell]] = [
            [
                material.region_title(row.region) if row.region in material.region_names() else region_word(row.region),
                number_text(row.mean),
                f"{number_text(row.p5)} to {number_text(row.p95)}",
                _percent(row.folded, 2),
            ]
            for row in between.jacobian
        ]
        columns = ["region", "mean Jacobian", "5th to 95th percentile", "folded"]
        notes = ["A Jacobian of 1.1 means that tissue of the first visit occupies 10 % more volume at the second one."]
        tables.append(Table(columns, jacobian, "Growth and shrinkage of tissue", notes))
    return tables


def alignment_table(material: Material) -> Table | None:
    """Return how the CEST images lie on the anatomy of each visit; None where it was not judged."""
    found = [(visit.visit.name, visit.visit.alignment) for visit in material.visits if visit.visit.alignment]
    if not found:
        return None
    sources = {"header": "scanner's coordinates", "given": "given transform", "registered": "rigid registration"}
    levels = {"good": "good", "check": "check", "failed": "failed"}
    rows: list[list[Cell]] = []
    for name, alignment in found:
        level = levels.get(alignment.verdict)
        verdict: Cell = Badge(alignment.verdict, level) if level else "not judged: no anatomy"
        before_after = [
            _arrow(alignment.correlation_before, alignment.correlation_after),
            _arrow(alignment.information_before, alignment.information_after),
        ]
        moved = f"{number_text(alignment.translation_mm)} mm, {number_text(alignment.rotation_deg)}°"
        source = sources.get(alignment.source, alignment.source)
        rows.append([name, source, moved, _percent(alignment.overlap), *before_after, verdict])
    columns = ["visit", "CEST on anatomy by", "motion", "overlap", "correlation", "mutual information", "verdict"]
    return Table(columns, rows, caption="Alignment of CEST images and anatomy")


def registration_table(material: Material) -> Table | None:
    """Return the quality of the registration between the visits; None where nothing is known of it."""
    rows: list[list[Cell]] = []
    between = material.analysis.between
    if between is not None:
        words = {
            "with": "correlation of the anatomies with the transform",
            "without": "correlation without it",
            "backwards": "correlation with its inverse",
        }
        rows += [[words.get(name, name), number_text(value)] for name, value in between.registration.items()]
    summary = material.registration.get("summary", {})
    known = {
        "local_correlation_before": "local correlation before",
        "local_correlation_after": "local correlation after",
        "brain_dice_before": "overlap of the brains (Dice) before",
        "brain_dice_after": "overlap of the brains (Dice) after",
        "displacement_mm_mean": "mean displacement (mm)",
        "displacement_mm_max": "largest displacement (mm)",
        "folded_fraction": "folded share of the deformation",
        "inverse_error_mm_max": "largest error of the inverse (mm)",
        "jacobian_min": "smallest Jacobian",
        "jacobian_max": "largest Jacobian",
    }
    rows += [
        [text, number_text(summary[key])] for key, text in known.items() if isinstance(summary.get(key), (int, float))
    ]
    for part in ("registration", "segmentation"):
        verdict = summary.get(f"{part}_verdict", {}).get("verdict")
        if verdict in ("good", "check", "failed"):
            rows.append([f"verdict on the {part}", Badge(verdict, verdict)])
    return Table(["measure", "value"], rows, "Registration between the visits") if rows else None


def fits_table(material: Material) -> Table | None:
    """Return how the fits of the voxels ended at each visit; None where it is unknown."""
    rows: list[list[Cell]] = []
    for visit in material.visits:
        counts = visit.fit.get("summary", {}).get("voxels", {})
        total = sum(value for name, value in counts.items() if name != "masked")
        if not total:
            continue
        usual = counts.get("converged", 0) + counts.get("at_natural_limit", 0)
        others = ", ".join(
            f"{name.replace('_', ' ')} {_percent(value / total)}"
            for name, value in counts.items()
            if value and name not in ("masked", "converged", "at_natural_limit")
        )
        rmse = visit.fit.get("summary", {}).get("median_rmse")
        residual = f"{number_text(100 * rmse)} %" if isinstance(rmse, float) else NOTHING
        rows.append([visit.visit.name, total, _percent(usual / total), others or NOTHING, residual])
    columns = ["visit", "voxels", "converged", "other ends", "median residual (of M0)"]
    return Table(columns, rows, caption="Fits of the voxels") if rows else None


def motion_table(material: Material) -> Table | None:
    """Return the motion during each acquisition; None where it was not corrected for."""
    rows: list[list[Cell]] = []
    for visit in material.visits:
        motion = visit.fit.get("summary", {}).get("preparation", {}).get("motion")
        if isinstance(motion, dict):
            largest, within = motion.get("largest_displacement_mm"), motion.get("in_plane_only")
            counts = [len(motion.get(name, ())) for name in ("measurements", "resampled", "interpolated")]
            row: list[Cell] = [visit.visit.name, *counts, None if largest is None else float(largest)]
            rows.append([*row, NOTHING if within is None else "within the slices" if within else "all directions"])
    columns = ["visit", "measurements", "moved", "position not measured", "largest displacement (mm)", "corrected in"]
    return Table(columns, rows, caption="Motion during the acquisition") if rows else None


def settings_table(material: Material) -> Table:
    """Return the settings of the analysis and the versions of the software."""
    rows: list[list[Cell]] = [[name.replace("_", " "), str(v)] for name, v in material.analysis.settings.items()]
    rows += [[f"version of {name}", version] for name, version in material.versions.items()]
    return Table(["setting", "value"], rows)


def _mixed_note(material: Material, quantities: Sequence[str]) -> list[str]:
    """Tell in which compartments the mean is not that of the tissue, because thick voxels hold several."""
    shares: dict[str, list[float]] = {}
    for visit in material.visits:
        for row in visit.visit.statistics:
            if row.quantity in quantities and abs(row.mean - row.pure) > max(
                _MIXED * abs(row.pure), 1.96 * float(np.hypot(row.mean_se, row.pure_se))
            ):
                shares.setdefault(row.region, []).append(100 * (row.mean - row.pure) / abs(row.pure))
    if not shares:
        return []
    found = [
        f"{region_word(name)} {number_text(max(each, key=abs), 2, signed=True)} %" for name, each in shares.items()
    ]
    return [
        "Means over thin compartments also hold their neighbours in mixed voxels. They differ from the value of pure "
        f"tissue, which stands above and is to be preferred, in: {', '.join(found)}."
    ]


def _statistics_cells(material: Material, row: Statistics) -> list[Cell]:
    effective = f" ({row.n_effective:.0f})" if row.n_effective == row.n_effective else ""
    quartiles = f"{number_text(row.median)} ({number_text(row.q1)} to {number_text(row.q3)})"
    return [
        material.region_title(row.region),
        f"{row.n}{effective}",
        error_text(row.mean, row.mean_se),
        number_text(row.sd),
        quartiles,
    ]


def _change_cells(change: Change | None) -> list[Cell]:
    if change is None:
        return [NOTHING, NOTHING]
    mark = "" if change.enough else " †"
    interval = interval_text(change.change, change.lower, change.upper, signed=True)
    return [interval + (mark if interval != NOTHING else ""), number_text(change.percent, signed=True)]


def _by_place(changes: Sequence[Change]) -> dict[tuple[str, str], Change]:
    return {(change.region, change.quantity): change for change in changes}


def _level(material: Material) -> str:
    changes = material.analysis.between.changes if material.analysis.between else ()
    return f"{100 * changes[0].level:g} %" if changes else "95 %"


def _percent(share: float, digits: int = 3) -> str:
    text = number_text(100 * share, digits)
    return text if text == NOTHING else f"{text} %"


def _signed_percent(percent: float) -> str:
    text = number_text(percent, signed=True)
    return text if text == NOTHING else f"{text} %"


def _arrow(before: float, after: float) -> str:
    first, second = number_text(before), number_text(after)
    return second if first in (NOTHING, second) else f"{first} → {second}"
