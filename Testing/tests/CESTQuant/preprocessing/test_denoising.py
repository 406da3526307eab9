"""Denoising by MP-PCA and smoothing of spectra: what goes, what stays, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from CESTQuantLib.preprocessing.denoising import denoise, patch_edges

NOISE = 0.02


def images(noise: float = NOISE, shape: tuple[int, int, int] = (3, 20, 24)) -> tuple[Tensor, Tensor, Tensor]:
    """Images of two regions with Lorentzian dips and a gradient, without noise, with it, and the regions."""
    offsets = torch.linspace(-6, 6, 31, dtype=torch.float64)
    region = (torch.arange(shape[2]) >= 10).expand(shape)
    width = torch.where(region, 1.2, 2.0)
    shade = 1 + 0.3 * torch.linspace(0, 1, shape[1]).reshape(1, -1, 1)
    dip = 1 - 0.9 / (1 + (offsets.reshape(-1, 1, 1, 1) / width) ** 2)
    truth = dip * shade
    random = torch.randn(truth.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return truth, truth + noise * random, region


def test_the_noise_is_found_and_removed() -> None:
    truth, noisy, _ = images()
    result = denoise(noisy)
    assert float(result.noise_sd.median()) == pytest.approx(NOISE, rel=0.03)
    assert float((result.noise_sd / NOISE - 1).abs().max()) < 0.15
    assert float((result.images - truth).std()) < 0.4 * NOISE


def test_means_of_regions_stay_within_their_error() -> None:
    _, noisy, region = images()
    result = denoise(noisy)
    for mask in (region, ~region):
        change = (result.images - noisy)[:, mask].mean(1)
        error = NOISE / mask.sum().double().sqrt()
        assert float(change.abs().max()) < 2 * float(error)
        assert float(change.pow(2).mean().sqrt()) < float(error)


def test_images_without_noise_stay_as_they_are() -> None:
    truth, _, _ = images()
    torch.testing.assert_close(denoise(truth).images, truth, rtol=0, atol=1e-9)


def test_noise_that_varies_in_space_is_mapped() -> None:
    truth, _, region = images()
    level = torch.where(region, 0.04, 0.01)
    random = torch.randn(truth.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    noise = denoise(truth + level * random).noise_sd
    assert float(noise[..., 15:].median()) == pytest.approx(0.04, rel=0.05)
    assert float(noise[..., :5].median()) == pytest.approx(0.01, rel=0.05)


def test_one_slice_and_values_that_are_not_finite() -> None:
    _, noisy, _ = images(shape=(1, 20, 24))
    noisy[:, 0, 3, 4] = torch.nan
    result = denoise(noisy)
    assert patch_edges((1, 20, 24), 31) == (1, 7, 7)
    assert torch.equal(result.images.isnan(), noisy.isnan())
    assert float(result.noise_sd.median()) == pytest.approx(NOISE, rel=0.1)


def test_what_is_too_small_is_refused() -> None:
    _, noisy, _ = images()
    with pytest.raises(ValueError, match="at least 8 measurements, not 5"):
        denoise(noisy[:5])
    with pytest.raises(ValueError, match="at least as many voxels as measurements"):
        denoise(noisy[:, :1, :4, :4])
