"""Images and labels on the working grid."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from joint_studies import HeadStudy, ras_points

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


def _matrix(grid: WorkingGrid) -> np.ndarray:
    matrix = np.diag([grid.spacing_mm] * 3 + [1.0])
    matrix[:3, 3] = np.array(grid.origin_lps_mm) * [-1, -1, 1]
    return matrix
