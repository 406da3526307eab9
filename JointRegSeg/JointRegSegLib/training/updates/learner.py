"""A network in training, with everything that its next update depends on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from NeuroCESTLib.core.processes import Processes
from NeuroCESTLib.core.stored_values import check_weights

from ...network.precision import Precision
from ..batches import AnyBatch
from ..objective import Objective
from .averaging import AveragedNetwork
from .optimizer import WeightUpdater
from .precision import choose_precision, common_precision


class Learner:
    """A network in training.

    Attributes:
        network: The network.
        device: Device that computes.
        precision: Number format.
        updater: Optimiser of the weights.
        average: Moving average of the weights; None where none is kept.
    """

    def __init__(self, objective: Objective, network: nn.Module, processes: Processes) -> None:
        self._objective, self._settings, self._processes = objective, objective.settings, processes
        self.device = processes.device(self._settings.device)
        self.network = network.to(self.device)
        precision = choose_precision(self._settings, self.device)
        self.precision = common_precision(precision, processes, self.device)
        self.precision.arrange_weights(self.network)
        self.updater = WeightUpdater(self.network, self._settings, self.precision)
        self.average = AveragedNetwork(self.network, self._settings.ema_decay) if self._settings.ema_decay else None

    @property
    def kept(self) -> nn.Module:
        """The network that is validated and kept."""
        return self.average.network if self.average is not None else self.network

    def update(self, batches: Iterator[AnyBatch], passes: int, step: int, rate: float) -> dict[str, float]:
        """Update the weights once.

        Args:
            batches: Batches of the training.
            passes: Number of batches whose gradients are added.
            step: Number of the step, on which everything random depends.
            rate: Learning rate.

        Returns:
            Mean of each part of the loss, by name; parts without any summand are left out.

        Raises:
            FloatingPointError: A part of the loss or a gradient is not finite.
        """
        torch.manual_seed(self._settings.seed * 1_000_003 + step)
        self.network.train()
        names = self._objective.terms
        terms = torch.zeros(len(names), 2, dtype=torch.float64, device=self.device)  # sums and numbers
        for _ in range(passes):
            batch = next(batches).to(self.device)
            loss, parts = self._objective.loss(self.network, batch, step, self.precision)
            self.updater.backward(loss / passes)
            for name, part in parts.items():
                terms[names.index(name)] += part
        self._processes.average([terms])  # all of them, as the share of another process may have those that are zero
        values = {name: total / number for name, (total, number) in zip(names, terms.tolist(), strict=True) if number}
        if not all(math.isfinite(value) for value in values.values()):
            raise FloatingPointError(f"the loss is {values['loss']:g}")
        self.updater.step(rate, self._processes)
        if self.average is not None:
            self.average.update(self.network)
        return values

    def average_buffers(self) -> None:
        """Average the running means of the studies over the processes."""
        self._processes.average([*self.network.buffers(), *self.kept.buffers()])

    def to_dict(self) -> dict[str, Any]:
        """Return tensors and plain values for a checkpoint."""
        return {
            "network": self.network.state_dict(),
            "kept": self.kept.state_dict(),
            "precision": self.precision.dtype,
            "optimisation": self.updater.state(),
            "averaged_updates": self.average.updates if self.average else 0,
        }

    def restore(self, checkpoint: dict[str, Any], where: str) -> None:
        """Continue from a checkpoint.

        Raises:
            ValueError: It is not that of such a network; the message about its weights begins with ``where``.
        """
        for name in ("network", "kept"):
            check_weights(checkpoint[name], self.network.state_dict(), where)
        self.network.load_state_dict(checkpoint["network"])
        if self._settings.precision == "auto" and self.device.type == "cpu":  # whichever would be faster now
            self.precision = Precision(checkpoint["precision"], self.precision.channels_last)
        self.updater.restore(checkpoint["optimisation"])
        if self.average is not None:
            self.average.network.load_state_dict(checkpoint["kept"])
            self.average.updates = checkpoint["averaged_updates"]
