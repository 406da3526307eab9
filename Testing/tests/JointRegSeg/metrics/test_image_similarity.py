"""Peak signal-to-noise ratio and structural similarity of images."""

from __future__ import annotations

import pytest
import torch

from JointRegSegLib.metrics.image_similarity import psnr, ssim

TRUTH = torch.rand(12, 12, 12, generator=torch.Generator().manual_seed(1))
MASK = torch.zeros(12, 12, 12, dtype=torch.bool)
MASK[3:9, 3:9, 3:9] = True


def test_psnr_is_that_of_an_error_of_a_tenth_of_the_range() -> None:
    truth = TRUTH.clone()
    truth[3, 3, 3], truth[4, 4, 4] = 0.0, 1.0
    assert psnr(truth + 0.1, truth, MASK) == pytest.approx(20, abs=1e-4)
    assert psnr(truth + 0.1 * ~MASK, truth, MASK) > 150


def test_ssim_agrees_with_its_formula_on_one_window() -> None:
    image = 0.5 * TRUTH + 0.2
    center = torch.zeros_like(MASK)
    center[6, 6, 6] = True
    window = (slice(3, 10),) * 3
    a, b = image[window].double(), TRUTH[window].double()
    first, second = (0.01 * 1e-6) ** 2, (0.03 * 1e-6) ** 2  # one voxel has no range
    covariance = ((a - a.mean()) * (b - b.mean())).mean()
    expected = (2 * a.mean() * b.mean() + first) / (a.mean() ** 2 + b.mean() ** 2 + first)
    expected = expected * (2 * covariance + second) / (a.var(correction=0) + b.var(correction=0) + second)
    assert float(ssim(image, TRUTH, center)) == pytest.approx(float(expected), rel=1e-4)
    assert float(ssim(TRUTH, TRUTH, MASK)) == pytest.approx(1, abs=1e-6)
