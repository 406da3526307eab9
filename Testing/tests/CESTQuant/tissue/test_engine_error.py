"""The R1rho engine: its error in its regime, and the estimate of its own error in fits."""

from __future__ import annotations

import torch
from fit_cases import MODEL, fit, model_with, study

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


def _values(truth: dict[str, torch.Tensor]) -> dict:
    return tissue_model_from_dict(MODEL).values(truth, {})
