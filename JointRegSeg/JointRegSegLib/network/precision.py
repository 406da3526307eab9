"""How to compute fastest on a device: number format and memory order, found by measuring, once a process."""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from .joint import JointNetwork, JointOutput


@dataclass(frozen=True)
class ComputeFormat:
    """Number format of the convolutions, and order of their features in memory."""

    dtype: torch.dtype = torch.float32
    memory_format: torch.memory_format = torch.contiguous_format

    def __str__(self) -> str:
        order = " channels last" if self.memory_format == torch.channels_last_3d else ""
        return str(self.dtype).removeprefix("torch.") + order

    def arrange(self, images: Tensor) -> Tensor:
        """Images (B, C, D, H, W) in this format."""
        return images.to(self.dtype).contiguous(memory_format=self.memory_format)


FLOAT32 = ComputeFormat()
_CANDIDATES = (
    FLOAT32,
    ComputeFormat(torch.float32, torch.channels_last_3d),
    ComputeFormat(torch.bfloat16, torch.channels_last_3d),
)
_ON_GPU = (ComputeFormat(torch.float16), ComputeFormat(torch.float16, torch.channels_last_3d))
_PROBE_SIZE = (24, 32, 24)
_REPEATS = 4


def candidate_formats(device: torch.device | str = "cpu") -> tuple[ComputeFormat, ...]:
    """Formats worth measuring on a device; the exact one first."""
    return _CANDIDATES + _ON_GPU if torch.device(device).type == "cuda" else _CANDIDATES


def fastest_format(device: torch.device | str = "cpu") -> ComputeFormat:
    """The fastest format of a device for networks of this kind; measured the first time, in a fraction of a second."""
    return _measured(str(torch.device(device)), torch.get_num_threads())


def converted(network: JointNetwork, form: ComputeFormat) -> JointNetwork:
    """A copy of the network for inference in a format.

    Normalisations, and the output of the registration, stay in float32: sums of many small numbers need its digits.
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    precise = None if network.registration is None else network.registration.output
    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            module.to(dtype=torch.float32 if module is precise else form.dtype, memory_format=form.memory_format)
    network.arrange = form.arrange
    return network


@torch.no_grad()
def run_fast(
    network: JointNetwork, fixed: Tensor, moving: Tensor, stride: int | None = None, form: ComputeFormat | None = None
) -> JointOutput:
    """``network(fixed, moving, stride)`` in evaluation mode and the fastest format, without gradients.

    Everything in the result is float32 and contiguous. ``form`` forces a format. ValueError as of the network.
    """
    form = fastest_format(fixed.device) if form is None else form
    output = converted(network, form)(fixed, moving, stride)
    logits = {
        name: None if (value := getattr(output, name)) is None else value.float().contiguous()
        for name in ("fixed_logits", "moving_logits")
    }
    return replace(output, **logits)


@torch.no_grad()
def segment_fast(
    network: JointNetwork, study: Tensor, stride: int | None = None, form: ComputeFormat | None = None
) -> Tensor:
    """``network.segment(study, stride)`` as :func:`run_fast` does it: logits in float32."""
    form = fastest_format(study.device) if form is None else form
    return converted(network, form).segment(study, stride).float().contiguous()


@functools.lru_cache(maxsize=8)
def _measured(device: str, threads: int) -> ComputeFormat:
    """Formats are measured in turns, so that what else the machine does hits all alike; the shortest time counts."""
    runs = {form: _probe(form, device) for form in candidate_formats(device)}
    times = dict.fromkeys(runs, float("inf"))
    with torch.no_grad():
        for repeat in range(_REPEATS):
            for form, run in runs.items():
                begin = time.perf_counter()
                run()
                if repeat:  # the first one warms up
                    times[form] = min(times[form], time.perf_counter() - begin)
    return min(times, key=times.__getitem__)


def _probe(form: ComputeFormat, device: str) -> Callable[[], None]:
    """A few layers such as these networks spend their time in."""
    layers = nn.Sequential(
        nn.Conv3d(16, 8, 3, padding=1),
        nn.ReLU(True),
        nn.Conv3d(8, 16, 2, stride=2),
        nn.ReLU(True),
        nn.Conv3d(16, 16, 3, padding=1),
        nn.ReLU(True),
        nn.ConvTranspose3d(16, 8, 2, stride=2),
    )
    layers = layers.to(device=device, dtype=form.dtype, memory_format=form.memory_format)
    images = form.arrange(torch.zeros(1, 16, *_PROBE_SIZE, device=device))

    def run() -> None:
        layers(images)
        if images.is_cuda:
            torch.cuda.synchronize(images.device)

    return run
