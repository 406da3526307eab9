"""Displacement fields: warping, composition, integration, inversion, Jacobians, changes of grid."""

from __future__ import annotations

import math

import pytest
import torch

from JointRegSegLib.registration import deformation as d

SHAPE = (12, 15, 9)
"""All axes differ in length, so that a confusion of axes is noticed."""


def coordinates(shape: tuple[int, ...] = SHAPE, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Return the indices of every voxel, (1, 3, D, H, W)."""
    return torch.stack(torch.meshgrid(*[torch.arange(n, dtype=dtype) for n in shape], indexing="ij"))[None]


def affine(matrix: list[list[float]], shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    """Return the displacement of ``x ↦ A (x − center) + center``."""
    x = coordinates(shape)
    center = (torch.tensor(shape, dtype=x.dtype) - 1).view(1, 3, 1, 1, 1) / 2
    return torch.einsum("ij,bjdhw->bidhw", torch.tensor(matrix, dtype=x.dtype), x - center) + center - x


def smooth(shape: tuple[int, ...] = SHAPE, size: float = 1.0, seed: int = 0) -> torch.Tensor:
    """Return a smooth field of sines with at most ``size`` voxels that vanishes at the borders."""
    generator = torch.Generator().manual_seed(seed)
    x = coordinates(shape) / (torch.tensor(shape).view(1, 3, 1, 1, 1) - 1)
    bump = torch.sin(math.pi * x).prod(1, keepdim=True)
    return size * bump * torch.sin(3 * x.flip(1) + 6 * torch.rand(1, 3, 1, 1, 1, generator=generator).double())


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_translation_moves_the_image_along_the_axis_of_its_component(axis: int) -> None:
    image = torch.rand(1, 2, *SHAPE)
    shift = torch.zeros(1, 3, *SHAPE)
    shift[:, axis] = 2
    expected = image.roll(-2, 2 + axis).narrow(2 + axis, 0, SHAPE[axis] - 2)
    warped = d.warp(image, shift)
    torch.testing.assert_close(warped.narrow(2 + axis, 0, SHAPE[axis] - 2), expected, atol=2e-6, rtol=0)
    last = image.narrow(2 + axis, SHAPE[axis] - 1, 1)
    torch.testing.assert_close(warped.narrow(2 + axis, SHAPE[axis] - 2, 2), torch.cat([last, last], 2 + axis))


def test_linear_image_is_interpolated_exactly() -> None:
    x = coordinates()
    image = (2 * x[:, :1] - 3 * x[:, 1:2] + 5 * x[:, 2:]) + 1
    u = smooth(size=0.9)
    y = (x + u).clamp(torch.zeros(1, 3, 1, 1, 1), torch.tensor(SHAPE).view(1, 3, 1, 1, 1) - 1)
    torch.testing.assert_close(d.warp(image, u), 2 * y[:, :1] - 3 * y[:, 1:2] + 5 * y[:, 2:] + 1)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_number_of_threads_does_not_change_the_result(threads: int) -> None:
    shape = (16, 18, 20)
    image = torch.rand(1, 2, *shape, requires_grad=True)
    u = (torch.rand(1, 3, *shape) * 6 - 3).requires_grad_()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        divided = torch.autograd.grad(d.warp(image, u).square().sum(), (image, u))
    finally:
        torch.set_num_threads(before)
    grid = d._normalized_points(u, image.shape[2:])
    whole = torch.nn.functional.grid_sample(image, grid, padding_mode="border", align_corners=True)
    for one, other in zip(divided, torch.autograd.grad(whole.square().sum(), (image, u)), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_warp_accepts_a_field_on_another_grid_and_pads_with_zeros() -> None:
    image = torch.ones(1, 1, 6, 7, 8)
    u = torch.zeros(1, 3, 4, 5, 3)
    assert d.warp(image, u).shape == (1, 1, 4, 5, 3)
    u[:, 2] = 7
    assert torch.equal(d.warp(image, u, padding="zeros")[..., 1:], torch.zeros(1, 1, 4, 5, 2))


def test_nearest_neighbour_interpolation_keeps_labels_and_dtype() -> None:
    labels = torch.randint(0, 4, (1, 1, *SHAPE), dtype=torch.uint8)
    warped = d.warp(labels, smooth(size=0.4), mode="nearest")
    assert warped.dtype == torch.uint8
    assert torch.equal(warped, labels)


def test_labels_follow_a_shift_of_more_than_half_a_voxel() -> None:
    labels = torch.randint(0, 4, (1, 1, *SHAPE), dtype=torch.uint8)
    shift = torch.zeros(1, 3, *SHAPE)
    shift[:, 1] = 0.7
    assert torch.equal(d.warp_labels(labels, shift)[:, :, :, :-1], labels[:, :, :, 1:])


def test_warp_is_differentiable_in_image_and_field() -> None:
    image = torch.rand(1, 2, 4, 5, 3, dtype=torch.float64, requires_grad=True)
    u = (smooth((4, 5, 3), 0.6) + 0.123).requires_grad_()
    assert torch.autograd.gradcheck(d.warp, (image, u))


def test_composition_of_affine_maps_is_their_product() -> None:
    a = [[0.9, 0.1, 0.0], [0.0, 0.8, -0.1], [0.05, 0.0, 0.85]]
    b = [[0.95, 0.0, 0.1], [-0.1, 0.9, 0.0], [0.0, 0.05, 0.9]]
    both = (torch.tensor(b, dtype=torch.float64) @ torch.tensor(a, dtype=torch.float64)).tolist()
    difference = d.compose(affine(a), affine(b)) - affine(both)
    assert difference[..., 2:-2, 2:-2, 2:-2].abs().max() < 1e-9


def test_flow_of_a_linear_velocity_is_the_matrix_exponential() -> None:
    generator = [[-0.2, 0.1, 0.0], [-0.1, -0.15, 0.05], [0.0, -0.05, -0.1]]
    velocity = affine((torch.eye(3) + torch.tensor(generator)).tolist())
    expected = affine(torch.linalg.matrix_exp(torch.tensor(generator)).tolist())
    difference = d.integrate_velocity(velocity, steps=8) - expected
    assert (
        difference[..., 2:-2, 2:-2, 2:-2].abs().max() < 0.01
    )  # in voxels: the error of the first-order start of the squaring


def test_negative_velocity_gives_the_inverse_map() -> None:
    velocity = smooth((24, 20, 28), 3)
    forward, backward = d.integrate_velocity(velocity), d.integrate_velocity(-velocity)
    assert forward.abs().max() > 1.5
    assert d.inverse_error(forward, backward).max() < 0.1
    assert d.jacobian_determinant(forward).min() > 0


def test_integration_keeps_float32_under_autocast() -> None:
    velocity = smooth().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = d.integrate_velocity(velocity.bfloat16())
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, d.integrate_velocity(velocity), atol=0.02, rtol=0)


def test_integration_is_differentiable() -> None:
    velocity = (smooth((4, 5, 6), 0.7) + 0.05).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: d.integrate_velocity(v, 3), velocity)


def test_gradients_of_one_half_give_exactly_the_identity_map() -> None:
    phi = torch.full((2, 3, *SHAPE), 0.5)
    assert torch.equal(d.cumulative_displacement(phi), torch.zeros(2, 3, *SHAPE))
    image = torch.rand(2, 1, *SHAPE)
    torch.testing.assert_close(d.warp(image, d.cumulative_displacement(phi)), image, atol=2e-6, rtol=0)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_gradients_are_the_steps_between_neighbouring_points(axis: int) -> None:
    phi = torch.rand(1, 3, *SHAPE, dtype=torch.float64)
    points = coordinates() + d.cumulative_displacement(phi)
    steps = points[:, axis].diff(dim=axis + 1)
    torch.testing.assert_close(steps, 2 * phi[:, axis].narrow(axis + 1, 1, SHAPE[axis] - 1))


def test_jacobian_determinant_of_an_affine_map_is_that_of_its_matrix_even_at_the_borders() -> None:
    matrix = [[1.2, 0.3, 0.1], [-0.2, 0.9, 0.25], [0.15, -0.1, 1.4]]
    determinant = d.jacobian_determinant(affine(matrix))
    assert determinant.shape == (1, 1, *SHAPE)
    torch.testing.assert_close(
        determinant, torch.full_like(determinant, torch.linalg.det(torch.tensor(matrix, dtype=torch.float64)).item())
    )


def test_rotation_preserves_volume() -> None:
    c, s = math.cos(0.4), math.sin(0.4)
    determinant = d.jacobian_determinant(affine([[1, 0, 0], [0, c, -s], [0, s, c]]))
    torch.testing.assert_close(determinant, torch.ones_like(determinant))


def test_folds_are_counted_within_the_mask() -> None:
    assert d.folded_fraction(smooth(size=0.3)) == 0
    mirrored = affine([[1, 0, 0], [0, 1, 0], [0, 0, -1]])
    assert d.folded_fraction(mirrored) == 1
    u = torch.zeros(1, 3, *SHAPE)
    u[:, 2, :, :, 4:] = -3  # the voxels from column 4 on jump back over their neighbours
    assert d.folded_fraction(u) == pytest.approx(2 / SHAPE[2])
    mask = torch.zeros(1, 1, *SHAPE, dtype=torch.bool)
    mask[..., 6:] = True
    assert d.folded_fraction(u, mask) == 0


def test_inverse_of_a_displacement_undoes_it() -> None:
    u = smooth((24, 20, 28), 3)
    inverse = d.invert_displacement(u)
    assert d.inverse_error(u, inverse).max() < 0.15  # linear interpolation of the inverse between its voxels
    assert d.inverse_error(inverse, u).max() < 0.003


def test_threefold_expansion_is_inverted() -> None:
    shape = (31, 27, 25)
    wide = affine([[3, 0, 0], [0, 2.5, 0], [0, 0, 2.2]], shape)
    expected = affine([[1 / 3, 0, 0], [0, 0.4, 0], [0, 0, 1 / 2.2]], shape)
    assert (d.invert_displacement(wide) - expected).abs().max() < 0.02


def test_inverse_error_is_large_for_a_map_that_is_not_the_inverse() -> None:
    u = smooth(size=1)
    assert d.inverse_error(u, u).max() > 1


@pytest.mark.parametrize("shape", [(24, 30, 18), (6, 5, 3), (16, 10, 20)])
def test_resized_displacement_is_the_same_map(shape: tuple[int, ...]) -> None:
    translation = torch.tensor([1.0, -2.0, 0.5]).view(1, 3, 1, 1, 1).expand(1, 3, *SHAPE)
    scale = torch.tensor([n / o for n, o in zip(shape, SHAPE, strict=True)]).view(1, 3, 1, 1, 1)
    resized = d.resize_displacement(translation, shape)
    torch.testing.assert_close(resized, (translation[..., :1, :1, :1] * scale).expand(1, 3, *shape))


def test_displacement_of_pooled_images_applies_to_the_full_images() -> None:
    shape = (16, 20, 24)
    u = smooth(shape, 2).float()
    coarse = torch.nn.functional.avg_pool3d(u, 2) / 2
    assert (d.resize_displacement(coarse, shape) - u)[..., 1:-1, 1:-1, 1:-1].abs().max() < 0.25


def test_unusable_fields_are_refused() -> None:
    with pytest.raises(ValueError, match=r"displacement must have shape \(B, 3, D, H, W\), not \(1, 2, 4, 4, 4\)"):
        d.warp(torch.zeros(1, 1, 4, 4, 4), torch.zeros(1, 2, 4, 4, 4))
    with pytest.raises(ValueError, match="floating-point"):
        d.Deformation(torch.zeros(1, 3, 4, 4, 4, dtype=torch.int32))
    with pytest.raises(ValueError, match="2 images cannot be warped by 3 displacements"):
        d.warp(torch.zeros(2, 1, 4, 4, 4), torch.zeros(3, 3, 4, 4, 4))
    with pytest.raises(ValueError, match="at least two voxels"):
        d.jacobian_determinant(torch.zeros(1, 3, 4, 1, 4))


@pytest.mark.parametrize("threads", [1, 3])
def test_any_points_of_an_image_are_interpolated_with_any_number_of_threads(threads: int) -> None:
    indices = torch.rand((5000, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    indices = indices * torch.tensor([n - 1.0 for n in reversed(SHAPE)])
    image = torch.cat([coordinates(), coordinates().sum(1, keepdim=True)], 1)  # linear, so interpolated exactly
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = d.at_indices(image, indices)
    finally:
        torch.set_num_threads(before)
    exact = indices.flip(1).t()
    torch.testing.assert_close(found, torch.cat([exact, exact.sum(0, keepdim=True)]))


def test_points_beyond_an_image_have_the_values_of_its_border() -> None:
    beyond = torch.tensor([[-5.0, 3.0, 40.0]], dtype=torch.float64)
    torch.testing.assert_close(d.at_indices(coordinates(), beyond)[:, 0], beyond.new_tensor([SHAPE[0] - 1.0, 3.0, 0.0]))
