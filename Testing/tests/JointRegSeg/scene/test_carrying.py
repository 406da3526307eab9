"""Segmentations that are carried along, on the voxels of the fixed image."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import SimpleITK as sitk

from JointRegSegLib.scene.carrying import carried_along, node_to_carry
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.segmentations import add_segmentation, masks_on

IDENTITY = sitk.Transform(3, sitk.sitkIdentity)
SHAPE = (20, 20, 20)


@pytest.mark.parametrize("shift_mm", [1.0, -1.0])
def test_a_segmentation_half_a_voxel_beside_the_fixed_image_keeps_its_volume(
    slicer: ModuleType, shift_mm: float
) -> None:
    """The voxels at its border lie exactly between it and the background."""
    fixed = Geometry(SHAPE, np.diag([2.0, 2.0, 2.0, 1.0]))
    matrix = fixed.ijk_to_ras.copy()
    matrix[:3, 3] = shift_mm
    drawn = np.zeros(SHAPE, bool)
    drawn[5:11, 6:12, 4:10] = True
    node = add_segmentation({"core": drawn}, Geometry(SHAPE, matrix), "drawn")
    image = fixed.to_sitk(np.zeros(SHAPE, np.uint8))
    carried = masks_on(carried_along(node_to_carry(node, fixed), IDENTITY, image)(), fixed)["core"]
    assert carried.sum() == pytest.approx(drawn.sum(), rel=0.1)


def test_a_segmentation_on_the_voxels_of_the_fixed_image_stays_as_it_is(slicer: ModuleType) -> None:
    fixed = Geometry(SHAPE, np.diag([2.0, 2.0, 2.0, 1.0]))
    drawn = np.random.default_rng(0).random(SHAPE) < 0.5  # up to the border of the image
    node = add_segmentation({"core": drawn}, fixed, "drawn")
    image = fixed.to_sitk(np.zeros(SHAPE, np.uint8))
    np.testing.assert_array_equal(
        masks_on(carried_along(node_to_carry(node, fixed), IDENTITY, image)(), fixed)["core"], drawn
    )
