"""Rows of the tables of a cohort, from the tables of ``cestquant compartments`` of each visit."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from NeuroCESTLib.core.checked_json import read_text

from ..compartments_report import REMEDY
from ..visits import Visit

COHORT_COLUMNS = ("compartment", "quantity", "unit", "statistic", "value", "se", "n", "coverage", "message")
"""Columns of ``cohort.csv`` after those that say which visit it is."""
CHANGE_COLUMNS = (
    *("first_visit", "compartment", "quantity", "unit", "first", "second", "change", "percent", "lower", "upper"),
    *("level", "se", "se_fit", "se_spatial", "se_registration", "enough", "pure_change", "pure_lower", "pure_upper"),
)
"""Columns of ``changes.csv`` after those that say which visit it is."""
STATISTICS = {"mean": "mean_se", "median": "", "pure": "pure_se", "fit": "fit_se"}
"""Statistics in ``cohort.csv``, with the column of ``compartments.csv`` that holds their standard error."""
MEAN = "mean"
"""Statistic that is compared unless another one is asked for."""
VOLUME = "volume"
TOTAL, LEAST = "total", "least"
"""Statistics of a volume; it is the least one where the anatomical images do not show all of the compartment."""

Row = dict[str, Any]


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a table of ``cestquant compartments``; ValueError where it is missing or damaged."""
    try:
        reader = csv.DictReader(io.StringIO(read_text(path, REMEDY)))
        rows, titles = list(reader), reader.fieldnames or ()
    except csv.Error:
        raise ValueError(f"'{path}' is a damaged table: {REMEDY}") from None
    if not {*columns} <= {*titles} or any(row[column] is None for row in rows for column in columns):
        raise ValueError(f"'{path}' is a damaged table, in which fields are missing: {REMEDY}")
    return rows


def statistic_rows(visit: Visit, table: Sequence[Mapping[str, str]]) -> list[Row]:
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
                found.append({**visit_labels(visit), **what, "statistic": statistic, "value": value, **rest})
    return found


def volume_rows(visit: Visit, volumes: Mapping[str, tuple[float, bool]]) -> list[Row]:
    """Rows of ``cohort.csv`` from the volumes of a visit, see ``compartments_report.read_volumes``."""
    found = []
    for compartment, (value, at_least) in volumes.items():
        what = {"compartment": compartment, "quantity": VOLUME, "unit": "ml"}
        found.append({**visit_labels(visit), **what, "statistic": LEAST if at_least else TOTAL, "value": value})
    return found


def volumes_left_out(visit: Visit, rows: Sequence[Row], other: Visit | None = None) -> list[str]:
    """Name the compartments of a visit of which the volumes are only the least ones, as against the other visit."""
    names = [row["compartment"] for row in rows if row["statistic"] == LEAST]
    if not names:
        return []
    names_of_visits = visit.name if other is None else f"{visit.name} against {other.name}"
    return [
        f"{visit.subject} {names_of_visits}: the anatomical images do not show all of {', '.join(names)}, so that "
        "the volumes are the least ones; they are not compared"
    ]


def change_row(visit: Visit, first: Visit, row: Mapping[str, str]) -> Row:
    """The row of ``changes.csv`` for a row of the table of a visit's changes."""
    rest = {name: value for name, value in row.items() if name not in ("region", "visit")}
    return {**visit_labels(visit), "first_visit": first.name, "compartment": row["region"], **rest}


def visit_labels(visit: Visit) -> Row:
    """The columns with which every row of a visit begins."""
    return {"subject": visit.subject, "visit": visit.name, **visit.attributes}


def maps_without_values(visit: Visit, table: Sequence[Mapping[str, str]]) -> list[str]:
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


def _number(text: Any) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        return float("nan")
