"""Two visits processed as a whole: segmentations, transform, volumes and uncertainty; unusable pairs are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from joint_studies import HeadStudy, by_sitk, points_in_head, small_weights

from JointRegSegLib.findings.region_volumes import VOLUME_REGIONS, region_volumes, volume_changes
from JointRegSegLib.findings.result import JointResult
from JointRegSegLib.images.label_maps import LabelReading
from JointRegSegLib.images.labels import CLASSES, NECROTIC_CORE, classes_of_probabilities
from JointRegSegLib.images.study import StudyImages
from JointRegSegLib.inference import pipeline
from JointRegSegLib.inference.pipeline import process_pair
from JointRegSegLib.inference.settings import InferenceSettings
from JointRegSegLib.inference.single_study import process_study, segment_study
from JointRegSegLib.inference.uncertainty import entropy
from JointRegSegLib.network.weights import LoadedWeights, load_weights
from NeuroCESTLib.core.labels.conventions import CONVENTIONS

QUICK = InferenceSettings(spacing_mm=4.0)


@pytest.fixture(scope="module")
def heads() -> tuple[HeadStudy, HeadStudy]:
    """Two visits on grids of different orientation."""
    return HeadStudy.of("oblique"), HeadStudy.of("left-handed", second=True)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> LoadedWeights:
    return load_weights(small_weights(tmp_path_factory.mktemp("weights") / "small.pt"))


@pytest.fixture(scope="module")
def segmented(heads: tuple[HeadStudy, HeadStudy], weights: LoadedWeights) -> JointResult:
    """Processed with a small untrained network, without refinement; the moving study lacks FLAIR."""
    settings = InferenceSettings(refine_iterations=0, keep_probabilities=True, smallest_island_ml=0)
    return process_pair(heads[0].images("fixed"), heads[1].images("moving", ("t1",)), weights, settings)


# --- without a network ----------------------------------------------------------------------------------------------


def test_without_iterations_the_transform_is_the_affine_alignment(heads: tuple[HeadStudy, HeadStudy]) -> None:
    settings = replace(QUICK, refine_iterations=0, affine="rigid")
    result = process_pair(heads[0].images("fixed"), heads[1].images("moving"), None, settings)
    points = points_in_head(50)
    assert np.allclose(by_sitk(result.moving_to_fixed, points), by_sitk(result.affine, points), atol=1e-6)
    assert np.allclose(sitk.GetArrayFromImage(result.jacobian), 1, atol=1e-4)
    assert result.fixed_labels is None
    assert result.changes == ()
    assert result.summary["similarity"] is None
    assert "network" not in result.summary


def test_an_exchange_of_the_visits_gives_the_inverse_map(heads: tuple[HeadStudy, HeadStudy]) -> None:
    """The images are sampled half-way between the visits, so that neither is smoothed more by interpolation."""
    visits = heads[0].images("fixed"), heads[1].images("moving")
    there, back = (process_pair(*pair, None, QUICK).moving_to_fixed for pair in (visits, visits[::-1]))
    points = points_in_head(300)
    errors = np.linalg.norm(by_sitk(back, by_sitk(there, points)) - points, axis=1)
    assert errors.mean() < 0.5  # a tenth of a voxel; 1.2 mm when only one of the images is interpolated


# --- with a network --------------------------------------------------------------------------------------------------


def test_the_summary_says_which_classes_the_network_knows(segmented: JointResult) -> None:
    assert segmented.summary["network"]["classes"] == list(CLASSES)


def test_labels_follow_from_the_probabilities_but_what_enhancing_tumor_encloses_is_core(segmented: JointResult) -> None:
    for which, labels in (("fixed", segmented.fixed_labels), ("moving", segmented.moving_labels)):
        shares = np.stack([sitk.GetArrayFromImage(p) for p in segmented.probabilities[which].values()])
        assert np.allclose(shares.sum(axis=0), 1, atol=1e-3)
        decided = classes_of_probabilities(torch.from_numpy(shares)).numpy()
        changed = decided != sitk.GetArrayFromImage(labels)
        assert changed.mean() < 1e-3
        assert (sitk.GetArrayFromImage(labels)[changed] == NECROTIC_CORE).all()


def test_the_uncertainty_is_the_entropy_of_the_classes(segmented: JointResult) -> None:
    """The entropy itself is interpolated, so it is slightly below the entropy of the interpolated probabilities."""
    for which, found in (("fixed", segmented.fixed_uncertainty), ("moving", segmented.moving_uncertainty)):
        shares = np.stack([sitk.GetArrayFromImage(p) for p in segmented.probabilities[which].values()])
        expected = entropy(torch.from_numpy(shares)).numpy()
        values = sitk.GetArrayFromImage(found)
        assert values.min() >= 0
        assert (values <= expected + 1e-4).all()
        brain = expected > 0.3
        assert brain.mean() > 0.1
        assert values[brain].mean() > 0.8 * expected[brain].mean()


def test_intervals_contain_the_volumes(segmented: JointResult) -> None:
    assert {row.region for row in segmented.volumes} == set(VOLUME_REGIONS) - {"resection_cavity"}
    for row in segmented.volumes:
        assert row.low_ml <= row.volume_ml <= row.high_ml
    assert any(row.high_ml > row.low_ml for row in segmented.volumes)
    rows = [
        region_volumes(getattr(segmented, f"{name}_labels"), name, torch.tensor([[9, 1, 2, 3], [9, 2, 3, 1]]))
        for name in ("fixed", "moving")
    ]
    for row in volume_changes(*rows, None, None, segmented.jacobian):
        assert row.low_ml <= row.change_ml <= row.high_ml


def test_modalities_that_the_network_does_not_know_are_ignored_with_a_warning(
    heads: tuple[HeadStudy, HeadStudy], weights: LoadedWeights
) -> None:
    from JointRegSegLib.network.joint import build_network

    torch.manual_seed(0)
    config = replace(weights.config, modalities=("t1",))
    only_t1 = LoadedWeights(build_network(config).eval(), weights.metadata)
    settings = InferenceSettings(refine_iterations=0, test_time_flips=False, affine="none")
    result = process_pair(heads[0].images("fixed"), heads[1].images("moving"), only_t1, settings)
    assert "the network does not use flair of the fixed study" in result.warnings
    assert all(row.low_ml is None for row in result.volumes)  # no variants, no interval
    with pytest.raises(ValueError, match="at least one of the modalities t1"):
        process_pair(heads[0].images("fixed", ("flair",)), heads[1].images("moving", ("flair",)), only_t1, settings)


def test_a_given_segmentation_replaces_that_of_the_network(
    heads: tuple[HeadStudy, HeadStudy], weights: LoadedWeights
) -> None:
    given = heads[0].images("fixed", tumor_labels=heads[0].labels)
    settings = InferenceSettings(refine_iterations=0, test_time_flips=False, affine="none")
    result = process_pair(given, heads[1].images("moving"), weights, settings)
    assert np.array_equal(sitk.GetArrayFromImage(result.fixed_labels), heads[0].visit.labels)
    assert result.fixed_uncertainty is None
    assert result.moving_uncertainty is not None


def test_given_segmentations_of_different_conventions_are_compared_only_where_both_have_the_compartment(
    heads: tuple[HeadStudy, HeadStudy],
) -> None:
    every, others = heads[0].visit.labels, np.where(heads[0].visit.labels == NECROTIC_CORE, 0, heads[0].visit.labels)
    studies = []
    for name, array, convention in (("fixed", others, "hd-glio"), ("moving", every, "brats2023")):
        reading = LabelReading(f"{name}.nii.gz", convention, "declared", CONVENTIONS[convention].meaning)
        labels = heads[0].grid.to_sitk(array.astype(np.uint8))
        studies.append(heads[0].images(name, tumor_labels=labels, label_reading=reading))
    result = process_pair(*studies, None, replace(QUICK, refine_iterations=0, affine="none"))
    changes = {row.region: (row.fixed_ml, row.change_ml) for row in result.changes}
    assert changes["necrotic_core"] == (None, None)
    assert changes["whole_tumor"][1] is None
    assert changes["edema"][1] == changes["enhancing_tumor"][1] == 0.0
    assert {row.region for row in result.lesions} == {"enhancing_tumor"}
    assert any("the fixed study has no number or segment for the necrotic core" in text for text in result.warnings)


@pytest.mark.parametrize(("moving_is_earlier", "status"), [(False, "vanished"), (True, "new")])
def test_lesions_are_told_in_the_order_of_time(
    heads: tuple[HeadStudy, HeadStudy], moving_is_earlier: bool, status: str
) -> None:
    """Only the fixed study has a tumour."""
    fixed = heads[0].images("fixed", tumor_labels=heads[0].labels)
    moving = heads[0].images("moving", tumor_labels=heads[0].labels * 0)
    settings = replace(QUICK, refine_iterations=0, affine="none", moving_is_earlier=moving_is_earlier)
    lesions = process_pair(fixed, moving, None, settings).lesions
    assert {row.status for row in lesions} == {status}
    assert all(row.fixed_ml > 0 == row.moving_ml for row in lesions)


# --- bad input -------------------------------------------------------------------------------------------------------


def refused(fixed: StudyImages, moving: StudyImages, settings: InferenceSettings = QUICK) -> str:
    with pytest.raises(ValueError, match=r"\S") as caught:
        process_pair(fixed, moving, None, settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_bad_pairs_are_refused_in_one_sentence(heads: tuple[HeadStudy, HeadStudy]) -> None:
    t1, flair = heads[0].images("fixed", ("t1",)), heads[1].images("moving", ("flair",))
    assert "the fixed study (t1) and the moving study (flair) have no modality in common" in refused(t1, flair)
    second = heads[1].images("moving", ("t1",))
    message = refused(t1, second, replace(QUICK, registration_modalities=("t2",)))
    assert "the registration cannot use t2, because not both studies have it; use t1" in message
    odd = heads[0].labels + 5
    assert "tumour segmentation of the fixed study" in refused(replace(t1, tumor_labels=odd), second)
    blank = sitk.Image(t1.images["t1"].GetSize(), sitk.sitkFloat32)
    blank.CopyInformation(t1.images["t1"])
    assert refused(replace(t1, images={"t1": blank}), second).startswith("the t1 image of the fixed study is constant")


def test_settings_out_of_range_are_refused() -> None:
    for name, value in (
        ("affine", "bent"),
        ("refine_iterations", -1),
        ("time_limit_s", 0.0),
        ("spacing_mm", 50.0),
        ("registration_modalities", ("pet",)),
        ("smallest_island_ml", -1.0),
        ("regulariser", "none"),
        ("regularisation", -1.0),
        ("similarity", "none"),
    ):
        with pytest.raises(ValueError, match=name.split("_")[0]):
            InferenceSettings(**{name: value})


def test_a_lack_of_memory_is_reported_in_one_sentence(
    heads: tuple[HeadStudy, HeadStudy], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("tried to allocate 80 GiB")

    monkeypatch.setattr(pipeline, "align", fail)
    message = refused(heads[0].images("fixed"), heads[1].images("moving"))
    assert message.startswith("there is not enough memory for this pair (about 6 GB")


@pytest.mark.parametrize("at", [0.0, 0.4, 0.9])
def test_progress_never_decreases_and_a_cancel_takes_effect_at_once(
    heads: tuple[HeadStudy, HeadStudy], at: float
) -> None:
    class Stopped(Exception):  # noqa: N818
        pass

    seen: list[float] = []

    def report(fraction: float, message: str) -> None:
        seen.append(fraction)
        if fraction >= at:
            raise Stopped

    settings = replace(QUICK, refine_iterations=2, affine="none")
    with pytest.raises(Stopped):
        process_pair(heads[0].images("fixed", ("t1",)), heads[1].images("moving", ("t1",)), None, settings, report)
    assert seen == sorted(seen)


def test_a_refinement_starts_from_networks_only_that_were_trained_last_to_register(
    heads: tuple[HeadStudy, HeadStudy], weights: LoadedWeights
) -> None:
    def registers(tasks: str, iterations: int) -> bool:
        trained = replace(weights, metadata={**weights.metadata, "configuration": {"tasks": tasks}})
        messages: list[str] = []
        settings = replace(QUICK, refine_iterations=iterations, affine="none", test_time_flips=False)
        pair = heads[0].images("fixed"), heads[1].images("moving")
        process_pair(*pair, trained, settings, lambda fraction, message: messages.append(message))
        return "registering with the network" in messages

    assert registers("both", 1)
    assert registers("segmentation", 0)
    assert not registers("segmentation", 1)


def test_volumes_that_the_network_can_only_guess_are_announced_and_their_changes_left_out(
    segmented: JointResult,
) -> None:
    """The fixed study has T1 and FLAIR, the moving one only T1."""
    first, second, third = (warning for warning in segmented.warnings if "left out" in warning)
    assert first == (
        "the fixed study has no T1ce, so the network can only guess its necrotic core, enhancing tumour and tumour "
        "core; their changes are left out"
    )
    assert "moving study has no T1ce" in second
    assert "moving study has no FLAIR or T2, so the network can only guess its oedema and whole tumour" in third
    assert all(row.change_ml is None and row.change_percent is None and row.low_ml is None for row in segmented.changes)
    assert all(row.fixed_ml is not None and row.moving_ml is not None for row in segmented.changes)


def test_a_network_that_only_registers_guesses_no_region(heads: tuple[HeadStudy, HeadStudy], tmp_path: Path) -> None:
    registering = load_weights(small_weights(tmp_path / "registering.pt", segmentation=False))
    settings = InferenceSettings(refine_iterations=0, affine="none")
    result = process_pair(heads[0].images("fixed"), heads[1].images("moving"), registering, settings)
    assert not any("guess" in warning for warning in result.warnings)
    assert result.fixed_labels is result.moving_labels is None


# --- one visit ---------------------------------------------------------------------------------------------------


def test_a_single_visit_is_segmented_on_its_own_grid(
    heads: tuple[HeadStudy, HeadStudy], weights: LoadedWeights, segmented: JointResult
) -> None:
    settings = InferenceSettings(smallest_island_ml=0)
    labels = segment_study(heads[0].images("fixed"), weights, settings)
    assert labels.GetSize() == heads[0].image("t1").GetSize()
    brain = sitk.GetArrayViewFromImage(segmented.fixed_mask) > 0
    alone, in_a_pair = (sitk.GetArrayViewFromImage(image)[brain] for image in (labels, segmented.fixed_labels))
    assert (alone == in_a_pair).mean() > 0.9  # the working grids differ, so the voxels do not agree to the last one


def test_a_single_visit_has_no_changes_to_be_left_out(
    heads: tuple[HeadStudy, HeadStudy], weights: LoadedWeights
) -> None:
    """There is no T1ce, and FLAIR ends within the brain."""
    whole = heads[0].images("given")
    flair = whole.images["flair"]
    partial = replace(whole, images={**whole.images, "flair": flair[:, :, flair.GetSize()[2] // 2 :]})
    told = process_study(partial, weights, QUICK).warnings
    assert (
        "the given study has no T1ce, so the network can only guess its necrotic core, enhancing tumour and tumour core"
    ) in told
    assert any(text.endswith("the volumes are at least those given") for text in told)
    assert not any("changes" in text for text in told)
