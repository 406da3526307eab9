"""``cestquant train``: what it writes, resumes and refuses, on new spectra and on data sets from disk."""

from __future__ import annotations

import json
import re
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from command_runs import run_killed, run_under_torchrun
from training_configs import amide_tissue, protocol_7T, write_config

from CESTQuantLib.batch import main
from CESTQuantLib.networks import shards
from CESTQuantLib.networks.architecture import ReconstructionNetwork
from CESTQuantLib.networks.config import TrainingConfig, config_from_dict
from CESTQuantLib.networks.dataset import SimulatedBatches, simulate_dataset
from CESTQuantLib.networks.files import load_network
from CESTQuantLib.networks.fixed_protocol import train_from_config
from CESTQuantLib.networks.objective import Batch
from NeuroCESTLib.core import checkpoints

BATCH = "CESTQuantLib.batch"
TINY = {
    "protocol": protocol_7T([-3.5, 0.8, 2.0, 3.0, 3.5, 4.0, 3.5], [1, 1, 1, 1, 1, 1, 2]),
    "tissue": amide_tissue(),
    "targets": ["amide.fraction"],
    "samples": 3000,
    "epochs": 6,
    "seed": 4,
    "network": {"width": 48},
}
SEMISOLID = {"fraction": 0.1, "k_Hz": 20, "T1_s": 1.0, "T2_s": 1e-5, "lineshape": "lorentzian", "coupling": "z-only"}


def same(one: ReconstructionNetwork, other: ReconstructionNetwork) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_train_writes_network_loss_curves_and_report(tmp_path: Path) -> None:
    output = tmp_path / "new" / "network.pt"
    assert main(["train", str(write_config(tmp_path, TINY)), "--output", str(output)]) == 0
    assert {path.name for path in output.parent.iterdir()} == {"network.pt", "network.png", "report.json"}
    file = load_network(output)
    assert file.targets == ("amide.fraction",)
    assert file.outputs == ("amide.fraction", "water.T1_s", "amide.k_Hz")
    report = json.loads((output.parent / "report.json").read_text())
    assert report["inputs"][0]["role"] == "config"
    assert report["summary"]["false_alarm_rate"] == 0.05
    assert report["summary"]["held_out"]["amide.fraction correlation"] > 0.5


@pytest.mark.slow
def test_a_killed_train_command_continues_to_the_same_network(tmp_path: Path) -> None:
    config = write_config(tmp_path, TINY)
    output = tmp_path / "killed.pt"
    train = ["train", config, "--output", output]
    steps_of_an_epoch = 12  # 11 batches and the held-out voxels
    call = 3 * steps_of_an_epoch + 5
    run_killed(BATCH, train, "CESTQuantLib.networks.objective", "training_loss", call)
    assert not output.exists()
    (checkpoint,) = tmp_path.glob(".killed.pt.*.checkpoint")
    assert torch.load(checkpoint, weights_only=True)["epoch"] == 3
    assert main([str(argument) for argument in train]) == 0
    assert main(["train", str(config), "--output", str(tmp_path / "whole.pt")]) == 0
    one, other = load_network(output), load_network(tmp_path / "whole.pt")
    assert one.training["loss"] == other.training["loss"]
    assert same(one.network, other.network)
    assert not list(tmp_path.glob(".killed.pt.*"))


@pytest.mark.parametrize("rate", [1e3, 1e6, 1e30])
def test_a_diverging_train_command_is_one_sentence_and_keeps_the_earlier_network(
    rate: float, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    output = tmp_path / "n.pt"
    assert main(["train", str(write_config(tmp_path, TINY, epochs=1, samples=600)), "--output", str(output)]) == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != "config.json"}
    capsys.readouterr()
    config = write_config(tmp_path, TINY, samples=600, learning_rate=rate)
    assert main(["train", str(config), "--output", str(output)]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the training diverged in epoch 1 (" in said
    assert said.endswith("lower the learning rate")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != "config.json"} == before


def test_a_diverged_train_command_continues_with_a_lower_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    output, broken = tmp_path / "n.pt", []
    whole = SimulatedBatches.epoch

    def epoch(self: SimulatedBatches, generator: torch.Generator) -> Iterator[Batch]:
        broken.append(True)
        for batch in whole(self, generator):
            yield batch._replace(signal=batch.signal * torch.nan) if len(broken) == 3 else batch

    monkeypatch.setattr(SimulatedBatches, "epoch", epoch)
    assert main(["train", str(write_config(tmp_path, TINY, samples=600)), "--output", str(output)]) == 2
    assert "epoch 2) is kept in" in capsys.readouterr().err
    monkeypatch.undo()
    epochs = []
    monkeypatch.setattr(SimulatedBatches, "epoch", lambda *args: epochs.append(args) or whole(*args))
    config = write_config(tmp_path, TINY, samples=600, learning_rate=5e-4, patience=9)
    assert main(["train", str(config), "--output", str(output)]) == 0
    assert len(epochs) == 4  # the two good ones of six are not repeated
    assert not list(tmp_path.glob(".n.pt.*"))


@pytest.mark.parametrize("name", ["net.png", "net.json", "net", "net.pt.gz"])
def test_only_files_named_as_networks_are_written(name: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["train", str(write_config(tmp_path, TINY)), "--output", str(tmp_path / name)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.endswith(f"{name}': the name of a network file must end in .pt")
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_an_unusable_configuration_leaves_no_folder_behind(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = write_config(tmp_path, TINY, protocol="missing.json")
    assert main(["train", str(config), "--output", str(tmp_path / "new" / "folder" / "n.pt")]) == 2
    assert "missing.json: no such file" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_report_never_replaces_the_configuration(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = write_config(tmp_path, TINY).rename(tmp_path / "report.json")
    before = config.read_text()
    for command, output in (("train", tmp_path / "n.pt"), ("dataset", tmp_path)):
        assert main([command, str(config), "--output", str(output)]) == 2
        assert "it is the configuration; choose another folder" in capsys.readouterr().err
    assert config.read_text() == before


def test_a_data_set_on_disk_trains_the_same_network_as_new_spectra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(shards, "SHARD_ROWS", 1024)  # three shards
    config = write_config(tmp_path, TINY)
    assert main(["dataset", str(config), "--output", str(tmp_path / "data")]) == 0
    assert main(["train", str(config), "--output", str(tmp_path / "new.pt")]) == 0
    monkeypatch.setattr(TrainingConfig, "simulate", None)  # nothing is simulated again
    assert main(["train", str(config), "--dataset", str(tmp_path / "data"), "--output", str(tmp_path / "one.pt")]) == 0
    assert "warning" not in capsys.readouterr().err
    write_config(tmp_path, TINY, dataset="data", samples=7)
    assert main(["train", str(config), "--output", str(tmp_path / "two.pt")]) == 0
    assert "all 3000 samples of the data set are used, not the 7 that" in capsys.readouterr().err
    new = load_network(tmp_path / "new.pt")
    for name in ("one.pt", "two.pt"):
        file = load_network(tmp_path / name)
        assert file.training["loss"] == new.training["loss"]
        assert file.training["samples"] == 3000
        assert same(file.network, new.network)
    report = json.loads((tmp_path / "report.json").read_text())
    assert {entry["role"] for entry in report["inputs"]} == {"config", "dataset"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"protocol": {**TINY["protocol"], "saturation_time_s": 1.5}}, "protocol: saturation_time_s is 2, here 1.5"),
        ({"tissue": {**TINY["tissue"], "b0_shift_ppm": {"uniform": [-0.1, 0.1]}}}, "another tissue: b0_shift_ppm"),
        ({"tissue": amide_tissue(protons=2)}, "another tissue: amide.protons is not given, in the configuration 2"),
        ({"engine": "bloch-mcconnell"}, "simulated by r1rho"),
        ({"noise_sd": 0.001}, "noise of 0.002 to 0.006"),
    ],
)
def test_a_data_set_of_another_simulation_is_refused(
    changes: dict, said: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data = str(tmp_path / "data")
    assert main(["dataset", str(write_config(tmp_path, TINY, samples=300)), "--output", data]) == 0
    capsys.readouterr()
    config = str(write_config(tmp_path, TINY, **changes))
    assert main(["train", config, "--dataset", data, "--output", str(tmp_path / "n.pt")]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert data in lines[0]
    assert said in lines[0]
    assert not (tmp_path / "n.pt").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"semisolid": {**SEMISOLID, "lineshape": "superlorentzian"}}, "semisolid.lineshape is lorentzian, in the"),
        ({"semisolid": {**SEMISOLID, "coupling": "xyz"}}, "semisolid.coupling is z-only, in the configuration xyz"),
        ({"semisolid": None}, "semisolid.fraction differs"),
        ({"solutes": []}, "amide.fraction differs"),
    ],
)
def test_a_data_set_of_other_pools_is_refused(changes: dict, said: str, tmp_path: Path) -> None:
    tissue = {**TINY["tissue"], "semisolid": SEMISOLID}
    config, other = (config_from_dict({**TINY, "targets": None, "tissue": t}) for t in (tissue, {**tissue, **changes}))
    shards.write_dataset(tmp_path, config.simulate(20), config.tissue, config.protocol, config.settings.seed)
    stored = shards.read_dataset(tmp_path)
    stored.require_match(config)
    with pytest.raises(ValueError, match=f"another tissue: {re.escape(said)}"):
        stored.require_match(other)


def test_folders_without_a_data_set_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    train = ["train", str(write_config(tmp_path, TINY)), "--output", str(tmp_path / "n.pt"), "--dataset"]
    for folder in (tmp_path / "missing", tmp_path):
        assert main([*train, str(folder)]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        assert str(folder) in lines[0]
    assert main([*train, str(tmp_path), "--self-supervised", "--signal", "z.nii.gz"]) == 2
    assert "--dataset does not go with" in capsys.readouterr().err


@pytest.mark.slow
def test_several_processes_train_the_network_of_one_process_dropout_included(tmp_path: Path) -> None:
    config = write_config(tmp_path, TINY, epochs=3, samples=2000, network={"width": 48, "dropout": 0.2})
    assert main(["train", str(config), "--output", str(tmp_path / "one.pt")]) == 0
    run_under_torchrun(BATCH, ["train", config, "--output", tmp_path / "two.pt"])
    one, two = (load_network(tmp_path / f"{name}.pt") for name in ("one", "two"))
    assert two.training["loss"] == pytest.approx(one.training["loss"], rel=1e-4)
    for key, value in one.network.state_dict().items():
        torch.testing.assert_close(two.network.state_dict()[key], value, rtol=1e-3, atol=1e-5)


def test_injected_noise_adds_to_that_of_the_data_and_replaces_none() -> None:
    assert config_from_dict(TINY).training_noise_sd == (0.002, 0.006)
    assert config_from_dict({**TINY, "noise_sd": 0}).training_noise_sd == (0.002, 0.002)
    config = config_from_dict({**TINY, "noise_sd": [0.003, 0.006], "noise_injection_sd": 0.004, "epochs": 1})
    assert config.training_noise_sd == pytest.approx((0.005, 0.52**0.5 / 100))
    file, _ = train_from_config(config)
    assert file.noise_sd == config.training_noise_sd
    data = simulate_dataset(config.distribution, config.protocol, 2000, noise_sd=(0.003, 0.003))
    batches = SimulatedBatches(file.network, data, config.protocol, config.outputs, 500, 1, injected_sd=0.004)
    log_rmse = batches.validation().log_rmse
    assert float(log_rmse.exp().square().mean().sqrt()) == pytest.approx(0.005, rel=0.05)


def test_a_disk_that_fills_up_in_training_keeps_the_last_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config, output = write_config(tmp_path, TINY, epochs=5), tmp_path / "n.pt"
    assert main(["train", str(config), "--output", str(tmp_path / "whole.pt")]) == 0
    written, save = [], checkpoints.save_tensors

    def save_until_full(state: dict, path: Path) -> Path:
        written.append(path)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        if len(written) == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
        try:
            return save(state, path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "save_tensors", save_until_full)
        assert main(["train", str(config), "--output", str(output)]) == 2
    assert "the disk is full" in capsys.readouterr().err.strip().splitlines()[-1]
    (checkpoint,) = tmp_path.glob(".n.pt.*")
    assert torch.load(checkpoint, weights_only=True)["epoch"] == 2
    assert main(["train", str(config), "--output", str(output)]) == 0
    assert same(load_network(output).network, load_network(tmp_path / "whole.pt").network)
