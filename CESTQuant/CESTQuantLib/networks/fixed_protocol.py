"""A reconstruction network from a configuration: simulate, train, calibrate."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from NeuroCESTLib.core.processes import Processes
from NeuroCESTLib.core.progress import Progress

from .architecture import normalise_input
from .config import TrainingConfig
from .dataset import DataSet, SimulatedBatches, StoredDataSet, read_dataset, simulate_dataset
from .files import NetworkFile
from .reliability import calibrate
from .training import TrainingDiverged, TrainingResult, train_network

_EXAMPLES = 20_000
_NUISANCE_WEIGHT = 0.1


def train_from_config(
    config: TrainingConfig,
    progress: Progress | None = None,
    checkpoint: str | Path | None = None,
    threads: int | None = None,
    processes: Processes | None = None,
) -> tuple[NetworkFile, TrainingResult]:
    """Simulate ``config.samples`` spectra or open the data set on disk, train, and calibrate the reliability map.

    The same spectra give the same network, from memory or from disk, trained by one process or shared by several (of
    which the first one calibrates). checkpoint: see :func:`training.train_network`. Raises ValueError with one
    sentence where the configuration is impossible and TrainingDiverged where the loss is not finite.
    """
    report = progress or (lambda fraction, message: None)
    processes = processes or Processes()
    clock, timings = time.perf_counter(), {}

    def step(name: str) -> None:
        timings[f"{name}_s"] = round(time.perf_counter() - clock - sum(timings.values()), 3)

    data = _data(config, threads, lambda f, m: report(0.2 * f, m))
    step("simulation")
    network = config.new_network()
    normalisation = config.protocol.signal_normalisation
    examples = data.rows(torch.arange(min(_EXAMPLES, len(data))), config.outputs)[0]
    mean_norm = float(torch.linalg.vector_norm(examples, dim=1).mean())
    noise = sum(config.training_noise_sd) / 2 / (mean_norm if normalisation == "l2" else 1.0)
    network.set_inputs(normalise_input(examples, normalisation), noise)
    batches = SimulatedBatches(
        network,
        data,
        config.protocol,
        config.outputs,
        config.settings.batch_size,
        config.settings.seed,
        injected_sd=config.noise_injection_sd,
        processes=processes,
    )
    network.share_batches(processes.rank, processes.count)
    with one_thread_a_step():
        result = train_network(
            network,
            batches,
            config.weighted_settings(_NUISANCE_WEIGHT),
            lambda f, m: report(0.2 + 0.75 * f, m),
            checkpoint,
            reduce=processes.average if processes.count > 1 else None,
            writes_checkpoint=processes.writes,
        )
    step("training")
    file = NetworkFile(
        network,
        config.protocol,
        config.tissue,
        config.targets,
        config.outputs,
        config.engine,
        config.training_noise_sd,
        training={"mean_norm": mean_norm},
    )
    if not processes.writes:
        return file, result
    report(0.96, "calibrating the reliability map")
    with without_checkpoint_if_diverged(checkpoint):
        calibration, errors = calibrate(
            file, config.false_alarm_rate, seed=config.settings.seed + 1_000_000, threads=threads
        )
    step("calibration")
    summary = {
        "samples": len(data),
        "epochs": len(result.loss),
        "best_epoch": result.best_epoch,
        "stopped": result.stopped,
        "loss": result.loss,
        "validation_loss": result.validation_loss,
        "mean_norm": mean_norm,
        "seed": config.settings.seed,
        "batch_size": config.settings.batch_size,
        **timings,
        "held_out": errors,
    }
    return NetworkFile(**{**vars(file), "calibration": calibration, "training": summary}), result


def _data(config: TrainingConfig, threads: int | None, progress: Progress) -> DataSet | StoredDataSet:
    if config.dataset is None:
        return simulate_dataset(
            config.distribution,
            config.protocol,
            config.samples,
            noise_sd=config.noise_sd,
            seed=config.settings.seed,
            engine=config.engine,
            threads=threads,
            progress=progress,
        )
    data = read_dataset(config.dataset)
    data.check(config)
    return data


@contextlib.contextmanager
def without_checkpoint_if_diverged(checkpoint: str | Path | None) -> Iterator[None]:
    """Remove the checkpoint of a whole training whose result is of no use: to go on from it would give the same."""
    try:
        yield
    except TrainingDiverged:
        if checkpoint is not None:
            Path(checkpoint).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def one_thread_a_step() -> Iterator[None]:
    """Steps on batches of 256 are too small to be shared out: one thread is as fast, and leaves the other core free."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
