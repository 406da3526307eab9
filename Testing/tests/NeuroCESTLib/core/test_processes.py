"""A process that trains alone, and its device; several processes are tested with the trainings that use them."""

from __future__ import annotations

import pytest
import torch

from NeuroCESTLib.core.device import DEVICES, choose_device
from NeuroCESTLib.core.processes import Processes, processes


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Processes:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with processes() as own:
        return own


def test_without_torchrun_this_process_is_the_only_one_and_writes(alone: Processes) -> None:
    assert (alone.rank, alone.count, alone.local_rank) == (0, 1, 0)
    assert alone.writes
    assert not torch.distributed.is_initialized()


def test_alone_nothing_is_averaged_shared_or_waited_for(alone: Processes) -> None:
    tensors = [torch.arange(3.0), torch.ones(2, 2)]
    alone.average(tensors)
    alone.share(tensors)
    alone.wait()
    torch.testing.assert_close(tensors, [torch.arange(3.0), torch.ones(2, 2)])


def test_only_the_first_process_writes() -> None:
    assert [Processes(rank, 3).writes for rank in range(3)] == [True, False, False]


@pytest.mark.parametrize("choose", [choose_device, Processes().device], ids=["function", "process"])
def test_unknown_and_missing_devices_are_refused(choose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose("auto") == choose("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="device 'cuda' is not available on this machine; use cpu or auto"):
        choose("cuda")
    with pytest.raises(ValueError, match=f"device 'gpu' is unknown; use one of {', '.join(DEVICES)}"):
        choose("gpu")


def test_processes_on_one_machine_take_its_gpus_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    devices = [Processes(rank, 4, rank).device("auto") for rank in range(4)]
    assert devices == taken == [torch.device("cuda", index) for index in (0, 1, 0, 1)]
    assert Processes(1, 4, 1).device("cpu") == torch.device("cpu")
    assert choose_device("auto") == torch.device("cuda")
