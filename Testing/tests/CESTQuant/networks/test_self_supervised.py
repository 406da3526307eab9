"""Self-supervised fitting: a network trained on a scan, its checkpoints, and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import SimpleITK as sitk
import torch
from training_configs import SCAN_CONFIG, scan, write_config, write_scan

from CESTQuantLib.batch import main
from CESTQuantLib.networks import self_supervised
from CESTQuantLib.networks.config import TrainingConfig, config_from_dict
from CESTQuantLib.networks.files import load_network
from CESTQuantLib.networks.reconstruction import reconstruct
from CESTQuantLib.networks.self_supervised import differentiable_signal, train_on_scan
from CESTQuantLib.networks.training import TrainingDiverged


@pytest.fixture(scope="module")
def config() -> TrainingConfig:
    return config_from_dict(SCAN_CONFIG)


def test_physics_of_the_self_supervised_loss_has_gradients_in_every_output(config) -> None:
    network = config.new_network()
    outputs = torch.zeros(1, 4, requires_grad=True)
    differentiable_signal(network, config, outputs).sum().backward()
    assert (outputs.grad.abs() > 1e-5).all()


@pytest.mark.slow
def test_self_supervised_network_learns_on_one_scan_and_serves_the_next(config) -> None:
    first, _ = scan(config, 1500, seed=11)
    first[3] = torch.nan
    file, result = train_on_scan(config, first)
    assert result.loss[-1] < 2.0 < 10 < result.loss[0]  # in noise variances
    second, truth = scan(config, 800, seed=12)
    found = reconstruct(file.network, second)
    for i, target in enumerate(config.targets):
        true = truth[target].float()
        assert float(torch.corrcoef(torch.stack([found.mean[:, i], true]))[0, 1]) > 0.9, target
        share = float(((found.mean[:, i] - true).abs() < 2 * found.sd[:, i]).float().mean())
        assert 0.88 < share < 0.99, target


def test_without_noise_in_the_configuration_the_network_expects_the_noise_that_is_injected(
    config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_supervised, "LEAST_STEPS", 40)
    silent = config_from_dict({**SCAN_CONFIG, "noise_sd": 0, "epochs": 10, "samples": 3000})
    file, _ = train_on_scan(silent, scan(config, 600, seed=11)[0])
    assert file.noise_sd == silent.training_noise_sd == (0.002, 0.002)
    found = reconstruct(file.network, scan(config, 800, seed=12)[0])
    assert float(found.expected_rmse.median()) == pytest.approx(0.002, rel=0.3)


def test_a_killed_training_on_a_scan_continues_to_the_same_network(
    config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_supervised, "LEAST_STEPS", 40)
    tiny = replace(config, samples=1000, settings=replace(config.settings, epochs=20))
    first, _ = scan(config, 600, seed=11)
    path = tmp_path / "c.pt"

    class KilledError(Exception):
        pass

    def kill(fraction: float, message: str) -> None:
        if fraction > 0.4:
            raise KilledError

    with pytest.raises(KilledError):
        train_on_scan(tiny, first, kill, path)
    assert 5 < torch.load(path, weights_only=True)["epoch"] < 19
    resumed, result = train_on_scan(tiny, first, checkpoint=path)
    whole, expected = train_on_scan(tiny, first)
    assert result.loss == expected.loss
    for one, other in zip(resumed.network.state_dict().values(), whole.network.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_a_diverging_training_on_a_scan_keeps_its_last_good_epoch(
    config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = scan(config, 600, seed=11)
    fast = replace(config, settings=replace(config.settings, learning_rate=1e6))
    with pytest.raises(TrainingDiverged, match=r"diverged in epoch 1 .*; lower the learning rate"):
        train_on_scan(fast, first, checkpoint=tmp_path / "fast.pt")
    assert not (tmp_path / "fast.pt").exists()
    whole, steps = self_supervised.differentiable_signal, []

    def broken(*arguments) -> torch.Tensor:
        steps.append(1)
        return whole(*arguments) * (torch.nan if len(steps) > 8 else 1.0)  # the third epoch of three steps

    monkeypatch.setattr(self_supervised, "differentiable_signal", broken)
    with pytest.raises(TrainingDiverged, match=r"epoch 3 .*\(epoch 2\) is kept in '.*c\.pt'; repeat with a lower"):
        train_on_scan(config, first, checkpoint=tmp_path / "c.pt")
    assert torch.load(tmp_path / "c.pt", weights_only=True)["epoch"] == 2


def test_self_supervised_training_needs_a_scan(config, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(ValueError, match="no voxel"):
        train_on_scan(config, torch.full((5, 20), torch.nan))
    (tmp_path / "config.json").write_text(json.dumps(SCAN_CONFIG))
    assert main(["train", str(tmp_path / "config.json"), "--output", str(tmp_path / "n.pt"), "--self-supervised"]) == 2
    assert "--signal" in capsys.readouterr().err


@pytest.mark.parametrize("m0_image", [False, True])
def test_a_scan_may_contain_its_own_m0(
    m0_image: bool, config: TrainingConfig, tmp_path: Path, slicer: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network has the inputs of a fit, which leaves these measurements out also where there is an M0 image."""
    monkeypatch.setattr(self_supervised, "LEAST_STEPS", 40)
    signal, _ = scan(config, 5 * 8 * 8)
    with_m0 = torch.cat([torch.ones(len(signal), 1), signal], 1)
    images = [sitk.GetImageFromArray(900 * column.reshape(5, 8, 8).numpy()) for column in with_m0.T]
    sitk.WriteImage(sitk.JoinSeries(images), str(tmp_path / "z.nii.gz"))
    protocol = SCAN_CONFIG["protocol"]
    with_first = {"offsets_ppm": [300.0, *protocol["offsets_ppm"]], "b1_uT": [0.0, *protocol["b1_uT"]]}
    config_file = write_config(tmp_path, SCAN_CONFIG, protocol={**protocol, **with_first}, epochs=5, samples=2000)
    sitk.WriteImage(images[0], str(tmp_path / "m0.nii.gz"))
    train = ["train", str(config_file), "--self-supervised", "--signal", str(tmp_path / "z.nii.gz")]
    train += ["--reference", str(tmp_path / "m0.nii.gz")] if m0_image else []
    assert main([*train, "--output", str(tmp_path / "scan.pt")]) == 0
    assert load_network(tmp_path / "scan.pt").protocol.offsets_ppm.tolist() == config.protocol.offsets_ppm.tolist()


def test_train_command_on_a_scan_makes_a_network_for_it(
    config: TrainingConfig, tmp_path: Path, slicer: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_supervised, "LEAST_STEPS", 40)
    given, _ = write_scan(tmp_path, config)
    (tmp_path / "config.json").write_text(json.dumps({**SCAN_CONFIG, "epochs": 5, "samples": 2000}))
    train = ["train", str(tmp_path / "config.json"), "--self-supervised", *given]
    assert main([*train, "--output", str(tmp_path / "scan.pt")]) == 0
    file = load_network(tmp_path / "scan.pt")
    assert file.training["self_supervised"] is True
    assert file.training["voxels"] == 320
    assert not list(tmp_path.glob(".scan.pt.*"))
