"""Voxelwise fits of tissue models: recovery, standard errors, maps, fields, priors, bad voxels."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from fit_cases import MODEL, PROTOCOL, SCHEDULE, errors, fitted, model_with, study, uniform
from scipy.stats import t as student

from CESTQuantLib.fitting.least_squares import Status
from CESTQuantLib.formats.protocol_json import protocol_from_dict
from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.tissue.fit import fit_tissue_model
from CESTQuantLib.tissue.model import tissue_model_from_dict


@pytest.mark.parametrize("protocol", [PROTOCOL, SCHEDULE], ids=["cw", "schedule"])
@pytest.mark.parametrize(("engine", "voxels"), [("r1rho", 300), ("bloch-mcconnell", 40)])
def test_noiseless_truth_is_recovered(engine, voxels, protocol):
    signal, truth = study(voxels, engine, protocol=protocol)
    fit = fit_tissue_model(signal, protocol, tissue_model_from_dict(MODEL), engine=engine)
    assert bool((fit.result.status == Status.CONVERGED).all())
    assert max(errors(fit, truth, MODEL).values()) < 1e-3


def test_bloch_mcconnell_fit_recovers_from_a_pulse_train():
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
    fit = fit_tissue_model(signal, protocol, tissue_model_from_dict(MODEL), engine="bloch-mcconnell")
    assert max(errors(fit, truth, MODEL).values()) < 1e-3


@pytest.mark.parametrize(("engine", "voxels", "slack"), [("r1rho", 4000, 0.012), ("bloch-mcconnell", 300, 0.04)])
def test_standard_errors_cover_the_truth_without_bias(engine, voxels, slack):
    noise = 0.004
    signal, truth = study(voxels, engine, noise=noise)
    fit = fit_tissue_model(signal, PROTOCOL, tissue_model_from_dict(MODEL), engine=engine)
    converged = fit.result.status == Status.CONVERGED
    assert float(converged.double().mean()) > 0.99
    for i, path in enumerate(("amine.fraction", "amine.k_Hz")):
        score = ((fit.result.parameters[:, i] - truth[path]) / fit.result.standard_errors[:, i])[converged].double()
        covered = (score.abs() < student.ppf(0.975, 28)).double().mean()
        assert float(covered) == pytest.approx(0.95, abs=slack)
        assert abs(float(score.median())) < 0.15
    assert float(fit.result.rmse.median()) == pytest.approx(noise * math.sqrt(28 / 30), rel=0.05)


@pytest.mark.parametrize("engine", ["r1rho", "bloch-mcconnell"])
def test_maps_of_relaxation_and_fields_are_used(engine):
    voxels = 20
    t1, b0, b1 = uniform(1.5, 3.0, voxels, 11), uniform(-0.2, 0.2, voxels, 12), uniform(0.8, 1.2, voxels, 13)
    model = model_with(water__T1_s={"map": "t1"})
    signal, truth = study(voxels, engine, model, maps={"t1": t1}, b0_shift_ppm=b0, b1_relative=b1)
    described = tissue_model_from_dict(model)
    fields = {"b0_shift_ppm": b0, "b1_relative": b1}
    fit = fit_tissue_model(signal, PROTOCOL, described, engine=engine, maps={"t1": t1}, **fields)
    assert max(errors(fit, truth, model).values()) < 1e-3
    ignoring = fit_tissue_model(signal, PROTOCOL, described, engine=engine, maps={"t1": t1})
    assert max(errors(ignoring, truth, model).values()) > 0.05


@pytest.mark.parametrize("engine", ["r1rho", "bloch-mcconnell"])
def test_fields_can_be_fitted_with_the_tissue(engine):
    model = model_with(b0_shift_ppm=fitted(0.02, -0.3, 0.5), b1_relative=fitted(1.0, 0.5, 1.5))
    signal, truth = study(15, engine, model)
    fit = fit_tissue_model(signal, PROTOCOL, tissue_model_from_dict(model), engine=engine)
    assert max(errors(fit, truth, model).values()) < 5e-3
    assert {"b0_shift_ppm", "b0_shift_ppm_sd", "b1_relative"} <= set(fit.quantities)


def test_missing_map_is_named():
    model = tissue_model_from_dict(model_with(water__T1_s={"map": "t1"}))
    with pytest.raises(ValueError, match="the model refers to the map 't1', which is not given"):
        fit_tissue_model(torch.ones(2, 30), PROTOCOL, model)


def test_a_model_without_fitted_values_is_refused():
    model = tissue_model_from_dict(model_with(amine__fraction=1e-3, amine__k_Hz=100))
    with pytest.raises(ValueError, match="no fitted value"):
        fit_tissue_model(torch.ones(2, 30), PROTOCOL, model)


def test_a_protocol_of_offsets_alone_is_refused():
    with pytest.raises(ValueError, match="no saturation time"):
        fit_tissue_model(torch.ones(2, 3), Protocol(3.0, [1.0, 2, 3], 0.0, 0.0), tissue_model_from_dict(MODEL))


def test_an_unknown_engine_is_refused():
    with pytest.raises(ValueError, match="engine 'bloch' is unknown"):
        fit_tissue_model(torch.ones(2, 30), PROTOCOL, tissue_model_from_dict(MODEL), engine="bloch")


@pytest.mark.parametrize("engine", ["r1rho", "bloch-mcconnell"])
def test_unusable_voxels_are_flagged_and_not_filled(engine):
    signal, truth = study(6, engine)
    signal[1, 4] = math.nan
    signal[2] = 0
    signal[3] = math.inf
    valid = torch.ones_like(signal, dtype=torch.bool)
    valid[4, 1:] = False
    fit = fit_tissue_model(signal, PROTOCOL, tissue_model_from_dict(MODEL), engine=engine, valid=valid)
    status = fit.result.status.tolist()
    assert status[1:5] == [Status.INVALID_DATA] * 3 + [Status.NOT_ENOUGH_POINTS]
    assert status[0] == status[5] == Status.CONVERGED
    for quantity in fit.quantities.values():
        assert quantity.isfinite().tolist() == [True, False, False, False, False, True]
    assert float(fit.result.parameters[5, 1]) == pytest.approx(float(truth["amine.k_Hz"][5]), rel=1e-3)


def test_a_nan_measurement_that_is_not_valid_does_no_harm():
    signal, truth = study(3, "r1rho")
    signal[:, 7] = math.nan
    fit = fit_tissue_model(signal, PROTOCOL, tissue_model_from_dict(MODEL), valid=signal.isfinite())
    assert max(errors(fit, truth, MODEL).values()) < 1e-3


def test_nan_in_a_map_flags_the_voxel():
    model = tissue_model_from_dict(model_with(water__T1_s={"map": "t1"}))
    t1 = torch.tensor([2.5, math.nan, 2.5], dtype=torch.float64)
    fit = fit_tissue_model(study(3, "r1rho")[0], PROTOCOL, model, maps={"t1": t1})
    assert fit.result.status.tolist() == [Status.CONVERGED, Status.INVALID_DATA, Status.CONVERGED]


def test_a_prior_pulls_and_a_flat_one_does_not():
    noise = 0.004
    signal, truth = study(300, "r1rho", noise=noise)
    found = {}
    for sd in (1e9, 40.0, 1.0):
        model = model_with(amine__k_Hz=fitted(300, 5, 1500, prior={"mean": 400, "sd": sd}))
        found[sd] = fit_tissue_model(signal, PROTOCOL, tissue_model_from_dict(model)).result.parameters[:, 1]
    free = fit_tissue_model(signal, PROTOCOL, tissue_model_from_dict(MODEL)).result.parameters[:, 1]
    torch.testing.assert_close(found[1e9], free, rtol=1e-3, atol=0)
    assert float((found[1.0] - 400).abs().max()) < 20
    distance = {sd: float((k - 400).abs().mean()) for sd, k in found.items()}
    assert distance[1.0] < distance[40.0] < distance[1e9]
    assert float((free.double() - truth["amine.k_Hz"]).abs().mean()) < 40


def test_concentrations_follow_from_fractions_and_protons():
    fit = fit_tissue_model(study(5, "r1rho")[0], PROTOCOL, tissue_model_from_dict(MODEL))
    maps = fit.quantities
    torch.testing.assert_close(maps["amine_concentration_mM"], maps["amine_fraction"] * 110000 / 3)
    torch.testing.assert_close(maps["amine_concentration_mM_sd"], maps["amine_fraction_sd"] * 110000 / 3)


def test_a_fitted_relaxation_time_is_reported_as_a_rate_with_its_error():
    model = model_with(water__T2_s=fitted(0.5, 0.1, 2.0))
    signal, truth = study(200, "r1rho", model, noise=0.002)
    fit = fit_tissue_model(signal, PROTOCOL, tissue_model_from_dict(model))
    score = (fit.quantities["water_r2_Hz"] - 1 / truth["water.T2_s"]) / fit.quantities["water_r2_Hz_sd"]
    assert float(score.double().std()) == pytest.approx(1.0, abs=0.2)


def test_a_bound_that_is_hit_is_reported():
    signal, _ = study(20, "r1rho")
    model = tissue_model_from_dict(model_with(amine__k_Hz=fitted(50, 5, 60)))
    fit = fit_tissue_model(signal, PROTOCOL, model)
    assert bool((fit.result.status == Status.AT_BOUND).all())
    torch.testing.assert_close(fit.result.parameters[:, 1], torch.full((20,), 60.0))
    assert bool(fit.result.standard_errors[:, 1].isnan().all())


def test_a_pool_that_the_model_lacks_raises_the_residual():
    extra = {"name": "amide", "dw_ppm": 2.2, "T1_s": 2.8, "T2_s": 0.05, "fraction": 1e-3, "k_Hz": 100.0}
    model = copy.deepcopy(MODEL)
    model["solutes"].append(extra)
    signal, _ = study(50, "r1rho", model, noise=0.001)
    lacking = fit_tissue_model(signal, PROTOCOL, tissue_model_from_dict(MODEL)).result.rmse
    complete = fit_tissue_model(signal, PROTOCOL, tissue_model_from_dict(model)).result.rmse
    assert bool((lacking > 3 * complete).all())


def test_correlation_is_that_of_the_estimates_scatter():
    signal, truth = study(2000, "r1rho", noise=0.002)
    fit = fit_tissue_model(signal, PROTOCOL, tissue_model_from_dict(MODEL))
    true_values = torch.stack([truth["amine.fraction"], truth["amine.k_Hz"]], 1)
    score = (fit.result.parameters - true_values) / fit.result.standard_errors
    found = fit.median_correlation()["amine.k_Hz, amine.fraction"]
    assert found < -0.5
    assert float(torch.corrcoef(score.T.double())[0, 1]) == pytest.approx(found, abs=0.1)


def test_predictions_of_the_fit_are_those_of_the_simulation():
    signal, _ = study(4, "bloch-mcconnell")
    fit = fit_tissue_model(signal, PROTOCOL, tissue_model_from_dict(MODEL), engine="bloch-mcconnell")
    torch.testing.assert_close(fit.predict(torch.tensor([2, 0])), signal[[2, 0]], rtol=0, atol=1e-5)
