"""The R1rho engine: its error in its regime, and the estimate of its own error in fits."""

from __future__ import annotations

import warnings

import pytest
import torch
from fit_cases import B1, MODEL, PROTOCOL, fit, fitted, model_with, study

import CESTQuantLib
from CESTQuantLib.methods.base import Settings
from CESTQuantLib.methods.registry import quantify
from CESTQuantLib.physics.pools import Pool, Semisolid, Tissue, Water
from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.physics.simulation import simulate
from CESTQuantLib.tissue.engine_error import estimate_engine_error
from CESTQuantLib.tissue.model import tissue_model_from_dict
from CESTQuantLib.tissue.spectra import ZSpectra

SHORT = Protocol(9.4, torch.tensor([-3.0, -0.5, 0.5, 1.5, 2.5, 3.0, 3.5] * 3), [1.0] * 7 + [3.0] * 7 + [6.0] * 7, 0.2)
"""Saturation that is short against T2, also near water."""


def test_95_percent_of_the_errors_in_brain_tissue_are_below_3e_3_and_none_above_6e_3() -> None:
    generator = torch.Generator().manual_seed(1)

    def spread(low: float, high: float) -> torch.Tensor:
        return low * (high / low) ** torch.rand(60, generator=generator, dtype=torch.float64)

    side = torch.linspace(1, 8, 10, dtype=torch.float64)
    errors = []
    for b1_uT in (0.5, 1.0, 2.0, 4.0):
        solutes = (
            Pool("amide", spread(1e-4, 2e-3), spread(20, 200), 1.0, 0.1, 3.5),
            Pool("amine", spread(1e-4, 2e-3), spread(200, 5000), 1.0, 0.02, 2.0),
            Pool("noe", spread(1e-4, 5e-3), spread(5, 50), 1.0, 1e-3, -3.5),
        )
        semisolid = Semisolid(spread(0.02, 0.15), spread(10, 60), 1.0, 1e-5, -2.0, lineshape="superlorentzian")
        tissue = Tissue(Water(spread(0.8, 2.0), spread(0.04, 0.12)), solutes, semisolid)
        protocol = Protocol(3.0, torch.cat((-side, side)), b1_uT, 2.0)
        errors.append((simulate(tissue, protocol, engine="r1rho") - simulate(tissue, protocol)).abs().flatten())
    error = torch.cat(errors)
    assert error.quantile(0.95) < 3.1e-3
    assert error.max() < 6e-3


def test_a_fit_within_the_regime_has_a_small_error_and_no_warning() -> None:
    error = estimate_engine_error(fit(study(30, "bloch-mcconnell", noise=0.002)[0]))
    assert error is not None
    assert error.largest < 2e-3
    assert error.warning("r1rho") is None


def test_a_fit_outside_the_regime_says_by_how_much_it_is_wrong() -> None:
    signal, truth = study(30, "bloch-mcconnell", protocol=SHORT, noise=0.002)
    found = fit(signal, protocol=SHORT)
    error = estimate_engine_error(found)
    assert error is not None
    actual = simulate(tissue_model_from_dict(MODEL).tissue(_values(truth)), SHORT, engine="r1rho") - simulate(
        tissue_model_from_dict(MODEL).tissue(_values(truth)), SHORT
    )
    assert 0.3 * actual.abs().max() < error.largest < 3 * actual.abs().max()
    spectra = ZSpectra(signal, SHORT)
    result = quantify(spectra, "r1rho", Settings(model=tissue_model_from_dict(model_with())))
    assert any("at the fitted values r1rho is off by up to" in warning for warning in result.warnings)
    assert result.summary["largest_engine_error"] == error.largest
    exact = quantify(
        spectra.of_voxels(torch.arange(2)), "bloch-mcconnell", Settings(model=tissue_model_from_dict(MODEL))
    )
    assert exact.warnings == ()


def test_a_fit_from_python_warns_outside_the_regime_as_the_command_does() -> None:
    signal, _ = study(5, "bloch-mcconnell", protocol=SHORT, noise=0.002)
    spectra, model = ZSpectra(signal, SHORT), tissue_model_from_dict(MODEL)
    with pytest.warns(UserWarning, match="prefer bloch-mcconnell") as caught:
        CESTQuantLib.fit(spectra, model)
    told = [str(warning.message) for warning in caught]
    command = quantify(spectra, "r1rho", Settings(model=model)).warnings
    assert told == [warning for warning in command if "prefer bloch-mcconnell" in warning]
    assert len(told) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CESTQuantLib.fit(spectra, model, engine="bloch-mcconnell")
        CESTQuantLib.fit(ZSpectra(study(5, "bloch-mcconnell", noise=0.002)[0], PROTOCOL), model)


@pytest.mark.parametrize("noise_sd", [0.002, None])
def test_a_prior_holds_back_what_the_engine_does_to_a_value(noise_sd: float | None) -> None:
    model = model_with(amine__k_Hz=fitted(300, 5, 1500, prior={"mean": 300, "sd": 1.0}))
    signal, _ = study(20, "bloch-mcconnell", model_with(amine__k_Hz=300.0), protocol=SHORT, noise=0.002)
    found = fit(signal, model, SHORT, noise_sd=noise_sd)
    exact = fit(signal, model, SHORT, engine="bloch-mcconnell", noise_sd=noise_sd)
    error = estimate_engine_error(found)
    assert error is not None
    moved = ((exact.result.parameters - found.result.parameters) / found.result.standard_errors).abs().amax(0)
    assert error.bias["amine.fraction"] == pytest.approx(float(moved[0]), rel=0.3)
    assert error.bias["amine.k_Hz"] == pytest.approx(float(moved[1]), abs=0.15)


def test_only_what_was_fitted_counts_in_the_error_of_the_engine() -> None:
    known = fit(study(10, "bloch-mcconnell", noise=0.002)[0])
    first = estimate_engine_error(known)
    near_water = Protocol(9.4, torch.cat((PROTOCOL.offsets_ppm, torch.zeros(2))), torch.cat((B1, torch.ones(2))), 3.0)
    signal = torch.cat((known.predict(torch.arange(10)), torch.ones(10, 2)), 1)
    signal[:, :30] = study(10, "bloch-mcconnell", noise=0.002)[0]
    valid = (torch.arange(32) < 30).expand(10, -1)
    second = estimate_engine_error(fit(signal, protocol=near_water, valid=valid))
    assert first is not None
    assert second is not None
    assert second.largest == pytest.approx(first.largest, rel=0.01)
    assert second.bias == pytest.approx(first.bias, rel=0.02)


def test_a_value_at_its_bound_does_not_share_in_the_error_of_the_engine() -> None:
    signal, _ = study(20, "bloch-mcconnell", noise=0.002)
    at_bound = fit(signal, model_with(amine__fraction=fitted(1e-3, 1e-5, 1e-2), amine__k_Hz=fitted(60, 5, 100)))
    fixed = fit(signal, model_with(amine__fraction=fitted(1e-3, 1e-5, 1e-2), amine__k_Hz=100.0))
    assert bool((at_bound.result.parameters[:, 1] == 100).all())
    first, second = estimate_engine_error(at_bound), estimate_engine_error(fixed)
    assert first is not None
    assert second is not None
    assert first.bias == pytest.approx(second.bias, rel=0.01)


def _values(truth: dict[str, torch.Tensor]) -> dict:
    return tissue_model_from_dict(MODEL).values(truth, {})
