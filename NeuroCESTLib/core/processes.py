"""Several processes that train as one, started by torchrun: gloo on the CPU, NCCL on GPUs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
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
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    @torch.no_grad()
    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one device by their mean over the processes, in place and in one message."""
        if self.count == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1).double() for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.count
        start = 0
        for tensor in tensors:
            tensor.copy_(flat[start : start + tensor.numel()].reshape(tensor.shape))
            start += tensor.numel()

    def share(self, tensors: Sequence[Tensor]) -> None:
        """Give all processes the values of rank 0, in place."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            dist.barrier()

    def device(self, name: str) -> torch.device:
        """Return the device of this process; ``auto`` is one GPU per process where there are any.

        Raises:
            ValueError: ``cuda`` was asked for on a machine without it.
        """
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
    """Join the processes that torchrun started, or stay alone where it started none.

    Args:
        device: ``auto`` or ``cuda`` to talk through NCCL where there are GPUs; ``cpu`` for gloo.

    Yields:
        This process among the others.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count <= 1:
        yield Processes()
        return
    # The optimizers would import this once the group exists, and its default arguments would keep the group alive.
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
