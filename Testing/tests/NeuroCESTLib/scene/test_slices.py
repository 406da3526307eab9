"""Slices in radiological orientation."""

from __future__ import annotations

import numpy as np
import pytest
from geometries import GRIDS, SHAPE

from NeuroCESTLib.scene.slices import bounding_box, slice_view


@pytest.mark.parametrize("name", GRIDS)
def test_pictures_show_the_patients_right_on_the_left(name: str) -> None:
    geometry = GRIDS[name]
    view = slice_view(geometry)
    k, j, i = np.meshgrid(*[np.arange(n) for n in geometry.shape], indexing="ij")
    ras = (np.stack([i, j, k, np.ones_like(i)], axis=-1) @ geometry.ijk_to_ras.T)[..., :3]
    x, y, z = (view.cut(ras[..., axis]) for axis in range(3))
    left, right, top, _ = view.letters
    sides = {"R": x, "L": -x, "A": y, "P": -y, "S": z, "I": -z}
    assert sides[left][:, 0].mean() > sides[left][:, -1].mean()
    assert sides[top][0].mean() > sides[top][-1].mean()
    assert (left, right) in {("R", "L"), ("A", "P")}
    assert top in "AS"


def test_the_slice_with_the_most_mask_voxels_is_shown() -> None:
    mask = np.zeros(SHAPE, bool)
    mask[3, 1:4, 1:4] = True
    mask[1, 1, 1] = True
    view = slice_view(GRIDS["anisotropic"], mask)
    assert (view.axis, view.index) == (0, 3)
    rows, columns = bounding_box(np.pad(mask[3], 20))
    assert rows.start > 15
    assert columns.stop < 35


def test_without_a_mask_the_middle_slice_is_shown() -> None:
    for mask in (None, np.zeros(SHAPE, bool)):
        assert slice_view(GRIDS["anisotropic"], mask).index == SHAPE[0] // 2


def test_the_box_of_an_empty_picture_is_the_whole_picture() -> None:
    assert bounding_box(np.zeros((4, 5), bool)) == (slice(None), slice(None))
