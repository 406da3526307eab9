"""Normalised mutual information against its definition, its gradient, and masks."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from JointRegSegLib.registration.mutual_information import BINS, normalized_mutual_information, prepare

SHAPE = (5, 6, 7)


def cubic_b_spline(x: float) -> float:
    """The centred cubic B-spline, which is zero from 2 on."""
    x = abs(x)
    return (4 - 6 * x**2 + 3 * x**3) / 6 if x < 1 else max(2 - x, 0) ** 3 / 6


def entropy(values: list[float]) -> float:
    return -sum(v * math.log(v) for v in values if v > 0)


def by_definition(fixed: Tensor, moving: Tensor, weights: Tensor) -> float:
    """The histogram voxel by voxel: a box window for the fixed and a cubic B-spline for the moving image."""
    histogram = [[0.0] * BINS for _ in range(BINS)]
    used = [(f, m, w) for f, m, w in zip(fixed.tolist(), moving.tolist(), weights.tolist(), strict=True) if w > 0]
    lowest, highest = ([pick(pair[n] for pair in used) for n in (0, 1)] for pick in (min, max))
    for f, m, w in used:
        row = min(int((f - lowest[0]) / (highest[0] - lowest[0]) * BINS), BINS - 1)
        position = 1 + (m - lowest[1]) / (highest[1] - lowest[1]) * (BINS - 3)
        for column in range(BINS):
            histogram[row][column] += w * cubic_b_spline(position - column)
    total = sum(map(sum, histogram))
    joint = [[value / total for value in row] for row in histogram]
    marginals = entropy([sum(row) for row in joint]) + entropy([sum(column) for column in zip(*joint, strict=True)])
    return marginals / entropy([value for row in joint for value in row])


def images(channels: int = 1, seed: int = 0, batch: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    fixed = torch.randn((batch, channels, *SHAPE), generator=generator, dtype=torch.float64)
    noise = torch.randn((batch, channels, *SHAPE), generator=generator, dtype=torch.float64)
    return fixed, fixed.square() + 0.3 * noise


def some_mask() -> Tensor:
    return torch.rand((1, 1, *SHAPE), generator=torch.Generator().manual_seed(3), dtype=torch.float64).round()


def similarity(fixed: Tensor, moving: Tensor, mask: Tensor | None = None) -> float:
    return float(prepare(fixed, mask, 5, 1).similarity(moving))


@pytest.mark.parametrize("masked", [False, True])
def test_it_is_that_of_the_definition(masked: bool) -> None:
    fixed, moving = images()
    mask = some_mask() * torch.linspace(0.2, 1, SHAPE[2], dtype=torch.float64) if masked else None
    weights = torch.ones_like(fixed) if mask is None else mask
    expected = by_definition(fixed.flatten(), moving.flatten(), weights.flatten())
    assert similarity(fixed, moving, mask) == pytest.approx(expected, rel=1e-12)


def test_independent_images_have_one() -> None:
    """Every intensity of the one image meets every intensity of the other equally often."""
    levels = torch.arange(12, dtype=torch.float64)
    fixed, moving = levels.repeat_interleave(12), levels.repeat(12)
    assert float(normalized_mutual_information(fixed, moving)) == pytest.approx(1, abs=1e-9)


def test_two_images_of_two_values_have_a_closed_form() -> None:
    """The B-spline spreads a value at a bin's centre over that bin (2/3) and its neighbours (1/6 each)."""
    fixed = torch.tensor([0.0, 1.0], dtype=torch.float64).repeat(50)
    spread = entropy([1 / 6, 4 / 6, 1 / 6])
    expected = (math.log(2) + math.log(2) + spread) / (math.log(2) + spread)
    assert float(normalized_mutual_information(fixed, 7 - 3 * fixed)) == pytest.approx(expected, rel=1e-12)


def test_any_one_to_one_change_of_contrast_is_as_good_as_none() -> None:
    fixed, _ = images()
    assert similarity(fixed, -2 * fixed + 5) == pytest.approx(similarity(fixed, fixed), rel=0.01)
    assert similarity(fixed, fixed.abs()) > 1.2 * similarity(fixed, images(seed=1)[0])


@pytest.mark.parametrize("masked", [False, True])
def test_the_gradient_is_the_derivative(masked: bool) -> None:
    fixed, moving = images()
    mask = some_mask() if masked else None
    ends = torch.zeros_like(moving, dtype=torch.bool)  # the ends of the range count as constants
    used = moving if mask is None else torch.where(mask > 0, moving, moving.mean())
    ends.view(-1)[[int(used.argmin()), int(used.argmax())]] = True

    def of(values: Tensor) -> Tensor:
        return prepare(fixed, mask, 5, 1).similarity(torch.where(ends, moving, values))

    assert torch.autograd.gradcheck(of, moving.clone().requires_grad_(), eps=1e-6, atol=1e-7)


def test_masked_voxels_take_no_part() -> None:
    fixed, moving = images()
    mask = some_mask()
    outside = mask == 0
    expected = similarity(fixed, moving, mask)
    assert similarity(fixed.where(~outside, 100 * fixed), moving.where(~outside, moving - 50), mask) == expected
    variable = moving.clone().requires_grad_()
    prepare(fixed, mask, 5, 1).similarity(variable).backward()
    assert variable.grad is not None
    assert variable.grad[outside].abs().max() == 0
    assert variable.grad[~outside].abs().max() > 0


def test_it_is_the_mean_over_the_channels_that_both_images_have_and_over_the_batch() -> None:
    fixed, moving = images(3, batch=2)
    fixed[:, 1] = -3.0
    moving[:, 2] = -3.0
    moving[1, 0] = -3.0
    assert similarity(fixed, moving) == pytest.approx(similarity(fixed[:1, :1], moving[:1, :1]), rel=1e-12)
    fixed, moving = images(2, batch=2)
    parts = [(slice(i, i + 1), slice(c, c + 1)) for i, c in itertools.product((0, 1), (0, 1))]
    each = [similarity(fixed[part], moving[part]) for part in parts]
    assert similarity(fixed, moving) == pytest.approx(sum(each) / 4, rel=1e-12)


@pytest.mark.parametrize("empty", ["channels", "mask"])
def test_nothing_to_compare_is_zero_without_a_gradient(empty: str) -> None:
    fixed, moving = images()
    moving.requires_grad_()
    mask = torch.zeros_like(fixed) if empty == "mask" else None
    value = prepare(torch.zeros_like(fixed) if empty == "channels" else fixed, mask, 5, 1).similarity(moving)
    value.backward()
    assert value == 0
    assert moving.grad is not None
    assert moving.grad.abs().max() == 0


def test_a_large_background_loses_no_counts_in_single_precision() -> None:
    generator = torch.Generator().manual_seed(0)
    fixed = torch.randn(1_000_000, generator=generator)
    moving = fixed.square()
    fixed[:900_000], moving[:900_000] = -3.0, -3.0
    exact = float(normalized_mutual_information(fixed.double(), moving.double()))
    assert float(normalized_mutual_information(fixed, moving)) == pytest.approx(exact, rel=1e-5)
