"""Fits of tissue models to every voxel: recovery, standard errors, maps, fields, priors and unusable voxels."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from fit_cases import MODEL, PROTOCOL, SCHEDULE, errors, fit, fitted, model_with, study, uniform
from scipy.stats import t as student

from CESTQuantLib.fitting.least_squares import Status
from CESTQuantLib.formats.protocol_json import protocol_from_dict
from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.physics.simulation import simulate
from CESTQuantLib.tissue.model import tissue_model_from_dict
from CESTQuantLib.tissue.model_fits.several_starts import start_points


@pytest.mark.parametrize("protocol", [PROTOCOL, SCHEDULE], ids=["cw", "schedule"])
@pytest.mark.parametrize(("engine", "voxels"), [("r1rho", 300), ("bloch-mcconnell", 40)])
def test_true_values_are_recovered_from_noise_free_signals(engine, voxels, protocol):
    signal, truth = study(voxels, engine, protocol=protocol)
    found = fit(signal, protocol=protocol, engine=engine)
    assert bool((found.result.status == Status.CONVERGED).all())
    assert max(errors(found, truth, MODEL).values()) < 1e-3


def test_bloch_mcconnell_fit_recovers_true_values_from_a_pulse_train():
    values = {"saturation_type": "pulse_train", "n_pulses": 10, "pulse_duration_s": 0.1, "duty_cycle": 0.8}
    protocol = protocol_from_dict(
        values
        | {
            "field_strength_T": 9.4,
            "offsets_ppm": [2.0, 3.0, 3.5, -3.0] * 3,
            "b1_uT": [1.0] * 4 + [2.5] * 4 + [5.0] * 4,
            "pulse_shape": "gaussian",
        }
    )
    signal, truth = study(4, "bloch-mcconnell", protocol=protocol)
    found = fit(signal, protocol=protocol, engine="bloch-mcconnell")
    assert max(errors(found, truth, MODEL).values()) < 1e-3


@pytest.mark.parametrize(("engine", "voxels", "slack"), [("r1rho", 4000, 0.012), ("bloch-mcconnell", 300, 0.04)])
def test_standard_errors_cover_the_true_values_without_bias(engine, voxels, slack):
    noise = 0.004
    signal, truth = study(voxels, engine, noise=noise)
    result = fit(signal, engine=engine).result
    converged = result.status == Status.CONVERGED
    assert float(converged.double().mean()) > 0.99
    for i, path in enumerate(("amine.fraction", "amine.k_Hz")):
        score = ((result.parameters[:, i] - truth[path]) / result.standard_errors[:, i])[converged].double()
        covered = (score.abs() < student.ppf(0.975, 28)).double().mean()
        assert float(covered) == pytest.approx(0.95, abs=slack)
        assert abs(float(score.median())) < 0.15
    assert float(result.rmse.median()) == pytest.approx(noise * math.sqrt(28 / 30), rel=0.05)


@pytest.mark.parametrize("engine", ["r1rho", "bloch-mcconnell"])
def test_maps_of_relaxation_and_fields_are_used(engine):
    voxels = 20
    t1, b0, b1 = uniform(1.5, 3.0, voxels, 11), uniform(-0.2, 0.2, voxels, 12), uniform(0.8, 1.2, voxels, 13)
    model = model_with(water__T1_s={"map": "t1"})
    signal, truth = study(voxels, engine, model, maps={"t1": t1}, b0_shift_ppm=b0, b1_relative=b1)
    with_fields = fit(signal, model, engine=engine, maps={"t1": t1}, b0_shift_ppm=b0, b1_relative=b1)
    assert max(errors(with_fields, truth, model).values()) < 1e-3
    without_fields = fit(signal, model, engine=engine, maps={"t1": t1})
    assert max(errors(without_fields, truth, model).values()) > 0.05


def test_the_t1_of_the_spectra_is_the_map_t1_of_the_model():
    t1 = uniform(1.5, 3.0, 20, 11)
    model = model_with(water__T1_s={"map": "t1"})
    signal, truth = study(20, "r1rho", model, maps={"t1": t1})
    assert max(errors(fit(signal, model, t1_s=t1), truth, model).values()) < 1e-3


@pytest.mark.parametrize("engine", ["r1rho", "bloch-mcconnell"])
def test_fields_can_be_fitted_together_with_the_tissue(engine):
    model = model_with(b0_shift_ppm=fitted(0.02, -0.3, 0.5), b1_relative=fitted(1.0, 0.5, 1.5))
    signal, truth = study(15, engine, model)
    found = fit(signal, model, engine=engine)
    assert max(errors(found, truth, model).values()) < 5e-3
    assert {"b0_shift_ppm", "b0_shift_ppm_sd", "b1_relative"} <= set(found.quantities)


def test_a_missing_map_is_named():
    with pytest.raises(ValueError, match="the model refers to the map 't1', which is not given"):
        fit(torch.ones(2, 30), model_with(water__T1_s={"map": "t1"}))


def test_a_model_without_fitted_values_is_refused():
    with pytest.raises(ValueError, match="no fitted value"):
        fit(torch.ones(2, 30), model_with(amine__fraction=1e-3, amine__k_Hz=100))


def test_a_protocol_of_offsets_alone_is_refused():
    with pytest.raises(ValueError, match="no saturation time"):
        fit(torch.ones(2, 3), protocol=Protocol(3.0, [1.0, 2, 3], 0.0, 0.0))


def test_an_unknown_engine_is_refused():
    with pytest.raises(ValueError, match="engine 'bloch' is unknown; use one of"):
        fit(torch.ones(2, 30), engine="bloch")


@pytest.mark.parametrize("engine", ["r1rho", "bloch-mcconnell"])
def test_unusable_voxels_are_flagged_and_have_no_values(engine):
    signal, truth = study(6, engine)
    signal[1, 4] = math.nan
    signal[2] = 0
    signal[3] = math.inf
    valid = torch.ones_like(signal, dtype=torch.bool)
    valid[4, 1:] = False
    found = fit(signal, engine=engine, valid=valid)
    status = found.result.status.tolist()
    assert status[1:5] == [Status.INVALID_DATA] * 3 + [Status.NOT_ENOUGH_POINTS]
    assert status[0] == status[5] == Status.CONVERGED
    for quantity in found.quantities.values():
        assert quantity.isfinite().tolist() == [True, False, False, False, False, True]
    assert float(found.result.parameters[5, 1]) == pytest.approx(float(truth["amine.k_Hz"][5]), rel=1e-3)


def test_a_nan_in_a_measurement_that_is_left_out_does_no_harm():
    signal, truth = study(3, "r1rho")
    signal[:, 7] = math.nan
    assert max(errors(fit(signal, valid=signal.isfinite()), truth, MODEL).values()) < 1e-3


def test_a_nan_in_a_map_flags_the_voxel():
    t1 = torch.tensor([2.5, math.nan, 2.5], dtype=torch.float64)
    found = fit(study(3, "r1rho")[0], model_with(water__T1_s={"map": "t1"}), maps={"t1": t1})
    assert found.result.status.tolist() == [Status.CONVERGED, Status.INVALID_DATA, Status.CONVERGED]


def test_a_narrow_prior_draws_the_estimates_to_its_mean_and_a_wide_one_leaves_them():
    signal, truth = study(300, "r1rho", noise=0.004)
    rates = {}
    for sd in (1e9, 40.0, 1.0):
        model = model_with(amine__k_Hz=fitted(300, 5, 1500, prior={"mean": 400, "sd": sd}))
        rates[sd] = fit(signal, model).result.parameters[:, 1]
    free = fit(signal).result.parameters[:, 1]
    torch.testing.assert_close(rates[1e9], free, rtol=1e-3, atol=0)
    assert float((rates[1.0] - 400).abs().max()) < 20
    distance = {sd: float((k - 400).abs().mean()) for sd, k in rates.items()}
    assert distance[1.0] < distance[40.0] < distance[1e9]
    assert float((free.double() - truth["amine.k_Hz"]).abs().mean()) < 40


@pytest.mark.parametrize("engine", ["r1rho", "bloch-mcconnell"])
def test_priors_without_a_residual_that_tells_the_noise_need_it_given(engine):
    protocol = Protocol(9.4, torch.tensor([3.0, -3.0], dtype=torch.float64), 2.0, 3.0)
    model = model_with(amine__k_Hz=fitted(300, 5, 1500, prior={"mean": 400, "sd": 50}))
    signal, _ = study(5, engine, protocol=protocol, noise=0.002)
    with pytest.raises(ValueError, match=r"2 measurements of 2 fitted values .* give it \(noise_sd\)"):
        fit(signal, model, protocol, engine)
    assert fit(signal, model, protocol, engine, noise_sd=0.002).result.fitted.all()


def test_concentrations_follow_from_fractions_and_protons():
    maps = fit(study(5, "r1rho")[0]).quantities
    torch.testing.assert_close(maps["amine_concentration_mM"], maps["amine_fraction"] * 110000 / 3)
    torch.testing.assert_close(maps["amine_concentration_mM_sd"], maps["amine_fraction_sd"] * 110000 / 3)


def test_a_fitted_relaxation_time_is_reported_as_a_rate_with_its_error():
    model = model_with(water__T2_s=fitted(0.5, 0.1, 2.0))
    signal, truth = study(200, "r1rho", model, noise=0.002)
    maps = fit(signal, model).quantities
    score = (maps["water_r2_Hz"] - 1 / truth["water.T2_s"]) / maps["water_r2_Hz_sd"]
    assert float(score.double().std()) == pytest.approx(1.0, abs=0.2)


def test_fits_with_wide_bounds_find_the_best_minimum_of_fast_exchange():
    offsets = torch.tensor([-6.0, -2, -1, 0, 1, 2, 2.5, 3, 4, 6, 8], dtype=torch.float64).repeat(3)
    b1 = torch.tensor([0.7, 2.0, 6.0], dtype=torch.float64).repeat_interleave(11)
    protocol = Protocol(9.4, offsets, b1, 3.0)
    wide = model_with(amine__fraction=fitted(0.005, 1e-6, 0.5), amine__k_Hz=fitted(500, 0.5, 2e5))
    true = {"amine.fraction": 0.002 * 10 ** uniform(0, 1, 8, 1), "amine.k_Hz": 1e4 * 7 ** uniform(0, 1, 8, 2)}
    tissue = tissue_model_from_dict(wide)
    signal = simulate(tissue.tissue(tissue.values(true, {})), protocol)
    found = fit(signal, wide, protocol, "bloch-mcconnell")
    for path, values in true.items():
        name = {"amine.fraction": "amine_fraction", "amine.k_Hz": "amine_exchange_rate_Hz"}[path]
        torch.testing.assert_close(found.quantities[name], values, rtol=0.02, atol=0)
    assert start_points(tissue_model_from_dict(MODEL).parameters) == [None]


@pytest.mark.parametrize(("engine", "voxels"), [("r1rho", 100), ("bloch-mcconnell", 20)])
def test_the_minimum_that_is_kept_is_best_for_signals_and_priors_together(engine, voxels):
    offsets = torch.tensor([-6, -4, -3.5, -3, -2, 2, 2.5, 3, 3.25, 3.5, 3.75, 4, 5, 6], dtype=torch.float64)
    protocol, noise, prior = Protocol(3.0, offsets, 1.0, 2.0), 0.003, {"mean": 2e-3, "sd": 6e-4}
    slow = {"amine__dw_ppm": 3.5, "amine__T2_s": 0.1, "water__T1_s": 1.3, "water__T2_s": 0.08}
    amount = {"amine__fraction": fitted(1e-3, 1e-6, 0.05, prior=prior)}
    true = tissue_model_from_dict(model_with(**slow, amine__fraction=2e-3, amine__k_Hz=30.0))
    signal = simulate(true.tissue(true.values({}, {})), protocol, engine=engine).expand(voxels, -1)
    signal = signal + noise * torch.randn(signal.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def cost(start, highest):
        model = model_with(**slow, **amount, amine__k_Hz=fitted(start, 5, highest))
        result = fit(signal, model, protocol, engine, noise_sd=noise).result
        distance = (result.parameters[:, 0].double() - prior["mean"]) / prior["sd"]
        found = len(offsets) * (result.rmse.double() / noise).square() + distance.square()
        torch.testing.assert_close(len(offsets) * (result.cost.double() / noise).square(), found, rtol=1e-3, atol=1e-3)
        return found

    from_the_truth = cost(30, 4000)  # bounds that are too narrow for further starts
    assert (cost(300, 20000) < from_the_truth + 0.5).all()


def test_an_amount_at_zero_is_at_a_natural_limit():
    signal, _ = study(20, "r1rho", model_with(amine__fraction=0.0, amine__k_Hz=200.0))
    signal = signal + 1e-4  # less saturation than any pool explains
    result = fit(signal, model_with(amine__fraction=fitted(1e-3, 0.0, 0.02), amine__k_Hz=200.0)).result
    assert bool((result.status == Status.AT_NATURAL_LIMIT).all())
    assert bool(result.fitted.all())


def test_a_value_at_its_bound_is_reported_without_an_error():
    signal, _ = study(20, "r1rho")
    result = fit(signal, model_with(amine__k_Hz=fitted(50, 5, 60))).result
    assert bool((result.status == Status.AT_BOUND).all())
    torch.testing.assert_close(result.parameters[:, 1], torch.full((20,), 60.0))
    assert bool(result.standard_errors[:, 1].isnan().all())


def test_a_pool_that_the_model_lacks_raises_the_residual():
    extra = {"name": "amide", "dw_ppm": 2.2, "T1_s": 2.8, "T2_s": 0.05, "fraction": 1e-3, "k_Hz": 100.0}
    complete = copy.deepcopy(MODEL)
    complete["solutes"].append(extra)
    signal, _ = study(50, "r1rho", complete, noise=0.001)
    assert bool((fit(signal).result.rmse > 3 * fit(signal, complete).result.rmse).all())


def test_correlations_are_those_of_the_scatter_of_the_estimates():
    signal, truth = study(2000, "r1rho", noise=0.002)
    found = fit(signal)
    true_values = torch.stack([truth["amine.fraction"], truth["amine.k_Hz"]], 1)
    score = (found.result.parameters - true_values) / found.result.standard_errors
    correlation = found.median_correlation()["amine.k_Hz, amine.fraction"]
    assert correlation < -0.5
    assert float(torch.corrcoef(score.T.double())[0, 1]) == pytest.approx(correlation, abs=0.1)


def test_predictions_of_the_fit_are_those_of_the_simulation():
    signal, _ = study(4, "bloch-mcconnell")
    found = fit(signal, engine="bloch-mcconnell")
    torch.testing.assert_close(found.predict(torch.tensor([2, 0])), signal[[2, 0]], rtol=0, atol=1e-5)


def test_predictions_under_another_protocol_are_those_of_its_simulation():
    t1 = uniform(1.5, 3.0, 4, 11)
    model = model_with(water__T1_s={"map": "t1"})
    signal, _ = study(4, "bloch-mcconnell", model, maps={"t1": t1})
    other, _ = study(4, "bloch-mcconnell", model, SCHEDULE, maps={"t1": t1})
    found = fit(signal, model, engine="bloch-mcconnell", maps={"t1": t1})
    torch.testing.assert_close(found.predict(torch.tensor([3, 1]), SCHEDULE), other[[3, 1]], rtol=0, atol=1e-5)


def test_the_residual_is_that_of_the_prediction_where_a_solute_becomes_broad():
    """Below a T2 of 1 ms the R1rho engine takes a solute for a semisolid pool, in every voxel by itself."""
    offsets = torch.linspace(-20, 20, 21, dtype=torch.float64).repeat(2)
    protocol = Protocol(3.0, offsets, torch.tensor([1.0, 3.0], dtype=torch.float64).repeat_interleave(21), 2.0)
    pool = {"name": "mt", "dw_ppm": 0.0, "T1_s": 1.0, "k_Hz": 30.0}
    pool |= {"fraction": fitted(0.05, 1e-3, 0.3), "T2_s": fitted(2e-3, 1e-4, 1e-2)}
    model = {"water": {"T1_s": 1.3, "T2_s": 0.08}, "solutes": [pool]}
    T2_s = torch.tensor([3e-4, 4e-4, 5e-3], dtype=torch.float64)
    tissue = tissue_model_from_dict(model).tissue(
        tissue_model_from_dict(model).start_values() | {"mt.fraction": 0.08, "mt.T2_s": T2_s}
    )
    signal = simulate(tissue, protocol)
    found = fit(signal, model, protocol)
    residual = found.predict(torch.arange(3)) - signal
    torch.testing.assert_close(residual.square().mean(1).sqrt(), found.result.rmse, rtol=1e-6, atol=1e-9)
