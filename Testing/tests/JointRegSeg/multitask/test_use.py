"""Weights of tasks on single studies in use: scored on a cohort, and applied to one visit."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from joint_studies import HeadStudy
from task_cohorts import AGE, SEX, TISSUE, run_training, write_cohort, write_config, write_with_t2_only

from JointRegSegLib.batch import main
from JointRegSegLib.images.study import StudyImages
from JointRegSegLib.multitask.prediction import predict_study
from JointRegSegLib.multitask.weights import load_study_weights
from JointRegSegLib.network.shipped import default_weights_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the cohort 'cohort.csv' and the weights 'run/weights.pt'."""
    folder = tmp_path_factory.mktemp("trained")
    cohort = write_cohort(folder, 22)
    config = write_config(folder, [TISSUE, AGE, SEX], steps=30, validate_every_batches=30)
    assert run_training(cohort, config, folder / "run") == 0
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_weights_are_scored_against_baselines_without_a_network(trained: Path, tmp_path: Path) -> None:
    command = ["evaluate", "--manifest", str(trained / "cohort.csv"), "--weights", str(trained / "run" / "weights.pt")]
    assert main([*command, "--output", str(tmp_path / "scores")]) == 0
    summary = {
        (r["task"], r["method"], r["score"]): float(r["value"]) for r in rows_of(tmp_path / "scores" / "summary.csv")
    }
    ages = [float(row["age"]) for row in rows_of(trained / "cohort.csv")]
    train, test = ages[:14], ages[18:]
    assert summary["age", "mean", "mae"] == pytest.approx(np.abs(np.array(test) - np.mean(train)).mean())
    assert summary["age", "ridge on volumes", "mae"] < summary["age", "mean", "mae"]
    assert 0 <= summary["sex", "majority", "accuracy"] <= summary["sex", "logistic regression on volumes", "accuracy"]
    assert summary["tissue", "network", "dice"] > 0.7
    assert summary["tissue", "intensity clusters with spatial prior", "dice"] > 0.8
    compared = rows_of(tmp_path / "scores" / "comparisons.csv")
    assert len(compared) == 5
    assert all(float(r["low"]) <= float(r["improvement"]) <= float(r["high"]) for r in compared)
    assert (tmp_path / "scores" / "predictions.png").is_file()


def test_a_class_that_the_network_does_not_know_is_named(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    manifest = trained / "other.csv"
    manifest.write_text(
        (trained / "cohort.csv").read_text().replace(",M,test", ",X,test").replace(",F,test", ",X,test")
    )
    command = ["evaluate", "--manifest", str(manifest), "--weights", str(trained / "run" / "weights.pt")]
    assert main([*command, "--output", str(tmp_path / "scores")]) == 2
    assert "the sex 'X' is unknown to the network, which was trained with F, M" in capsys.readouterr().err
    assert not (tmp_path / "scores").exists()


def test_a_study_that_cannot_be_read_costs_its_own_score_alone_and_no_earlier_result(
    trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    damaged = trained / "damaged.nii.gz"
    damaged.write_bytes((trained / "20_t1.nii.gz").read_bytes()[:300])
    manifest, out = trained / "damaged.csv", tmp_path / "scores"
    manifest.write_text((trained / "cohort.csv").read_text().replace("20_t1.nii.gz", damaged.name))
    usual = ["--weights", str(trained / "run" / "weights.pt"), "--output", str(out), "--no-pictures"]

    def evaluated(cohort: Path, *more: str) -> int:
        capfd.readouterr()
        return main(["evaluate", "--manifest", str(cohort), *usual, *more])

    assert evaluated(manifest) == 1
    rows = rows_of(out / "cases.csv")
    assert {row["study"] for row in rows if row["task"] == "age"} == {"s18", "s19", "s21"}
    (failed,) = [row for row in rows if row["error"]]
    assert (failed["study"], str(damaged) in failed["error"]) == ("s20", True)
    assert f"error: s20: '{damaged}'" in capfd.readouterr().err
    assert evaluated(trained / "cohort.csv") == 0
    whole = (out / "cases.csv").read_bytes()
    assert evaluated(manifest) == 1
    assert (out / "cases.csv").read_bytes() == whole
    assert f"error: 1 of 4 cases failed, see '{out / 'partial' / 'cases.csv'}'; the earlier" in capfd.readouterr().err
    assert evaluated(manifest, "--overwrite") == 1
    assert len(rows_of(out / "cases.csv")) < len(whole.splitlines())


def test_a_study_without_a_modality_of_the_network_is_a_failed_case(
    trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    manifest = write_with_t2_only(trained / "cohort.csv", ["s3", "s20"], "t2.csv")
    usual = ["--weights", str(trained / "run" / "weights.pt"), "--output", str(tmp_path / "scores"), "--no-pictures"]
    assert main(["evaluate", "--manifest", str(manifest), *usual]) == 1
    lacking = "lists studies without any modality that the network knows (t1): "
    rows = rows_of(tmp_path / "scores" / "cases.csv")
    assert {row["study"] for row in rows if row["task"] == "age"} == {"s18", "s19", "s21"}
    (failed,) = [row for row in rows if row["error"]]
    assert (failed["study"], f"{lacking}'s20' (t2)" in failed["error"]) == ("s20", True)
    told = capfd.readouterr().err
    assert "warning: the baselines learn from 13 of 14 training studies" in told
    assert f"{lacking}'s3' (t2)" in told


def test_a_damaged_training_study_costs_the_baselines_alone(
    trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    (trained / "half.nii.gz").write_bytes((trained / "3_t1.nii.gz").read_bytes()[:300])
    manifest, out = trained / "half.csv", tmp_path / "scores"
    text = (trained / "cohort.csv").read_text()
    manifest.write_text(re.sub(r"\b3_t1.nii.gz", "half.nii.gz", text))
    usual = ["--weights", str(trained / "run" / "weights.pt"), "--output", str(out), "--no-pictures"]
    assert main(["evaluate", "--manifest", str(manifest), *usual]) == 0
    count = text.count(",train")
    assert f"warning: the baselines learn from {count - 1} of {count} training studies" in capfd.readouterr().err
    assert not any(row.get("error") for row in rows_of(out / "cases.csv"))


def test_predictions_that_are_not_finite_are_refused(trained: Path) -> None:
    weights = load_study_weights(trained / "run" / "weights.pt")
    for parameter in weights.network.parameters():
        parameter.data *= 1e15
    images, mask = (sitk.ReadImage(str(trained / f"20_{name}.nii.gz")) for name in ("t1", "mask"))
    with pytest.raises(ValueError, match="computes numbers that are not finite from these images"):
        predict_study(StudyImages({"t1": images}, mask), weights)


def test_a_visit_gets_tissues_a_number_with_its_interval_and_a_class(trained: Path, tmp_path: Path) -> None:
    command = ["predict", "--weights", str(trained / "run" / "weights.pt"), "--images", str(trained / "20_t1.nii.gz")]
    output = tmp_path / "found"
    assert main([*command, "--mask", str(trained / "20_mask.nii.gz"), "--output", str(output)]) == 0
    rows = {row["quantity"]: row for row in rows_of(output / "predictions.csv")}
    age = rows["age"]
    assert float(age["low"]) < float(age["value"]) < float(age["high"])
    assert rows["sex"]["value"] in ("F", "M")
    assert sum(float(rows[f"probability of {name}"]["value"]) for name in "FM") == pytest.approx(1, abs=1e-4)
    segmentation = sitk.ReadImage(str(output / "tissue.seg.nrrd"))
    true = sitk.ReadImage(str(trained / "20_tissue.nii.gz"))
    assert segmentation.GetSize() == true.GetSize()
    assert segmentation.GetMetaData("Segment1_Name") == "core"
    assert "SCT^" in segmentation.GetMetaData("Segment0_Tags")
    found, wanted = sitk.GetArrayFromImage(segmentation), sitk.GetArrayFromImage(true)
    assert ((found == wanted) & (wanted > 0)).sum() > 0.8 * (wanted > 0).sum()
    counted = float(rows["volume of core"]["value"])
    assert counted == pytest.approx((found == 2).sum() * 0.064, rel=1e-4)
    assert {row["bound"] for row in rows.values()} == {""}
    assert json.loads((output / "report.json").read_text())["summary"]["predictions"]


@pytest.mark.parametrize(("shown_planes", "core_bound"), [(9, "at least"), (4, "")])
def test_what_no_image_shows_has_no_tissue_and_volumes_are_at_least_those_given(
    trained: Path, tmp_path: Path, shown_planes: int, core_bound: str
) -> None:
    t1 = sitk.ReadImage(str(trained / "20_t1.nii.gz"))
    mask = trained / "20_mask.nii.gz"
    t1[:, :, :-shown_planes] = 0.0
    sitk.WriteImage(t1, str(tmp_path / "t1.nii.gz"))
    command = ["predict", "--weights", str(trained / "run" / "weights.pt"), "--images", str(tmp_path / "t1.nii.gz")]
    assert main([*command, "--mask", str(mask), "--output", str(tmp_path / "found")]) == 0
    tissue = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "found" / "tissue.seg.nrrd")))
    assert not tissue[:-shown_planes].any()
    rows = {row["quantity"]: row for row in rows_of(tmp_path / "found" / "predictions.csv")}
    assert rows["volume of rim"]["bound"] == "at least"
    assert rows["volume of core"]["bound"] == core_bound
    assert bool(rows["volume of core"]["value"]) == bool(core_bound)
    assert rows["age"]["bound"] == ""
    told = json.loads((tmp_path / "found" / "report.json").read_text(encoding="utf-8"))["warnings"]
    assert any("the T1 image of the given study shows" in warning for warning in told)
    assert any("do not show the whole brain: volumes are at least those given" in warning for warning in told)


def test_an_image_that_lies_apart_is_aligned_and_told_unless_its_position_is_trusted(trained: Path) -> None:
    weights = load_study_weights(trained / "run" / "weights.pt")
    head = HeadStudy.of("axial", spacing_mm=(3.0, 3.0, 3.0))
    study = head.images("given")
    study.images["flair"].SetOrigin(np.add(study.images["flair"].GetOrigin(), (9.0, 0, 6.0)).tolist())
    found = predict_study(study, weights)
    assert any("the FLAIR image of the given study lay 1" in warning for warning in found.warnings)
    moved = found.positions["flair"].TransformPoint((0.0, 0.0, 0.0))
    np.testing.assert_allclose(moved, (9.0, 0.0, 6.0), atol=1.0)
    trusted = predict_study(study, weights, coregistered=True)
    assert not any("lay" in warning for warning in trusted.warnings)
    assert trusted.positions == {}


def test_weights_of_another_task_are_refused(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    image = str(trained / "20_t1.nii.gz")
    command = ["predict", "--weights", str(default_weights_path()), "--images", image, "--output", str(tmp_path / "x")]
    assert main(command) == 2
    assert "holds the weights of the joint task" in capsys.readouterr().err
    command = ["apply", "--weights", "tisue", "--fixed", image, "--moving", str(trained / "21_t1.nii.gz")]
    assert main([*command, "--output", str(tmp_path / "x")]) == 2
    assert "error: --weights: there are no weights 'tisue'" in capsys.readouterr().err
    command = ["predict", "--weights", str(trained / "run" / "weights.pt"), "--images", "-", "-", image]
    assert main([*command, "--output", str(tmp_path / "x")]) == 2
    assert "know the modalities t1, not t2" in capsys.readouterr().err
    weights = str(trained / "run" / "weights.pt")
    command = [
        "evaluate",
        "--manifest",
        str(trained / "cohort.csv"),
        "--weights",
        weights,
        "--output",
        str(tmp_path / "x"),
    ]
    assert main([*command, "--refine", "3"]) == 2
    assert "--refine belongs to segmentation and registration" in capsys.readouterr().err
    assert main([*command, "--weights", weights]) == 2
    assert "are scored one by one" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
