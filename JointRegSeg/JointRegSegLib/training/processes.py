"""Several processes that train as one, started by torchrun: gloo on the CPU, NCCL on GPUs."""

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
    local_rank: int = 0

    @property
    def writes(self) -> bool:
        return self.rank == 0

    @torch.no_grad()
    def average(self, tensors: list[Tensor]) -> None:
        """Mean over the processes, in place, in one message; tensors of one device."""
        if self.count == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1).double() for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.count
        start = 0
        for tensor in tensors:
            tensor.copy_(flat[start : start + tensor.numel()].reshape(tensor.shape))
            start += tensor.numel()

    def share(self, tensors: list[Tensor]) -> None:
        """The values of rank 0 in all processes, in place."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def device(self, name: str) -> torch.device:
        """Device of this process; 'auto' is one GPU a process where there are any."""
        available = torch.cuda.is_available()
        if name == "cuda" and not available:
            raise ValueError("device 'cuda' is not available on this machine; use cpu or auto")
        if name == "cpu" or not available:
            return torch.device("cpu")
        device = torch.device("cuda", self.local_rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
        return device


@contextmanager
def processes(device: str = "auto") -> Iterator[Processes]:
    """The processes that torchrun started, or this one alone."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count <= 1:
        yield Processes()
        return
    # Imported by the optimisers once the group exists, its default arguments would keep the group's threads alive.
    import torch.distributed.nn.functional

    on_gpu = device != "cpu" and torch.cuda.is_available() and dist.is_nccl_available()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if on_gpu:
        torch.cuda.set_device(local % torch.cuda.device_count())
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), local)
    finally:
        dist.destroy_process_group()
