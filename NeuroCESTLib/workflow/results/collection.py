"""What the folders of all subjects hold, and the tables of a cohort."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from NeuroCESTLib.core.whole_files import write_csv

from ..compartments_report import CHANGES, COMPARTMENTS, read_volumes
from ..plan import FOLDERS, Plan
from ..record import read_record
from .comparisons import COMPARISON_COLUMNS, LATER, compare_all
from .failures import NOT_DONE, Failure, find_failure
from .rows import (
    CHANGE_COLUMNS,
    COHORT_COLUMNS,
    LEAST,
    MEAN,
    Row,
    change_row,
    maps_without_values,
    read_table,
    statistic_rows,
    visit_labels,
    volume_rows,
    volumes_left_out,
)
from .visit_order import order_warnings


@dataclass(frozen=True)
class CohortResults:
    """What is known of a cohort.

    Attributes:
        rows: Rows of ``cohort.csv``: a statistic of a quantity in a compartment at a visit, or a failure.
        changes: Rows of ``changes.csv``: the change of a quantity in a compartment since the first visit.
        comparisons: Rows of ``comparison.csv``.
        failures: Results that are missing, in the order of the manifest.
        statistic: Which statistic was compared.
        warnings: Sentences about the names of the visits, maps without any value, and volumes that are not compared.
    """

    rows: list[Row]
    changes: list[Row]
    comparisons: list[Row]
    failures: list[Failure]
    statistic: str = MEAN
    warnings: tuple[str, ...] = ()


def collect(
    folder: Path,
    plan: Plan,
    compare: str | None,
    statistic: str = MEAN,
    not_done: str = NOT_DONE,
    interrupted: bool = False,
) -> CohortResults:
    """Read what the subjects' folders hold.

    Args:
        folder: Output folder of the run.
        plan: What was to be done.
        compare: Column of the manifest whose groups are compared; None for none.
        statistic: Which of ``STATISTICS`` is compared.
        not_done: What is said of results that are missing although no stage has failed.
        interrupted: Whether the user has stopped the run.
    """
    rows: list[Row] = []
    changes: list[Row] = []
    failures: list[Failure] = []
    warnings = order_warnings(plan)
    references: list[Row] = []
    record = read_record(folder)
    for subject, visits in plan.visits.items():
        first_volumes: list[Row] | None = None
        for visit in visits[1:] if len(visits) > 1 else visits:
            failure = find_failure(folder, plan, visit, record, not_done, interrupted)
            if failure:
                failures.append(failure)
                rows.append({**visit_labels(visit), "message": failure.sentence})
                continue
            place = folder / subject / visit.name / FOLDERS["compartments"]
            later = visit is not visits[0]
            wanted = [visits[0]] * (later and first_volumes is None) + [visit]
            try:
                in_ml = read_volumes(place, [one.name for one in (visits[0], visit)])
                of_visit = read_table(place / COMPARTMENTS, ("region", "visit", "quantity", "n", "coverage"))
                changed = read_table(place / CHANGES, ("region", "quantity", "first", "second")) if later else []
            except ValueError as error:
                failures.append(Failure(visit.subject, visit.name, "compartments", str(error)))
                rows.append({**visit_labels(visit), "message": str(error)})
                continue
            volumes = {one.name: volume_rows(one, in_ml[one.name]) for one in (visits[0], visit)}
            for one in wanted:
                rows += statistic_rows(one, of_visit) + volumes[one.name]
                warnings += maps_without_values(one, of_visit) + volumes_left_out(one, volumes[one.name])
            of_first = volumes[visits[0].name]
            if first_volumes is None:
                first_volumes = of_first
            else:
                told = {row["compartment"] for row in first_volumes if row["statistic"] == LEAST}
                new = [row for row in of_first if row["compartment"] not in told]
                warnings += volumes_left_out(visits[0], new, visit)
            changes += [change_row(visit, visits[0], row) for row in changed]
            at_first = statistic_rows(visits[0], of_visit) + of_first
            references += [{**row, LATER: visit.name} for row in at_first]
    comparisons = compare_all(rows, plan, compare, statistic, references)
    return CohortResults(rows, changes, comparisons, failures, statistic, tuple(warnings))


def write_tables(folder: Path, plan: Plan, results: CohortResults) -> None:
    """Write ``cohort.csv``, ``changes.csv`` and ``comparison.csv``.

    Args:
        folder: Output folder of the run.
        plan: What was to be done.
        results: What is known of the cohort.
    """
    first = ("subject", "visit", *attributes_of(plan))
    _write(results.rows, (*first, *COHORT_COLUMNS), folder / "cohort.csv")
    others = dict.fromkeys(name for row in results.changes for name in row if name not in (*first, *CHANGE_COLUMNS))
    _write(results.changes, (*first, *CHANGE_COLUMNS, *others), folder / "changes.csv")
    _write(results.comparisons, COMPARISON_COLUMNS, folder / "comparison.csv")


def attributes_of(plan: Plan) -> list[str]:
    """Return the names of the columns of the manifest that are neither names nor files."""
    return list(dict.fromkeys(name for visits in plan.visits.values() for v in visits for name in v.attributes))


def _write(rows: Sequence[Row], columns: Sequence[str], path: Path) -> None:
    def shown(value: Any) -> Any:
        if value is None or value != value:
            return ""
        return f"{value:.7g}" if isinstance(value, float) else value

    write_csv(columns, ([shown(row.get(name)) for name in columns] for row in rows), path)
