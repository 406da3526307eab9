"""Interpolation of spectra and the contrasts computed from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.interpolate import PchipInterpolator

from CESTQuantLib.fitting.interpolation import interpolate_spectra
from CESTQuantLib.tissue.contrasts import apt_weighted, arex, mtr_asym, mtr_ld, mtr_rex

OFFSETS = torch.linspace(-6, 6, 25, dtype=torch.float64)


def spectrum(offsets, shift=0.0, amide=0.05):
    """Water at `shift` and an amide line 3.5 ppm above it."""
    distance = offsets - shift
    return 1 - 0.9 / (1 + (distance / 0.8) ** 2) - amide / (1 + ((distance - 3.5) / 0.5) ** 2)


def test_interpolation_is_scipys_pchip():
    generator = torch.Generator().manual_seed(0)
    knots = torch.sort(torch.rand(12, generator=generator, dtype=torch.float64))[0]
    z = torch.rand(30, 12, generator=generator, dtype=torch.float64)
    z[:, 5] = z[:, 4]
    inside = knots[0] + (knots[-1] - knots[0]) * torch.rand(30, 40, generator=generator, dtype=torch.float64)
    ours = interpolate_spectra(z, knots, inside)
    theirs = [PchipInterpolator(knots, z[row])(inside[row]) for row in range(30)]
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_order_of_offsets_does_not_matter_and_repeated_offsets_are_averaged():
    z = spectrum(OFFSETS).unsqueeze(0)
    at = torch.tensor([-3.3, 0.1, 2.2])
    straight = interpolate_spectra(z, OFFSETS, at)
    shuffle = torch.randperm(25, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(interpolate_spectra(z[:, shuffle], OFFSETS[shuffle], at), straight)
    twice = torch.cat((z + 0.1, z - 0.1), 1)
    torch.testing.assert_close(interpolate_spectra(twice, torch.cat((OFFSETS, OFFSETS)), at), straight)


def test_nothing_is_extrapolated():
    z = spectrum(OFFSETS).unsqueeze(0)
    values = interpolate_spectra(z, OFFSETS, torch.tensor([-6.1, -6.0, 6.0, 6.1]))[0]
    assert values.isnan().tolist() == [True, False, False, True]


def test_asymmetry_is_positive_for_a_downfield_line_and_zero_without():
    at = torch.tensor([2.0, 3.5])
    z = torch.stack((spectrum(OFFSETS), spectrum(OFFSETS, amide=0.0)))
    asymmetry = mtr_asym(z, OFFSETS, at)
    assert asymmetry[0, 1].item() == pytest.approx(0.05, abs=1e-3)
    torch.testing.assert_close(asymmetry[1], torch.zeros(2, dtype=torch.float64), atol=1e-12, rtol=0)


def test_asymmetry_between_acquired_offsets_is_interpolated():
    exact = spectrum(torch.tensor(-3.3)) - spectrum(torch.tensor(3.3))
    assert mtr_asym(spectrum(OFFSETS)[None], OFFSETS, 3.3).item() == pytest.approx(exact.item(), abs=5e-3)


def test_b0_shift_is_removed_from_aptw():
    fine = torch.linspace(-6, 6, 97, dtype=torch.float64)
    shift = torch.tensor([-0.3, 0.0, 0.3], dtype=torch.float64)
    z = torch.stack([spectrum(fine, each) for each in shift])
    corrected = apt_weighted(z, fine, shift)
    assert corrected.numpy() == pytest.approx(0.05, abs=2e-3)
    assert (apt_weighted(z, fine) - 0.05).abs().max() > 0.005


def test_inverse_metrics_have_units_of_rate_and_reject_non_positive_signal():
    label, reference = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.8, 0.8, 0.8])
    assert mtr_ld(label, reference)[0].item() == pytest.approx(0.3)
    rex = mtr_rex(label, reference)
    assert rex[0].item() == pytest.approx(1 / 0.5 - 1 / 0.8)
    assert rex[2].isnan()
    rate = arex(rex, torch.tensor([2.0, 0.0, 2.0]), duty_cycle=0.5)
    assert rate[0].item() == pytest.approx((1 / 0.5 - 1 / 0.8) / 2 / 0.5)
    assert rate[1:].isnan().all()
    with pytest.raises(ValueError, match="duty cycle"):
        arex(rex, torch.ones(3), duty_cycle=0)


def test_wrong_count_of_offsets_is_named():
    with pytest.raises(ValueError, match="25 values but the signal has 24"):
        mtr_asym(spectrum(OFFSETS)[None, :24], OFFSETS, 3.5)
