"""What the stages of a cohort were made with: a file in the output folder by which outdated results are known.

Snakemake knows it too, but only while it runs, and it does not notice a file whose place an older one has taken. Here a
stage is current if it was run with the arguments that the plan has now, and if what it read has not changed since. Of
stages from before there was such a file, the arguments are not known; then times alone tell whether something they read
is newer.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from NeuroCESTLib.core.checked_json import read_json
from NeuroCESTLib.core.checksum import sha256
from NeuroCESTLib.core.whole_files import write_text

from .compartments_report import read_summary
from .engine import STATE
from .plan import FOLDERS, Job, Plan

_REPORT = "report.json"
_HASHED_BYTES = 1_000_000
"""Files up to this size are compared by content also by Snakemake, and were by earlier versions."""
_TELL_EVERY_S = 10.0

Record = Mapping[str, Any]
"""Of each stage, by its folder, the time of its report in ns, its arguments, and of what it read the states and stamps.

Stages that were noted by earlier versions have no stamps until ``update_record`` is called."""


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
    known, file, checksum_of = read_record(folder), folder / STATE / "made.json", _Checksums()
    is_first = not file.is_file()
    found: dict[str, Any] = {}
    for report in sorted(report for name in FOLDERS.values() for report in folder.glob(f"*/*/{name}/{_REPORT}")):
        key, ended = report.parent.relative_to(folder).as_posix(), report.stat().st_mtime_ns
        if key in known and known[key]["time"] == ended:
            renew = _stamped_again if "stamps" in known[key] else _completed
            found[key] = renew(folder, plan, key, known[key], checksum_of)
        else:
            found[key] = {"time": ended, "arguments": None, "read": {}}  # nobody knows with which plan it was made
            job = None if is_first else _job_of(plan, key)
            if job is not None:
                found[key] |= {"arguments": list(job.arguments), **_read_by(folder, job, key, ended, checksum_of)}
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


def folders_to_redo(folder: Path, plan: Plan, targets: Sequence[str] = ()) -> list[str]:
    """Return the folders of stages that have to be done again, although Snakemake may take them for finished.

    These are folders without a report or with damaged tables, folders that are missing although a stage that reads them
    has one, as where a stage fails when it is done again, and those of stages that read a file which has changed,
    whatever its time.

    Args:
        folder: Output folder of the run.
        plan: What is to be done.
        targets: Folders of stages that the user wants, of which nothing else is to be done; all where there are none.
            Names that are no such folders do not count.
    """
    jobs = {
        f"{visit.subject}/{visit.name}/{FOLDERS[stage]}": plan.job(stage, visit.subject, visit.name)
        for subject in plan.visits
        for stage, visit in plan.stages(subject)
    }
    wanted = _with_what_they_read(jobs, [key for key in targets if key in jobs] or jobs)
    read = {name for key, job in jobs.items() if (folder / key).is_dir() for name in job.inputs}
    record, found = read_record(folder), []
    for key, job in jobs.items():
        if key not in wanted:
            continue
        if not (folder / key / _REPORT).is_file():
            if key in read or (folder / key).is_dir():
                found.append(key)
            continue
        if Path(key).name == FOLDERS["compartments"] and _is_damaged(folder / key):
            found.append(key)
            continue
        entry = _entry(folder, record, key)
        if any(_is_changed(folder, name, entry) for name in job.inputs):
            found.append(key)
    return found


def _is_damaged(compartments: Path) -> bool:
    try:
        read_summary(compartments)
    except ValueError:
        return True
    return False


def _with_what_they_read(jobs: Mapping[str, Job], folders: Iterable[str]) -> set[str]:
    """Folders of stages and of all those on which they depend."""
    found: set[str] = set()
    left = list(folders)
    while left:
        key = left.pop()
        if key in jobs and key not in found:
            found.add(key)
            left += jobs[key].inputs
    return found


def _entry(folder: Path, record: Record, key: str) -> Mapping[str, Any]:
    """What is noted of a finished stage, and nothing but its time where it is another result than the noted one."""
    ended = (folder / key / _REPORT).stat().st_mtime_ns
    entry = record.get(key)
    return {"time": ended, "arguments": None, "read": {}} if entry is None or entry["time"] != ended else entry


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
    is_compared = is_report or state.st_size <= _HASHED_BYTES
    if entry["arguments"] is not None and (is_compared or "stamps" in entry):
        return True
    return state.st_mtime_ns > entry["time"] and (is_report or not is_compared)


def _stamp(state: os.stat_result) -> list[int]:
    """What tells without reading a file that it is the same: size, time of its content, and time of any change in ns.

    The last one changes, except on Windows, also where a file takes the place of another one and keeps its time.
    """
    return [state.st_size, state.st_mtime_ns, state.st_ctime_ns]


class _Checksums:
    """Checksums of files, of which each is read once; work that takes long is told."""

    def __init__(self) -> None:
        self._known: dict[Path, str] = {}
        self._told = time.monotonic()

    def __call__(self, file: Path) -> str:
        if file not in self._known:
            self._known[file] = sha256(file)
            if time.monotonic() - self._told > _TELL_EVERY_S:
                print(f"noting what the stages have read, files so far: {len(self._known)}", file=sys.stderr)
                self._told = time.monotonic()
        return self._known[file]


def _stamped_again(
    folder: Path, plan: Plan | None, key: str, entry: Mapping[str, Any], checksum_of: _Checksums
) -> Mapping[str, Any]:
    """An entry with new stamps for files whose content is the same, so that they are not read every time."""
    stamps = dict(entry["stamps"])
    for name, stamp in stamps.items():
        with contextlib.suppress(OSError):
            now = _stamp((folder / name).stat())
            if now != stamp and checksum_of(folder / name) == entry["read"].get(name):
                stamps[name] = now
    return {**entry, "stamps": stamps}


def _completed(
    folder: Path, plan: Plan | None, key: str, entry: Mapping[str, Any], checksum_of: _Checksums
) -> Mapping[str, Any]:
    """An entry of an earlier version, which noted neither stamps nor large files, with both where they can be known."""
    job = _job_of(plan, key)
    if job is None or list(job.arguments) != entry["arguments"]:
        return entry  # it was made from other files
    if not all(_file(folder, name).is_file() for name in job.inputs):
        return entry  # some are out of reach, as on a disk that is not mounted now
    found = _read_by(folder, job, key, entry["time"], checksum_of)
    large = {name: checksum for name, checksum in found["read"].items() if _is_large(folder / name)}
    read = {**large, **entry["read"]}
    stamps = {name: stamp for name, stamp in found["stamps"].items() if read.get(name) == found["read"][name]}
    return {**entry, "read": read, "stamps": stamps}


def _is_large(file: Path) -> bool:
    return file.is_file() and file.stat().st_size > _HASHED_BYTES


def _job_of(plan: Plan | None, key: str) -> Job | None:
    """The job that makes the folder of a stage; None where it is no part of the plan."""
    subject, visit, name = key.split("/")
    stage = next(stage for stage, of_stage in FOLDERS.items() if of_stage == name)
    try:
        return None if plan is None else plan.job(stage, subject, visit)
    except KeyError:
        return None


def _read_by(folder: Path, job: Job, key: str, ended: int, checksum_of: _Checksums) -> dict[str, Any]:
    """States and stamps of what a stage read that ended at a time in ns.

    The state of the report of another stage is its time, and that of a file its checksum. A file that was changed or
    replaced after the stage had read it has no stamp, and no state either where the report does not tell it. Nobody
    knows when a stage reads its files, so all that was changed since it began is compared by its content.
    """
    reported, began = _reported(folder / key / _REPORT)
    began = min(began or ended, ended)
    by_path, checksums = dict(reported), {checksum for _, checksum in reported}
    read, stamps = {}, {}
    for name, file in {name: _file(folder, name) for name in job.inputs}.items():
        if not file.is_file():
            continue
        state = file.stat()
        if file.name == _REPORT:
            if state.st_mtime_ns <= ended:
                read[name] = str(state.st_mtime_ns)
            continue
        checksum = by_path.get(str(file))
        if checksum is not None:
            is_read = max(state.st_mtime_ns, state.st_ctime_ns) < began or checksum_of(file) == checksum
        else:
            # Reports of anonymous runs tell the checksums, but not of which files they are.
            is_read = state.st_mtime_ns < began or checksum_of(file) in checksums
            checksum = checksum_of(file) if is_read else None
        if checksum is not None:
            read[name] = checksum
        if is_read:
            stamps[name] = _stamp(state)
    return {"read": read, "stamps": stamps}


def _reported(report: Path) -> tuple[list[tuple[str, str]], int | None]:
    """Paths and checksums of the files that a stage has read, and when it began in ns, as far as its report tells."""
    try:
        content = read_json(report)
    except (OSError, ValueError):
        return [], None
    if not isinstance(content, dict):
        return [], None
    inputs, began = content.get("inputs"), None
    with contextlib.suppress(KeyError, TypeError, ValueError):
        began = int(datetime.datetime.fromisoformat(content["started"]).timestamp()) * 1_000_000_000
    entries = [entry for entry in inputs if isinstance(entry, dict)] if isinstance(inputs, list) else []
    named = [(entry.get("path"), entry.get("sha256")) for entry in entries if "files" not in entry]
    return [(path, checksum) for path, checksum in named if isinstance(path, str) and isinstance(checksum, str)], began


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
