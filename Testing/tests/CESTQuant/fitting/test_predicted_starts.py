"""Predicted starts: the same minima as from one start, with fewer iterations, and none where they would mislead."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from CESTQuantLib.fitting import predicted_starts as prediction
from CESTQuantLib.fitting.least_squares import FitResult, levenberg_marquardt
from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.physics.simulation import simulate
from CESTQuantLib.tissue.fit import fit_tissue_model
from CESTQuantLib.tissue.model import TissueModel, tissue_model_from_dict
from CESTQuantLib.tissue.model_fits import bloch_mcconnell, r1rho
from CESTQuantLib.tissue.spectra import ZSpectra

VOXELS = 2000


@pytest.fixture(autouse=True)
def used_for_few_voxels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction, "FEWEST_VOXELS", 1000)
    monkeypatch.setattr(r1rho, "FEWEST_VOXELS", 1000)


def amine() -> TissueModel:
    fraction = {"fit": True, "start": 1e-3, "bounds": [1e-5, 1e-2]}
    solute = {"name": "amine", "fraction": fraction, "T1_s": 2.8, "T2_s": 0.04, "dw_ppm": 3.0}
    rate = {"fit": True, "start": 300.0, "bounds": [5.0, 1500.0]}
    return tissue_model_from_dict({"water": {"T1_s": 2.5, "T2_s": 0.6}, "solutes": [solute | {"k_Hz": rate}]})


@pytest.fixture
def spectra() -> ZSpectra:
    generator = torch.Generator().manual_seed(1)
    share = torch.rand(VOXELS, 3, generator=generator)
    values = {"amine.fraction": 5e-4 + 2.5e-3 * share[:, 0], "amine.k_Hz": 100 + 600 * share[:, 1]}
    shift = 0.2 * share[:, 2] - 0.1
    protocol = Protocol(9.4, torch.tensor([2.5, 3.0, 3.5] * 6), torch.linspace(0.5, 6, 6).repeat_interleave(3), 3.0)
    clean = simulate(amine().tissue(amine().values(values, {})), protocol, b0_shift_ppm=shift, engine="r1rho")
    noise = 0.005 * torch.randn(clean.shape, generator=generator)
    return ZSpectra(clean + noise, protocol, b0_shift_ppm=shift)


def from_one_start(spectra: ZSpectra, monkeypatch: pytest.MonkeyPatch) -> FitResult:
    with monkeypatch.context() as patch:
        patch.setattr(r1rho, "FEWEST_VOXELS", VOXELS + 1)
        return fit_tissue_model(spectra, amine()).result


def test_the_same_minima_are_found_with_half_the_iterations(spectra: ZSpectra, monkeypatch: pytest.MonkeyPatch) -> None:
    own, predicted = from_one_start(spectra, monkeypatch), fit_tissue_model(spectra, amine()).result
    assert predicted.iterations.float().mean() < 0.5 * own.iterations.float().mean()
    assert torch.equal(predicted.status, own.status)
    assert ((predicted.parameters - own.parameters).abs() / own.standard_errors).nan_to_num(0).max() < 0.02
    torch.testing.assert_close(predicted.standard_errors, own.standard_errors, rtol=0.02, atol=0, equal_nan=True)


def test_a_corrected_r1rho_fit_hardly_needs_iterations_of_the_numerical_one(
    spectra: ZSpectra, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = spectra.of_voxels(torch.arange(60))
    corrected = fit_tissue_model(few, amine(), engine="bloch-mcconnell").result
    monkeypatch.setattr(bloch_mcconnell, "_towards_bloch_mcconnell", lambda spectra, model, analytic, start: start)
    monkeypatch.setattr(bloch_mcconnell, "TOLERANCE_AFTER_CORRECTION", 1e-8)
    plain = fit_tissue_model(few, amine(), engine="bloch-mcconnell").result
    assert corrected.iterations.float().mean() < 0.6 * plain.iterations.float().mean()
    assert torch.equal(corrected.status, plain.status)
    assert ((corrected.parameters - plain.parameters).abs() / plain.standard_errors).nan_to_num(0).max() < 0.01


def test_voxels_unlike_the_others_and_damaged_ones_end_as_without_prediction(
    spectra: ZSpectra, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal = spectra.signal.clone()
    signal[7] = torch.linspace(1.0, 0.1, signal.shape[1])  # explained by no tissue of the model
    signal[11] = torch.nan
    valid = torch.ones_like(signal, dtype=torch.bool)
    signal[13, 0], valid[13, 0] = torch.nan, False
    damaged = replace(spectra, signal=signal, valid=valid)
    own, predicted = from_one_start(damaged, monkeypatch), fit_tissue_model(damaged, amine()).result
    assert torch.equal(predicted.status, own.status)
    for voxel in (7, 13):
        assert predicted.rmse[voxel] <= 1.001 * own.rmse[voxel]


def test_a_prediction_that_leads_to_other_minima_is_not_used() -> None:
    """All but one measurement depend on the parameter's square: with the wrong sign the fit ends in a worse minimum."""
    generator = torch.Generator().manual_seed(2)
    lower, upper = torch.tensor([-2.0]), torch.tensor([2.0])
    truth = torch.where(torch.rand(VOXELS, 1, generator=generator) < 0.5, -1.0, 1.0)
    linear = torch.tensor([0.1] + 7 * [0.0])
    data = (1 - linear.sign()) * truth.square() + linear * truth
    data = data + 0.02 * torch.randn(VOXELS, 8, generator=generator)

    def model(parameters: Tensor) -> tuple[Tensor, Tensor]:
        slope = linear.unsqueeze(1)
        value = (1 - slope.sign()) * parameters.square() + slope * parameters
        return value, (2 * (1 - slope.sign()) * parameters + slope).unsqueeze(0)

    def fit(index: Tensor, start: Tensor | None) -> FitResult:
        given = 0.9 * truth[index] if start is None else -start  # the model's own starts have the right sign
        return levenberg_marquardt(model, data[index], given, lower, upper)

    everywhere = torch.ones(VOXELS, dtype=torch.bool)
    assert prediction.predicted_starts(data, [], everywhere, lower, upper, fit) is None


def test_few_voxels_are_not_worth_a_pilot() -> None:
    def never(index: Tensor, start: Tensor | None) -> FitResult:
        raise AssertionError("no voxel may be fitted")

    usable = torch.ones(999, dtype=torch.bool)
    limits = torch.zeros(1), torch.ones(1)
    assert prediction.predicted_starts(torch.rand(999, 4), [], usable, *limits, never) is None
