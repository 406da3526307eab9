"""Weights files: saved networks can be read back; other files are refused in one sentence and never executed."""

from __future__ import annotations

import errno
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from JointRegSegLib.network.configuration import NetworkConfig
from JointRegSegLib.network.joint import JointNetwork, build_network
from JointRegSegLib.network.shipped import default_weights_path
from JointRegSegLib.network.weights import LoadedWeights, load_weights, save_weights

CONFIG = NetworkConfig(
    name="small",
    channels=(4, 6),
    encoder_convolutions=(1, 1),
    decoder_convolutions=(1,),
    registration_level=0,
    auxiliary=0,
    stride=1,
)
METADATA = {"preprocessing": {"spacing_mm": 2.0}, "training": {"steps": 10, "loss": [1.0, 0.5]}, "licence": "CC0"}


def network(seed: int = 0) -> JointNetwork:
    torch.manual_seed(seed)
    return build_network(CONFIG)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_weights(tmp_path / "weights.pt", network(), METADATA)


def rewritten(path: Path, **changes: Any) -> Path:
    """Replace values in a weights file; None removes a value."""
    values = torch.load(path, weights_only=True)
    for key, value in changes.items():
        if value is None:
            del values[key]
        else:
            values[key] = value(values[key]) if callable(value) else value
    torch.save(values, path)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        load_weights(path)
    message = str(caught.value)
    assert str(path) in message
    assert len(message.splitlines()) == 1
    return message


def test_saved_network_and_metadata_are_read_back(saved: Path) -> None:
    loaded = load_weights(saved)
    assert loaded.config == CONFIG
    assert loaded.metadata == METADATA
    assert loaded.path == saved
    assert not loaded.network.training
    study = torch.randn(1, 4, 8, 8, 8)
    assert torch.equal(loaded.network.segment(study), network().eval().segment(study))
    for name, value in network().state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], value)


def test_loaded_network_can_be_trained_further(saved: Path) -> None:
    loaded = load_weights(saved).network.train()
    loaded.segment(torch.randn(1, 4, 8, 8, 8)).sum().backward()
    assert loaded.encoder.blocks[0].units[0].convolution.weight.grad.abs().sum() > 0


def test_half_precision_files_are_half_as_large_and_nearly_equal(saved: Path, tmp_path: Path) -> None:
    big = build_network(NetworkConfig())
    full, half = (save_weights(tmp_path / f"{h}.pt", big, {}, half=h) for h in (False, True))
    assert half.stat().st_size < 0.55 * full.stat().st_size
    assert half.stat().st_size < 15e6
    loaded = load_weights(half).network
    for (name, value), stored in zip(big.state_dict().items(), loaded.state_dict().values(), strict=True):
        assert stored.dtype == torch.float32
        assert torch.allclose(stored, value, rtol=1e-3, atol=1e-6), name


def test_file_with_code_is_refused_and_the_code_is_not_executed(saved: Path, tmp_path: Path) -> None:
    trace = tmp_path / "executed"

    class Malicious:
        def __reduce__(self) -> tuple:
            return os.system, (f"touch {trace}",)

    values = torch.load(saved, weights_only=True)
    torch.save({**values, "metadata": Malicious()}, saved)
    assert "more than tensors and plain values" in refusal(saved)
    saved.write_bytes(pickle.dumps(Malicious()))
    refusal(saved)
    assert not trace.exists()


def test_damaged_files_are_refused(saved: Path, tmp_path: Path) -> None:
    content = saved.read_bytes()
    for damaged in (b"", b"weights", content[:100], content[: len(content) // 2], content[:-30]):
        saved.write_bytes(damaged)
        assert "damaged" in refusal(saved)
    text = tmp_path / "notes.txt"
    text.write_text("no weights")
    refusal(text)
    assert "no such weights file" in refusal(tmp_path / "absent.pt")
    assert "no such weights file" in refusal(tmp_path)


def test_foreign_files_are_refused(saved: Path) -> None:
    state = network().state_dict()
    for foreign in (state, [1, 2], torch.zeros(3)):
        torch.save(foreign, saved)
        refusal(saved)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "neurocest study network"}, "not of a joint network: use 'jointregseg predict' with it"),
        ({"kind": "neurocest reconstruction network"}, "does not hold the weights of a joint network"),
        ({"format": 99}, "has format 99, but this version reads format 1"),
        ({"metadata": None}, "its state or its metadata are missing"),
        ({"state": None}, "its state or its metadata are missing"),
        ({"config": None}, "is damaged: must be an object with the keys name, "),
        ({"config": {"channels": [4, 6, 8]}}, "is damaged: encoder_convolutions has 5 numbers"),
        ({"config": lambda c: c | {"classes": 5}}, "segmentation.output.weight has the shape (4, 4, 1, 1, 1), not (5,"),
        ({"config": lambda c: c | {"modalities": ["t1"]}}, "has the shape (4, 4, 3, 3, 3), not (4, 1, 3, 3, 3)"),
        ({"config": lambda c: c | {"channels": [4096, 4096]}}, "its network would have 2"),
        ({"state": lambda s: dict(list(s.items())[1:])}, "1 weights are missing, such as encoder"),
        ({"state": lambda s: s | {"extra": torch.zeros(1)}}, "1 weights do not belong to the network, such as 'extra'"),
        ({"state": lambda s: s | {"segmentation.output.bias": "0"}}, "segmentation.output.bias is not a tensor"),
        (
            {"state": lambda s: s | {"segmentation.output.bias": torch.zeros(4, dtype=torch.int64)}},
            "is not a tensor of",
        ),
        ({"state": lambda s: s | {"segmentation.output.bias": torch.full((4,), torch.nan)}}, "that are not finite"),
    ],
)
def test_inconsistent_files_are_refused_with_the_reason(saved: Path, changes: dict, words: str) -> None:
    assert words in refusal(rewritten(saved, **changes))


def test_modalities_that_the_network_does_not_know_are_refused() -> None:
    from dataclasses import replace

    loaded = LoadedWeights(build_network(replace(CONFIG, modalities=("t1", "flair"))), {}, Path("my.pt"))
    loaded.check_modalities(["flair"])
    with pytest.raises(ValueError, match=r"'my\.pt' know the modalities t1, flair, not t2"):
        loaded.check_modalities(["t1", "t2"])
    with pytest.raises(ValueError, match=r"'my\.pt' need at least one of"):
        loaded.check_modalities([])


def test_failed_writing_keeps_the_existing_file(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def disk_full(path: Path, content: bytes) -> int:
        path.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", disk_full)
    with pytest.raises(ValueError, match=r"cannot write '.*weights\.pt': the disk is full"):
        save_weights(saved, network(1), {})
    assert saved.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["weights.pt"]


def test_folders_and_metadata_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot write '.*absent.*w\.pt'"):
        save_weights(tmp_path / "absent" / "w.pt", network(), {})
    with pytest.raises(ValueError, match=r"metadata of '.*w\.pt' must be plain finite values"):
        save_weights(tmp_path / "w.pt", network(), {"loss": float("nan")})
    with pytest.raises(ValueError, match=r"metadata of '.*w\.pt' must be plain finite values"):
        save_weights(tmp_path / "w.pt", network(), {"network": network()})
    assert not (tmp_path / "w.pt").exists()


def test_shipped_weights_are_part_of_the_package() -> None:
    path = default_weights_path()
    assert path.parts[-3:] == ("JointRegSegLib", "weights", "neurocest.pt")
    assert (path.parents[2] / "JointRegSegLib").is_dir()
    if not path.exists():
        pytest.skip("no weights are shipped")
    loaded = load_weights(path)
    assert loaded.config.modalities == ("t1", "t1ce", "t2", "flair")
    assert path.stat().st_size <= 15e6
    assert json.dumps(loaded.metadata)
