"""Simulation scenarios from JSON: what every preparation means, and what is said about those that cannot be used."""

from __future__ import annotations

import copy
import json
import warnings
from typing import Any

import pytest
import torch
from arbitrary_values import SEEDED, json_values, one_line, reads_or_explains
from hypothesis import given
from hypothesis import strategies as st
from paths import TESTS

from CESTQuantLib.formats.scenario import read_scenario
from CESTQuantLib.physics.simulation import simulate

SCENARIO = {
    "B0_T": 3.0,
    "gamma_rad_per_s_per_uT": 267.5154109126009,
    "water": {"f": 1.0, "T1_s": 1.3, "T2_s": 0.08},
    "solute_pools_full_xyz": [{"name": "amide", "f": 1e-3, "k_Hz": 40.0, "T1_s": 1.0, "T2_s": 0.1, "dw_ppm": 3.5}],
    "mt_pool_z_only": {
        "f": 0.1,
        "k_Hz": 30.0,
        "T1_s": 1.0,
        "T2_s": 1e-5,
        "dw_ppm": -2.6,
        "lineshape": "SuperLorentzian",
    },
    "offsets_ppm": [-3.5, 2.0, 3.5],
    "preparation": {
        "type": "CW block",
        "B1_uT": 2.0,
        "tsat_s": 1.0,
        "rel_B1": 0.9,
        "B0_shift_ppm": 0.1,
        "initial_Mz_fraction_all_pools": 0.8,
        "post_delay_s": 0.01,
    },
}
TRAIN = {
    "type": "pulse train (piecewise constant samples)",
    "n_pulses": 3,
    "tp_s": 0.04,
    "td_s": 0.01,
    "sample_dwell_s": 0.01,
    "B1_samples_uT": [1.0, 3.0, 3.0, 1.0],
}
SCHEDULE = {
    "type": "CW block schedule",
    "B1_uT": [1.0, 2.0, 3.0],
    "tsat_s": [0.5, 0.6, 0.7],
    "trec_s": 0.4,
    "reset_before_each_offset": False,
}


def scenario(preparation: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    return copy.deepcopy(SCENARIO) | ({"preparation": preparation} if preparation else {}) | changes


def spectrum(values: dict[str, Any]) -> torch.Tensor:
    found = read_scenario(values, "s.json")
    return simulate(found.tissue, found.protocol, b0_shift_ppm=found.b0_shift_ppm, b1_relative=found.b1_relative)[0]


def test_every_key_of_a_continuous_wave_scenario_counts() -> None:
    reference = spectrum(scenario())
    assert reference.shape == (3,)
    for key, value in {
        "B1_uT": 1.5,
        "tsat_s": 0.7,
        "rel_B1": 1.1,
        "B0_shift_ppm": -0.1,
        "post_delay_s": 0.2,
        "initial_Mz_fraction_all_pools": 0.5,
    }.items():
        changed = spectrum(scenario(SCENARIO["preparation"] | {key: value}))
        assert float((changed - reference).abs().max()) > 1e-4, key


def test_one_value_per_offset_gives_the_same_as_one_scenario_per_offset() -> None:
    together = spectrum(scenario({"type": "CW block", "B1_uT": [1.0, 2.0, 3.0], "tsat_s": [0.5, 1.0, 1.5]}))
    for i, (offset, b1, time) in enumerate(zip([-3.5, 2.0, 3.5], [1.0, 2.0, 3.0], [0.5, 1.0, 1.5], strict=True)):
        alone = scenario({"type": "CW block", "B1_uT": b1, "tsat_s": time}, offsets_ppm=[offset])
        torch.testing.assert_close(spectrum(alone)[0], together[i], rtol=0, atol=1e-12)


def test_a_schedule_is_carried_over_and_a_block_is_not() -> None:
    carried = spectrum(scenario(SCHEDULE))
    reset = spectrum(scenario(SCHEDULE | {"type": "CW block"} | {"reset_before_each_offset": True}))
    torch.testing.assert_close(carried[0], reset[0], rtol=0, atol=1e-12)
    assert float((carried[1:] - reset[1:]).abs().min()) > 1e-3


def test_a_train_can_be_carried_over_too() -> None:
    """The train that repeats one block is that block, also where every measurement starts from the last one."""
    block = {"type": "pulse train (piecewise constant samples)", "n_pulses": 1, "tp_s": 0.5, "td_s": 0.0}
    block |= {"sample_dwell_s": 0.5, "B1_samples_uT": [2.0]}
    carried = {"trec_s": 0.4, "reset_before_each_offset": False}
    schedule = spectrum(scenario(SCHEDULE | carried | {"B1_uT": 2.0, "tsat_s": 0.5}))
    torch.testing.assert_close(spectrum(scenario(block | carried)), schedule, rtol=0, atol=1e-12)
    afresh = spectrum(scenario(block))
    assert float((afresh[1:] - schedule[1:]).abs().min()) > 1e-3


def test_a_train_is_played_sample_by_sample() -> None:
    one = spectrum(scenario(TRAIN | {"n_pulses": 1}))
    block = spectrum(scenario(TRAIN | {"n_pulses": 1, "B1_samples_uT": [2.0], "sample_dwell_s": 0.04}))
    cw = spectrum(scenario({"type": "CW block", "B1_uT": 2.0, "tsat_s": 0.04}))
    torch.testing.assert_close(block, cw, rtol=0, atol=1e-12)
    assert float((one - cw).abs().max()) > 1e-3


@pytest.mark.parametrize("preparation", [SCENARIO["preparation"] | {"tsat_s": 100.0}, TRAIN | {"n_pulses": 2000}])
def test_a_steady_state_may_take_longer_than_any_acquisition(preparation: dict[str, Any]) -> None:
    assert read_scenario(scenario(preparation), "s.json").protocol.saturation_time_s.max() > 60


def test_pools_may_be_absent() -> None:
    water_only = spectrum(scenario(solute_pools_full_xyz=None, mt_pool_z_only=None))
    assert float((water_only - spectrum(scenario())).abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"water": None}, "water"),
        ({"offsets_ppm": []}, "offsets_ppm is empty"),
        ({"B0_T": -3.0}, "field_strength_T is -3"),
        ({"mt_pool_z_only": SCENARIO["mt_pool_z_only"] | {"lineshape": "Voigt"}}, "lineshape 'voigt' is unknown"),
        ({"preparation": {"type": "spin lock"}}, "preparation type 'spin lock' is unknown"),
        ({"preparation": {"type": "CW block", "B1_uT": 1.0}}, "'tsat_s' is missing"),
        ({"preparation": {"type": "CW block", "B1_uT": None, "tsat_s": 1.0}}, "'B1_uT' is missing or null"),
        ({"water": SCENARIO["water"] | {"f": 0.5}}, "water: f is 0.5 but must be 1"),
        ({"water": SCENARIO["water"] | {"dw_ppm": 0.5}}, "water: dw_ppm is 0.5 but must be 0"),
        ({"water": SCENARIO["water"] | {"T1_s": 1300}}, "water: T1_s is 1300 s, which no tissue has"),
        ({"gamma_rad_per_s_per_uT": 42.5764}, "42.5764, which is that of 1H in MHz/T: give 267.52 rad/(s uT)"),
        ({"gamma_MHz_per_T": 40.05}, "267.515 but gamma_MHz_per_T is 40.05, which is 251.64 rad/(s uT)"),
        (
            {"preparation": SCENARIO["preparation"] | {"initial_Mz_fraction_all_pools": 30}},
            "initial_magnetisation is 30 but must lie between -1 and 1",
        ),
        ({"preparation": {"type": "CW block", "B1_uT": -1.0, "tsat_s": 1}}, "negative value -1"),
        ({"preparation": TRAIN | {"sample_dwell_s": 0.02}}, "samples of 0.02 s last 0.08 s"),
        ({"preparation": TRAIN | {"n_pulses": 0}}, "n_pulses is 0"),
        ({"preparation": SCHEDULE | {"reset_before_each_offset": "false"}}, "'false' but must be true or false"),
    ],
)
def test_unusable_scenarios_are_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=r"^s\.json: ") as caught:
        read_scenario(scenario() | change, "s.json")
    one_line(caught.value, "s.json")
    assert words in str(caught.value)


@pytest.mark.parametrize("key", ["B0_T", "water", "offsets_ppm", "preparation"])
def test_missing_keys_are_named(key: str) -> None:
    with pytest.raises(ValueError, match=rf"s\.json: the key '{key}' is missing"):
        read_scenario({k: v for k, v in scenario().items() if k != key}, "s.json")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"B0": 3.0}, r"^s\.json: unknown keys are ignored: B0$"),
        ({"water": SCENARIO["water"] | {"R1": 1.0}}, r"^s\.json: water: unknown keys are ignored: R1$"),
        (
            {"mt_pool_z_only": SCENARIO["mt_pool_z_only"] | {"line": "Gaussian"}},
            r"^s\.json: mt_pool_z_only: unknown keys are ignored: line$",
        ),
        ({"water": SCENARIO["water"] | {"k_Hz": 5}}, r"^s\.json: water: unknown keys are ignored: k_Hz$"),
        (
            {"preparation": SCENARIO["preparation"] | {"B0_shift": 0.1}},
            r"^s\.json: preparation: unknown keys are ignored: B0_shift$",
        ),
    ],
)
def test_unknown_keys_are_named_in_a_warning(change: dict[str, Any], words: str) -> None:
    with pytest.warns(UserWarning, match=words):
        read_scenario(scenario() | change, "s.json")


@pytest.mark.parametrize(
    ("preparation", "words"),
    [
        (SCENARIO["preparation"] | {"n_pulses": 3, "tp_s": 0.05}, "n_pulses, tp_s are not used in .* 'CW block'"),
        (TRAIN | {"B1_uT": 2.0}, "B1_uT is not used in a preparation of the type 'pulse train"),
        (SCENARIO["preparation"] | {"rel_B1": 120}, "rel_B1 is 120, which is unusual: .* not in percent"),
    ],
)
def test_a_preparation_that_may_mean_something_else_is_told(preparation: dict[str, Any], words: str) -> None:
    with pytest.warns(UserWarning, match=rf"^s\.json: {words}"):
        read_scenario(scenario(preparation), "s.json")


def test_null_is_the_same_as_an_absent_optional_key() -> None:
    optional = ("rel_B1", "B0_shift_ppm", "initial_Mz_fraction_all_pools", "post_delay_s")
    absent = {key: value for key, value in SCENARIO["preparation"].items() if key not in optional}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        null = absent | dict.fromkeys((*optional, "trec_s", "reset_before_each_offset"))
        nothing = spectrum(scenario(null, gamma_rad_per_s_per_uT=None))
    torch.testing.assert_close(nothing, spectrum(scenario(absent)), rtol=0, atol=0)


def test_the_gyromagnetic_ratio_may_be_given_in_mhz_per_tesla() -> None:
    fluorine = scenario()
    del fluorine["gamma_rad_per_s_per_uT"]
    found = read_scenario(fluorine | {"gamma_MHz_per_T": 40.05}, "s.json").protocol
    assert found.gamma_rad_per_s_per_uT == pytest.approx(251.64, abs=0.01)


@pytest.mark.parametrize("preparation", [TRAIN, SCENARIO["preparation"], SCHEDULE | {"reset_before_each_offset": True}])
def test_a_recovery_without_a_magnetisation_that_is_carried_over_is_named_in_a_warning(
    preparation: dict[str, Any],
) -> None:
    with pytest.warns(UserWarning, match=r"^s\.json: trec_s is not used, .*; set reset_before_each_offset to false"):
        read_scenario(scenario(preparation | {"trec_s": 0.4}), "s.json")


def test_a_recovery_that_is_used_or_nothing_gives_no_warning() -> None:
    for preparation in (SCHEDULE, TRAIN | {"trec_s": 0}, TRAIN | {"trec_s": 0.4, "reset_before_each_offset": False}):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read_scenario(scenario(preparation), "s.json")


def test_the_golden_spectra_have_no_unknown_keys() -> None:
    for path in (TESTS / "golden").glob("*.json"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read_scenario(json.loads(path.read_text(encoding="utf-8")), path.name)


@given(st.sampled_from([*SCENARIO]), json_values, st.sampled_from([*SCENARIO["preparation"], *TRAIN, *SCHEDULE]))
@SEEDED
def test_arbitrary_values_never_crash_a_scenario(key: str, value: Any, preparation_key: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reads_or_explains(lambda: read_scenario(scenario() | {key: value}, "s.json"), "s.json")
        for preparation in (SCENARIO["preparation"], TRAIN, SCHEDULE):
            changed = scenario(preparation | {preparation_key: value})
            reads_or_explains(lambda changed=changed: read_scenario(changed, "s.json"), "s.json")
        reads_or_explains(lambda: read_scenario(value, "s.json"), "s.json")
        solute = SCENARIO["solute_pools_full_xyz"][0] | {"k_Hz": value}
        reads_or_explains(lambda: read_scenario(scenario(solute_pools_full_xyz=[solute]), "s.json"), "s.json")


@pytest.mark.parametrize(
    ("preparation", "keys"),
    [
        (SCENARIO["preparation"], ("B1_uT", "tsat_s")),
        (SCHEDULE, ("B1_uT", "tsat_s")),
        (TRAIN, ("n_pulses", "tp_s", "td_s", "B1_samples_uT", "sample_dwell_s")),
    ],
)
def test_a_saturation_that_is_left_open_is_refused_by_name(preparation: dict[str, Any], keys: tuple[str, ...]) -> None:
    for key in keys:
        with pytest.raises(ValueError, match=rf"^s\.json: the key '{key}' is missing or null"):
            read_scenario(scenario(preparation | {key: None}), "s.json")
