"""Tensor files come back as they were; foreign, damaged and malicious ones are refused without running their code."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from NeuroCESTLib.core.tensor_files import load_tensors, save_tensors


class RunsCode:
    """Pickles into a call that makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("mapped", [False, True])
def test_tensors_and_plain_values_come_back_as_they_were(mapped: bool, tmp_path: Path) -> None:
    values = {
        "state": {"weight": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(7)},
        "half": torch.ones(3, dtype=torch.float16),
        "settings": {"rate": 1e-3, "names": ["a", "b"], "none": None, "on": True},
    }
    path = save_tensors(values, tmp_path / "network.pt")
    loaded = load_tensors(path, "network file", mapped=mapped)
    assert loaded["settings"] == values["settings"]
    torch.testing.assert_close(loaded["state"], values["state"])
    assert loaded["half"].dtype == torch.float16
    assert os.listdir(tmp_path) == ["network.pt"]


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_file_that_would_run_code_is_refused_and_runs_none(writer: str, tmp_path: Path) -> None:
    path, trace = tmp_path / "network.pt", tmp_path / "was here"
    content = {"state": RunsCode(trace)}
    if writer == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=r"network\.pt' holds more than tensors and plain values"):
        load_tensors(path, "network file")
    assert not trace.exists()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(share: float, tmp_path: Path) -> None:
    whole = save_tensors({"weight": torch.randn(500, generator=torch.Generator().manual_seed(0))}, tmp_path / "w.pt")
    part = tmp_path / "part.pt"
    part.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    with pytest.raises(ValueError, match=r"part\.pt' .*(damaged|not a network file)"):
        load_tensors(part, "network file")


@pytest.mark.parametrize(
    "content",
    [b"", b"offset,z\n" * 30, b"\x1f\x8b\x08\x00", b"PK\x03\x04 and nothing else", bytes(range(256))],
    ids=["empty", "text", "gzip", "zip", "noise"],
)
def test_a_file_of_another_kind_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "network.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"network\.pt'") as caught:
        load_tensors(path, "network file")
    assert "\n" not in str(caught.value)


def test_a_file_of_a_single_tensor_is_not_what_was_asked_for(tmp_path: Path) -> None:
    torch.save(torch.ones(3), tmp_path / "tensor.pt")
    with pytest.raises(ValueError, match=r"tensor\.pt' is not a network file"):
        load_tensors(tmp_path / "tensor.pt", "network file")


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "no.pt", tmp_path):
        with pytest.raises(ValueError, match=f"'{path}': no such network file"):
            load_tensors(path, "network file")


def test_a_failed_write_names_the_file_and_keeps_the_earlier_one(tmp_path: Path) -> None:
    path = save_tensors({"a": torch.ones(1)}, tmp_path / "w.pt")
    with pytest.raises(Exception, match="pickle"):
        save_tensors({"a": lambda: None}, path)
    torch.testing.assert_close(load_tensors(path, "network file")["a"], torch.ones(1))
    with pytest.raises(ValueError, match="does not exist"):
        save_tensors({"a": torch.ones(1)}, tmp_path / "no" / "w.pt")
