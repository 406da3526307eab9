"""Segmentations that are carried along, on the voxels of the fixed image."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import SimpleITK as sitk

from JointRegSegLib.images.study import StudyImages
from JointRegSegLib.scene.carrying import (
    absent_from_brain,
    carried_along,
    check_place,
    holds_labels,
    lost_beyond,
    node_to_carry,
)
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.segmentations import add_segmentation, masks_on
from NeuroCESTLib.scene.volumes import add_volume, volume_array

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


def test_a_parcellation_is_labels_whatever_the_sign_and_number_of_its_values(slicer: ModuleType) -> None:
    grid = Geometry((40, 40, 40), np.eye(4))
    k, j, i = np.indices(grid.shape) // 4
    parcels = 1 + (k * 10 + j) * 10 + i  # 1000 of them
    outside = (k == 0) | (k == 9)
    head = np.random.default_rng(0).normal(100, 20, grid.shape).astype(np.int16)
    for array, expected in (
        (np.where(outside, 0, parcels), True),
        (np.where(outside, -1, parcels), True),
        (np.where(outside, -1, parcels).astype(np.float32), True),
        (head, False),
        (head - 100, False),
    ):
        volume = array if array.dtype == np.float32 else array.astype(np.int16)
        node = add_volume(volume, grid, "parcels")
        assert holds_labels(node) == expected
        inner = grid.to_sitk(np.zeros(grid.shape, np.uint8))[:, :, 4:36]
        if expected:  # what lies around the parcels is nothing to lose
            assert lost_beyond(node_to_carry(node, grid), IDENTITY, inner) == []


def test_a_map_in_few_whole_numbers_of_either_sign_is_no_label_map(slicer: ModuleType) -> None:
    """Scanners write APTw in whole percent; beyond its field of view it is unknown and not 0."""
    grid = Geometry(SHAPE, np.diag([2.0, 2.0, 2.0, 1.0]))
    percent = np.rint(np.random.default_rng(0).normal(2, 1.5, SHAPE)).astype(np.int16)
    carried = node_to_carry(add_volume(percent, grid, "APTw"), grid)
    assert not carried.labels
    padded = sitk.ConstantPad(grid.to_sitk(percent), [0, 0, 5], [0, 0, 5])
    copy = volume_array(carried_along(carried, IDENTITY, padded)())
    np.testing.assert_array_equal(np.isfinite(copy), np.pad(np.ones(SHAPE, bool), ((5, 5), (0, 0), (0, 0))))


def test_labels_with_negative_numbers_keep_their_background_and_tell_what_is_lost(slicer: ModuleType) -> None:
    """A number below 0 may be a label, as 0 may be one where the background is another number."""
    grid = Geometry(SHAPE, np.diag([10.0, 10.0, 10.0, 1.0]))
    array = np.zeros(SHAPE, np.int16)
    array[4:16, 4:10, 4:16], array[4:16, 10:16, 4:16] = -3, 5
    everything = grid.to_sitk(np.zeros(SHAPE, np.uint8))
    padded = sitk.ConstantPad(everything, [5] * 3, [5] * 3)
    for background, numbers in ((0, array), (-1, np.where(array == 0, -1, array * (array > 0)).astype(np.int16))):
        carried = node_to_carry(add_volume(numbers, grid, "parcels"), grid)
        (told,) = lost_beyond(carried, IDENTITY, everything[:, 10:, :])
        assert "864.0 of its 1728.0 ml are not in its copy" in told
        copy = volume_array(carried_along(carried, IDENTITY, padded)())
        np.testing.assert_array_equal(copy, np.pad(numbers, 5, constant_values=background))


@pytest.mark.parametrize("label", [False, True])
def test_an_image_beside_the_visit_is_refused(slicer: ModuleType, label: bool) -> None:
    """Its copy on the fixed study would be empty."""
    grid = Geometry(SHAPE, np.diag([2.0, 2.0, 2.0, 1.0]))
    moving = StudyImages({"t1": grid.to_sitk(np.zeros(SHAPE, np.float32))}, name="moving")
    for shift_mm, here in ((20.0, True), (3000.0, False)):
        matrix = grid.ijk_to_ras.copy()
        matrix[0, 3] += shift_mm
        carried = node_to_carry(add_volume(np.ones(SHAPE, np.uint8), Geometry(SHAPE, matrix), "amide", label), grid)
        if here:
            check_place(carried, moving)
            continue
        with pytest.raises(ValueError, match="'amide' lies elsewhere in space than the images of the moving study"):
            check_place(carried, moving)


@pytest.mark.parametrize(
    ("planes", "known", "words"),
    [
        (slice(0, 20), slice(0, 20), []),
        (slice(8, 9), slice(0, 1), []),  # a single slice
        (slice(0, 20), slice(10, 11), []),  # fitted in a small region, all of which arrives
        (slice(0, 2), slice(0, 2), ["'amide' has values in only 0.0 of the 20.5 ml of the fixed brain: check that it"]),
    ],
)
def test_a_map_that_hardly_meets_the_fixed_brain_is_told(
    slicer: ModuleType, planes: slice, known: slice, words: list[str]
) -> None:
    fixed = Geometry(SHAPE, np.diag([2.0, 2.0, 2.0, 1.0]))
    brain = np.zeros(SHAPE, np.uint8)
    brain[4:12, :, 2:18] = 1
    matrix = fixed.ijk_to_ras.copy()
    matrix[2, 3] += 2.0 * planes.start
    values = np.full((planes.stop - planes.start, *SHAPE[1:]), np.nan, np.float32)
    values[known] = np.random.default_rng(0).random(values[known].shape) - 0.5
    if known.stop - known.start == 1 and len(values) == 20:
        values[known, 1:] = np.nan
    node = add_volume(values, Geometry(values.shape, matrix), "amide")
    told = absent_from_brain(node_to_carry(node, fixed), IDENTITY, fixed.to_sitk(brain))
    assert len(told) == len(words)
    assert all(text.startswith(start) for text, start in zip(told, words, strict=True))
