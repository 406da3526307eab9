"""Results that a cohort lacks, and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..plan import FOLDERS, Plan
from ..programs import last_error, was_cancelled
from ..record import Record, is_current, read_record
from ..visits import Visit

NOT_DONE = "not done yet: run again"
_STOPPED = "it was told to stop before it had ended, perhaps for lack of time: run again"
_SILENT = "it ended without a message: it was stopped, perhaps for lack of memory or time"


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


def find_failure(
    folder: Path,
    plan: Plan,
    visit: Visit,
    record: Record | None = None,
    not_done: str = NOT_DONE,
    interrupted: bool = False,
) -> Failure | None:
    """Say why the result of a visit is missing or does not count; None if it is there.

    Args:
        folder: Output folder of the run.
        plan: What was to be done.
        visit: A later visit of a subject, or its only one.
        record: What the stages were made with; None to read it.
        not_done: What is said of a result that is missing although no stage has failed.
        interrupted: Whether the user has stopped the run, so that stages which were told to stop have not failed.
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
        printed = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else None
        if printed is not None and not (interrupted and was_cancelled(printed)):
            said = _STOPPED if was_cancelled(printed) else last_error(printed) or _SILENT
            return Failure(visit.subject, visit.name, stage, f"{stage} of {of_visit.name}: {said}")
    if missing:
        return Failure(visit.subject, visit.name, "", not_done)
    return Failure(visit.subject, visit.name, "", outdated) if outdated else None
