"""Synthetic patients: the same for the same seed, anatomically consistent, with a true deformation."""

from __future__ import annotations

import pytest
import torch

from JointRegSegLib.registration.deformation import folded_fraction, inverse_error, warp
from JointRegSegLib.synthesis.patient import SyntheticPatient, synthetic_patient
from JointRegSegLib.synthesis.random_fields import box_mean
from JointRegSegLib.synthesis.templates import Template, load_templates

pytest.importorskip("nilearn", reason="synthetic patients are made from the template in the package nilearn")
SPACING_MM = 4.0


@pytest.fixture(scope="module")
def templates() -> list[Template]:
    return [template.at(SPACING_MM) for template in load_templates()]


@pytest.fixture(scope="module")
def patient(templates: list[Template]) -> SyntheticPatient:
    return synthetic_patient(templates, 8, SPACING_MM, with_deformation=True)


def test_the_seed_decides_the_patient(templates: list[Template], patient: SyntheticPatient) -> None:
    again = synthetic_patient(templates, 8, SPACING_MM)
    other = synthetic_patient(templates, 6, SPACING_MM)
    assert torch.equal(again.fixed.images, patient.fixed.images)
    assert torch.equal(again.moving.labels, patient.moving.labels)
    assert not torch.equal(other.fixed.images, patient.fixed.images)


def test_brains_have_the_volume_of_real_ones_and_tumors_their_variety(templates: list[Template]) -> None:
    visits = [synthetic_patient(templates, seed, SPACING_MM, modalities=("flair",)).fixed for seed in range(24)]
    liters = torch.tensor([float(visit.mask.sum()) for visit in visits]) * SPACING_MM**3 / 1e6
    assert 1.3 < float(liters.median()) < 1.55
    assert float(liters.min()) > 1.0
    assert float(liters.max()) < 2.0
    volumes = (
        torch.stack([torch.bincount(v.labels.flatten().long(), minlength=4) for v in visits]) * SPACING_MM**3 / 1e3
    )
    core = volumes[:, 1] + volumes[:, 3]
    assert 3 <= int((core > 50).sum()) <= 16
    assert int((volumes[:, 2] < 0.2 * core).sum()) >= 1  # hardly any oedema
    assert int((volumes[:, 2] > 2 * core).sum()) >= 3


def test_images_are_zero_outside_the_brain_and_labels_lie_inside(patient: SyntheticPatient) -> None:
    for visit in (patient.fixed, patient.moving):
        assert visit.images.shape == (4, 40, 48, 40)
        assert not visit.images[:, ~visit.mask].any()
        assert torch.isfinite(visit.images).all()
        assert not visit.labels[~visit.mask].any()
        assert set(visit.labels.unique().tolist()) <= {0, 1, 2, 3}
        assert int((visit.labels > 0).sum()) > 0


def test_the_true_deformation_brings_the_anatomy_of_one_visit_onto_the_other(patient: SyntheticPatient) -> None:
    fixed, moving = patient.fixed.tissues, patient.moving.tissues
    warped, wrong = (
        warp(moving[None], field)[0] for field in (patient.deformation.displacement, patient.deformation.inverse)
    )
    before, after, wrong_way = (  # smoothed, because interpolation smooths the warped ones
        float((box_mean(fixed, 3) - box_mean(image, 3))[:, patient.fixed.mask].abs().mean())
        for image in (moving, warped, wrong)
    )
    assert after < 0.5 * before < 0.5 * wrong_way


def test_the_true_deformation_is_invertible(patient: SyntheticPatient) -> None:
    deformation = patient.deformation
    assert folded_fraction(deformation.displacement) == 0
    error = inverse_error(deformation.displacement, deformation.inverse)[0, 0]
    assert float(error[patient.fixed.mask].quantile(0.99)) < 0.1
