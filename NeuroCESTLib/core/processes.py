"""Training in several processes that ``torchrun`` started: gloo between CPUs, NCCL between GPUs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch import distributed as dist

from NeuroCESTLib.core.device import choose_device


@dataclass(frozen=True)
class Processes:
    """This process as one of several that train together.

    Attributes:
        rank: Number of this process, from 0; the process of rank 0 writes files and shows progress.
        count: Number of processes.
        local_rank: Number of this process among those on the same machine.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @property
    def writes(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    @torch.no_grad()
    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over all processes.

        Args:
            tensors: Tensors of any shapes on one device, overwritten in place; one message carries them all.
        """
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
        """Overwrite the tensors of all processes, in place, with those of rank 0."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def wait(self) -> None:
        """Wait until every process has reached this call."""
        if self.count > 1:
            dist.barrier()

    def device(self, name: str) -> torch.device:
        """Return the device of this process; processes on one machine take its GPUs in turn.

        Args:
            name: As for ``choose_device``.

        Raises:
            ValueError: The name is unknown, or CUDA is not available on this machine.
        """
        device = choose_device(name)
        if device.type == "cuda":
            device = torch.device("cuda", self.local_rank % torch.cuda.device_count())
            torch.cuda.set_device(device)
        return device


@contextmanager
def processes(device: str = "auto") -> Iterator[Processes]:
    """Join the processes that ``torchrun`` started; without ``torchrun`` this process is the only one.

    Args:
        device: ``auto`` or ``cuda`` to communicate through NCCL where there are GPUs; ``cpu`` for gloo.

    Yields:
        This process as one of all.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count <= 1:
        yield Processes()
        return
    # The optimizers would import this module once the group exists, and its default arguments would then keep the
    # group alive.
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


def inside_application() -> bool:
    """Whether this interpreter belongs to Slicer's application, of whose process no copy may be made.

    A forked copy would share the application's windows and threads. PythonQt exists inside the application alone.
    """
    return "PythonQt" in sys.modules
