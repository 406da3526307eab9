"""What the stages of a cohort were made with: a file in the output folder by which outdated results are known.

Snakemake knows it too, but only while it runs, and it does not notice a file whose place an older one has taken. Here a
stage is current if it was run with the arguments that the plan has now, and if what it read has not changed since. Of
stages from before there was such a file, the arguments are not known; then times alone tell whether something they read
is newer.
"""

from __future__ import annotations

import contextlib
import json
import os
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
"""Files up to this size are compared by content, as Snakemake does; of larger ones their stamps count where the report
of the stage does not tell the checksum."""

Record = Mapping[str, Any]
"""Of each stage, by its folder, the time of its report in ns, its arguments, and of what it read the states and stamps.

Stages that were noted by earlier versions have no stamps."""


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
            found[key] = _stamped_again(folder, known[key])
        else:
            found[key] = {"time": time, "arguments": None, "read": {}}  # nobody knows with which plan it was made
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
    job = plan.job(stage, subject, visit)
    entry = _entry(folder, record, f"{subject}/{visit}/{FOLDERS[stage]}")
    if entry["arguments"] is not None and tuple(entry["arguments"]) != job.arguments:
        return False
    if (
        stage == "import"
        and any(_file(folder, name).exists() for name in job.inputs)
        and not entry["read"].keys() <= {*job.inputs}
    ):
        return False  # some of the scanner files were removed, and not all of them, as in an archive
    return not any(_is_changed(folder, name, entry) for name in job.inputs)


def folders_to_redo(folder: Path, plan: Plan) -> list[str]:
    """Return the folders of stages that have to be done again, although Snakemake may take them for finished.

    These are folders without a report, and stages that read a file which has changed, whatever its time.

    Args:
        folder: Output folder of the run.
        plan: What is to be done.
    """
    record, found = read_record(folder), []
    for stage, visit in (pair for subject in plan.visits for pair in plan.stages(subject)):
        key = f"{visit.subject}/{visit.name}/{FOLDERS[stage]}"
        if not (folder / key).is_dir():
            continue
        if not (folder / key / _REPORT).is_file():
            found.append(key)
            continue
        entry = _entry(folder, record, key)
        if any(_is_changed(folder, name, entry) for name in plan.job(stage, visit.subject, visit.name).inputs):
            found.append(key)
    return found


def _entry(folder: Path, record: Record, key: str) -> Mapping[str, Any]:
    """What is noted of a finished stage, and nothing but its time where it is another result than the noted one."""
    time = (folder / key / _REPORT).stat().st_mtime_ns
    entry = record.get(key)
    return {"time": time, "arguments": None, "read": {}} if entry is None or entry["time"] != time else entry


def _is_changed(folder: Path, name: str, entry: Mapping[str, Any]) -> bool:
    """Whether a file, or the result of another stage, has changed since a stage read it.

    Where it is noted what the stage read, a file without a state is new or changed while the stage ran. Earlier
    versions noted nothing of large files.
    """
    file, before, stamp = _file(folder, name), entry["read"].get(name), entry.get("stamps", {}).get(name)
    is_report = file.name == _REPORT
    try:
        state = file.stat()
        if stamp is not None and stamp == _stamp(state):
            return False
        if before is not None:
            return (str(state.st_mtime_ns) if is_report else sha256(file)) != before
    except OSError:
        return False  # what is gone cannot be compared, and what was made of it is still right
    if stamp is not None:
        return stamp[:2] != _stamp(state)[:2]  # the content is not known, and permissions alone are no change
    is_compared = is_report or state.st_size <= _HASHED_BYTES
    if entry["arguments"] is not None and (is_compared or "stamps" in entry):
        return True
    return state.st_mtime_ns > entry["time"] and (is_report or not is_compared)


def _stamp(state: os.stat_result) -> list[int]:
    """What tells without reading a file that it is the same: size, time of its content, and time of any change in ns.

    The last one changes, except on Windows, also where a file takes the place of another one and keeps its time.
    """
    return [state.st_size, state.st_mtime_ns, state.st_ctime_ns]


def _stamped_again(folder: Path, entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """An entry with new stamps for files whose content is the same, so that they are not read every time."""
    stamps = dict(entry.get("stamps", {}))
    for name, stamp in stamps.items():
        with contextlib.suppress(OSError):
            now = _stamp((folder / name).stat())
            if now != stamp and name in entry["read"] and sha256(folder / name) == entry["read"][name]:
                stamps[name] = now
    return {**entry, "stamps": stamps} if stamps else entry


def _state_of(file: Path) -> str:
    """What tells whether a file has changed: the time of a report, the checksum of a small file; empty for others."""
    state = file.stat()
    if file.name == _REPORT:
        return str(state.st_mtime_ns)
    return sha256(file) if state.st_size <= _HASHED_BYTES else ""


def _made_with(folder: Path, plan: Plan, key: str, time: int) -> dict[str, Any]:
    """Arguments of a stage by its folder, and states and stamps of what it read until a time in ns.

    A file that was changed or replaced after the stage had read it has no stamp.
    """
    subject, visit, name = key.split("/")
    stage = next(stage for stage, of_stage in FOLDERS.items() if of_stage == name)
    try:
        job = plan.job(stage, subject, visit)
    except KeyError:  # it is no part of this plan
        return {}
    checksums, read, stamps = _checksums(folder / key / _REPORT), {}, {}
    for name, file in {name: _file(folder, name) for name in job.inputs}.items():
        if not file.is_file():
            continue
        state, checksum = file.stat(), checksums.get(str(file))
        if checksum is not None:
            is_read = max(state.st_mtime_ns, state.st_ctime_ns) <= time or sha256(file) == checksum
        else:
            is_read = state.st_mtime_ns <= time
            checksum = _state_of(file) if is_read else ""
        if checksum:
            read[name] = checksum
        if is_read and file.name != _REPORT:
            stamps[name] = _stamp(state)
    return {"arguments": list(job.arguments), "read": read, "stamps": stamps}


def _checksums(report: Path) -> dict[str, str]:
    """Checksums of the files that a stage has read, by their paths, as far as its report tells them."""
    try:
        content = read_json(report)
    except (OSError, ValueError):
        return {}
    inputs = content.get("inputs") if isinstance(content, dict) else None
    entries = [entry for entry in inputs or () if isinstance(entry, dict) and "files" not in entry]
    return {entry["path"]: entry["sha256"] for entry in entries if {"path", "sha256"} <= entry.keys()}


def _file(folder: Path, name: str) -> Path:
    """File of an input; the report of another stage stands for its folder."""
    path = folder / name
    return path / _REPORT if path.is_dir() else path


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("time"), int)
        and isinstance(entry.get("read"), dict)
        and isinstance(entry.get("stamps", {}), dict)
        and all(isinstance(stamp, list) for stamp in entry.get("stamps", {}).values())
        and (entry.get("arguments") is None or isinstance(entry["arguments"], list))
    )
