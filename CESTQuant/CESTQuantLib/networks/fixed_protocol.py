"""A reconstruction network from a configuration: simulate, train, calibrate."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from NeuroCESTLib.core.processes import Processes
from NeuroCESTLib.core.progress import Progress, part, silent

from .architecture import ReconstructionNetwork, normalize_input
from .config import TrainingConfig
from .dataset import SimulatedBatches
from .files import NetworkFile
from .objective import Samples
from .reliability import calibrate
from .shards import read_dataset
from .training import TrainingDiverged, TrainingResult, one_thread, train_network

_EXAMPLES = 20_000
"""Samples from which the inputs of a network are scaled."""


def train_from_config(
    config: TrainingConfig,
    progress: Progress = silent,
    checkpoint: str | Path | None = None,
    threads: int | None = None,
    processes: Processes | None = None,
) -> tuple[NetworkFile, TrainingResult]:
    """Simulate spectra or open a data set on disk, train a network, and calibrate its reliability map.

    The same spectra give the same network, from memory or from disk, in one process or in several. Of several
    processes the first one calibrates.

    Args:
        config: What to simulate and to learn.
        progress: Called throughout; may raise to cancel.
        checkpoint: File to continue from, see :func:`training.train_network`.
        threads: Threads of the simulations; by default as many as torch uses.
        processes: This process among those that train together; by default it is the only one.

    Returns:
        The network with everything that belongs to it, and the course of its training.

    Raises:
        ValueError: The configuration is impossible.
        TrainingDiverged: The training diverged.
    """
    processes = processes or Processes()
    timings: dict[str, float] = {}
    with _timed(timings, "simulation"):
        samples = _samples(config, threads, part(progress, 0.0, 0.2))
    with _timed(timings, "training"):
        network = config.new_network()
        mean_norm = _set_inputs(network, config, samples)
        network.share_batches(processes)
        batches = SimulatedBatches(
            network,
            samples,
            config.protocol,
            config.outputs,
            config.settings.batch_size,
            config.settings.seed,
            injected_sd=config.noise_injection_sd,
            processes=processes,
        )
        with one_thread():
            result = train_network(
                network,
                batches,
                config.weighted_settings(),
                part(progress, 0.2, 0.95),
                checkpoint,
                processes=processes,
            )
    file = network_file(network, config, config.training_noise_sd, mean_norm)
    if not processes.writes:
        return file, result
    progress(0.96, "calibrating the reliability map")
    with _timed(timings, "calibration"), removed_if_diverged(checkpoint):
        calibration, errors = calibrate(
            file, config.false_alarm_rate, seed=config.settings.seed + 1_000_000, threads=threads
        )
    summary = {
        "samples": len(samples),
        "epochs": len(result.loss),
        "best_epoch": result.best_epoch,
        "stopped": result.stopped,
        "loss": result.loss,
        "validation_loss": result.validation_loss,
        "mean_norm": mean_norm,
        "seed": config.settings.seed,
        "batch_size": config.settings.batch_size,
        "held_out": errors,
    }
    return replace(file, calibration=calibration, training=summary), replace(result, times_s=timings)


def network_file(
    network: ReconstructionNetwork, config: TrainingConfig, noise_sd: tuple[float, float], mean_norm: float
) -> NetworkFile:
    """Return a network with what belongs to it, not yet calibrated.

    Args:
        network: Trained network.
        config: Configuration that it was trained for.
        noise_sd: Lowest and highest standard deviation of the noise that it was trained with.
        mean_norm: Mean norm of the signals before an L2 normalisation, relative to the equilibrium signal.
    """
    return NetworkFile(
        network=network,
        protocol=config.protocol,
        tissue=config.tissue,
        targets=config.targets,
        outputs=config.outputs,
        engine=config.engine,
        noise_sd=noise_sd,
        training={"mean_norm": mean_norm},
    )


@contextlib.contextmanager
def removed_if_diverged(checkpoint: str | Path | None) -> Iterator[None]:
    """Remove the checkpoint of a finished training whose result is useless: continuing from it would give the same."""
    try:
        yield
    except TrainingDiverged:
        if checkpoint is not None:
            Path(checkpoint).unlink(missing_ok=True)
        raise


def _samples(config: TrainingConfig, threads: int | None, progress: Progress) -> Samples:
    if config.dataset is None:
        return config.simulate(threads=threads, progress=progress)
    stored = read_dataset(config.dataset)
    stored.require_match(config)
    return stored


def _set_inputs(network: ReconstructionNetwork, config: TrainingConfig, samples: Samples) -> float:
    """Scale the inputs of a network by some samples; returns the mean norm of their noise-free signals."""
    normalization = config.protocol.signal_normalisation
    clean = samples.rows(torch.arange(min(_EXAMPLES, len(samples))), config.outputs).clean
    mean_norm = float(torch.linalg.vector_norm(clean, dim=1).mean())
    mean_noise = sum(config.training_noise_sd) / 2
    # An L2 normalisation divides signal and noise by the norm.
    network.set_inputs(
        normalize_input(clean, normalization), mean_noise / (mean_norm if normalization == "l2" else 1.0)
    )
    return mean_norm


@contextlib.contextmanager
def _timed(timings: dict[str, float], name: str) -> Iterator[None]:
    """Record how long a block takes, in s."""
    begin = time.perf_counter()
    yield
    timings[name] = round(time.perf_counter() - begin, 3)
