"""QUCESOP and gQUCESOP: inversion to R1rho, recovery above a linear background, and the reliability map."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from CESTQuantLib.fitting.least_squares import Status
from CESTQuantLib.methods.base import Settings
from CESTQuantLib.methods.registry import quantify
from CESTQuantLib.physics.pools import Pool, Tissue, Water
from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.physics.r1rho.exchange import EffectiveField, Exchange
from CESTQuantLib.physics.r1rho.inputs import SoluteInputs
from CESTQuantLib.physics.simulation import simulate
from CESTQuantLib.physics.units import GAMMA_RAD_PER_S_PER_UT, rad_per_s_per_ppm
from CESTQuantLib.tissue.model import tissue_model_from_dict
from CESTQuantLib.tissue.qucesop import fit_qucesop, r1rho_from_z
from CESTQuantLib.tissue.spectra import ZSpectra

FIELD_T, TARGET_PPM = 9.4, 3.5
GRID = torch.cartesian_prod(
    torch.tensor([0.6, 1.0, 1.6], dtype=torch.float64), torch.linspace(2.5, 4.5, 21, dtype=torch.float64)
)
B1, OFFSETS = GRID[:, 0], GRID[:, 1]
PROTOCOL = Protocol(FIELD_T, OFFSETS, B1, 3.0)


def rex(fraction, k, r2, ppm=TARGET_PPM, shift=0.0, relative=1.0):
    """Exchange relaxation of a solute over the grid; (voxel, m)."""
    scale = rad_per_s_per_ppm(FIELD_T)
    water = (shift - OFFSETS[:, None]) * scale
    w1 = GAMMA_RAD_PER_S_PER_UT * B1[:, None] * relative
    dw = torch.full_like(fraction, ppm * scale)
    return Exchange.of(EffectiveField.of(w1, water), water, SoluteInputs(fraction, k, r2, dw)).rate.T


def truth(voxels, seed=0):
    """True fraction, exchange rate and R2b of the target; (voxel,) each."""
    uniform = torch.rand(3, voxels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return 5e-4 + 1e-3 * uniform[0], 50 + 250 * uniform[1], 20 + 80 * uniform[2]


def background():
    """Linear background (m,) of R1rho, with coefficients of its own at every power."""
    return 0.6 + 0.5 * B1**2 + (0.05 - 0.1 * B1) * (OFFSETS - 3.2)


def noise(voxels, size, seed=5):
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(voxels, len(B1), generator=generator, dtype=torch.float64)


def test_r1rho_is_recovered_from_steady_and_transient_z():
    rate = torch.logspace(-0.5, 2, 30, dtype=torch.float64).unsqueeze(1).expand(-1, len(B1))
    t1 = torch.full((30,), 1.6, dtype=torch.float64)
    weff = EffectiveField.of(GAMMA_RAD_PER_S_PER_UT * B1, OFFSETS * rad_per_s_per_ppm(FIELD_T))
    for time in (1e4, 2.0):
        steady = 1 / 1.6 / rate
        fall = torch.exp(-rate * time)
        z = weff.cos2 * ((1.0 - steady) * fall + steady)
        found, _ = r1rho_from_z(z, replace(PROTOCOL, saturation_time_s=time), t1)
        torch.testing.assert_close(found, rate, rtol=1e-6, atol=0)


def test_the_noise_of_r1rho_is_that_of_z_amplified_by_the_inversion():
    z = torch.linspace(0.2, 0.9, 8, dtype=torch.float64).unsqueeze(1).expand(-1, len(B1))
    t1, step = torch.full((8,), 1.6, dtype=torch.float64), 1e-5
    transient = replace(PROTOCOL, saturation_time_s=1.5)
    found, below, above = (r1rho_from_z(z + move, transient, t1, initial_z=0.97) for move in (0.0, -step, step))
    torch.testing.assert_close(found[1], (below[0] - above[0]) / (2 * step), rtol=1e-4, atol=0)


def test_a_z_that_no_rate_explains_gives_nan():
    z = torch.full((3, len(B1)), 0.5, dtype=torch.float64)
    z[1], z[2] = 3.5, 0.0
    found, noise = r1rho_from_z(z, PROTOCOL, torch.full((3,), 1.6))
    assert found[0].isfinite().all()
    assert found[1:].isnan().all()
    assert noise.isnan().equal(found.isnan())


def test_qucesop_recovers_fraction_and_rate_above_a_linear_background():
    fraction, k, r2 = truth(200)
    r1rho = rex(fraction, k, torch.full_like(r2, 1.0)) + background()
    fit = fit_qucesop(r1rho, PROTOCOL, TARGET_PPM, r2_Hz=1.0)
    torch.testing.assert_close(fit.fraction, fraction, rtol=1e-4, atol=0)
    torch.testing.assert_close(fit.exchange_rate_Hz, k, rtol=1e-4, atol=0)
    assert (fit.rmse_Hz < 1e-4).all()


def test_gqucesop_recovers_r2_as_well_and_its_standard_errors_cover_the_true_values():
    fraction, k, r2 = truth(2000)
    r1rho = rex(fraction, k, r2) + background() + noise(2000, 2e-3)
    fit = fit_qucesop(r1rho, PROTOCOL, TARGET_PPM, r2_Hz=None)
    known = fit.status == Status.CONVERGED
    assert known.double().mean() > 0.97
    for value, deviation, expected in (
        (fit.fraction, fit.fraction_sd, fraction),
        (fit.exchange_rate_Hz, fit.exchange_rate_Hz_sd, k),
        (fit.r2_Hz, fit.r2_Hz_sd, r2),
    ):
        score = ((value - expected) / deviation)[known]
        assert (score.abs() < 2.005).double().mean().item() == pytest.approx(
            0.95, abs=0.02
        )  # Student t, 54 degrees of freedom


def test_standard_errors_of_qucesop_cover_the_true_values_where_the_noise_is_that_of_z():
    """Noise of Z is amplified most at high power; as if it were the same in all R1rho, 76 and 80 % were covered."""
    offsets, powers = torch.linspace(3.5, 6.5, 13, dtype=torch.float64), torch.tensor([1.0, 2.0, 4.0]).double()
    protocol = Protocol(FIELD_T, offsets.repeat(3), powers.repeat_interleave(13), 10.0)
    pool = {"name": "s", "T1_s": 3.0, "T2_s": 0.5, "dw_ppm": 5.0}
    z = simulate(Tissue(Water(3.0, 2.0), (Pool("s", 0.001, 600.0, 3.0, 0.5, 5.0),)), protocol, engine="r1rho")
    z = z + 0.002 * torch.randn(2000, 39, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    fitted = {"fraction": {"fit": True, "bounds": [0, 0.05]}, "k_Hz": {"fit": True, "bounds": [1, 20000]}}
    model = tissue_model_from_dict({"water": {"T1_s": 3.0, "T2_s": 2.0}, "solutes": [pool | fitted]})
    found = quantify(ZSpectra(z, protocol), "qucesop", Settings(model=model)).quantities
    for name, expected in (("s_fraction", 0.001), ("s_exchange_rate_Hz", 600.0)):
        score = (found[name] - expected) / found[f"{name}_sd"]
        assert (score.abs() < 2.042).double().mean().item() == pytest.approx(
            0.95, abs=0.02
        )  # Student t, 30 degrees of freedom


def test_broad_lines_bias_qucesop_but_not_gqucesop():
    fraction, k, r2 = truth(200)
    r1rho = rex(fraction, k, r2) + background()
    narrow = fit_qucesop(r1rho, PROTOCOL, TARGET_PPM, r2_Hz=1.0)
    general = fit_qucesop(r1rho, PROTOCOL, TARGET_PPM, r2_Hz=None)
    errors = [((fit.exchange_rate_Hz - k).abs() / k).median().item() for fit in (narrow, general)]
    assert errors[0] > 0.05
    assert errors[1] < 1e-3


def test_the_rmse_map_shows_where_another_solute_overlaps():
    fraction, k, r2 = truth(100)
    clean = rex(fraction, k, r2) + background() + noise(100, 1e-3)
    other = rex(torch.full_like(k, 1e-3), torch.full_like(k, 150.0), torch.full_like(k, 30.0), ppm=2.9)
    reliable = fit_qucesop(clean, PROTOCOL, TARGET_PPM, r2_Hz=None)
    overlapped = fit_qucesop(clean + other, PROTOCOL, TARGET_PPM, r2_Hz=None)
    assert reliable.rmse_Hz.median().item() == pytest.approx(1e-3, rel=0.15)
    assert overlapped.rmse_Hz.median() > 5 * reliable.rmse_Hz.median()
    torch.testing.assert_close(
        (clean - reliable.synthesised_r1rho).square().mean(1).sqrt(), reliable.rmse_Hz, rtol=1e-9, atol=0
    )


def test_field_maps_are_used():
    fraction, k, _ = truth(50)
    shift, relative = torch.full_like(k, 0.15), torch.full_like(k, 0.85)
    r1rho = rex(fraction, k, torch.full_like(k, 1.0), shift=shift, relative=relative) + background()
    fit = fit_qucesop(r1rho, PROTOCOL, TARGET_PPM, r2_Hz=1.0, b0_shift_ppm=shift, b1_relative=relative)
    torch.testing.assert_close(fit.exchange_rate_Hz, k, rtol=1e-4, atol=0)


def test_unusable_voxels_are_flagged():
    fraction, k, r2 = truth(3)
    r1rho = rex(fraction, k, r2) + background()
    r1rho[1, 4] = torch.nan
    fit = fit_qucesop(r1rho, PROTOCOL, TARGET_PPM)
    assert fit.status[1] == Status.INVALID_DATA
    assert fit.fraction[1].isnan()
    assert fit.rmse_Hz[1].isnan()


def test_too_few_offsets_at_a_power_are_refused():
    with pytest.raises(ValueError, match="three different offsets or more at each power; 1 uT has fewer"):
        fit_qucesop(torch.ones(2, 23), PROTOCOL.select(slice(23)), TARGET_PPM)


def test_repeats_add_no_offsets_and_no_measurements():
    powers = torch.tensor([1.0, 2.0]).repeat_interleave(12)
    two = torch.tensor([1.5, 2.0]).repeat(12)
    with pytest.raises(ValueError, match="three different offsets or more at each power"):
        fit_qucesop(torch.ones(2, 24), Protocol(FIELD_T, two, powers, 3.0), TARGET_PPM)
    three = torch.tensor([1.5, 2.0, 2.5]).repeat(8)
    with pytest.raises(ValueError, match="6 different measurements do not determine 7 unknowns"):
        fit_qucesop(torch.ones(2, 24), Protocol(FIELD_T, three, powers, 3.0), TARGET_PPM)
