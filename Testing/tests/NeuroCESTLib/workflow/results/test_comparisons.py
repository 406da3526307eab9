"""Comparisons of visits and of groups."""

from __future__ import annotations

import pytest

from NeuroCESTLib.workflow.plan import Plan
from NeuroCESTLib.workflow.results.comparisons import compare_all, groups_of
from NeuroCESTLib.workflow.settings import Settings
from NeuroCESTLib.workflow.visits import Visit


def rows_and_plan(groups: dict[str, list[str]]) -> tuple[list[dict], Plan]:
    """A value for each visit, and the plan of subjects whose visits have these groups."""
    visits = {s: [Visit(s, f"v{n + 1}", {}, {"group": g}) for n, g in enumerate(of)] for s, of in groups.items()}
    what = {"compartment": "edema", "quantity": "amide", "unit": "", "statistic": "mean"}
    rows = [
        {"subject": s, "visit": visit.name, **what, "value": float(i + j * (i + 1))}
        for i, s in enumerate(visits)
        for j, visit in enumerate(visits[s])
    ]
    return rows, Plan(visits, Settings())


def test_a_subject_has_the_group_that_any_of_its_visits_tells_and_a_dash_is_none() -> None:
    rows, plan = rows_and_plan({"a": ["", "x"], "b": ["x", "-"], "c": ["-", "-"], "d": ["", "y"], "e": ["y", "y"]})
    assert groups_of(plan, "group") == {"a": "x", "b": "x", "c": "", "d": "y", "e": "y"}
    compared = compare_all(rows, plan, "group")
    assert {(row["first_group"], row["second_group"]) for row in compared if row["kind"] == "unpaired"} == {("x", "y")}


def test_a_subject_in_two_groups_is_refused() -> None:
    rows, plan = rows_and_plan({"a": ["x", "y"], "b": ["x", "x"]})
    with pytest.raises(ValueError, match="--compare group: the visits of a have 'x' and 'y'"):
        compare_all(rows, plan, "group")
