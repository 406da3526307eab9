"""Simulated data sets: spectra of tissues drawn from their distributions, in memory and as shards on disk.

Everything is computed in blocks of a fixed size, each with random numbers of its own: results are bit-identical
whatever the number of threads and shards.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .distributions import TissueDistribution
from .network import ReconstructionNetwork, normalise_input
from .protocol import Protocol, protocol_to_dict
from .simulation import simulate
from .threads import in_threads
from .tissue_model import FIELD_KEYS

BLOCK = {"r1rho": 1024, "bloch-mcconnell": 256}
"""Voxels computed at once: their intermediate values stay in the cache."""
BLOCKS_A_SHARD = 32
MANIFEST = "dataset.json"
Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class DataSet:
    """clean: (voxel, measurement) float32 signals without noise, relative to equilibrium (before an L2 normalisation).
    noise_sd: (voxel,). values: every entry of the tissue by path, (voxel,) float64."""

    clean: Tensor
    noise_sd: Tensor
    values: Mapping[str, Tensor]


def unnormalised(protocol: Protocol) -> Protocol:
    """The protocol whose signal is not divided by its own norm, which noise has to be added before."""
    return replace(protocol, signal_normalisation="none") if protocol.signal_normalisation == "l2" else protocol


def signals_of(
    distribution: TissueDistribution, values: Mapping[str, Tensor], protocol: Protocol, *, engine: str = "r1rho",
    threads: int | None = None, progress: Progress | None = None,
) -> Tensor:  # fmt: skip
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
            path: value[part] if path not in distribution.entries or distribution.entries[path].varies else
            distribution.entries[path].first for path, value in cast.items()
        }  # fmt: skip
        fields = {key: entries[key] for key in FIELD_KEYS if key in entries}
        signal = simulate(distribution.tissue(entries), protocol, engine=engine, dtype=dtype, **fields)
        result[part] = signal.expand(part.stop - part.start, -1)
        return part.stop

    in_threads(compute, range(0, count, block), threads, lambda stop: progress and progress(
        min(1.0, stop / count), f"simulated {stop} of {count} spectra"))  # fmt: skip
    return result


def simulate_dataset(
    distribution: TissueDistribution, protocol: Protocol, samples: int, *,
    noise_sd: tuple[float, float] = (0.002, 0.006), seed: int = 0, engine: str = "r1rho", threads: int | None = None,
    progress: Progress | None = None,
) -> DataSet:  # fmt: skip
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


def write_dataset(folder: Path, data: DataSet, config: dict, protocol: Protocol, seed: int) -> dict:
    """Write shards ``signal-00000.npy``, ``parameters-00000.npy`` (float64), ``noise_sd-00000.npy`` and a manifest.

    Returns the manifest. ``folder`` exists and is empty; whoever calls makes it appear whole or not at all.
    """
    noisy = noisy_signals(data, protocol, seed)
    columns = list(data.values)
    parameters = torch.stack([data.values[path] for path in columns], 1)
    rows = BLOCKS_A_SHARD * BLOCK["r1rho"]
    shards = math.ceil(len(noisy) / rows)
    for shard in range(shards):
        part = slice(shard * rows, (shard + 1) * rows)
        for name, values in (("signal", noisy), ("parameters", parameters), ("noise_sd", data.noise_sd)):
            np.save(folder / f"{name}-{shard:05d}.npy", values[part].numpy())
    manifest = {
        "kind": "neurocest data set", "samples": len(noisy), "shards": shards, "rows_a_shard": rows, "columns": columns,
        "measurements": protocol.measurement_count, "seed": seed, "protocol": protocol_to_dict(protocol),
        "tissue": config,
    }  # fmt: skip
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return manifest


@dataclass(frozen=True)
class StoredDataSet:
    """A data set on disk; shards are memory-mapped, so that only what is used is read."""

    manifest: dict
    signal: list[np.ndarray]
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


def read_dataset(folder: str | Path) -> StoredDataSet:
    """Open a data set; ValueError with one sentence where it is missing, incomplete or damaged."""
    folder = Path(folder)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest.get("kind") != "neurocest data set":
            raise ValueError("foreign manifest")
        arrays = {
            name: [np.load(folder / f"{name}-{i:05d}.npy", mmap_mode="r") for i in range(manifest["shards"])]
            for name in ("signal", "parameters", "noise_sd")
        }
        complete = all(sum(len(a) for a in shards) == manifest["samples"] for shards in arrays.values())
    except FileNotFoundError as error:
        raise ValueError(f"{folder}: no complete data set ({Path(error.filename).name} is missing)") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder}: a damaged data set ({error})") from None
    if not complete:
        raise ValueError(f"{folder}: a damaged data set (it has other rows than its manifest says)")
    return StoredDataSet(manifest, **arrays)


class SimulatedBatches:
    """Batches from a data set in memory, shuffled anew and with new noise every epoch.

    data: the last ``held_out`` voxels never enter the training. outputs: paths in the network's order.
    """

    def __init__(
        self, network: ReconstructionNetwork, data: DataSet, protocol: Protocol, outputs: tuple[str, ...],
        batch_size: int, seed: int, held_out: int | None = None,
    ) -> None:  # fmt: skip
        count = len(data.clean)
        held_out = min(5000, count // 10) if held_out is None else held_out
        if count - held_out < 1:
            raise ValueError(f"{count} samples are too few to train with")
        self._clean, self._sd = data.clean, data.noise_sd[:, None]
        self._targets = network.to_normalised(torch.stack([data.values[p] for p in outputs], 1)).float()
        self._normalisation, self._batch, self._train = protocol.signal_normalisation, batch_size, count - held_out
        self._held_out = None
        if held_out:
            self._held_out = self._batch_of(
                torch.arange(self._train, count), torch.Generator().manual_seed(seed + 77_777))  # fmt: skip

    def epoch(self, generator: torch.Generator) -> Iterable[tuple[Tensor, Tensor, Tensor]]:
        for index in torch.randperm(self._train, generator=generator).split(self._batch):
            yield self._batch_of(index, generator)

    def validation(self) -> tuple[Tensor, Tensor, Tensor] | None:
        return self._held_out

    def _batch_of(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        clean = self._clean[index]
        noisy = clean + torch.randn(clean.shape, generator=generator) * self._sd[index]
        signal = normalise_input(noisy, self._normalisation)
        difference = signal - normalise_input(clean, self._normalisation)
        log_rmse = difference.square().mean(1).sqrt().clamp_min(1e-8).log()
        return signal, self._targets[index], log_rmse
