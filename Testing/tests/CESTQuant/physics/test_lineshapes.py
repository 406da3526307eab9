"""The super-Lorentzian lineshape against adaptive quadrature, and its bridge over the singular centre."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from expm_reference import exact_super_lorentzian
from scipy.integrate import quad

from CESTQuantLib.physics.lineshapes import saturation_rate, super_lorentzian
from CESTQuantLib.physics.units import rad_per_s_per_ppm

PPM_3T = rad_per_s_per_ppm(3.0)
BRIDGE = 0.05 * PPM_3T


def ours(offset_rad_per_s, T2_s: float, bridge: float = BRIDGE) -> torch.Tensor:
    offset = torch.as_tensor(offset_rad_per_s, dtype=torch.float64)
    return super_lorentzian(offset, torch.tensor(T2_s, dtype=torch.float64), bridge)


@pytest.mark.parametrize("T2_us", [5, 9, 12, 20])
@pytest.mark.parametrize("field_T", [3.0, 11.7])
def test_quadrature_is_exact_from_the_bridge_to_200_ppm(T2_us, field_T):
    ppm = rad_per_s_per_ppm(field_T)
    offsets = np.array([0.06, 0.1, 0.3, 0.7, 1.0, 2.0, 3.5, 8.0, 20.0, 60.0, 200.0]) * ppm
    mine = ours(offsets, T2_us * 1e-6, 0.05 * ppm).numpy()
    exact = np.array([exact_super_lorentzian(offset, T2_us * 1e-6) for offset in offsets])
    np.testing.assert_allclose(mine, exact, rtol=1e-9, atol=1e-9 * exact.max())


def test_the_lineshape_is_normalised():
    # g integrates to 1 over all frequencies in rad/s / 2 pi, so pi g integrates to pi over 2 pi of it
    T2 = 1e-5
    far = 30 / T2

    def integrand(log_offset: float) -> float:
        return float(ours(math.exp(log_offset), T2, 1e-3)) * math.exp(log_offset)

    area = 2 * quad(integrand, math.log(1e-3), math.log(far), epsrel=1e-8, limit=200)[0]
    assert area == pytest.approx(math.pi, rel=1e-5)


def test_lineshape_is_even():
    offsets = torch.linspace(-3, 3, 61, dtype=torch.float64) * PPM_3T
    torch.testing.assert_close(ours(offsets, 1e-5), ours(-offsets, 1e-5), rtol=1e-14, atol=0)


@pytest.mark.parametrize("bridge_ppm", [0.05, 1.0])
def test_bridge_meets_the_lineshape_with_equal_value_and_slope(bridge_ppm):
    edge = bridge_ppm * PPM_3T
    h = 1e-4 * edge
    inside, at, outside = ours([edge - h, edge, edge + h], 1e-5, edge)
    exact_below, exact_at, exact_above = (exact_super_lorentzian(edge + d, 1e-5) for d in (-h, 0.0, h))
    assert float(at) == pytest.approx(exact_at, rel=1e-9)
    exact_slope = (exact_above - exact_below) / (2 * h)
    assert float(at - inside) / h == pytest.approx(exact_slope, rel=1e-3)
    assert float(outside - at) / h == pytest.approx(exact_slope, rel=1e-3)


def test_bridge_is_finite_smooth_and_highest_at_the_centre():
    offsets = torch.linspace(-0.05, 0.05, 101, dtype=torch.float64) * PPM_3T
    value = ours(offsets, 1e-5)
    assert bool(torch.isfinite(value).all())
    assert int(value.argmax()) == 50
    assert bool((value.diff()[:50] > 0).all())
    assert float(value.diff().diff().abs().max()) < 1e-3 * float(value.max())


def test_saturation_rate_is_proportional_to_power():
    args = torch.tensor([2.0, 5.0], dtype=torch.float64) * PPM_3T, torch.tensor(1e-5, dtype=torch.float64)
    w1 = torch.tensor(500.0, dtype=torch.float64)
    for lineshape in ("lorentzian", "superlorentzian"):
        one, two = (saturation_rate(lineshape, w, *args, BRIDGE) for w in (w1, 2 * w1))
        torch.testing.assert_close(two, 4 * one)
