"""The reconstruction network: measured signals in, tissue parameters with their uncertainty out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "gelu": nn.GELU}
DEPTHS = range(2, 21)
_SPREAD_WIDTH = 64
_LOG_SD_LIMITS = (-9.0, 2.0)
_WHITENING_FLOOR = 3.0
"""Directions of the input whose spread is below this many noise standard deviations are not blown up."""


def normalise_input(signal: Tensor, normalisation: str) -> Tensor:
    """Signals (voxel, measurement) as the network takes them.

    'l2': divided by the root sum of squares over the measurements, which removes the unknown scale of a scanner;
    'm0' and 'none': as they are, since they are normalised by a reference already.
    """
    if normalisation == "l2":
        return signal / torch.linalg.vector_norm(signal, dim=1, keepdim=True).clamp_min(1e-12)
    return signal


@dataclass(frozen=True)
class Prediction:
    """What the network says of voxels, in normalised units (-1 … 1 over the training range).

    mean, log_sd: (voxel, output). log_rmse: (voxel,) natural logarithm of the root-mean-square difference that the
    signal has from the signal of the true parameters.
    """

    mean: Tensor
    log_sd: Tensor
    log_rmse: Tensor


class Dropout(nn.Module):
    """Leaves out a share of the units in training; every sample has the mask that it has in the whole batch.

    Where several processes share a batch, each draws the masks of the whole batch from the same random numbers and
    takes its own rows: the result is that of one process.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share, self.rank, self.processes = share, 0, 1

    def forward(self, units: Tensor) -> Tensor:
        if not self.training:
            return units
        rows, width = units.shape
        kept = torch.rand(rows * self.processes, width) >= self.share
        return units * kept[self.rank * rows : (self.rank + 1) * rows] / (1 - self.share)


class ReconstructionNetwork(nn.Module):
    """Feed-forward network with ``depth`` hidden layers of ``width`` (default 2 x 300 tanh; Perlman et al. 2022).

        network = ReconstructionNetwork(30, 2)
        network.set_targets({"amine.fraction": (1e-4, 5e-3), "amine.k_Hz": (50, 1500)})
        network.set_inputs(example_signals, noise_sd=0.004)
        physical = network.to_physical(network(signals))

    ``forward`` gives the normalised outputs (voxel, output); ``predict`` also their standard deviations and the
    predicted RMSE of the tissue model. These come from a small head of their own that sees the signal and, without
    passing a gradient back, the features of the trunk: learning the uncertainty never costs accuracy.

    inputs: number of measurements. outputs: number of parameters. depth: 2 … 20. dropout: share of units left out
    in training. Raises ValueError for sizes that make no network.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int = 300,
        depth: int = 2,
        dropout: float = 0.0,
        activation: str = "tanh",
    ) -> None:
        super().__init__()
        if min(inputs, outputs, width) < 1:
            raise ValueError(f"a network needs at least one input, output and unit, got {inputs}, {outputs}, {width}")
        if depth not in DEPTHS:
            raise ValueError(f"network depth is {depth} but must be {DEPTHS[0]} to {DEPTHS[-1]} hidden layers")
        if not 0 <= dropout < 1:
            raise ValueError(f"network dropout is {dropout:g} but must lie in [0, 1)")
        if activation not in ACTIVATIONS:
            raise ValueError(f"network activation '{activation}' is unknown; use one of {', '.join(ACTIVATIONS)}")
        self.options = {
            "inputs": inputs,
            "outputs": outputs,
            "width": width,
            "depth": depth,
            "dropout": dropout,
            "activation": activation,
        }
        layers: list[nn.Module] = []
        for layer in range(depth):
            layers += [nn.Linear(inputs if layer == 0 else width, width), ACTIVATIONS[activation]()]
            if dropout:
                layers.append(Dropout(dropout))
        self.trunk = nn.Sequential(*layers)
        self.mean = nn.Linear(width, outputs)
        self.spread = nn.Sequential(
            nn.Linear(2 * inputs + width, _SPREAD_WIDTH), nn.Tanh(), nn.Linear(_SPREAD_WIDTH, outputs + 1)
        )
        nn.init.zeros_(self.mean.bias)
        self.register_buffer("input_mean", torch.zeros(inputs))
        self.register_buffer("input_transform", torch.eye(inputs))
        self.register_buffer("target_low", -torch.ones(outputs))
        self.register_buffer("target_high", torch.ones(outputs))
        self.register_buffer("target_log", torch.zeros(outputs, dtype=torch.bool))

    def share_batches(self, rank: int, processes: int) -> None:
        """Say that in training this network sees the ``rank``-th share of batches that ``processes`` networks share."""
        for module in self.modules():
            if isinstance(module, Dropout):
                module.rank, module.processes = rank, processes

    @torch.no_grad()
    def set_inputs(self, signal: Tensor, noise_sd: float = 0.0) -> None:
        """Whiten the inputs by example signals (voxel, measurement): what matters is a small part of each signal.

        ``noise_sd``, in units of the signal, bounds how much directions that hold little but noise are amplified.
        """
        values = signal.double()
        self.input_mean.copy_(values.mean(0))
        spread, directions = torch.linalg.eigh(torch.cov(values.T).reshape(values.shape[1], -1))
        floor = max((_WHITENING_FLOOR * noise_sd) ** 2, 1e-12 * float(spread.max()), 1e-20)
        self.input_transform.copy_(directions / torch.sqrt(spread.clamp_min(0) + floor))

    @torch.no_grad()
    def set_targets(self, ranges: Mapping[str, Sequence[float]], logarithmic: Sequence[str] = ()) -> None:
        """Ranges (low, high) of the outputs by path, in their order; those in ``logarithmic`` are learned as logs."""
        if len(ranges) != len(self.target_low):
            raise ValueError(f"{len(ranges)} ranges for {len(self.target_low)} outputs")
        for i, (path, (low, high)) in enumerate(ranges.items()):
            self.target_log[i] = path in logarithmic
            self.target_low[i], self.target_high[i] = (
                (math.log(low), math.log(high)) if path in logarithmic else (low, high)
            )

    def whitened(self, signal: Tensor) -> Tensor:
        """Inputs of the trunk, (voxel, measurement)."""
        return (signal - self.input_mean) @ self.input_transform

    def forward(self, signal: Tensor) -> Tensor:
        """Normalised outputs (voxel, output) of normalised signals (voxel, measurement)."""
        return self.mean(self.trunk(self.whitened(signal)))

    def predict(self, signal: Tensor) -> Prediction:
        """Outputs with standard deviations and the predicted RMSE."""
        inputs = self.whitened(signal)
        features = self.trunk(inputs)
        seen = inputs.detach()
        spread = self.spread(torch.cat([seen, seen.square().clamp_max(9.0), features.detach()], 1))
        low, high = _LOG_SD_LIMITS
        log_sd = low + (high - low) * torch.sigmoid(spread[:, :-1])
        return Prediction(self.mean(features), log_sd, spread[:, -1] - 5.0)

    def to_normalised(self, physical: Tensor) -> Tensor:
        """Targets (voxel, output) in their own units -> -1 … 1 over the training range."""
        values = torch.where(self.target_log, torch.log(physical.clamp_min(1e-30)), physical)
        centre, half = self._scale(values)
        return (values - centre) / half

    def to_physical(self, outputs: Tensor) -> Tensor:
        """Normalised outputs (voxel, output) -> targets in their own units."""
        centre, half = self._scale(outputs)
        values = outputs * half + centre
        # no exponential of what is no logarithm: it would overflow, and spoil the gradient of the other branch
        return torch.where(self.target_log, torch.exp(torch.where(self.target_log, values, 0.0)), values)

    def physical_sd(self, prediction: Prediction) -> Tensor:
        """Standard deviations (voxel, output) in the targets' own units, to first order."""
        _, half = self._scale(prediction.mean)
        sd = torch.exp(prediction.log_sd) * half
        return torch.where(self.target_log, sd * self.to_physical(prediction.mean), sd)

    def normalised_sd(self, physical: Tensor, sd: Tensor) -> Tensor:
        """Inverse of :meth:`physical_sd`."""
        _, half = self._scale(physical)
        return torch.where(self.target_log, sd / physical.clamp_min(1e-30), sd) / half

    def _scale(self, like: Tensor) -> tuple[Tensor, Tensor]:
        centre, half = (self.target_high + self.target_low) / 2, (self.target_high - self.target_low) / 2
        return centre.to(like.dtype), half.to(like.dtype)
