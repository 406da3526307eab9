"""Training: it learns, resumes to the same trajectory, and keeps the last good state when it diverges."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from CESTQuantLib.batch import main
from CESTQuantLib.networks import dataset, training
from CESTQuantLib.networks import fixed_protocol as network_training
from CESTQuantLib.networks.architecture import Dropout, ReconstructionNetwork
from CESTQuantLib.networks.config import config_from_dict
from CESTQuantLib.networks.files import load_network
from CESTQuantLib.networks.training import TrainingDiverged, TrainingSettings, train_network

TINY = {
    "protocol": {
        "field_strength_T": 7.0,
        "offsets_ppm": [-3.5, 0.8, 2.0, 3.0, 3.5, 4.0, 3.5],
        "saturation_time_s": 2.0,
        "b1_uT": [1, 1, 1, 1, 1, 1, 2],
    },
    "tissue": {
        "water": {"T1_s": {"uniform": [1.0, 2.0]}, "T2_s": 0.05},
        "solutes": [
            {
                "name": "amide",
                "fraction": {"uniform": [5e-4, 3e-3]},
                "k_Hz": {"uniform": [20, 300]},
                "T1_s": 1.0,
                "T2_s": 0.05,
                "dw_ppm": 3.5,
            }
        ],
    },
    "targets": ["amide.fraction"],
    "samples": 3000,
    "epochs": 6,
    "seed": 4,
    "network": {"width": 48},
}


class Sums:
    """A toy problem: the sum and a product of five numbers; from epoch ``broken`` on the data hold a NaN."""

    def __init__(self, broken: int | None = None) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.rand(2000, 5, generator=generator)
        self.y = torch.stack([self.x.sum(1) - 2.5, self.x[:, 0] * self.x[:, 1]], 1)
        self.broken, self.epochs = broken, 0

    def epoch(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, None]]:
        self.epochs += 1
        for index in torch.randperm(1600, generator=generator).split(128):
            x = self.x[index]
            if self.broken is not None and self.epochs >= self.broken:
                x = x * torch.nan
            yield x, self.y[index], None

    def validation(self) -> tuple[Tensor, Tensor, None]:
        return self.x[1600:], self.y[1600:], None


def new_network(dropout: float = 0.1) -> ReconstructionNetwork:
    torch.manual_seed(7)
    network = ReconstructionNetwork(5, 2, width=32, dropout=dropout)
    network.set_inputs(Sums().x, 0.01)
    return network


def same(one: ReconstructionNetwork, other: ReconstructionNetwork) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_training_learns_and_keeps_the_best_epoch() -> None:
    network = new_network(0.0)
    result = train_network(network, Sums(), TrainingSettings(epochs=20, learning_rate=3e-3))
    assert result.validation_loss[-1] < 0.2 * result.validation_loss[0]
    assert result.validation_loss[result.best_epoch - 1] == min(result.validation_loss)
    with torch.no_grad():
        error = (network(Sums().x[1600:]) - Sums().y[1600:]).square().mean()
    assert float(error) == pytest.approx(min(result.validation_loss), rel=1e-4)


def test_an_interrupted_training_resumes_to_the_same_trajectory(tmp_path: Path) -> None:
    settings = TrainingSettings(epochs=8)

    class KilledError(Exception):
        pass

    def kill(fraction: float, message: str) -> None:
        if fraction >= 0.5:
            raise KilledError

    whole, resumed = new_network(), new_network()
    expected = train_network(whole, Sums(), settings)
    with pytest.raises(KilledError):
        train_network(new_network(), Sums(), settings, kill, tmp_path / "c.pt")
    found = train_network(resumed, Sums(), settings, checkpoint=tmp_path / "c.pt")
    assert found.loss == expected.loss
    assert found.validation_loss == expected.validation_loss
    assert same(whole, resumed)


def test_divergence_is_one_sentence_and_the_last_good_checkpoint_is_kept(tmp_path: Path) -> None:
    settings = TrainingSettings(epochs=8, patience=0)
    network, reference = new_network(), new_network()
    with pytest.raises(TrainingDiverged, match=r"epoch 4 .*epoch 3\) is kept in .*c\.pt") as error:
        train_network(network, Sums(broken=4), settings, checkpoint=tmp_path / "c.pt")
    assert "\n" not in str(error.value)
    state = torch.load(tmp_path / "c.pt", weights_only=True)
    assert state["epoch"] == 3
    assert all(torch.isfinite(value).all() for value in network.state_dict().values())
    with pytest.raises(TrainingDiverged):
        train_network(reference, Sums(broken=4), settings)
    assert same(network, reference)  # without a checkpoint too, the last good weights are there again


class Poisoned(Sums):
    """From its second epoch on ``poison`` spoils the network within the epoch."""

    def __init__(self, network: ReconstructionNetwork, poison: Callable[[ReconstructionNetwork], None]) -> None:
        super().__init__()
        self.network, self.poison = network, poison

    def epoch(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, None]]:
        yield from super().epoch(generator)
        if self.epochs == 2:
            self.poison(self.network)


@pytest.mark.parametrize(
    ("poison", "said"),
    [
        (lambda network: network.spread[2].weight.data.fill_(torch.inf), "weights are not finite"),
        (lambda network: network.mean.weight.data.mul_(1e6), r"the loss is .*e\+\d+, that of predicting the mean 0"),
    ],
)
def test_a_spoiled_network_goes_back_to_its_last_good_epoch(poison, said: str, tmp_path: Path) -> None:
    network = new_network(0.0)
    with pytest.raises(TrainingDiverged, match=rf"epoch 2 \({said}.*: .*epoch 1\) is kept in '.*c\.pt'; repeat with"):
        train_network(network, Poisoned(network, poison), TrainingSettings(epochs=4), checkpoint=tmp_path / "c.pt")
    assert torch.load(tmp_path / "c.pt", weights_only=True)["epoch"] == 1
    assert all(bool(torch.isfinite(value).all()) for value in network.state_dict().values())


def test_a_training_that_ends_worse_than_the_mean_has_failed(tmp_path: Path) -> None:
    network = new_network(0.0)
    with torch.no_grad():
        network.mean.bias.fill_(3.0)
    settings = TrainingSettings(epochs=1, learning_rate=1e-5)
    train_network(network, Sums(), settings)  # too short to tell
    with pytest.raises(TrainingDiverged, match=r"best epoch \(\d\) is .*, that of predicting the mean .*; lower the"):
        train_network(network, Sums(), replace(settings, epochs=5), checkpoint=tmp_path / "c.pt")
    assert not (tmp_path / "c.pt").exists()


def test_training_stops_early_without_improvement() -> None:
    batches = Sums()
    batches.y = torch.randn(2000, 2, generator=torch.Generator().manual_seed(3))  # nothing to learn
    result = train_network(new_network(0.0), batches, TrainingSettings(epochs=200, patience=3))
    assert len(result.loss) < 100
    assert len(result.loss) - result.best_epoch == 3
    assert "3 epochs" in result.stopped


def test_schedule_parameters_are_trained_at_their_own_rate() -> None:
    shift = torch.nn.Parameter(torch.tensor(0.5))

    class Shifted(Sums):
        def epoch(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, None]]:
            for x, y, _ in super().epoch(generator):
                yield x + shift, y, None

    train_network(new_network(0.0), Shifted(), TrainingSettings(epochs=2, patience=0), schedule_parameters=[shift])
    assert 1e-5 < abs(float(shift.detach()) - 0.5) < 26 * 1e-3


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    train_network(new_network(), Sums(), TrainingSettings(epochs=1), checkpoint=tmp_path / "c.pt")
    with pytest.raises(ValueError, match="another training"):
        train_network(new_network(), Sums(), TrainingSettings(epochs=1, seed=1), checkpoint=tmp_path / "c.pt")
    with pytest.raises(ValueError, match="another training"):
        train_network(new_network(0.0), Sums(), TrainingSettings(epochs=1), checkpoint=tmp_path / "c.pt")


def test_a_damaged_checkpoint_starts_anew_with_a_warning(tmp_path: Path) -> None:
    settings, path = TrainingSettings(epochs=2), tmp_path / "c.pt"
    whole, anew = new_network(), new_network()
    train_network(whole, Sums(), settings, checkpoint=path)
    for damaged in (path.read_bytes()[:3000], b"half a check", b""):
        path.write_bytes(damaged)
        with pytest.warns(UserWarning, match=r"c\.pt: the checkpoint is damaged, so the training starts anew"):
            train_network(anew, Sums(), settings, checkpoint=path)
        assert same(whole, anew)
        anew = new_network()
    assert torch.load(path, weights_only=True)["epoch"] == 2
    path.write_bytes(b"half a check")
    with pytest.warns(UserWarning, match="damaged"), pytest.raises(TrainingDiverged, match="no earlier state"):
        train_network(new_network(), Sums(broken=1), settings, checkpoint=path)


def test_a_training_goes_on_from_its_checkpoint_with_another_rate_and_more_epochs(tmp_path: Path) -> None:
    train_network(new_network(), Sums(), TrainingSettings(epochs=2), checkpoint=tmp_path / "c.pt")
    first = torch.load(tmp_path / "c.pt", weights_only=True)["result"]["loss"]
    more = TrainingSettings(epochs=4, learning_rate=3e-4, patience=3)
    result = train_network(new_network(), Sums(), more, checkpoint=tmp_path / "c.pt")
    assert result.loss[:2] == first
    assert len(result.loss) == 4


def write_config(folder: Path, **changes) -> Path:
    (folder / "config.json").write_text(json.dumps({**TINY, **changes}))
    return folder / "config.json"


def test_train_writes_network_loss_curves_and_report(tmp_path: Path) -> None:
    output = tmp_path / "new" / "network.pt"
    assert main(["train", str(write_config(tmp_path)), "--output", str(output)]) == 0
    assert {path.name for path in output.parent.iterdir()} == {"network.pt", "network.png", "report.json"}
    file = load_network(output)
    assert file.targets == ("amide.fraction",)
    assert file.outputs == ("amide.fraction", "water.T1_s", "amide.k_Hz")
    report = json.loads((output.parent / "report.json").read_text())
    assert report["inputs"][0]["role"] == "config"
    assert report["summary"]["false_alarm_rate"] == 0.05
    assert report["summary"]["held_out"]["amide.fraction correlation"] > 0.5


def test_a_killed_train_command_continues_to_the_same_network(tmp_path: Path) -> None:
    config = write_config(tmp_path, epochs=40)
    output = tmp_path / "killed.pt"
    command = [sys.executable, "-m", "CESTQuantLib.batch", "train", str(config), "--output", str(output)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".killed.pt.*.checkpoint")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not output.exists()
    assert list(tmp_path.glob(".killed.pt.*.checkpoint"))
    assert main(["train", str(config), "--output", str(output)]) == 0
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
    assert main(["train", str(write_config(tmp_path, epochs=1, samples=600)), "--output", str(output)]) == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != "config.json"}
    capsys.readouterr()
    config = write_config(tmp_path, samples=600, learning_rate=rate)
    assert main(["train", str(config), "--output", str(output)]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the training diverged in epoch 1 (" in said
    assert said.endswith("lower the learning rate")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != "config.json"} == before


def test_a_diverged_train_command_goes_on_with_a_lower_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    output, broken = tmp_path / "n.pt", []
    whole = dataset.SimulatedBatches.epoch

    def epoch(self: dataset.SimulatedBatches, generator: torch.Generator) -> Iterator[tuple]:
        broken.append(True)
        for signal, targets, log_rmse in whole(self, generator):
            yield (signal * torch.nan if len(broken) == 3 else signal), targets, log_rmse

    monkeypatch.setattr(dataset.SimulatedBatches, "epoch", epoch)
    assert main(["train", str(write_config(tmp_path, samples=600)), "--output", str(output)]) == 2
    assert "epoch 2) is kept in" in capsys.readouterr().err
    monkeypatch.undo()
    epochs = []
    monkeypatch.setattr(dataset.SimulatedBatches, "epoch", lambda *args: epochs.append(args) or whole(*args))
    config = write_config(tmp_path, samples=600, learning_rate=5e-4, patience=9)
    assert main(["train", str(config), "--output", str(output)]) == 0
    assert len(epochs) == 4  # the two good ones of six are not repeated
    assert not list(tmp_path.glob(".n.pt.*"))


@pytest.mark.parametrize("name", ["net.png", "net.json", "net", "net.pt.gz"])
def test_only_files_named_as_networks_are_written(name: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["train", str(write_config(tmp_path)), "--output", str(tmp_path / name)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.endswith(f"{name}': the name of a network file must end in .pt")
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_report_never_replaces_the_configuration(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = write_config(tmp_path).rename(tmp_path / "report.json")
    before = config.read_text()
    for command, output in (("train", tmp_path / "n.pt"), ("dataset", tmp_path)):
        assert main([command, str(config), "--output", str(output)]) == 2
        assert "it is the configuration; choose another folder" in capsys.readouterr().err
    assert config.read_text() == before


def test_a_data_set_on_disk_trains_the_same_network_as_new_spectra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(dataset, "BLOCKS_A_SHARD", 1)  # three shards
    config = write_config(tmp_path)
    assert main(["dataset", str(config), "--output", str(tmp_path / "data")]) == 0
    assert main(["train", str(config), "--output", str(tmp_path / "new.pt")]) == 0
    monkeypatch.setattr(network_training, "simulate_dataset", None)  # nothing is simulated again
    assert main(["train", str(config), "--dataset", str(tmp_path / "data"), "--output", str(tmp_path / "one.pt")]) == 0
    assert "warning" not in capsys.readouterr().err
    write_config(tmp_path, dataset="data", samples=7)
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
        ({"engine": "bloch-mcconnell"}, "simulated by r1rho"),
        ({"noise_sd": 0.001}, "noise of 0.002 to 0.006"),
    ],
)
def test_a_data_set_of_another_simulation_is_refused(
    changes: dict, said: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data = str(tmp_path / "data")
    assert main(["dataset", str(write_config(tmp_path, samples=300)), "--output", data]) == 0
    capsys.readouterr()
    config = str(write_config(tmp_path, **changes))
    assert main(["train", config, "--dataset", data, "--output", str(tmp_path / "n.pt")]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert data in lines[0]
    assert said in lines[0]
    assert not (tmp_path / "n.pt").exists()


def test_data_sets_that_are_none_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    train = ["train", str(write_config(tmp_path)), "--output", str(tmp_path / "n.pt"), "--dataset"]
    for folder in (tmp_path / "missing", tmp_path):
        assert main([*train, str(folder)]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        assert str(folder) in lines[0]
    assert main([*train, str(tmp_path), "--self-supervised", "--signal", "z.nii.gz"]) == 2
    assert "--dataset does not go with" in capsys.readouterr().err


def test_processes_train_the_network_of_one_process_dropout_included(tmp_path: Path) -> None:
    config = write_config(tmp_path, epochs=3, samples=2000, network={"width": 48, "dropout": 0.2})
    assert main(["train", str(config), "--output", str(tmp_path / "one.pt")]) == 0
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--standalone",
        "-m",
        "CESTQuantLib.batch",
        "train",
        str(config),
        "--output",
        str(tmp_path / "two.pt"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    one, two = (load_network(tmp_path / f"{name}.pt") for name in ("one", "two"))
    assert two.training["loss"] == pytest.approx(one.training["loss"], rel=1e-4)
    for key, value in one.network.state_dict().items():
        torch.testing.assert_close(two.network.state_dict()[key], value, rtol=1e-3, atol=1e-5)


def test_dropout_masks_belong_to_the_samples_of_the_whole_batch() -> None:
    layer, units = Dropout(0.4).train(), torch.ones(6, 50)
    torch.manual_seed(5)
    whole = layer(units)
    parts = []
    layer.processes = 3
    for layer.rank in range(3):
        torch.manual_seed(5)
        parts.append(layer(units[:2]))
    assert torch.equal(torch.cat(parts), whole)
    assert float((whole == 0).float().mean()) == pytest.approx(0.4, abs=0.06)
    assert whole.unique().tolist() == [0.0, pytest.approx(1 / 0.6)]
    assert torch.equal(layer.eval()(units), units)


def test_injected_noise_adds_to_that_of_the_data_and_replaces_none() -> None:
    assert config_from_dict(TINY).training_noise_sd == (0.002, 0.006)
    assert config_from_dict({**TINY, "noise_sd": 0}).training_noise_sd == (0.002, 0.002)
    config = config_from_dict({**TINY, "noise_sd": [0.003, 0.006], "noise_injection_sd": 0.004, "epochs": 1})
    assert config.training_noise_sd == pytest.approx((0.005, 0.52**0.5 / 100))
    file, _ = network_training.train_from_config(config)
    assert file.noise_sd == config.training_noise_sd
    data = dataset.simulate_dataset(config.distribution, config.protocol, 2000, noise_sd=(0.003, 0.003))
    batches = dataset.SimulatedBatches(file.network, data, config.protocol, config.outputs, 500, 1, injected_sd=0.004)
    _, _, log_rmse = batches.validation()
    assert float(log_rmse.exp().square().mean().sqrt()) == pytest.approx(0.005, rel=0.05)


def test_a_disk_that_fills_up_in_training_keeps_the_last_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config, output = write_config(tmp_path, epochs=5), tmp_path / "n.pt"
    assert main(["train", str(config), "--output", str(tmp_path / "whole.pt")]) == 0
    written, save = [], training.save_tensors

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
        patch.setattr(training, "save_tensors", save_until_full)
        assert main(["train", str(config), "--output", str(output)]) == 2
    assert "the disk is full" in capsys.readouterr().err.strip().splitlines()[-1]
    (checkpoint,) = tmp_path.glob(".n.pt.*")
    assert torch.load(checkpoint, weights_only=True)["epoch"] == 2
    assert main(["train", str(config), "--output", str(output)]) == 0
    assert same(load_network(output).network, load_network(tmp_path / "whole.pt").network)
