"""Posteriors of single spectra: intervals that hold the truth as often as they say."""

from __future__ import annotations

import csv
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from studies import write_image

from CESTQuantLib.physics.pools import Pool, Tissue, Water
from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.physics.simulation import simulate
from CESTQuantLib.scene.posterior import require_posterior
from CESTQuantLib.tissue.confidence.posterior import (
    FEWEST_EFFECTIVE,
    NoPosteriorError,
    Posterior,
    posterior_columns,
    posterior_of,
)
from CESTQuantLib.tissue.fit import fit_tissue_model
from CESTQuantLib.tissue.model import TissueModel, tissue_model_from_dict
from CESTQuantLib.tissue.model_fits.signal_model import SignalModel
from CESTQuantLib.tissue.spectra import ZSpectra

PROTOCOL = Protocol(
    3.0, torch.tensor([-6, 2.5, 3, 3.5, 4, 4.5, 2.5, 3, 3.5, 4, 4.5]), [2.0] + 5 * [1.0] + 5 * [3.0], 3.0
)
BOUNDS = {"fraction": (1e-5, 0.004), "k_Hz": (5.0, 300.0)}
NOISE = 0.008


AMIDE: dict[str, Any] = {"name": "amide", "dw_ppm": 3.5, "T1_s": 1.0, "T2_s": 0.05, "protons": 1} | {
    key: {"fit": True, "bounds": list(bounds)} for key, bounds in BOUNDS.items()
}


def model(**water: Any) -> TissueModel:
    return tissue_model_from_dict({"water": {"T1_s": 1.3, "T2_s": 0.08, **water}, "solutes": [AMIDE]})


def voxels(count: int, t1_sd: float = 0.0) -> tuple[ZSpectra, dict[str, torch.Tensor]]:
    """Noisy spectra of amides that are drawn from the prior, uniform between the bounds."""
    generator = torch.Generator().manual_seed(5)
    truth = {
        key: low + (high - low) * torch.rand(count, generator=generator).double() for key, (low, high) in BOUNDS.items()
    }
    t1 = 1.3 + t1_sd * torch.randn(count, generator=generator).double()
    tissue = Tissue(Water(t1, 0.08), (Pool("amide", truth["fraction"], truth["k_Hz"], 1.0, 0.05, 3.5),))
    z = simulate(tissue, PROTOCOL, engine="r1rho")
    return ZSpectra(z + NOISE * torch.randn(z.shape, generator=generator).double(), PROTOCOL), truth


@pytest.mark.slow
@pytest.mark.parametrize("noise_sd", [NOISE, None], ids=["known noise", "unknown noise"])
def test_intervals_hold_the_truth_as_often_as_they_say(noise_sd) -> None:
    spectra, truth = voxels(50)
    inside, laplace = {"fraction": 0, "exchange_rate_Hz": 0}, 0
    fit = fit_tissue_model(spectra, model(), noise_sd=NOISE)
    for i in range(spectra.voxel_count):
        found = posterior_of(spectra.of_voxels(torch.tensor([i])), model(), noise_sd=noise_sd)
        assert found.effective_samples > FEWEST_EFFECTIVE
        for name, key in (("fraction", "fraction"), ("exchange_rate_Hz", "k_Hz")):
            low, high = (found.quantile(f"amide_{name}", p) for p in (0.025, 0.975))
            inside[name] += low <= float(truth[key][i]) <= high
        error = (fit.quantities["amide_exchange_rate_Hz"] - truth["k_Hz"])[i].abs()
        laplace += bool(error <= 1.96 * fit.quantities["amide_exchange_rate_Hz_sd"][i])
    # 95 % of 50 are 47.5, with a standard deviation of 1.5
    assert all(count >= 44 for count in inside.values())
    assert laplace < min(inside.values())  # symmetric intervals, and none where a value is at its bound


def test_where_the_noise_is_low_the_posterior_is_that_of_the_fit() -> None:
    tissue = Tissue(Water(1.3, 0.08), (Pool("amide", 0.002, 100.0, 1.0, 0.05, 3.5),))
    spectrum = ZSpectra(simulate(tissue, PROTOCOL, engine="r1rho"), PROTOCOL)
    fit = fit_tissue_model(spectrum, model(), noise_sd=1e-4)
    found = posterior_of(spectrum, model(), noise_sd=1e-4)
    sd = float(fit.quantities["amide_exchange_rate_Hz_sd"])
    assert found.quantile("amide_exchange_rate_Hz", 0.5) == pytest.approx(100, abs=0.1 * sd)
    width = found.quantile("amide_exchange_rate_Hz", 0.975) - found.quantile("amide_exchange_rate_Hz", 0.025)
    assert width == pytest.approx(2 * 1.96 * sd, rel=0.1)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_noise_of_m0_that_all_measurements_share_takes_part(share: float) -> None:
    amide = {"name": "amide", "fraction": {"fit": True, "bounds": [1e-5, 0.05]}, "k_Hz": 100.0, "dw_ppm": 3.5}
    semisolid = {"fraction": {"fit": True, "bounds": [0.001, 0.3]}, "k_Hz": 30.0, "T1_s": 1.3, "T2_s": 1e-5}
    tissue = tissue_model_from_dict(
        {
            "water": {"T1_s": 1.3, "T2_s": 0.08},
            "solutes": [amide | {"T1_s": 1.3, "T2_s": 0.02}],
            "semisolid": semisolid | {"dw_ppm": -2.5, "lineshape": "lorentzian"},
        }
    )
    protocol, noise_sd = Protocol(3.0, torch.linspace(-6, 6, 25).double(), 1.5, 3.0), 1e-3
    true = {"amide": 0.002, "semisolid": 0.08}
    paths = [parameter.path.removesuffix(".fraction") for parameter in tissue.parameters]
    fractions = torch.tensor([true[path] for path in paths]).double()
    signal = SignalModel(tissue, protocol, "r1rho").predict
    z = signal(fractions[:, None])[:, 0]
    jacobian = (signal(fractions[:, None] + 1e-5 * torch.eye(2).double()) - z[:, None]) / 1e-5
    covariance = noise_sd**2 * (torch.eye(len(z)).double() + share * torch.outer(z, z))
    sd = torch.linalg.inv(jacobian.T @ torch.linalg.inv(covariance) @ jacobian).diagonal().sqrt()
    found = posterior_of(ZSpectra(z[None], protocol, reference_noise=share), tissue, noise_sd=noise_sd)
    for path, expected in zip(paths, sd, strict=True):
        low, high = (found.quantile(f"{path}_fraction", probability) for probability in (0.025, 0.975))
        assert (low + high) / 2 == pytest.approx(true[path], abs=0.2 * float(expected))
        assert high - low == pytest.approx(2 * 1.96 * float(expected), rel=0.1)


def test_a_fitted_scale_of_the_signal_takes_up_the_noise_of_m0() -> None:
    spectrum = voxels(1)[0]
    scale = {"signal_scale": {"fit": True, "bounds": [0.8, 1.2], "prior": {"mean": 1.0, "sd": NOISE}}}
    tissue = tissue_model_from_dict({**scale, "water": {"T1_s": 1.3, "T2_s": 0.08}, "solutes": [AMIDE]})
    without, with_share = (
        posterior_of(replace(spectrum, reference_noise=share), tissue, noise_sd=NOISE) for share in (0.0, 1.0)
    )
    torch.testing.assert_close(without.values["signal_scale"], with_share.values["signal_scale"])


def test_uncertain_constants_take_part() -> None:
    tissue = Tissue(Water(1.3, 0.08), (Pool("amide", 0.002, 100.0, 1.0, 0.05, 3.5),))
    spectra = ZSpectra(simulate(tissue, PROTOCOL, engine="r1rho"), PROTOCOL)
    exact = posterior_of(spectra, model(), noise_sd=1e-3)
    uncertain = posterior_of(spectra, model(T1_s={"value": 1.3, "sd": 0.2}), noise_sd=1e-3)

    def width(posterior: Posterior) -> float:
        return posterior.quantile("amide_fraction", 0.975) - posterior.quantile("amide_fraction", 0.025)

    assert width(uncertain) > 1.2 * width(exact)
    assert set(uncertain.values) == {"amide_fraction", "amide_concentration_mM", "amide_exchange_rate_Hz"}


def test_quantiles_follow_the_weights() -> None:
    posterior = Posterior({"x": torch.tensor([3.0, 1.0, 2.0])}, torch.tensor([0.1, 0.8, 0.1]))
    assert posterior.quantile("x", 0.4) == pytest.approx(1.0)
    assert posterior.quantile("x", 0.999) == pytest.approx(3.0)
    columns = posterior_columns({"tumour": posterior})
    assert (columns["region"], columns["quantity"]) == (["tumour"], ["x"])
    assert columns["lower"][0] <= columns["median"][0] <= columns["upper"][0]


def test_a_posterior_is_that_of_one_spectrum() -> None:
    with pytest.raises(ValueError, match="a posterior is that of one spectrum, not of 3"):
        posterior_of(voxels(3)[0], model())


def test_the_command_writes_the_posteriors_of_the_regions(quantified, good) -> None:
    files = {name: good / f"{name}.nii.gz" for name in ("b0", "b1", "t1")}
    output = quantified(
        good, "r1rho", model=good / "model.json", segmentation=good / "mask.nii.gz", posterior=True, **files
    )
    with (output / "posterior.csv").open(encoding="utf-8") as file:
        rows = {row["quantity"]: row for row in csv.DictReader(file)}
    row = rows["amine_exchange_rate_Hz"]
    assert float(row["lower"]) < float(row["median"]) < float(row["upper"])
    assert float(row["effective_samples"]) > FEWEST_EFFECTIVE


def test_a_region_that_cannot_be_fitted_has_no_posterior_and_the_others_have_theirs(
    quantified, good, acquisition, tmp_path
) -> None:
    files = {name: good / f"{name}.nii.gz" for name in ("b0", "b1")}
    t1, labels = acquisition.maps["t1"].copy(), np.ones(acquisition.maps["t1"].shape, np.float32)
    t1[1:], labels[1:] = 0, 2
    files["t1"] = write_image(t1, acquisition.geometry, tmp_path / "t1.nii.gz")
    files["segmentation"] = write_image(labels, acquisition.geometry, tmp_path / "regions.nii.gz")
    told = ("the region 'label 2' has no posterior: the map 't1' of the model has no value there", "no usable result")
    output = quantified(good, "r1rho", told, model=good / "model.json", posterior=True, **files)
    with (output / "posterior.csv").open(encoding="utf-8") as file:
        assert {row["region"] for row in csv.DictReader(file)} == {"label 1"}


def test_the_reason_for_a_missing_posterior_is_told() -> None:
    spectrum = voxels(1)[0]
    of_t1 = replace(spectrum, t1_s=torch.tensor([0.0]), maps={"t1": torch.tensor([0.0])})
    with pytest.raises(NoPosteriorError, match="the map 't1' of the model has no value there"):
        posterior_of(of_t1, model(T1_s={"map": "t1"}))
    with pytest.raises(NoPosteriorError, match="its mean spectrum has no usable signal"):
        posterior_of(replace(spectrum, signal=0 * spectrum.signal), model())
    with pytest.raises(NoPosteriorError, match="it has fewer measurements than the model has fitted values"):
        posterior_of(spectrum.select(torch.tensor([1])), model())


def test_posteriors_need_a_model_fit_and_regions() -> None:
    with pytest.raises(ValueError, match=r"of a model fit \(r1rho or bloch-mcconnell\), not of the method mtrasym"):
        require_posterior("mtrasym", {"tumour": np.ones((1, 1, 1), bool)})
    with pytest.raises(ValueError, match=r"give a segmentation \(--segmentation\)"):
        require_posterior("r1rho", {})
