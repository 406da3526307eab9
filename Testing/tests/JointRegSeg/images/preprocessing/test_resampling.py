"""Images and labels on the working grid."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from joint_studies import HeadStudy, ras_points, rimmed_sphere

from JointRegSegLib.images.grid import WorkingGrid
from JointRegSegLib.images.preprocessing.brain_grid import brain_grid
from JointRegSegLib.images.preprocessing.config import PreprocessingConfig
from JointRegSegLib.images.preprocessing.preparation import prepare_study
from JointRegSegLib.images.preprocessing.resampling import image_on_grid, labels_on_grid
from JointRegSegLib.synthesis.phantom import TUMOR_CENTER_MM, make_visit

COARSE = PreprocessingConfig(spacing_mm=4.0, multiple_of=8)


@pytest.fixture(scope="module")
def study() -> HeadStudy:
    return HeadStudy.of("axial")


def test_images_finer_than_the_grid_are_smoothed_before_resampling() -> None:
    generator = np.random.default_rng(1)
    noise = sitk.GetImageFromArray(generator.normal(100, 10, (60, 60, 60)).astype(np.float32))
    mask = sitk.GetImageFromArray(np.ones((60, 60, 60), np.uint8))
    mask.CopyInformation(noise)
    config = PreprocessingConfig(spacing_mm=3.0, multiple_of=4, normalisation="zscore_crop")
    grid = brain_grid([(mask, None)], config, noise)
    values, seen = image_on_grid(noise, grid, None, "linear")
    inner = seen & (np.abs(values - 100) < 60)
    assert values[inner].std() < 4  # without smoothing, the standard deviation would be 10


def test_labels_keep_their_place_and_volume(study: HeadStudy) -> None:
    prepared = prepare_study(study.images("study").images, study.brain, COARSE)
    fine = WorkingGrid(tuple(2 * n for n in prepared.grid.shape), 2.0, prepared.grid.origin_lps_mm)
    found = labels_on_grid(study.grid.to_sitk(study.visit.labels), fine).numpy()
    at = ras_points(fine)
    expected = make_visit(fine.shape, _matrix(fine)).labels
    for number in (1, 2, 3):
        assert (found == number).sum() == pytest.approx((expected == number).sum(), rel=0.3)
    assert np.linalg.norm(at[found == 1].mean(axis=0) - TUMOR_CENTER_MM) < 2
    assert found.dtype == np.uint8


@pytest.mark.parametrize("spacing_mm", [1.0, 2.0])
def test_voxels_exactly_between_two_classes_go_to_either_of_them(spacing_mm: float) -> None:
    labels = rimmed_sphere()
    grid = WorkingGrid((round(48 / spacing_mm),) * 3, spacing_mm, (47.5, 47.5, 0.5))  # half a voxel aside
    found = labels_on_grid(labels, grid).numpy()
    given = sitk.GetArrayViewFromImage(labels)
    for classes in ((1, 2, 3), (1, 3), (3,)):
        expected = np.isin(given, classes).sum()
        assert np.isin(found, classes).sum() * spacing_mm**3 == pytest.approx(expected, rel=0.02)


def test_a_voxel_of_several_classes_of_tumor_is_not_background() -> None:
    blocks = np.zeros((4, 4, 4), np.uint8)
    blocks[1:3, 1:3, 1:3] = [[[1, 1], [1, 2]], [[2, 0], [0, 0]]]  # 3 of 8 voxels are core, 2 oedema, 3 background
    labels = sitk.GetImageFromArray(blocks)
    grid = WorkingGrid((1, 1, 1), 2.0, (1.5, 1.5, 1.5))
    assert labels_on_grid(labels, grid).item() == 1


def test_labels_stay_as_they_are_on_their_own_grid() -> None:
    labels = rimmed_sphere()
    labels.SetOrigin((47.0, 47.0, 0.0))
    labels.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    found = labels_on_grid(labels, WorkingGrid((48,) * 3, 1.0, (47.0, 47.0, 0.0))).numpy()
    np.testing.assert_array_equal(found, sitk.GetArrayViewFromImage(labels))


def _matrix(grid: WorkingGrid) -> np.ndarray:
    matrix = np.diag([grid.spacing_mm] * 3 + [1.0])
    matrix[:3, 3] = np.array(grid.origin_lps_mm) * [-1, -1, 1]
    return matrix
