"""Updates of the weights: number format, gradients, optimiser, and the moving average of the weights."""

from __future__ import annotations

import copy
import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from NeuroCESTLib.core.processes import Processes

from ..network.configuration import NetworkConfig
from ..network.joint import JointNetwork
from ..network.precision import Precision
from .settings import TrainingSettings

_TRIAL = 32  # edge of the volume that formats are compared on


def for_gradients(precision: Precision, depth: int, network: NetworkConfig, device: torch.device) -> Precision:
    """The number format in which the gradients of a volume of ``depth`` voxels (D, after the stride) are right.

    On processors the weights' gradient of a 3x3x3 convolution in bfloat16 is arbitrary where the map is two voxels
    deep (torch 2.13 with oneDNN; found by comparison with float32): such volumes are computed in float32.
    """
    depths = [depth >> level for level in range(network.levels)]
    if device.type == "cpu" and precision.dtype == "bfloat16" and 2 in depths:
        return replace(precision, dtype="float32")
    return precision


def choose_precision(settings: TrainingSettings, device: torch.device, network: JointNetwork) -> Precision:
    """The number format that the settings ask for; 'auto' takes the fastest.

    On a GPU that is bfloat16 where it has it, else float16. On a processor a training step of each format is timed on
    a small volume, and float32 wins unless bfloat16 takes less than 0.9 of its time.
    """
    if device.type == "cuda":
        best = "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
        dtype = best if settings.precision == "auto" else settings.precision
        return Precision(dtype, settings.channels_last is not False)
    if settings.precision == "float16":
        raise ValueError("precision 'float16' needs a GPU; use auto, float32 or bfloat16")
    channels_last = settings.channels_last is not False
    if settings.precision != "auto":
        return Precision(settings.precision, channels_last)
    trial = copy.deepcopy(network)
    exact, rounded = (Precision(dtype, channels_last) for dtype in ("float32", "bfloat16"))
    faster = _step_seconds(trial, rounded, device) < 0.9 * _step_seconds(trial, exact, device)
    return rounded if faster else exact


def _step_seconds(network: JointNetwork, precision: Precision, device: torch.device) -> float:
    """Shortest of three passes there and back."""
    size = -(-_TRIAL // network.config.multiple) * network.config.multiple
    study = precision.arrange(torch.zeros(1, len(network.config.modalities), size, size, size, device=device))
    precision.arrange_weights(network)
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        with precision.autocast(device):
            output = network(study, study, 1)
        parts = [output.fixed_logits, output.moving_logits]
        parts.append(output.deformation.displacement if output.deformation is not None else None)
        sum(part.float().sum() for part in parts if part is not None).backward()
        best = min(best, time.perf_counter() - start)
    return best


class Optimisation:
    """The optimiser of a network with clipping and, for float16, scaled losses.

    reductions: how often the learning rate was reduced on a plateau; counted by the training. rate: the latest one.
    """

    def __init__(self, network: JointNetwork, settings: TrainingSettings, precision: Precision) -> None:
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.clip = settings.gradient_clip
        self.optimiser = _optimiser(self.parameters, settings)
        self.scaler = torch.amp.GradScaler(enabled=precision.dtype == "float16")
        self.reductions, self.rate = 0, 0.0

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss."""
        self.scaler.scale(loss).backward()

    def step(self, rate: float, processes: Processes) -> None:
        """Update the weights with the gradients, averaged over the processes, and forget these.

        Raises:
            FloatingPointError: a gradient is not finite; the weights are as they were.
        """
        for parameter in self.parameters:
            if parameter.grad is None and processes.count > 1:
                parameter.grad = torch.zeros_like(parameter)
        processes.average([p.grad for p in self.parameters if p.grad is not None])
        self.scaler.unscale_(self.optimiser)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.clip or float("inf"))
        if not self.scaler.is_enabled() and not bool(torch.isfinite(norm)):
            raise FloatingPointError(f"the norm of the gradients is {float(norm):g}")
        self.rate = rate
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Any]:
        """All that the next update depends on besides the weights."""
        return {
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "reductions": self.reductions,
            "rate": self.rate,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a state."""
        self.optimiser.load_state_dict(state["optimiser"])
        if self.scaler.is_enabled() and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.reductions, self.rate = state["reductions"], state["rate"]


class Averaged:
    """Exponential moving average of a network's weights.

    The decay grows with the number of updates, (1 + n) / (10 + n), so that the first weights are soon forgotten.
    """

    def __init__(self, network: JointNetwork, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self, network: JointNetwork) -> None:
        """Take in the present weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        own, new = list(self.network.parameters()), list(network.parameters())
        torch._foreach_lerp_(own, new, 1 - decay)
        for buffer, latest in zip(self.network.buffers(), network.buffers(), strict=True):
            buffer.copy_(latest)


def _optimiser(parameters: list[torch.nn.Parameter], settings: TrainingSettings) -> torch.optim.Optimizer:
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimiser == "sgd":
        return torch.optim.SGD(
            parameters, rate, momentum=settings.momentum, nesterov=settings.momentum > 0, weight_decay=decay
        )
    kind = torch.optim.AdamW if settings.optimiser == "adamw" else torch.optim.Adam
    return kind(parameters, rate, weight_decay=decay, foreach=True)
