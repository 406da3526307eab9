"""Visits of which images show a part: left out of the registration, segmented part by part, reported as "at least"."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from joint_studies import HeadStudy, by_sitk, doubting, judging_by_brightness, points_in_head, small_weights

from JointRegSegLib.findings.coverage import (
    coverage_warnings,
    hidden_on,
    left_out,
    region_coverage,
    shares_seen,
    single_coverage,
)
from JointRegSegLib.findings.region_volumes import region_volumes
from JointRegSegLib.images.grid import WorkingGrid
from JointRegSegLib.images.labels import EDEMA, ENHANCING
from JointRegSegLib.images.modalities import MODALITIES
from JointRegSegLib.images.preprocessing.prepared_study import PreparedStudy
from JointRegSegLib.images.study import StudyImages
from JointRegSegLib.inference.network_pass import segment_prepared
from JointRegSegLib.inference.pair_pass import run_network, segment_by_coverage
from JointRegSegLib.inference.pipeline import process_pair
from JointRegSegLib.inference.settings import InferenceSettings
from JointRegSegLib.network.weights import LoadedWeights, load_weights
from JointRegSegLib.registration.deformation import Deformation, identity_displacement

CPU = torch.device("cpu")
SHAPE = (16, 16, 24)
BRAIN = (slice(2, 14), slice(2, 14), slice(2, 22))


def study(slabs: dict[str, slice]) -> PreparedStudy:
    """A study on voxels of 4 mm, each image of which shows a slab along the first axis."""
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    mask[BRAIN] = True
    images, seen = torch.full((4, *SHAPE), -3.0), torch.zeros((4, *SHAPE), dtype=torch.bool)
    noise = torch.randn((4, *SHAPE), generator=torch.Generator().manual_seed(0))
    for name, slab in slabs.items():
        channel = MODALITIES.index(name)
        seen[channel, slab] = True
        images[channel] = torch.where(seen[channel] & mask, noise[channel], images[channel])
    present = tuple(m for m in MODALITIES if m in slabs)
    return PreparedStudy(images, mask, WorkingGrid(SHAPE, 4.0, (0.0, 0.0, 0.0)), present, seen=seen)


WHOLE, UPPER = slice(None), slice(8, None)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> LoadedWeights:
    return load_weights(small_weights(tmp_path_factory.mktemp("weights") / "small.pt"))


# --- the registration ------------------------------------------------------------------------------------------------


def test_a_complete_pair_leaves_out_the_tumor_alone() -> None:
    whole = study({"t1": WHOLE, "flair": WHOLE})
    tumor = torch.zeros((1, 1, *SHAPE), dtype=torch.bool)
    assert left_out(whole, ("t1", "flair"), whole.mask, None) is None
    assert left_out(whole, ("t1", "flair"), whole.mask, tumor) is tumor


def test_each_modality_leaves_out_what_it_does_not_show() -> None:
    partial = study({"t1": WHOLE, "flair": UPPER})
    tumor = torch.zeros((1, 1, *SHAPE), dtype=torch.bool)
    tumor[..., 10, 5, 5] = True
    hidden = left_out(partial, ("t1", "flair"), partial.mask, tumor)
    assert hidden is not None
    assert hidden.shape == (1, 2, *SHAPE)
    assert torch.equal(hidden[:, :1], tumor)
    assert bool(hidden[0, 1, :8].all())
    assert int(hidden[0, 1, 8:].sum()) == 1
    assert shares_seen(partial, partial.mask) == {"t1": 1.0, "flair": 0.5}


def test_half_a_brain_is_registered_to_the_same_whole_brain_without_moving_it() -> None:
    """The true map is the identity; before, the whole brain was squeezed into its upper half."""
    head = HeadStudy.of("axial")
    t1 = head.image("t1")
    upper = t1[:, :, t1.GetSize()[2] // 2 :]
    settings = InferenceSettings(spacing_mm=4.0, affine="none", refine_iterations=30)
    mask = head.grid.to_sitk(head.visit.brain.astype(np.uint8))
    for fixed, moving in ((t1, upper), (upper, t1)):
        result = process_pair(
            StudyImages({"t1": fixed}, mask, name="fixed"),
            StudyImages({"t1": moving}, mask, name="moving"),
            None,
            settings,
        )
        points = points_in_head()
        error = np.linalg.norm(by_sitk(result.moving_to_fixed, points) - points, axis=1)
        assert error.mean() < 0.4
        assert error.max() < 2.0
        assert result.summary["brain_dice_after"] > 0.95  # where both show the brain
        shown = result.summary["brain_shown"]
        assert sorted([shown["fixed"]["t1"], shown["moving"]["t1"]])[0] < 0.7
        assert any("shows" in warning and "the rest is unknown" in warning for warning in result.warnings)


def test_a_given_mask_of_which_no_image_shows_half_is_named() -> None:
    for given_mask, shares, doubted in (
        ("the brain mask 'soft.nii.gz' of the fixed study", {"t1": 0.35, "flair": 0.3}, True),
        ("the brain mask 'soft.nii.gz' of the fixed study", {"t1": 0.35, "flair": 0.9}, False),  # T1 is a slab
        (None, {"t1": 0.35}, False),
    ):
        told = coverage_warnings("fixed", shares, {}, segmented=False, given_mask=given_mask)
        doubt = "no image shows as much as half of the brain mask 'soft.nii.gz' of the fixed study: check that it"
        assert any(text.startswith(doubt) for text in told) == doubted


def test_the_whole_tumor_contains_the_core_that_t1ce_shows_where_flair_ends() -> None:
    """The tumour is half oedema, half core; FLAIR shows its upper slices, T1ce all of it or none."""
    array = np.zeros(SHAPE, np.uint8)
    array[4:12, 4:12, 4:12], array[4:12, 4:12, 8:12] = EDEMA, ENHANCING
    for slabs, share in (({"t1ce": WHOLE, "flair": UPPER}, 0.75), ({"t1": WHOLE, "flair": UPPER}, 0.5)):
        partial = study(slabs)
        labels = partial.grid.to_sitk(torch.from_numpy(array))
        coverage = single_coverage(partial, torch.from_numpy(array))
        hidden = hidden_on(coverage, partial.grid, labels, None, labels)
        rows = {row.region: row for row in region_volumes(labels, "given", None, coverage, hidden)}
        whole_ml = np.count_nonzero(array) * 0.064
        assert rows["whole_tumor"].volume_ml == pytest.approx(share * whole_ml)
        assert rows["edema"].volume_ml == pytest.approx(0.25 * whole_ml)
        assert rows["whole_tumor"].at_least


# --- the network -----------------------------------------------------------------------------------------------------


def test_a_complete_study_is_segmented_at_once(weights: LoadedWeights) -> None:
    whole = study({"t1": WHOLE, "flair": WHOLE})
    found, expected = (s(weights, whole, -3.0, True, CPU) for s in (segment_by_coverage, segment_prepared))
    assert torch.equal(found.probabilities, expected.probabilities)


def test_where_an_image_ends_the_others_segment_as_if_it_were_absent(weights: LoadedWeights) -> None:
    partial = study({"t1": WHOLE, "flair": UPPER})
    t1_alone = replace(study({"t1": WHOLE}), images=study({"t1": WHOLE}).images)
    found = segment_by_coverage(weights, partial, -3.0, True, CPU)
    expected = segment_prepared(weights, t1_alone, -3.0, True, CPU)
    assert torch.allclose(found.probabilities[:, :8], expected.probabilities[:, :8], atol=1e-5)
    assert not torch.allclose(found.probabilities[:, 8:], expected.probabilities[:, 8:], atol=1e-2)
    assert torch.allclose(found.probabilities.sum(0), torch.ones(SHAPE), atol=1e-5)
    assert found.counts.sum(1).tolist() == pytest.approx([np.prod(SHAPE)] * 4, rel=0.02)


def test_parts_may_be_averaged_over_different_numbers_of_variants(weights: LoadedWeights) -> None:
    hiding = judging_by_brightness(weights, dropout=0.5)
    partial = study({"t1ce": WHOLE, "flair": WHOLE, "t2": UPPER})  # mirrored four times below, shown in two ways above
    found = segment_by_coverage(hiding, partial, -3.0, True, CPU)
    assert len(found.counts) == 4
    assert found.counts.sum(1).tolist() == pytest.approx([np.prod(SHAPE)] * 4, rel=0.02)
    assert len(segment_by_coverage(hiding, partial, -3.0, False, CPU).counts) == 1


def test_a_study_that_misses_slices_is_seen_with_and_without_the_correction_of_its_bias_field(
    weights: LoadedWeights,
) -> None:
    judging = judging_by_brightness(weights)
    partial = study({"flair": slice(3, None)})
    alone = segment_by_coverage(judging, partial, -3.0, True, CPU)
    both = segment_by_coverage(judging, replace(partial, uncorrected=partial.images + 0.5), -3.0, True, CPU)
    assert not torch.allclose(both.probabilities, alone.probabilities, atol=1e-2)


def test_the_part_that_contrast_agent_shows_is_segmented_without_the_correction_of_bias_fields(
    weights: LoadedWeights,
) -> None:
    judging = judging_by_brightness(weights)
    raw = study({"t1ce": UPPER, "flair": WHOLE})
    plain = segment_by_coverage(judging, raw, -3.0, True, CPU)
    corrected = replace(raw, images=raw.images + 0.5, uncorrected=raw.images, bias_corrected=True)
    found = segment_by_coverage(judging, corrected, -3.0, True, CPU)
    assert torch.allclose(found.probabilities[:, 8:], plain.probabilities[:, 8:], atol=1e-5)
    assert not torch.allclose(found.probabilities[:, :8], plain.probabilities[:, :8], atol=1e-2)


def test_images_with_contrast_agent_that_show_nearly_all_are_segmented_without_the_correction(
    weights: LoadedWeights,
) -> None:
    judging = judging_by_brightness(weights)
    raw = study({"t1ce": WHOLE, "flair": WHOLE})
    corrected = replace(raw, images=raw.images + 0.5, uncorrected=raw.images, bias_corrected=True)
    found, plain = (segment_by_coverage(judging, each, -3.0, True, CPU) for each in (corrected, raw))
    assert torch.equal(found.probabilities, plain.probabilities)


def test_tumour_that_is_left_out_is_counted_once_for_all_parts(weights: LoadedWeights) -> None:
    some = doubting(weights)
    partial = study({"t2": UPPER, "flair": WHOLE})
    quiet = replace(partial, images=torch.where(partial.images > -3, 0.1 * partial.images, partial.images))
    before = segment_by_coverage(some, quiet, -3.0, False, CPU)
    after = segment_by_coverage(judging_by_brightness(some), quiet, -3.0, False, CPU)
    assert after.removed is not None
    assert int(after.removed.sum()) > 100
    assert torch.equal(after.removed, (before.labels > 0) & (after.labels == 0))


def test_what_no_image_shows_is_background(weights: LoadedWeights) -> None:
    found = segment_by_coverage(weights, study({"flair": UPPER}), -3.0, False, CPU)
    assert bool((found.probabilities[0, :8] == 1).all())
    assert not bool((found.probabilities[0, 8:] == 1).all())


def test_the_network_registers_by_images_that_show_the_whole_brain(weights: LoadedWeights) -> None:
    whole, partial = study({"t1": WHOLE}), study({"t1": UPPER})
    assert run_network(weights, whole, whole, -3.0, False, CPU, lambda *_: None).deformation is not None
    assert run_network(weights, whole, partial, -3.0, False, CPU, lambda *_: None).deformation is None


# --- the volumes -----------------------------------------------------------------------------------------------------


def labels(*places: tuple[int, int]) -> torch.Tensor:
    """Oedema of 4 x 4 voxels in slices from first to last, per place."""
    classes = torch.zeros(SHAPE, dtype=torch.uint8)
    for first, last in places:
        classes[first:last, 6:10, 6:10] = 2
    return classes


def cut_off(fixed: PreparedStudy, moving: PreparedStudy, first: torch.Tensor, second: torch.Tensor) -> list[str]:
    """Visits in which the oedema is cut off."""
    still = Deformation(identity_displacement(SHAPE))
    found = region_coverage(fixed, moving, {"fixed": first, "moving": second}, {"fixed": False, "moving": False}, still)
    return [which for which, regions in found.items() if regions["edema"].cut_off]


def test_a_region_that_touches_the_edge_is_cut_off_and_one_away_from_it_is_not() -> None:
    whole, partial = study({"flair": WHOLE}), study({"flair": UPPER})
    assert cut_off(whole, partial, labels((8, 12)), labels((8, 12))) == ["moving"]
    assert cut_off(whole, partial, labels((10, 12)), labels((10, 12))) == []
    assert cut_off(whole, whole, labels((8, 12)), labels((2, 12))) == []


def test_a_region_that_the_other_visit_has_where_this_one_shows_nothing_is_cut_off() -> None:
    whole, partial = study({"flair": WHOLE}), study({"flair": UPPER})
    assert cut_off(whole, partial, labels((3, 6)), labels()) == ["moving"]
    assert cut_off(partial, whole, labels(), labels((3, 6))) == ["fixed"]


def test_another_image_that_shows_the_region_makes_up_for_the_one_that_ends() -> None:
    whole, partial = study({"flair": WHOLE}), study({"t2": WHOLE, "flair": UPPER})
    assert cut_off(whole, partial, labels((8, 12)), labels((8, 12))) == []


def test_a_cut_tumor_is_reported_as_at_least_and_without_change(tmp_path: Path) -> None:
    """A slab through the middle of a given tumour; the voxels drawn beyond it by hand would still count."""
    first, second = HeadStudy.of("axial"), HeadStudy.of("axial", second=True)
    t1 = second.image("t1")
    depth = second.labels.GetSize()[2]
    middle = int(np.argwhere(second.visit.labels)[:, 0].mean())
    slab = np.s_[:, :, middle:depth]
    mask = second.grid.to_sitk(second.visit.brain.astype(np.uint8))
    result = process_pair(
        first.images("fixed", ("t1",), tumor_labels=first.labels),
        StudyImages({"t1": t1[slab]}, mask, second.labels[slab], "moving"),
        None,
        InferenceSettings(spacing_mm=4.0, affine="none", refine_iterations=0),
    )
    rows = {(row.study, row.region): row for row in result.volumes}
    assert rows["moving", "edema"].at_least
    assert not rows["fixed", "edema"].at_least
    assert rows["moving", "edema"].seen_share < 0.8
    change = {row.region: row for row in result.changes}["edema"]
    assert change.moving_ml == pytest.approx(rows["moving", "edema"].volume_ml)
    assert (change.change_ml, change.change_percent) == (None, None)
    assert (change.fixed_at_least, change.moving_at_least) == (False, True)
    assert any("changes are left out" in warning and "oedema" in warning for warning in result.warnings)
    assert isinstance(result.warped["t1"], sitk.Image)


def test_a_lesion_that_both_visits_cut_off_at_one_slice_has_no_change() -> None:
    """The volumes of the region and the list of lesions agree on that."""
    visits = [HeadStudy.of("axial"), HeadStudy.of("axial", second=True)]
    middle = int(np.argwhere(visits[1].visit.labels)[:, 0].mean())
    fixed, moving = (
        StudyImages(
            {"t1": head.image("t1")[:, :, middle:]},
            head.grid.to_sitk(head.visit.brain.astype(np.uint8))[:, :, middle:],
            head.labels[:, :, middle:],
            name,
        )
        for head, name in zip(visits, ("fixed", "moving"), strict=True)
    )
    settings = InferenceSettings(spacing_mm=4.0, affine="none", refine_iterations=0)
    result = process_pair(fixed, moving, None, settings)
    assert {row.region: row for row in result.changes}["whole_tumor"].change_ml is None
    lesion = next(row for row in result.lesions if row.region == "whole_tumor")  # the largest
    assert (lesion.status, lesion.change_ml) == ("covered in part", None)
    assert lesion.fixed_at_least
    assert lesion.moving_at_least
