"""The results of a cohort: one tidy table, the changes, comparisons of groups and visits, and the page."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from NeuroCESTLib.core.checked_json import read_text
from NeuroCESTLib.core.whole_files import write_csv

from .manifest import Visit
from .plan import FOLDERS, Plan
from .programs import last_error
from .record import Record, is_current, read_record
from .statistics import Comparison, compare_paired, compare_unpaired, false_discovery_rate, holm

COLUMNS = ("compartment", "quantity", "unit", "statistic", "value", "se", "n", "coverage", "message")
"""Columns of ``cohort.csv`` after those that say which visit it is."""
STATISTICS = {"mean": "mean_se", "median": "", "pure": "pure_se", "fit": "fit_se"}
"""Statistics in ``cohort.csv``, with the column of ``compartments.csv`` that holds their standard error."""
MEAN = "mean"
"""Statistic that is compared unless another one is asked for."""
VOLUME = "volume"
LATER = "later_visit"
"""Key of the later visit to which a row of the first visit belongs."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Failure:
    """A result that a subject lacks.

    Attributes:
        subject: Name of the subject.
        visit: Name of the visit.
        stage: Stage that failed; empty if none has been tried, or if the result is outdated.
        sentence: Why.
    """

    subject: str
    visit: str
    stage: str
    sentence: str


@dataclass(frozen=True)
class CohortResults:
    """What is known of a cohort.

    Attributes:
        rows: Rows of ``cohort.csv``: a statistic of a quantity in a compartment at a visit, or a failure.
        changes: Rows of ``changes.csv``: the change of a quantity in a compartment since the first visit.
        comparisons: Rows of ``comparison.csv``.
        failures: Results that are missing, in the order of the manifest.
        statistic: Which statistic was compared.
        warnings: Sentences about maps without any value.
    """

    rows: list[Row]
    changes: list[Row]
    comparisons: list[Row]
    failures: list[Failure]
    statistic: str = MEAN
    warnings: tuple[str, ...] = ()


def write_tables(folder: Path, plan: Plan, results: CohortResults) -> None:
    """Write ``cohort.csv``, ``changes.csv`` and ``comparison.csv``.

    Args:
        folder: Output folder of the run.
        plan: What was to be done.
        results: What is known of the cohort.
    """
    first = ("subject", "visit", *attributes_of(plan))
    _write(results.rows, (*first, *COLUMNS), folder / "cohort.csv")
    known = list(dict.fromkeys(name for row in results.changes for name in row if name not in first))
    _write(results.changes, (*first, *(known or ("first_visit", "compartment"))), folder / "changes.csv")
    _write(results.comparisons, COMPARISON_COLUMNS, folder / "comparison.csv")


def collect(folder: Path, plan: Plan, compare: str | None, statistic: str = MEAN) -> CohortResults:
    """Read what the subjects' folders hold.

    Args:
        folder: Output folder of the run.
        plan: What was to be done.
        compare: Column of the manifest whose groups are compared; None for none.
        statistic: Which of ``STATISTICS`` is compared.
    """
    rows: list[Row] = []
    changes: list[Row] = []
    failures: list[Failure] = []
    warnings: list[str] = []
    references: list[Row] = []
    record = read_record(folder)
    for subject, visits in plan.visits.items():
        first_is_known = False
        for visit in visits[1:] if len(visits) > 1 else visits:
            failure = find_failure(folder, plan, visit, record)
            if failure:
                failures.append(failure)
                rows.append({**_labels(visit), "message": failure.sentence})
                continue
            place = folder / subject / visit.name / FOLDERS["compartments"]
            try:
                of_visit = _rows(place / "compartments.csv", ("region", "visit", "quantity", "n", "coverage"))
                changed = _rows(place / "changes.csv", ("region", "quantity", "first", "second"))
            except ValueError as error:
                failures.append(Failure(visit.subject, visit.name, "compartments", str(error)))
                rows.append({**_labels(visit), "message": str(error)})
                continue
            wanted = {visit.name} if first_is_known else {visit.name, visits[0].name}
            for one in visits:
                if one.name in wanted:
                    rows += _statistics(one, of_visit) + _volumes(one, visits[0], changed)
                    warnings += _without_values(one, of_visit)
            first_is_known = True
            changes += [_change(visit, visits[0], row) for row in changed]
            at_first = _statistics(visits[0], of_visit) + _volumes(visits[0], visits[0], changed)
            references += [{**row, LATER: visit.name} for row in at_first]
    comparisons = compare_all(rows, plan, compare, statistic, references)
    return CohortResults(rows, changes, comparisons, failures, statistic, tuple(warnings))


def find_failure(folder: Path, plan: Plan, visit: Visit, record: Record | None = None) -> Failure | None:
    """Say why the result of a visit is missing or does not count; None if it is there.

    Args:
        folder: Output folder of the run.
        plan: What was to be done.
        visit: A later visit of a subject, or its only one.
        record: What the stages were made with; None to read it.
    """
    needed = {plan.visits[visit.subject][0].name, visit.name}
    record = read_record(folder) if record is None else record
    missing, outdated = False, ""
    for stage, of_visit in plan.stages(visit.subject):
        later = stage in ("registration", "compartments")  # these belong to the pair
        if of_visit.name not in needed or (later and of_visit.name != visit.name):
            continue
        place = folder / of_visit.subject / of_visit.name
        if (place / FOLDERS[stage] / "report.json").is_file():
            if not outdated and not is_current(folder, plan, record, stage, of_visit.subject, of_visit.name):
                outdated = f"{stage} of {of_visit.name}: made with earlier settings or files: run again"
            continue
        missing = True
        log = place / "logs" / f"{stage}.log"
        if log.is_file() and (said := last_error(log.read_text(encoding="utf-8", errors="replace"))):
            return Failure(visit.subject, visit.name, stage, f"{stage} of {of_visit.name}: {said}")
    if missing:
        return Failure(visit.subject, visit.name, "", "not done yet: run again")
    return Failure(visit.subject, visit.name, "", outdated) if outdated else None


COMPARISON_COLUMNS = (
    *("kind", "compartment", "quantity", "unit", "visit", "first_group", "second_group"),
    *(Comparison.__dataclass_fields__),
    *("p_holm", "q_fdr"),
)
"""Columns of ``comparison.csv``."""


def groups_of(plan: Plan, column: str | None) -> dict[str, str]:
    """Return the group of each subject: the value that its visits have in a column; empty where they have none.

    Args:
        plan: What was to be done.
        column: Column of the manifest; None for no groups.

    Raises:
        ValueError: A subject has different values, so that it belongs to no single group.
    """
    groups = {}
    for subject, visits in plan.visits.items():
        found = dict.fromkeys(visit.attributes.get(column or "", "") for visit in visits)
        values = [value for value in found if value not in ("", "-")]
        if len(values) > 1:
            raise ValueError(
                f"--compare {column}: the visits of {subject} have {' and '.join(map(repr, values))}; give a subject "
                "one group, or compare another column"
            )
        groups[subject] = values[0] if values else ""
    return groups


def compare_all(
    rows: Sequence[Row],
    plan: Plan,
    compare: str | None,
    statistic: str = MEAN,
    references: Sequence[Row] | None = None,
) -> list[Row]:
    """Compare visits within subjects, and groups at each visit and in their change since the first visit.

    Args:
        rows: Rows of ``cohort.csv``.
        plan: What was to be done.
        compare: Column of the manifest that tells the groups; None to compare visits alone.
        statistic: Which of ``STATISTICS`` is compared; volumes are compared besides.
        references: Rows of the first visit from the tables of each later visit, which is named by ``LATER``. Its
            compartments are found together with those of the later visit and need not be the same for all of these.
            None to compare all of them with the rows of the first visit.

    Returns:
        Rows of ``comparison.csv``, with p-values corrected for the number of all of them.

    Raises:
        ValueError: The groups are not those of subjects, see ``groups_of``.
    """
    values = _compared(rows, "visit", statistic)
    at_first = None if references is None else _compared(references, LATER, statistic)
    group_of = groups_of(plan, compare)
    groups = [group for group in dict.fromkeys(group_of.values()) if group]
    found: list[Row] = []
    for compartment, quantity in dict.fromkeys((c, q) for _, _, c, q in values):
        # Visits are compared by their number, because their names may differ between subjects.
        by_number: dict[int, dict[str, float]] = {}
        firsts: dict[int, dict[str, float]] = {}
        for subject, visits in plan.visits.items():
            for number, visit in enumerate(visits):
                if row := values.get((subject, visit.name, compartment, quantity)):
                    by_number.setdefault(number, {})[subject] = row["value"]
                known, end = (values, visits[0]) if at_first is None else (at_first, visit)
                if row := known.get((subject, end.name, compartment, quantity)):
                    firsts.setdefault(number, {})[subject] = row["value"]
        unit = next(row["unit"] for (_, _, c, q), row in values.items() if (c, q) == (compartment, quantity))
        what = {"compartment": compartment, "quantity": quantity, "unit": unit}
        found += _visits_compared(by_number, firsts, what, group_of, groups)
        found += _groups_compared(by_number, firsts, what, group_of, groups)
    for name, correct in (("p_holm", holm), ("q_fdr", false_discovery_rate)):
        for row, value in zip(found, correct([row["p"] for row in found]), strict=True):
            row[name] = value
    return found


def _visits_compared(
    by_number: Mapping[int, Mapping[str, float]],
    firsts: Mapping[int, Mapping[str, float]],
    what: Row,
    group_of: Mapping[str, str],
    groups: Sequence[str],
) -> list[Row]:
    """Later visits against the first one, in all subjects and in each group."""
    found = []
    for number, later in sorted(by_number.items()):
        if number == 0:
            continue
        first = firsts.get(number, {})
        for group in ["", *groups]:
            subjects = [s for s in first if s in later and (not group or group_of[s] == group)]
            done = compare_paired([first[s] for s in subjects], [later[s] for s in subjects])
            name = group or "all"
            found += _row("paired", what, f"{number + 1} against 1", (name, name), done)
    return found


def _groups_compared(
    by_number: Mapping[int, Mapping[str, float]],
    firsts: Mapping[int, Mapping[str, float]],
    what: Row,
    group_of: Mapping[str, str],
    groups: Sequence[str],
) -> list[Row]:
    """Pairs of groups, at each visit and in the change since the first visit."""
    found = []
    sets: list[tuple[str, str, Mapping[str, float]]] = []
    for number, values in sorted(by_number.items()):
        sets.append(("unpaired", str(number + 1), values))
        if number > 0:
            first = firsts.get(number, {})
            differences = {s: value - first[s] for s, value in values.items() if s in first}
            sets.append(("unpaired, change", f"{number + 1} minus 1", differences))
    for kind, visit, values in sets:
        for one, other in combinations(groups, 2):
            parts = [[v for s, v in values.items() if group_of[s] == group] for group in (one, other)]
            found += _row(kind, what, visit, (one, other), compare_unpaired(*parts))
    return found


def _compared(rows: Sequence[Row], visit: str, statistic: str) -> dict[tuple[str, str, str, str], Row]:
    """Rows with the compared statistic, or a volume, by subject, visit, compartment and quantity."""
    return {
        (row["subject"], row[visit], row["compartment"], row["quantity"]): row
        for row in rows
        if row.get("statistic") in (statistic, "total") and math.isfinite(row["value"])
    }


def _row(kind: str, what: Row, visit: str, groups: tuple[str, str], done: Comparison | None) -> list[Row]:
    if done is None:
        return []
    return [{"kind": kind, **what, "visit": visit, "first_group": groups[0], "second_group": groups[1], **asdict(done)}]


def attributes_of(plan: Plan) -> list[str]:
    """Return the names of the columns of the manifest that are neither names nor files."""
    return list(dict.fromkeys(name for visits in plan.visits.values() for v in visits for name in v.attributes))


def _labels(visit: Visit) -> Row:
    return {"subject": visit.subject, "visit": visit.name, **visit.attributes}


def _statistics(visit: Visit, table: Sequence[Mapping[str, str]]) -> list[Row]:
    """Rows of ``cohort.csv`` from those of ``compartments.csv``; statistics that are not known are left out."""
    found = []
    for row in table:
        if row["visit"] != visit.name:
            continue
        what = {"compartment": row["region"], "quantity": row["quantity"], "unit": row.get("unit", "")}
        for statistic, error in STATISTICS.items():
            value = _number(row.get(statistic, ""))
            if math.isfinite(value):
                rest = {"se": _number(row.get(error, "")), "n": row["n"], "coverage": _number(row["coverage"])}
                found.append({**_labels(visit), **what, "statistic": statistic, "value": value, **rest})
    return found


def _without_values(visit: Visit, table: Sequence[Mapping[str, str]]) -> list[str]:
    """Name the maps of a visit that have no value in any compartment."""
    known: dict[str, bool] = {}
    for row in table:
        if row["visit"] == visit.name:
            has_value = any(math.isfinite(_number(row.get(statistic, ""))) for statistic in STATISTICS)
            known[row["quantity"]] = known.get(row["quantity"], False) or has_value
    return [
        f"{visit.subject} {visit.name}: the map {name} has no value in any compartment"
        for name, has_value in known.items()
        if not has_value
    ]


def _volumes(visit: Visit, first: Visit, changes: Sequence[Mapping[str, str]]) -> list[Row]:
    """Volumes of the compartments, which the table of changes has for both visits."""
    column = "first" if visit is first else "second"
    return [
        {
            **_labels(visit),
            "compartment": row["region"],
            "quantity": VOLUME,
            "unit": row.get("unit", "ml"),
            "statistic": "total",
            "value": _number(row[column]),
        }
        for row in changes
        if row.get("quantity") == VOLUME and math.isfinite(_number(row[column]))
    ]


def _change(visit: Visit, first: Visit, row: Mapping[str, str]) -> Row:
    rest = {name: value for name, value in row.items() if name not in ("region", "visit")}
    return {**_labels(visit), "first_visit": first.name, "compartment": row["region"], **rest}


def _rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a table of ``cestquant compartments``; ValueError where it is damaged."""
    if not path.is_file():
        return []
    remedy = "remove its folder and run again"
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path, remedy))))
    except csv.Error:
        raise ValueError(f"'{path}' is a damaged table: {remedy}") from None
    if any(row.get(column) is None for row in rows for column in columns):
        raise ValueError(f"'{path}' is a damaged table, in which fields are missing: {remedy}")
    return rows


def _number(text: Any) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        return float("nan")


def _write(rows: Sequence[Row], columns: Sequence[str], path: Path) -> None:
    def shown(value: Any) -> Any:
        if value is None or value != value:
            return ""
        return f"{value:.7g}" if isinstance(value, float) else value

    write_csv(columns, ([shown(row.get(name)) for name in columns] for row in rows), path)
