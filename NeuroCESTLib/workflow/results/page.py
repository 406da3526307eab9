"""The page of a cohort: failures first, then subjects, pictures of every quantity, comparisons and methods."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from NeuroCESTLib.core.packages import left_out_without_its_package
from NeuroCESTLib.report.numbers import interval_text, number_text
from NeuroCESTLib.report.page import Badge, Cell, Link, Page, Part, Picture, Section, Table, Text, write_page

from ..plan import FOLDERS, Plan
from ..visits import Visit
from .collection import CohortResults
from .comparisons import groups_of
from .rows import TOTAL, Row
from .visit_order import common_names, visit_numbers

MAIN = ("enhancing_tumor", "necrotic_core", "edema", "tumor_core", "whole_tumor", "contralateral", "white_matter")
"""Compartments in the order in which they are drawn; others are in the tables only."""
_MOST_SUBJECTS = 500
"""Subjects that the page lists; the table has all of them."""
_MOST_COMPARISONS = 60
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_METHODS = (
    "Values are those of the statistic named above. Means and medians weight each voxel by its partial volume; pure "
    "values are freed from neighbouring tissue in mixed voxels; cohort.csv has all of them. Visits "
    "are compared within subjects by the paired t-test, groups by Welch's t-test, which allows for unequal variances. "
    "Intervals have a level of 95 %. The effect size is the difference in standard deviations with Hedges' correction "
    "for small samples (pooled over the groups, or of the differences for pairs), and its interval is the normal "
    "approximation of Hedges and Olkin (1985).",
    "P-values are corrected for the number of all comparisons in comparison.csv: by Holm's method, which controls the "
    "chance of a single false finding, and by that of Benjamini and Hochberg, which controls the share of false "
    "findings (q). Subjects without a result are left out of the comparison in which they lack it.",
)


def write_cohort_page(folder: Path, plan: Plan, results: CohortResults, compare: str | None) -> Path:
    """Write ``report.html`` and the pictures that it embeds.

    Args:
        folder: Output folder of the run.
        plan: What was to be done.
        results: What is known of the cohort.
        compare: Column of the manifest that tells the groups; None for none.

    Returns:
        The page.
    """
    warnings = [f"{f.subject} {f.visit}: {f.sentence}" for f in results.failures] + [*results.warnings]
    pictures: list[Part] = []
    with left_out_without_its_package("the pictures of the cohort", warnings.append):
        pictures += _pictures(folder, plan, results, compare)
    subjects = len(plan.visits)
    failed = len({failure.subject for failure in results.failures})
    page = Page(
        title="Cohort report",
        subtitle="CEST numbers of tumour compartments",
        badge=Badge("complete", "good") if not failed else Badge(f"{failed} of {subjects} incomplete", "check"),
        facts={
            "Subjects": str(subjects),
            "Visits": str(sum(map(len, plan.visits.values()))),
            "Method": plan.settings.method,
            "Statistic": results.statistic,
            **({"Groups by": compare} if compare else {}),
        },
        warnings=warnings,
        sections=[
            Section("Subjects", [_subjects(plan, results)]),
            Section("Values", pictures or [Text(["There are no pictures."])]),
            Section("Comparisons", _comparisons(results.comparisons)),
            Section("Methods", [Text(_METHODS)]),
        ],
        remark="Research software; not for clinical use.",
    )
    return write_page(page, folder / "report.html")


def _subjects(plan: Plan, results: CohortResults) -> Table:
    attributes = list(dict.fromkeys(name for visits in plan.visits.values() for v in visits for name in v.attributes))
    failures = {(f.subject, f.visit): f for f in results.failures}
    rows: list[list[Cell]] = []
    for subject, visits in list(plan.visits.items())[:_MOST_SUBJECTS]:
        for visit in visits[1:] if len(visits) > 1 else visits:
            failure = failures.get((subject, visit.name))
            state = Badge("failed", "failed") if failure else Badge("done", "good")
            names = visit.name if visit is visits[0] else f"{visits[0].name}, {visit.name}"
            rows.append(
                [
                    subject,
                    names,
                    *(visit.attributes.get(n, "") for n in attributes),
                    state,
                    None if failure else _report(visit),
                ]
            )
    more = len(plan.visits) - _MOST_SUBJECTS
    notes = [f"{more} more subjects are in cohort.csv."] if more > 0 else []
    return Table(["Subject", "Visits", *attributes, "State", "Report"], rows, notes=notes)


def _report(visit: Visit) -> Cell:
    """Link to the report of a visit's compartments."""
    return Link("open", f"{visit.subject}/{visit.name}/{FOLDERS['compartments']}/report.html")


def _comparisons(rows: Sequence[Row]) -> list[Part]:
    if not rows:
        return [Text(["There are too few subjects for a comparison: each group needs at least two."])]
    shown = sorted(rows, key=lambda row: row["p"] if math.isfinite(row["p"]) else 2.0)[:_MOST_COMPARISONS]
    cells = [
        [
            f"{_title(row['compartment'])}: {row['quantity']}",
            f"{row['kind']}, visit {row['visit']}",
            row["first_group"]
            if row["first_group"] == row["second_group"]
            else f"{row['second_group']} − {row['first_group']}",
            f"{row['n_first']}"
            if row["first_group"] == row["second_group"]
            else f"{row['n_first']} and {row['n_second']}",
            interval_text(row["difference"], row["lower"], row["upper"], signed=True),
            interval_text(row["effect"], row["effect_lower"], row["effect_upper"], digits=2, signed=True),
            number_text(row["p"], 2),
            number_text(row["p_holm"], 2),
            number_text(row["q_fdr"], 2),
        ]
        for row in shown
    ]
    columns = ["Quantity", "Comparison", "Group", "n", "Difference", "Effect size", "p", "p (Holm)", "q"]
    caption = f"The {len(shown)} comparisons with the smallest p of {len(rows)}; all are in comparison.csv."
    return [Table(columns, cells, caption=caption)]


def _pictures(folder: Path, plan: Plan, results: CohortResults, compare: str | None) -> list[Part]:
    """A picture of every quantity: the values of all subjects at their visits, in each compartment."""
    of_quantity: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    units: dict[str, str] = {}
    for row in results.rows:
        if row.get("statistic") in (results.statistic, TOTAL) and row["compartment"] in MAIN:
            places = of_quantity.setdefault(row["quantity"], {}).setdefault(row["compartment"], {})
            places.setdefault(row["subject"], {})[row["visit"]] = row["value"]
            units[row["quantity"]] = row["unit"]
    names = [f"{number + 1} {name}" for number, name in enumerate(common_names(plan))]
    numbered = f" The visits are {', '.join(names)}." if names else ""
    made: list[Part] = []
    for quantity, compartments in of_quantity.items():
        path = folder / "pictures" / f"{quantity}.png"
        path.parent.mkdir(exist_ok=True)
        _draw(path, plan, quantity, units[quantity], compartments, compare)
        drawn = ", ".join(_title(name).lower() for name in MAIN if name in compartments)
        caption = (
            f"{quantity}: each line is a subject, from the first to the last visit. The bar is the mean.{numbered}"
        )
        made.append(Picture(path.read_bytes(), f"{quantity} of every subject and visit in {drawn}", caption))
    return made


def _draw(
    path: Path,
    plan: Plan,
    quantity: str,
    unit: str,
    compartments: dict[str, dict[str, dict[str, float]]],
    compare: str | None,
) -> None:
    from NeuroCESTLib.core.pictures import new_figure, save_figure

    names = [name for name in MAIN if name in compartments]
    group_of = groups_of(plan, compare)
    groups = list(dict.fromkeys(group_of.values()))
    figure = new_figure((1.8 * len(names) + 1.2, 2.8), quantity + (f" ({unit})" if unit else ""))
    axes: Any = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    most = max(visit_numbers(plan).values()) + 1
    for axis, name in zip(axes, names, strict=True):
        for number, group in enumerate(groups):
            _draw_group(axis, plan, [s for s in plan.visits if group_of[s] == group], compartments[name], number, group)
        axis.set_title(_title(name), fontsize=8)
        axis.set_xticks(range(most), [f"visit {n + 1}" for n in range(most)])
        axis.set_xlim(-0.4, most - 0.6)
    axes[0].set_ylim(bottom=0 if axes[0].get_ylim()[0] >= 0 else None)
    if len(groups) > 1:
        axes[-1].legend(fontsize=7, frameon=False)
    save_figure(figure, path)


def _draw_group(
    axis: Any, plan: Plan, subjects: Sequence[str], values: dict[str, dict[str, float]], number: int, group: str
) -> None:
    """Lines of the subjects of a group, and the mean at each visit."""
    color = _COLORS[number % len(_COLORS)]
    at: dict[int, list[float]] = {}
    numbers = visit_numbers(plan)
    for subject in subjects:
        points = [
            (numbers[subject, visit.name], values[subject][visit.name])
            for visit in plan.visits[subject]
            if visit.name in values.get(subject, {})
        ]
        if points:
            axis.plot(*zip(*points, strict=True), "o-", color=color, linewidth=0.8, markersize=3, alpha=0.6)
        for i, value in points:
            at.setdefault(i, []).append(value)
    for count, (i, found) in enumerate(sorted(at.items())):
        label = group if count == 0 and group else None
        mean = math.fsum(found) / len(found)
        axis.plot([i - 0.22, i + 0.22], [mean, mean], color=color, linewidth=2.5, label=label)


def _title(name: str) -> str:
    """Name of a compartment as shown to readers, in British spelling."""
    return name.replace("_", " ").replace("tumor", "tumour").replace("edema", "oedema").capitalize()
