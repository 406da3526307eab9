"""``jointregseg apply --visit`` as users start it: several visits, compared with one of them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import ModuleType

import pytest
import SimpleITK as sitk
from joint_studies import HeadStudy, small_weights

from JointRegSegLib.batch import main
from JointRegSegLib.quality.verdict import LEVELS


@pytest.fixture(scope="module")
def visits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with three visits of one T1 image each, and small weights."""
    folder = tmp_path_factory.mktemp("visits")
    for name, turn, second in (("first", "axial", False), ("second", "LPS", True), ("third", "left-handed", False)):
        HeadStudy.of(turn, second, (5.0, 5.0, 5.0)).write(folder / name, ("t1",))
    small_weights(folder / "small.pt")
    return folder


def arguments(visits: Path, *names: str) -> list[str]:
    words = ["apply", "--weights", str(visits / "small.pt"), "--device", "cpu"]
    words += ["--refine", "0", "--affine", "none", "--no-flips"]
    for name in names:
        words += ["--visit", str(visits / name / "t1.nii.gz")]
    return words


def test_every_visit_is_compared_with_the_reference(visits: Path, slicer: ModuleType, tmp_path: Path) -> None:
    output = tmp_path / "result"
    words = [*arguments(visits, "first", "second", "third"), "--reference", "2", "--output", str(output)]
    assert main(words) == 0
    folders = {"visit1_to_visit2", "visit3_to_visit2"}
    assert {file.name for file in output.iterdir()} == folders | {"changes.csv", "report.json", "report.png"}
    for folder, moving in (("visit1_to_visit2", "first"), ("visit3_to_visit2", "third")):
        transform = sitk.ReadTransform(str(output / folder / "moving_to_fixed.h5"))
        assert transform.TransformPoint((1.0, 2.0, 3.0)) == pytest.approx((1.0, 2.0, 3.0), abs=1e-3)
        image = sitk.ReadImage(str(visits / moving / "t1.nii.gz"))
        segmentation = sitk.ReadImage(str(output / folder / "moving_segmentation.seg.nrrd"))
        assert segmentation.GetSize() == image.GetSize()
    with open(output / "changes.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["region"] == "edema"]
    assert [row["visit"] for row in rows] == ["1", "2", "3"]
    assert rows[0]["since_previous_ml"] == ""  # there is no visit before the first one
    report = json.loads((output / "report.json").read_text())
    assert report["summary"]["reference"] == 2
    pairs = [report["summary"][f"visit{number}"] for number in (1, 3)]
    assert report["verdict"] == max((pair["verdict"] for pair in pairs), key=LEVELS.index)
    told = report["reasons"] + report["warnings"]
    assert told
    assert not [words for words in told if "the fixed study" in words or "the moving study" in words]
    assert len(report["reasons"]) == len(set(report["reasons"]))
    assert {"visit1 t1", "visit2 t1", "visit3 t1"} <= {entry["role"] for entry in report["inputs"]}


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--reference", "3"], "--reference is 3, but there are the visits 1 to 2"),
        (["--fixed", "t1.nii.gz"], "--fixed cannot be used with --visit"),
        (["--labels", "brats2023"], "--labels cannot be used with --visit"),
    ],
)
def test_unusable_options_are_refused(
    visits: Path, slicer: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture, more: list[str], reason: str
) -> None:
    output = tmp_path / "result"
    assert main([*arguments(visits, "first", "second"), *more, "--output", str(output)]) == 2
    assert reason in capsys.readouterr().err
    assert not output.exists()


def test_one_visit_or_none_is_refused(visits: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    output = str(tmp_path / "result")
    assert main([*arguments(visits, "first"), "--output", output]) == 2
    assert "--visit is given once" in capsys.readouterr().err
    assert main([*arguments(visits), "--moving", "t1.nii.gz", "--output", output]) == 2
    assert "--fixed missing: give --fixed and --moving, or --visit for each visit" in capsys.readouterr().err
