"""Volumes of the tumour regions, their intervals and changes, and the removal of small islands."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from JointRegSegLib.findings.region_volumes import (
    ERROR_PER_UNCERTAIN,
    VISIBLE_IN,
    VOLUME_REGIONS,
    missing_compartments,
    region_volumes,
    regions_without_modality,
    uncertain_volumes,
    unlike_regions,
    volume_changes,
    without_islands,
)
from JointRegSegLib.findings.result import RegionCoverage
from JointRegSegLib.images.modalities import MODALITIES


def test_small_islands_are_removed_and_the_largest_part_stays() -> None:
    array = np.zeros((20, 20, 20), np.uint8)
    array[2:8, 2:8, 2:8] = 2
    array[4:6, 4:6, 4:6] = 3
    array[12:14, 12:14, 12:14] = 1  # 8 voxels
    array[16:19, 3:6, 3:6] = 3  # 27 voxels
    labels = sitk.GetImageFromArray(array)
    labels.SetSpacing((1.0, 2.0, 5.0))  # 0.01 ml
    kept = sitk.GetArrayFromImage(without_islands(labels, 0.2))
    assert not kept[12:14].any()
    assert np.array_equal(np.delete(kept, (12, 13), 0), np.delete(array, (12, 13), 0))
    only_largest = sitk.GetArrayFromImage(without_islands(labels, 100.0))
    assert np.array_equal(only_largest > 0, (array > 0) & (np.arange(20) < 10)[:, None, None])
    assert np.array_equal(sitk.GetArrayFromImage(without_islands(labels, 0.0)), array)


def test_a_cavity_neither_holds_specks_of_tumor_nor_counts_as_its_largest_part() -> None:
    array = np.zeros((20, 20, 20), np.uint8)
    array[1:9, 1:9, 1:9] = 4  # 5.1 ml
    array[9, 4, 4] = 2  # one voxel at its wall
    array[14:16, 14:16, 14:16] = 3  # the only tumour, 0.08 ml
    labels = sitk.GetImageFromArray(array)
    labels.SetSpacing((1.0, 2.0, 5.0))
    kept = sitk.GetArrayFromImage(without_islands(labels, 0.2))
    expected = array.copy()
    expected[9, 4, 4] = 0
    assert np.array_equal(kept, expected)


def test_specks_of_cavity_become_what_is_around_them() -> None:
    array = np.zeros((20, 20, 20), np.uint8)
    array[1:9, 1:9, 1:9] = 1
    array[4, 4, 4] = 4  # within the core
    array[15, 15, 15] = 4  # in the brain
    labels = sitk.GetImageFromArray(array)
    labels.SetSpacing((1.0, 2.0, 5.0))
    kept = sitk.GetArrayFromImage(without_islands(labels, 0.1))
    expected = np.zeros_like(array)
    expected[1:9, 1:9, 1:9] = 1
    assert np.array_equal(kept, expected)


def test_a_network_that_knows_the_cavity_reports_that_there_is_none() -> None:
    array = np.zeros((4, 4, 4), np.uint8)
    array[0] = 2
    labels = sitk.GetImageFromArray(array)
    counts = torch.tensor([[48, 0, 16, 0, 0], [48, 0, 16, 0, 0]])
    rows = {row.region: row for row in region_volumes(labels, "fixed", counts)}
    assert rows["resection_cavity"].volume_ml == 0
    assert "resection_cavity" not in [row.region for row in region_volumes(labels, "fixed", counts[:, :4])]


def test_volumes_count_voxels_and_intervals_follow_the_variants() -> None:
    array = np.zeros((10, 10, 10), np.uint8)
    array[:2], array[2:3], array[3:4] = 2, 1, 3
    labels = sitk.GetImageFromArray(array)
    labels.SetSpacing((2.0, 2.0, 2.5))  # 0.01 ml
    counts = torch.tensor([[0, 10, 40, 20], [0, 10, 60, 20]])
    rows = {row.region: row for row in region_volumes(labels, "fixed", counts)}
    assert rows["edema"].volume_ml == pytest.approx(2.0)
    assert (rows["edema"].low_ml, rows["edema"].high_ml) == pytest.approx((1.6, 2.4))
    assert rows["tumor_core"].volume_ml == pytest.approx(2.0)
    assert rows["whole_tumor"].volume_ml == pytest.approx(4.0)
    assert rows["necrotic_core"].low_ml == rows["necrotic_core"].high_ml == pytest.approx(1.0)


def test_intervals_grow_with_the_uncertain_volume() -> None:
    array = np.zeros((10, 10, 10), np.uint8)
    array[:2] = 2
    labels = sitk.GetImageFromArray(array)
    labels.SetSpacing((2.0, 2.0, 2.5))  # 0.01 ml
    probabilities = torch.zeros(4, 10, 10, 10)
    probabilities[2, :2], probabilities[2, 2:4] = 0.9, 0.5
    probabilities[0] = 1 - probabilities[2]
    uncertain = uncertain_volumes(probabilities, 0.01)
    assert uncertain["edema"] == pytest.approx(2 * 0.09 + 2 * 0.25)
    assert uncertain["edema"] == uncertain["whole_tumor"]
    assert uncertain["enhancing_tumor"] == 0
    assert "resection_cavity" not in uncertain
    counts = torch.tensor([[800, 0, 200, 0], [800, 0, 200, 0]])
    row = {row.region: row for row in region_volumes(labels, "fixed", counts, None, None, uncertain)}["edema"]
    error = ERROR_PER_UNCERTAIN["edema"] * 0.68
    assert (row.low_ml, row.high_ml) == pytest.approx((max(0.0, 2 - error), 2 + error))
    assert ERROR_PER_UNCERTAIN.keys() == VOLUME_REGIONS.keys()


def test_a_change_is_unknown_if_one_study_has_no_segmentation() -> None:
    array = np.full((10, 10, 10), 1, np.uint8)
    labels = sitk.GetImageFromArray(array)
    twice = sitk.GetImageFromArray(np.full(array.shape, 2, np.float32))
    rows = volume_changes(region_volumes(labels, "fixed"), (), labels, None, twice)
    necrosis = {row.region: row for row in rows}["necrotic_core"]
    assert (necrosis.fixed_ml, necrosis.moving_ml, necrosis.change_ml) == (1.0, None, None)
    assert necrosis.fixed_deformed_ml == pytest.approx(2.0)
    assert volume_changes((), (), None, None, twice) == ()


def test_a_compartment_that_a_convention_does_not_have_is_unknown_and_not_compared() -> None:
    """The same tumour by a convention of oedema and enhancing tumour alone, and by one with all compartments."""
    array = np.zeros((10, 10, 10), np.uint8)
    array[:5], array[:3], array[:1] = 2, 3, 1
    labels = sitk.GetImageFromArray(array)
    alone = region_volumes(sitk.Mask(labels, labels != 1), "fixed", known={2, 3})
    every = region_volumes(labels, "moving")
    assert "necrotic_core" not in [row.region for row in alone]
    blank = sitk.Image(labels.GetSize(), sitk.sitkFloat32) + 1
    changes = {row.region: row for row in volume_changes(alone, every, labels, labels, blank)}
    core = changes["necrotic_core"]
    assert (core.fixed_ml, core.fixed_deformed_ml, core.moving_ml) == (None, None, pytest.approx(0.1))
    unlike = {"necrotic_core", "tumor_core", "whole_tumor"}
    assert {region for region, row in changes.items() if row.change_ml is None} == unlike
    assert unlike_regions(alone, every) == unlike
    (sentence,) = missing_compartments("fixed", alone, every)
    assert "has no number or segment for the necrotic core, which is therefore unknown" in sentence
    assert "whole tumour and tumour core are measured without it; these are not compared" in sentence
    assert missing_compartments("moving", every, alone) == ()
    both = {row.region: row.change_ml for row in volume_changes(alone, alone, labels, labels, blank)}
    assert both["whole_tumor"] == 0.0  # two visits of one convention are alike
    only = region_volumes(sitk.Mask(labels, labels == 2), "fixed", known={2})
    assert [row.region for row in only] == ["edema", "whole_tumor"]


def test_a_volume_that_is_only_the_least_one_has_no_counterpart_that_counts_every_voxel() -> None:
    """The upper half of the oedema lies where no image of the fixed study shows it: only the rest counts."""
    labels = sitk.GetImageFromArray(np.full((10, 10, 10), 2, np.uint8))
    upper = labels * 0
    upper[:, :, 5:] = 1
    coverage = {name: RegionCoverage(0.5, name in ("edema", "whole_tumor")) for name in VOLUME_REGIONS}
    fixed = region_volumes(labels, "fixed", coverage=coverage, hidden={"edema": upper, "whole_tumor": upper})
    blank = sitk.Image(labels.GetSize(), sitk.sitkFloat32) + 1
    rows = volume_changes(fixed, region_volumes(labels, "moving"), labels, labels, blank)
    edema = {row.region: row for row in rows}["edema"]
    assert (edema.fixed_ml, edema.fixed_at_least, edema.moving_ml) == (0.5, True, 1.0)
    assert (edema.change_ml, edema.moving_warped_ml, edema.fixed_deformed_ml) == (None, None, None)


def test_every_region_is_visible_in_some_modality() -> None:
    assert VISIBLE_IN.keys() == VOLUME_REGIONS.keys()
    assert {modality for modalities in VISIBLE_IN.values() for modality in modalities} <= set(MODALITIES)


def test_regions_need_the_modality_in_which_they_are_visible() -> None:
    assert regions_without_modality(("t1", "t1ce", "t2")) == ()
    assert regions_without_modality(("t1", "flair")) == ("necrotic_core", "enhancing_tumor", "tumor_core")
    assert regions_without_modality(("t1ce",)) == ("edema", "whole_tumor")
