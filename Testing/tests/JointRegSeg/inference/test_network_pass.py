"""The network on prepared studies: mirrored copies, and the background that it is shown."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import SimpleITK as sitk
import torch
import torch.nn.functional as F
from joint_studies import doubting, judging_by_brightness, small_weights

from JointRegSegLib.images.coverage import study_coverage
from JointRegSegLib.images.grid import WorkingGrid, block_around
from JointRegSegLib.images.labels import EDEMA
from JointRegSegLib.images.modalities import MODALITIES
from JointRegSegLib.images.preprocessing.prepared_study import PreparedStudy
from JointRegSegLib.images.study import StudyImages
from JointRegSegLib.inference import network_pass
from JointRegSegLib.inference.checks import CheckedStudy
from JointRegSegLib.inference.network_pass import (
    network_preprocessing,
    on_coarse_images,
    preprocessing_of,
    segment_prepared,
)
from JointRegSegLib.inference.uncertainty import MIRRORED, Segmentation
from JointRegSegLib.network.weights import LoadedWeights, load_weights

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> LoadedWeights:
    return load_weights(small_weights(tmp_path_factory.mktemp("weights") / "small.pt"))


def random_numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_the_background_beyond_the_grid_is_that_of_each_image(
    weights: LoadedWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the normalisation of Estienne et al., every image has a value of its own outside the brain."""
    shape = (19, 21, 20)  # none of which the network can halve
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[1:18, 2:20, 1:18] = True
    values = torch.tensor([-0.7, -0.4, 0.0, -0.9]).view(4, 1, 1, 1)  # the third one is absent
    images = torch.where(mask, values + (values != 0) * random_numbers(4, *shape).abs(), values)
    present = tuple(m for m in MODALITIES if m != MODALITIES[2])
    study = PreparedStudy(images, mask, WorkingGrid(shape, 4.0, (0.0, 0.0, 0.0)), present)
    shown = []

    def segment(network: object, seen: torch.Tensor, background: object, progress: object) -> torch.Tensor:
        shown.append(seen)
        return torch.zeros(1, 4, *seen.shape[2:])

    monkeypatch.setattr(network_pass, "segment_block", segment)
    segment_prepared(weights, study, 0.0, False, CPU)
    block = block_around(mask, weights.config.multiple * weights.config.stride, weights.brain_share)
    beyond = ~block.take(mask)
    assert min(block.start) < 0
    for channel, name in enumerate(weights.config.modalities):
        assert shown[0][0, channel][beyond].unique().tolist() == values[MODALITIES.index(name)].flatten().tolist()


def test_the_mean_over_mirrored_copies_does_not_tell_left_from_right(weights: LoadedWeights) -> None:
    images = random_numbers(4, 16, 16, 24)
    grid = WorkingGrid((16, 16, 24), 4.0, (0.0, 0.0, 0.0))
    study = PreparedStudy(images, torch.ones(16, 16, 24, dtype=torch.bool), grid, weights.config.modalities)
    mirrored = replace(study, images=images.flip(-1))

    def edema(shown: PreparedStudy, flips: bool) -> torch.Tensor:
        return segment_prepared(weights, shown, -3.0, flips, CPU).probabilities[2]

    assert torch.allclose(edema(study, True), edema(mirrored, True).flip(-1), atol=1e-2)
    assert not torch.allclose(edema(study, False), edema(mirrored, False).flip(-1), atol=5e-2)


def test_a_network_that_does_without_modalities_is_also_shown_fewer(weights: LoadedWeights) -> None:
    hiding = judging_by_brightness(weights, dropout=0.5)
    grid = WorkingGrid((16, 16, 24), 4.0, (0.0, 0.0, 0.0))
    study = PreparedStudy(random_numbers(4, 16, 16, 24), torch.ones(16, 16, 24, dtype=torch.bool), grid, MODALITIES)
    blank = study.images.clone()
    blank[[MODALITIES.index("t1"), MODALITIES.index("t2")]] = -3.0
    both = segment_prepared(hiding, study, -3.0, True, CPU)
    single = [
        segment_prepared(weights, replace(study, images=images), -3.0, False, CPU).probabilities[0]
        for images in (study.images, blank.flip(-1))
    ]
    assert torch.allclose(both.probabilities[0], (single[0] + single[1].flip(-1)) / 2, atol=1e-3)
    assert torch.allclose(both.probabilities.sum(0), torch.ones(16, 16, 24), atol=1e-4)
    assert len(both.counts) == 2
    assert torch.equal(study.images, random_numbers(4, 16, 16, 24))


def test_only_a_training_that_often_dropped_modalities_lets_a_network_be_shown_fewer(weights: LoadedWeights) -> None:
    assert not weights.hides_modalities
    shares = (0.0, 0.08, 0.5)
    assert [judging_by_brightness(weights, dropout).hides_modalities for dropout in shares] == [False, False, True]
    unmarked = judging_by_brightness(weights, dropout=0.5)
    assert not replace(unmarked, metadata={**unmarked.metadata, "enhancing_by_brightness": False}).hides_modalities


def test_a_larger_grid_does_not_change_the_segmentation(weights: LoadedWeights) -> None:
    """A grid that also holds the other visit has more background, which the network is not shown."""
    multiple = weights.config.multiple * weights.config.stride
    images, mask = torch.full((4, 2 * multiple, 3 * multiple, 16), -3.0), torch.zeros(2 * multiple, 3 * multiple, 16)
    brain = slice(1, multiple), slice(multiple + 1, 2 * multiple), slice(1, 15)
    mask[brain] = 1
    images[(slice(None), *brain)] = random_numbers(4, multiple - 1, multiple - 1, 14)
    small = slice(0, multiple), slice(multiple, 2 * multiple), slice(0, 16)
    found = []
    for part in ((slice(None),) * 3, small):
        grid = WorkingGrid(tuple(mask[part].shape), 4.0, (0.0, 0.0, 0.0))
        study = PreparedStudy(images[(slice(None), *part)], mask[part].bool(), grid, weights.config.modalities)
        found.append(segment_prepared(weights, study, -3.0, True, CPU))
    assert torch.allclose(found[0].probabilities[(slice(None), *small)], found[1].probabilities, atol=2e-2)
    assert torch.equal(found[0].counts.sum(1), torch.full((len(MIRRORED),), mask.numel()))
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
    assert (centre.abs() <= 0.5).all()  # even where the block reaches beyond the grid
    values = random_numbers(4, *mask.shape)
    inside = block.put(torch.ones(shape), mask.shape)
    assert torch.equal(block.put(block.take(values, 7.0), mask.shape)[:, inside > 0], values[:, inside > 0])
    assert bool((block.take(values, 7.0)[:, :, :, -1] == 7).all()) == (block.start[2] + shape[2] > 30)


@pytest.mark.parametrize(
    ("finest_mm", "spacing_mm", "stride"), [(1.0, 1.0, 4), (1.9, 1.0, 4), (2.0, 2.0, 2), (3.9, 2.0, 2), (5.0, 4.0, 1)]
)
def test_coarse_images_have_a_coarse_grid_that_the_network_averages_less(
    weights: LoadedWeights, finest_mm: float, spacing_mm: float, stride: int
) -> None:
    network = copy.copy(weights.network)
    network.config = replace(weights.config, stride=4)
    preprocessing = {**weights.metadata["preprocessing"], "spacing_mm": 1.0}
    fine = replace(weights, network=network, metadata={**weights.metadata, "preprocessing": preprocessing})
    fitted = on_coarse_images(fine, finest_mm)
    assert (network_preprocessing(fitted).spacing_mm, fitted.config.stride) == (spacing_mm, stride)
    assert (network_preprocessing(fine).spacing_mm, fine.config.stride) == (1.0, 4)
    images = random_numbers(1, 4, *[4 * weights.config.multiple] * 3)
    with torch.no_grad():  # what it sees of the images is the same
        coarse = fitted.network._codes(F.avg_pool3d(images, 4 // stride), stride)[0]
        assert torch.allclose(coarse[-1], network._codes(images, 4)[0][-1], atol=1e-4)


def test_only_weights_that_judge_by_brightness_correct_bias_fields_and_only_without_contrast_agent(
    weights: LoadedWeights,
) -> None:
    image = sitk.GaussianSource(sitk.sitkFloat32, (40, 40, 40), (9, 9, 9), (20, 20, 20), 100)
    slab = sitk.RegionOfInterest(image, (40, 40, 20))
    judging = judging_by_brightness(weights)
    mask = image > 20

    def checked(**images: sitk.Image) -> CheckedStudy:
        study = StudyImages(images)
        return CheckedStudy(study, mask, None, study_coverage(study, mask))

    plain, contrast, part = checked(flair=image), checked(flair=image, t1ce=image), checked(flair=image, t1ce=slab)
    half = checked(flair=slab, t1ce=slab)  # what is shown is shown with contrast agent, too
    assert [preprocessing_of(study, judging).n4 for study in (plain, contrast, part, half)] == [
        True,
        False,
        True,
        False,
    ]
    assert not preprocessing_of(plain, weights).n4


def test_tumour_that_is_not_bright_on_flair_is_left_out_without_contrast_agent(weights: LoadedWeights) -> None:
    some = doubting(weights)
    grid = WorkingGrid((16, 16, 16), 4.0, (0.0, 0.0, 0.0))
    brain = torch.ones(16, 16, 16, dtype=torch.bool)
    images = 0.1 * random_numbers(4, 16, 16, 16)  # nothing in it is bright
    study = PreparedStudy(images, brain, grid, ("flair",))
    before, after = (segment_prepared(w, study, -3.0, False, CPU) for w in (some, judging_by_brightness(some)))
    assert int((before.labels > 0).sum()) > 100
    assert not bool(after.labels.any())
    assert after.removed is not None
    assert torch.equal(after.removed, before.labels > 0)


def test_without_contrast_agent_a_study_is_seen_with_and_without_the_correction_of_its_bias_field(
    weights: LoadedWeights,
) -> None:
    judging = judging_by_brightness(weights)
    grid = WorkingGrid((16, 16, 16), 4.0, (0.0, 0.0, 0.0))
    brain = torch.ones(16, 16, 16, dtype=torch.bool)
    corrected = 3 * random_numbers(4, 16, 16, 16)  # so bright and dark that nothing is faint
    study = PreparedStudy(corrected, brain, grid, ("flair",), uncorrected=corrected + 0.5)
    alike = replace(study, uncorrected=corrected.clone())
    both, same, single = (
        segment_prepared(judging, each, -3.0, True, CPU) for each in (study, alike, replace(study, uncorrected=None))
    )
    assert len(both.counts) == len(single.counts) == 4
    assert torch.allclose(same.probabilities, single.probabilities, atol=1e-3)
    assert not torch.allclose(both.probabilities, single.probabilities, atol=1e-2)
    assert torch.allclose(both.probabilities.sum(0), torch.ones(()), atol=1e-4)


def test_what_only_one_of_both_views_shows_is_left_out_and_told(
    weights: LoadedWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    judging = judging_by_brightness(weights)
    monkeypatch.setattr("JointRegSegLib.inference.plausibility._LEAST_AGREED", 1.01)
    grid = WorkingGrid((16, 16, 16), 4.0, (0.0, 0.0, 0.0))
    images = 3 * random_numbers(4, 16, 16, 16)
    study = PreparedStudy(images, torch.ones(16, 16, 16, dtype=torch.bool), grid, ("flair",), uncorrected=images)
    found = segment_prepared(judging, study, -3.0, True, CPU)
    assert not found.labels.any()
    assert found.removed is not None
    assert int(found.removed.sum()) > 20


def test_volumes_vary_over_the_views_only_where_tumour_is_kept(
    weights: LoadedWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both views call 125 voxels tumour, and one of them also 512 elsewhere, which are left out."""
    bright = torch.zeros(16, 16, 16, dtype=torch.bool)
    bright[1:6, 1:6, 1:6] = True
    elsewhere = torch.zeros_like(bright)
    elsewhere[8:, 8:, 8:] = True

    def seen(tumor: torch.Tensor, doubt: float) -> Segmentation:
        probabilities = torch.zeros(4, 16, 16, 16)
        probabilities[EDEMA] = torch.where(tumor, 0.95, torch.where(elsewhere, doubt, 0.0))
        probabilities[0] = 1 - probabilities[EDEMA]
        count = torch.tensor([4096 - int(tumor.sum()), 0, int(tumor.sum()), 0])
        return Segmentation(probabilities, torch.stack([count, count]))

    answers = iter([seen(bright, 0.15), seen(bright | elsewhere, 0.95)])
    monkeypatch.setattr("JointRegSegLib.inference.network_pass._averaged", lambda *_: next(answers))
    images = 5.0 * (bright | elsewhere) + 0.1 * random_numbers(4, 16, 16, 16)
    grid = WorkingGrid((16, 16, 16), 4.0, (0.0, 0.0, 0.0))
    study = PreparedStudy(images, torch.ones_like(bright), grid, ("flair",), uncorrected=images)
    found = segment_prepared(judging_by_brightness(weights), study, -3.0, True, CPU)
    assert torch.equal(found.labels == EDEMA, bright)
    assert found.removed is not None
    assert torch.equal(found.removed, elsewhere)
    assert found.counts[:, EDEMA].tolist() == [125] * 4
