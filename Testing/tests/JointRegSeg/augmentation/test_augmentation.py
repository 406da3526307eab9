"""Augmentation of study pairs: seeded, label-consistent, and nothing changes outside of the brain."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
from torch import Tensor

from JointRegSegLib.augmentation import intensity as intensity
from JointRegSegLib.augmentation import spatial as spatial
from JointRegSegLib.augmentation.config import AugmentationConfig, SpatialRanges
from JointRegSegLib.augmentation.pipeline import Augmentation, drop_modalities
from JointRegSegLib.cohort.sample import OUTSIDE, Pair, StudySample

SHAPE = (24, 28, 20)
STRONG = AugmentationConfig(
    shared=SpatialRanges((0.3, 0.3, 0.5), 1.0, 15, 0.15, 0.05, 2, 4, 8),
    independent=SpatialRanges((0.0, 0.0, 0.0), 1.0, 5, 0.05, 0.0, 1, 1, 8),
    anisotropy_probability=0.5,
    blur_probability=0.5,
    bias_probability=0.5,
    intensity_probability=0.5,
    noise_probability=0.5,
    dropout_probability=0.3,
)


def coordinates() -> Tensor:
    """(3, D, H, W) voxel coordinates."""
    return torch.stack(torch.meshgrid(*[torch.arange(n, dtype=torch.float32) for n in SHAPE], indexing="ij"))


def ball(centre: tuple[float, float, float], radius: float) -> Tensor:
    return ((coordinates() - torch.tensor(centre)[:, None, None, None]) ** 2).sum(0) < radius**2


def study(seed: int = 0, name: str = "a") -> StudySample:
    """A ball of brain with smooth structure and a tumour of three shells off its centre."""
    phase = torch.rand(4, 3, generator=torch.Generator().manual_seed(seed)) * 6
    z = coordinates() / 4
    images = torch.stack([sum(torch.sin(z[k] + phase[c, k]) for k in range(3)) for c in range(4)]) / 1.3
    mask = ball((12, 14, 9), 8.5)
    labels = torch.zeros(SHAPE, dtype=torch.uint8)
    for value, radius in ((2, 5.0), (3, 3.5), (1, 2.0)):
        labels[ball((12, 16, 7), radius)] = value
    return StudySample(torch.where(mask, images, OUTSIDE), labels, mask, name)


def pair() -> Pair:
    return study(0, "fixed"), study(1, "moving")


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def same(a: StudySample, b: StudySample) -> bool:
    return all(torch.equal(x, y) for x, y in ((a.images, b.images), (a.labels, b.labels), (a.mask, b.mask)))


def off(**changes: object) -> AugmentationConfig:
    """A configuration that does nothing but what is given."""
    return dataclasses.replace(AugmentationConfig.none(), **changes)


def test_the_generator_alone_decides() -> None:
    first, second = (Augmentation(STRONG)(pair(), generator(5)) for _ in range(2))
    assert all(same(a, b) for a, b in zip(first, second, strict=True))
    other = Augmentation(STRONG)(pair(), generator(6))
    assert not torch.equal(first[0].images, other[0].images)


def test_the_studies_given_are_left_as_they_are() -> None:
    given = pair()
    Augmentation(STRONG)(given, generator())
    assert all(same(a, b) for a, b in zip(given, pair(), strict=True))


def test_no_augmentation_changes_nothing() -> None:
    given = pair()
    result = Augmentation(AugmentationConfig.none())(given, generator())
    assert all(same(a, b) for a, b in zip(result, given, strict=True))


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


def test_a_flip_mirrors_images_labels_and_mask_alike() -> None:
    config = off(shared=SpatialRanges(flip=(0.0, 0.0, 1.0)))
    for result, given in zip(Augmentation(config)(pair(), generator()), pair(), strict=True):
        assert torch.equal(result.images, given.images.flip(3))
        assert torch.equal(result.labels, given.labels.flip(2))
        assert torch.equal(result.mask, given.mask.flip(2))


def test_the_identity_map_keeps_every_voxel() -> None:
    given = study()
    result = spatial.resample(given, spatial.source_positions(SHAPE, torch.eye(3), torch.zeros(3)))
    assert torch.allclose(result.images, given.images, atol=1e-4)
    assert torch.equal(result.labels, given.labels)
    assert torch.equal(result.mask, given.mask)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_translation_pulls_back_along_its_own_axis(axis: int) -> None:
    given = study()
    translation = torch.zeros(3)
    translation[axis] = 2.0
    result = spatial.resample(given, spatial.source_positions(SHAPE, torch.eye(3), translation))
    kept = SHAPE[axis] - 2
    assert torch.equal(result.labels.narrow(axis, 0, kept), given.labels.narrow(axis, 2, kept))
    assert torch.allclose(result.images.narrow(axis + 1, 0, kept), given.images.narrow(axis + 1, 2, kept), atol=1e-4)
    assert bool((result.images.narrow(axis + 1, kept, 2) == OUTSIDE).all())  # from beyond the grid


def test_a_quarter_turn_is_exact_on_a_cube() -> None:
    size = (9, 9, 9)
    images = torch.rand((4, *size), generator=generator())
    mask = torch.ones(size, dtype=torch.bool)
    labels = torch.randint(0, 4, size, generator=generator()).to(torch.uint8)
    matrix = spatial.affine_matrix(torch.tensor([90.0, 0.0, 0.0]), torch.zeros(3), torch.zeros(3))
    result = spatial.resample(
        StudySample(images, labels, mask, "cube"), spatial.source_positions(size, matrix, torch.zeros(3))
    )
    turned = labels.flip(1).transpose(1, 2)  # x ↦ M x with M = [[0, -1], [1, 0]] on (H, W)
    assert torch.equal(result.labels, turned)
    assert torch.allclose(result.images, images.flip(2).transpose(2, 3), atol=1e-4)


def test_images_and_labels_move_together() -> None:
    """An image that shows the classes still shows those of the moved labels, but for the interpolated borders."""
    given = study()
    shown = torch.where(given.mask, given.labels.float(), OUTSIDE)
    given = StudySample(shown.expand(4, *SHAPE).clone(), given.labels, given.mask, "shown")
    config = off(shared=SpatialRanges((0.5, 0.5, 0.5), 1.0, 20, 0.1, 0.1, 2, 3, 8))
    for seed in range(5):
        result, _ = Augmentation(config)((given, given), generator(seed))
        inner = result.labels > 0
        apart = (result.images[0] - result.labels)[inner].abs()
        assert float(apart.mean()) < 0.4
        assert float((apart > 1.1).float().mean()) == 0  # half of the step between oedema and background at most
        assert 0.5 < float(inner.sum() / (given.labels > 0).sum()) < 2


def test_interpolation_at_the_brain_border_does_not_mix_with_the_outside() -> None:
    given = study()
    flat = StudySample(torch.where(given.mask, 1.5, OUTSIDE).expand(4, *SHAPE).clone(), None, given.mask, "flat")
    positions = spatial.source_positions(SHAPE, torch.eye(3), torch.tensor([0.4, -0.3, 0.25]))
    result = spatial.resample(flat, positions)
    assert torch.allclose(result.images[:, result.mask], torch.tensor(1.5), atol=1e-4)
    for function in (
        lambda: intensity.blur(flat.images[0], given.mask, 1.0),
        lambda: intensity.thick_slices(flat.images[0], given.mask, 1, 3.0),
    ):
        assert torch.allclose(function()[given.mask], torch.tensor(1.5), atol=1e-3)


def test_shared_geometry_is_the_same_for_both_studies_and_independent_geometry_is_not() -> None:
    ranges = SpatialRanges((0.0, 0.0, 0.5), 1.0, 10, 0.1, 0.0, 2, 2, 8)
    twins = (study(), study())
    for seed in range(4):
        fixed, moving = Augmentation(off(shared=ranges))(twins, generator(seed))
        assert same(fixed, moving)
    fixed, moving = Augmentation(off(independent=ranges))(twins, generator())
    assert not torch.equal(fixed.labels, moving.labels)


def test_the_deformation_never_folds() -> None:
    """Coefficients are cut below the fold-free bound, even where a wilder deformation is asked for."""
    spacing = 6.0
    bound = spatial.INJECTIVE_FRACTION * spacing
    for seed in range(5):
        coefficients = torch.rand(*spatial.knots(SHAPE, spacing), 3, generator=generator(seed)).round() * 2 - 1
        u = spatial.smooth_field(coefficients * bound, SHAPE, spacing).double()
        gradient = torch.stack(
            [torch.diff(u, dim=k)[: SHAPE[0] - 1, : SHAPE[1] - 1, : SHAPE[2] - 1] for k in range(3)], dim=-1
        )
        determinant = torch.linalg.det(gradient + torch.eye(3, dtype=torch.float64))
        assert float(determinant.min()) > 0


def test_a_b_spline_of_equal_coefficients_is_constant() -> None:
    field = spatial.smooth_field(torch.full((*spatial.knots(SHAPE, 7.5), 3), 1.25), SHAPE, 7.5)
    assert field.shape == (*SHAPE, 3)
    assert torch.allclose(field, torch.tensor(1.25), atol=1e-5)


def test_a_b_spline_follows_its_coefficients_along_the_right_axis() -> None:
    for axis in range(3):
        count = spatial.knots(SHAPE, 5.0)
        ramp = (torch.arange(count[axis], dtype=torch.float32) - 1) * 5.0
        view = [1, 1, 1, 1]
        view[axis] = -1
        field = spatial.smooth_field(ramp.view(view).expand(*count, 1).contiguous(), SHAPE, 5.0)[..., 0]
        assert torch.allclose(field, coordinates()[axis], atol=1e-4)  # splines reproduce straight lines


def test_noise_has_the_asked_standard_deviation_inside_the_brain() -> None:
    sample = study()
    image = sample.images[0]
    noisy = intensity.add_noise(image, sample.mask, 0.2, generator())
    sd = float(image[sample.mask].std())
    assert float((noisy - image)[sample.mask].std()) == pytest.approx(0.2 * sd, rel=0.1)


def test_gamma_keeps_order_mean_and_standard_deviation() -> None:
    sample = study()
    inside = sample.images[0][sample.mask]
    bent = intensity.gamma(sample.images[0], sample.mask, 1.6)[sample.mask]
    assert torch.allclose(bent[inside.argsort()].diff().clamp(max=0), torch.tensor(0.0), atol=1e-5)
    assert float(bent.mean()) == pytest.approx(float(inside.mean()), abs=1e-4)
    assert float(bent.std()) == pytest.approx(float(inside.std()), rel=1e-4)
    assert float((bent - inside).abs().max()) > 0.1


def test_shift_and_contrast_are_what_was_asked() -> None:
    sample = study()
    inside = sample.images[0][sample.mask]
    changed = intensity.shift_and_contrast(sample.images[0], sample.mask, 0.3, 1.2)[sample.mask]
    assert float(changed.std() / inside.std()) == pytest.approx(1.2, rel=1e-4)
    spread = float(inside.std(correction=0))
    assert float(changed.mean() - inside.mean()) == pytest.approx(0.3 * spread, rel=1e-3)


def test_the_bias_field_is_a_smooth_gain_on_the_intensity_above_the_background() -> None:
    sample = study()
    coefficients = (torch.rand(spatial.knots(SHAPE, 16.0), generator=generator()) * 2 - 1) * 0.4
    changed = intensity.bias_field(sample.images[0], sample.mask, coefficients, 16.0)
    gain = ((changed - OUTSIDE) / (sample.images[0] - OUTSIDE))[sample.mask]
    assert math.exp(-0.4) <= float(gain.min())
    assert float(gain.max()) <= math.exp(0.4)
    assert float(gain.max() - gain.min()) > 0.05
    steps = ((changed - OUTSIDE) / (sample.images[0] - OUTSIDE)).diff(dim=0)[sample.mask[1:] & sample.mask[:-1]]
    assert float(steps.abs().max()) < 0.05


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_thick_slices_lose_detail_along_their_axis_only(axis: int) -> None:
    mask = torch.ones(SHAPE, dtype=torch.bool)
    for k in range(3):
        stripes = (coordinates()[k] % 2) * 2 - 1
        contrast = intensity.thick_slices(stripes, mask, axis, 2.0).std() / stripes.std()
        assert (float(contrast) < 0.2) == (k == axis)


def test_a_shared_dropout_takes_the_same_modalities_and_leaves_one() -> None:
    augment = Augmentation(off(dropout_probability=0.9))
    kept = []
    for seed in range(30):
        fixed, moving = augment(pair(), generator(seed))
        assert torch.equal(fixed.present, moving.present)
        assert bool((fixed.images[~fixed.present] == OUTSIDE).all())
        kept.append(int(fixed.present.sum()))
    assert min(kept) == 1
    assert max(kept) < 4


def test_dropout_never_takes_the_last_modality_of_a_study_that_has_few() -> None:
    only_t2 = drop_modalities(study(), torch.tensor([False, False, True, False]))
    for shared in (True, False):
        augment = Augmentation(off(dropout_probability=0.95, dropout_shared=shared))
        for seed in range(20):
            assert augment((only_t2, only_t2), generator(seed))[0].present.tolist() == [False, False, True, False]


def test_dropout_comes_as_often_as_asked() -> None:
    augment = Augmentation(off(dropout_probability=0.2))
    counts = sum(augment(pair(), generator(seed))[0].present.float() for seed in range(200))
    assert torch.allclose(counts / 200, torch.tensor(0.8), atol=0.1)


def test_an_absent_modality_stays_absent() -> None:
    without = drop_modalities(study(), torch.tensor([True, False, True, True]))
    for sample in Augmentation(dataclasses.replace(STRONG, dropout_probability=0.0))((without, without), generator()):
        assert sample.present.tolist() == [True, False, True, True]
        assert bool((sample.images[1] == OUTSIDE).all())


def test_images_of_another_normalisation_keep_their_own_background() -> None:
    raw = study()
    scaled = StudySample(torch.where(raw.mask, (raw.images + 3) / 9, 0.0), raw.labels, raw.mask, "percentile")
    for sample in Augmentation(STRONG, background=0.0)((scaled, scaled), generator(3)):
        assert bool((sample.images[:, ~sample.mask] == 0).all())


def test_patches_have_the_asked_shape_at_the_same_place_in_both_studies() -> None:
    config = off(patch=(8, 12, 10), patch_proportions={"necrotic_core": 1.0})
    twins = (study(), study())
    for seed in range(5):
        fixed, moving = Augmentation(config)(twins, generator(seed))
        assert fixed.shape == (8, 12, 10)
        assert same(fixed, moving)
        assert bool((fixed.labels == 1).any())


def test_unlabelled_studies_are_augmented_too() -> None:
    bare = tuple(StudySample(sample.images, None, sample.mask, sample.name) for sample in pair())
    config = dataclasses.replace(STRONG, patch=(8, 8, 8))
    assert all(sample.labels is None for sample in Augmentation(config)(bare, generator()))


def test_patches_with_a_margin_reach_into_the_background_around_the_grid() -> None:
    """Their share of background varies, and what they show of the grid is unchanged."""
    config = off(patch=(16, 16, 16), patch_proportions={"anywhere": 1.0}, patch_margin_voxels=8)
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


def test_a_patch_larger_than_the_grid_is_refused() -> None:
    with pytest.raises(ValueError, match=r"patch \(32, 8, 8\) is larger than the grid \(24, 28, 20\) of 'fixed'"):
        Augmentation(off(patch=(32, 8, 8)))(pair(), generator())


def test_studies_on_different_grids_are_refused() -> None:
    small = spatial.crop(study(name="small"), (0, 0, 0), (12, 12, 12))
    with pytest.raises(ValueError, match=r"'fixed' and 'small' have different grids"):
        Augmentation(STRONG)((pair()[0], small), generator())


def test_the_configuration_survives_json() -> None:
    config = dataclasses.replace(STRONG, patch=(8, 8, 8))
    assert AugmentationConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert AugmentationConfig.from_dict({"shared": {"rotation_deg": 3}}).shared.rotation_deg == 3


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"nois_sd": 0.1}, "unknown setting 'nois_sd'"),
        ({"shared": {"twist": 1}}, "unknown setting 'twist'"),
        ({"noise_probability": 1.5}, "noise_probability must be a probability"),
        ({"blur_voxels": -1}, "blur_voxels must be a number of 0 or more"),
        ({"noise_sd": "loud"}, "noise_sd must be a number"),
        ({"patch": [8, 8]}, "patch needs three positive whole numbers"),
        ({"patch_proportions": {"tumour": 1}}, "unknown class 'tumour'"),
        ({"patch_margin_voxels": 0.5}, "patch_margin_voxels must be a whole number"),
        ({"patch_margin_voxels": -1}, "patch_margin_voxels must be a number of 0 or more"),
        ({"shared": {"flip": [0, 0, 2]}}, "flip needs a probability"),
        ({"shared": 3}, "shared is an object"),
        ({"dropout_shared": 1}, "dropout_shared is true or false"),
        ({"anisotropy_factor": 0.5}, "anisotropy_factor must be at least 1"),
        ([1], "an object with settings is needed"),
    ],
)
def test_unusable_settings_are_refused(values: dict, said: str) -> None:
    with pytest.raises(ValueError, match=r"^train\.json: ") as error:
        AugmentationConfig.from_dict(values, "train.json")
    assert said in str(error.value)
