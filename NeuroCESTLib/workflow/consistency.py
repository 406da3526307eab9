"""Whether the visits of a cohort contradict each other, and whether they are in the order of time."""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Mapping, Sequence

from .file_dates import recorded_day
from .visits import DATE, MODALITIES, Visit


def contradictions(visits: list[Visit]) -> list[str]:
    """Visits that occur twice, files of two subjects, subjects without CEST."""
    problems = []
    seen: set[tuple[str, str]] = set()
    spellings: dict[str, dict[str, None]] = {}
    owners: dict[tuple[str, str], str] = {}
    with_cest = {visit.subject for visit in visits if visit.has_cest}
    for visit in visits:
        spellings.setdefault(visit.subject.lower(), {})[visit.subject] = None
        key = (visit.subject.lower(), visit.name.lower())  # some file systems do not tell the case
        if all(key) and key in seen:
            problems.append(f"the visit {visit.name} of {visit.subject} occurs more than once")
        seen.add(key)
        for column, path in visit.files.items():
            owner = owners.setdefault((column, path), f"{visit.subject} {visit.name}")
            if owner != f"{visit.subject} {visit.name}" and not column.endswith("protocol"):
                problems.append(f"{owner} and {visit.subject} {visit.name} have the same file for {column}: '{path}'")
    problems += [
        f"the subjects {' and '.join(names)} differ in upper and lower case alone: write the same subject in one way, "
        "and give different ones different names"
        for names in spellings.values()
        if len(names) > 1
    ]
    aligned: dict[str, set[bool]] = {}
    for visit in visits:
        if visit.has_cest:
            aligned.setdefault(visit.subject, set()).add("to_anatomy" in visit.files)
    problems += [
        f"{subject} has to_anatomy for some of its visits with cest alone: give it for all or none"
        for subject, given in aligned.items()
        if len(given) > 1
    ]
    for subject in dict.fromkeys(visit.subject for visit in visits if visit.subject):
        if subject not in with_cest:
            problems.append(f"{subject} has no visit with cest")
    return problems


def wrong_order(visits: list[Visit]) -> list[str]:
    """Dates that cannot be read, and visits that come before an earlier one of the same subject."""
    problems = []
    latest: dict[str, tuple[datetime.date, str]] = {}
    for visit in visits:
        day = _day(visit)
        if day is None:
            text = visit.attributes.get(DATE, "")
            if text not in ("", "-"):
                problems.append(
                    f"the {DATE} '{text}' of {visit.subject} {visit.name} is no day: write it as in 2026-03-31, or "
                    "leave it out"
                )
            continue
        before = latest.get(visit.subject)
        if before is not None and day < before[0]:
            problems.append(
                f"the visits of {visit.subject} are in the wrong order: {visit.name} ({day}) is listed after "
                f"{before[1]} ({before[0]}), put the earlier one first"
            )
        else:
            latest[visit.subject] = (day, visit.name)
    return problems


def wrong_order_of_files(visits: list[Visit]) -> list[str]:
    """Files that were acquired before the same file of an earlier visit, as their sidecars or DICOM headers say.

    Where the manifest has the day of both visits, that counts, and files that contradict it are told in a warning.
    """
    problems = []
    latest: dict[tuple[str, str], tuple[datetime.date, Visit]] = {}
    for visit in visits:
        earlier: dict[tuple[str, datetime.date, datetime.date], list[str]] = {}
        contradicting: dict[tuple[str, datetime.date, datetime.date], list[str]] = {}
        for column in (*MODALITIES, "cest"):
            day = recorded_day(visit.files[column]) if column in visit.files else None
            if day is None:
                continue
            first, before = latest.get((visit.subject, column), (day, visit))
            date_before, date = _day(before), _day(visit)
            if day < first and (date_before is None or date is None):
                earlier.setdefault((before.name, first, day), []).append(column)
                continue
            latest[visit.subject, column] = (day, visit)
            # Dates in the wrong order are told by ``wrong_order``.
            if day < first and date_before is not None and date is not None and date_before <= date:
                contradicting.setdefault((before.name, first, day), []).append(column)
        problems += [
            f"the files of {visit.subject} are in the wrong order: {said}; put the earlier visit first"
            for said in _said(visit, earlier)
        ]
        for said in _said(visit, contradicting):
            warnings.warn(
                f"the files of {visit.subject} contradict the column {DATE}, which counts: {said}", stacklevel=1
            )
    return problems


def _said(visit: Visit, earlier: Mapping[tuple[str, datetime.date, datetime.date], Sequence[str]]) -> list[str]:
    """What the files say about columns of a visit, by the visit before, its day and the earlier one."""
    return [
        f"{', '.join(columns)} of {visit.name} was acquired on {day}, before that of {name} ({first}), as the files say"
        for (name, first, day), columns in earlier.items()
    ]


def _day(visit: Visit) -> datetime.date | None:
    """The day of a visit in the manifest; None where there is none, or none that can be read."""
    try:
        return datetime.date.fromisoformat(visit.attributes.get(DATE, ""))
    except ValueError:
        return None
