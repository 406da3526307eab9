"""Whether the visits of a cohort contradict each other, and whether they are in the order of time."""

from __future__ import annotations

import datetime

from .file_dates import recorded_day
from .visits import DATE, MODALITIES, Visit


def contradictions(visits: list[Visit]) -> list[str]:
    """Visits that occur twice, files of two subjects, subjects without CEST."""
    problems = []
    seen: set[tuple[str, str]] = set()
    owners: dict[tuple[str, str], str] = {}
    with_cest = {visit.subject for visit in visits if visit.has_cest}
    for visit in visits:
        key = (visit.subject.lower(), visit.name.lower())  # some file systems do not tell the case
        if all(key) and key in seen:
            problems.append(f"the visit {visit.name} of {visit.subject} occurs more than once")
        seen.add(key)
        for column, path in visit.files.items():
            owner = owners.setdefault((column, path), f"{visit.subject} {visit.name}")
            if owner != f"{visit.subject} {visit.name}" and not column.endswith("protocol"):
                problems.append(f"{owner} and {visit.subject} {visit.name} have the same file for {column}: '{path}'")
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
        text = visit.attributes.get(DATE, "")
        if text in ("", "-"):
            continue
        try:
            day = datetime.date.fromisoformat(text)
        except ValueError:
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
    """Files that were acquired before the same file of an earlier visit, as their sidecars or DICOM headers say."""
    problems = []
    latest: dict[tuple[str, str], tuple[datetime.date, Visit]] = {}
    for visit in visits:
        earlier: dict[tuple[str, datetime.date, datetime.date], list[str]] = {}
        for column in (*MODALITIES, "cest"):
            day = recorded_day(visit.files[column]) if column in visit.files else None
            if day is None:
                continue
            before = latest.get((visit.subject, column))
            if before is not None and day < before[0]:
                earlier.setdefault((before[1].name, before[0], day), []).append(column)
            else:
                latest[visit.subject, column] = (day, visit)
        problems += [
            f"the files of {visit.subject} are in the wrong order: {', '.join(columns)} of {visit.name} was acquired "
            f"on {day}, before that of {name} ({first}), as the files say; put the earlier visit first"
            for (name, first, day), columns in earlier.items()
        ]
    return problems
