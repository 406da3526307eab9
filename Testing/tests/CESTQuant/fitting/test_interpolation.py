"""Interpolation of spectra by shape-preserving cubics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.interpolate import PchipInterpolator

from CESTQuantLib.fitting.interpolation import (
    distinct_counts,
    distinct_offsets,
    interpolate_curves,
    interpolate_parabolas,
    interpolate_spectra,
    water_gap,
)

OFFSETS = torch.linspace(-6, 6, 25, dtype=torch.float64)
WATER_LINE = (1 - 0.9 / (1 + (OFFSETS / 0.8) ** 2)).unsqueeze(0)


def test_interpolation_is_scipys_pchip():
    generator = torch.Generator().manual_seed(0)
    knots = torch.sort(12 * torch.rand(12, generator=generator, dtype=torch.float64))[0]
    z = torch.rand(30, 12, generator=generator, dtype=torch.float64)
    z[:, 5] = z[:, 4]
    inside = knots[0] + (knots[-1] - knots[0]) * torch.rand(30, 40, generator=generator, dtype=torch.float64)
    ours = interpolate_spectra(z, knots, inside)
    theirs = [PchipInterpolator(knots, z[row])(inside[row]) for row in range(30)]
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_the_order_of_the_offsets_does_not_matter():
    at = torch.tensor([-3.3, 0.1, 2.2])
    shuffle = torch.randperm(25, generator=torch.Generator().manual_seed(0))
    shuffled = interpolate_spectra(WATER_LINE[:, shuffle], OFFSETS[shuffle], at)
    torch.testing.assert_close(shuffled, interpolate_spectra(WATER_LINE, OFFSETS, at))


def test_offsets_that_a_voxel_uses_several_times_count_once():
    offsets = torch.tensor([3.5, 0.0, 3.501, -3.5, 0.0])
    used = torch.tensor([[True] * 5, [True, False, True, False, False], [False] * 5])
    assert distinct_counts(offsets, used).tolist() == [3, 1, 0]
    shifted = offsets - torch.tensor([[0.2], [0.0], [torch.nan]])
    assert distinct_counts(shifted, used).tolist() == [3, 1, 0]


def test_repeated_offsets_are_averaged():
    at = torch.tensor([-3.3, 0.1, 2.2])
    twice = interpolate_spectra(torch.cat((WATER_LINE + 0.1, WATER_LINE - 0.1), 1), torch.cat((OFFSETS, OFFSETS)), at)
    torch.testing.assert_close(twice, interpolate_spectra(WATER_LINE, OFFSETS, at))


@pytest.mark.parametrize("rounding_ppm", [1e-12, 1e-4, 1e-3])
def test_offsets_that_differ_by_their_rounding_are_repeats(rounding_ppm):
    at = torch.tensor([-6.0, -3.3, 0.1, 2.2, 6.0])
    twice = torch.cat((WATER_LINE + 0.1, WATER_LINE - 0.1), 1)
    offsets = torch.cat((OFFSETS, OFFSETS + rounding_ppm))
    assert len(distinct_offsets(offsets)) == 25
    found = interpolate_spectra(twice, offsets, at)
    torch.testing.assert_close(found, interpolate_spectra(WATER_LINE, OFFSETS, at), atol=1e-3, rtol=0)


def test_a_parabola_does_not_amplify_the_noise_of_offsets_that_lie_close_together():
    offsets = torch.tensor([3.0, 3.01, 3.5, 3.51, 4.0, 4.01], dtype=torch.float64)
    noise = torch.randn(2000, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    at = torch.tensor([3.0, 3.25, 3.6, 4.01], dtype=torch.float64)
    assert (interpolate_parabolas(noise, offsets, at).std(0) < 1).all()
    curve = (offsets - 3.2).square().expand(1, -1)
    torch.testing.assert_close(interpolate_parabolas(curve, offsets, at)[0], (at - 3.2).square(), atol=1e-4, rtol=0)


def test_nothing_is_extrapolated():
    values = interpolate_spectra(WATER_LINE, OFFSETS, torch.tensor([-6.1, -6.0, 6.0, 6.1]))[0]
    assert values.isnan().tolist() == [True, False, False, True]


def test_nothing_is_interpolated_across_a_water_line_that_was_not_acquired():
    acquired = OFFSETS.abs() >= 2
    z, offsets = WATER_LINE[:, acquired], OFFSETS[acquired]
    assert water_gap(offsets) == (-2.0, 2.0)
    at = torch.tensor([-2.2, -2.0, -1.9, 0.0, 1.9, 2.0, 2.2], dtype=torch.float64)
    values = interpolate_spectra(z, offsets, at)[0]
    assert values.isnan().tolist() == [False, False, True, True, True, False, False]
    for side, own in ((offsets < 0, at <= -2), (offsets > 0, at >= 2)):
        alone = PchipInterpolator(offsets[side], z[0, side])(at[own])
        np.testing.assert_allclose(values[own], alone, atol=1e-12)
    assert water_gap(OFFSETS) is None
    assert water_gap(offsets[offsets > 0]) is None


def test_a_pair_of_offsets_is_known_at_both_up_to_their_rounding():
    pair = torch.tensor([-3.5004, 3.5004], dtype=torch.float64)
    z = torch.tensor([[0.6, 0.5]], dtype=torch.float64)
    values = interpolate_spectra(z, pair, torch.tensor([-3.5, 3.4, 3.5], dtype=torch.float64))[0]
    assert values.isnan().tolist() == [False, True, False]
    np.testing.assert_allclose(values[[0, 2]], z[0], atol=1e-6)


def test_other_curves_may_change_their_sign_between_two_knots():
    knots = torch.tensor([-1.0, 1.0, 2.0], dtype=torch.float64)
    values = interpolate_curves(torch.tensor([[5.5, 6.5, 7.0]], dtype=torch.float64), knots, torch.tensor([-1.1, 0.0]))
    assert values.isnan().tolist() == [[True, False]]
    assert 5.5 < float(values[0, 1]) < 6.5


def test_a_single_offset_is_refused():
    with pytest.raises(ValueError, match="at least two different offsets"):
        interpolate_spectra(torch.ones(2, 3), torch.ones(3), torch.zeros(1))


def test_derivatives_are_finite_where_neighbouring_signals_are_equal():
    z = WATER_LINE.clone()
    z[0, 5] = z[0, 4]
    z.requires_grad_()
    interpolate_spectra(z, OFFSETS, torch.tensor([3.3])).sum().backward()
    assert bool(torch.isfinite(z.grad).all())
    assert float(z.grad.abs().max()) > 0
