"""Comparisons of visits within subjects, and of groups."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations

from ..plan import Plan
from .rows import MEAN, TOTAL, Row
from .statistics import Comparison, compare_paired, compare_unpaired, false_discovery_rate, holm
from .visit_order import visit_numbers

LATER = "later_visit"
"""Key of the later visit to which a row of the first visit belongs."""
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

    Which visits of different subjects belong together is said by ``visit_order``.

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
    numbers = visit_numbers(plan)
    found: list[Row] = []
    for compartment, quantity in dict.fromkeys((c, q) for _, _, c, q in values):
        by_number: dict[int, dict[str, float]] = {}
        firsts: dict[int, dict[str, float]] = {}
        for subject, visits in plan.visits.items():
            for visit in visits:
                number = numbers[subject, visit.name]
                if row := values.get((subject, visit.name, compartment, quantity)):
                    by_number.setdefault(number, {})[subject] = row["value"]
                if numbers[subject, visits[0].name] > 0:
                    continue  # its first visit is a later one of the others
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
        if row.get("statistic") in (statistic, TOTAL) and math.isfinite(row["value"])
    }


def _row(kind: str, what: Row, visit: str, groups: tuple[str, str], done: Comparison | None) -> list[Row]:
    if done is None:
        return []
    return [{"kind": kind, **what, "visit": visit, "first_group": groups[0], "second_group": groups[1], **asdict(done)}]
