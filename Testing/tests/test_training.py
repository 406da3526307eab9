"""Training: it learns, resumes to the same trajectory, and keeps the last good state when it diverges."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from CESTQuantLib import dataset, network_training, training
from CESTQuantLib.batch import main
from CESTQuantLib.network import Dropout, ReconstructionNetwork
from CESTQuantLib.network_file import load_network
from CESTQuantLib.training import TrainingDiverged, TrainingSettings, train_network
from CESTQuantLib.training_config import config_from_dict
from torch import Tensor

TINY = {
    "protocol": {"field_strength_T": 7.0, "offsets_ppm": [-3.5, 0.8, 2.0, 3.0, 3.5, 4.0, 3.5], "saturation_time_s": 2.0,
                 "b1_uT": [1, 1, 1, 1, 1, 1, 2]},
    "tissue": {
        "water": {"T1_s": {"uniform": [1.0, 2.0]}, "T2_s": 0.05},
        "solutes": [{"name": "amide", "fraction": {"uniform": [5e-4, 3e-3]}, "k_Hz": {"uniform": [20, 300]},
                     "T1_s": 1.0, "T2_s": 0.05, "dw_ppm": 3.5}],
    },
    "targets": ["amide.fraction"], "samples": 3000, "epochs": 6, "seed": 4, "network": {"width": 48},
}  # fmt: skip


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
        train_network(new_network(), Sums(), TrainingSettings(epochs=2), checkpoint=tmp_path / "c.pt")
    (tmp_path / "c.pt").write_bytes(b"half a check")
    with pytest.raises(ValueError, match=r"c\.pt"):
        train_network(new_network(), Sums(), TrainingSettings(epochs=1), checkpoint=tmp_path / "c.pt")


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


def test_diverging_train_command_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = write_config(tmp_path, learning_rate=1e30)
    assert main(["train", str(config), "--output", str(tmp_path / "n.pt")]) != 0
    assert "diverged" in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "n.pt").exists()


def test_a_data_set_on_disk_trains_the_same_network_as_new_spectra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "BLOCKS_A_SHARD", 1)  # three shards
    config = write_config(tmp_path)
    assert main(["dataset", str(config), "--output", str(tmp_path / "data")]) == 0
    assert main(["train", str(config), "--output", str(tmp_path / "new.pt")]) == 0
    monkeypatch.setattr(network_training, "simulate_dataset", None)  # nothing is simulated again
    assert main(["train", str(config), "--dataset", str(tmp_path / "data"), "--output", str(tmp_path / "one.pt")]) == 0
    write_config(tmp_path, dataset="data", samples=7)
    assert main(["train", str(config), "--output", str(tmp_path / "two.pt")]) == 0
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
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone",
               "-m", "CESTQuantLib.batch", "train", str(config), "--output", str(tmp_path / "two.pt")]  # fmt: skip
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
