"""MIND-SSC against its definition, its gradient, invariance to contrast, and masks."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from JointRegSegLib.registration.mind import DISTANCE, PATCH, Patches, SelfSimilarity, prepare

SHAPE = (7, 6, 8)
NEIGHBORS = [tuple(sign * DISTANCE * (k == axis) for k in range(3)) for axis in range(3) for sign in (-1, 1)]
PAIRS = [(a, b) for a, b in itertools.combinations(NEIGHBORS, 2) if any(x + y != 0 for x, y in zip(a, b, strict=True))]


class Voxels:
    """The values of an image (D, H, W) by their indices; beyond the border those of the nearest voxel."""

    def __init__(self, image: Tensor) -> None:
        self.shape, self.values = image.shape, image.flatten().tolist()

    def at(self, *offsets: tuple[int, ...]) -> float:
        """The value at the sum of the offsets."""
        index = 0
        for size, *steps in zip(self.shape, *offsets, strict=True):
            index = index * size + min(max(sum(steps), 0), size - 1)
        return self.values[index]


def centers(size: int, stride: int) -> range:
    return range(min(stride // 2, (size - 1) // 2), size, stride)


def distances_by_definition(image: Tensor, mask: Tensor | None, stride: int) -> list[list[float | None]]:
    """For every voxel the mean squared differences of the patches of the twelve pairs; None for masked ones."""
    values, weights = Voxels(image), Voxels(torch.ones_like(image) if mask is None else mask)
    half = range(-(PATCH // 2), PATCH // 2 + 1)
    patch = list(itertools.product(half, half, half))
    found = []
    for point in itertools.product(*(centers(n, stride) for n in image.shape)):
        row: list[float | None] = []
        for first, second in PAIRS:
            total = weight = 0.0
            for p in patch:
                w = weights.at(point, first, p) * weights.at(point, second, p)
                total += w * (values.at(point, first, p) - values.at(point, second, p)) ** 2
                weight += w
            row.append(total / weight if weight / len(patch) > 1e-3 else None)
        found.append(row)
    return found


def descriptors_by_definition(image: Tensor, mask: Tensor | None, stride: int) -> list[list[float]]:
    """For every voxel the sorted entries of the descriptor."""
    rows = [[d for d in row if d is not None] for row in distances_by_definition(image, mask, stride)]
    noise = [sum(row) / len(row) if row else None for row in rows]
    known = [n for n in noise if n is not None]
    mean = sum(known) / len(known)
    found = []
    for row, own in zip(rows, noise, strict=True):
        limited = min(max(own or 0.0, 1e-3 * mean), 1e3 * mean)
        found.append(sorted(math.exp((min(row) - d) / limited) for d in row) if row else [])
    return found


def images(channels: int = 1, seed: int = 0, batch: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    fixed, moving = torch.randn((2, batch, channels, *SHAPE), generator=generator, dtype=torch.float64)
    return fixed, fixed + moving


def some_mask() -> Tensor:
    mask = torch.rand((1, 1, *SHAPE), generator=torch.Generator().manual_seed(3), dtype=torch.float64) > 0.3
    mask[..., :3] = False  # whole patches without a voxel
    return mask.double()


def similarity(fixed: Tensor, moving: Tensor, mask: Tensor | None = None, stride: int = 1) -> float:
    return float(prepare(fixed, mask, 5, stride).similarity(moving))


def entries(prepared: SelfSimilarity) -> list[list[float]]:
    """For every voxel the sorted entries of the fixed image's descriptor that can be used."""
    valid = prepared.patches.valid.expand_as(prepared.descriptors)[0, 0].flatten(1).t()
    values = prepared.descriptors[0, 0].flatten(1).t()
    return [sorted(value[used].tolist()) for value, used in zip(values, valid, strict=True)]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_descriptors_are_those_of_the_definition(stride: int, masked: bool) -> None:
    fixed, _ = images()
    mask = some_mask() if masked else None
    expected = descriptors_by_definition(fixed[0, 0], None if mask is None else mask[0, 0], stride)
    found = entries(prepare(fixed, mask, 5, stride))
    assert [len(row) for row in found] == [len(row) for row in expected]
    for row, wanted in zip(found, expected, strict=True):
        assert row == pytest.approx(wanted, rel=1e-9)


def test_the_similarity_is_minus_the_mean_squared_difference_over_the_unmasked_voxels() -> None:
    fixed, moving = images()
    mask = some_mask()
    one, other = prepare(fixed, mask, 5, 1), prepare(moving, mask, 5, 1)
    used = one.patches.valid & (mask.unsqueeze(2) > 0)
    expected = -(one.descriptors - other.descriptors)[used].square().mean()
    assert float(one.similarity(moving)) == pytest.approx(float(expected), rel=1e-9)
    assert similarity(fixed, fixed, mask) == 0


def test_scale_offset_and_inversion_of_contrast_do_not_matter() -> None:
    fixed, moving = images()
    expected = similarity(fixed, moving)
    assert expected < -0.01
    assert similarity(fixed, -3 * moving + 7) == pytest.approx(expected, rel=1e-9)
    assert similarity(100 * fixed + 1, moving) == pytest.approx(expected, rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("masked", "stride"), [(False, 1), (True, 1), (True, 2)])
def test_the_gradient_is_the_derivative(masked: bool, stride: int) -> None:
    fixed, moving = (image[..., :5, :4, :5] for image in images())
    mask = some_mask()[..., :5, :4, 1:6] if masked else None
    prepared = prepare(fixed, mask, 3, stride)
    assert torch.autograd.gradcheck(prepared.similarity, moving.clone().requires_grad_(), eps=1e-6, atol=1e-7)


def test_masked_voxels_take_no_part() -> None:
    fixed, moving = images()
    mask = some_mask()
    outside = mask == 0
    expected = similarity(fixed, moving, mask)
    changed = similarity(fixed.where(~outside, 100 * fixed), moving.where(~outside, moving - 50), mask)
    assert changed == pytest.approx(expected, rel=1e-12)
    variable = moving.clone().requires_grad_()
    prepare(fixed, mask, 5, 1).similarity(variable).backward()
    assert variable.grad is not None
    assert variable.grad[outside].abs().max() == 0
    assert variable.grad[~outside].abs().max() > 0


def test_absent_modalities_do_not_count() -> None:
    fixed, moving = images(3)
    present = similarity(fixed[:, :1], moving[:, :1])
    fixed[:, 1] = -3.0
    moving[:, 2] = -3.0
    assert similarity(fixed, moving) == pytest.approx(present, rel=1e-12)
    variable = moving.clone().requires_grad_()
    nothing = prepare(torch.full_like(fixed, -3.0), None, 5, 1).similarity(variable)
    nothing.backward()
    assert nothing == 0
    assert variable.grad is not None
    assert torch.equal(variable.grad, torch.zeros_like(variable))


def test_each_pair_of_a_batch_counts_alike() -> None:
    (a, b), (c, d) = images(seed=1), images(seed=2)
    together = similarity(torch.cat([a, c]), torch.cat([b, d]))
    assert together == pytest.approx((similarity(a, b) + similarity(c, d)) / 2, rel=1e-12)


def test_flat_regions_have_finite_gradients() -> None:
    fixed, moving = images()
    moving[..., 4:] = -3.0
    variable = moving.clone().requires_grad_()
    prepare(fixed, None, 5, 1).similarity(variable).backward()
    assert variable.grad is not None
    assert bool(torch.isfinite(variable.grad).all())


def test_patches_without_a_mask_are_all_valid() -> None:
    assert bool(Patches.of(images()[0], None, 1).valid.all())
