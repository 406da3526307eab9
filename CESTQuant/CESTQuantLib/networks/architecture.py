"""The reconstruction network: normalised signals in, tissue parameters and their uncertainty out."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict, cast

import torch
from torch import Tensor, nn

from NeuroCESTLib.core.checked_json import check_keys
from NeuroCESTLib.core.messages.input_errors import InputError
from NeuroCESTLib.core.processes import Processes

from ..physics.protocol import NORMALIZATIONS

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "gelu": nn.GELU}
"""Activation functions of the hidden layers by name."""
DEPTHS = range(2, 21)
"""Numbers of hidden layers that a network may have."""
_SPREAD_WIDTH = 64
_LOG_SD_LIMITS = (-9.0, 2.0)
_LARGEST_SQUARE = 9.0
"""Squared whitened inputs of the uncertainty head are cut here: 3 standard deviations of the training signals."""
_TYPICAL_LOG_RMSE = -5.0
"""An RMSE of 0.7 % of the equilibrium signal, so that the head predicts differences from it of about 1."""
_WHITENING_FLOOR = 3.0
"""Input directions whose spread is below this many noise standard deviations are not amplified to unit variance."""


class NetworkOptions(TypedDict, total=False):
    """Options of a network that a configuration may set; see :class:`ReconstructionNetwork`."""

    width: int
    depth: int
    dropout: float
    activation: str


def network_options(values: Any) -> NetworkOptions:
    """Check the options of a network.

    Args:
        values: Object as read from JSON, with some of the keys of :class:`NetworkOptions`.

    Raises:
        ValueError: An option is unknown, or no such network can be built.
        TypeError: An option has another type.
    """
    options = check_keys(values, NetworkOptions.__annotations__, "network")
    with torch.random.fork_rng(devices=[]):
        ReconstructionNetwork(1, 1, **options)
    return cast(NetworkOptions, options)  # a network has just been built from them


def normalize_input(signal: Tensor, normalization: str) -> Tensor:
    """Normalise signals as the network expects them.

    Args:
        signal: Signals of shape (voxel, measurement).
        normalization: ``l2`` divides each signal by the root of its sum of squares over the measurements, which removes
            the unknown scale of a scanner. ``m0`` and ``none`` leave signals unchanged: they are already relative to a
            reference.

    Returns:
        Signals of shape (voxel, measurement).

    Raises:
        ValueError: The normalisation is unknown.
    """
    if normalization not in NORMALIZATIONS:
        raise ValueError(f"normalisation '{normalization}' is unknown; use one of {', '.join(NORMALIZATIONS)}")
    if normalization == "l2":
        return signal / torch.linalg.vector_norm(signal, dim=1, keepdim=True).clamp_min(1e-12)
    return signal


@dataclass(frozen=True)
class Prediction:
    """Output of the network in normalised units, in which each training range runs from -1 to 1.

    Attributes:
        mean: Expected parameters, (voxel, output).
        log_sd: Natural logarithm of their standard deviations, (voxel, output).
        log_rmse: Natural logarithm of the expected root-mean-square difference between the signal and the noise-free
            signal of the true parameters, (voxel,), relative to the normalised signal.
    """

    mean: Tensor
    log_sd: Tensor
    log_rmse: Tensor


class Dropout(nn.Module):
    """Dropout whose mask for a sample does not depend on how many processes share the batch.

    Each process draws the masks of the whole batch from the same random numbers and keeps the rows of its own share, so
    that several processes give the result of one.

    Attributes:
        share: Share of the units that are set to zero in training.
        processes: This process among those that share the batches.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share, self.processes = share, Processes()

    def forward(self, units: Tensor) -> Tensor:
        """Drop units, (voxel, unit), and scale the others up so that their expected values stay the same."""
        if not self.training:
            return units
        rows, width = units.shape
        kept = torch.rand(rows * self.processes.count, width) >= self.share
        first = self.processes.rank * rows
        return units * kept[first : first + rows] / (1 - self.share)


class ReconstructionNetwork(nn.Module):
    """Feed-forward network from normalised signals to tissue parameters.

    The default, two hidden layers of 300 tanh units, is that of Perlman et al. 2022 (AutoCEST).

        network = ReconstructionNetwork(30, 2)
        network.set_targets({"amine.fraction": (1e-4, 5e-3), "amine.k_Hz": (50, 1500)})
        network.set_inputs(example_signals, noise_sd=0.004)
        physical = network.to_physical(network(signals))

    Calling the network gives the normalised parameters; :meth:`predict` also gives their standard deviations and the
    expected RMSE of the tissue model. These come from a small head that sees the signal and the features of the trunk
    but passes no gradient back to it, so that learning the uncertainty never costs accuracy.

    Args:
        inputs: Number of measurements.
        outputs: Number of tissue parameters.
        width: Units of a hidden layer.
        depth: Number of hidden layers, 2 to 20.
        dropout: Share of hidden units that are dropped in training, in [0, 1).
        activation: One of ``ACTIVATIONS``.

    Raises:
        ValueError: No network of this size can be built, or the activation is unknown.
    """

    input_mean: Tensor
    input_transform: Tensor
    target_low: Tensor
    target_high: Tensor
    target_log: Tensor

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
        self.inputs, self.outputs = inputs, outputs
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

    def share_batches(self, processes: Processes) -> None:
        """Prepare for batches that several processes share, each of which trains a copy of this network."""
        for module in self.modules():
            if isinstance(module, Dropout):
                module.processes = processes

    @torch.no_grad()
    def set_inputs(self, signal: Tensor, noise_sd: float = 0.0) -> None:
        """Set the whitening of the inputs; it is needed since what matters is a small part of each signal.

        Args:
            signal: Normalised example signals, (voxel, measurement).
            noise_sd: Standard deviation of their noise. It bounds how much input directions that hold little but noise
                are amplified.

        Raises:
            ValueError: There are fewer than two signals.
        """
        values = signal.double()
        if len(values) < 2:
            raise InputError("config", f"{len(values)} samples are too few to train with")
        self.input_mean.copy_(values.mean(0))
        spread, directions = torch.linalg.eigh(torch.cov(values.T).reshape(values.shape[1], -1))
        floor = max((_WHITENING_FLOOR * noise_sd) ** 2, 1e-12 * float(spread.max()), 1e-20)
        self.input_transform.copy_(directions / torch.sqrt(spread.clamp_min(0) + floor))

    @torch.no_grad()
    def set_targets(self, ranges: Mapping[str, tuple[float, float]], logarithmic: Collection[str] = ()) -> None:
        """Set the ranges of the outputs, which become -1 … 1 in normalised units.

        Args:
            ranges: Lowest and highest value of every output by path, in the order of the outputs.
            logarithmic: Paths of the outputs that are learned as logarithms.

        Raises:
            ValueError: The number of ranges is not that of the outputs.
        """
        if len(ranges) != self.outputs:
            raise ValueError(f"{len(ranges)} ranges for {self.outputs} outputs")
        for i, (path, (low, high)) in enumerate(ranges.items()):
            self.target_log[i] = path in logarithmic
            self.target_low[i], self.target_high[i] = (
                (math.log(low), math.log(high)) if path in logarithmic else (low, high)
            )

    def whitened(self, signal: Tensor) -> Tensor:
        """Return the inputs of the trunk, (voxel, measurement), for normalised signals of the same shape."""
        return (signal - self.input_mean) @ self.input_transform

    def forward(self, signal: Tensor) -> Tensor:
        """Return normalised parameters (voxel, output) for normalised signals (voxel, measurement)."""
        return self.mean(self.trunk(self.whitened(signal)))

    def predict(self, signal: Tensor) -> Prediction:
        """Return parameters, their standard deviations and the expected RMSE.

        Args:
            signal: Normalised signals, (voxel, measurement).
        """
        inputs = self.whitened(signal)
        features = self.trunk(inputs)
        seen = inputs.detach()
        spread = self.spread(torch.cat([seen, seen.square().clamp_max(_LARGEST_SQUARE), features.detach()], 1))
        low, high = _LOG_SD_LIMITS
        log_sd = low + (high - low) * torch.sigmoid(spread[:, :-1])
        return Prediction(self.mean(features), log_sd, spread[:, -1] + _TYPICAL_LOG_RMSE)

    def to_normalized(self, physical: Tensor) -> Tensor:
        """Convert parameters (voxel, output) from their own units to -1 … 1 over the training range."""
        values = torch.where(self.target_log, torch.log(physical.clamp_min(1e-30)), physical)
        center, half = self._scale(values)
        return (values - center) / half

    def to_physical(self, outputs: Tensor) -> Tensor:
        """Convert normalised parameters (voxel, output) to their own units."""
        center, half = self._scale(outputs)
        values = outputs * half + center
        # Outputs that are no logarithms are set to 0 first: their exponential could overflow, and although torch.where
        # does not select it, it would spoil the gradient.
        return torch.where(self.target_log, torch.exp(torch.where(self.target_log, values, 0.0)), values)

    def physical_sd(self, prediction: Prediction) -> Tensor:
        """Return the standard deviations (voxel, output) in the units of the parameters, to first order."""
        _, half = self._scale(prediction.mean)
        sd = torch.exp(prediction.log_sd) * half
        return torch.where(self.target_log, sd * self.to_physical(prediction.mean), sd)

    def normalized_sd(self, physical: Tensor, sd: Tensor) -> Tensor:
        """Convert standard deviations back to normalised units: the inverse of :meth:`physical_sd`.

        Args:
            physical: Parameters in their own units, (voxel, output).
            sd: Their standard deviations in the same units, (voxel, output).
        """
        _, half = self._scale(physical)
        return torch.where(self.target_log, sd / physical.clamp_min(1e-30), sd) / half

    def _scale(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Centres and half widths (output,) of the training ranges, as logarithms where these are learned."""
        center, half = (self.target_high + self.target_low) / 2, (self.target_high - self.target_low) / 2
        return center.to(like.dtype), half.to(like.dtype)
