"""What limits a fit: intervals that cover the truth where constants of the model are wrong."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from CESTQuantLib.methods.base import Settings
from CESTQuantLib.methods.registry import quantify, quantity_named
from CESTQuantLib.physics.pools import Pool, Tissue, Water
from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.physics.simulation import simulate
from CESTQuantLib.tissue.confidence.limits import Limit, confidence_of
from CESTQuantLib.tissue.fit import fit_tissue_model
from CESTQuantLib.tissue.model import tissue_model_from_dict
from CESTQuantLib.tissue.spectra import ZSpectra

POWERS = torch.tensor([0.6, 1.2, 2.4]).double()
OFFSETS = torch.linspace(0.8, 5.0, 15).double()
PROTOCOL = Protocol(7.0, OFFSETS.repeat(3), POWERS.repeat_interleave(15), 4.0)
VOXELS = 300
SDS = {"water.T1_s": 0.1, "water.T2_s": 0.008, "amine.T2_s": 0.008, "b1_relative": 0.05}


def model(sds: dict[str, float], **changes: Any) -> dict[str, Any]:
    """Water and an amine pool of which fraction and rate are fitted; the constants have standard deviations."""

    def value(path: str, number: float) -> Any:
        return {"value": number, "sd": sds[path]} if path in sds else number

    amine = {"name": "amine", "protons": 3, "dw_ppm": 3.0, "T1_s": 1.0, "T2_s": value("amine.T2_s", 0.04)}
    amine |= {"fraction": {"fit": True, "start": 0.001, "bounds": [1e-5, 0.01]}}
    amine |= {"k_Hz": {"fit": True, "start": 300, "bounds": [5, 3000]}}
    water = {"T1_s": value("water.T1_s", 1.8), "T2_s": value("water.T2_s", 0.1)}
    return {"water": water, "solutes": [amine], "b1_relative": value("b1_relative", 1.0), **changes}


def acquisition(noise: float, wrong: bool, seed: int = 1) -> ZSpectra:
    """Voxels of the same amine, whose constants are drawn from their standard deviations where they are wrong."""
    generator = torch.Generator().manual_seed(seed)
    draw = {path: sd * wrong * torch.randn(VOXELS, generator=generator).double() for path, sd in SDS.items()}
    pool = Pool("amine", 0.0015, 400.0, 1.0, 0.04 + draw["amine.T2_s"], 3.0)
    tissue = Tissue(Water(1.8 + draw["water.T1_s"], 0.1 + draw["water.T2_s"]), (pool,))
    z = simulate(tissue, PROTOCOL, engine="r1rho", b1_relative=1 + draw["b1_relative"])
    return ZSpectra(z + noise * torch.randn(z.shape, generator=generator).double(), PROTOCOL)


def coverage(maps: dict[str, torch.Tensor], name: str, truth: float) -> float:
    """Share of the voxels in which the truth lies within 1.96 standard errors."""
    return float(((maps[name] - truth).abs() <= 1.96 * maps[f"{name}_sd"]).double().mean())


@pytest.mark.parametrize(("name", "truth"), [("amine_fraction", 0.0015), ("amine_exchange_rate_Hz", 400.0)])
def test_intervals_cover_the_truth_only_with_uncertain_constants(name: str, truth: float) -> None:
    spectra = acquisition(0.002, wrong=True)
    certain = quantify(spectra, "r1rho", Settings(model=tissue_model_from_dict(model({})))).quantities
    uncertain = quantify(spectra, "r1rho", Settings(model=tissue_model_from_dict(model(SDS)))).quantities
    assert coverage(certain, name, truth) < 0.7
    assert coverage(uncertain, name, truth) > 0.93
    spread = float((uncertain[name] - truth).square().mean().sqrt())
    assert 0.85 * spread < float(uncertain[f"{name}_sd"].median()) < 1.6 * spread
    assert f"{name}_limit" not in certain


def test_standard_errors_are_those_of_a_joint_fit_with_priors() -> None:
    """Marginal to first order: the constants as fitted values with Gaussian priors have the same uncertainty."""
    spectra = acquisition(0.002, wrong=False).of_voxels(torch.arange(5))
    alone = fit_tissue_model(spectra, tissue_model_from_dict(model(SDS)), noise_sd=0.002)
    found = confidence_of(alone, 0.002)
    joint = model({})
    fitted = {"fit": True, "bounds": [1e-3, 10.0]}
    joint["water"] = {
        "T1_s": {**fitted, "start": 1.8, "prior": [1.8, SDS["water.T1_s"]]},
        "T2_s": {**fitted, "start": 0.1, "prior": [0.1, SDS["water.T2_s"]]},
    }
    joint["solutes"][0]["T2_s"] = {**fitted, "start": 0.04, "prior": [0.04, SDS["amine.T2_s"]]}
    joint["b1_relative"] = {**fitted, "start": 1.0, "prior": [1.0, SDS["b1_relative"]]}
    both = fit_tissue_model(spectra, tissue_model_from_dict(joint), noise_sd=0.002)
    paths = [parameter.path for parameter in both.signal_model.tissue.parameters]
    for i, path in enumerate(found.paths):
        # the joint fit also learns the constants from the data, which a marginal of the conditional fit does not
        ratio = found.standard_errors[:, i] / both.result.standard_errors[:, paths.index(path)]
        assert bool((ratio > 0.95).all())
    noise = confidence_of(alone, 0.002).noise_variance.sqrt()
    torch.testing.assert_close(noise, alone.result.standard_errors.double(), rtol=2e-2, atol=0)


def test_the_limit_is_noise_model_or_constants() -> None:
    uncertain = Settings(model=tissue_model_from_dict(model({"b1_relative": 0.05})), noise_sd=0.002)
    maps = quantify(acquisition(0.002, wrong=False), "r1rho", uncertain).quantities
    assert float(maps["amine_fraction_limit"].mode().values) == Limit.CONSTANTS
    assert float(maps["chi2_reduced"].mean()) == pytest.approx(1.0, abs=0.05)
    exact = Settings(model=tissue_model_from_dict(model({"b1_relative": 1e-4})), noise_sd=0.002)
    maps = quantify(acquisition(0.002, wrong=False), "r1rho", exact).quantities
    assert float(maps["amine_fraction_limit"].mode().values) == Limit.NOISE
    other = Tissue(
        Water(1.8, 0.1), (Pool("amine", 0.0015, 400.0, 1.0, 0.04, 3.0), Pool("hidden", 0.002, 80.0, 1.0, 0.1, 2.0))
    )
    z = simulate(other, PROTOCOL, engine="r1rho")
    result = quantify(ZSpectra(z, PROTOCOL), "r1rho", exact)
    assert float(result.quantities["amine_fraction_limit"]) == Limit.MODEL
    assert float(result.quantities["chi2_reduced"]) > 10
    assert result.summary["limited_by_model amine.fraction"] == 1.0


def test_uncertain_maps_widen_the_errors_too() -> None:
    spectra = acquisition(0.002, wrong=False)
    b1 = torch.ones(VOXELS).double()
    with_map = ZSpectra(spectra.signal, PROTOCOL, b1_relative=b1, maps={"b1": b1})
    settings = Settings(model=tissue_model_from_dict(model({}, b1_relative={"map": "b1", "sd": 0.05})))
    by_map = quantify(with_map, "r1rho", settings).quantities["amine_fraction_sd"]
    by_number = Settings(model=tissue_model_from_dict(model({"b1_relative": 0.05})))
    torch.testing.assert_close(by_map, quantify(spectra, "r1rho", by_number).quantities["amine_fraction_sd"])


def test_the_noise_of_repeated_measurements_gives_a_chi_square_without_an_option() -> None:
    twice = torch.arange(45).repeat_interleave(2)
    spectra = acquisition(0.0, wrong=False)
    repeated = spectra.signal[:, twice]
    noisy = repeated + 0.003 * torch.randn(repeated.shape, generator=torch.Generator().manual_seed(3)).double()
    study = ZSpectra(noisy, PROTOCOL.select(twice))
    result = quantify(study, "r1rho", Settings(model=tissue_model_from_dict(model({}))))
    assert result.summary["noise_sd"] == pytest.approx(0.003, rel=0.02)
    assert float(result.quantities["chi2_reduced"].mean()) == pytest.approx(1.0, abs=0.05)


def test_maps_of_the_limit_are_among_the_quality_maps() -> None:
    assert quantity_named("amine_fraction_limit").quality
    assert quantity_named("amine_exchange_rate_Hz_limit").unit == ""
    assert quantity_named("chi2_reduced").quality


def test_the_noise_of_m0_widens_the_standard_errors_unless_the_scale_is_fitted() -> None:
    """Noise of M0 changes all signals of a voxel in proportion, which a fitted scale takes up."""
    noise = 0.01
    exact = acquisition(0.0, wrong=False).signal
    generator = torch.Generator().manual_seed(7)
    z = exact + noise * torch.randn(exact.shape, generator=generator).double()
    z = z / (1 + noise * torch.randn(VOXELS, 1, generator=generator).double())
    free_r2 = model({})
    free_r2["water"]["T2_s"] = {"fit": True, "start": 0.09, "bounds": [0.03, 0.3]}
    scaled = {**free_r2, "signal_scale": {"fit": True, "start": 1.0, "bounds": [0.8, 1.2]}}
    found = {}
    for name, values in {"own": free_r2, "scale": scaled}.items():
        for share in (0.0, 1.0):
            maps = quantify(
                ZSpectra(z, PROTOCOL, reference_noise=share), "r1rho", Settings(model=tissue_model_from_dict(values))
            ).quantities
            assert not any(key.endswith("_limit") for key in maps)  # the noise is not known
            found[name, share] = maps
    maps = found["own", 1.0]
    for key in ("water_r2_Hz", "amine_fraction"):
        assert float(maps[key].std()) == pytest.approx(float(maps[f"{key}_sd"].median()), rel=0.12), key
    assert float((maps["water_r2_Hz_sd"] / found["own", 0.0]["water_r2_Hz_sd"]).median()) > 1.2
    known = {**scaled, "signal_scale": {**scaled["signal_scale"], "prior": {"mean": 1.0, "sd": noise}}}
    settings = Settings(model=tissue_model_from_dict(known), noise_sd=noise)
    weighed = quantify(ZSpectra(z, PROTOCOL), "r1rho", settings).quantities
    # a scale that is known as well as M0 is the better fit, and its standard errors are honest too
    assert float(weighed["water_r2_Hz"].std()) == pytest.approx(float(weighed["water_r2_Hz_sd"].median()), rel=0.12)
    assert float(weighed["water_r2_Hz"].std()) < 0.7 * float(maps["water_r2_Hz"].std())
    ratio = found["scale", 1.0]["water_r2_Hz_sd"] / found["scale", 0.0]["water_r2_Hz_sd"]
    assert float(ratio.median()) == pytest.approx(1.0, abs=1e-3)
