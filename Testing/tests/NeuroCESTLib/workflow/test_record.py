"""Which results count: those that were made with the arguments and files of the plan."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from NeuroCESTLib.workflow import record
from NeuroCESTLib.workflow.engine import STATE
from NeuroCESTLib.workflow.plan import FOLDERS, Plan
from NeuroCESTLib.workflow.record import folders_to_redo, is_current, read_record, update_record
from NeuroCESTLib.workflow.results.failures import find_failure
from NeuroCESTLib.workflow.settings import Settings
from NeuroCESTLib.workflow.visits import Visit

STAGES = ("fit", "segmentation", "compartments")


def plan_of(folder: Path, method: str = "lorentzian", subjects: Sequence[str] = ("s01",)) -> Plan:
    files = {name: str(folder / f"data/{name}.nii") for name in ("t1", "cest", "protocol")}
    return Plan({subject: [Visit(subject, "v1", files, {})] for subject in subjects}, Settings(method=method))


def made(folder: Path, *stages: str, time: int = 100, subject: str = "s01") -> None:
    """Write the reports of stages, as if they had been run one after the other from a time in s."""
    for number, stage in enumerate(stages):
        report = folder / subject / "v1" / FOLDERS[stage] / "report.json"
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text('{"summary": {}}')
        os.utime(report, (time + number, time + number))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished patient."""
    (tmp_path / STATE).mkdir()
    (tmp_path / "data").mkdir()
    for name in ("t1", "cest", "protocol"):
        (tmp_path / f"data/{name}.nii").write_text(name)
        os.utime(tmp_path / f"data/{name}.nii", (1, 1))
    update_record(tmp_path, None)
    made(tmp_path, *STAGES)
    update_record(tmp_path, plan_of(tmp_path))
    return tmp_path


def outdated(folder: Path, plan: Plan) -> list[str]:
    return [stage for stage in STAGES if not is_current(folder, plan, read_record(folder), stage, "s01", "v1")]


def test_other_arguments_make_a_stage_outdated(folder: Path) -> None:
    assert outdated(folder, plan_of(folder)) == []
    assert outdated(folder, plan_of(folder, "r1rho")) == ["fit"]
    failure = find_failure(folder, plan_of(folder, "r1rho"), plan_of(folder).visits["s01"][0])
    assert failure.sentence == "fit of v1: made with earlier settings or files: run again"


def test_a_stage_that_was_run_again_makes_those_that_read_it_outdated(folder: Path) -> None:
    plan = plan_of(folder, "r1rho")
    update_record(folder, plan_of(folder))  # before the run
    made(folder, "fit", time=200)
    update_record(folder, plan)
    assert outdated(folder, plan) == ["compartments"]
    made(folder, "compartments", time=300)
    update_record(folder, plan)
    assert outdated(folder, plan) == []


def test_a_run_that_was_killed_is_noted_with_its_own_arguments(folder: Path) -> None:
    made(folder, "fit", time=200)
    update_record(folder, plan_of(folder))  # begins the next run, which has other settings
    assert "fit" in outdated(folder, plan_of(folder, "r1rho"))


def exchange(first: Path, second: Path) -> None:
    """Exchange two files by renaming them, which keeps their times."""
    spare = first.with_name("spare")
    first.rename(spare)
    second.rename(first)
    spare.rename(second)


def write_other(folder: Path, size: int) -> Path:
    """Write a file of the size and time of the CEST images, which get the size given, and with another content."""
    for name, text in (("cest", "x"), ("other", "y")):
        (folder / f"data/{name}.nii").write_text(text * size)
        os.utime(folder / f"data/{name}.nii", (1, 1))
    return folder / "data/other.nii"


def tell_checksum(folder: Path, file: Path, path: str | None = None) -> None:
    """Let the report of the fit tell the checksum of a file, without a change of its time."""
    report = folder / "s01/v1/maps/report.json"
    time = report.stat().st_mtime_ns
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    report.write_text(json.dumps({"inputs": [{"role": "signal", "path": path or str(file), "sha256": digest}]}))
    os.utime(report, ns=(time, time))


@pytest.mark.parametrize("size", [10, 2_000_000])
def test_a_file_that_takes_the_place_of_another_one_and_keeps_its_time_counts(size: int, folder: Path) -> None:
    other = write_other(folder, size)
    made(folder, *STAGES, time=50)
    update_record(folder, plan_of(folder))
    assert folders_to_redo(folder, plan_of(folder)) == []
    exchange(folder / "data/cest.nii", other)
    assert outdated(folder, plan_of(folder)) == ["fit"]
    assert folders_to_redo(folder, plan_of(folder)) == ["s01/v1/maps"]
    exchange(folder / "data/cest.nii", other)
    update_record(folder, plan_of(folder))
    assert outdated(folder, plan_of(folder)) == []


def test_checksums_in_the_report_tell_large_files_of_the_same_size_and_time_apart(folder: Path) -> None:
    other, cest = write_other(folder, 2_000_000), folder / "data/cest.nii"
    made(folder, *STAGES, time=60)
    tell_checksum(folder, cest)
    update_record(folder, plan_of(folder))
    cest.chmod(0o640)
    os.utime(cest, (400, 400))
    assert outdated(folder, plan_of(folder)) == []  # touched, but the same
    os.utime(cest, (1, 1))
    exchange(cest, other)
    assert outdated(folder, plan_of(folder)) == ["fit"]


def test_a_file_that_is_exchanged_after_a_stage_has_read_it_makes_the_stage_outdated(folder: Path) -> None:
    other, cest = write_other(folder, 10), folder / "data/cest.nii"
    made(folder, *STAGES, time=60)
    tell_checksum(folder, cest)
    exchange(cest, other)  # while another patient is fitted
    update_record(folder, plan_of(folder))
    assert outdated(folder, plan_of(folder)) == ["fit"]


def test_a_file_that_is_replaced_while_a_stage_runs_makes_the_stage_outdated(folder: Path) -> None:
    began, report = int(time.time()) - 100, folder / "s01/v1/maps/report.json"
    made(folder, *STAGES, time=began + 200)
    tell_checksum(folder, folder / "data/cest.nii")
    content = json.loads(report.read_text())
    started = datetime.datetime.fromtimestamp(began, datetime.timezone.utc).isoformat(timespec="seconds")
    report.write_text(json.dumps({**content, "started": started}))
    os.utime(report, (began + 200, began + 200))
    (folder / "data/cest.nii").write_text("a corrected scan, 100 s after the stage began")
    update_record(folder, plan_of(folder))
    assert outdated(folder, plan_of(folder)) == ["fit"]


def test_a_report_that_does_not_tell_paths_tells_the_files_by_their_checksums(folder: Path) -> None:
    write_other(folder, 2_000_000)
    made(folder, *STAGES, time=60)
    tell_checksum(folder, folder / "data/cest.nii", path="(a path)")
    os.utime(folder / "data/cest.nii", (400, 400))  # touched while another patient is fitted
    update_record(folder, plan_of(folder))
    assert outdated(folder, plan_of(folder)) == []


@pytest.fixture
def earlier(folder: Path) -> Path:
    """A patient with large CEST images, as an earlier version noted it: without stamps, and nothing of large files."""
    write_other(folder, 2_000_000)
    made(folder, *STAGES, time=50)
    tell_checksum(folder, folder / "data/cest.nii")
    update_record(folder, plan_of(folder))
    file = folder / STATE / "made.json"
    content = json.loads(file.read_text())
    for entry in content.values():
        del entry["stamps"]
        entry["read"].pop(str(folder / "data/cest.nii"), None)
    file.write_text(json.dumps(content))
    return folder


def test_a_record_without_stamps_remains_valid(earlier: Path) -> None:
    for _ in range(2):
        assert outdated(earlier, plan_of(earlier)) == []
        assert folders_to_redo(earlier, plan_of(earlier)) == []
        update_record(earlier, plan_of(earlier))


@pytest.mark.parametrize("is_noted", [False, True])
def test_large_files_of_earlier_versions_are_noticed_though_they_keep_their_times(
    is_noted: bool, earlier: Path
) -> None:
    if is_noted:
        update_record(earlier, plan_of(earlier))
    exchange(earlier / "data/cest.nii", earlier / "data/other.nii")
    update_record(earlier, plan_of(earlier))  # before the run
    assert outdated(earlier, plan_of(earlier)) == ["fit"]
    assert folders_to_redo(earlier, plan_of(earlier)) == ["s01/v1/maps"]


def test_a_record_of_an_earlier_version_remains_valid_where_its_files_were_out_of_reach(earlier: Path) -> None:
    (earlier / "data").rename(earlier / "unmounted")
    update_record(earlier, plan_of(earlier))
    (earlier / "unmounted").rename(earlier / "data")
    assert outdated(earlier, plan_of(earlier)) == []


def test_a_small_file_that_an_earlier_version_noted_is_not_taken_for_another_one(earlier: Path) -> None:
    (earlier / "data/protocol.nii").write_text("corrected")
    os.utime(earlier / "data/protocol.nii", (1, 1))
    update_record(earlier, plan_of(earlier))
    assert outdated(earlier, plan_of(earlier)) == ["fit"]


def test_each_file_is_read_once_and_work_that_takes_long_is_told(
    earlier: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    read: list[Path] = []
    checksum = record.sha256
    monkeypatch.setattr(record, "_TELL_EVERY_S", 0.0)
    monkeypatch.setattr(record, "sha256", lambda file: read.append(file) or checksum(file))
    update_record(earlier, plan_of(earlier))
    assert len(read) == len(set(read)) > 0
    assert "noting what the stages have read, files so far: 1" in capsys.readouterr().err


def test_a_folder_without_a_report_is_done_again(folder: Path) -> None:
    (folder / "s01/v1/maps/report.json").unlink()
    assert "s01/v1/maps" in folders_to_redo(folder, plan_of(folder))


def test_a_stage_that_has_failed_is_tried_again_though_a_later_one_has_its_earlier_result(folder: Path) -> None:
    shutil.rmtree(folder / "s01/v1/maps")
    assert folders_to_redo(folder, plan_of(folder)) == ["s01/v1/maps"]
    shutil.rmtree(folder / "s01/v1/compartments")
    assert folders_to_redo(folder, plan_of(folder)) == []  # Snakemake does what is missing by itself


def test_of_the_folders_that_the_user_wants_only_what_they_depend_on_is_done_again(folder: Path) -> None:
    plan = plan_of(folder, subjects=("s01", "s02"))
    made(folder, *STAGES, subject="s02")
    update_record(folder, plan)
    (folder / "data/cest.nii").write_text("measured again")
    assert folders_to_redo(folder, plan) == ["s01/v1/maps", "s02/v1/maps"]
    for wanted in ("s02/v1/maps", "s02/v1/compartments"):
        assert folders_to_redo(folder, plan, [wanted]) == ["s02/v1/maps"]
    assert folders_to_redo(folder, plan, ["s02/v1/segmentation"]) == []
    assert folders_to_redo(folder, plan, ["1", "all"]) == ["s01/v1/maps", "s02/v1/maps"]


@pytest.mark.parametrize("size", [10, 2_000_000])
def test_changed_files_count_and_those_that_were_only_touched_do_not(size: int, folder: Path) -> None:
    file = folder / "data/cest.nii"
    file.write_text("x" * size)
    os.utime(file, (1, 1))
    made(folder, *STAGES, time=50)
    update_record(folder, plan_of(folder))
    os.utime(file, (400, 400))
    assert outdated(folder, plan_of(folder)) == []
    file.write_text("y" * size)
    assert outdated(folder, plan_of(folder)) == ["fit"]


def test_a_file_that_changes_while_a_run_goes_on_makes_the_stage_outdated(folder: Path) -> None:
    made(folder, *STAGES, time=200)
    (folder / "data/protocol.nii").write_text("corrected")
    os.utime(folder / "data/protocol.nii", (250, 250))  # while another patient is fitted
    update_record(folder, plan_of(folder))
    assert outdated(folder, plan_of(folder)) == ["fit"]


def test_files_that_are_added_to_or_removed_from_those_of_a_scanner_make_the_import_outdated(folder: Path) -> None:
    scans = folder / "scans"
    scans.mkdir()
    for name in ("a", "b"):
        (scans / f"{name}.dcm").write_text(name)
        os.utime(scans / f"{name}.dcm", (1, 1))
    plan = Plan({"s01": [Visit("s01", "v1", {"t1": str(folder / "data/t1.nii"), "cest": str(scans)}, {})]}, Settings())
    made(folder, "import", *STAGES, time=300)
    update_record(folder, plan)

    def is_imported() -> bool:
        return is_current(folder, plan, read_record(folder), "import", "s01", "v1")

    assert is_imported()
    (scans / "c.dcm").write_text("c")
    os.utime(scans / "c.dcm", (1, 1))  # copied with its time
    assert not is_imported()
    (scans / "c.dcm").unlink()
    assert is_imported()
    (scans / "b.dcm").unlink()
    assert not is_imported()


def test_without_a_record_times_alone_count(folder: Path) -> None:
    (folder / STATE / "made.json").unlink()
    update_record(folder, plan_of(folder))  # nobody knows with which plan they were made
    assert outdated(folder, plan_of(folder, "r1rho")) == []
    made(folder, "fit", time=200)
    assert outdated(folder, plan_of(folder)) == ["compartments"]


@pytest.mark.parametrize("damage", ["{", "[]", '{"s01/v1/maps": 3}'])
def test_a_damaged_record_is_no_record(damage: str, folder: Path) -> None:
    (folder / STATE / "made.json").write_text(damage)
    assert read_record(folder) == {}
