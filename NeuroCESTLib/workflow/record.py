"""What the stages of a cohort were made with: a file in the output folder by which outdated results are known.

Snakemake knows it too, but only while it runs. Here a stage is current if it was run with the arguments that the plan
has now, and if what it read has not changed since. Of stages from before there was such a file, the arguments are not
known; then times alone tell whether something they read is newer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from NeuroCESTLib.core.checked_json import read_json
from NeuroCESTLib.core.checksum import sha256
from NeuroCESTLib.core.whole_files import write_text

from .engine import STATE
from .plan import FOLDERS, Plan

_REPORT = "report.json"
_HASHED_BYTES = 1_000_000
"""Files up to this size are compared by content, as Snakemake does; of larger ones the time counts."""

Record = Mapping[str, Any]
"""Of each stage, by its folder, the time of its report in ns, its arguments, and the state of what it read."""


def read_record(folder: Path) -> Record:
    """Read the record of an output folder; empty where there is none."""
    try:
        content = read_json(folder / STATE / "made.json")
    except (OSError, ValueError):
        return {}
    return {key: entry for key, entry in content.items() if _is_entry(entry)} if isinstance(content, dict) else {}


def update_record(folder: Path, plan: Plan | None) -> None:
    """Note the arguments of the stages that were run since the last time.

    It is called before a run, with the plan of the run before, and after it, so that every stage is noted with the
    arguments that it was run with, even where a run was killed.

    Args:
        folder: Output folder of the run.
        plan: Plan of the latest run; None where there was none that can be read.
    """
    known, file = read_record(folder), folder / STATE / "made.json"
    is_first = not file.is_file()
    found: dict[str, Any] = {}
    for report in sorted(report for name in FOLDERS.values() for report in folder.glob(f"*/*/{name}/{_REPORT}")):
        key, time = report.parent.relative_to(folder).as_posix(), report.stat().st_mtime_ns
        if key in known and known[key]["time"] == time:
            found[key] = known[key]
        else:
            found[key] = {"time": time, "arguments": None, "read": {}}
            if plan is not None and not is_first:
                found[key] |= _made_with(folder, plan, key, time)
    write_text(json.dumps(found, indent=1) + "\n", file)


def is_current(folder: Path, plan: Plan, record: Record, stage: str, subject: str, visit: str) -> bool:
    """Check that a finished stage was made with the arguments and files of the plan.

    Args:
        folder: Output folder of the run.
        plan: What is to be done.
        record: Result of ``read_record``.
        stage: One of ``plan.STAGES``.
        subject: Name of the subject.
        visit: Name of the visit.
    """
    key = f"{subject}/{visit}/{FOLDERS[stage]}"
    job = plan.job(stage, subject, visit)
    time = (folder / key / _REPORT).stat().st_mtime_ns
    entry = record.get(key)
    arguments, read = (None, {}) if entry is None or entry["time"] != time else (entry["arguments"], entry["read"])
    if arguments is not None and tuple(arguments) != job.arguments:
        return False
    if (
        stage == "import"
        and any(_file(folder, name).exists() for name in job.inputs)
        and not read.keys() <= {*job.inputs}
    ):
        return False  # some of the scanner files were removed, and not all of them, as in an archive
    return not any(_is_changed(folder, name, read.get(name), time, arguments is not None) for name in job.inputs)


def _is_changed(folder: Path, name: str, before: str | None, time: int, noted: bool) -> bool:
    """Whether a file, or the result of another stage, has changed since a stage read it at a time in ns.

    Where it is noted what the stage read, a file without a state is new or changed while the stage ran; large files
    never have one.
    """
    file = _file(folder, name)
    try:
        state = file.stat()
        if before is not None and (file.name == _REPORT or state.st_mtime_ns > time):
            return _state_of(file) != before
    except OSError:
        return False  # what is gone cannot be compared, and what was made of it is still right
    compared = file.name == _REPORT or state.st_size <= _HASHED_BYTES
    if noted and before is None and compared:
        return True
    return state.st_mtime_ns > time and (file.name == _REPORT or not compared)


def _state_of(file: Path) -> str:
    """What tells whether a file has changed: the time of a report, the checksum of a small file; empty for others."""
    state = file.stat()
    if file.name == _REPORT:
        return str(state.st_mtime_ns)
    return sha256(file) if state.st_size <= _HASHED_BYTES else ""


def _made_with(folder: Path, plan: Plan, key: str, time: int) -> dict[str, Any]:
    """Arguments of a stage by its folder, and the state of what it read until a time in ns; what is newer has none."""
    subject, visit, name = key.split("/")
    stage = next(stage for stage, of_stage in FOLDERS.items() if of_stage == name)
    try:
        job = plan.job(stage, subject, visit)
    except KeyError:  # it is no part of this plan
        return {}
    files = {name: _file(folder, name) for name in job.inputs}
    unchanged = {name: file for name, file in files.items() if file.is_file() and file.stat().st_mtime_ns <= time}
    states = {name: _state_of(file) for name, file in unchanged.items()}
    return {"arguments": list(job.arguments), "read": {name: state for name, state in states.items() if state}}


def _file(folder: Path, name: str) -> Path:
    """File of an input; the report of another stage stands for its folder."""
    path = folder / name
    return path / _REPORT if path.is_dir() else path


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("time"), int)
        and isinstance(entry.get("read"), dict)
        and (entry.get("arguments") is None or isinstance(entry["arguments"], list))
    )
