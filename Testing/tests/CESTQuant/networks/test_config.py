"""CONFIG.json: one set of keys for data sets, trainings and schedules, checked where it is read."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from paths import ROOT
from schedule_configs import SCHEDULE_CONFIG
from training_configs import amide_tissue, protocol_7T

from CESTQuantLib.batch import main
from CESTQuantLib.formats.presets import FOLDER
from CESTQuantLib.formats.protocol_difference import protocol_difference
from CESTQuantLib.networks.architecture import NetworkOptions
from CESTQuantLib.networks.config import CONFIG_KEYS, TrainingConfig, config_from_dict, config_names, read_config
from CESTQuantLib.networks.settings import TrainingSettings
from CESTQuantLib.preprocessing.normalization import normalize
from CESTQuantLib.schedules.bound import BoundSettings
from CESTQuantLib.schedules.config import design_from_dict, read_design

COMPLETE: dict[str, Any] = {
    **SCHEDULE_CONFIG,
    "engine": "r1rho",
    "learning_rate": 0.002,
    "patience": 5,
    "false_alarm_rate": 0.1,
    "dataset": "data",
    "noise_injection_sd": 0.001,
    "objective": "crlb-a",
    "target_weights": {"amine.k_Hz": 2},
    "schedule_learning_rate": 0.0002,
    "head_start": 1,
    "note": "a note is always accepted",
}
READERS = [config_from_dict, design_from_dict]


@pytest.mark.parametrize("read", READERS)
def test_every_command_accepts_every_key(read: Callable) -> None:
    assert set(COMPLETE) == {*CONFIG_KEYS, "note"}
    read(COMPLETE)


def described_keys(values: Any) -> Iterator[str]:
    """All keys of an object read from JSON; those of ``target_weights`` are the user's own."""
    for key, value in values.items() if isinstance(values, dict) else ():
        yield key
        yield from () if key == "target_weights" else described_keys(value)
    for value in values if isinstance(values, list) else ():
        yield from described_keys(value)


def test_the_page_of_file_formats_describes_every_key() -> None:
    page = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    keys = {*CONFIG_KEYS, *NetworkOptions.__annotations__, *(field.name for field in fields(BoundSettings))}
    for path in FOLDER.glob("*.json"):
        values = json.loads(path.read_text(encoding="utf-8"))
        keys |= set(described_keys(list(values.values()) if path.stem == "tissues" else values))
    assert {key for key in keys if f"`{key}`" not in page and f'"{key}"' not in page} == set()


@pytest.mark.parametrize("read", READERS)
def test_an_unknown_key_is_refused_with_the_known_ones(read: Callable) -> None:
    with pytest.raises(ValueError, match=r"c\.json: unknown keys epoch, sampels; use protocol, tissue, .*held_out$"):
        read({**COMPLETE, "sampels": 100, "epoch": 3}, "c.json")


@pytest.mark.parametrize("command", ["dataset", "train", "optimize-schedule"])
def test_a_protocol_that_no_file_can_be_called_is_refused_by_the_name_of_the_configuration(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    values = {"protocol": 5000 * "p", "tissue": {}, "targets": ["water.T1_s"]}
    (tmp_path / "c.json").write_text(json.dumps(values))
    assert main([command, str(tmp_path / "c.json"), "--output", str(tmp_path / "n.pt")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"error: {tmp_path / 'c.json'}: ")
    assert "protocol" in line


@pytest.mark.parametrize("command", ["dataset", "train", "optimize-schedule"])
def test_the_commands_refuse_an_unknown_key_before_any_work(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "c.json").write_text('{"protocol": {}, "tissue": {}, "targets": [], "sampels": 1}')
    assert main([command, str(tmp_path / "c.json"), "--output", str(tmp_path / "n.pt")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "c.json: unknown keys sampels; use protocol, tissue" in line
    assert [path.name for path in tmp_path.iterdir()] == ["c.json"]


@pytest.mark.parametrize("read", READERS)
def test_what_is_not_an_object_is_refused_with_the_keys(read: Callable) -> None:
    with pytest.raises(ValueError, match=r"c\.json: must be an object with the keys protocol, tissue"):
        read([1, 2], "c.json")


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"protocol": None}, "c.json: "),
        ({"tissue": "wet"}, "c.json: tissue"),
        ({"targets": ["amine.fraction"] * 2}, "targets: amine.fraction, amine.fraction names an entry twice"),
        ({"targets": ["water.R9"]}, r"targets: water\.R9; choose among what varies in the tissue: water\.T1_s"),
        ({"noise_sd": [0.01, 0.002]}, r"noise_sd is \[0\.01, 0\.002\]; give a number or"),
        ({"noise_sd": [0.01, 0.02, 0.03]}, "noise_sd is .*, which is not a number"),
        ({"engine": "bloch"}, "engine 'bloch' is unknown; use one of bloch-mcconnell, r1rho"),
        ({"epochs": 2.5}, "epochs is 2.5 but must be a whole number of at least 1"),
        ({"patience": -1}, "patience is -1 but must be a whole number of at least 0"),
        ({"seed": "one"}, "seed is 'one' but must be a whole number"),
        ({"seed": 20251130123456}, "seed is 20251130123456 but must lie between -1000000000000 and 1000000000000"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast', which is not a number"),
        ({"learning_rate": 0}, "learning_rate is 0.0 but must be positive"),
        ({"false_alarm_rate": 1}, "false_alarm_rate is 1 but must lie between 0 and 1"),
        ({"network": {"with": 30}}, "network: unknown keys with; use width, depth, dropout, activation"),
        ({"network": {"width": "wide"}}, "a value has the wrong type"),
        ({"network": {"depth": 30}}, "network depth is 30 but must be 2 to 20"),
    ],
)
def test_both_readers_refuse_unusable_values_in_the_same_words(read: Callable, changes: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as error:
        read({**COMPLETE, "target_weights": None, **changes}, "c.json")
    assert str(error.value).startswith("c.json: ")
    assert "\n" not in str(error.value)


def test_one_target_needs_no_list_and_all_that_varies_is_learned_without_targets() -> None:
    config = {"protocol": protocol_7T([-3.5, 3.0, 3.5]), "tissue": amide_tissue(), "targets": "amide.k_Hz"}
    assert config_from_dict(config).targets == ("amide.k_Hz",)
    assert config_from_dict(config).outputs == ("amide.k_Hz", "water.T1_s", "amide.fraction")
    del config["targets"]
    assert config_from_dict(config).targets == ("water.T1_s", "amide.fraction", "amide.k_Hz")


def test_whole_numbers_may_be_written_with_a_point() -> None:
    config = config_from_dict({**COMPLETE, "samples": 100.0, "epochs": 3.0, "seed": -2})
    assert (config.samples, config.settings.epochs, config.settings.seed) == (100, 3, -2)


def test_settings_that_change_how_fast_is_learned_do_not_bind_a_checkpoint() -> None:
    settings = TrainingSettings(learning_rate=0.1, epochs=3, patience=1, weights=(1.0, 0.5))
    assert settings.lasting() == TrainingSettings(weights=(1.0, 0.5)).lasting()
    assert settings.lasting() != TrainingSettings(seed=1, weights=(1.0, 0.5)).lasting()
    assert settings.lasting()["weights"] == [1.0, 0.5]


@pytest.mark.parametrize("read", READERS)
def test_a_protocol_that_leaves_its_saturation_open_is_refused(read: Callable, tmp_path: Path) -> None:
    stated = SCHEDULE_CONFIG["protocol"]
    for key in ("b1_uT", "saturation_time_s"):
        open_ = {**SCHEDULE_CONFIG, "protocol": {**stated, key: None}}
        with pytest.raises(ValueError, match=rf"^c\.json: {key} is null in the protocol: fill in the values"):
            read(open_, "c.json")
    (tmp_path / "offsets.txt").write_text("-3.5\n0\n3.5\n")
    only_offsets = {**SCHEDULE_CONFIG, "protocol": "offsets.txt"}
    with pytest.raises(ValueError, match=r"^c\.json: the protocol gives no saturation time and B1; a simulation needs"):
        read(only_offsets, "c.json", tmp_path)


def with_reference(b1_uT: float, offset_ppm: float = -300.0, **changes: Any) -> dict[str, Any]:
    """Configuration whose first measurement may be an M0 reference."""
    stated = SCHEDULE_CONFIG["protocol"] | {"magnetisation_carried_over": False, "signal_normalisation": "m0"}
    first = {"offsets_ppm": [offset_ppm, *stated["offsets_ppm"]], "b1_uT": [b1_uT, *stated["b1_uT"]]}
    return {**SCHEDULE_CONFIG, "trainable": "b1_uT", "limits": {}, "protocol": {**stated, **first, **changes}}


def test_spectra_are_simulated_without_the_m0_measurements_that_a_fit_divides_by() -> None:
    config = config_from_dict(with_reference(2.0, m0_measurements=[1]))
    scan = normalize(torch.rand(3, 7), config.acquisition, None)
    assert protocol_difference(config.protocol, scan.protocol) == ""
    assert config.simulate(2).clean.shape == (2, 6)
    as_signals = config_from_dict(with_reference(0.0, m0_measurements=[1], signal_normalisation="l2"))
    assert as_signals.protocol.measurement_count == 7


@pytest.mark.parametrize("read", READERS)
def test_a_far_measurement_without_rf_is_taken_for_m0_with_a_warning(read: Callable) -> None:
    with pytest.warns(
        UserWarning,
        match="measurement 1, far off resonance and without RF, is taken for M0, as in a scan without an M0 image",
    ):
        found = read(with_reference(0.0))
    whole = found.acquisition if isinstance(found, TrainingConfig) else found.protocol
    assert whole.m0_measurements == (1,)


@pytest.mark.parametrize("read", READERS)
def test_the_warning_of_several_measurements_without_names_is_in_the_plural(read: Callable) -> None:
    stated = SCHEDULE_CONFIG["protocol"] | {"magnetisation_carried_over": False, "signal_normalisation": "m0"}
    two = {"offsets_ppm": [-300, *stated["offsets_ppm"], -300], "b1_uT": [0, *stated["b1_uT"], 0]}
    with pytest.warns(UserWarning, match="measurements 1 and 8, far off resonance and without RF, are taken for M0"):
        read({**SCHEDULE_CONFIG, "trainable": "b1_uT", "limits": {}, "protocol": {**stated, **two}})


PULSE_TRAIN = protocol_7T(
    [2.0, 2.5, 3.0, 3.5, 4.0],
    2.0,
    **{"saturation_type": "pulse_train", "n_pulses": 20, "pulse_duration_s": 0.05, "duty_cycle": 0.5},
    pulse_shape="gaussian",
)
del PULSE_TRAIN["saturation_time_s"]
OUTSIDE = [
    ({"protocol": PULSE_TRAIN, "tissue": amide_tissue()}, "R1rho treats pulse trains as continuous-wave saturation"),
    (
        {"protocol": protocol_7T([1.5, 2.0, 3.5], 4.0) | {"saturation_time_s": 0.1}, "tissue": amide_tissue()},
        "in 2 of 3 measurements, up to 2 ppm from water, the saturation is short against T2",
    ),
]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(("config", "reason"), OUTSIDE)
def test_tissues_for_which_the_analytic_solution_is_off_are_warned_about(
    read: Callable, config: dict[str, Any], reason: str
) -> None:
    config = {**config, "targets": "amide.k_Hz"}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read(config, "c.json")
    assert [str(warning.message).startswith("c.json: ") for warning in caught] == [True, True]
    why, how_much = (str(warning.message) for warning in caught)
    assert reason in why
    assert "c.json: among 20 drawn tissues r1rho is off by up to 0." in how_much
    assert 'set "engine" to "bloch-mcconnell"' in how_much
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read({**config, "engine": "bloch-mcconnell"})


@pytest.mark.parametrize("name", config_names())
@pytest.mark.parametrize("read", [read_config, read_design])
def test_the_bundled_configurations_are_within_reach_of_their_engines(read: Callable, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(name)


def carried_over(flip_deg: float, recovery_s: float) -> dict[str, Any]:
    """Configuration whose fourth measurement is M0, after a recovery of the given length."""
    stated = SCHEDULE_CONFIG["protocol"] | {"readout_flip_angle_deg": flip_deg, "signal_normalisation": "m0"}
    m0 = {"offsets_ppm": [2.5, 3, 3.5, -300, 2], "b1_uT": [1, 2, 3, 0, 2], "m0_measurements": [4]}
    return {
        **SCHEDULE_CONFIG,
        "trainable": "b1_uT",
        "limits": {},
        "protocol": {**stated, **m0, "recovery_time_s": [0.5, 0.5, recovery_s, 0.5, 0.5]},
    }


@pytest.mark.parametrize("read", READERS)
def test_an_m0_that_has_not_recovered_is_told(read: Callable) -> None:
    with pytest.warns(UserWarning, match=r"^c\.json: M0 measurement 4 reaches only 0\.\d+ of the equilibrium"):
        read(carried_over(90, 0.5), "c.json")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(carried_over(90, 15.0), "c.json")


@pytest.mark.parametrize("read", READERS)
def test_an_m0_that_leaves_magnetisation_for_the_next_measurement_is_told(read: Callable) -> None:
    with pytest.warns(UserWarning, match=r"^c\.json: M0 measurements lie between the others and, without an excit"):
        read(carried_over(30, 15.0), "c.json")


@pytest.mark.parametrize("read", READERS)
def test_a_far_measurement_with_rf_stays_a_signal_that_tells_about_semisolid_pools(read: Callable) -> None:
    found = read(with_reference(2.0, 50.0))
    assert found.protocol.measurement_count == 7
    assert found.protocol.m0_measurements == ()
