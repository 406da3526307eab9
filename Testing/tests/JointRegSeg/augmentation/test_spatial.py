"""Geometric changes: flips, affine maps and deformations move images, labels and mask together."""

from __future__ import annotations

import pytest
import torch
from augmentation_cases import SHAPE, coordinates, generator, only, pair, same_values, study

from JointRegSegLib.augmentation import intensity, spatial
from JointRegSegLib.augmentation.config import SpatialRanges
from JointRegSegLib.augmentation.pipeline import Augmentation
from JointRegSegLib.cohort.sample import OUTSIDE, StudySample


def test_a_flip_mirrors_images_labels_and_mask_alike() -> None:
    config = only(shared=SpatialRanges(flip=(0.0, 0.0, 1.0)))
    for result, given in zip(Augmentation(config)(pair(), generator()), pair(), strict=True):
        assert torch.equal(result.images, given.images.flip(3))
        assert torch.equal(result.labels, given.labels.flip(2))
        assert torch.equal(result.mask, given.mask.flip(2))


def test_the_identity_map_leaves_every_voxel_unchanged() -> None:
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
    """An image that shows the classes agrees with the moved labels, except at the interpolated borders."""
    given = study()
    shown = torch.where(given.mask, given.labels.float(), OUTSIDE)
    given = StudySample(shown.expand(4, *SHAPE).clone(), given.labels, given.mask, "shown")
    config = only(shared=SpatialRanges((0.5, 0.5, 0.5), 1.0, 20, 0.1, 0.1, 2, 3, 8))
    for seed in range(5):
        result, _ = Augmentation(config)((given, given), generator(seed))
        inner = result.labels > 0
        apart = (result.images[0] - result.labels)[inner].abs()
        assert float(apart.mean()) < 0.4
        assert float((apart > 1.1).float().mean()) == 0  # at most half the step between oedema and background
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
        fixed, moving = Augmentation(only(shared=ranges))(twins, generator(seed))
        assert same_values(fixed, moving)
    fixed, moving = Augmentation(only(independent=ranges))(twins, generator())
    assert not torch.equal(fixed.labels, moving.labels)


def test_the_deformation_never_folds() -> None:
    """Coefficients are limited to the fold-free bound, even where a stronger deformation is asked for."""
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
