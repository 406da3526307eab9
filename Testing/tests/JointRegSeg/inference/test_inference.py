"""Two visits through the whole pipeline: segmentations, transform, volumes, uncertainty; bad pairs are refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from joint_studies import HeadStudy, by_sitk, points_in_head, registration_error, small_weights

from JointRegSegLib.images.grid import WorkingGrid, block_around
from JointRegSegLib.images.preprocessing import PreparedStudy
from JointRegSegLib.inference import pipeline as inference
from JointRegSegLib.inference.network_pass import run_network
from JointRegSegLib.inference.pipeline import InferenceSettings, JointResult, StudyImages, process_pair
from JointRegSegLib.inference.region_volumes import (
    VOLUME_REGIONS,
    guessed_regions,
    region_volumes,
    volume_changes,
    without_islands,
)
from JointRegSegLib.inference.uncertainty import LEFT_RIGHT, VARIANTS, MeanSegmentation, Variant, entropy
from JointRegSegLib.network.weights import LoadedWeights, load_weights
from JointRegSegLib.synthesis.phantom import GROWTH, TUMOR_RADII_MM

NAMES = ("fixed", "moving")
QUICK = InferenceSettings(spacing_mm=4.0)


def study_of(head: HeadStudy, name: str, modalities: tuple[str, ...] = ("t1", "flair"), **more) -> StudyImages:
    return StudyImages({m: head.image(m) for m in modalities}, name=name, **more)


def labels_of(head: HeadStudy) -> sitk.Image:
    return head.grid.to_sitk(head.visit.labels)


@pytest.fixture(scope="module")
def heads() -> tuple[HeadStudy, HeadStudy]:
    """Two visits on grids that have nothing in common."""
    return HeadStudy.of("oblique"), HeadStudy.of("left-handed", second=True)


@pytest.fixture(scope="module")
def registered(heads: tuple[HeadStudy, HeadStudy]) -> JointResult:
    """Registered from T1 alone, without a network, with given tumours."""
    fixed, moving = (study_of(h, n, ("t1",), tumor_labels=labels_of(h)) for h, n in zip(heads, NAMES, strict=True))
    return process_pair(fixed, moving, None, QUICK)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> LoadedWeights:
    return load_weights(small_weights(tmp_path_factory.mktemp("weights") / "small.pt"))


@pytest.fixture(scope="module")
def segmented(heads: tuple[HeadStudy, HeadStudy], weights: LoadedWeights) -> JointResult:
    """With a small untrained network, without refinement; the moving study lacks FLAIR."""
    settings = InferenceSettings(refine_iterations=0, keep_probabilities=True, smallest_island_ml=0)
    return process_pair(study_of(heads[0], "fixed"), study_of(heads[1], "moving", ("t1",)), weights, settings)


# --- registration alone ----------------------------------------------------------------------------------------------


def test_one_modality_without_network_finds_the_map_between_the_visits(registered: JointResult) -> None:
    points = points_in_head()
    start = registration_error(points, points)
    affine = registration_error(points, by_sitk(registered.affine, points))
    error = registration_error(points, by_sitk(registered.moving_to_fixed, points))
    assert start > 6
    assert affine < 0.5 * start
    assert error < 0.8 * affine
    assert error < 2.8  # mm, on voxels of 4 to 5 mm


def test_the_inverse_leads_back(registered: JointResult) -> None:
    points = points_in_head(seed=1)
    back = by_sitk(registered.fixed_to_moving, by_sitk(registered.moving_to_fixed, points))
    distance = np.linalg.norm(back - points, axis=1)
    assert distance.mean() < 0.05 * 4  # mm, on voxels of 4 mm
    assert distance.max() < 0.15 * 4
    assert registered.summary["inverse_error_mm_mean"] < 0.1 * 4  # whole brain, its border included
    assert registered.summary["folded_fraction"] == 0


def test_warped_images_are_what_simpleitk_makes_with_the_transform(
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


def test_given_tumours_are_the_result_without_network(
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


def test_the_similarity_grows(registered: JointResult) -> None:
    summary = registered.summary
    assert summary["local_correlation_after"] > summary["local_correlation_before"] + 0.05
    assert summary["brain_dice_after"] >= summary["brain_dice_before"]
    assert set(summary["seconds"]) >= {"affine", "refinement", "results"}


def test_without_iterations_the_affine_alone_remains(heads: tuple[HeadStudy, HeadStudy]) -> None:
    settings = replace(QUICK, refine_iterations=0, affine="rigid")
    result = process_pair(study_of(heads[0], "fixed"), study_of(heads[1], "moving"), None, settings)
    points = points_in_head(50)
    assert np.allclose(by_sitk(result.moving_to_fixed, points), by_sitk(result.affine, points), atol=1e-6)
    assert np.allclose(sitk.GetArrayFromImage(result.jacobian), 1, atol=1e-4)
    assert result.fixed_labels is None
    assert result.changes == ()


# --- with a network --------------------------------------------------------------------------------------------------


def test_labels_are_the_class_with_the_largest_probability(segmented: JointResult) -> None:
    for which, labels in (("fixed", segmented.fixed_labels), ("moving", segmented.moving_labels)):
        shares = np.stack([sitk.GetArrayFromImage(p) for p in segmented.probabilities[which].values()])
        assert np.allclose(shares.sum(axis=0), 1, atol=1e-3)
        assert np.array_equal(shares.argmax(axis=0), sitk.GetArrayFromImage(labels))


def test_the_uncertainty_is_the_entropy_of_the_classes(segmented: JointResult) -> None:
    """Interpolated after the logarithm: below the entropy of the interpolated probabilities, but not by much."""
    for which, found in (("fixed", segmented.fixed_uncertainty), ("moving", segmented.moving_uncertainty)):
        shares = np.stack([sitk.GetArrayFromImage(p) for p in segmented.probabilities[which].values()])
        expected = entropy(torch.from_numpy(shares)).numpy()
        values = sitk.GetArrayFromImage(found)
        assert values.min() >= 0
        assert (values <= expected + 1e-4).all()
        brain = expected > 0.3
        assert brain.mean() > 0.1
        assert values[brain].mean() > 0.8 * expected[brain].mean()


def test_intervals_hold_the_volumes(segmented: JointResult) -> None:
    assert {row.region for row in segmented.volumes} == set(VOLUME_REGIONS)
    for row in segmented.volumes:
        assert row.low_ml <= row.volume_ml <= row.high_ml
    assert any(row.high_ml > row.low_ml for row in segmented.volumes)
    rows = [
        region_volumes(getattr(segmented, f"{name}_labels"), name, torch.tensor([[9, 1, 2, 3], [9, 2, 3, 1]]))
        for name in ("fixed", "moving")
    ]
    for row in volume_changes(*rows, None, None, segmented.jacobian):
        assert row.low_ml <= row.change_ml <= row.high_ml


def test_averaged_over_mirrored_copies_the_network_knows_no_left_and_right(weights: LoadedWeights) -> None:
    images = torch.randn(4, 16, 16, 24, generator=torch.Generator().manual_seed(0))
    grid = WorkingGrid((16, 16, 24), 4.0, (0.0, 0.0, 0.0))
    study = PreparedStudy(images, torch.ones(16, 16, 24, dtype=torch.bool), grid, weights.config.modalities)
    mirrored = replace(study, images=images.flip(-1))

    def edema(shown: PreparedStudy, flips: bool) -> torch.Tensor:
        cpu = torch.device("cpu")
        return run_network(weights, shown, shown, -3.0, flips, cpu, lambda f, m: None).fixed.probabilities[2]

    assert torch.allclose(edema(study, True), edema(mirrored, True).flip(-1), atol=1e-2)
    assert not torch.allclose(edema(study, False), edema(mirrored, False).flip(-1), atol=5e-2)


def test_a_larger_grid_does_not_change_the_segmentation(weights: LoadedWeights) -> None:
    """A grid that also holds the other visit has more background; the network is not shown it."""
    multiple = weights.config.multiple * weights.config.stride
    images, mask = torch.full((4, 2 * multiple, 3 * multiple, 16), -3.0), torch.zeros(2 * multiple, 3 * multiple, 16)
    brain = slice(1, multiple), slice(multiple + 1, 2 * multiple), slice(1, 15)
    mask[brain] = 1
    images[(slice(None), *brain)] = torch.randn(4, multiple - 1, multiple - 1, 14)
    small = slice(0, multiple), slice(multiple, 2 * multiple), slice(0, 16)
    found = []
    for part in ((slice(None),) * 3, small):
        grid = WorkingGrid(tuple(mask[part].shape), 4.0, (0.0, 0.0, 0.0))
        study = PreparedStudy(images[(slice(None), *part)], mask[part].bool(), grid, weights.config.modalities)
        found.append(run_network(weights, study, study, -3.0, True, torch.device("cpu"), lambda f, m: None).fixed)
    assert torch.allclose(found[0].probabilities[(slice(None), *small)], found[1].probabilities, atol=2e-2)
    assert torch.equal(found[0].counts.sum(1), torch.full((len(VARIANTS),), mask.numel()))
    outside = found[0].probabilities[0].clone()
    outside[small] = 1
    assert (outside == 1).all()


@pytest.mark.parametrize(("share", "shape"), [(None, (32, 48, 16)), (1.0, (32, 48, 16)), (0.125, (48, 48, 32))])
def test_the_block_around_the_brain_has_as_much_background_as_the_training(share: float | None, shape: tuple) -> None:
    mask = torch.zeros(40, 50, 30, dtype=torch.bool)
    mask[2:26, 5:43, 20:30] = True
    block = block_around(mask, 16, share)
    assert block.shape == shape
    part = block.take(mask)
    assert part.shape == shape
    assert int(part.sum()) == int(mask.sum())
    centre = part.nonzero().float().mean(0) - (torch.tensor(shape) - 1) / 2
    assert (centre.abs() <= 0.5).all()  # also where it reaches beyond the grid
    values = torch.randn(4, *mask.shape)
    inside = block.put(torch.ones(shape), mask.shape)
    assert torch.equal(block.put(block.take(values, 7.0), mask.shape)[:, inside > 0], values[:, inside > 0])
    assert bool((block.take(values, 7.0)[:, :, :, -1] == 7).all()) == (block.start[2] + shape[2] > 30)


def test_modalities_that_the_network_does_not_know_are_ignored_with_a_warning(
    heads: tuple[HeadStudy, HeadStudy], weights: LoadedWeights
) -> None:
    from JointRegSegLib.network.joint import build_network

    torch.manual_seed(0)
    config = replace(weights.config, modalities=("t1",))
    only_t1 = LoadedWeights(build_network(config).eval(), weights.metadata)
    settings = InferenceSettings(refine_iterations=0, test_time_flips=False, affine="none")
    result = process_pair(study_of(heads[0], "fixed"), study_of(heads[1], "moving"), only_t1, settings)
    assert "the network does not use flair of the fixed study" in result.warnings
    assert all(row.low_ml is None for row in result.volumes)  # no variants, no interval
    with pytest.raises(ValueError, match="at least one of the modalities t1"):
        process_pair(
            study_of(heads[0], "fixed", ("flair",)), study_of(heads[1], "moving", ("flair",)), only_t1, settings
        )


def test_given_tumours_replace_the_networks(heads: tuple[HeadStudy, HeadStudy], weights: LoadedWeights) -> None:
    given = study_of(heads[0], "fixed", tumor_labels=labels_of(heads[0]))
    settings = InferenceSettings(refine_iterations=0, test_time_flips=False, affine="none")
    result = process_pair(given, study_of(heads[1], "moving"), weights, settings)
    assert np.array_equal(sitk.GetArrayFromImage(result.fixed_labels), heads[0].visit.labels)
    assert result.fixed_uncertainty is None
    assert result.moving_uncertainty is not None


# --- bad input -------------------------------------------------------------------------------------------------------


def refused(fixed: StudyImages, moving: StudyImages, settings: InferenceSettings = QUICK) -> str:
    with pytest.raises(ValueError, match=r"\S") as caught:
        process_pair(fixed, moving, None, settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_bad_pairs_are_refused_in_one_sentence(heads: tuple[HeadStudy, HeadStudy]) -> None:
    t1, flair = study_of(heads[0], "fixed", ("t1",)), study_of(heads[1], "moving", ("flair",))
    assert "the fixed study (t1) and the moving study (flair) have no modality in common" in refused(t1, flair)
    second = study_of(heads[1], "moving", ("t1",))
    message = refused(t1, second, replace(QUICK, registration_modalities=("t2",)))
    assert "t2, which not both studies have" in message
    odd = labels_of(heads[0]) + 5
    assert "tumour segmentation of the fixed study" in refused(replace(t1, tumor_labels=odd), second)
    blank = sitk.Image(t1.images["t1"].GetSize(), sitk.sitkFloat32)
    blank.CopyInformation(t1.images["t1"])
    assert refused(replace(t1, images={"t1": blank}), second).startswith("the t1 image of the fixed study is constant")


def test_settings_that_make_no_sense_are_refused() -> None:
    for name, value in (
        ("affine", "bent"),
        ("refine_iterations", -1),
        ("time_limit_s", 0.0),
        ("spacing_mm", 50.0),
        ("registration_modalities", ("pet",)),
        ("smallest_island_ml", -1.0),
        ("regulariser", "none"),
        ("regularisation", -1.0),
    ):
        with pytest.raises(ValueError, match=name.split("_")[0]):
            InferenceSettings(**{name: value})


def test_the_regulariser_and_its_weight_reach_the_refinement(heads: tuple[HeadStudy, HeadStudy]) -> None:
    """The stiffer, the smaller the deformation; the two regularisers differ."""
    fixed, moving = (study_of(head, name, ("t1",)) for head, name in zip(heads, NAMES, strict=True))

    def spread(**values: object) -> float:
        settings = replace(QUICK, affine="rigid", refine_iterations=8, **values)
        result = process_pair(fixed, moving, None, settings)
        return float(np.std(sitk.GetArrayViewFromImage(result.jacobian)))

    usual = spread()
    assert spread(regularisation=500.0) < 0.3 * usual
    assert spread(regulariser="diffusion") != pytest.approx(usual, rel=1e-3)
    assert spread(time_limit_s=1e-9) < 0.5 * usual


def test_too_little_memory_is_told_in_one_sentence(
    heads: tuple[HeadStudy, HeadStudy], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("tried to allocate 80 GiB")

    monkeypatch.setattr(inference, "align", fail)
    message = refused(study_of(heads[0], "fixed"), study_of(heads[1], "moving"))
    assert message.startswith("there is not enough memory for this pair (about 6 GB")


@pytest.mark.parametrize("at", [0.0, 0.4, 0.9])
def test_progress_grows_and_cancels_at_once(heads: tuple[HeadStudy, HeadStudy], at: float) -> None:
    class Stopped(Exception):  # noqa: N818
        pass

    seen: list[float] = []

    def report(fraction: float, message: str) -> None:
        seen.append(fraction)
        if fraction >= at:
            raise Stopped

    settings = replace(QUICK, refine_iterations=2, affine="none")
    with pytest.raises(Stopped):
        process_pair(
            study_of(heads[0], "fixed", ("t1",)), study_of(heads[1], "moving", ("t1",)), None, settings, report
        )
    assert seen == sorted(seen)


# --- parts -----------------------------------------------------------------------------------------------------------


def test_small_islands_go_and_the_largest_part_stays() -> None:
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


def test_change_of_a_study_without_labels_is_unknown() -> None:
    array = np.full((10, 10, 10), 1, np.uint8)
    labels = sitk.GetImageFromArray(array)
    twice = sitk.GetImageFromArray(np.full(array.shape, 2, np.float32))
    rows = volume_changes(region_volumes(labels, "fixed"), (), labels, None, twice)
    necrosis = {row.region: row for row in rows}["necrotic_core"]
    assert (necrosis.fixed_ml, necrosis.moving_ml, necrosis.change_ml) == (1.0, None, None)
    assert necrosis.fixed_deformed_ml == pytest.approx(2.0)
    assert volume_changes((), (), None, None, twice) == ()


def test_regions_that_a_study_does_not_show_are_guesses_whose_change_is_left_out(segmented: JointResult) -> None:
    """The fixed study has T1 and FLAIR, the moving one T1 alone."""
    first, second, third = segmented.warnings
    assert first == (
        "the fixed study has no T1ce: its necrotic core, enhancing tumour, tumour core are guesses of the network, "
        "and their changes are left out"
    )
    assert "moving study has no T1ce" in second
    assert "moving study has no FLAIR or T2: its oedema, whole tumour are" in third
    assert all(row.change_ml is None and row.change_percent is None and row.low_ml is None for row in segmented.changes)
    assert all(row.fixed_ml is not None and row.moving_ml is not None for row in segmented.changes)
    assert guessed_regions(("t1", "t1ce", "t2")) == ()
    assert guessed_regions(("t1", "flair")) == ("necrotic_core", "enhancing_tumor", "tumor_core")


def test_given_segmentations_are_no_guesses(registered: JointResult) -> None:
    assert not registered.warnings
    assert all(row.change_ml is not None for row in registered.changes)


def test_variants_are_undone() -> None:
    study = torch.randn(1, 4, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    shown = [variant.apply(study) for variant in VARIANTS]
    for variant, image in zip(VARIANTS, shown, strict=True):
        assert torch.equal(variant.undo(image), study)
    assert all(not torch.equal(a, b) for n, a in enumerate(shown) for b in shown[:n])


def test_the_mean_segmentation_counts_every_variant() -> None:
    logits = torch.full((1, 4, 2, 2, 2), -20.0)
    brain = torch.ones(2, 2, 2, dtype=torch.bool)
    mean, outside = MeanSegmentation(brain), MeanSegmentation(~brain)
    for variant, winner in ((Variant(), 0), (Variant(mirrored=(LEFT_RIGHT,)), 2)):
        mean.add(variant, logits.clone().index_fill_(1, torch.tensor([winner]), 20.0))
        outside.add(variant, logits.clone().index_fill_(1, torch.tensor([winner]), 20.0))
    result = mean.result()
    assert result.counts.tolist() == [[8, 0, 0, 0], [0, 0, 8, 0]]
    assert not outside.result().labels.any()
    assert outside.result().counts.tolist() == [[8, 0, 0, 0], [8, 0, 0, 0]]
    assert torch.allclose(result.probabilities[[0, 2]], torch.full((2, 2, 2, 2), 0.5), atol=1e-6)
    assert torch.allclose(entropy(result.probabilities), torch.full((2, 2, 2), 0.5), atol=1e-5)
    assert torch.allclose(entropy(torch.full((4, 1, 1, 1), 0.25)), torch.ones(1, 1, 1))
