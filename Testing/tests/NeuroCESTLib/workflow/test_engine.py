"""A cohort on Snakemake: order of work, resumption, failures, and one run at a time."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cohorts import StandIns, read_table, write_cohort, write_settings
from paths import ROOT
from studies import checksums

from NeuroCESTLib.workflow.batch import main
from NeuroCESTLib.workflow.engine import require_engine, targets_of
from NeuroCESTLib.workflow.manifest import read_cohort
from NeuroCESTLib.workflow.plan import Plan
from NeuroCESTLib.workflow.results.failures import NOT_DONE, find_failure
from NeuroCESTLib.workflow.settings import Settings

pytest.importorskip("snakemake", reason='cohorts run on Snakemake: pip install "snakemake>=9"')
psutil = pytest.importorskip("psutil")  # comes with Snakemake


@pytest.fixture
def stand_ins(tmp_path: Path) -> StandIns:
    return StandIns(tmp_path / "stand_ins")


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return write_cohort(tmp_path / "cohort")


def wait_for(path: Path, process) -> None:
    """Wait until a file is there; the process must not end before."""
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)


def test_the_remedy_for_a_missing_snakemake_names_what_is_on_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'is not installed: run pip install "snakemake>=9"$'):
        require_engine()
    assert 'cohort = ["snakemake>=9"]' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


ALL = sorted(
    call
    for subject in ("s01", "s02")
    for call in (f"fit {subject}/v1", f"fit {subject}/v2", f"apply {subject}/v2", f"compartments {subject}/v2")
)


@pytest.mark.slow
def test_everything_is_done_once_and_only_what_depends_on_a_change_is_done_again(
    stand_ins: StandIns, manifest: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    settings = write_settings(tmp_path / "settings.json", method="mtrasym")
    arguments = ("run", manifest, "--output", out, "--settings", settings, "--cores", 2)
    stand_ins.complete(*arguments, "--compare", "group")
    assert stand_ins.calls() == ALL
    rows = read_table(out / "cohort.csv")
    assert {(row["subject"], row["visit"], row["group"]) for row in rows if row["statistic"] == "mean"} == {
        ("s01", "v1", "odd"),
        ("s01", "v2", "odd"),
        ("s02", "v1", "even"),
        ("s02", "v2", "even"),
    }
    assert "Cohort report" in (out / "report.html").read_text(encoding="utf-8")

    stand_ins.complete(*arguments)
    assert stand_ins.calls() == []

    (tmp_path / "cohort" / "s02_v1_cest.nii").write_text("measured again")
    stand_ins.complete(*arguments)
    assert stand_ins.calls() == ["compartments s02/v2", "fit s02/v1"]

    write_settings(settings, method="mtrasym", compartments=["--rim", "3"])
    stand_ins.complete(*arguments)
    assert stand_ins.calls() == ["compartments s01/v2", "compartments s02/v2"]


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_stopped(stand_ins: StandIns, manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("run", manifest, "--output", out, "--cores", 1)
    stand_ins.stall("fit s02/v2")
    process = stand_ins.start(*arguments)
    wait_for(stand_ins.folder / "stalled", process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done_before = stand_ins.calls()
    finished = [call for call in done_before if call != "fit s02/v2"]
    assert (out / "s02" / "v2" / "maps" / "half").is_file()

    stand_ins.go_on()
    stand_ins.complete(*arguments)
    assert stand_ins.calls() == sorted(set(ALL) - set(finished))
    assert not (out / "s02" / "v2" / "maps" / "half").exists()
    assert {row["subject"] for row in read_table(out / "cohort.csv") if row["value"]} == {"s01", "s02"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"method": "nosuch"}, ["fit of s01 v1: --method: method 'nosuch' is unknown"]),
        ({"method": "r1rho"}, ["fit of s01 v1: the method r1rho needs a tissue model file"]),
        ({"method": "mtr-rex", "fit": ["--t1map", "3"]}, ["unrecognized arguments: --t1map 3"]),
        (
            {"fit": ["--power", "abc"], "registration": ["--weights", "nosuch"], "compartments": ["--rim", "wide"]},
            [
                "fit of s01 v1: cestquant fit: argument --power: invalid float value: 'abc'",
                "registration of s01 v2: --weights: there are no weights 'nosuch'",
                "compartments of s01 v2: cestquant compartments: argument --rim",
            ],
        ),
        ({"registration": ["--labels", "nosuch"]}, ["registration of s01 v2: --labels"]),
        ({"registration": ["--refine", "-1"]}, ["registration of s01 v2: --refine is -1"]),
        ({"compartments": ["--labels", "core=1"]}, ["compartments of s01 v2: --labels has 'core=1'"]),
    ],
)
def test_what_a_command_would_refuse_is_told_before_anything_starts(
    settings: dict[str, object], words: list[str], manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_settings(tmp_path / "settings.json", **settings)
    assert main(["run", str(manifest), "--output", str(tmp_path / "out"), "--settings", str(file)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: the commands cannot run with '{manifest}' and '{file}': ")
    assert all(part in said for part in words)
    assert said.count(" of s0") == len(words)
    assert not (tmp_path / "out").exists()


def test_the_manifest_is_not_replaced_by_the_table_of_results(
    manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = shutil.copy(manifest, manifest.with_name("cohort.csv")) if manifest.name != "cohort.csv" else manifest
    before = checksums(manifest.parent)
    assert main(["run", str(named), "--output", str(manifest.parent)]) == 2
    assert f"'{named}' is an input of this run and would be replaced: choose another" in capsys.readouterr().err
    assert checksums(manifest.parent) == before


def test_a_second_run_in_the_same_folder_is_refused_until_the_first_has_ended(
    stand_ins: StandIns, manifest: Path, tmp_path: Path
) -> None:
    arguments = ("run", manifest, "--output", tmp_path / "out", "--cores", 1)
    stand_ins.stall("fit s01/v1")
    process = stand_ins.start(*arguments)
    wait_for(stand_ins.folder / "stalled", process)
    status, printed = stand_ins.run(*arguments)
    assert status == 2
    assert "is in use by another 'neurocest run'" in printed
    os.kill(process.pid, signal.SIGKILL)  # its engine lives on, and holds the lock
    process.wait()
    assert stand_ins.run(*arguments)[0] == 2
    os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_bad_subject_fails_alone_with_its_sentence_and_is_tried_again(
    stand_ins: StandIns, manifest: Path, tmp_path: Path
) -> None:
    out, image = tmp_path / "out", tmp_path / "cohort" / "s01_v2_cest.nii"
    image.write_text("bad")
    arguments = ("run", manifest, "--output", out, "--cores", 2)
    status, printed = stand_ins.run(*arguments)
    sentence = "fit of v2: 's01_v2_cest.nii' is not an image: convert it"
    assert status == 1
    assert f"failed: s01 v2: {sentence}" in printed
    rows = read_table(out / "cohort.csv")
    assert [row["message"] for row in rows if row["subject"] == "s01"] == [sentence]
    assert {row["visit"] for row in rows if row["subject"] == "s02" and row["value"]} == {"v1", "v2"}
    assert sentence in (out / "report.html").read_text(encoding="utf-8").replace("&#x27;", "'")

    stand_ins.calls()
    image.write_text("mended")
    stand_ins.complete(*arguments)
    assert stand_ins.calls() == ["compartments s01/v2", "fit s01/v2"]


@pytest.mark.slow
def test_an_earlier_result_does_not_hide_a_failure(stand_ins: StandIns, tmp_path: Path) -> None:
    manifest, out = write_cohort(tmp_path / "cohort", subjects=1), tmp_path / "out"
    stand_ins.complete("run", manifest, "--output", out, "--cores", 2)
    (tmp_path / "cohort" / "s01_v1_cest.nii").write_text("bad")
    assert stand_ins.run("run", manifest, "--output", out, "--cores", 2)[0] == 1
    assert [row["value"] for row in read_table(out / "cohort.csv")] == [""]
    stand_ins.calls()
    assert stand_ins.run("run", manifest, "--output", out, "--cores", 2)[0] == 1
    assert stand_ins.calls() == ["fit s01/v1"]  # it is tried again


def test_a_dry_run_and_a_graph_change_nothing(stand_ins: StandIns, manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stand_ins.complete("run", manifest, "--output", out, "--dry-run", "--cores", 1)
    stand_ins.complete("run", manifest, "--output", out, "--dag", tmp_path / "dag.mmd")
    assert "compartments" in (tmp_path / "dag.mmd").read_text()
    assert stand_ins.calls() == []
    assert not out.exists()


@pytest.mark.slow
def test_a_subject_that_joins_the_cohort_is_done_alone(stand_ins: StandIns, tmp_path: Path) -> None:
    out = tmp_path / "out"
    manifest = write_cohort(tmp_path / "cohort", subjects=1, visits=1)
    stand_ins.complete("run", manifest, "--output", out, "--cores", 2)
    assert stand_ins.calls() == ["compartments s01/v1", "fit s01/v1", "segment s01/v1"]
    shutil.copytree(tmp_path / "cohort", tmp_path / "kept")
    manifest = write_cohort(tmp_path / "more", subjects=2, visits=1)
    text = manifest.read_text().replace("s01_v1", "../cohort/s01_v1")
    manifest.write_text(text)
    stand_ins.complete("run", manifest, "--output", out, "--cores", 2)
    assert stand_ins.calls() == ["compartments s02/v1", "fit s02/v1", "segment s02/v1"]


def test_an_anonymous_run_passes_the_option_on_and_tells_no_paths(stand_ins: StandIns, tmp_path: Path) -> None:
    manifest, out = write_cohort(tmp_path / "Doe" / "cohort", subjects=1, visits=1), tmp_path / "out"
    (tmp_path / "Doe" / "cohort" / "s01_v1_cest.nii").write_text("bad")
    status, printed = stand_ins.run("run", manifest, "--output", out, "--cores", 1, "--anonymous")
    assert status == 1, printed
    plan = Plan.read(out / ".neurocest" / "plan.json")
    assert plan.job("fit", "s01", "v1").arguments[-1] == "--anonymous"
    for name in ("cohort.csv", "report.html"):
        assert "Doe" not in (out / name).read_text(encoding="utf-8")


@pytest.mark.slow
def test_results_of_earlier_settings_do_not_count(stand_ins: StandIns, tmp_path: Path) -> None:
    manifest, out = write_cohort(tmp_path / "cohort", 1, 1), tmp_path / "out"
    first, second = (write_settings(tmp_path / f"{name}.json", method=name) for name in ("lorentzian", "r1rho"))
    arguments = ("run", manifest, "--output", out, "--cores", 1, "--settings")
    stand_ins.complete(*arguments, first)
    (tmp_path / "cohort/s01_v1_t1.nii").touch()  # the same content: neither engine nor table mind
    assert main(["summarize", str(out)]) == 0
    status, said = stand_ins.run(*arguments, second, "--", "--until", "fit")
    assert (status, "compartments of v1: made with earlier settings or files: run again" in said) == (1, True)
    assert [row["value"] for row in read_table(out / "cohort.csv")] == [""]
    stand_ins.complete(*arguments, second)


@pytest.mark.slow
def test_exchanged_files_are_read_again_though_they_keep_their_times(stand_ins: StandIns, tmp_path: Path) -> None:
    manifest, out = write_cohort(tmp_path / "cohort", 1), tmp_path / "out"
    (out / "s01/v2/registration").mkdir(parents=True)  # an empty folder is no result
    arguments = ("run", manifest, "--output", out, "--cores", 1)
    stand_ins.complete(*arguments)
    assert stand_ins.calls() == [call for call in ALL if "s01" in call]
    one, two, spare = (tmp_path / "cohort" / name for name in ("s01_v1_cest.nii", "s01_v2_cest.nii", "spare"))
    for old, new in ((one, spare), (two, one), (spare, two)):
        old.rename(new)
    stand_ins.complete(*arguments)
    assert stand_ins.calls() == ["compartments s01/v2", "fit s01/v1", "fit s01/v2"]
    stand_ins.complete(*arguments)
    assert stand_ins.calls() == []


@pytest.mark.slow
def test_an_output_folder_may_have_any_name(stand_ins: StandIns, tmp_path: Path) -> None:
    manifest, out = write_cohort(tmp_path / "cohort", 1, 1), tmp_path / "results #1: {it's}"
    status, said = stand_ins.run("run", manifest, "--output", out, "--cores", 1)
    assert status == 0, said


def test_files_whose_path_is_a_pattern_for_the_engine_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    manifest = write_cohort(tmp_path / "study {2024}", 1, 1)
    assert main(["run", str(manifest), "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "{2024}/s01_v1_cest.nii' and 2 more files have braces in the path" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("only", [(), ("--dry-run",)])
def test_files_from_the_future_are_refused(
    only: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    manifest, image = write_cohort(tmp_path / "cohort", 1, 1), tmp_path / "cohort/s01_v1_cest.nii"
    os.utime(image, (time.time() + 3600, time.time() + 3600))
    assert main(["run", str(manifest), "--output", str(tmp_path / "out"), *only]) == 2
    assert f"the time of '{image}' lies in the future" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_only_what_the_user_wants_is_done(stand_ins: StandIns, manifest: Path, tmp_path: Path) -> None:
    arguments = ("run", manifest, "--output", tmp_path / "out", "--cores", 1)
    stand_ins.complete(*arguments)
    stand_ins.calls()
    for name in ("s01_v1_cest", "s01_v2_t1", "s02_v2_t1"):
        (tmp_path / f"cohort/{name}.nii").write_text("measured again")
    stand_ins.run(*arguments, "--", "s01/v1/maps")
    assert stand_ins.calls() == ["fit s01/v1"]


@pytest.mark.parametrize(
    ("arguments", "targets"),
    [
        (["s01/v2/maps"], ["s01/v2/maps"]),
        (["./s01/v2/maps/", "--quiet"], ["s01/v2/maps"]),
        (["--forcerun", "s01/v2/maps", "s02/v2/maps"], []),
        (["--until=fit", "-U", "s01/v2/maps", "--keep-incomplete", "s02/v2/maps"], ["s02/v2/maps"]),
        (["-R", "fit", "--cores", "1", "s02/v2/maps"], ["1", "s02/v2/maps"]),
    ],
)
def test_targets_are_told_from_values_of_options(arguments: list[str], targets: list[str]) -> None:
    assert targets_of(arguments) == targets


def test_an_engine_that_fails_before_any_job_is_told_as_the_reason(stand_ins: StandIns, tmp_path: Path) -> None:
    manifest, out = write_cohort(tmp_path / "cohort", 1, 1), tmp_path / "out"
    assert stand_ins.run("run", manifest, "--output", out, "--cores", 1, "--", "--no-such-option")[0] == 1
    assert [row["message"] for row in read_table(out / "cohort.csv")] == [
        "not done: Snakemake failed before any stage was started, see its messages"
    ]


@pytest.fixture
def stalled(stand_ins: StandIns, tmp_path: Path) -> Iterator[subprocess.Popen]:
    """A run whose first stage is under way."""
    manifest = write_cohort(tmp_path / "cohort", 1, 1)
    stand_ins.stall("fit s01/v1")
    process = stand_ins.start("run", manifest, "--output", tmp_path / "out", "--cores", 1)
    wait_for(stand_ins.folder / "stalled", process)
    yield process
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def press_control_c(process: subprocess.Popen) -> None:
    """Send what a terminal sends, to the run and to all that it has started, until it says that it was cancelled."""
    os.killpg(process.pid, signal.SIGINT)
    assert any("cancelled: waiting for the stages under way" in line for line in process.stderr)


def test_an_interrupted_run_does_not_leave_its_stages_behind(stalled: subprocess.Popen) -> None:
    stalled.send_signal(signal.SIGINT)
    assert any("cancelled: waiting for the stages under way" in line for line in stalled.stderr)
    with pytest.raises(subprocess.TimeoutExpired):  # it waits, and so holds the lock
        stalled.wait(1)


def test_stages_under_way_end_well_after_control_c(
    stalled: subprocess.Popen, stand_ins: StandIns, tmp_path: Path
) -> None:
    press_control_c(stalled)
    stand_ins.go_on()
    printed = stalled.communicate()[1]
    assert "failed: s01 v1: not done yet: run again" in printed
    assert stalled.returncode == 1
    assert (tmp_path / "out/s01/v1/maps/report.json").is_file()


def test_a_second_control_c_stops_the_stages_too(stalled: subprocess.Popen, stand_ins: StandIns) -> None:
    press_control_c(stalled)
    os.killpg(stalled.pid, signal.SIGINT)
    assert stalled.wait(60) == 1
    stage = int((stand_ins.folder / "stalled").read_text())
    assert not psutil.pid_exists(stage) or psutil.Process(stage).status() == psutil.STATUS_ZOMBIE


def test_a_stage_that_was_told_to_stop_has_failed_unless_the_user_stopped_the_run(tmp_path: Path) -> None:
    plan = Plan.of(read_cohort(write_cohort(tmp_path / "cohort", 1, 1)), Settings())
    log = tmp_path / "s01/v1/logs/fit.log"
    log.parent.mkdir(parents=True)
    log.write_text(" 63 % fitting\ncancelled, nothing written\n")
    failure = find_failure(tmp_path, plan, plan.visits["s01"][0], interrupted=True)
    assert (failure.stage, failure.sentence) == ("", NOT_DONE)
    failure = find_failure(tmp_path, plan, plan.visits["s01"][0])  # as at the time limit of a cluster
    assert failure.stage == "fit"
    assert failure.sentence.startswith("fit of v1: it was told to stop before it had ended, perhaps for lack of time")


def test_python_files_in_the_folder_of_the_user_are_not_run(
    stand_ins: StandIns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, mine = write_cohort(tmp_path / "cohort", 1, 1), tmp_path / "mine"
    mine.mkdir()
    for name in ("random", "signal", "csv"):
        (mine / f"{name}.py").write_text("raise SystemExit('a file of the user was run')")
    monkeypatch.chdir(mine)
    status, printed = stand_ins.run("run", manifest, "--output", mine, "--cores", 1)
    assert status == 0, printed
