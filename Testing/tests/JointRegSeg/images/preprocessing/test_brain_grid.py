"""The working grid around a brain."""

from __future__ import annotations

import pytest
import SimpleITK as sitk

from JointRegSegLib.images.preprocessing.brain_grid import brain_grid
from JointRegSegLib.images.preprocessing.config import PreprocessingConfig


@pytest.mark.parametrize(
    ("margin", "multiple", "least"),
    [(0, 1, 0), (6, 1, 6), (30, 1, 30), (0, 16, 0), (2, 16, 2), (6, 16, 2), (10, 16, 6), (30, 16, 26)],
)
def test_the_grid_keeps_the_margin_around_the_brain(margin: float, multiple: int, least: float) -> None:
    brain = sitk.Image(130, 140, 125, sitk.sitkUInt8) + 1
    grid = brain_grid([(brain, None)], PreprocessingConfig(crop_margin_mm=margin, multiple_of=multiple), brain)
    assert grid.size == tuple(-(-(n + 2 * least) // multiple) * multiple for n in (130, 140, 125))


def test_no_study_is_refused_for_a_margin_that_its_grid_does_not_have() -> None:
    brain = sitk.Image(40, 40, 40, sitk.sitkUInt8) + 1
    grid = brain_grid([(brain, None)], PreprocessingConfig(), brain, largest=48**3)
    assert grid.shape == (48, 48, 48)
