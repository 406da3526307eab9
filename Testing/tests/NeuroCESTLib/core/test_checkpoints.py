"""Checkpoints: they belong to one run, damaged ones are left out with a warning, one process writes them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from NeuroCESTLib.core.checkpoints import Checkpoint


def checkpoint(path: Path | None, writes: bool = True) -> Checkpoint:
    return Checkpoint(path, "a kind of checkpoint", "training", writes)


def test_a_checkpoint_reads_back_and_can_be_removed(tmp_path: Path) -> None:
    file = checkpoint(tmp_path / "c.pt")
    assert not file.exists
    assert file.load() is None
    file.save({"epoch": 3, "weights": torch.ones(2)})
    assert file.exists
    state = file.load()
    assert state["epoch"] == 3
    assert torch.equal(state["weights"], torch.ones(2))
    file.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"half a check"])
def test_a_damaged_checkpoint_is_put_aside_with_a_warning(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    for kept in ("c.pt.damaged", "c.pt.damaged-2"):  # an earlier one is not replaced
        path.write_bytes(content)
        with pytest.warns(UserWarning, match=rf"c\.pt: .* damaged, so the training starts from the .* as '{kept}'$"):
            assert checkpoint(path).load() is None
        assert not path.exists()
        assert (tmp_path / kept).read_bytes() == content


def test_a_file_of_another_kind_counts_as_damaged(tmp_path: Path) -> None:
    Checkpoint(tmp_path / "c.pt", "another kind", "optimisation").save({"epoch": 3})
    with pytest.warns(UserWarning, match="damaged"):
        assert checkpoint(tmp_path / "c.pt").load() is None


def test_a_checkpoint_of_another_run_is_refused_by_name(tmp_path: Path) -> None:
    checkpoint(tmp_path / "c.pt").require_same_run(True)
    with pytest.raises(ValueError, match=r"c\.pt: the checkpoint belongs to another training; remove it"):
        checkpoint(tmp_path / "c.pt").require_same_run(False)


def test_only_the_writing_process_touches_the_file(tmp_path: Path) -> None:
    reader = checkpoint(tmp_path / "c.pt", writes=False)
    reader.save({"epoch": 1})
    assert not reader.exists
    checkpoint(tmp_path / "c.pt").save({"epoch": 2})
    reader.remove()
    assert reader.load() == {"kind": "a kind of checkpoint", "epoch": 2}


def test_a_run_without_a_file_keeps_no_checkpoint() -> None:
    file = checkpoint(None)
    file.save({"epoch": 1})
    file.remove()
    assert file.load() is None
