"""Gaussian smoothing: the three border rules, against convolutions and weighted means written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from NeuroCESTLib.core.smoothing import along_axes, gaussian_matrix, gaussian_smooth


def volumes(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def weights(distance: float, sigma: float) -> float:
    return math.exp(-0.5 * (distance / sigma) ** 2)


@pytest.mark.parametrize("sigma", [0.7, 1.5, 5.0])
def test_renormalized_weights_are_the_weighted_mean_of_the_voxels_that_exist(sigma: float) -> None:
    values = volumes(9)
    smoothed = gaussian_matrix(9, sigma, "renormalize", dtype=torch.float64) @ values
    for i in range(9):
        row = [weights(i - j, sigma) for j in range(9)]
        assert float(smoothed[i]) == pytest.approx(np.average(values.numpy(), weights=row), abs=1e-13)


@pytest.mark.parametrize("sigma", [0.3, 0.8, 2.5, 6.0])
def test_replicated_borders_are_a_convolution_of_the_padded_axis(sigma: float) -> None:
    values, half = volumes(2, 1, 11), max(1, round(3 * sigma))
    kernel = torch.tensor([weights(d, sigma) for d in range(-half, half + 1)], dtype=torch.float64)
    padded = F.pad(values, (half, half), mode="replicate")
    expected = F.conv1d(padded, (kernel / kernel.sum())[None, None])
    smoothed = values @ gaussian_matrix(11, sigma, "replicate", truncate=3, dtype=torch.float64).t()
    torch.testing.assert_close(smoothed, expected, atol=1e-13, rtol=0)


@pytest.mark.parametrize("sigma", [0.3, 0.8, 2.5, 6.0])
def test_zeros_beyond_the_borders_are_a_convolution_of_the_padded_axis(sigma: float) -> None:
    values, half = volumes(2, 1, 11), math.ceil(6 * sigma)
    kernel = torch.tensor([weights(d, sigma) for d in range(-half, half + 1)], dtype=torch.float64)
    expected = F.conv1d(values, (kernel / kernel.sum())[None, None], padding=half)
    smoothed = values @ gaussian_matrix(11, sigma, "zero", dtype=torch.float64).t()
    torch.testing.assert_close(smoothed, expected, atol=1e-8, rtol=0)  # weights beyond 6 sigma are 2e-9 together


def test_constants_are_kept_unless_zeros_lie_beyond_the_border() -> None:
    constant = torch.full((2, 6, 7, 8), 3.0, dtype=torch.float64)
    for border in ("renormalize", "replicate"):
        torch.testing.assert_close(gaussian_smooth(constant, 1.3, border), constant)
    faded = gaussian_smooth(constant, 1.3, "zero")
    assert float(faded[0, 0, 0, 0]) < 1.0
    assert float(faded[0, 3, 3, 4]) > float(faded[0, 0, 3, 4])


def test_the_variance_added_to_a_point_is_the_square_of_the_standard_deviation() -> None:
    point = torch.zeros(41, dtype=torch.float64)
    point[20] = 1
    spread = gaussian_matrix(41, 2.5, "zero", dtype=torch.float64) @ point
    position = torch.arange(41, dtype=torch.float64) - 20
    assert float(spread.sum()) == pytest.approx(1)
    assert float((spread * position**2).sum()) == pytest.approx(2.5**2, rel=1e-6)


def test_each_axis_may_have_its_own_width_and_zero_leaves_it_as_it_is() -> None:
    images = volumes(2, 3, 5, 6, 7)
    along_height = gaussian_smooth(images, (0, 1.2, 0), "replicate")
    matrix = gaussian_matrix(6, 1.2, "replicate", dtype=torch.float64)
    torch.testing.assert_close(along_height, torch.einsum("hk,bcdkw->bcdhw", matrix, images))
    torch.testing.assert_close(gaussian_smooth(images, 0, "zero"), images, atol=0, rtol=0)


@pytest.mark.parametrize("leading", [(), (2,), (2, 3)])
def test_matrices_are_applied_along_the_last_three_axes(leading: tuple[int, ...]) -> None:
    images = volumes(*leading, 4, 5, 6)
    matrices = [volumes(n, size, seed=size) for n, size in ((3, 4), (7, 5), (2, 6))]
    expected = torch.einsum("ad,bh,cw,...dhw->...abc", *matrices, images)
    torch.testing.assert_close(along_axes(images, matrices), expected)


def test_gradients_reach_the_image_even_where_inference_built_the_matrix_first() -> None:
    with torch.inference_mode():
        gaussian_smooth(torch.ones(5, 5, 5), 0.91, "renormalize")
    image = torch.ones(5, 5, 5, requires_grad=True)
    gaussian_smooth(image, 0.91, "renormalize").sum().backward()
    assert image.grad is not None
    assert torch.isfinite(image.grad).all()


def test_single_precision_stays_single() -> None:
    smoothed = gaussian_smooth(volumes(4, 4, 4, dtype=torch.float32), 1.0, "replicate", truncate=3)
    assert smoothed.dtype == torch.float32


def test_unknown_border_rules_and_negative_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="border rule 'mirror' is unknown; use one of renormalize, replicate, zero"):
        gaussian_matrix(5, 1.0, "mirror")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="is -1"):
        gaussian_matrix(5, -1.0, "zero")
