"""The moving average of a network's weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class AveragedNetwork:
    """Exponential moving average of a network's weights.

    The decay grows with the number of updates, (1 + n) / (10 + n), so that the first weights are soon forgotten.

    Attributes:
        network: Network with the averaged weights.
        updates: Number of updates so far.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.updates = 0
        self._decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Include the present weights of a network."""
        self.updates += 1
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        averaged: list[Tensor] = list(self.network.parameters())
        latest: list[Tensor] = list(network.parameters())
        torch._foreach_lerp_(averaged, latest, 1 - decay)
        for buffer, latest_buffer in zip(self.network.buffers(), network.buffers(), strict=True):
            buffer.copy_(latest_buffer)
