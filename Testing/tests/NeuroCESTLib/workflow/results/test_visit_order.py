"""Visits of different subjects that belong together, also where a subject has missed one."""

from __future__ import annotations

import pytest

from NeuroCESTLib.workflow.plan import Plan
from NeuroCESTLib.workflow.results.comparisons import compare_all
from NeuroCESTLib.workflow.results.visit_order import common_names, order_warnings, visit_numbers
from NeuroCESTLib.workflow.settings import Settings
from NeuroCESTLib.workflow.visits import Visit

VALUES = {"baseline": 1.0, "month3": 1.1, "month6": 3.0}


def plan_of(**names: str) -> Plan:
    return Plan({s: [Visit(s, name, {}, {}) for name in of.split()] for s, of in names.items()}, Settings())


def compared(plan: Plan) -> dict[str, tuple[int, float]]:
    """Number of subjects and difference by the visits that are compared."""
    what = {"compartment": "edema", "quantity": "amide", "unit": "", "statistic": "mean"}
    rows = [
        {"subject": s, "visit": visit.name, **what, "value": VALUES[visit.name] + 0.01 * number}
        for number, (s, visits) in enumerate(plan.visits.items())
        for visit in visits
    ]
    return {row["visit"]: (row["n_first"], row["difference"]) for row in compare_all(rows, plan, None)}


def test_a_missed_visit_does_not_make_the_next_one_its_substitute() -> None:
    plan = plan_of(a="baseline month3 month6", b="baseline month6", c="baseline month3 month6")
    assert visit_numbers(plan)["b", "month6"] == 2
    assert compared(plan) == {"2 against 1": (2, pytest.approx(0.1)), "3 against 1": (3, pytest.approx(2.0))}
    assert order_warnings(plan) == []


def test_no_subject_needs_all_visits_if_their_order_is_known() -> None:
    plan = plan_of(a="baseline month3", b="month3 month6", c="baseline month6")
    assert common_names(plan) == ["baseline", "month3", "month6"]


def test_a_subject_without_the_first_visit_is_left_out_of_the_changes_and_told() -> None:
    plan = plan_of(a="baseline month3 month6", b="month3 month6", c="baseline month3 month6")
    assert {visit: n for visit, (n, _) in compared(plan).items()} == {"2 against 1": 2, "3 against 1": 2}
    assert order_warnings(plan) == [
        "left out of the comparisons with the first visit, because their own first visit is not baseline: b"
    ]


@pytest.mark.parametrize("other", ["baseline follow-up", "month3 baseline"])
def test_without_a_common_order_the_number_counts_and_the_subjects_are_told(other: str) -> None:
    plan = plan_of(a="baseline month3", b=other, c="baseline month3")
    assert visit_numbers(plan)["b", other.split()[1]] == 1
    (warning,) = order_warnings(plan)
    assert warning.startswith("visits are compared by their number, because")
    assert f"b ({', '.join(other.split())}) in contrast to baseline, month3" in warning
