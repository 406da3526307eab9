"""Self-supervised fitting: a network trained on the scan itself, through the differentiable physics.

No tissue parameters are needed: the signal that the physics gives for the network's outputs is compared with the
measured one. Trained on one scan, the network reconstructs the next scan of the same protocol at once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from NeuroCESTLib.core.progress import Progress, part, silent

from ..physics.simulation import simulate
from ..tissue.model import FIELD_KEYS
from .architecture import ReconstructionNetwork, normalize_input
from .config import TrainingConfig
from .dataset import SimulatedBatches, effort_of, without_l2
from .files import NetworkFile
from .fixed_protocol import network_file, removed_if_diverged
from .objective import Batch, Losses, Objective
from .reliability import calibrate
from .training import TrainingResult, one_thread, train_network

LEAST_STEPS = 2000
"""A scan of few voxels is repeated until the training has had this many steps."""
_RANGE_PENALTY = 10.0
"""Weight of the squared distance by which outputs leave the training range."""
_LARGEST_GRADIENT = 10.0
_SPREAD_EPOCHS = 10
_EXAMPLES = 20_000
"""Voxels from which the inputs are scaled and the loss of the central tissue is computed."""


def train_on_scan(
    config: TrainingConfig, signal: Tensor, progress: Progress = silent, checkpoint: str | Path | None = None
) -> tuple[NetworkFile, TrainingResult]:
    """Train a network on a scan.

    The loss is the mean squared difference of the signals in units of the noise; the outputs are kept inside the ranges
    of ``config.tissue``. The uncertainties are then learned on simulated tissues while the reconstruction stays as it
    is, and the reliability map is calibrated as for any other network.

    Args:
        config: Protocol of the scan, tissue and settings.
        signal: Normalised signals, (voxel, measurement); voxels with NaN are left out.
        progress: Called throughout; may raise to cancel.
        checkpoint: File to continue from, for this scan alone; see :func:`training.train_network`.

    Returns:
        The network with everything that belongs to it, and the course of its training.

    Raises:
        ValueError: No voxel has a usable signal, or the scan has another number of measurements than the protocol.
        TrainingDiverged: The loss is not finite or exploded.
    """
    signal = signal[torch.isfinite(signal).all(1)].float()
    if signal.shape[1] != config.protocol.measurement_count:
        raise ValueError(
            f"the scan has {signal.shape[1]} measurements, the protocol {config.protocol.measurement_count}"
        )
    if len(signal) == 0:
        raise ValueError("the scan has no voxel with a usable signal to train on")
    begin = time.perf_counter()
    network = config.new_network()
    normalized = normalize_input(signal, config.protocol.signal_normalisation)
    noise_sd = max(sum(config.training_noise_sd) / 2, 1e-4)
    if config.protocol.signal_normalisation == "l2":
        noise_sd /= _mean_norm(config)
    network.set_inputs(normalized[:_EXAMPLES], noise_sd)
    with one_thread():
        result = _fit_signals(network, config, normalized, noise_sd, part(progress, 0.0, 0.8), checkpoint)
    seconds = time.perf_counter() - begin
    with removed_if_diverged(checkpoint):
        file = network_file(network, config, config.training_noise_sd, _learn_spread(network, config))
        progress(0.95, "calibrating the reliability map")
        calibration, errors = calibrate(file, config.false_alarm_rate, seed=config.settings.seed + 1_000_000)
    summary = {
        **file.training,
        "self_supervised": True,
        "voxels": len(signal),
        "epochs": len(result.loss),
        "loss": result.loss,
        "validation_loss": [],
        "best_epoch": result.best_epoch,
        "stopped": result.stopped,
        "seed": config.settings.seed,
        "held_out": errors,
    }
    result = replace(result, times_s={"training": seconds})
    return replace(file, calibration=calibration, training=summary), result


class _ScanBatches:
    """Voxels of a scan, in a new order in every epoch; their signals are both input and target."""

    def __init__(self, signal: Tensor, batch_size: int) -> None:
        self.signal, self.batch_size = signal, batch_size

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        for index in torch.randperm(len(self.signal), generator=generator).split(self.batch_size):
            yield Batch(self.signal[index], self.signal[index], None)

    def validation(self) -> None:
        """Hold nothing out."""


def _fit_signals(
    network: ReconstructionNetwork,
    config: TrainingConfig,
    signal: Tensor,
    noise_sd: float,
    progress: Progress,
    checkpoint: str | Path | None,
) -> TrainingResult:
    """Train on normalised signals (voxel, measurement) whose noise has the standard deviation ``noise_sd``."""
    settings = config.settings
    batch_size = min(settings.batch_size, len(signal))
    epochs = max(settings.epochs, math.ceil(LEAST_STEPS * batch_size / len(signal)))

    def misfit(outputs: Tensor, measured: Tensor) -> Tensor:
        predicted = differentiable_signal(network, config, outputs.clamp(-1, 1))
        return ((predicted - measured) / noise_sd).square().mean()

    def loss(batch: Batch) -> Losses:
        outputs = network(batch.signal)
        beyond = (outputs.abs() - 1).clamp_min(0).square().mean()
        both = misfit(outputs, batch.targets) + _RANGE_PENALTY * beyond
        return Losses(both, both)

    with torch.no_grad():
        few = signal[:_EXAMPLES]
        central = float(misfit(torch.zeros(len(few), len(config.outputs)), few))
    return train_network(
        network,
        _ScanBatches(signal, batch_size),
        replace(settings, epochs=epochs, patience=0, learn_spread=False),
        progress,
        checkpoint,
        objective=Objective(loss, max(central, 1.0), _LARGEST_GRADIENT),
    )


def differentiable_signal(network: ReconstructionNetwork, config: TrainingConfig, outputs: Tensor) -> Tensor:
    """Compute the signals of a network's outputs, with gradients.

    Args:
        network: Network that the outputs come from.
        config: Protocol, tissue and engine.
        outputs: Normalised parameters, (voxel, output).

    Returns:
        Normalised noise-free signals, (voxel, measurement) float32.
    """
    dtype = effort_of(config.engine).dtype
    physical = network.to_physical(outputs).to(dtype)
    distribution = config.distribution
    values = distribution.fixed_or({path: physical[:, i] for i, path in enumerate(config.outputs)})
    fields = {key: values[key] for key in FIELD_KEYS}
    protocol = without_l2(config.protocol)
    clean = simulate(distribution.tissue(values), protocol, engine=config.engine, dtype=dtype, **fields)
    return normalize_input(clean.float(), config.protocol.signal_normalisation)


def _mean_norm(config: TrainingConfig) -> float:
    """Mean norm of some simulated signals, by which an L2 normalisation divides signal and noise."""
    return float(torch.linalg.vector_norm(config.simulate(256).clean, dim=1).mean())


def _learn_spread(network: ReconstructionNetwork, config: TrainingConfig) -> float:
    """Train the head of the uncertainties on simulated tissues; returns the mean norm of their signals."""
    data = config.simulate(min(config.samples, effort_of(config.engine).spread_voxels))
    batches = SimulatedBatches(
        network,
        data,
        config.protocol,
        config.outputs,
        config.settings.batch_size,
        config.settings.seed,
        injected_sd=config.noise_injection_sd,
    )
    # Without any weight in the mean squared error, the reconstruction stays as it is.
    weights = (0.0,) * len(config.outputs)
    with one_thread():
        train_network(network, batches, replace(config.settings, weights=weights, epochs=_SPREAD_EPOCHS, patience=0))
    return float(torch.linalg.vector_norm(data.clean, dim=1).mean())
