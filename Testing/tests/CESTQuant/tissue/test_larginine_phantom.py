"""Measured data: a phantom with 50 mM of L-arginine at three pH, fitted and reconstructed by a network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from fit_cases import fitted
from paths import SHARED
from scipy import ndimage

from CESTQuantLib.formats.protocol_files import read_protocol
from CESTQuantLib.networks.config import read_config
from CESTQuantLib.networks.files import check_protocol
from CESTQuantLib.networks.fixed_protocol import train_from_config
from CESTQuantLib.networks.reconstruction import reconstruct
from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.preprocessing.normalization import normalize
from CESTQuantLib.tissue.fit import ModelFit, fit_tissue_model
from CESTQuantLib.tissue.model import tissue_model_from_dict
from CESTQuantLib.tissue.quantities import named_quantities

pytestmark = pytest.mark.slow

CONCENTRATION_MM = 50.0
INDEPENDENT = {"concentration_mM": [48.2, 51.2, 54.4], "exchange_rate_Hz": [191.0, 260.0, 404.0]}
"""Independent fits of the vial means by matrix exponentials, water T1 fixed at 2.5 s, by ascending exchange rate."""
INDEPENDENT_ERROR_MM = [6.1, 3.8, 1.4]


@dataclass(frozen=True)
class Vial:
    signal: torch.Tensor  # (voxel, measurement)
    published_rates_Hz: list[float]  # medians by dictionary matching and by the network

    @property
    def published_network_rate_Hz(self) -> float:
        return self.published_rates_Hz[1]


@dataclass(frozen=True)
class Phantom:
    vials: list[Vial]  # by ascending published exchange rate
    protocol: Protocol

    def fit(self, signal: torch.Tensor) -> ModelFit:
        """Fit fraction, exchange rate and water T2, with water T1 fixed as published."""

        amine = {"name": "amine", "protons": 3, "dw_ppm": 3.0, "T1_s": 2.8, "T2_s": 0.04}
        amine |= {"fraction": fitted(1e-3, 1e-5, 1e-2), "k_Hz": fitted(300, 5, 1500)}
        model = {"water": {"T1_s": 2.5, "T2_s": fitted(1.0, 0.3, 2.5)}, "solutes": [amine], "semisolid": None}
        spectra = normalize(signal, self.protocol, None)
        return fit_tissue_model(spectra, tissue_model_from_dict(model), engine="bloch-mcconnell")


def image(folder: Path, name: str) -> np.ndarray:
    return np.squeeze(sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"{name}.nii.gz"))))


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    folder = SHARED / "data" / "cest" / "larginine_9p4T_mrf"
    if not folder.exists():
        pytest.skip("needs the L-arginine phantom of the shared data, which is not on this machine")
    labels, count = ndimage.label(image(folder, "mask") > 0)
    assert count == 3
    signal = torch.from_numpy(image(folder, "signal").astype(float))
    published = [image(folder, f"published_{source}_ksw") for source in ("dotproduct", "nn")]
    vials = []
    for label in range(1, 4):
        inside = labels == label
        rates = [float(np.median(rate[inside])) for rate in published]
        vials.append(Vial(signal[:, torch.from_numpy(inside)].T, rates))
    vials.sort(key=lambda vial: vial.published_rates_Hz[0])
    return Phantom(vials, read_protocol(folder / "protocol.json"))


@pytest.fixture(scope="module")
def fits(phantom: Phantom) -> list[ModelFit]:
    return [phantom.fit(vial.signal) for vial in phantom.vials]


@pytest.fixture(scope="module")
def reconstructions(phantom: Phantom) -> list[dict[str, torch.Tensor]]:
    """Maps of every vial by a network for the preset of this schedule.

    It is trained with a sixth of the preset's spectra and three fifths of its epochs, which takes some ten seconds.
    """
    config = read_config("larginine_9p4T")
    check_protocol(config.protocol, phantom.protocol)
    config = replace(config, samples=10_000, settings=replace(config.settings, epochs=60))
    file, _ = train_from_config(config, threads=1)
    protons = file.distribution.structure.protons
    maps = []
    for vial in phantom.vials:
        signal = normalize(vial.signal, phantom.protocol, None).signal
        found = reconstruct(file.network, signal.float())
        means = {path: found.mean[:, i] for i, path in enumerate(file.targets)}
        maps.append(named_quantities(means, {}, protons))
    return maps


def test_a_network_finds_the_concentration_of_every_vial_within_10_percent(reconstructions):
    for maps in reconstructions:
        assert float(maps["amine_concentration_mM"].nanmedian()) == pytest.approx(CONCENTRATION_MM, rel=0.10)


def test_a_network_finds_exchange_rates_within_15_percent_of_those_of_the_published_network(phantom, reconstructions):
    for maps, vial in zip(reconstructions, phantom.vials, strict=True):
        rate = float(maps["amine_exchange_rate_Hz"].nanmedian())
        assert rate == pytest.approx(vial.published_network_rate_Hz, rel=0.15)


def medians(fits: list[ModelFit], quantity: str) -> list[float]:
    return [float(fit.quantities[f"amine_{quantity}"].nanmedian()) for fit in fits]


def test_the_concentration_of_every_vial_is_within_10_percent(fits):
    for concentration in medians(fits, "concentration_mM"):
        assert concentration == pytest.approx(CONCENTRATION_MM, rel=0.10)


def test_exchange_rates_rise_with_ph_as_published(phantom, fits):
    rates = medians(fits, "exchange_rate_Hz")
    assert rates == sorted(rates)
    for rate, vial in zip(rates, phantom.vials, strict=True):
        for published in vial.published_rates_Hz:
            assert rate == pytest.approx(published, rel=0.20)


def test_vial_means_agree_with_independent_fits_within_their_errors(phantom):
    for i, vial in enumerate(phantom.vials):
        unit = vial.signal / vial.signal.norm(dim=1, keepdim=True)
        maps = phantom.fit(unit.mean(0, keepdim=True)).quantities
        assert float(maps["amine_concentration_mM"]) == pytest.approx(
            INDEPENDENT["concentration_mM"][i], abs=INDEPENDENT_ERROR_MM[i] / 3
        )
        assert float(maps["amine_concentration_mM_sd"]) == pytest.approx(INDEPENDENT_ERROR_MM[i], rel=0.1)
        assert float(maps["amine_exchange_rate_Hz"]) == pytest.approx(INDEPENDENT["exchange_rate_Hz"][i], rel=0.01)
        assert 1.5e-3 < float(maps["rmse"]) < 2.1e-3


def test_the_fit_reports_the_strong_correlation_of_fraction_and_rate(fits):
    for fit in fits:
        assert fit.median_correlation()["amine.k_Hz, amine.fraction"] < -0.85


def test_almost_every_voxel_is_fitted(fits):
    for fit in fits:
        assert float(fit.result.fitted.double().mean()) > 0.99
