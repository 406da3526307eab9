"""``jointregseg segment`` as users start it: one visit in, and either all result files or none."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import place, series, write_dicom
from joint_studies import HeadStudy, small_weights
from studies import checksums

from JointRegSegLib.batch import main
from NeuroCESTLib.scene.geometry import Geometry


@pytest.fixture(scope="module")
def visit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with one visit on a left-handed grid, its FLAIR image cut to the upper half, and small weights."""
    folder = HeadStudy.of("left-handed").write(tmp_path_factory.mktemp("visit"))
    flair = sitk.ReadImage(str(folder / "flair.nii.gz"))
    sitk.WriteImage(flair[:, :, flair.GetSize()[2] // 2 :], str(folder / "flair_slab.nii.gz"))
    small_weights(folder / "small.pt")
    return folder


def arguments(visit: Path, output: Path, flair: str = "flair.nii.gz") -> list[str]:
    images = [str(visit / "t1.nii.gz"), "-", "-", str(visit / flair)]
    return ["segment", "--images", *images, "--weights", str(visit / "small.pt"), "--output", str(output)]


def test_one_visit_is_segmented_on_its_own_voxels(visit: Path, slicer: ModuleType, tmp_path: Path) -> None:
    before, output = checksums(visit), tmp_path / "result"
    mask = str(visit / "brain.nii.gz")
    assert main([*arguments(visit, output), "--mask", mask, "--scene", "--device", "cpu"]) == 0
    assert checksums(visit) == before
    assert {file.name for file in output.iterdir()} == {
        "segmentation.seg.nrrd",
        "uncertainty.nii.gz",
        "volumes.csv",
        "report.json",
        "report.png",
        "scene.mrb",
    }
    segmentation = sitk.ReadImage(str(output / "segmentation.seg.nrrd"))
    grid = Geometry.from_sitk(sitk.ReadImage(str(visit / "t1.nii.gz")))
    assert grid.difference(Geometry.from_sitk(segmentation)) == ""
    with open(output / "volumes.csv", newline="") as file:
        rows = {row["region"]: row for row in csv.DictReader(file)}
    ml = (sitk.GetArrayViewFromImage(segmentation) > 0).sum() * np.prod(segmentation.GetSpacing()) / 1000
    assert float(rows["whole_tumor"]["volume_ml"]) == pytest.approx(ml, rel=1e-3, abs=1e-6)
    assert {row["bound"] for row in rows.values()} == {""}
    report = json.loads((output / "report.json").read_text())
    assert report["summary"]["brain_shown"] == {"t1": 1.0, "flair": 1.0}
    assert not report["summary"]["coregistration"]["flair"]["corrected"]
    assert {"t1", "flair", "mask", "weights"} <= {entry["role"] for entry in report["inputs"]}


def test_a_slab_is_told_in_report_and_table(
    visit: Path, slicer: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main([*arguments(visit, tmp_path / "result", "flair_slab.nii.gz"), "--no-flips", "--device", "cpu"]) == 0
    printed = capsys.readouterr().err
    assert "FLAIR image of the given study shows" in printed
    report = json.loads((tmp_path / "result" / "report.json").read_text())
    assert printed.splitlines()[-1] == f"verdict: {report['verdict']}"
    assert (report["verdict"] == "good") == (report["reasons"] == [])
    assert set(report["summary"]["compartments"]) == {"necrotic_core", "edema", "enhancing_tumor"}
    assert 0.3 < report["summary"]["brain_shown"]["flair"] < 0.7
    with open(tmp_path / "result" / "volumes.csv", newline="") as file:
        rows = {row["region"]: row for row in csv.DictReader(file)}
    assert 0.3 < float(rows["edema"]["seen_share"]) < 0.7


@pytest.mark.parametrize(
    ("given", "what"), [("", "a folder of DICOM files, not an image"), ("flair.dcm", "a single DICOM slice")]
)
def test_dicom_series_are_refused_with_what_to_do(
    given: str, what: str, visit: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "dicom"
    folder.mkdir()
    write_dicom(folder / "flair.dcm", {**series("flair"), **place(0)}, np.ones((1, 6, 5)))
    assert main(arguments(visit, tmp_path / "result", str(folder / given))) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"error: '{folder / given}' is {what}")
    assert "convert the DICOM series to NIfTI first, with dcm2niix" in line
    assert not (tmp_path / "result").exists()


def test_bad_input_leaves_nothing_behind(
    visit: Path, slicer: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    output = tmp_path / "result"
    for words, reason in (
        (arguments(visit, output, "absent.nii.gz"), "absent.nii.gz"),
        ([*arguments(visit, output), "--weights", "none"], "a segmentation needs a network"),
    ):
        assert main(words) == 2
        assert reason in capsys.readouterr().err
        assert not output.exists()


def test_an_input_in_the_place_of_a_result_is_refused_before_anything_is_computed(
    visit: Path, slicer: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = tmp_path / "segmentation.seg.nrrd"
    sitk.WriteImage(sitk.ReadImage(str(visit / "brain.nii.gz")), str(mask))
    before = checksums(tmp_path)
    monkeypatch.setattr("JointRegSegLib.logic.JointRegSegLogic.segment", None)
    assert main([*arguments(visit, tmp_path), "--mask", str(mask)]) == 2
    assert f"'{mask}' is an input of this run and would be replaced: choose another --output" in capfd.readouterr().err
    assert checksums(tmp_path) == before
