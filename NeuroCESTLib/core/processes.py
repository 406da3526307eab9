"""Several processes that train as one, started by torchrun; on the CPU they talk through gloo."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch import distributed as dist


@dataclass(frozen=True)
class Processes:
    """This process among ``count``; the one of ``rank`` 0 writes files and shows progress."""

    rank: int = 0
    count: int = 1

    @property
    def writes(self) -> bool:
        return self.rank == 0

    def average(self, tensors: list[Tensor]) -> None:
        """Mean over the processes, in place, in one message."""
        if self.count == 1 or not tensors:
            return
        flat = torch.cat([tensor.detach().double().reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.count
        start = 0
        for tensor in tensors:
            with torch.no_grad():
                tensor.copy_(flat[start : start + tensor.numel()].reshape(tensor.shape))
            start += tensor.numel()

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            dist.barrier()


@contextmanager
def processes() -> Iterator[Processes]:
    """The processes that torchrun started, or this one alone."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count <= 1:
        yield Processes()
        return
    # Imported by the optimisers once the group exists, its default arguments would keep the group's threads alive.
    import torch.distributed.nn.functional  # noqa: F401

    dist.init_process_group("gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
