"""jointregseg evaluate: the numbers of a known result, and a cohort of which some cases fail."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from joint_cohorts import write_study
from joint_studies import HeadStudy, exact_result, points_in_head, small_weights

from JointRegSegLib.batch import main
from JointRegSegLib.cohort.manifest import read_manifest
from JointRegSegLib.cohort.studies import Cohort, StudyRecord
from JointRegSegLib.evaluation.cases import Case, cases_of, evaluate_case
from JointRegSegLib.evaluation.scores import landmark_scores, map_scores, segmentation_scores, warp_scores
from JointRegSegLib.evaluation.summary import numbers_of, summarize
from JointRegSegLib.inference.settings import InferenceSettings
from JointRegSegLib.metrics.landmarks import read_landmarks
from JointRegSegLib.synthesis.phantom import to_second_visit

SPACING_MM = (5.0, 5.0, 5.0)


def write_landmarks(folder: Path) -> tuple[Path, Path]:
    """The same points in both visits: RAS in one file, LPS in the other."""
    first = points_in_head(12)
    second = to_second_visit(first) * [-1, -1, 1]
    for name, columns, points in (("first", "r,a,s", first), ("second", "x,y,z", second)):
        rows = [f"p{n},{x:.4f},{y:.4f},{z:.4f}" for n, (x, y, z) in enumerate(points)]
        (folder / f"{name}.csv").write_text("\n".join([f"name,{columns}", *rows]) + "\n")
    return folder / "first.csv", folder / "second.csv"


def record(subject: str, visit: str) -> StudyRecord:
    return StudyRecord(subject, visit, {"flair": Path(f"{subject}{visit}.nii.gz")})


def test_a_perfect_map_scores_perfectly(tmp_path: Path) -> None:
    studies = HeadStudy.of("axial"), HeadStudy.of("oblique", second=True)
    result = exact_result(*studies)
    native = studies[0].image("flair")
    labels = [study.grid.to_sitk(study.visit.labels) for study in studies]
    row = warp_scores(native, *labels, result) | map_scores(native, result)
    row |= landmark_scores(*map(read_landmarks, write_landmarks(tmp_path)), result)
    assert row["landmarks"] == 12
    assert row["landmark_error_mm_max_after"] < 0.4
    assert row["landmark_error_mm_median_before"] > 3
    assert row["landmark_improved"] == 1
    assert row["warped_dice_whole_tumor"] > row["affine_dice_whole_tumor"] > 0.5
    ratio = np.mean(sitk.GetArrayFromImage(result.jacobian)[studies[0].visit.labels > 0])
    assert row["volume_ratio_whole_tumor"] == pytest.approx(1 / ratio, rel=0.1)
    assert row["folded_fraction"] == 0
    assert 0 < row["sd_log_jacobian"] < 0.3
    assert row["inverse_error_max_mm"] < 0.5


def test_a_study_that_cannot_be_registered_is_named_by_its_file(tmp_path: Path) -> None:
    records = []
    for visit, modality in (("1", "t1"), ("2", "flair")):
        place = tmp_path / visit
        write_study(place, seed=int(visit))
        images = {modality: place / f"x_{modality}.nii.gz"}
        records.append(StudyRecord("A", visit, images, mask=place / "x_seg.nii.gz"))
    words = f"'{records[1].images['flair']}': the A 1 study (t1) and the A 2 study (flair) have no modality in common"
    with pytest.raises(ValueError, match=f"^{re.escape(words)}"):
        evaluate_case(Case(*records), None, InferenceSettings(refine_iterations=0), with_picture=False)


def test_labels_move_with_the_image_that_they_were_drawn_on(tmp_path: Path) -> None:
    """The patient moved by 12 mm before FLAIR, on which the tumour of the moving study was drawn."""
    head, records = HeadStudy.of("axial", spacing_mm=(3.0, 3.0, 3.0)), []
    for visit, shift_mm in (("1", 0.0), ("2", 12.0)):
        place = head.write(tmp_path / visit)
        for name in ("flair", "labels"):
            image = sitk.ReadImage(str(place / f"{name}.nii.gz"))
            image.SetOrigin(np.add(image.GetOrigin(), (shift_mm, 0, 0)).tolist())
            sitk.WriteImage(image, str(place / f"{name}.nii.gz"))
        images = {modality: place / f"{modality}.nii.gz" for modality in ("t1", "flair")}
        marks = place / "landmarks.csv"
        marks.write_text("name,x,y,z\np,1,2,3\n")
        records.append(StudyRecord("A", visit, images, place / "labels.nii.gz", place / "brain.nii.gz", marks))
    settings = InferenceSettings(spacing_mm=4.0, affine="none", refine_iterations=0)
    with pytest.warns(UserWarning, match="the FLAIR image of the A 2 study lay 1[12].* from the T1 image") as caught:
        row, _ = evaluate_case(Case(*records), None, settings, with_picture=False)
    assert row["affine_dice_whole_tumor"] > 0.9
    assert row["landmark_error_mm_max_affine"] == 0.0
    said = "\n".join(str(warning.message) for warning in caught)
    assert f"the landmarks '{marks}' are taken to lie on the T1 image, with which FLAIR had to be aligned" in said
    assert str(records[0].landmarks) not in said


UNMOVED = InferenceSettings(spacing_mm=8.0, affine="none", refine_iterations=0)


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ("name,x,y,z\na,30,-40,20\nb,20,30,10", None),
        ("name,x,y,z\na,-30,40,20\nb,-20,-30,10", r"landmarks of '.*1.csv' and '.*2.csv' lie 86 mm or more apart"),
        (
            "name,x,y,z\na,430,-40,20\nb,20,30,10",
            r"^1 of 2 landmarks of '.*2.csv' lie outside of the T1 image of the A 2",
        ),
    ],
)
def test_landmarks_that_cannot_lie_there_are_told_with_the_axes_that_they_need(
    tmp_path: Path, recwarn: pytest.WarningsRecorder, second: str, words: str | None
) -> None:
    place, records = HeadStudy.of("axial", spacing_mm=SPACING_MM).write(tmp_path / "head"), []
    for visit, table in (("1", "name,x,y,z\na,30,-40,20\nb,20,30,10"), ("2", second)):
        marks = tmp_path / f"{visit}.csv"
        marks.write_text(table, encoding="utf-8")
        records.append(
            StudyRecord("A", visit, {"t1": place / "t1.nii.gz"}, mask=place / "brain.nii.gz", landmarks=marks)
        )
    evaluate_case(Case(*records), None, UNMOVED, with_picture=False)
    told = [str(each.message) for each in recwarn if "landmarks" in str(each.message)]
    assert len(told) == (words is not None)
    for sentence in told:
        assert words is not None
        assert re.search(words, sentence)
        assert "in mm, and that those in columns x, y, z are LPS; those of RAS belong in columns r, a, s" in sentence


def test_landmarks_that_cannot_be_read_are_told_before_the_registration(cohort: Path, tmp_path: Path) -> None:
    case = cases_of(read_manifest(cohort))[0]
    assert case.moving is not None
    (tmp_path / "marks.csv").write_text("name;x;y;z\na;1,5;2;3\n", encoding="utf-8")
    started: list[str] = []
    moving = replace(case.moving, landmarks=tmp_path / "marks.csv")
    with pytest.raises(ValueError, match=r"marks.csv': row 1 does not have three numbers"):
        evaluate_case(Case(case.fixed, moving), None, UNMOVED, lambda _, message: started.append(message))
    assert not started


def test_images_of_a_visit_are_left_where_they_are_on_demand(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = []

    def recorded(case: Case, weights: object, settings: InferenceSettings, *_: object) -> tuple[dict, None]:
        chosen.append(settings.coregister)
        return case.identity, None

    monkeypatch.setattr("JointRegSegLib.evaluation.cases.evaluate_case", recorded)
    usual = [
        "evaluate",
        "--manifest",
        str(cohort),
        "--weights",
        "none",
        "--no-pictures",
        "--output",
        str(tmp_path / "o"),
    ]
    assert main([*usual, "--no-coregistration"]) == 0
    assert not any(chosen)
    chosen.clear()
    assert main(usual) == 0
    assert all(chosen)


def test_volumes_and_scores_are_in_ml_and_mm_of_the_study() -> None:
    study = HeadStudy.of("axial")
    truth = study.grid.to_sitk(study.visit.labels)
    shifted = study.grid.to_sitk(np.roll(study.visit.labels, 1, axis=0))
    row = segmentation_scores(shifted, truth)
    thickness = study.grid.spacing[2]
    assert row["hd95_mm_whole_tumor"] == pytest.approx(thickness, rel=1e-5)
    volume = (study.visit.labels > 0).sum() * np.prod(study.grid.spacing) / 1000
    assert row["expected_volume_ml_whole_tumor"] == pytest.approx(volume)
    assert 0.6 < row["dice_whole_tumor"] < 1
    assert segmentation_scores(truth, None).keys() == {
        f"volume_ml_{name}" for name in ("whole_tumor", "tumor_core", "enhancing_tumor")
    }


def test_later_visits_are_compared_with_the_first() -> None:
    studies = (record("a", "1"), record("b", "1"), record("a", "2"), record("a", "3"))
    names = [case.name for case in cases_of(Cohort("c.csv", studies))]
    assert names == ["a 1 2", "a 1 3", "b 1"]


def test_the_summary_takes_both_studies_together_and_leaves_out_nan() -> None:
    rows = [
        {"case": "a", "fixed_dice_tumor_core": 0.5, "moving_dice_tumor_core": 0.7, "seconds": 1.0},
        {"case": "b", "fixed_dice_tumor_core": 0.9, "seconds": float("nan")},
    ]
    summary = summarize(rows)
    core = summary["dice_tumor_core"]
    assert (core["n"], core["mean"], core["median"], core["min"], core["max"]) == pytest.approx((3, 0.7, 0.7, 0.5, 0.9))
    assert core["sd"] == pytest.approx(0.2)
    assert summary["seconds"]["n"] == 1
    assert "case" not in summary


def test_a_first_visit_with_several_later_ones_counts_once_in_the_summary() -> None:
    rows = [
        {"subject": "a", "fixed_visit": "1", "fixed_dice_whole_tumor": fixed, "moving_dice_whole_tumor": 0.9}
        for fixed in (0.4, 0.6, 0.5, float("nan"))
    ]
    dice = summarize(rows)["dice_whole_tumor"]
    assert (dice["n"], dice["mean"]) == (5, pytest.approx(0.82))
    assert numbers_of(rows, "fixed_dice_whole_tumor") == [pytest.approx(0.5)]
    another = {"subject": "b", "fixed_visit": "1", "fixed_dice_whole_tumor": 0.7}
    assert numbers_of([*rows, another], "fixed_dice_whole_tumor") == pytest.approx([0.5, 0.7])


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two visits with landmarks, one visit, and a subject whose image is damaged; with weights of no training."""
    folder = tmp_path_factory.mktemp("cohort")
    visits = {
        "pair1": HeadStudy.of("axial", spacing_mm=SPACING_MM),
        "pair2": HeadStudy.of("oblique", second=True, spacing_mm=SPACING_MM),
        "alone1": HeadStudy.of("sagittal", spacing_mm=SPACING_MM),
        "broken1": HeadStudy.of("axial", spacing_mm=SPACING_MM),
    }
    marks = dict(zip(("pair1", "pair2"), write_landmarks(folder), strict=True))
    rows = ["subject,visit,t1,flair,label,mask,landmarks"]
    for name, study in visits.items():
        study.write(folder / name)
        files = [f"{name}/{file}.nii.gz" for file in ("t1", "flair", "labels", "brain")]
        rows.append(",".join([name[:-1], name[-1], *files, marks[name].name if name in marks else ""]))
    (folder / "broken1" / "flair.nii.gz").write_bytes(b"no image")
    (folder / "cohort.csv").write_text("\n".join(rows) + "\n")
    small_weights(folder / "small.pt", 5.0)
    return folder / "cohort.csv"


def test_the_jacobian_is_shown_in_the_brain_only(cohort: Path) -> None:
    case = cases_of(read_manifest(cohort))[0]
    _, picture = evaluate_case(case, None, InferenceSettings(refine_iterations=2, spacing_mm=5.0))
    brain = picture.fixed > 0
    known = np.isfinite(picture.jacobian)
    assert known.any()
    assert not (known & ~brain).any()
    assert not known[:, [0, -1]].any()
    assert np.nanmin(picture.jacobian) > 0.3


@pytest.mark.slow
def test_a_cohort_is_scored_and_failed_cases_are_named(
    cohort: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    output = tmp_path / "out"
    arguments = [
        "evaluate",
        "--manifest",
        str(cohort),
        "--weights",
        str(cohort.parent / "small.pt"),
        "none",
        "--refine",
        "15",
        "--no-flips",
        "--device",
        "auto",
        "--output",
        str(output),
    ]
    assert main(arguments) == 1
    said = capfd.readouterr().err.splitlines()
    assert not [line for line in said if line.rstrip().endswith(":")]
    errors = [line for line in said if line.startswith("error: ")]
    assert len(errors) == 4  # the broken one twice, the lone visit without a network, and the count of all
    assert "broken 1 (small)" in errors[0]
    assert "flair.nii.gz" in errors[0]
    assert "3 of 6 cases failed" in errors[-1]
    rows = {(row["weights"], row["case"]): row for row in csv.DictReader((output / "cases.csv").open())}
    assert len(rows) == 6
    pair, bare = rows["small", "pair 1 2"], rows["no network", "pair 1 2"]
    assert 0 <= float(pair["fixed_dice_whole_tumor"]) < 0.5  # it never was trained
    assert float(pair["moving_hd95_mm_tumor_core"]) > 0
    assert bare["fixed_dice_whole_tumor"] == ""
    assert float(bare["fixed_expected_volume_ml_whole_tumor"]) == pytest.approx(4 / 3 * np.pi * 2.1**3, rel=0.1)
    assert float(bare["expected_change_ml_whole_tumor"]) > 5
    assert float(bare["landmark_error_mm_median_after"]) < float(bare["landmark_error_mm_median_before"])
    assert float(bare["folded_fraction"]) == 0
    assert rows["small", "alone 1"]["warped_dice_whole_tumor"] == ""
    assert "flair.nii.gz" in rows["small", "broken 1"]["error"]
    summary = json.loads((output / "summary.json").read_text())
    assert summary["variants"]["small"]["dice_whole_tumor"]["n"] == 3
    assert {entry["case"] for entry in summary["failed"]} == {"broken 1", "alone 1"}
    variants = list(csv.DictReader((output / "variants.csv").open()))
    assert [row["weights"] for row in variants] == ["small", "no network"]
    pictures = {path.relative_to(output / "pictures").as_posix() for path in (output / "pictures").rglob("*.png")}
    assert pictures == {"small/pair_1_2.png", "small/alone_1.png", "no_network/pair_1_2.png"}
    report = json.loads((output / "report.json").read_text())
    assert {entry["role"] for entry in report["inputs"]} == {"manifest", "weights small"}
    assert report["device"] == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--weights", "missing.pt"], "missing.pt"),
        (["--manifest", "missing.csv"], "missing.csv"),
        (["--split", "val"], "'val'"),
    ],
)
def test_unusable_arguments_are_one_sentence_and_write_nothing(
    cohort: Path, tmp_path: Path, capfd: pytest.CaptureFixture, changes: list[str], words: str
) -> None:
    given = {"--manifest": str(cohort), "--weights": str(cohort.parent / "small.pt"), "--output": str(tmp_path / "out")}
    given |= dict([changes])
    assert main(["evaluate", *[part for pair in given.items() for part in pair]]) == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert words in lines[0]
    assert not (tmp_path / "out").exists()
