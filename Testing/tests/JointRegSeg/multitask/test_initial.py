"""A network that starts with the weights of an earlier training: what fits, what is left out, and how it is trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from task_cohorts import AGE, NETWORK, SEX, TISSUE, run_training, write_cohort, write_config

from JointRegSegLib.multitask.config import study_network
from JointRegSegLib.multitask.initial import initialize
from JointRegSegLib.multitask.network import MultiTaskNetwork
from JointRegSegLib.multitask.weights import load_study_weights, save_study_weights
from JointRegSegLib.network.shipped import default_weights_path
from JointRegSegLib.network.weights import load_weights
from JointRegSegLib.tasks.registry import study_task_from_dict
from JointRegSegLib.tasks.tissue import Tissue


def test_a_training_starts_with_an_earlier_encoder_frozen_or_at_its_own_rate(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    cohort = write_cohort(tmp_path, 16)
    assert run_training(cohort, write_config(tmp_path, [TISSUE, AGE], steps=2), tmp_path / "first") == 0
    before = load_study_weights(tmp_path / "first" / "weights.pt").network
    moved = {}
    for rate in (0, 0.1, 1):
        config = write_config(tmp_path, [AGE, SEX], steps=1, encoder_rate=rate, optimiser="sgd", momentum=0)
        config.write_text(json.dumps(json.loads(config.read_text()) | {"initialise": "first/weights.pt"}))
        run = tmp_path / f"run{rate}"
        assert run_training(cohort, config, run) == 0
        after = load_study_weights(run / "weights.pt").network
        moved[rate] = sum(
            float((p - q).detach().abs().sum())
            for p, q in zip(before.encoder.parameters(), after.encoder.parameters(), strict=True)
        )
        assert not torch.equal(after.heads["age"].linear.bias, before.heads["age"].linear.bias)
        found = json.loads((run / "report.json").read_text())["summary"]["initialised"]
        assert all(name.startswith("heads.tissue.") for name in found["left_out"])
        assert len(found["left_out"]) > 5
    assert moved[0] == 0
    assert 0 < moved[0.1] == pytest.approx(0.1 * moved[1], rel=0.02)
    error = capsys.readouterr().err
    assert "left out there: heads.tissue" in error
    assert "new in this network: heads.sex" in error


def test_the_bundled_tumour_network_gives_its_encoder_and_decoder_to_a_tissue_segmentation_of_one_modality() -> None:
    joint = load_weights(default_weights_path())
    values = joint.config.to_dict() | {"modalities": ["t2"]}
    task = Tissue(class_weights=(1.0,) * 8)
    network = MultiTaskNetwork(study_network(values, "test"), [task])
    found = initialize(network, default_weights_path())
    first = "encoder.blocks.0.units.0.convolution.weight"
    channel = joint.config.modalities.index("t2")
    assert torch.equal(network.state_dict()[first][:, 0], joint.network.state_dict()[first][:, channel])
    assert all("output" in name or "auxiliary" in name for name in found.new)
    assert all(name.startswith(("registration.", "segmentation.")) for name in found.left_out)


def network_of(modalities: list[str], **settings: object) -> MultiTaskNetwork:
    values = NETWORK | {"modalities": modalities} | settings
    tasks = [study_task_from_dict(task, "test") for task in (AGE, {"task": "super_resolution", "factor": [1, 1, 2]})]
    torch.manual_seed(len(modalities))
    network = MultiTaskNetwork(study_network(values, "test"), tasks)
    for head in network.heads.values():
        for parameter in head.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    return network.eval()


@pytest.mark.parametrize("convolution", ["full", "separable", "dynamic"])
def test_kernels_are_taken_by_the_names_of_the_modalities(tmp_path: Path, convolution: str) -> None:
    first = network_of(["t1", "flair"], convolution=convolution)
    save_study_weights(tmp_path / "weights.pt", first, {})
    second = network_of(["flair", "t1"], convolution=convolution)
    found = initialize(second, tmp_path / "weights.pt")
    assert found.left_out == found.new == ()
    images = torch.randn(1, 2, 16, 16, 16, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        before, after = first(images), second(images.flip(1))
    assert torch.allclose(before["age"], after["age"], atol=1e-5)
    assert torch.allclose(before["super_resolution"], after["super_resolution"].flip(1), atol=1e-5)


def test_kernels_of_other_modalities_are_left_out(tmp_path: Path) -> None:
    save_study_weights(tmp_path / "weights.pt", network_of(["t1", "flair"]), {})
    found = initialize(network_of(["t1ce", "flair"]), tmp_path / "weights.pt")
    first = "encoder.blocks.0.units.0.convolution.weight"
    assert first in found.left_out
    assert first in found.new
    assert "encoder.blocks.1.units.0.convolution.weight" not in found.new
    assert initialize(network_of(["flair"]), tmp_path / "weights.pt").left_out == ()


@pytest.mark.parametrize("column", ["type", "keys", "half", "training", "grade"])
def test_a_column_may_have_any_name(tmp_path: Path, column: str) -> None:
    task = study_task_from_dict({"task": "regression", "column": column}, "test")
    network = MultiTaskNetwork(study_network(NETWORK, "test"), [task]).eval()
    images = torch.randn(1, 1, 16, 16, 16)
    save_study_weights(tmp_path / "weights.pt", network, {})
    with torch.no_grad():
        again = load_study_weights(tmp_path / "weights.pt").network(images)
        assert torch.equal(again[column], network(images)[column])


def test_weights_that_cannot_be_read_are_noticed_before_a_study_is_prepared(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    cohort = write_cohort(tmp_path, 10)
    config = write_config(tmp_path, [AGE])
    settings = json.loads(config.read_text())
    settings["data"]["path"] = "cache"
    for path in ("missing.pt", str(cohort)):
        config.write_text(json.dumps(settings | {"initialise": path}))
        assert run_training(cohort, config, tmp_path / "run") == 2
        errors = capsys.readouterr().err
        assert path in errors
        assert "preparing" not in errors
        assert not (tmp_path / "run").exists()


def test_another_encoder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    cohort = write_cohort(tmp_path, 10)
    config = write_config(tmp_path, [AGE])
    settings = json.loads(config.read_text())
    for path, message in (
        (str(default_weights_path()), "no weight of the encoder of"),
        ("missing.pt", "missing.pt': no such weights file"),
        (str(cohort), "is damaged, or not a weights file"),
    ):
        network = NETWORK | {"normalisation": "instance", "channels": [5, 10]}
        config.write_text(json.dumps(settings | {"network": network, "initialise": path}))
        assert run_training(cohort, config, tmp_path / "run") == 2
        assert message in capsys.readouterr().err


def test_a_damaged_training_does_not_start_anew_without_its_file(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    cohort, start = write_cohort(tmp_path, 10), tmp_path / "start.pt"
    config = write_config(tmp_path, [AGE], steps=1)
    assert run_training(cohort, config, tmp_path / "first") == 0
    (tmp_path / "first" / "weights.pt").rename(start)
    config.write_text(json.dumps(json.loads(config.read_text()) | {"initialise": str(start)}), encoding="utf-8")
    assert run_training(cohort, config, tmp_path / "run") == 0
    start.unlink()
    (tmp_path / "run" / "last.pt").write_bytes(b"damaged")
    assert run_training(cohort, config, tmp_path / "run", "--resume") == 2
    assert f"the initial weights '{start}' are no longer there" in capsys.readouterr().err
    assert (tmp_path / "run" / "last.pt").read_bytes() == b"damaged"
