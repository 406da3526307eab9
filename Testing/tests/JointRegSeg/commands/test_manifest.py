"""The command ``jointregseg manifest``."""

from __future__ import annotations

from pathlib import Path

import pytest
from joint_cohorts import OLD_NAMES, write_brats
from studies import checksums

from JointRegSegLib.batch import main
from JointRegSegLib.cohort.manifest import read_manifest


def test_the_command_writes_a_manifest_that_reads_back(
    tmp_path: Path, capfd: pytest.CaptureFixture, slicer: object
) -> None:
    for number in range(4):
        name = f"BraTS2021_{number:05d}"
        write_brats(tmp_path / "data" / name, name, OLD_NAMES if number else OLD_NAMES[:4])
    output = tmp_path / "cohort.csv"
    assert main(["manifest", str(tmp_path / "data"), "--output", str(output), "--validation", "0.25"]) == 0
    assert "4 studies of 4 subjects" in capfd.readouterr().err
    cohort = read_manifest(output)
    assert len(cohort) == 4
    assert len(cohort.of_split("val")) == 1


def test_the_manifest_of_synthetic_patients_equals_the_one_written_with_them(tmp_path: Path, slicer: object) -> None:
    cohort = tmp_path / "patients/cohort.csv"
    assert main(["synthesize", "--patients", "2", "--spacing", "4", "--output", str(cohort.parent)]) == 0
    again = cohort.with_name("again.csv")
    assert main(["manifest", str(cohort.parent), "--output", str(again)]) == 0
    assert again.read_text() == cohort.read_text()


def test_a_single_study_is_reported_in_the_singular(
    tmp_path: Path, capfd: pytest.CaptureFixture, slicer: object
) -> None:
    write_brats(tmp_path / "data/P1", "P1", OLD_NAMES)
    assert main(["manifest", str(tmp_path / "data"), "--output", str(tmp_path / "cohort.csv")]) == 0
    assert "1 study of 1 subject (1 in 'train'), 1 labelled" in capfd.readouterr().err


def test_the_command_refuses_in_one_line_and_keeps_the_earlier_manifest(
    tmp_path: Path, capfd: pytest.CaptureFixture, slicer: object
) -> None:
    output = tmp_path / "cohort.csv"
    output.write_text("earlier")
    assert main(["manifest", str(tmp_path / "gone"), "--output", str(output)]) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert "gone' does not exist" in error
    assert output.read_text() == "earlier"


def test_a_manifest_replaces_no_file_of_the_data_set(
    tmp_path: Path, capfd: pytest.CaptureFixture, slicer: object
) -> None:
    write_brats(tmp_path / "data/P1", "P1", OLD_NAMES)
    points = tmp_path / "data/P1/P1_landmarks.csv"
    points.write_text("name,x,y,z\na,1,2,3\n")
    before = checksums(tmp_path)
    image = tmp_path / "data/P1/P1_t1.nii.gz"
    for output, words in (
        (image, f"cannot write '{image}': the name of a manifest must end in .csv"),
        (points, f"'{points}' is a file of the data set and would be replaced: choose another --output"),
    ):
        assert main(["manifest", str(tmp_path / "data"), "--output", str(output)]) == 2
        assert words in capfd.readouterr().err
    assert checksums(tmp_path) == before


def test_a_file_in_place_of_the_folder_is_called_a_file(
    tmp_path: Path, capfd: pytest.CaptureFixture, slicer: object
) -> None:
    (tmp_path / "scan.nii.gz").write_bytes(b"")
    assert main(["manifest", str(tmp_path / "scan.nii.gz"), "--output", str(tmp_path / "cohort.csv")]) == 2
    assert "scan.nii.gz' is a file: give the folder that holds the studies" in capfd.readouterr().err
