"""Methods applied to signals of the full Bloch-McConnell equations instead of their own formulas."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from CESTQuantLib.fitting.least_squares import Status
from CESTQuantLib.methods.base import Settings
from CESTQuantLib.methods.registry import map_fields, quantify
from CESTQuantLib.physics.pools import Pool, Tissue, Water
from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.physics.simulation import simulate
from CESTQuantLib.tissue.model import tissue_model_from_dict
from CESTQuantLib.tissue.spectra import ZSpectra
from NeuroCESTLib.core.messages.input_errors import InputError

CREATINE = Pool("creatine", 0.0018, 300.0, 1.0, 0.1, 1.9, protons=4)
B0_PPM = torch.tensor([0.0, 0.2, -0.4, 0.6], dtype=torch.float64)
B1 = torch.tensor([1.0, 0.8, 1.2, 0.6], dtype=torch.float64)


def spectra(tissue: Tissue, protocol: Protocol, **fields: torch.Tensor) -> ZSpectra:
    z = simulate(tissue, protocol, **fields)
    return ZSpectra(z, protocol)


def model(T1_s: float, T2_s: float, k_bounds_Hz: tuple[float, float] = (5, 3000)) -> Settings:
    solute = {"name": "creatine", "protons": 4, "dw_ppm": 1.9, "T1_s": 1.0, "T2_s": 0.1}
    solute |= {"fraction": {"fit": True, "bounds": [1e-5, 0.02]}, "k_Hz": {"fit": True, "bounds": list(k_bounds_Hz)}}
    values = {"water": {"T1_s": T1_s, "T2_s": T2_s}, "solutes": [solute], "semisolid": None}
    return Settings(model=tissue_model_from_dict(values))


def test_wasabi_recovers_both_fields():
    protocol = Protocol(3.0, torch.linspace(-2, 2, 31), 3.7, 0.005)
    maps = map_fields(spectra(Tissue(Water(1.3, 0.08)), protocol, b0_shift_ppm=B0_PPM, b1_relative=B1), "wasabi")
    torch.testing.assert_close(maps.quantities["b0_shift_ppm"], B0_PPM, atol=0.01, rtol=0)
    # the formula neglects relaxation during the pulse, which costs up to 0.023 here
    torch.testing.assert_close(maps.quantities["b1_relative"], B1, atol=0.03, rtol=0)


def test_wasabi_takes_the_larmor_frequency_of_the_scanner():
    """Scanners called 3 T have 2.89 T; their B1 came out 4 % too high."""
    protocol = Protocol(3.0, torch.linspace(-2, 2, 31), 3.7, 0.005, larmor_frequency_MHz=123.2)
    maps = map_fields(spectra(Tissue(Water(1.3, 0.08)), protocol, b0_shift_ppm=B0_PPM, b1_relative=B1), "wasabi")
    torch.testing.assert_close(maps.quantities["b1_relative"], B1, atol=0.03, rtol=0)
    same = map_fields(spectra(Tissue(Water(1.3, 0.08)), replace(protocol, field_strength_T=2.894)), "wasabi")
    other = map_fields(spectra(Tissue(Water(1.3, 0.08)), protocol), "wasabi")
    torch.testing.assert_close(same.quantities["b1_relative"], other.quantities["b1_relative"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("duration_s", [2.0, [0.005] * 30 + [0.01]])
def test_wasabi_refuses_the_protocol_of_another_acquisition(duration_s):
    protocol = Protocol(3.0, torch.linspace(-2, 2, 31), 3.7, duration_s)
    with pytest.raises(InputError, match="WASABI needs one short block pulse of the same length, but this protocol"):
        map_fields(spectra(Tissue(Water(1.3, 0.08)), protocol), "wasabi")


def test_wassr_recovers_the_b0_shift():
    protocol = Protocol(3.0, torch.linspace(-1, 1, 21), 0.1, 0.5)
    maps = map_fields(spectra(Tissue(Water(1.3, 0.08)), protocol, b0_shift_ppm=0.8 * B0_PPM), "wassr")
    torch.testing.assert_close(maps.quantities["b0_shift_ppm"], 0.8 * B0_PPM, atol=0.01, rtol=0)


@pytest.mark.parametrize(("method", "tolerance"), [("quesp", 0.03), ("omega-plot", 0.12)])
def test_pairs_over_powers_give_fraction_and_rate(method, tolerance):
    powers = torch.tensor([0.5, 1.0, 1.5, 2.0, 3.0, 4.0], dtype=torch.float64)
    offsets = torch.tensor([1.9, -1.9], dtype=torch.float64).repeat_interleave(len(powers))
    study = spectra(Tissue(Water(3.0, 1.5), (CREATINE,)), Protocol(7.0, offsets, powers.repeat(2), 10.0))
    quantities = quantify(study, method, settings=model(3.0, 1.5)).quantities
    assert float(quantities["creatine_fraction"]) == pytest.approx(0.0018, rel=tolerance)
    assert float(quantities["creatine_exchange_rate_Hz"]) == pytest.approx(300, rel=tolerance)


@pytest.mark.parametrize("method", ["quesp", "omega-plot", "qucesop"])
def test_fraction_and_rate_are_those_of_the_nucleus_of_the_protocol(method):
    """A nucleus of lower frequency in fields as much stronger gives the same signals, hence the same maps."""
    powers = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
    offsets = torch.tensor([1.9, -1.9, 1.4, 1.6, 2.2, 2.4], dtype=torch.float64).repeat_interleave(len(powers))
    proton = Protocol(7.0, offsets, powers.repeat(6), 10.0)
    xenon = 73.997
    ratio = proton.gamma_rad_per_s_per_uT / xenon
    other = replace(proton, field_strength_T=7.0 * ratio, b1_uT=proton.b1_uT * ratio, gamma_rad_per_s_per_uT=xenon)
    maps = [
        quantify(spectra(Tissue(Water(3.0, 1.5), (CREATINE,)), of_nucleus), method, model(3.0, 1.5)).quantities
        for of_nucleus in (proton, other)
    ]
    for name in ("creatine_fraction", "creatine_exchange_rate_Hz"):
        torch.testing.assert_close(maps[1][name], maps[0][name], rtol=1e-4, atol=0)


@pytest.mark.parametrize("method", ["quesp", "omega-plot"])
def test_pairs_at_one_power_are_refused_with_the_reason(method):
    """From saturation times alone, QUESP gave a rate of 20 instead of 300 1/s and called it converged."""
    times = torch.tensor([1.0, 2.0, 4.0, 10.0], dtype=torch.float64)
    offsets = torch.tensor([1.9, -1.9], dtype=torch.float64).repeat_interleave(len(times))
    study = spectra(Tissue(Water(3.0, 1.5), (CREATINE,)), Protocol(7.0, offsets, 2.0, times.repeat(2)))
    with pytest.raises(ValueError, match="two or more powers, but all 4 are at 2 uT"):
        quantify(study, method, settings=model(3.0, 1.5))


def test_repeats_of_one_measurement_do_not_determine_a_model():
    study = spectra(Tissue(Water(3.0, 1.5), (CREATINE,)), Protocol(7.0, torch.full((8,), 1.9), 2.0, 10.0))
    with pytest.raises(ValueError, match="1 different measurements do not determine 2 fitted values"):
        quantify(study, "r1rho", settings=model(3.0, 1.5))


def test_all_repetitions_of_labels_and_references_count():
    powers = torch.tensor([0.5, 1.0, 1.5, 2.0, 3.0, 4.0], dtype=torch.float64)
    offsets = torch.tensor([1.9, -1.9], dtype=torch.float64).repeat_interleave(len(powers))
    once = Protocol(7.0, offsets, powers.repeat(2), 10.0)
    repeated = once.select(torch.arange(12).repeat(4))
    z = simulate(Tissue(Water(3.0, 1.5), (CREATINE,)), repeated)
    z = z + 3e-3 * torch.randn(400, 48, generator=torch.Generator().manual_seed(0)).double()
    found, averaged = (
        quantify(study, "quesp", model(3.0, 1.5)).quantities["creatine_exchange_rate_Hz"]
        for study in (ZSpectra(z, repeated), ZSpectra(z.unflatten(1, (4, 12)).mean(1), once))
    )
    assert float(found.std()) == pytest.approx(float(averaged.std()), rel=0.05)


def test_qucesop_separates_the_target_from_water_and_a_neighbouring_solute():
    offsets = torch.linspace(1.0, 2.8, 10, dtype=torch.float64)
    powers = torch.tensor([0.5, 1.0, 1.5, 2.5], dtype=torch.float64)
    protocol = Protocol(7.0, offsets.repeat(4), powers.repeat_interleave(10), 5.0)
    tissue = Tissue(Water(1.5, 0.1), (CREATINE, Pool("amide", 0.001, 30.0, 1.0, 0.1, 3.5)))
    quantities = quantify(spectra(tissue, protocol), "qucesop", settings=model(1.5, 0.1)).quantities
    assert float(quantities["creatine_fraction"]) == pytest.approx(0.0018, rel=0.02)
    assert float(quantities["creatine_exchange_rate_Hz"]) == pytest.approx(300, rel=0.03)


@pytest.mark.parametrize("method", ["quesp", "omega-plot", "qucesop"])
def test_the_bounds_of_the_target_are_kept(method):
    powers = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
    offsets = torch.tensor([1.9, -1.9, 1.4, 1.6, 2.2, 2.4], dtype=torch.float64).repeat_interleave(len(powers))
    study = spectra(Tissue(Water(3.0, 1.5), (CREATINE,)), Protocol(7.0, offsets, powers.repeat(6), 10.0))
    found = quantify(study, method, settings=model(3.0, 1.5, k_bounds_Hz=(5, 50)))
    assert found.status.tolist() == [Status.AT_BOUND]
    if method != "omega-plot":  # a straight line has no bounds
        assert float(found.quantities["creatine_exchange_rate_Hz"]) == pytest.approx(50)


def test_fixed_values_of_the_target_are_told():
    powers = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
    offsets = torch.tensor([1.9, -1.9], dtype=torch.float64).repeat_interleave(len(powers))
    study = spectra(Tissue(Water(3.0, 1.5), (CREATINE,)), Protocol(7.0, offsets, powers.repeat(2), 10.0))
    values = {
        "water": {"T1_s": 3.0, "T2_s": 1.5},
        "solutes": [{"name": "creatine", "dw_ppm": 1.9, "T1_s": 1.0, "T2_s": 0.1, "fraction": 0.001, "k_Hz": 300.0}],
    }
    (warning,) = {*quantify(study, "quesp", settings=Settings(model=tissue_model_from_dict(values))).warnings} - {
        "creatine.k_Hz of the model is not used: this method fits fraction and rate of its target"
    }
    assert warning.startswith("creatine.fraction of the model is not used")


@pytest.mark.parametrize("method", ["quesp", "omega-plot"])
def test_a_fitted_relaxation_time_of_the_target_is_held_at_its_start_and_told(method):
    powers = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
    offsets = torch.tensor([1.9, -1.9], dtype=torch.float64).repeat_interleave(len(powers))
    study = spectra(Tissue(Water(3.0, 1.5), (CREATINE,)), Protocol(7.0, offsets, powers.repeat(2), 10.0))

    def of(T2_s):
        fitted = {"fit": True, "start": 0.001, "bounds": [1e-5, 0.02]}
        rate = {"fit": True, "start": 200.0, "bounds": [5.0, 2000.0]}
        pool = {"name": "creatine", "dw_ppm": 1.9, "T1_s": 1.0, "T2_s": T2_s, "fraction": fitted, "k_Hz": rate}
        values = {"water": {"T1_s": 3.0, "T2_s": 1.5}, "solutes": [pool]}
        return quantify(study, method, settings=Settings(model=tissue_model_from_dict(values)))

    held, known = of({"fit": True, "start": 0.005, "bounds": [0.001, 0.1]}), of(0.005)
    assert held.warnings == ("creatine.T2_s of the model is not fitted by this method, which takes its start, 0.005 s",)
    torch.testing.assert_close(held.quantities, known.quantities, equal_nan=True)
    with pytest.raises(ValueError, match=r"creatine\.T2_s must be a number or fitted for this method, not a map"):
        of({"map": "t2"})


@pytest.mark.parametrize("method", ["quesp", "qucesop"])
def test_a_start_below_equilibrium_that_recovers_before_the_saturation_is_used(method):
    powers = torch.tensor([0.5, 1.0, 1.5, 2.0, 3.0, 4.0], dtype=torch.float64)
    at = torch.tensor([1.9, -1.9] if method == "quesp" else torch.linspace(0.9, 2.9, 11).tolist(), dtype=torch.float64)
    offsets, repeated = at.repeat_interleave(len(powers)), powers.repeat(len(at))
    usual = Protocol(7.0, offsets, repeated, 2.0)
    tissue = Tissue(Water(3.0, 1.5), (CREATINE,))
    expected = quantify(spectra(tissue, usual), method, model(3.0, 1.5)).quantities["creatine_fraction"]
    started = replace(usual, initial_magnetisation=0.0, initial_recovery_s=torch.full_like(offsets, 3.0))
    found = quantify(spectra(tissue, started), method, model(3.0, 1.5)).quantities["creatine_fraction"]
    torch.testing.assert_close(found, expected, rtol=0.03, atol=0)


def test_a_method_that_does_not_know_the_start_of_carried_over_magnetisation_says_so():
    powers = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
    offsets = torch.tensor([1.9, -1.9], dtype=torch.float64).repeat_interleave(4)
    protocol = Protocol(
        7.0,
        offsets,
        powers.repeat(2),
        5.0,
        recovery_time_s=9.0,
        readout_flip_angle_deg=90.0,
        magnetisation_carried_over=True,
    )
    study = spectra(Tissue(Water(3.0, 1.5), (CREATINE,)), protocol)
    assert any("has left" in warning for warning in quantify(study, "quesp", model(3.0, 1.5)).warnings)
