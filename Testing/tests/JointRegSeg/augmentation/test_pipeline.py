"""Augmentation of study pairs: seeded, consistent with the labels, and without effect outside the brain."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from augmentation_cases import STRONG, generator, only, pair, same_values, study

from JointRegSegLib.augmentation import intensity, spatial
from JointRegSegLib.augmentation.config import AugmentationConfig
from JointRegSegLib.augmentation.pipeline import Augmentation, drop_modalities
from JointRegSegLib.cohort.sample import OUTSIDE, StudySample


def test_the_generator_alone_decides_the_result() -> None:
    first, second = (Augmentation(STRONG)(pair(), generator(5)) for _ in range(2))
    assert all(same_values(a, b) for a, b in zip(first, second, strict=True))
    other = Augmentation(STRONG)(pair(), generator(6))
    assert not torch.equal(first[0].images, other[0].images)


def test_the_given_studies_are_not_changed() -> None:
    given = pair()
    Augmentation(STRONG)(given, generator())
    assert all(same_values(a, b) for a, b in zip(given, pair(), strict=True))


def test_no_augmentation_changes_nothing() -> None:
    given = pair()
    result = Augmentation(AugmentationConfig.none())(given, generator())
    assert all(same_values(a, b) for a, b in zip(result, given, strict=True))


@pytest.mark.parametrize("seed", range(6))
def test_values_stay_in_range_and_outside_stays_outside(seed: int) -> None:
    for sample in Augmentation(STRONG)(pair(), generator(seed)):
        assert sample.images.dtype == torch.float32
        assert sample.labels.dtype == torch.uint8
        assert sample.mask.dtype == torch.bool
        assert bool(sample.mask.any())
        assert bool((sample.images[:, ~sample.mask] == OUTSIDE).all())
        assert float(sample.images.min()) >= OUTSIDE
        assert float(sample.images.max()) <= intensity.HIGHEST
        assert bool(sample.images.isfinite().all())
        assert set(sample.labels.unique().tolist()) <= {0, 1, 2, 3}


def test_shared_dropout_drops_the_same_modalities_and_leaves_one() -> None:
    augment = Augmentation(only(dropout_probability=0.9))
    kept = []
    for seed in range(30):
        fixed, moving = augment(pair(), generator(seed))
        assert torch.equal(fixed.present, moving.present)
        assert bool((fixed.images[~fixed.present] == OUTSIDE).all())
        kept.append(int(fixed.present.sum()))
    assert min(kept) == 1
    assert max(kept) < 4


def test_dropout_never_drops_the_last_modality_of_a_study() -> None:
    only_t2 = drop_modalities(study(), torch.tensor([False, False, True, False]))
    for shared in (True, False):
        augment = Augmentation(only(dropout_probability=0.95, dropout_shared=shared))
        for seed in range(20):
            assert augment((only_t2, only_t2), generator(seed))[0].present.tolist() == [False, False, True, False]


def test_shared_dropout_leaves_studies_without_a_common_modality_one_each() -> None:
    augment = Augmentation(only(dropout_probability=0.9))
    fixed, moving = pair()
    fixed, moving = drop_modalities(fixed, torch.arange(4) == 0), drop_modalities(moving, torch.arange(4) == 2)
    for seed in range(10):
        assert all(bool(sample.present.any()) for sample in augment((fixed, moving), generator(seed)))


@pytest.mark.parametrize("shared", [True, False])
def test_dropout_leaves_a_modality_that_the_network_knows(shared: bool) -> None:
    known = torch.tensor([True, False, False, True])
    augment = Augmentation(only(dropout_probability=0.9, dropout_shared=shared), modalities=("flair", "t1"))
    for seed in range(30):
        assert all(bool((sample.present & known).any()) for sample in augment(pair(), generator(seed)))
        assert bool((augment.single(study(), generator(seed)).present & known).any())
    own = [dataclasses.replace(sample, images=sample.images[[3, 0]]) for sample in pair()]  # as the network has them
    for seed in range(30):
        assert all(bool(sample.present.any()) for sample in augment((own[0], own[1]), generator(seed)))


def test_dropout_has_the_wanted_probability() -> None:
    augment = Augmentation(only(dropout_probability=0.2))
    counts = sum(augment(pair(), generator(seed))[0].present.float() for seed in range(200))
    assert torch.allclose(counts / 200, torch.tensor(0.8), atol=0.1)


def test_an_absent_modality_stays_absent() -> None:
    without = drop_modalities(study(), torch.tensor([True, False, True, True]))
    for sample in Augmentation(dataclasses.replace(STRONG, dropout_probability=0.0))((without, without), generator()):
        assert sample.present.tolist() == [True, False, True, True]
        assert bool((sample.images[1] == OUTSIDE).all())


def test_images_of_another_normalization_keep_their_background() -> None:
    raw = study()
    scaled = StudySample(torch.where(raw.mask, (raw.images + 3) / 9, 0.0), raw.labels, raw.mask, "percentile")
    for sample in Augmentation(STRONG, background=0.0)((scaled, scaled), generator(3)):
        assert bool((sample.images[:, ~sample.mask] == 0).all())


def test_patches_have_the_wanted_shape_and_the_same_place_in_both_studies() -> None:
    config = only(patch=(8, 12, 10), patch_proportions={"necrotic_core": 1.0})
    twins = (study(), study())
    for seed in range(5):
        fixed, moving = Augmentation(config)(twins, generator(seed))
        assert fixed.shape == (8, 12, 10)
        assert same_values(fixed, moving)
        assert bool((fixed.labels == 1).any())


def test_unlabelled_studies_are_augmented_too() -> None:
    bare = tuple(StudySample(sample.images, None, sample.mask, sample.name) for sample in pair())
    config = dataclasses.replace(STRONG, patch=(8, 8, 8))
    assert all(sample.labels is None for sample in Augmentation(config)(bare, generator()))


def test_patches_with_a_margin_reach_into_the_background_around_the_grid() -> None:
    """Their share of background varies, and inside the grid they are unchanged."""
    config = only(patch=(16, 16, 16), patch_proportions={"anywhere": 1.0}, patch_margin_voxels=8)
    whole, seen = pair(), set()
    for seed in range(20):
        patch = Augmentation(config)(pair(), generator(seed))[0]
        assert patch.shape == (16, 16, 16)
        assert bool((patch.images[:, ~patch.mask] == whole[0].outside[:, None]).all())
        inside = patch.images[:, patch.mask]
        assert bool(torch.isin(inside, whole[0].images).all())
        seen.add(int(patch.mask.sum()))
    assert len(seen) > 10
    larger = dataclasses.replace(config, patch=(32, 32, 32))  # than the grid of 24 x 28 x 20
    assert Augmentation(larger)(pair(), generator())[0].shape == (32, 32, 32)
    padded = spatial.pad(whole[0], 5)
    assert padded.shape == tuple(size + 10 for size in whole[0].shape)
    again = spatial.crop(padded, (5, 5, 5), whole[0].shape)
    assert torch.equal(again.images, whole[0].images)
    assert torch.equal(again.labels, whole[0].labels)
    assert torch.equal(again.mask, whole[0].mask)
    assert int(padded.mask.sum()) == int(whole[0].mask.sum())


def test_patches_within_the_brain_keep_the_background_of_their_normalization() -> None:
    """Positions beyond the patch get the configured value, not that of z-scores."""
    whole = dataclasses.replace(pair()[0], background=0.0)
    patch = spatial.crop(whole, (10, 12, 7), (4, 4, 4))
    assert bool(patch.mask.all())
    assert patch.outside.tolist() == [0.0] * 4
    assert bool((spatial.pad(patch, 1).images[:, 0] == 0).all())


def test_a_patch_larger_than_the_grid_is_refused() -> None:
    with pytest.raises(ValueError, match=r"patch \(32, 8, 8\) is larger than the grid \(24, 28, 20\) of 'fixed'"):
        Augmentation(only(patch=(32, 8, 8)))(pair(), generator())


def test_studies_on_different_grids_are_refused() -> None:
    small = spatial.crop(study(name="small"), (0, 0, 0), (12, 12, 12))
    with pytest.raises(ValueError, match=r"'fixed' and 'small' have different grids"):
        Augmentation(STRONG)((pair()[0], small), generator())
