"""Which visits of different subjects belong together: those of the same name, or else of the same number."""

from __future__ import annotations

from collections import Counter
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

from ..plan import Plan

_MOST_NAMED = 5
"""Subjects that a warning names."""


def common_names(plan: Plan) -> list[str]:
    """Return the names of the visits in the one order that holds for all subjects; empty where there is no such order.

    A subject may lack visits of the list. Between every two neighbours of the list, some subject has to say which one
    is the earlier.
    """
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for visits in plan.visits.values():
        names = [visit.name for visit in visits]
        sorter.add(names[0])
        for before, after in pairwise(names):
            sorter.add(after, before)
    try:
        sorter.prepare()
    except CycleError:
        return []
    names = []
    while sorter.is_active():
        ready = sorter.get_ready()
        if len(ready) > 1:
            return []
        names += ready
        sorter.done(*ready)
    return names


def visit_numbers(plan: Plan) -> dict[tuple[str, str], int]:
    """Return the number, from 0, under which each visit is compared, by subject and name of the visit."""
    place = {name: number for number, name in enumerate(common_names(plan))}
    return {
        (subject, visit.name): place.get(visit.name, number)
        for subject, visits in plan.visits.items()
        for number, visit in enumerate(visits)
    }


def order_warnings(plan: Plan) -> list[str]:
    """Say which subjects make it doubtful that the same visits are compared, and which lack the first visit."""
    names = {subject: tuple(visit.name for visit in visits) for subject, visits in plan.visits.items()}
    common = common_names(plan)
    if common:
        late = [subject for subject, of_subject in names.items() if len(of_subject) > 1 and of_subject[0] != common[0]]
        return (
            [
                f"left out of the comparisons with the first visit, because their own first visit is not {common[0]}: "
                f"{_listed(late)}"
            ]
            if late
            else []
        )
    usual = Counter(names.values()).most_common(1)[0][0]
    others = [f"{subject} ({', '.join(found)})" for subject, found in names.items() if found != usual]
    return [
        "visits are compared by their number, because the names of the visits have no order that is common to all "
        f"subjects: {_listed(others)} in contrast to {', '.join(usual)}; give the same visits of all subjects the same "
        "names"
    ]


def _listed(subjects: list[str]) -> str:
    more = len(subjects) - _MOST_NAMED
    return ", ".join(subjects[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
