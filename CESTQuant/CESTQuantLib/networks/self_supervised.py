"""Self-supervised fitting: a network trained on the scan itself, through the differentiable physics.

No tissue parameters are needed: the network's outputs are pushed through the physics and compared with the measured
signal. Trained on one scan, the network reconstructs the next scan of the same protocol at once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from NeuroCESTLib.core.progress import Progress

from ..physics.simulation import simulate
from ..tissue.model import FIELD_KEYS
from .architecture import ReconstructionNetwork, normalise_input
from .config import TrainingConfig
from .dataset import SimulatedBatches, simulate_dataset, unnormalised
from .files import NetworkFile
from .fixed_protocol import one_thread_a_step, without_checkpoint_if_diverged
from .reliability import calibrate
from .training import Batch, Objective, TrainingResult, train_network

LEAST_STEPS = 2000
"""A scan of few voxels is gone through often enough for this many steps."""
_RANGE_PENALTY = 10.0
_LARGEST_GRADIENT = 10.0
_SPREAD_SAMPLES = {"r1rho": 20_000, "bloch-mcconnell": 5_000}
_SPREAD_EPOCHS = 10
_EXAMPLES = 20_000


def train_on_scan(
    config: TrainingConfig, signal: Tensor, progress: Progress | None = None, checkpoint: str | Path | None = None
) -> tuple[NetworkFile, TrainingResult]:
    """Train on normalised signals (voxel, measurement) of a scan under ``config.protocol``; NaN voxels are left out.

    The loss is the mean squared difference of signals in units of the noise. Outputs are kept inside the ranges of
    ``config.tissue``. The uncertainties are then learned on simulated tissues, with the reconstruction held fixed, and
    the reliability map is calibrated as for any other network.

    checkpoint: a file of this scan and no other, see :func:`training.train_network`.

    Raises ValueError without a usable voxel and TrainingDiverged where the loss is not finite or explodes.
    """
    report = progress or (lambda fraction, message: None)
    signal = signal[torch.isfinite(signal).all(1)].float()
    if signal.shape[1] != config.protocol.measurement_count:
        raise ValueError(
            f"the scan has {signal.shape[1]} measurements, the protocol {config.protocol.measurement_count}"
        )
    if len(signal) == 0:
        raise ValueError("the scan has no voxel with a usable signal to train on")
    clock = time.perf_counter()
    network = config.new_network()
    normalised = normalise_input(signal, config.protocol.signal_normalisation)
    noise = max(sum(config.noise_sd) / 2, 1e-4)
    if config.protocol.signal_normalisation == "l2":
        noise /= _mean_norm(config)
    network.set_inputs(normalised[:_EXAMPLES], noise)
    with one_thread_a_step():
        result = _fit_signals(network, config, normalised, noise, lambda f, m: report(0.8 * f, m), checkpoint)
    seconds = time.perf_counter() - clock
    with without_checkpoint_if_diverged(checkpoint):
        file = NetworkFile(
            network,
            config.protocol,
            config.tissue,
            config.targets,
            config.outputs,
            config.engine,
            config.noise_sd,
            training={"mean_norm": _learn_spread(network, config)},
        )
        report(0.95, "calibrating the reliability map")
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
        "training_s": round(seconds, 3),
        "held_out": errors,
    }
    return replace(file, calibration=calibration, training=summary), result


class _ScanBatches:
    """The voxels of a scan, shuffled anew every epoch; they are what the network sees and what it is compared with."""

    def __init__(self, signal: Tensor, batch: int) -> None:
        self.signal, self.batch = signal, batch

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        for index in torch.randperm(len(self.signal), generator=generator).split(self.batch):
            yield self.signal[index], self.signal[index], None

    def validation(self) -> None:
        """Nothing is held out."""


def _fit_signals(
    network: ReconstructionNetwork,
    config: TrainingConfig,
    signal: Tensor,
    noise: float,
    report: Progress,
    checkpoint: str | Path | None,
) -> TrainingResult:
    settings = config.settings
    batch = min(settings.batch_size, len(signal))
    epochs = max(settings.epochs, math.ceil(LEAST_STEPS * batch / len(signal)))

    def residual(outputs: Tensor, measured: Tensor) -> Tensor:
        predicted = differentiable_signal(network, config, outputs.clamp(-1, 1))
        return ((predicted - measured) / noise).square().mean()

    def loss(batch: Batch) -> tuple[Tensor, Tensor]:
        outputs = network(batch[0])
        beyond = (outputs.abs() - 1).clamp_min(0).square().mean()
        both = residual(outputs, batch[1]) + _RANGE_PENALTY * beyond
        return both, both

    with torch.no_grad():
        few = signal[:_EXAMPLES]
        centre = float(residual(torch.zeros(len(few), len(config.outputs)), few))
    objective = Objective(loss, max(centre, 1.0), _LARGEST_GRADIENT)
    return train_network(
        network,
        _ScanBatches(signal, batch),
        replace(settings, epochs=epochs, patience=0, learn_spread=False),
        report,
        checkpoint,
        objective=objective,
    )


def differentiable_signal(network: ReconstructionNetwork, config: TrainingConfig, outputs: Tensor) -> Tensor:
    """Normalised signals (voxel, measurement) of normalised outputs (voxel, output), with gradients."""
    dtype = torch.float32 if config.engine == "r1rho" else torch.float64
    physical = network.to_physical(outputs).to(dtype)
    distribution = config.distribution
    values = distribution.fixed_or({path: physical[:, i] for i, path in enumerate(config.outputs)})
    fields = {key: values[key] for key in FIELD_KEYS}
    protocol = unnormalised(config.protocol)
    clean = simulate(distribution.tissue(values), protocol, engine=config.engine, dtype=dtype, **fields)
    return normalise_input(clean.float(), config.protocol.signal_normalisation)


def _mean_norm(config: TrainingConfig) -> float:
    """Mean norm of a few simulated signals: by it an L2 normalisation divides signal and noise."""
    few = simulate_dataset(config.distribution, config.protocol, 256, seed=config.settings.seed, engine=config.engine)
    return float(torch.linalg.vector_norm(few.clean, dim=1).mean())


def _learn_spread(network: ReconstructionNetwork, config: TrainingConfig) -> float:
    """Teach the head of the uncertainties on simulated tissues; returns the mean norm of their signals."""
    samples = min(config.samples, _SPREAD_SAMPLES[config.engine])
    data = simulate_dataset(
        config.distribution,
        config.protocol,
        samples,
        noise_sd=config.noise_sd,
        seed=config.settings.seed,
        engine=config.engine,
    )
    batches = SimulatedBatches(
        network, data, config.protocol, config.outputs, config.settings.batch_size, config.settings.seed
    )
    none = (0.0,) * len(config.outputs)  # weights of the mean squared error: the reconstruction stays as it is
    with one_thread_a_step():
        train_network(network, batches, replace(config.settings, weights=none, epochs=_SPREAD_EPOCHS, patience=0))
    return float(torch.linalg.vector_norm(data.clean, dim=1).mean())
