"""Files of the user in the output folder: a run that would remove them is refused, one that goes on is not."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from cohorts import write_manifest
from studies import checksums

from NeuroCESTLib.workflow.batch import main
from NeuroCESTLib.workflow.engine import PLAN, STATE
from NeuroCESTLib.workflow.kept_files import require_files_kept
from NeuroCESTLib.workflow.plan import Plan
from NeuroCESTLib.workflow.settings import Settings
from NeuroCESTLib.workflow.visits import Visit


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A folder of data that is laid out as the results are."""
    maps = tmp_path / "study/s01/v1/maps"
    maps.mkdir(parents=True)
    for name in ("t1", "cest", "protocol"):
        (tmp_path / f"study/{name}.nii").write_text(name)
    (maps / "b0.nii").write_text("b0")
    (maps / "b0.json").write_text("named by no manifest")
    return tmp_path / "study"


def plan_of(folder: Path, **files: Path) -> Plan:
    given = {**{name: folder / f"{name}.nii" for name in ("t1", "cest", "protocol")}, **files}
    return Plan({"s01": [Visit("s01", "v1", {name: str(file) for name, file in given.items()}, {})]}, Settings())


def run_once(folder: Path, *left: str) -> None:
    """Leave what a run leaves in its output folder."""
    for name in (PLAN, *left):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")


@pytest.mark.parametrize("only", [(), ("--dry-run",)])
def test_the_data_of_a_study_are_not_removed(only: tuple[str, ...], study: Path, capsys: pytest.CaptureFixture) -> None:
    row = {"subject": "s01", "visit": "v1", "t1": "t1.nii", "cest": "cest.nii", "protocol": "protocol.nii"}
    manifest = write_manifest([{**row, "b0": "s01/v1/maps/b0.nii"}], study / "patients.csv")
    before = checksums(study)
    assert main(["run", str(manifest), "--output", str(study), *only]) == 2
    said = capsys.readouterr().err
    assert f"'{study / 's01/v1/maps'}' holds files that no earlier run" in said
    assert "choose another --output" in said
    assert checksums(study) == before
    assert not (study / STATE).exists()


def test_files_that_the_manifest_does_not_name_are_kept_too(study: Path) -> None:
    with pytest.raises(ValueError, match=r"maps' holds files that no earlier run .* choose another --output"):
        require_files_kept(study, plan_of(study))


def test_results_that_no_run_has_made_are_kept(study: Path) -> None:
    (study / "s01/v1/maps/report.json").write_text("{}")  # of 'cestquant fit', called by hand
    with pytest.raises(ValueError, match="holds files that no earlier run"):
        require_files_kept(study, plan_of(study))


def test_earlier_results_are_replaced(study: Path) -> None:
    run_once(study, "s01/v1/maps/report.json")
    require_files_kept(study, plan_of(study))


def mark_of(stage: str, longest: int = 254) -> str:
    """File with which Snakemake marks a folder while a job makes it; a long name is divided among folders."""
    name = base64.urlsafe_b64encode(stage.encode()).decode()
    parts = [name[start : start + longest] for start in range(0, len(name), longest)]
    return "/".join([".snakemake/incomplete", *(f"@{part}" for part in parts[:-1]), parts[-1]])


@pytest.mark.parametrize("longest", [254, 5])
def test_what_a_killed_run_has_left_is_replaced(longest: int, study: Path) -> None:
    run_once(study, mark_of("s01/v1/maps", longest))
    require_files_kept(study, plan_of(study))


def test_files_that_the_user_lays_into_the_folder_of_a_failed_stage_are_kept(study: Path) -> None:
    run_once(study, "s01/v1/logs/fit.log", mark_of("s01/v1/registration"))
    with pytest.raises(ValueError, match=r"maps' holds files that no earlier run .* move them elsewhere"):
        require_files_kept(study, plan_of(study))


@pytest.mark.parametrize("left", ["report.json", ".snakemake_timestamp"])
def test_a_result_that_somebody_has_emptied_is_made_again(left: str, study: Path, tmp_path: Path) -> None:
    run_once(tmp_path / "results", f"s01/v1/maps/{left}")
    require_files_kept(tmp_path / "results", plan_of(study))


def test_files_of_file_managers_are_no_files_of_the_user(study: Path, tmp_path: Path) -> None:
    run_once(tmp_path / "results", "s01/v1/maps/.DS_Store")
    require_files_kept(tmp_path / "results", plan_of(study))


@pytest.mark.parametrize("output", ["study", "study/results"])
def test_results_are_not_laid_among_the_files_of_the_scanner(output: str, study: Path, tmp_path: Path) -> None:
    plan = plan_of(study, cest=study)
    with pytest.raises(ValueError, match=rf"'{tmp_path / output}' lies in '{study}', the folder of scanner files"):
        require_files_kept(tmp_path / output, plan)
    require_files_kept(tmp_path / "results", plan)


def test_a_folder_of_a_subject_that_joins_is_not_taken_for_that_of_an_earlier_run(study: Path) -> None:
    run_once(study)
    with pytest.raises(ValueError, match="holds files that no earlier run"):
        require_files_kept(study, plan_of(study))


def test_an_empty_folder_is_used(study: Path, tmp_path: Path) -> None:
    (tmp_path / "out/s01/v1/maps").mkdir(parents=True)
    require_files_kept(tmp_path / "out", plan_of(study))


@pytest.mark.parametrize("link", ["none", "file", "folder", "output"])
def test_an_input_in_the_folder_of_a_stage_is_kept_also_behind_links(link: str, study: Path, tmp_path: Path) -> None:
    run_once(study, "s01/v1/maps/report.json")
    file, output = study / "s01/v1/maps/b0.nii", study
    if link == "file":
        (study / "linked.nii").symlink_to(file)
        file = study / "linked.nii"
    elif link == "folder":
        (study / "linked").symlink_to(file.parent)
        file = study / "linked/b0.nii"
    elif link == "output":
        (tmp_path / "results").symlink_to(study)
        output = tmp_path / "results"
    with pytest.raises(ValueError, match=rf"'{file}' is an input of this run and lies in '{output}/s01/v1/maps'"):
        require_files_kept(output, plan_of(study, b0=file))


def test_inputs_beside_the_folders_of_the_stages_are_no_obstacle(study: Path) -> None:
    (study / "s01/v1/maps").rename(study / "s01/v1/fields")  # there are no fields to be made
    require_files_kept(study, plan_of(study, b0=study / "s01/v1/fields/b0.nii"))
