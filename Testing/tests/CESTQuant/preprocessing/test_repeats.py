"""The noise of an acquisition from repeated measurements."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from CESTQuantLib.methods.base import Settings
from CESTQuantLib.methods.registry import quantify
from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.preprocessing.repeats import noise_of_repeats, smoothing_warnings, typical_noise
from CESTQuantLib.tissue.lorentzian_model import LorentzianModel, LorentzianPool, Range
from CESTQuantLib.tissue.spectra import ZSpectra

OFFSETS = [3.5] * 4 + [-3.5] * 4
NOISE = 0.01
SIGMA = 1.0
"""Noise in scanner units."""


def acquired(tissue: int, air: int) -> ZSpectra:
    """Voxels with M0 = 100 and noise of 1, and voxels of noise alone."""
    random = torch.Generator().manual_seed(3)
    level = torch.cat([torch.full((tissue,), 100.0), torch.zeros(air)]).double()[:, None]
    raw = (0.7 * level + torch.randn(tissue + air, 8, generator=random, dtype=torch.float64)).abs()
    m0 = (level + torch.randn(tissue + air, 1, generator=random, dtype=torch.float64)).abs()
    return ZSpectra(raw / m0, Protocol(3.0, OFFSETS, 1.0, 1.0), brightness=raw.amax(1))


def shaded(voxels: int = 3000) -> ZSpectra:
    """Spectra of water, each measured twice, from dim voxels with M0 = 15 to bright ones with 150."""
    random = torch.Generator().manual_seed(5)
    offsets = torch.linspace(-5, 5, 21).double().repeat(2)
    m0 = SIGMA * torch.logspace(0, 1, voxels).double() * 15
    raw = m0[:, None] * (1 - 0.8 / (1 + (offsets / 0.7) ** 2))
    raw = raw + SIGMA * torch.randn(voxels, len(offsets), generator=random, dtype=torch.float64)
    return ZSpectra(raw / m0[:, None], Protocol(3.0, offsets, 1.0, 1.0), brightness=raw.amax(1), m0=m0)


def water() -> LorentzianModel:
    one = LorentzianPool("water", Range(0.02, 0.8, 1.0), Range(0.3, 1.4, 5.0), Range(-1.0, 0.0, 1.0))
    return LorentzianModel((one,), Range(0.5, 1.0, 1.5))


def test_the_noise_is_that_of_repeats() -> None:
    spectra = acquired(2000, 0)
    assert typical_noise(noise_of_repeats(spectra), spectra) == pytest.approx(NOISE, rel=0.05)


def test_repeats_whose_offsets_were_rounded_are_repeats() -> None:
    spectra = acquired(2000, 0)
    jitter = 1e-4 * torch.arange(8)
    rounded = replace(spectra, protocol=replace(spectra.protocol, offsets_ppm=spectra.protocol.offsets_ppm + jitter))
    assert noise_of_repeats(rounded) is not None
    torch.testing.assert_close(noise_of_repeats(rounded), noise_of_repeats(spectra))


def test_air_does_not_count_where_there_is_no_mask() -> None:
    """Relative to M0, which is noise there too, its noise is a hundred times as large."""
    spectra = acquired(1000, 3000)
    assert typical_noise(noise_of_repeats(spectra), spectra) == pytest.approx(NOISE, rel=0.05)


def test_every_voxel_has_the_noise_of_the_image_over_its_m0() -> None:
    spectra = shaded()
    ratio = noise_of_repeats(spectra) * spectra.m0 / SIGMA
    for dim_or_bright in (ratio[:500], ratio[-500:]):
        assert float(dim_or_bright.median()) == pytest.approx(1.0, rel=0.03)
        assert float(dim_or_bright.std()) < 0.15


def test_some_disturbed_voxels_do_not_decide_about_the_others() -> None:
    """Pulsation and ghosts widen the repeats of a tenth of the voxels, which have their own noise."""
    spectra = shaded()
    signal = spectra.signal.clone()
    signal[::10] += 0.5 * torch.randn(300, 42, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ratio = noise_of_repeats(replace(spectra, signal=signal)) * spectra.m0 / SIGMA
    assert float(ratio[1::10].median()) == pytest.approx(1.0, rel=0.07)
    assert float((noise_of_repeats(replace(spectra, signal=signal))[::10]).median()) == pytest.approx(0.43, rel=0.1)


def test_the_reduced_chi_square_is_about_1_in_dim_and_bright_voxels() -> None:
    found = quantify(shaded(), "lorentzian", Settings(lorentzian=water())).quantities["chi2_reduced"]
    for voxels in (found, found[:500], found[-500:]):
        assert float(voxels.median()) == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize(("rounding_ppm", "shift_ppm"), [(0.0, 0.0), (1e-3, 0.0), (0.0, 0.1)])
@pytest.mark.parametrize("noise_sd", [None, SIGMA / 45])
def test_a_b0_map_leaves_repeats_their_noise(rounding_ppm: float, shift_ppm: float, noise_sd: float | None) -> None:
    """Their mean was fitted as often as they were measured, so that standard errors were too small by a third."""
    spectra, settings = shaded(200), Settings(lorentzian=water(), noise_sd=noise_sd)
    offsets = spectra.protocol.offsets_ppm + rounding_ppm * (torch.arange(42) >= 21)
    acquired = replace(spectra, protocol=replace(spectra.protocol, offsets_ppm=offsets))
    plain = quantify(acquired, "lorentzian", settings)
    mapped = replace(acquired, b0_shift_ppm=torch.full((200,), shift_ppm).double())
    found = quantify(mapped, "lorentzian", settings)
    assert found.warnings == plain.warnings == ()
    for name, tolerance in (("water_amplitude_sd", 0.1), ("chi2_reduced", 0.2)):  # the interpolation adds some misfit
        ratio = found.quantities[name].median() / plain.quantities[name].median()
        assert float(ratio) == pytest.approx(1.0, abs=tolerance if shift_ppm else 0.01)


def test_standard_errors_of_a_contrast_hold_in_dim_and_bright_voxels() -> None:
    spectra = replace(shaded(), b0_shift_ppm=torch.zeros(3000).double())
    found = quantify(spectra, "mtrasym").quantities
    z_scores = found["mtr_asym_3.5ppm"] / found["mtr_asym_3.5ppm_sd"]
    for voxels in (z_scores[:500], z_scores[-500:]):
        assert float(voxels.std()) == pytest.approx(1.0, abs=0.1)


def test_a_noise_far_above_the_residuals_is_told() -> None:
    spectra = shaded(100)
    too_high = quantify(spectra, "lorentzian", Settings(lorentzian=water(), noise_sd=0.5)).warnings
    assert any("residuals are much smaller than the noise of 0.5" in sentence for sentence in too_high)
    assert not quantify(spectra, "lorentzian", Settings(lorentzian=water())).warnings


def test_too_few_repeats_tell_nothing() -> None:
    spectra = acquired(10, 0)
    assert noise_of_repeats(spectra.select(torch.tensor([0, 1, 4, 5]))) is None


def test_repeats_that_were_smoothed_do_not_tell_the_noise() -> None:
    spectra = acquired(10, 0)
    assert smoothing_warnings(spectra) == []
    smoothed = replace(spectra, smoothed=True)
    assert noise_of_repeats(smoothed) is None
    (warning,) = smoothing_warnings(smoothed)
    assert warning.startswith("the noise is not estimated from the repeated measurements, which the smoothing has made")
    assert smoothing_warnings(smoothed.select(torch.tensor([0, 1, 4, 5]))) == []
