"""Steps by Adam."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Adam:
    """Steps by Adam (Kingma and Ba 2015). The one of torch would load its compiler, which takes seconds."""

    _MEAN, _SQUARE, _EPSILON = 0.9, 0.99, 1e-4

    def __init__(self, values: Tensor) -> None:
        self._values = values
        self._mean, self._square = torch.zeros_like(values), torch.zeros_like(values)
        self._steps = 0

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Change the values in place, by ``rate`` at most about, according to their gradient."""
        gradient = self._values.grad
        assert gradient is not None
        self._steps += 1
        self._mean.lerp_(gradient, 1 - self._MEAN)
        self._square.mul_(self._SQUARE).addcmul_(gradient, gradient, value=1 - self._SQUARE)
        scale = (self._square.sqrt() / math.sqrt(1 - self._SQUARE**self._steps)).add_(self._EPSILON)
        self._values.addcdiv_(self._mean, scale, value=-rate / (1 - self._MEAN**self._steps))
