"""Self-supervised fitting: a network trained on the scan itself, through the differentiable physics.

No tissue parameters are needed: the network's outputs are pushed through the physics and compared with the measured
signal. Trained on one scan, the network reconstructs the next scan of the same protocol at once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from .dataset import SimulatedBatches, simulate_dataset, unnormalised
from .network import ReconstructionNetwork, normalise_input
from .network_file import NetworkFile
from .network_training import one_thread_a_step
from .reliability import calibrate
from .simulation import simulate
from .tissue_model import FIELD_KEYS
from .training import TrainingDiverged, TrainingResult, train_network
from .training_config import TrainingConfig

LEAST_STEPS = 2000
"""A scan of few voxels is gone through often enough for this many steps."""
_RANGE_PENALTY = 10.0
_SPREAD_SAMPLES = {"r1rho": 20_000, "bloch-mcconnell": 5_000}
_SPREAD_EPOCHS = 10
_EXAMPLES = 20_000
Progress = Callable[[float, str], None]


def train_on_scan(
    config: TrainingConfig, signal: Tensor, progress: Progress | None = None
) -> tuple[NetworkFile, TrainingResult]:
    """Train on normalised signals (voxel, measurement) of a scan under ``config.protocol``; NaN voxels are left out.

    The loss is the mean squared difference of signals in units of the noise. Outputs are kept inside the ranges of
    ``config.tissue``. The uncertainties are then learned on simulated tissues, with the reconstruction held fixed, and
    the reliability map is calibrated as for any other network.

    Raises ValueError without a usable voxel and TrainingDiverged where the loss is not finite.
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
        result = _fit_signals(network, config, normalised, noise, lambda f, m: report(0.8 * f, m))
    seconds = time.perf_counter() - clock
    file = NetworkFile(
        network, config.protocol, config.tissue, config.targets, config.outputs, config.engine, config.noise_sd,
        training={"mean_norm": _learn_spread(network, config)},
    )  # fmt: skip
    report(0.95, "calibrating the reliability map")
    calibration, errors = calibrate(file, config.false_alarm_rate, seed=config.settings.seed + 1_000_000)
    summary = {
        **file.training, "self_supervised": True, "voxels": len(signal), "epochs": len(result.loss),
        "loss": result.loss, "validation_loss": [], "best_epoch": len(result.loss), "stopped": result.stopped,
        "seed": config.settings.seed, "training_s": round(seconds, 3), "held_out": errors,
    }  # fmt: skip
    return replace(file, calibration=calibration, training=summary), result


def _fit_signals(
    network: ReconstructionNetwork, config: TrainingConfig, signal: Tensor, noise: float, report: Progress
) -> TrainingResult:
    settings = config.settings
    batch = min(settings.batch_size, len(signal))
    epochs = max(settings.epochs, math.ceil(LEAST_STEPS * batch / len(signal)))
    weights = [*network.trunk.parameters(), *network.mean.parameters()]
    optimizer = torch.optim.RMSprop(weights, lr=settings.learning_rate)
    generator = torch.Generator().manual_seed(settings.seed)
    result = TrainingResult()
    network.train()
    for epoch in range(epochs):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * epoch / epochs)))
        total, count = 0.0, 0
        for index in torch.randperm(len(signal), generator=generator).split(batch):
            measured = signal[index]
            outputs = network(measured)
            predicted = differentiable_signal(network, config, outputs.clamp(-1, 1))
            beyond = (outputs.abs() - 1).clamp_min(0).square().mean()
            loss = ((predicted - measured) / noise).square().mean() + _RANGE_PENALTY * beyond
            if not bool(torch.isfinite(loss)):
                raise TrainingDiverged(f"the training diverged in epoch {epoch + 1} (the loss is {loss.item():g}); "
                                       "lower the learning rate or narrow the ranges")  # fmt: skip
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 10.0)
            optimizer.step()
            total, count = total + float(loss.detach()), count + 1
        result.loss.append(total / count)
        report((epoch + 1) / epochs, f"epoch {epoch + 1}: squared residual {result.loss[-1]:.3g} noise variances")
    result.best_epoch = epochs
    network.eval()
    return result


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
        config.distribution, config.protocol, samples, noise_sd=config.noise_sd, seed=config.settings.seed,
        engine=config.engine,
    )  # fmt: skip
    batches = SimulatedBatches(
        network, data, config.protocol, config.outputs, config.settings.batch_size, config.settings.seed
    )
    none = (0.0,) * len(config.outputs)  # weights of the mean squared error: the reconstruction stays as it is
    with one_thread_a_step():
        train_network(network, batches, replace(config.settings, weights=none, epochs=_SPREAD_EPOCHS, patience=0))
    return float(torch.linalg.vector_norm(data.clean, dim=1).mean())
