"""Flows and warped images of the refinement: exact values, and gradients that point where the exact ones do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from registration_cases import pair
from torch import Tensor

from JointRegSegLib.registration.deformation import integrate_velocity, jacobian_determinant, warp
from JointRegSegLib.registration.local_correlation import lncc
from JointRegSegLib.registration.optimization.demons_gradients import flow, warped
from JointRegSegLib.registration.separable import smooth


def velocity(seed: int = 1) -> Tensor:
    """A smooth velocity of a few voxels, on the grid of the pair."""
    noise = torch.randn((1, 3, *pair()[0].shape[2:]), generator=torch.Generator().manual_seed(seed))
    rough = smooth(noise, 4.0)
    return 2 * rough / rough.abs().amax()


def gradient(of: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    at = at.clone().requires_grad_()
    of(at).backward()
    assert at.grad is not None
    return at.grad


def cosine(one: Tensor, other: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0))


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_flow_is_that_of_the_exact_integration(steps: int) -> None:
    assert torch.equal(flow(velocity(), steps), integrate_velocity(velocity(), steps))


def test_a_warped_image_is_that_of_the_exact_interpolation() -> None:
    _, moving, true = pair()
    assert torch.equal(warped(moving, true), warp(moving, true))


def test_the_gradient_of_the_flow_points_where_the_exact_one_does() -> None:
    wanted = velocity(2)
    exact = gradient(lambda v: (integrate_velocity(v, 5) * wanted).sum(), velocity())
    assert float(jacobian_determinant(integrate_velocity(velocity(), 5)).min()) < 0.8  # no trifling deformation
    assert cosine(exact, gradient(lambda v: (flow(v, 5) * wanted).sum(), velocity())) > 0.98


def test_the_gradient_of_a_comparison_points_where_the_exact_one_does_up_to_the_borders() -> None:
    fixed, moving, true = pair()
    begin = 0.5 * true
    exact, found = (
        smooth(gradient(lambda u, w=warping: lncc(fixed, w(moving, u), 5), begin), 2.0) for warping in (warp, warped)
    )
    assert cosine(exact, found) > 0.9
    assert cosine(exact[..., :3], found[..., :3]) > 0.8


def test_an_axis_of_one_voxel_has_no_gradient() -> None:
    image = torch.rand((1, 2, 1, 8, 9), generator=torch.Generator().manual_seed(3))
    found = gradient(lambda u: warped(image, u).square().sum(), torch.zeros((1, 3, 1, 8, 9)))
    assert not bool(found[:, 0].any())
    assert bool(found[:, 1:].any())
