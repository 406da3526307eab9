"""Voxelwise fits of tissue models: recovery, honest standard errors, maps, priors and flags."""

from __future__ import annotations

import pytest
import torch
from CESTQuantLib.fitting import Status, finite_difference_model
from CESTQuantLib.model_fit import fit_tissue_model
from CESTQuantLib.protocol import Protocol
from CESTQuantLib.r1rho_jacobian import has_analytic_jacobian, prediction_and_jacobian
from CESTQuantLib.simulation import simulate
from CESTQuantLib.tissue_model import TissueModel, tissue_model_from_dict

OFFSETS = torch.linspace(1.5, 4.5, 15, dtype=torch.float64)
PROTOCOL = Protocol(9.4, OFFSETS.repeat(2), torch.tensor([1.0, 2.5]).repeat_interleave(15).double(), 3.0)
NOISE_SD = 0.002


def fitted(start: float, low: float, high: float, **more) -> dict:
    return {"fit": True, "start": start, "bounds": [low, high], **more}


def model(water: dict | None = None, semisolid: dict | None = None, **amine) -> TissueModel:
    solute = {"name": "amine", "protons": 3, "dw_ppm": 3.0, "T1_s": 2.8, "T2_s": 0.04}
    solute |= {"fraction": fitted(1e-3, 1e-5, 1e-2), "k_Hz": fitted(300, 5, 1500), **amine}
    values = {"water": {"T1_s": 2.0, "T2_s": 0.1} | (water or {}), "solutes": [solute], "semisolid": semisolid}
    return tissue_model_from_dict(values)


def truth(voxels: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    fraction = 5e-4 + 2e-3 * torch.rand(voxels, generator=generator, dtype=torch.float64)
    rate = 100 + 500 * torch.rand(voxels, generator=generator, dtype=torch.float64)
    return {"amine.fraction": fraction, "amine.k_Hz": rate}


def signal(values: dict, engine: str, noise: float = 0.0, tissue: TissueModel | None = None, **fields) -> torch.Tensor:
    tissue = tissue or model()
    z = simulate(tissue.tissue(tissue.values(values, {})), PROTOCOL, engine=engine, **fields)
    return z + noise * torch.randn(z.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("engine", ["r1rho", "bloch-mcconnell"])
def test_fraction_and_rate_are_recovered_from_clean_data(engine):
    values = truth(40)
    fit = fit_tissue_model(signal(values, engine), PROTOCOL, model(), engine=engine)
    assert (fit.result.status == Status.CONVERGED).all()
    torch.testing.assert_close(fit.quantities["amine_fraction"].double(), values["amine.fraction"], rtol=1e-3, atol=0)
    torch.testing.assert_close(
        fit.quantities["amine_exchange_rate_Hz"].double(), values["amine.k_Hz"], rtol=1e-3, atol=0
    )
    expected_mM = values["amine.fraction"] * 110000 / 3
    torch.testing.assert_close(fit.quantities["amine_concentration_mM"].double(), expected_mM, rtol=1e-3, atol=0)


@pytest.mark.parametrize(("engine", "voxels", "slack"), [("r1rho", 6000, 0.015), ("bloch-mcconnell", 400, 0.04)])
def test_estimates_are_unbiased_and_95_percent_intervals_cover(engine, voxels, slack):
    values = truth(voxels)
    fit = fit_tissue_model(signal(values, engine, NOISE_SD), PROTOCOL, model(), engine=engine)
    # Student's t for 30 measurements and 2 parameters
    for name, path in (("amine_fraction", "amine.fraction"), ("amine_exchange_rate_Hz", "amine.k_Hz")):
        score = (fit.quantities[name].double() - values[path]) / fit.quantities[f"{name}_sd"].double()
        assert float((score.abs() < 2.048).double().mean()) == pytest.approx(0.95, abs=slack)
        assert abs(float(score.mean())) < 4 / voxels**0.5 + 0.05
    assert float(fit.quantities["rmse"].median()) == pytest.approx(NOISE_SD * (28 / 30) ** 0.5, rel=0.05)


@pytest.mark.parametrize("engine", ["r1rho", "bloch-mcconnell"])
def test_field_and_t1_maps_are_used(engine):
    values = truth(12)
    fields = {
        "b0_shift_ppm": torch.linspace(-0.2, 0.2, 12).double(),
        "b1_relative": torch.linspace(0.8, 1.2, 12).double(),
    }
    t1 = torch.linspace(1.2, 2.6, 12).double()
    mapped = model(water={"T1_s": {"map": "t1"}})
    z = simulate(mapped.tissue(mapped.values(values, {"t1": t1})), PROTOCOL, engine=engine, **fields)
    right = fit_tissue_model(z, PROTOCOL, mapped, engine=engine, maps={"t1": t1}, **fields)
    torch.testing.assert_close(right.quantities["amine_fraction"].double(), values["amine.fraction"], rtol=2e-3, atol=0)
    wrong = fit_tissue_model(z, PROTOCOL, mapped, engine=engine, maps={"t1": t1})
    assert float(wrong.result.rmse.median()) > 20 * float(right.result.rmse.median())


def test_a_prior_pulls_an_uncertain_value_towards_its_mean():
    values = truth(200)
    z = signal(values, "r1rho", noise=0.02)
    prior = {"prior": {"mean": 300.0, "sd": 5.0}}
    free = fit_tissue_model(z, PROTOCOL, model()).quantities["amine_exchange_rate_Hz"]
    tied = fit_tissue_model(z, PROTOCOL, model(k_Hz=fitted(300, 5, 1500, **prior))).quantities["amine_exchange_rate_Hz"]
    assert float(tied.nan_to_num(300).sub(300).abs().mean()) < 0.3 * float(free.nan_to_num(300).sub(300).abs().mean())


def test_unusable_voxels_are_flagged_and_never_filled():
    z = signal(truth(6), "r1rho")
    z[1, 3] = torch.nan
    z[2] = 0.0
    fit = fit_tissue_model(z, PROTOCOL, model())
    assert fit.result.status[1] == fit.result.status[2] == Status.INVALID_DATA
    for name, values in fit.quantities.items():
        assert torch.isnan(values[1:3]).all(), name
        assert torch.isfinite(values[[0, 3, 4, 5]]).all(), name


def test_a_value_at_its_bound_is_reported_without_standard_error():
    values = {"amine.fraction": torch.full((5,), 1e-3, dtype=torch.float64), "amine.k_Hz": torch.full((5,), 600.0)}
    fit = fit_tissue_model(signal(values, "r1rho"), PROTOCOL, model(k_Hz=fitted(100, 5, 300)))
    assert (fit.result.status == Status.AT_BOUND).all()
    assert torch.isnan(fit.quantities["amine_exchange_rate_Hz_sd"]).all()
    assert torch.isfinite(fit.quantities["amine_fraction_sd"]).all()


def test_a_pool_that_the_model_does_not_know_raises_the_rmse():
    values = truth(50)
    extra = {"name": "other", "fraction": 2e-3, "k_Hz": 800, "T1_s": 1.0, "T2_s": 0.02, "dw_ppm": 2.0}
    amine = {
        "name": "amine",
        "dw_ppm": 3.0,
        "T1_s": 2.8,
        "T2_s": 0.04,
        "fraction": fitted(1e-3, 0, 1),
        "k_Hz": fitted(1, 0, 1e4),
    }
    both = tissue_model_from_dict({"water": {"T1_s": 2.0, "T2_s": 0.1}, "solutes": [amine, extra]})
    covered = fit_tissue_model(signal(values, "r1rho", NOISE_SD), PROTOCOL, model()).result.rmse
    uncovered = fit_tissue_model(signal(values, "r1rho", NOISE_SD, both), PROTOCOL, model()).result.rmse
    assert float(uncovered.min()) > 2 * float(covered.max())


SEMISOLID = {"T1_s": 1.0, "T2_s": 1e-5, "dw_ppm": -2.4, "lineshape": "superlorentzian", "k_Hz": fitted(30, 5, 100)}
VARIANTS = {
    "solute": (model(dw_ppm=fitted(3.0, 2.5, 3.5), T2_s=fitted(0.04, 0.01, 0.1), T1_s=fitted(2.8, 1, 4)), PROTOCOL),
    "water": (model(water={"T1_s": fitted(2, 1, 3), "T2_s": fitted(0.1, 0.05, 0.3)}), PROTOCOL),
    "fields": (
        tissue_model_from_dict(
            {
                "water": {"T1_s": 2.0, "T2_s": 0.1},
                "b0_shift_ppm": fitted(0.1, -1, 1),
                "b1_relative": fitted(0.9, 0.5, 1.5),
            }
        ),
        PROTOCOL,
    ),
    "semisolid": (model(semisolid=SEMISOLID | {"fraction": fitted(0.1, 0, 0.3)}), PROTOCOL),
    "post-delay": (
        model(water={"T1_s": fitted(2, 1, 3)}, semisolid=SEMISOLID | {"fraction": fitted(0.1, 0, 0.3)}),
        Protocol(9.4, OFFSETS, 2.0, 1.0, post_delay_s=0.3),
    ),
    "unit norm": (model(), Protocol(9.4, OFFSETS, 2.0, 1.0, signal_normalisation="l2", readout_flip_angle_deg=30.0)),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_analytic_jacobian_equals_finite_differences(variant):
    tissue, protocol = VARIANTS[variant]
    assert has_analytic_jacobian(tissue, protocol)
    start = torch.tensor([[p.start] for p in tissue.parameters], dtype=torch.float64)

    def evaluate(parameters: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values = {p.path: parameters[i] for i, p in enumerate(tissue.parameters)}
        values = {"b0_shift_ppm": 0.0, "b1_relative": 1.0} | tissue.values(values, {})
        return prediction_and_jacobian(tissue, protocol, values, parameters)

    prediction, jacobian = evaluate(start)
    expected, differences = finite_difference_model(lambda p: evaluate(p)[0], central=True)(start)
    torch.testing.assert_close(prediction, expected)
    scale = differences.abs().amax((1, 2), keepdim=True).clamp(min=1e-12)
    torch.testing.assert_close(jacobian / scale, differences / scale, atol=1e-6, rtol=1e-5)


def test_a_model_without_fitted_values_or_with_a_missing_map_is_refused():
    with pytest.raises(ValueError, match="no fitted value"):
        fit_tissue_model(signal(truth(2), "r1rho"), PROTOCOL, model(fraction=1e-3, k_Hz=300.0))
    with pytest.raises(ValueError, match="the map 't1'"):
        fit_tissue_model(signal(truth(2), "r1rho"), PROTOCOL, model(water={"T1_s": {"map": "t1"}}))
