"""Warping of the voxels on which a similarity depends, against warping all of them."""

from __future__ import annotations

import pytest
import torch

from JointRegSegLib.registration.deformation import warp
from JointRegSegLib.registration.local_correlation import near_structure, prepare
from JointRegSegLib.registration.optimization.partial_warp import PartialWarp

SHAPE = (12, 17, 14)


def head(seed: int = 0, channels: int = 2) -> torch.Tensor:
    """Noise in a block, with constant air around it."""
    image = torch.full((1, channels, *SHAPE), -3.0)
    image[..., 4:9, 5:11, 5:10] = torch.randn(channels, 5, 6, 5, generator=torch.Generator().manual_seed(seed))
    return image


def field() -> torch.Tensor:
    return 2 * torch.randn(1, 3, *SHAPE, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("threads", [1, 3])
def test_chosen_voxels_are_warped_as_all_are_and_the_others_stay(threads: int) -> None:
    image, displacement = head(), field()
    where = torch.zeros(1, 1, *SHAPE, dtype=torch.bool)
    where[..., 3:8, 2:15, 6:13] = True
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = PartialWarp(image, where)(displacement)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(found, torch.where(where, warp(image, displacement), image), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("window", "stride"), [(3, 1), (5, 2)])
@pytest.mark.parametrize("masked", [False, True])
def test_the_local_correlation_and_its_gradient_are_those_of_all_voxels(window: int, stride: int, masked: bool) -> None:
    fixed, moving = head(1), head(2)
    mask = None
    if masked:
        mask = torch.ones(1, 1, *SHAPE)
        mask[..., 6:8, 6:8, 6:8] = 0
    comparison = prepare(fixed.double(), mask, window, stride)
    where = near_structure(fixed, window, stride)
    assert 0 < where.float().mean() < 0.85  # a part, or the test would show nothing
    found = []
    for warped in (PartialWarp(moving.double(), where), PartialWarp(moving.double())):
        displacement = field().double().mul_(0.3).requires_grad_()
        similarity = comparison.similarity(warped(displacement))
        similarity.backward()
        assert displacement.grad is not None
        found.append((similarity.detach(), displacement.grad))
    # The noise of the moving image is taken from all of its voxels, warped or not.
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-3, atol=0)
    scale = float(found[1][1].abs().max())
    torch.testing.assert_close(found[0][1], found[1][1], rtol=0, atol=1e-3 * scale)


def test_no_voxel_of_a_box_that_differs_is_left_out() -> None:
    fixed = torch.zeros(1, 1, *SHAPE)
    fixed[..., 6, 8, 7] = 1
    expected = torch.zeros_like(fixed, dtype=torch.bool)
    expected[..., 4:9, 6:11, 5:10] = True  # two steps around: one to the centre of a box, one to its border
    assert torch.equal(near_structure(fixed, 3, 1), expected)


def test_the_gradient_is_that_of_finite_differences() -> None:
    where = near_structure(head(), 3, 1)
    warped = PartialWarp(head(channels=1).double(), where)
    displacement = field().double().mul_(0.3).requires_grad_()
    warped(displacement).sum().backward()
    assert displacement.grad is not None
    place = (0, 1, 6, 7, 7)
    step = torch.zeros_like(displacement)
    step[place] = 1e-6
    with torch.no_grad():
        difference = warped(displacement + step).sum() - warped(displacement - step).sum()
    assert float(displacement.grad[place]) == pytest.approx(float(difference) / 2e-6, rel=1e-4)
