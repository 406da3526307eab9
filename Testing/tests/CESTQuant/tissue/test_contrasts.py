"""Contrasts from label and reference measurements."""

from __future__ import annotations

import pytest
import torch

from CESTQuantLib.tissue.contrasts import apt_weighted, arex, mtr_asym, mtr_ld, mtr_rex, z_at

OFFSETS = torch.linspace(-6, 6, 25, dtype=torch.float64)


def spectrum(offsets, shift=0.0, amide=0.05):
    """Water at `shift` and an amide line 3.5 ppm above it."""
    distance = offsets - shift
    return 1 - 0.9 / (1 + (distance / 0.8) ** 2) - amide / (1 + ((distance - 3.5) / 0.5) ** 2)


def test_asymmetry_is_positive_for_a_downfield_line_and_zero_without():
    at = torch.tensor([2.0, 3.5])
    z = torch.stack((spectrum(OFFSETS), spectrum(OFFSETS, amide=0.0)))
    asymmetry = mtr_asym(z, OFFSETS, at)
    assert asymmetry[0, 1].item() == pytest.approx(0.05, abs=1e-3)
    torch.testing.assert_close(asymmetry[1], torch.zeros(2, dtype=torch.float64), atol=1e-12, rtol=0)


def test_asymmetry_between_acquired_offsets_is_interpolated():
    exact = spectrum(torch.tensor(-3.3)) - spectrum(torch.tensor(3.3))
    assert mtr_asym(spectrum(OFFSETS)[None], OFFSETS, 3.3).item() == pytest.approx(exact.item(), abs=5e-3)


def test_a_b0_map_corrects_aptw():
    fine = torch.linspace(-6, 6, 97, dtype=torch.float64)
    shift = torch.tensor([-0.3, 0.0, 0.3], dtype=torch.float64)
    z = torch.stack([spectrum(fine, each) for each in shift])
    corrected = apt_weighted(z, fine, shift)
    assert corrected.numpy() == pytest.approx(0.05, abs=2e-3)
    assert (apt_weighted(z, fine) - 0.05).abs().max() > 0.005


def test_rounding_of_repeated_offsets_does_not_change_aptw():
    core = torch.linspace(3, 4, 11, dtype=torch.float64)
    once = torch.cat((-core.flip(0), core))
    noise = 0.003 * torch.randn(200, 44, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shift = torch.full((200,), 0.13, dtype=torch.float64)
    for rounding_ppm in (1e-15, 1e-4):
        offsets = torch.cat((once, once + rounding_ppm))
        equal = apt_weighted(spectrum(offsets) + noise, torch.cat((once, once)), shift)
        torch.testing.assert_close(apt_weighted(spectrum(offsets) + noise, offsets, shift), equal, atol=1e-4, rtol=0)


def test_a_single_offset_may_be_repeated_with_other_rounding():
    z = torch.tensor([[0.6, 0.8]], dtype=torch.float64)
    single = torch.tensor([3.5, 3.5001], dtype=torch.float64)
    assert z_at(z, single, torch.tensor([3.5])).item() == pytest.approx(0.7)
    with pytest.raises(ValueError, match=r"at least two different offsets beyond 1\.5 ppm"):
        apt_weighted(torch.ones(1, 4), torch.tensor([-3.5, -3.5001, 3.5, 3.5001]))


def test_differences_are_linear_or_inverse_and_the_inverse_one_rejects_non_positive_signal():
    label, reference = torch.tensor([0.5, 0.0]), torch.tensor([0.8, 0.8])
    assert mtr_ld(label, reference)[0].item() == pytest.approx(0.3)
    rex = mtr_rex(label, reference)
    assert rex[0].item() == pytest.approx(1 / 0.5 - 1 / 0.8)
    assert rex[1].isnan()


def test_arex_is_a_rate_and_nan_without_a_t1():
    rex = torch.tensor([0.75, 0.75])
    rate = arex(rex, torch.tensor([2.0, 0.0]), duty_cycle=0.5)
    assert rate[0].item() == pytest.approx(0.75 / 2 / 0.5)
    assert rate[1].isnan()


@pytest.mark.parametrize("duty_cycle", [0, 1.1])
def test_an_impossible_duty_cycle_is_refused(duty_cycle):
    with pytest.raises(ValueError, match="the duty cycle must be above 0 and at most 1"):
        arex(torch.ones(3), torch.ones(3), duty_cycle)


def test_a_wrong_number_of_offsets_is_named():
    with pytest.raises(ValueError, match="25 values but the signal has 24"):
        mtr_asym(spectrum(OFFSETS)[None, :24], OFFSETS, 3.5)
