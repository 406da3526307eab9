"""Two visits registered without a network: the map between them, the warped images and the changes of given tumours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from joint_studies import HeadStudy, by_sitk, points_in_head, registration_error

from JointRegSegLib.findings.result import JointResult
from JointRegSegLib.inference.pipeline import process_pair
from JointRegSegLib.inference.settings import InferenceSettings
from JointRegSegLib.synthesis.phantom import GROWTH, TUMOR_RADII_MM

pytestmark = pytest.mark.slow

NAMES = ("fixed", "moving")
QUICK = InferenceSettings(spacing_mm=4.0)


@pytest.fixture(scope="module")
def heads() -> tuple[HeadStudy, HeadStudy]:
    """Two visits on grids of different orientation."""
    return HeadStudy.of("oblique"), HeadStudy.of("left-handed", second=True)


@pytest.fixture(scope="module")
def registered(heads: tuple[HeadStudy, HeadStudy]) -> JointResult:
    """Result of a registration by T1 alone, with given tumour segmentations."""
    fixed, moving = (h.images(n, ("t1",), tumor_labels=h.labels) for h, n in zip(heads, NAMES, strict=True))
    return process_pair(fixed, moving, None, QUICK)


def test_one_modality_without_network_finds_the_map_between_the_visits(registered: JointResult) -> None:
    points = points_in_head()
    start = registration_error(points, points)
    affine = registration_error(points, by_sitk(registered.affine, points))
    error = registration_error(points, by_sitk(registered.moving_to_fixed, points))
    assert start > 6
    assert affine < 0.5 * start
    assert error < 0.8 * affine
    assert error < 2.8  # mm, on voxels of 4 to 5 mm


def test_the_inverse_transform_leads_back_to_the_start(registered: JointResult) -> None:
    points = points_in_head(seed=1)
    back = by_sitk(registered.fixed_to_moving, by_sitk(registered.moving_to_fixed, points))
    distance = np.linalg.norm(back - points, axis=1)
    assert distance.mean() < 0.05 * 4  # mm, on voxels of 4 mm
    assert distance.max() < 0.15 * 4
    assert registered.summary["inverse_error_mm_mean"] < 0.1 * 4  # whole brain, its border included
    assert registered.summary["folded_fraction"] == 0


def test_warped_images_equal_what_simpleitk_resamples_with_the_transform(
    heads: tuple[HeadStudy, HeadStudy], registered: JointResult
) -> None:
    fixed, moving = (h.image("t1") for h in heads)
    expected = sitk.Resample(moving, fixed, registered.moving_to_fixed, sitk.sitkLinear, 0.0)
    assert np.allclose(sitk.GetArrayFromImage(registered.warped["t1"]), sitk.GetArrayFromImage(expected), atol=1e-3)
    assert list(registered.warped) == ["t1"]


def test_results_lie_on_the_native_grids(heads: tuple[HeadStudy, HeadStudy], registered: JointResult) -> None:
    fixed, moving = (h.image("t1") for h in heads)
    for image in (registered.fixed_labels, registered.warped_labels, registered.jacobian, registered.fixed_mask):
        assert image.GetSize() == fixed.GetSize()
        assert np.allclose(image.GetDirection(), fixed.GetDirection())
        assert np.allclose(image.GetOrigin(), fixed.GetOrigin())
    for image in (registered.moving_labels, registered.moving_mask):
        assert image.GetSize() == moving.GetSize()
        assert np.allclose(image.GetDirection(), moving.GetDirection())


def test_without_a_network_the_given_segmentations_are_the_result(
    heads: tuple[HeadStudy, HeadStudy], registered: JointResult
) -> None:
    assert np.array_equal(sitk.GetArrayFromImage(registered.fixed_labels), heads[0].visit.labels)
    assert np.array_equal(sitk.GetArrayFromImage(registered.moving_labels), heads[1].visit.labels)
    assert registered.fixed_uncertainty is None


def test_volumes_and_their_change_are_those_of_the_phantom(registered: JointResult) -> None:
    change = {row.region: row for row in registered.changes}["whole_tumor"]
    ball = 4 / 3 * np.pi * TUMOR_RADII_MM[2] ** 3 / 1000
    assert change.fixed_ml == pytest.approx(ball, rel=0.15)
    assert change.moving_ml == pytest.approx(ball * GROWTH**3, rel=0.15)
    assert change.change_ml == pytest.approx(change.moving_ml - change.fixed_ml)
    assert change.change_percent == pytest.approx(100 * change.change_ml / change.fixed_ml)
    assert change.moving_warped_ml == pytest.approx(change.moving_ml, rel=0.15)
    assert change.fixed_deformed_ml == pytest.approx(change.fixed_ml, rel=0.15)


def test_the_registration_increases_the_similarity(registered: JointResult) -> None:
    summary = registered.summary
    assert summary["local_correlation_after"] > summary["local_correlation_before"] + 0.05
    assert summary["brain_dice_after"] >= summary["brain_dice_before"]
    assert set(summary["seconds"]) >= {"affine", "refinement", "results"}
    assert summary["similarity"] == "lncc"


def test_given_segmentations_are_no_guesses(registered: JointResult) -> None:
    assert not registered.warnings
    assert all(row.change_ml is not None for row in registered.changes)


def test_the_settings_of_the_refinement_have_their_effect(heads: tuple[HeadStudy, HeadStudy]) -> None:
    """A stiffer field deforms less; other regularisers and similarities give other results."""
    fixed, moving = (head.images(name, ("t1",)) for head, name in zip(heads, NAMES, strict=True))

    told: list[str] = []

    def spread(**values: object) -> float:
        settings = replace(QUICK, affine="rigid", refine_iterations=8, **values)
        result = process_pair(fixed, moving, None, settings)
        told.extend(warning for warning in result.warnings if "time limit" in warning)
        return float(np.std(sitk.GetArrayViewFromImage(result.jacobian)))

    usual = spread()
    assert spread(regularisation=500.0) < 0.3 * usual
    assert spread(regulariser="diffusion") != pytest.approx(usual, rel=1e-3)
    assert spread(similarity="lncc") == usual
    assert spread(similarity="mse") != pytest.approx(usual, rel=1e-3)
    assert not told
    assert spread(time_limit_s=1e-9) < 0.5 * usual
    assert len(told) == 1
