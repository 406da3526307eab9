"""Synthetic patients: reproducible, anatomically consistent, with a true deformation and as files."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from JointRegSegLib.batch import main
from JointRegSegLib.cohort.manifest import read_manifest
from JointRegSegLib.cohort.sample import OUTSIDE
from JointRegSegLib.registration.deformation import folded_fraction, inverse_error, warp
from JointRegSegLib.synthesis.patient import SyntheticPatient, synthetic_patient
from JointRegSegLib.synthesis.random_fields import Draw, box_mean
from JointRegSegLib.synthesis.source import SyntheticConfig, SyntheticSource
from JointRegSegLib.synthesis.templates import Template, load_templates
from JointRegSegLib.synthesis.tumor import KINDS, Tumor, TumorNoise, compartments, random_tumor

pytest.importorskip("nilearn", reason="synthetic patients are made of the template in the package nilearn")
SPACING_MM = 4.0


@pytest.fixture(scope="module")
def templates() -> list[Template]:
    return [template.at(SPACING_MM) for template in load_templates()]


@pytest.fixture(scope="module")
def patient(templates: list[Template]) -> SyntheticPatient:
    return synthetic_patient(templates, 5, SPACING_MM, with_deformation=True)


def test_template_has_three_tissues_that_fill_the_brain(templates: list[Template]) -> None:
    (template,) = templates
    total = template.tissues.sum(0)
    assert float(total.max()) <= 1.0 + 1e-5
    litres = float(total.sum()) * SPACING_MM**3 / 1e6
    assert 1.5 < litres < 2.3
    assert all(0.08 < float(tissue.sum() / total.sum()) < 0.55 for tissue in template.tissues)


def test_seed_decides_the_patient(templates: list[Template], patient: SyntheticPatient) -> None:
    again = synthetic_patient(templates, 5, SPACING_MM)
    other = synthetic_patient(templates, 6, SPACING_MM)
    assert torch.equal(again.fixed.images, patient.fixed.images)
    assert torch.equal(again.moving.labels, patient.moving.labels)
    assert not torch.equal(other.fixed.images, patient.fixed.images)


def test_images_are_zero_outside_of_the_brain_and_labels_lie_inside(patient: SyntheticPatient) -> None:
    for visit in (patient.fixed, patient.moving):
        assert visit.images.shape == (4, 40, 48, 40)
        assert not visit.images[:, ~visit.mask].any()
        assert torch.isfinite(visit.images).all()
        assert not visit.labels[~visit.mask].any()
        assert set(visit.labels.unique().tolist()) <= {0, 1, 2, 3}
        assert int((visit.labels > 0).sum()) > 0


def test_true_deformation_brings_the_anatomy_of_one_visit_onto_the_other(patient: SyntheticPatient) -> None:
    fixed, moving = patient.fixed.tissues, patient.moving.tissues
    warped, wrong = (
        warp(moving[None], field)[0] for field in (patient.deformation.displacement, patient.deformation.inverse)
    )
    before, after, astray = (  # smoothed, as the interpolation of the warped one is
        float((box_mean(fixed, 3) - box_mean(image, 3))[:, patient.fixed.mask].abs().mean())
        for image in (moving, warped, wrong)
    )
    assert after < 0.5 * before < 0.5 * astray


def test_true_deformation_is_invertible(patient: SyntheticPatient) -> None:
    deformation = patient.deformation
    assert folded_fraction(deformation.displacement) == 0
    error = inverse_error(deformation.displacement, deformation.inverse)[0, 0]
    assert float(error[patient.fixed.mask].quantile(0.99)) < 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_tumour_has_its_compartments(kind: str) -> None:
    shape = (24, 24, 24)
    tissues = torch.zeros(3, *shape)
    tissues[2] = 1  # white matter everywhere
    tumor = Tumor(kind, torch.full((1, 3), 12.0), torch.tensor([18.0]), torch.eye(3)[None], 0.1, 10.0, 4.0, 0.0)
    labels = compartments(tumor, tissues, TumorNoise.of(shape, 2.0, Draw(3)), 2.0).labels()
    counts = torch.bincount(labels.flatten().long(), minlength=4)
    assert counts[2] > 0
    assert (counts[3] == 0) == (kind == "non_enhancing")
    if kind == "ring":  # enhancement surrounds the necrosis
        middle, outer = labels[12, 12, 12], labels[12, 12, 12:].tolist()
        assert middle == 1
        assert outer.index(3) > 0
        assert outer.index(3) < outer.index(2)


def test_oedema_follows_white_matter_and_spares_fluid() -> None:
    shape = (32, 32, 32)
    tissues = torch.zeros(3, *shape)
    tissues[2, ..., :16] = 1
    tissues[1, ..., 16:24] = 1
    tissues[0, ..., 24:] = 1
    tumor = Tumor("solid", torch.full((1, 3), 16.0), torch.tensor([8.0]), torch.eye(3)[None], 0.0, 16.0, 4.0, 0.0)
    labels = compartments(tumor, tissues, TumorNoise.of(shape, 2.0, Draw(1)), 2.0).labels()
    oedema = (labels == 2).sum((0, 1))
    assert int(oedema[:16].sum()) > 1.5 * int(oedema[16:24].sum())
    assert int(oedema[25:].sum()) == 0


def test_resection_leaves_a_cavity_that_is_background() -> None:
    shape = (24, 24, 24)
    tissues = torch.zeros(3, *shape)
    tissues[2] = 1
    tumor = Tumor(
        "ring", torch.full((1, 3), 12.0), torch.tensor([16.0]), torch.eye(3)[None], 0.1, 8.0, 4.0, 0.0, True, 0.5
    )
    parts = compartments(tumor, tissues, TumorNoise.of(shape, 2.0, Draw(3)), 2.0)
    assert parts.labels()[12, 12, 12] == 0
    assert parts.cavity[12, 12, 12] > 0.99


def test_tumours_are_centred_inside_of_the_head(templates: list[Template]) -> None:
    tissues = templates[0].tissues
    for seed in range(20):
        tumor = random_tumor(tissues, SPACING_MM, Draw(seed))
        d, h, w = (int(v) for v in tumor.centres[0])
        assert float(tissues[:, d, h, w].sum()) > 0.5


def test_box_mean_is_the_mean_over_cubes() -> None:
    field = torch.randn(2, 9, 8, 7, dtype=torch.float64)
    for width in (3, 5):
        half = width // 2
        expected = torch.nn.functional.pad(field[None], (half,) * 6, mode="replicate")[0]
        for axis in (1, 2, 3):
            expected = expected.unfold(axis, width, 1).mean(-1)
        assert torch.allclose(box_mean(field, width), expected)


def test_source_yields_normalised_pairs_and_keeps_them_in_a_cache(tmp_path: Path) -> None:
    config = SyntheticConfig(spacing_mm=SPACING_MM, cache=str(tmp_path))
    source = SyntheticSource(config, 2, seed=3)
    fixed, moving = source[1]
    assert len(list(tmp_path.rglob("*.pt"))) == 1
    for sample in (fixed, moving):
        inside = sample.images[:, sample.mask]
        assert (sample.images[:, ~sample.mask] == OUTSIDE).all()
        assert float(inside.mean(1).abs().max()) < 0.1
    again = SyntheticSource(config, 2, seed=3)[1][0]
    assert torch.equal(again.images, fixed.images)
    with pytest.raises(IndexError):
        source[2]


def test_settings_of_the_source_are_checked() -> None:
    with pytest.raises(ValueError, match="unknown keys spacing; use"):
        SyntheticConfig.from_dict({"spacing": 2})
    with pytest.raises(ValueError, match="between 0\\.5 and 8"):
        SyntheticConfig(spacing_mm=20)
    with pytest.raises(ValueError, match="no whole multiple"):
        SyntheticSource(SyntheticConfig(spacing_mm=1.5), 1)


def test_template_of_a_folder_is_divided_into_tissues(tmp_path: Path) -> None:
    values = np.zeros((20, 20, 20), dtype=np.float32)
    values[2:18, 2:18, 2:18] = 30
    values[5:15, 5:15, 5:15] = 60
    values[8:12, 8:12, 8:12] = 100
    sitk.WriteImage(sitk.GetImageFromArray(values), str(tmp_path / "head.nii.gz"))
    template = next(t for t in load_templates(tmp_path) if t.name == "head")
    assert int(template.tissues[:, 10, 10, 10].argmax()) == 2
    assert int(template.tissues[:, 6, 10, 10].argmax()) == 1
    assert int(template.tissues[:, 3, 10, 10].argmax()) == 0
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="holds no image"):
        load_templates(empty)


def test_command_writes_a_cohort_with_the_truth(tmp_path: Path) -> None:
    output = tmp_path / "cohort"
    assert main(["synthesize", "--output", str(output), "--spacing", "4", "--seed", "5"]) == 0
    first, second = read_manifest(output / "cohort.csv").studies
    assert first.subject == second.subject == "synthetic000005"
    truth = sitk.ReadTransform(str(output / first.subject / "true_visit2_to_visit1.h5"))
    back = sitk.ReadTransform(str(output / first.subject / "true_visit1_to_visit2.h5"))
    places = {}
    for study in (first, second):
        with open(study.landmarks, newline="") as file:
            places[study.visit] = [tuple(float(row[c]) for c in "xyz") for row in csv.DictReader(file)]
    for here, there in zip(places["visit1"], places["visit2"], strict=True):
        assert np.allclose(truth.TransformPoint(here), there, atol=2e-3)
        assert np.linalg.norm(np.subtract(back.TransformPoint(there), here)) < 1.0
    assert (
        sitk.ReadImage(str(first.images["t1"])).GetDirection()
        != sitk.ReadImage(str(second.images["t1"])).GetDirection()
    )
    assert (output / "report.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--patients", "0"], "--patients is 0; give at least 1"),
        (["--spacing", "9"], "give 0.5 to 4 mm"),
        (["--seed", "-1"], "--seed is -1"),
        (["--templates", "nowhere"], "'nowhere' holds no image"),
    ],
)
def test_bad_arguments_get_one_sentence(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["synthesize", "--output", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
