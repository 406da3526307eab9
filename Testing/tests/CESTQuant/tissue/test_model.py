"""Tissue models: what a model file may say, and readers that meet arbitrary values."""

from __future__ import annotations

import json

import pytest
import torch
from arbitrary_values import json_values, one_line, reads_or_explains, words
from fit_cases import MODEL, SEMISOLID, fitted, model_with
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from CESTQuantLib.tissue.model import FitParameter, MapReference, read_tissue_model, tissue_model_from_dict

SMALL = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NUMBERS = {
    "water": {"T1_s": 2.0, "T2_s": 0.1},
    "solutes": [{"name": "a", "fraction": 1e-3, "k_Hz": 50, "T1_s": 1, "T2_s": 0.1, "dw_ppm": 3.5}],
    "semisolid": {"fraction": 0.1, "k_Hz": 30, "T1_s": 1, "T2_s": 1e-5},
}


def test_values_are_numbers_maps_or_fitted():
    model = tissue_model_from_dict(
        model_with(water__T1_s={"map": "t1"}, amine__k_Hz=fitted(300, 5, 1500, prior=[400, 40]))
    )
    assert model.entries["water.T1_s"] == MapReference("t1")
    assert model.entries["water.T2_s"] == 0.6
    assert model.entries["amine.k_Hz"] == FitParameter("amine.k_Hz", 300, 5, 1500, (400, 40))
    assert model.map_names == ["t1"]
    assert [parameter.path for parameter in model.parameters] == ["amine.fraction", "amine.k_Hz"]
    assert model.protons == {"amine": 3}


def test_a_prior_is_an_object_or_a_pair():
    for prior in ({"mean": 400, "sd": 40}, [400, 40]):
        model = tissue_model_from_dict(model_with(amine__k_Hz=fitted(300, 5, 1500, prior=prior)))
        assert model.parameters[1].prior == (400, 40)


def test_a_start_that_is_left_out_is_the_middle_of_the_bounds():
    model = tissue_model_from_dict(model_with(amine__k_Hz={"fit": True, "bounds": [100, 300]}))
    assert model.parameters[1].start == 200


def test_solutes_without_a_name_are_numbered():
    unnamed = {key: value for key, value in NUMBERS["solutes"][0].items() if key != "name"}
    assert tissue_model_from_dict({**NUMBERS, "solutes": [unnamed] * 2}).solute_names == ("solute1", "solute2")


def test_the_tissue_has_the_fitted_values_and_the_maps():
    t1, fraction, k = torch.tensor([1.0, 2.0]), torch.tensor([1e-3, 2e-3]), torch.tensor([100.0, 200.0])
    model = tissue_model_from_dict(model_with(water__T1_s={"map": "t1"}, semisolid={**SEMISOLID, "bridge_ppm": 1.0}))
    tissue = model.tissue(model.values({"amine.fraction": fraction, "amine.k_Hz": k}, {"t1": t1}))
    assert tissue.water.T1_s is t1
    assert tissue.solutes[0].fraction is fraction
    assert tissue.solutes[0].k_Hz is k
    assert tissue.semisolid is not None
    assert (tissue.semisolid.lineshape, tissue.semisolid.bridge_ppm) == ("superlorentzian", 1.0)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ([1], "must be an object with the keys water, solutes, semisolid"),
        ({"solutes": []}, "the key water is missing"),
        ({**MODEL, "pools": []}, "unknown keys pools; use water, solutes, semisolid"),
        (model_with(water={"T1_s": 1.0, "T2_s": 0.1, "T3_s": 1}), "water: unknown keys T3_s; use T1_s, T2_s"),
        (model_with(amine__kHz=1), "amine: unknown keys kHz; use fraction, k_Hz"),
        (model_with(amine__k_Hz=fitted(300, 5, 1500, bound=1)), "amine.k_Hz: unknown keys bound; use fit, start"),
        (
            model_with(amine__k_Hz=fitted(300, 5, 1500, prior={"mean": 1, "std": 2})),
            "amine.k_Hz: prior: unknown keys std; use mean, sd",
        ),
        (model_with(amine__k_Hz=fitted(300, 5, 1500, prior={"mean": 1})), "amine.k_Hz: the prior's sd is None"),
        (model_with(water__T1_s={"map": "t1", "unit": "ms"}), "water.T1_s: unknown keys unit; use map"),
        (model_with(semisolid={**SEMISOLID, "shape": "lorentzian"}), "semisolid: unknown keys shape; use fraction"),
        (model_with(semisolid={**SEMISOLID, "lineshape": ["lorentzian"]}), "semisolid: lineshape must be a name"),
        (model_with(semisolid={**SEMISOLID, "lineshape": "voigt"}), "lineshape 'voigt' is unknown"),
        (
            model_with(amine__protons={"value": 3, "sd": 0.3}),
            "amine: protons is {'value': 3, 'sd': 0.3}, which is not a",
        ),
        (
            model_with(semisolid={**SEMISOLID, "bridge_ppm": {"value": 1, "sd": 0.3}}),
            "semisolid: bridge_ppm is {'value'",
        ),
        (model_with(amine__name="water"), "the solute name 'water' is used twice or reserved"),
        ({**MODEL, "solutes": MODEL["solutes"] * 2}, "the solute name 'amine' is used twice or reserved"),
    ],
)
def test_unusable_models_are_refused_in_one_sentence(model, said):
    with pytest.raises(ValueError, match=r"^m\.json: ") as caught:
        tissue_model_from_dict(model, "m.json")
    one_line(caught.value, "m.json")
    assert said in str(caught.value)


def test_a_model_is_read_from_its_file(tmp_path):
    path = tmp_path / "m.json"
    path.write_text(json.dumps(MODEL))
    assert read_tissue_model(path) == tissue_model_from_dict(MODEL)


@given(st.sampled_from(["water", "solutes", "semisolid", "b0_shift_ppm"]), json_values, words)
@SMALL
def test_arbitrary_values_never_crash_the_tissue_model(key, value, name):
    fitted_value = {"fit": True, "start": value, "bounds": [0.1, 3], name: value}
    bounds = {"fit": True, "start": 1, "bounds": [0.1, value]}
    prior = {"fit": True, "start": 1, "bounds": [0.1, 3], "prior": value}
    reads_or_explains(lambda: tissue_model_from_dict(NUMBERS | {key: value}, "m.json"), "m.json")
    for T1_s in (value, fitted_value, bounds, prior):
        model = NUMBERS | {"water": {"T1_s": T1_s, "T2_s": 1}}
        reads_or_explains(lambda model=model: tissue_model_from_dict(model, "m.json"), "m.json")


@given(st.binary(max_size=80) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "ignore")))
@SMALL
def test_arbitrary_files_never_crash_the_reader(tmp_path, content):
    path = tmp_path / "m.json"
    path.write_bytes(content)
    reads_or_explains(lambda: read_tissue_model(path), str(path))
