"""The command ``jointregseg synthesize``: a cohort with labels, landmarks and the true deformation."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from JointRegSegLib.batch import main
from JointRegSegLib.cohort.manifest import read_manifest
from JointRegSegLib.cohort.preparation import PreparationConfig, StudyPreparer
from JointRegSegLib.images.labels import UNLABELED
from JointRegSegLib.images.preprocessing.config import PreprocessingConfig

pytest.importorskip("nilearn", reason="synthetic patients are made from the template in the package nilearn")


def test_the_command_writes_a_cohort_with_the_true_deformation(tmp_path: Path) -> None:
    output = tmp_path / "cohort"
    assert main(["synthesize", "--output", str(output), "--spacing", "4", "--seed", "5", "--regions"]) == 0
    first, second = read_manifest(output / "cohort.csv").studies
    assert first.subject == second.subject == "synthetic000005"
    truth = sitk.ReadTransform(str(output / first.subject / "true_visit2_to_visit1.h5"))
    inverse = sitk.ReadTransform(str(output / first.subject / "true_visit1_to_visit2.h5"))
    places = {}
    for study in (first, second):
        with open(study.landmarks, newline="") as file:
            places[study.visit] = [tuple(float(row[c]) for c in "xyz") for row in csv.DictReader(file)]
    for first_point, second_point in zip(places["visit1"], places["visit2"], strict=True):
        assert np.allclose(truth.TransformPoint(first_point), second_point, atol=2e-3)
        assert np.linalg.norm(np.subtract(inverse.TransformPoint(second_point), first_point)) < 1.0
    assert (
        sitk.ReadImage(str(first.images["t1"])).GetDirection()
        != sitk.ReadImage(str(second.images["t1"])).GetDirection()
    )
    assert (output / "report.json").is_file()
    assert {study.convention for study in (first, second)} == {"brats2024"}  # with its cavities as background
    for study in (first, second):
        regions = sitk.ReadImage(str(output / study.subject / f"{study.visit}_regions.nii.gz"))
        label, mask = (sitk.GetArrayFromImage(sitk.ReadImage(str(file))) for file in (study.label, study.mask))
        assert regions.GetDirection() == sitk.ReadImage(str(study.label)).GetDirection()
        array = sitk.GetArrayFromImage(regions)
        assert ((array > 0) == (mask > 0)).all()
        for value, region in ((1, 6), (2, 4), (3, 5)):  # necrotic core, oedema, enhancing tumour
            assert ((array == region) == (label == value)).all()


@pytest.mark.parametrize("seed", ["6", "10"])
def test_landmarks_lie_in_brain_that_is_healthy_at_both_visits(tmp_path: Path, seed: str) -> None:
    """The tumour of one visit is resected; the patient with labelled cavities is the same."""
    words = ["synthesize", "--spacing", "4", "--seed", seed, "--resected", "1"]
    assert main([*words, "--output", str(tmp_path / "plain")]) == 0
    assert main([*words, "--output", str(tmp_path / "cavity"), "--cavity"]) == 0
    plain, labelled = (read_manifest(tmp_path / name / "cohort.csv").studies for name in ("plain", "cavity"))
    for study, with_cavity in zip(plain, labelled, strict=True):
        assert study.landmarks.read_text() == with_cavity.landmarks.read_text()
        labels, mask = (sitk.ReadImage(str(file)) for file in (with_cavity.label, study.mask))
        with open(study.landmarks, newline="") as file:
            points = [tuple(float(row[c]) for c in "xyz") for row in csv.DictReader(file)]
        assert len(points) == 20
        places = [labels.TransformPhysicalPointToIndex(point) for point in points]
        assert {labels[place] for place in places} == {0}
        assert all(mask[place] for place in places)


def test_subjects_come_with_the_targets_of_tasks_and_the_best_predictions(tmp_path: Path) -> None:
    output = tmp_path / "cohort"
    arguments = [
        "--targets",
        "--patients",
        "3",
        "--split",
        "mixed",
        "--tumours",
        "1",
        "--low-resolution",
        "1",
        "1",
        "4",
    ]
    assert main(["synthesize", "--output", str(output), "--spacing", "4", "--seed", "7", *arguments]) == 0
    columns = {"tissue": "file", "age": "number", "sex": "text"}
    studies = read_manifest(output / "cohort.csv", columns).studies
    assert [study.split for study in studies] == ["train", "train", "test"]
    with open(output / "ceilings.csv", newline="") as file:
        best = {row["subject"]: row for row in csv.DictReader(file)}
    for study in studies:
        tissue, label, mask = (
            sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
            for path in (study.target_files["tissue"], study.label, study.mask)
        )
        assert set(np.unique(tissue)) == set(range(8))  # all tissues and the lesion
        assert (tissue[label > 0] == 7).all()
        assert ((tissue > 0) == (mask > 0)).all()
        assert 20 <= float(study.target_values["age"]) <= 80
        assert abs(float(best[study.subject]["best_age"]) - float(study.target_values["age"])) < 25
        t1 = sitk.ReadImage(str(study.images["t1"]))
        low = sitk.ReadImage(str(output / study.subject / "t1_low.nii.gz"))
        assert low.GetSpacing() == (4, 4, 16)
        means = sitk.GetArrayFromImage(t1).reshape(-1, 4, *t1.GetSize()[1::-1]).mean(1)
        assert np.abs(sitk.GetArrayFromImage(low) - means).max() <= 0.5
        assert low.GetOrigin()[2] == pytest.approx(t1.GetOrigin()[2] + 1.5 * 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tumours", "0.5"], "--tumours belongs to --targets"),
        (["--targets", "--tumours", "2"], "--tumours is 2; give a share"),
        (["--targets", "--low-resolution", "0", "1", "1"], "three whole numbers from 1 to 16"),
        (["--patients", "0"], "--patients is 0; give at least 1"),
        (["--spacing", "9"], "give 0.5 to 4 mm"),
        (["--seed", "-1"], "--seed is -1; give a whole number from 0 to 1000000000000"),
        (["--seed", str(2**64 - 1)], f"--seed is {2**64 - 1}; give a whole number from 0 to"),
        (["--seed", str(10**12), "--patients", "3"], "a whole number from 0 to 999999999998"),
        (["--templates", "nowhere"], "'nowhere' contains no image"),
    ],
)
def test_bad_arguments_get_one_sentence(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["synthesize", "--output", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_resection_cavities_are_labelled_and_trained_where_they_are_asked_for(tmp_path: Path) -> None:
    where, seed = ["--spacing", "4", "--seed", "2"], ["--cavity", "--resected", "1"]
    assert main(["synthesize", "--output", str(tmp_path / "cohort"), *where, *seed]) == 0
    studies = read_manifest(tmp_path / "cohort" / "cohort.csv").studies
    assert {study.convention for study in studies} == {"brats2024"}
    labels = [sitk.GetArrayFromImage(sitk.ReadImage(str(study.label))) for study in studies]
    assert [bool((label == 4).any()) for label in labels].count(True) == 1  # one of the two visits
    resected = next(study for study in studies if (sitk.GetArrayFromImage(sitk.ReadImage(str(study.label))) == 4).any())
    cohort = read_manifest(tmp_path / "cohort" / "cohort.csv")
    index = cohort.studies.index(resected)
    for knows, number in ((True, 4), (False, UNLABELED)):
        sample = StudyPreparer(cohort, PreparationConfig(PreprocessingConfig(spacing_mm=4.0), cavity=knows))(index)
        assert bool((sample.labels == number).any())
        assert not bool((sample.labels == (UNLABELED if knows else 4)).any())
    assert main(["synthesize", "--output", str(tmp_path / "none"), "--resected", "2"]) == 2
