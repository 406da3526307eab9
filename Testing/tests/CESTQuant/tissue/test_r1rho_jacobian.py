"""Analytic derivatives of the R1rho signal against finite differences."""

from __future__ import annotations

import copy

import pytest
import torch
from fit_cases import B1, MODEL, OFFSETS, PROTOCOL, SCHEDULE, SEMISOLID, errors, fit, fitted, study

from CESTQuantLib.physics.engines import ENGINES
from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.tissue.model import tissue_model_from_dict
from CESTQuantLib.tissue.r1rho_jacobian import has_analytic_jacobian, prediction_and_jacobian


def every_pool(**fields) -> dict:
    """A model file with every value of water and a solute fitted, and further entries."""
    free = {
        "water": {"T1_s": fitted(2.0, 1, 3), "T2_s": fitted(0.1, 0.05, 0.5)},
        "solutes": [
            {
                "name": "amine",
                "dw_ppm": fitted(3.0, 2, 4),
                "T1_s": 1.0,
                "T2_s": fitted(0.03, 0.01, 0.1),
                "fraction": fitted(2e-3, 1e-5, 1e-2),
                "k_Hz": fitted(300, 5, 1500),
            }
        ],
        "semisolid": None,
    }
    return free | fields


WITH_SEMISOLID = SEMISOLID | {
    "fraction": fitted(0.08, 0, 0.3),
    "k_Hz": fitted(30, 5, 100),
    "T1_s": fitted(1.0, 0.5, 2.0),
}
FIELDS = {"b0_shift_ppm": fitted(0.05, -0.3, 0.3), "b1_relative": fitted(0.95, 0.5, 1.5)}


@pytest.mark.parametrize("normalisation", ["m0", "l2", "none"])
@pytest.mark.parametrize("delay", [0.0, 0.15])
@pytest.mark.parametrize("kind", ["solutes", "semisolid", "fields"])
def test_analytic_jacobian_equals_finite_differences(kind, delay, normalisation):
    values = {"solutes": {}, "semisolid": {"semisolid": WITH_SEMISOLID}, "fields": FIELDS}[kind]
    flip = 40.0 if kind != "fields" else None
    protocol = Protocol(
        9.4, OFFSETS, B1, 1.0, post_delay_s=delay, readout_flip_angle_deg=flip, signal_normalisation=normalisation
    )
    model = tissue_model_from_dict(every_pool(**values))
    assert has_analytic_jacobian(model, protocol)
    like = torch.zeros(0, dtype=torch.float64)
    spread = torch.tensor([0.97, 1.0, 1.04], dtype=torch.float64)
    truth = torch.stack([p.start * spread for p in model.parameters])

    def named(parameters: torch.Tensor) -> dict:
        fitted_values = {p.path: parameters[i] for i, p in enumerate(model.parameters)}
        return {"b0_shift_ppm": 0.0, "b1_relative": 1.0} | model.values(fitted_values, {})

    def predict(parameters: torch.Tensor) -> torch.Tensor:
        found = named(parameters)
        fields = {"b0_shift_ppm": found["b0_shift_ppm"], "b1_relative": found["b1_relative"]}
        return ENGINES["r1rho"](model.tissue(found), protocol, **fields, like=like)

    prediction, jacobian = prediction_and_jacobian(model, protocol, named(truth), like)
    torch.testing.assert_close(prediction, predict(truth), rtol=0, atol=1e-13)
    for i, parameter in enumerate(model.parameters):
        step = torch.zeros_like(truth)
        step[i] = 1e-5 * abs(parameter.start)
        difference = (predict(truth + step) - predict(truth - step)) / (2 * step[i])
        scale = float(difference.abs().max())
        assert scale > 0
        torch.testing.assert_close(jacobian[i], difference, rtol=1e-5, atol=1e-7 * scale, msg=parameter.path)


@pytest.mark.parametrize(
    ("values", "protocol"),
    [
        ({}, SCHEDULE),
        ({"semisolid": SEMISOLID | {"T2_s": fitted(1e-5, 5e-6, 2e-5)}}, PROTOCOL),
        ({"semisolid": WITH_SEMISOLID, "b0_shift_ppm": fitted(0.05, -0.3, 0.3)}, PROTOCOL),
        ({"semisolid": {k: v for k, v in SEMISOLID.items() if k != "lineshape"} | {"coupling": "xyz"}}, PROTOCOL),
    ],
)
def test_models_without_an_analytic_jacobian_are_fitted_with_finite_differences(values, protocol):
    model = every_pool(**values)
    if values:
        model["water"] = {"T1_s": 2.0, "T2_s": 0.1}
    else:
        model = MODEL
    model["solutes"][0] |= {"dw_ppm": 3.0, "T2_s": 0.03}
    described = tissue_model_from_dict(model)
    assert not has_analytic_jacobian(described, protocol)
    signal, truth = study(8, "r1rho", model, protocol)
    assert max(errors(fit(signal, model, protocol), truth, model).values()) < 2e-2


@pytest.mark.parametrize(
    ("T2_s", "analytic"),
    [(0.03, True), (5e-4, False), (fitted(2e-3, 1e-3, 0.1), True), (fitted(2e-3, 1e-4, 0.1), False), ("map", False)],
)
def test_the_analytic_jacobian_needs_solutes_that_are_never_broad(T2_s, analytic):
    model = copy.deepcopy(MODEL)
    model["solutes"][0]["T2_s"] = {"map": "T2.nii.gz"} if T2_s == "map" else T2_s
    assert has_analytic_jacobian(tissue_model_from_dict(model), PROTOCOL) == analytic
