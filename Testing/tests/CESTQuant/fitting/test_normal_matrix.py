"""Normal matrices in both memory layouts against plain linear algebra."""

from __future__ import annotations

import pytest
import torch

from CESTQuantLib.fitting.marquardt import parameter_scales
from CESTQuantLib.fitting.normal_matrix import (
    LARGEST_ELEMENTWISE,
    BatchedNormalMatrix,
    ElementwiseNormalMatrix,
    NormalMatrix,
    normal_equations,
)

VOXELS, MEASUREMENTS = 7, 30


def equations(count: int, seed: int = 0) -> tuple[NormalMatrix, torch.Tensor, torch.Tensor]:
    """Normal matrices and gradients, and the same matrices as (voxel, p, p), of badly scaled parameters."""
    generator = torch.Generator().manual_seed(seed)
    jacobian = torch.randn(count, MEASUREMENTS, VOXELS, generator=generator, dtype=torch.float64)
    jacobian *= torch.logspace(-3, 3, count, dtype=torch.float64)[:, None, None]
    residual = torch.randn(MEASUREMENTS, VOXELS, generator=generator, dtype=torch.float64)
    normal, gradient = normal_equations(jacobian, residual)
    torch.testing.assert_close(gradient, torch.einsum("pmv,mv->pv", jacobian, residual))
    return normal, gradient, torch.einsum("pmv,qmv->vpq", jacobian, jacobian)


@pytest.fixture(params=[2, LARGEST_ELEMENTWISE, LARGEST_ELEMENTWISE + 1, 16])
def count(request: pytest.FixtureRequest) -> int:
    return request.param


def test_the_layout_follows_from_the_number_of_parameters():
    assert isinstance(equations(LARGEST_ELEMENTWISE)[0], ElementwiseNormalMatrix)
    assert isinstance(equations(LARGEST_ELEMENTWISE + 1)[0], BatchedNormalMatrix)


def test_products_are_those_of_the_matrices(count):
    normal, gradient, matrix = equations(count)
    torch.testing.assert_close(normal.diagonal(), matrix.diagonal(dim1=1, dim2=2).T)
    torch.testing.assert_close(normal.times(gradient), torch.einsum("vpq,qv->pv", matrix, gradient))


def test_the_damped_and_scaled_equations_are_solved(count):
    normal, gradient, matrix = equations(count)
    scale = parameter_scales(normal, torch.ones_like(gradient, dtype=torch.bool))
    damping = torch.linspace(0, 1, VOXELS, dtype=torch.float64)
    scaled = matrix * scale.T.unsqueeze(1) * scale.T.unsqueeze(2)
    torch.testing.assert_close(scaled.diagonal(dim1=1, dim2=2), torch.ones(VOXELS, count, dtype=torch.float64))
    damped = scaled + damping[:, None, None] * torch.eye(count, dtype=torch.float64)
    right_hand_side = gradient * scale
    expected = torch.linalg.solve(damped, right_hand_side.T.unsqueeze(2)).squeeze(2).T
    torch.testing.assert_close(normal.solve(right_hand_side, scale, damping), expected)
    torch.testing.assert_close(normal.inverse(scale), torch.linalg.inv(scaled).permute(1, 2, 0))


def test_a_held_parameter_does_not_move_and_leaves_the_others_as_without_it(count):
    normal, gradient, matrix = equations(count)
    free = torch.ones_like(gradient, dtype=torch.bool)
    free[0] = False
    scale = parameter_scales(normal, free)
    damping = torch.zeros(VOXELS, dtype=torch.float64)
    step = normal.solve(gradient * scale, scale, damping) * scale
    assert (step[0] == 0).all()
    expected = torch.linalg.solve(matrix[:, 1:, 1:], gradient[1:].T.unsqueeze(2)).squeeze(2).T
    torch.testing.assert_close(step[1:], expected)


def test_voxels_can_be_selected_joined_and_exchanged(count):
    normal, gradient, _ = equations(count)
    other, _, _ = equations(count, seed=1)
    index = torch.tensor([4, 1])
    torch.testing.assert_close(normal.at(index).times(gradient[:, index]), normal.times(gradient)[:, index])
    both = normal.joined(other).times(torch.cat((gradient, gradient), 1))
    torch.testing.assert_close(both, torch.cat((normal.times(gradient), other.times(gradient)), 1))
    chosen = torch.arange(VOXELS) % 2 == 0
    expected = torch.where(chosen, other.times(gradient), normal.times(gradient))
    torch.testing.assert_close(normal.where(chosen, other).times(gradient), expected)


def test_a_singular_matrix_gives_no_nan(count):
    jacobian = torch.ones(count, MEASUREMENTS, VOXELS, dtype=torch.float64)
    normal, gradient = normal_equations(jacobian, torch.ones(MEASUREMENTS, VOXELS, dtype=torch.float64))
    scale = parameter_scales(normal, torch.ones_like(gradient, dtype=torch.bool))
    step = normal.solve(gradient * scale, scale, torch.zeros(VOXELS, dtype=torch.float64))
    assert not step.isnan().any()


@pytest.mark.parametrize("layout", [BatchedNormalMatrix, ElementwiseNormalMatrix])
def test_a_singular_matrix_has_no_finite_inverse_and_is_no_error(layout: type[NormalMatrix]) -> None:
    singular = torch.ones(2, 7, 7)
    singular[1] = torch.eye(7)
    inverse = layout(singular if layout is BatchedNormalMatrix else singular.permute(1, 2, 0)).inverse(torch.ones(7, 2))
    assert not (inverse[..., 0].diagonal().abs() < 1e6).all()
    torch.testing.assert_close(inverse[..., 1], torch.eye(7))
