"""Simulated data sets in memory: spectra of tissues drawn from their distributions, and training batches of them.

Everything is computed in blocks of a fixed size, each with its own random numbers, so that results are bit-identical
for any number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from NeuroCESTLib.core.processes import Processes
from NeuroCESTLib.core.progress import Progress, silent
from NeuroCESTLib.core.threads import in_threads

from ..physics.engines import engine_named
from ..physics.protocol import Protocol
from ..physics.simulation import simulate
from ..tissue.distributions import TissueDistribution
from ..tissue.model import FIELD_KEYS
from .architecture import ReconstructionNetwork, normalize_input
from .objective import Batch, SampleRows, Samples

NOISE_SD = (0.002, 0.006)
"""Default limits of the noise's standard deviation, relative to the equilibrium signal."""
NOISE_BLOCK = 1024
"""Voxels whose noise is drawn with one seed."""
_MOST_HELD_OUT = 5000


@dataclass(frozen=True)
class Effort:
    """How much is simulated with an engine, and how precisely.

    Attributes:
        dtype: Precision of the simulation.
        block: Voxels that are simulated at once, so that intermediate values stay in the cache.
        calibration_voxels: Voxels from which a reliability map is calibrated.
        spread_voxels: Largest number of voxels on which a network trained on a scan learns its uncertainties.
    """

    dtype: torch.dtype
    block: int
    calibration_voxels: int
    spread_voxels: int


_EFFORTS = {"r1rho": Effort(torch.float32, 1024, 10_000, 20_000)}
_OTHER_EFFORT = Effort(torch.float64, 256, 2_000, 5_000)
"""Of engines that, as the full Bloch-McConnell equations, are slower and need double precision."""


def effort_of(engine: str) -> Effort:
    """Return the effort of an engine.

    Raises:
        ValueError: The engine is unknown.
    """
    engine_named(engine)
    return _EFFORTS.get(engine, _OTHER_EFFORT)


@dataclass(frozen=True)
class DataSet:
    """A simulated data set in memory.

    Attributes:
        clean: Noise-free signals, (voxel, measurement) float32, relative to equilibrium and before any L2
            normalisation.
        noise_sd: Standard deviation of the white noise to add to each signal, (voxel,).
        values: Every entry of the tissue by path, (voxel,) float64.
    """

    clean: Tensor
    noise_sd: Tensor
    values: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.clean)

    def rows(self, index: Tensor, paths: Sequence[str]) -> SampleRows:
        """Return the voxels of an index, with the entries of the given paths."""
        parameters = torch.stack([self.values[path][index] for path in paths], 1)
        return SampleRows(self.clean[index], self.noise_sd[index], parameters)


def without_l2(protocol: Protocol) -> Protocol:
    """Return the protocol without L2 normalisation, which comes after the noise."""
    return replace(protocol, signal_normalisation="none") if protocol.signal_normalisation == "l2" else protocol


def signals_of(
    distribution: TissueDistribution,
    values: Mapping[str, Tensor],
    protocol: Protocol,
    *,
    engine: str = "r1rho",
    threads: int | None = None,
    progress: Progress = silent,
) -> Tensor:
    """Simulate noise-free signals.

    Args:
        distribution: Tissue; the values of entries that do not vary are taken from it.
        values: Entries of the tissue and of the fields by path, (voxel,).
        protocol: Acquisition protocol. A reference normalisation is applied, an L2 normalisation is not.
        engine: ``r1rho`` or ``bloch-mcconnell``.
        threads: Threads that share the blocks; by default as many as torch uses.
        progress: Called after every block; may raise to cancel.

    Returns:
        Signals of shape (voxel, measurement), float32.

    Raises:
        ValueError: The engine is unknown.
    """
    protocol = without_l2(protocol)
    effort = effort_of(engine)
    cast = {path: value.to(effort.dtype) for path, value in values.items()}
    count = len(next(iter(cast.values())))
    result = torch.empty(count, protocol.measurement_count)

    @torch.no_grad()
    def compute(start: int) -> int:
        part = slice(start, min(start + effort.block, count))
        entries = {
            path: value[part]
            if path not in distribution.entries or distribution.entries[path].varies
            else distribution.entries[path].first
            for path, value in cast.items()
        }
        fields = {key: entries[key] for key in FIELD_KEYS if key in entries}
        signal = simulate(distribution.tissue(entries), protocol, engine=engine, dtype=effort.dtype, **fields)
        result[part] = signal.expand(part.stop - part.start, -1)
        return part.stop

    def report(stop: int) -> None:
        progress(min(1.0, stop / count), f"simulated {stop} of {count} spectra")

    in_threads(compute, range(0, count, effort.block), threads, report)
    return result


def simulate_dataset(
    distribution: TissueDistribution,
    protocol: Protocol,
    samples: int,
    *,
    noise_sd: tuple[float, float] = NOISE_SD,
    seed: int = 0,
    engine: str = "r1rho",
    threads: int | None = None,
    progress: Progress = silent,
) -> DataSet:
    """Draw tissues and simulate their signals.

    Args:
        distribution: Distribution that the tissues are drawn from.
        protocol: Acquisition protocol.
        samples: Number of tissues.
        noise_sd: Limits between which the noise's standard deviation of every voxel is drawn uniformly, relative to the
            equilibrium signal.
        seed: Seed of the tissues and noise levels.
        engine: ``r1rho`` or ``bloch-mcconnell``.
        threads: Threads that share the simulation; by default as many as torch uses.
        progress: Called after every block; may raise to cancel.

    Raises:
        ValueError: A signal is not finite, because a tissue is impossible under the protocol; the message names its
            values.
    """
    generator = torch.Generator().manual_seed(seed)
    values = distribution.sample(samples, generator)
    sd = noise_sd[0] + (noise_sd[1] - noise_sd[0]) * torch.rand(samples, generator=generator)
    clean = signals_of(distribution, values, protocol, engine=engine, threads=threads, progress=progress)
    bad = ~torch.isfinite(clean).all(1)
    if bool(bad.any()):
        index = int(bad.nonzero()[0])
        described = ", ".join(f"{path} {float(values[path][index]):g}" for path in distribution.varied)
        raise ValueError(f"the simulated signal is not finite for {described or 'this tissue'}; narrow the ranges")
    return DataSet(clean, sd, values)


def noisy_signals(data: DataSet, protocol: Protocol, seed: int) -> Tensor:
    """Return the signals of a data set with noise, normalised as the protocol says.

    Args:
        data: Noise-free signals and the standard deviation of their noise.
        protocol: Acquisition protocol.
        seed: Seed of the noise.

    Returns:
        Signals of shape (voxel, measurement), float32.
    """
    result = torch.empty_like(data.clean)
    for number, start in enumerate(range(0, len(result), NOISE_BLOCK)):
        part = slice(start, start + NOISE_BLOCK)
        clean = data.clean[part]
        noise = _noise_block(clean.shape, seed, number) * data.noise_sd[part, None]
        result[part] = normalize_input(clean + noise, protocol.signal_normalisation)
    return result


def _noise_block(shape: torch.Size, seed: int, block: int) -> Tensor:
    """Standard normal noise of one block, with random numbers of its own."""
    generator = torch.Generator().manual_seed((seed + 1) * 1_000_003 + block)
    return torch.randn(shape, generator=generator)


class SimulatedBatches:
    """Batches of simulated samples, with a new order and new noise in every epoch.

    Several processes share the batches that one process would have.

    Args:
        network: Network that the targets are normalised for.
        samples: Data set; its last ``held_out`` voxels never enter the training.
        protocol: Acquisition protocol of the samples.
        outputs: Paths of the parameters, in the order of the network's outputs.
        batch_size: Samples of a batch over all processes.
        seed: Seed of the noise of the held-out voxels.
        held_out: Number of held-out voxels; by default a tenth, but at most 5000.
        injected_sd: Standard deviation of white noise that is added to that of the samples, relative to the equilibrium
            signal.
        processes: This process among those that share the batches; by default it is the only one.

    Raises:
        ValueError: There are too few samples, or the batch cannot be shared equally.
    """

    def __init__(
        self,
        network: ReconstructionNetwork,
        samples: Samples,
        protocol: Protocol,
        outputs: tuple[str, ...],
        batch_size: int,
        seed: int,
        held_out: int | None = None,
        *,
        injected_sd: float = 0.0,
        processes: Processes | None = None,
    ) -> None:
        self._processes = processes or Processes()
        require_equal_shares(batch_size, self._processes)
        count = len(samples)
        held_out = min(_MOST_HELD_OUT, count // 10) if held_out is None else held_out
        if count - held_out < 1:
            raise ValueError(f"{count} samples are too few to train with")
        self._samples, self._outputs, self._network, self._injected_sd = samples, outputs, network, injected_sd
        self._measurements = protocol.measurement_count
        self._normalization, self._batch_size, self._train = protocol.signal_normalisation, batch_size, count - held_out
        self._held_out = None
        if held_out:
            noise = self._noise(held_out, torch.Generator().manual_seed(seed + 77_777))
            self._held_out = self._batch_of(torch.arange(self._train, count), noise)

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        """Return the batches of one epoch, of which this process has its share of every batch."""
        for index in torch.randperm(self._train, generator=generator).split(self._batch_size):
            noise = self._noise(len(index), generator)
            share = len(index) // self._processes.count
            mine = slice(self._processes.rank * share, (self._processes.rank + 1) * share)
            if share:  # the last batch of an epoch may be smaller than the number of processes
                yield self._batch_of(index[mine], noise[mine])

    def validation(self) -> Batch | None:
        """Return the held-out voxels, always with the same noise."""
        return self._held_out

    def _noise(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, self._measurements, generator=generator)

    def _batch_of(self, index: Tensor, noise: Tensor) -> Batch:
        clean, sd, parameters = self._samples.rows(index, self._outputs)
        if self._injected_sd:
            sd = torch.sqrt(sd.square() + self._injected_sd**2)
        noisy = clean + noise * sd[:, None]
        signal = normalize_input(noisy, self._normalization)
        difference = signal - normalize_input(clean, self._normalization)
        log_rmse = difference.square().mean(1).sqrt().clamp_min(1e-8).log()
        return Batch(signal, self._network.to_normalized(parameters).float(), log_rmse)


def require_equal_shares(batch_size: int, processes: Processes) -> None:
    """Check that several processes can share a batch equally.

    Raises:
        ValueError: The batch size is not a multiple of the number of processes.
    """
    if batch_size % processes.count:
        raise ValueError(f"the batch of {batch_size} cannot be shared equally by {processes.count} processes")
