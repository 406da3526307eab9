"""The optimiser of a training, with clipped gradients and scaled losses."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from NeuroCESTLib.core.processes import Processes
from NeuroCESTLib.core.stored_values import check_optimizer, check_stored

from ...network.precision import Precision
from ..settings import TrainingSettings

ENCODER = "encoder."
"""What the names of the encoder's weights begin with."""


class WeightUpdater:
    """The optimiser of a network with gradient clipping and, for float16, scaled losses.

    Attributes:
        reductions: How often the learning rate was reduced on a plateau; the training loop counts them.
        rate: Learning rate of the latest step.
    """

    def __init__(self, network: nn.Module, settings: TrainingSettings, precision: Precision) -> None:
        if settings.encoder_rate == 0:
            for name, parameter in network.named_parameters():
                parameter.requires_grad_(not name.startswith(ENCODER))
        self._parameters = [p for p in network.parameters() if p.requires_grad]
        self._clip = settings.gradient_clip
        self._optimizer = _optimizer(_groups(network, settings), settings)
        self._scaler = torch.amp.GradScaler(enabled=precision.dtype == "float16")
        self.reductions, self.rate = 0, 0.0

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss."""
        self._scaler.scale(loss).backward()

    def step(self, rate: float, processes: Processes) -> None:
        """Update the weights with the gradients, averaged over the processes, and clear the gradients.

        Args:
            rate: Learning rate.
            processes: This process among the others.

        Raises:
            FloatingPointError: A gradient is not finite; the weights are unchanged.
        """
        if processes.count > 1:
            self._complete_gradients(processes)
        processes.average([p.grad for p in self._parameters if p.grad is not None])
        self._scaler.unscale_(self._optimizer)
        norm = nn.utils.clip_grad_norm_(self._parameters, self._clip or float("inf"))
        if not self._scaler.is_enabled() and not bool(torch.isfinite(norm)):
            raise FloatingPointError(f"the norm of the gradients is {float(norm):g}")
        self.rate = rate
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group.get("relative_rate", 1.0)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)

    def _complete_gradients(self, processes: Processes) -> None:
        """Set gradients to zero that only other processes have; those that none has stay away, as in one process."""
        has_gradient = [float(parameter.grad is not None) for parameter in self._parameters]
        shares = torch.tensor(has_gradient, device=self._parameters[0].device)
        processes.average([shares])
        for parameter, share in zip(self._parameters, shares.tolist(), strict=True):
            if share and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)

    def state(self) -> dict[str, Any]:
        """Return everything that the next update depends on besides the weights, for a checkpoint."""
        return {
            "optimiser": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "reductions": self.reductions,
            "rate": self.rate,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a state of ``state()``.

        Raises:
            ValueError: It is not the state of such an optimiser.
        """
        check_optimizer(state["optimiser"], self._optimizer, "checkpoint")
        check_stored(state, {"reductions": int, "rate": float}, "checkpoint")
        if state["reductions"] < 0 or not math.isfinite(state["rate"]):
            raise ValueError("checkpoint: the learning rate is damaged")
        self._optimizer.load_state_dict(state["optimiser"])
        if self._scaler.is_enabled() and state["scaler"]:
            self._scaler.load_state_dict(state["scaler"])
        self.reductions, self.rate = state["reductions"], state["rate"]


def _groups(network: nn.Module, settings: TrainingSettings) -> list[dict[str, Any]]:
    """Parameters that are trained, those of the encoder by themselves where they have another learning rate."""
    trained = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    if settings.encoder_rate in (0, 1):
        return [{"params": [p for _, p in trained]}]
    encoder = [p for name, p in trained if name.startswith(ENCODER)]
    others = [p for name, p in trained if not name.startswith(ENCODER)]
    return [{"params": encoder, "relative_rate": settings.encoder_rate}, {"params": others, "relative_rate": 1.0}]


def _optimizer(parameters: list[dict[str, Any]], settings: TrainingSettings) -> torch.optim.Optimizer:
    rate, decay, name = settings.learning_rate, settings.weight_decay, settings.optimiser
    if name == "sgd":
        momentum = settings.momentum
        return torch.optim.SGD(parameters, rate, momentum=momentum, nesterov=momentum > 0, weight_decay=decay)
    if name == "adamw":
        return torch.optim.AdamW(parameters, rate, weight_decay=decay, foreach=True)
    if name == "adam":
        return torch.optim.Adam(parameters, rate, weight_decay=decay, foreach=True)
    raise ValueError(f"optimiser '{name}' is unknown; use adam, adamw or sgd")
