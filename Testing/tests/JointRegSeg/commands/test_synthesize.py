"""The command ``jointregseg synthesize``: a cohort with labels, landmarks and the true deformation."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from JointRegSegLib.batch import main
from JointRegSegLib.cohort.manifest import read_manifest

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
    for study in (first, second):
        regions = sitk.ReadImage(str(output / study.subject / f"{study.visit}_regions.nii.gz"))
        label, mask = (sitk.GetArrayFromImage(sitk.ReadImage(str(file))) for file in (study.label, study.mask))
        assert regions.GetDirection() == sitk.ReadImage(str(study.label)).GetDirection()
        array = sitk.GetArrayFromImage(regions)
        assert ((array > 0) == (mask > 0)).all()
        for value, region in ((1, 6), (2, 4), (3, 5)):  # necrotic core, oedema, enhancing tumour
            assert ((array == region) == (label == value)).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--patients", "0"], "--patients is 0; give at least 1"),
        (["--spacing", "9"], "give 0.5 to 4 mm"),
        (["--seed", "-1"], "--seed is -1"),
        (["--templates", "nowhere"], "'nowhere' contains no image"),
    ],
)
def test_bad_arguments_get_one_sentence(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["synthesize", "--output", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
