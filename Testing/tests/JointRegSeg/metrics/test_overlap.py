"""Overlap and volumes of tumour regions in closed form, with the conventions of BraTS for empty masks."""

from __future__ import annotations

import numpy as np
import pytest

from JointRegSegLib.metrics.overlap import dice, region_scores, volume_ratios
from JointRegSegLib.metrics.surface_distance import HD95_ONE_EMPTY_MM, hd95

EMPTY = np.zeros((6, 7, 8), bool)


def test_empty_masks_follow_the_conventions_of_brats() -> None:
    full = EMPTY.copy()
    full[2:4, 2:4, 2:4] = True
    assert (dice(EMPTY, EMPTY), hd95(EMPTY, EMPTY)) == (1, 0)
    assert (dice(EMPTY, full), hd95(EMPTY, full)) == (0, HD95_ONE_EMPTY_MM)
    assert (dice(full, EMPTY), hd95(full, EMPTY)) == (0, HD95_ONE_EMPTY_MM)
    assert pytest.approx(np.linalg.norm((240, 240, 155)), abs=0.01) == HD95_ONE_EMPTY_MM
    assert (dice(full, full), hd95(full, full)) == (1, 0)


def test_dice_of_shifted_boxes_is_their_overlap() -> None:
    mask = np.zeros((24, 20, 22), bool)
    mask[2:6, 2:7, 2:12] = True
    assert dice(mask, np.roll(mask, 3, 2)) == pytest.approx(0.7)


def test_dice_refuses_masks_of_different_shapes() -> None:
    with pytest.raises(ValueError, match="both must have the same shape"):
        dice(EMPTY, EMPTY[1:])


def test_a_resection_cavity_is_scored_where_either_has_one() -> None:
    expected = np.zeros((12, 12, 12), np.uint8)
    expected[2:10, 2:10, 2:10] = 2
    assert "dice_resection_cavity" not in region_scores(expected, expected, (1, 1, 1))
    predicted = expected.copy()
    expected[4:6, 4:8, 4:8] = 4
    predicted[4:8, 4:8, 4:8] = 4
    scores = region_scores(predicted, expected, (1, 1, 1), distances=False)
    assert scores["dice_resection_cavity"] == pytest.approx(2 / 3)
    assert scores["dice_whole_tumor"] < 1  # of which a cavity is no part


def test_each_region_is_scored_separately() -> None:
    expected = np.zeros((12, 12, 12), np.uint8)
    expected[2:10, 2:10, 2:10] = 2
    expected[4:8, 4:8, 4:8] = 3
    expected[5:7, 5:7, 5:7] = 1
    predicted = np.where(expected == 1, 3, expected)  # the necrosis is predicted as enhancing
    scores = region_scores(predicted, expected, (2, 1, 1))
    assert scores["dice_whole_tumor"] == scores["dice_tumor_core"] == 1
    assert scores["dice_enhancing_tumor"] == pytest.approx(2 * 56 / (64 + 56))
    assert scores["hd95_mm_tumor_core"] == 0
    assert scores["hd95_mm_enhancing_tumor"] == 0  # the shell is one voxel thick: both surfaces are the same voxels


def test_volume_ratios_account_for_the_voxel_size() -> None:
    before = np.zeros((8, 8, 8), np.uint8)
    before[2:6, 2:6, 2:6] = 2
    after = np.zeros((16, 8, 8), np.uint8)
    after[4:12, 2:6, 2:6] = 2
    ratios = volume_ratios(before, after, 0.5)
    assert ratios["volume_ratio_whole_tumor"] == 1
    assert np.isnan(ratios["volume_ratio_enhancing_tumor"])
