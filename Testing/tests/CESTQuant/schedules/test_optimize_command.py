"""``cestquant optimize-schedule``: its files, what it resumes and refuses, several processes, and bundled designs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from command_runs import run_killed, run_under_torchrun
from schedule_configs import SCHEDULE_CONFIG
from training_configs import write_config

from CESTQuantLib.batch import main
from CESTQuantLib.formats.presets import FOLDER
from CESTQuantLib.formats.protocol_files import read_protocol
from CESTQuantLib.networks.files import load_network
from CESTQuantLib.schedules.config import design_from_dict, read_design
from CESTQuantLib.schedules.limits import TRAINABLE, Limits, scan_time_s

BATCH = "CESTQuantLib.batch"


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.mark.slow
def test_the_command_writes_all_files_and_they_agree(tmp_path: Path) -> None:
    assert run("optimize-schedule", write_config(tmp_path, SCHEDULE_CONFIG), "--output", tmp_path / "out") == 0
    assert sorted(os.listdir(tmp_path / "out")) == [
        "network.pt",
        "protocol.csv",
        "protocol.json",
        "protocol.seq",
        "report.json",
        "report.png",
    ]
    assert sorted(os.listdir(tmp_path)) == ["config.json", "out"]
    from_json, from_seq = (read_protocol(tmp_path / "out" / f"protocol.{ending}") for ending in ("json", "seq"))
    rows = (tmp_path / "out" / "protocol.csv").read_text().splitlines()
    assert len(rows) == 7
    for name in TRAINABLE:
        torch.testing.assert_close(getattr(from_seq, name), getattr(from_json, name), rtol=0, atol=1e-8)
        column = rows[0].split(",").index(name)
        assert float(rows[2].split(",")[column]) == pytest.approx(float(getattr(from_json, name)[1]), rel=1e-5)
    assert Limits.from_dict(SCHEDULE_CONFIG["limits"]).violations(from_json) == []
    network = load_network(tmp_path / "out" / "network.pt")
    torch.testing.assert_close(network.protocol.b1_uT, from_json.b1_uT)
    assert network.targets == ("amine.fraction", "amine.k_Hz")
    assert network.calibration.threshold > 1
    summary = json.loads((tmp_path / "out" / "report.json").read_text())["summary"]
    for part in ("start_schedule", "optimised_schedule"):
        assert set(summary[part]["held_out"]) == {"amine_concentration_mM", "amine.k_Hz"}
    assert summary["optimised_schedule"]["scan_time_s"] == pytest.approx(float(scan_time_s(from_json)))
    assert [moment["phase"] for moment in summary["evolution"]].count("network") == 3


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(tmp_path: Path) -> None:
    path = write_config(tmp_path, SCHEDULE_CONFIG, network={"width": 24, "dropout": 0.1})
    assert run("optimize-schedule", path, "--output", tmp_path / "one") == 0
    run_under_torchrun(BATCH, ["optimize-schedule", path, "--output", tmp_path / "two"])
    one, two = (json.loads((tmp_path / n / "report.json").read_text())["summary"] for n in ("one", "two"))
    for name in TRAINABLE:
        first, second = (torch.tensor(s["evolution"][-1]["schedule"][name]) for s in (one, two))
        torch.testing.assert_close(second, first, rtol=1e-4, atol=1e-5)
    for part in ("start_schedule", "optimised_schedule"):
        for name, errors in one[part]["held_out"].items():
            assert two[part]["held_out"][name]["mae"] == pytest.approx(errors["mae"], rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "function", "call", "begun"),
    [
        # In the second of three epochs: an epoch has ten steps and a look at the held-out voxels.
        ({"objective": "network"}, "CESTQuantLib.networks.objective:training_loss", 16, "0-schedule.json"),
        # In the descent from the better of two starts, which have ten steps and a comparison each.
        ({"objective": "crlb-a"}, "CESTQuantLib.schedules.bound:design_loss", 33, "0-schedule.pt"),
    ],
)
def test_a_killed_run_continues_to_the_same_result(
    changes: dict, function: str, call: int, begun: str, tmp_path: Path
) -> None:
    path = write_config(tmp_path, SCHEDULE_CONFIG, **changes)
    assert run("optimize-schedule", path, "--output", tmp_path / "whole") == 0
    module, name = function.split(":")
    run_killed(BATCH, ["optimize-schedule", path, "--output", tmp_path / "killed"], module, name, call)
    assert len(list(tmp_path.glob(f".killed.training/*/{begun}"))) == 1
    assert not (tmp_path / "killed").exists()
    assert run("optimize-schedule", path, "--output", tmp_path / "killed") == 0
    whole, resumed = (json.loads((tmp_path / n / "report.json").read_text())["summary"] for n in ("whole", "killed"))
    assert resumed["evolution"] == whole["evolution"]
    assert resumed["optimised_schedule"] == whole["optimised_schedule"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"limits": {"total_time_s": 0.1}}, "total_time_s is 0.1 s but 6 measurements take at least"),
        ({"targets": ["amine.T2_s"]}, "targets: amine.T2_s; choose among what varies"),
        ({"noise_sd": 0}, "noise_sd is 0, for which there is no Cramér-Rao bound; give a positive number"),
        ({"objective": "best"}, "objective is best; use network, crlb-a, crlb-d, crlb-sd"),
        ({"target_weights": {"amine.dw": 1}}, "target_weights: unknown keys amine.dw"),
        ({"target_weights": {"amine.k_Hz": -1}}, "target_weights are 1, -1 but must be positive or 0"),
        ({"trainable": ["b1"]}, "unknown quantities b1"),
        ({"epochs": 0}, "epochs is 0 but must be a whole number of at least 1"),
        ({"samples": "many"}, "samples is 'many' but must be a whole number"),
        ({"speed": 1}, "unknown keys speed"),
        ({"network": {"depth": 40}}, "network depth is 40"),
        ({"protocol": "missing.json"}, "missing.json: no such file"),
    ],
)
def test_unusable_configurations_are_one_sentence_and_write_nothing(
    changes: dict, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = write_config(tmp_path, SCHEDULE_CONFIG, **changes)
    assert run("optimize-schedule", path, "--output", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command", "protocol", "output"),
    [
        ("optimize-schedule", "protocol.json", "."),
        ("train", "report.json", "network.pt"),
        ("dataset", "dataset.json", "."),
    ],
)
def test_results_never_replace_the_protocol_that_the_configuration_names(
    command: str, protocol: str, output: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    content = json.dumps(SCHEDULE_CONFIG["protocol"])
    (tmp_path / protocol).write_text(content)
    path = write_config(tmp_path, SCHEDULE_CONFIG, protocol=protocol)
    assert run(command, path, "--output", tmp_path / output) == 2
    assert f"{protocol}' is an input of this run and would be replaced" in capsys.readouterr().err
    assert (tmp_path / protocol).read_text() == content
    assert sorted(os.listdir(tmp_path)) == sorted(["config.json", protocol])


def test_the_preset_is_a_usable_configuration_within_its_own_limits() -> None:
    design = read_design(FOLDER / "autocest_larginine.json")
    assert design.limits.violations(design.protocol) == []
    assert design.limits.total_time_s == 35
    assert design.problem.targets == ("amine.fraction", "amine.k_Hz")


def test_bundled_configurations_have_names_and_strategies_are_protocols(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert read_design("autocest_larginine").limits.total_time_s == 35
    assert (
        design_from_dict({**SCHEDULE_CONFIG, "protocol": "strategy 3", "limits": {}}).protocol.measurement_count == 37
    )
    assert run("optimize-schedule", "autocest_nothing", "--output", tmp_path / "out") == 2
    error = capsys.readouterr().err.strip()
    assert "autocest_nothing: no such file; give a CONFIG.json or one of autocest_guanidinium_7T, " in error
    assert "\n" not in error


def test_what_is_wrong_with_the_optimised_schedule_is_told(tmp_path: Path) -> None:
    m0 = {
        "offsets_ppm": [2, 3, 3.5, -300],
        "b1_uT": [4, 2, 3, 0],
        "m0_measurements": [4],
        "signal_normalisation": "m0",
    }
    short = {"samples": 100, "epochs": 1, "held_out": 100, "objective": "crlb-a", "trainable": "b1_uT", "limits": {}}
    short |= {"crlb": {"steps": 2, "starts": 1, "first_steps": 2, "voxels": 16}}
    path = write_config(tmp_path, SCHEDULE_CONFIG, protocol={**SCHEDULE_CONFIG["protocol"], **m0}, **short)
    assert run("optimize-schedule", path, "--output", tmp_path / "out") == 0
    told = json.loads((tmp_path / "out" / "report.json").read_text())["warnings"]
    assert any(sentence.startswith("the optimised schedule: M0 measurement 4 reaches only 0.") for sentence in told)
    off = "the optimised schedule: among 20 drawn tissues r1rho is off by up to 0.0"
    assert any(sentence.startswith(off) for sentence in told)
