"""Smoothing splines against SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.interpolate import make_smoothing_spline

from CESTQuantLib.fitting.smoothing_splines import fit_smoothing_spline

KNOTS = torch.tensor([-6, -5, -4.2, -3.5, -2.6, -2, -1.1, -0.5, 0, 0.4, 1, 2, 3, 3.5, 4, 5.5], dtype=torch.float64)
BETWEEN = torch.linspace(-6, 5.5, 40, dtype=torch.float64)


def noisy(voxels: int = 3) -> torch.Tensor:
    clean = 1 - 0.8 / (1 + (KNOTS / 1.5).square())
    return clean + 0.02 * torch.randn(voxels, len(KNOTS), generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("strength", [1e-4, 0.1, 30.0])
def test_splines_of_a_given_strength_are_those_of_scipy(strength: float) -> None:
    z = noisy()
    found = fit_smoothing_spline(z, KNOTS, strength).at(BETWEEN)
    expected = [make_smoothing_spline(KNOTS.numpy(), row.numpy(), lam=strength)(BETWEEN.numpy()) for row in z]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)


def test_the_strength_has_the_lowest_cross_validation_score() -> None:
    knots = torch.linspace(-6, 6, 61, dtype=torch.float64)
    noise = torch.randn(1, len(knots), generator=torch.Generator().manual_seed(1)).double()
    z = 1 - 0.8 / (1 + (knots / 1.5).square()) + 0.02 * noise
    scores = []
    for strength in torch.logspace(-6, 1, 60).tolist():
        hat = fit_smoothing_spline(torch.eye(len(knots), dtype=torch.float64), knots, strength).values.T
        residual = z[0] - hat @ z[0]
        scores.append((float(residual.square().sum() / (len(knots) - hat.trace()) ** 2), strength))
    assert 1e-6 < min(scores)[1] < 10
    assert float(fit_smoothing_spline(z, knots).strength) == pytest.approx(min(scores)[1], rel=0.4)


def test_order_and_repeats_of_offsets_do_not_matter() -> None:
    z = noisy()
    order = torch.randperm(len(KNOTS), generator=torch.Generator().manual_seed(2))
    twice = torch.cat((order, order[:3]))
    expected = fit_smoothing_spline(z, KNOTS).at(BETWEEN)
    torch.testing.assert_close(fit_smoothing_spline(z[:, twice], KNOTS[twice]).at(BETWEEN), expected)


def test_offsets_of_each_voxel_and_nan_outside_the_knots() -> None:
    spline = fit_smoothing_spline(noisy(2), KNOTS)
    at = torch.tensor([[-7.0, 1.0], [0.3, 6.0]])
    assert spline.at(at).isnan().tolist() == [[True, False], [False, True]]
    assert float(spline.at(at)[1, 0]) == pytest.approx(float(spline.at(torch.tensor([0.3]))[1, 0]), abs=1e-6)


def test_too_few_offsets_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 5 different offsets, not 4"):
        fit_smoothing_spline(noisy()[:, :4], KNOTS[:4])
