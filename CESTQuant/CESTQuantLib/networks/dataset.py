"""Simulated data sets: spectra of tissues drawn from their distributions, in memory and as shards on disk.

Everything is computed in blocks of a fixed size, each with random numbers of its own: results are bit-identical
whatever the number of threads and shards.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from NeuroCESTLib.core.processes import Processes
from NeuroCESTLib.core.progress import Progress
from NeuroCESTLib.core.threads import in_threads

from ..formats.protocol_json import protocol_from_dict, protocol_to_dict
from ..physics.protocol import Protocol
from ..physics.simulation import simulate
from ..tissue.distributions import TissueDistribution
from ..tissue.model import FIELD_KEYS
from .architecture import ReconstructionNetwork, normalise_input
from .files import protocol_difference

if TYPE_CHECKING:
    from .config import TrainingConfig

BLOCK = {"r1rho": 1024, "bloch-mcconnell": 256}
"""Voxels computed at once: their intermediate values stay in the cache."""
BLOCKS_A_SHARD = 32
MANIFEST = "dataset.json"
ARRAYS = ("signal", "clean", "parameters", "noise_sd")
"""Of every shard: normalised noisy signals, signals without noise before any normalisation, and what they are of."""


@dataclass(frozen=True)
class DataSet:
    """clean: (voxel, measurement) float32 signals without noise, relative to equilibrium (before an L2 normalisation).
    noise_sd: (voxel,). values: every entry of the tissue by path, (voxel,) float64."""

    clean: Tensor
    noise_sd: Tensor
    values: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.clean)

    def rows(self, index: Tensor, paths: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """(clean, noise_sd, values (voxel, path)) of the given voxels."""
        return self.clean[index], self.noise_sd[index], torch.stack([self.values[p][index] for p in paths], 1)


def unnormalised(protocol: Protocol) -> Protocol:
    """The protocol whose signal is not divided by its own norm, which noise has to be added before."""
    return replace(protocol, signal_normalisation="none") if protocol.signal_normalisation == "l2" else protocol


def signals_of(
    distribution: TissueDistribution,
    values: Mapping[str, Tensor],
    protocol: Protocol,
    *,
    engine: str = "r1rho",
    threads: int | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Clean signals (voxel, measurement) float32 of values (voxel,) by path, in blocks shared out among threads."""
    protocol = unnormalised(protocol)
    dtype = torch.float32 if engine == "r1rho" else torch.float64
    cast = {path: value.to(dtype) for path, value in values.items()}
    count, block = len(next(iter(cast.values()))), BLOCK[engine]
    result = torch.empty(count, protocol.measurement_count)

    @torch.no_grad()
    def compute(start: int) -> int:
        part = slice(start, min(start + block, count))
        entries = {
            path: value[part]
            if path not in distribution.entries or distribution.entries[path].varies
            else distribution.entries[path].first
            for path, value in cast.items()
        }
        fields = {key: entries[key] for key in FIELD_KEYS if key in entries}
        signal = simulate(distribution.tissue(entries), protocol, engine=engine, dtype=dtype, **fields)
        result[part] = signal.expand(part.stop - part.start, -1)
        return part.stop

    in_threads(
        compute,
        range(0, count, block),
        threads,
        lambda stop: progress and progress(min(1.0, stop / count), f"simulated {stop} of {count} spectra"),
    )
    return result


def simulate_dataset(
    distribution: TissueDistribution,
    protocol: Protocol,
    samples: int,
    *,
    noise_sd: tuple[float, float] = (0.002, 0.006),
    seed: int = 0,
    engine: str = "r1rho",
    threads: int | None = None,
    progress: Progress | None = None,
) -> DataSet:
    """Draw tissues and simulate their signals; ``noise_sd`` is drawn evenly between its limits.

    Raises ValueError where a signal is not finite (a tissue that is impossible under the protocol).
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


def noise_block(rows: int, measurements: int, seed: int, block: int) -> Tensor:
    """Standard normal noise (rows, measurement) of one block."""
    generator = torch.Generator().manual_seed((seed + 1) * 1_000_003 + block)
    return torch.randn(rows, measurements, generator=generator)


def noisy_signals(data: DataSet, protocol: Protocol, seed: int) -> Tensor:
    """Normalised signals (voxel, measurement) float32 with the data set's noise."""
    result = torch.empty_like(data.clean)
    size = BLOCK["r1rho"]
    for number, start in enumerate(range(0, len(result), size)):
        part = slice(start, start + size)
        clean = data.clean[part]
        noise = noise_block(*clean.shape, seed, number) * data.noise_sd[part, None]
        result[part] = normalise_input(clean + noise, protocol.signal_normalisation)
    return result


def write_dataset(
    folder: Path, data: DataSet, tissue: dict, protocol: Protocol, seed: int, engine: str = "r1rho"
) -> dict:
    """Write shards ``signal-00000.npy``, ``clean-…``, ``parameters-…`` (float64), ``noise_sd-…`` and a manifest.

    Returns the manifest. ``folder`` exists and is empty; whoever calls makes it appear whole or not at all.
    """
    noisy = noisy_signals(data, protocol, seed)
    columns = list(data.values)
    parameters = torch.stack([data.values[path] for path in columns], 1)
    rows = BLOCKS_A_SHARD * BLOCK["r1rho"]
    shards = math.ceil(len(noisy) / rows)
    for shard in range(shards):
        part = slice(shard * rows, (shard + 1) * rows)
        for name, values in zip(ARRAYS, (noisy, data.clean, parameters, data.noise_sd), strict=True):
            buffer = io.BytesIO()  # numpy's own writer does not say why it fails
            np.save(buffer, values[part].numpy())
            (folder / f"{name}-{shard:05d}.npy").write_bytes(buffer.getbuffer())
    manifest = {
        "kind": "neurocest data set",
        "samples": len(noisy),
        "shards": shards,
        "rows_a_shard": rows,
        "columns": columns,
        "measurements": protocol.measurement_count,
        "seed": seed,
        "protocol": protocol_to_dict(protocol),
        "engine": engine,
        "tissue": tissue,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return manifest


def remove_stale_shards(folder: Path, shards: int) -> None:
    """Remove shards that an earlier, larger data set left in the folder: those beyond the first ``shards``."""
    for name in ARRAYS:
        for path in folder.glob(f"{name}-[0-9][0-9][0-9][0-9][0-9].npy"):
            if int(path.stem.rpartition("-")[2]) >= shards:
                path.unlink()


@dataclass(frozen=True)
class StoredDataSet:
    """A data set on disk; shards are memory-mapped, so that only what is used is read."""

    folder: Path
    manifest: dict
    protocol: Protocol
    signal: list[np.ndarray]
    clean: list[np.ndarray]
    parameters: list[np.ndarray]
    noise_sd: list[np.ndarray]

    def __len__(self) -> int:
        return self.manifest["samples"]

    def shard(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Signals (voxel, measurement) and values by path of one shard."""
        columns = torch.from_numpy(np.array(self.parameters[index]))
        return torch.from_numpy(np.array(self.signal[index])), dict(
            zip(self.manifest["columns"], columns.unbind(1), strict=True)
        )

    def rows(self, index: Tensor, paths: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """(clean, noise_sd, values (voxel, path)) of the given voxels, read from the shards that hold them."""
        columns = [self.manifest["columns"].index(path) for path in paths]
        shards, rows = np.divmod(index.numpy(), self.manifest["rows_a_shard"])
        found = [
            np.empty((len(rows), *shape), kind)
            for shape, kind in (((self.protocol.measurement_count,), "f4"), ((), "f4"), ((len(columns),), "f8"))
        ]
        for shard in np.unique(shards):
            here = shards == shard
            found[0][here] = self.clean[shard][rows[here]]
            found[1][here] = self.noise_sd[shard][rows[here]]
            found[2][here] = self.parameters[shard][rows[here]][:, columns]
        return tuple(torch.from_numpy(array) for array in found)

    def check(self, config: TrainingConfig) -> None:
        """Refuse to train for a configuration that the data were not simulated for; the ValueError says why."""
        remedy = "simulate it anew with 'cestquant dataset', or train with the configuration that made it"
        if difference := protocol_difference(self.protocol, config.protocol):
            raise ValueError(f"{self.folder}: the data set is of another protocol: {difference}; {remedy}")
        stored = TissueDistribution.from_dict(self.manifest["tissue"], str(self.folder)).entries
        for path, entry in config.distribution.entries.items():
            if stored.get(path) != entry:
                raise ValueError(f"{self.folder}: the data set is of another tissue: {path} differs; {remedy}")
        if self.manifest.get("engine", config.engine) != config.engine:
            raise ValueError(
                f"{self.folder}: the data set was simulated by {self.manifest['engine']}, the "
                f"configuration says {config.engine}; {remedy}"
            )
        low, high = min(float(a.min()) for a in self.noise_sd), max(float(a.max()) for a in self.noise_sd)
        if low < config.noise_sd[0] * (1 - 1e-6) or high > config.noise_sd[1] * (1 + 1e-6):
            raise ValueError(
                f"{self.folder}: the data set has noise of {low:.3g} to {high:.3g}, beyond the "
                f"configuration's noise_sd; {remedy}"
            )


def read_dataset(folder: str | Path) -> StoredDataSet:
    """Open a data set; ValueError with one sentence where it is missing, incomplete or damaged."""
    folder = Path(folder)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest.get("kind") != "neurocest data set":
            raise ValueError("foreign manifest")
        arrays = {
            name: [np.load(folder / f"{name}-{i:05d}.npy", mmap_mode="r") for i in range(manifest["shards"])]
            for name in ARRAYS
        }
        protocol = protocol_from_dict(manifest["protocol"], str(folder / MANIFEST))
        whole, rows = divmod(manifest["samples"], manifest["rows_a_shard"])
        lengths = [manifest["rows_a_shard"]] * whole + [rows] * (rows > 0)
        complete = (
            all([len(a) for a in shards] == lengths for shards in arrays.values())
            and all(a.shape[1:] == (protocol.measurement_count,) for a in (*arrays["signal"], *arrays["clean"]))
            and all(a.shape[1:] == (len(manifest["columns"]),) for a in arrays["parameters"])
        )
    except FileNotFoundError as error:
        raise ValueError(f"{folder}: no complete data set ({Path(error.filename).name} is missing)") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise ValueError(f"{folder}: a damaged data set ({error})") from None
    if not complete:
        raise ValueError(f"{folder}: a damaged data set (it has other rows than its manifest says)")
    return StoredDataSet(folder, manifest, protocol, **arrays)


class SimulatedBatches:
    """Batches from a data set in memory or on disk, shuffled anew and with new noise every epoch.

    data: the last ``held_out`` voxels never enter the training. outputs: paths in the network's order. injected_sd:
    of white noise beside that of the data. With several processes each takes its share of the batches of one process.
    """

    def __init__(
        self,
        network: ReconstructionNetwork,
        data: DataSet | StoredDataSet,
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
        if batch_size % self._processes.count:
            raise ValueError(f"the batch of {batch_size} cannot be shared equally by {self._processes.count} processes")
        count = len(data)
        held_out = min(5000, count // 10) if held_out is None else held_out
        if count - held_out < 1:
            raise ValueError(f"{count} samples are too few to train with")
        self._data, self._outputs, self._network, self._injected_sd = data, outputs, network, injected_sd
        self._measurements = protocol.measurement_count
        self._normalisation, self._batch, self._train = protocol.signal_normalisation, batch_size, count - held_out
        self._held_out = None
        if held_out:
            noise = self._noise(held_out, torch.Generator().manual_seed(seed + 77_777))
            self._held_out = self._batch_of(torch.arange(self._train, count), noise)

    def epoch(self, generator: torch.Generator) -> Iterable[tuple[Tensor, Tensor, Tensor]]:
        for index in torch.randperm(self._train, generator=generator).split(self._batch):
            noise = self._noise(len(index), generator)
            share = len(index) // self._processes.count
            mine = slice(self._processes.rank * share, (self._processes.rank + 1) * share)
            if share:  # the last batch of an epoch may be too small for all
                yield self._batch_of(index[mine], noise[mine])

    def validation(self) -> tuple[Tensor, Tensor, Tensor] | None:
        return self._held_out

    def _noise(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, self._measurements, generator=generator)

    def _batch_of(self, index: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        clean, sd, values = self._data.rows(index, self._outputs)
        if self._injected_sd:
            sd = torch.sqrt(sd.square() + self._injected_sd**2)
        noisy = clean + noise * sd[:, None]
        signal = normalise_input(noisy, self._normalisation)
        difference = signal - normalise_input(clean, self._normalisation)
        log_rmse = difference.square().mean(1).sqrt().clamp_min(1e-8).log()
        return signal, self._network.to_normalised(values).float(), log_rmse
