"""Data sets on disk: shards of numpy arrays that are memory-mapped, and a manifest."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from NeuroCESTLib.core.checked_json import check_keys, read_json
from NeuroCESTLib.core.stored_values import Numbers, check_stored

from ..formats.protocol_difference import protocol_difference
from ..formats.protocol_json import protocol_from_dict, protocol_to_dict
from ..physics.protocol import Protocol
from ..tissue.distributions import TissueDistribution
from .config import TrainingConfig
from .dataset import DataSet, noisy_signals
from .objective import SampleRows

MANIFEST = "dataset.json"
SHARD_ROWS = 32 * 1024
"""Voxels of a shard."""
ARRAYS = ("signal", "clean", "parameters", "noise_sd")
"""Arrays of a shard: normalised signals with noise, noise-free signals before any L2 normalisation, the parameters of
the tissues, and the standard deviations of the noise."""
_KIND = "neurocest data set"
_MANIFEST_FORM = {
    "samples": int,
    "shards": int,
    "rows_a_shard": int,
    "columns": [str],
    "measurements": int,
    "seed": int,
    "protocol": {},
    "engine": (str, None),
    "tissue": {},
}
"""Form of a manifest, see ``stored_values``."""


@dataclass(frozen=True)
class Manifest:
    """What a data set holds and how it was simulated; the fields are keys of ``dataset.json``.

    Attributes:
        samples: Number of voxels.
        shards: Number of shards.
        rows_a_shard: Voxels of every shard but the last.
        columns: Paths of the tissue's entries, in the order of the columns of ``parameters``.
        measurements: Number of measurements of a signal.
        seed: Seed of the tissues and of their noise.
        protocol: Acquisition protocol, as in a ``protocol.json``.
        engine: Engine of the simulation; None where the data set does not say.
        tissue: Distribution of the tissues, as in the configuration.
    """

    samples: int
    shards: int
    rows_a_shard: int
    columns: list[str]
    measurements: int
    seed: int
    protocol: dict[str, Any]
    engine: str | None
    tissue: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``dataset.json``."""
        return {"kind": _KIND, **asdict(self)}

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read a ``dataset.json``.

        Raises:
            ValueError: It is not readable, or not the manifest of a data set; the message names it.
        """
        values = check_keys(read_json(path), ("kind", *(field.name for field in fields(cls))), str(path))
        if values.get("kind") != _KIND:
            raise ValueError(f"{path}: not the manifest of a data set; make one with 'cestquant dataset'")
        values.setdefault("engine", None)
        check_stored(values, _MANIFEST_FORM, f"{path}: a damaged data set")
        for name in ("samples", "shards", "rows_a_shard", "measurements"):
            if values[name] < 1:
                raise ValueError(f"{path}: a damaged data set: '{name}' must be at least 1")
        if values["shards"] != math.ceil(values["samples"] / values["rows_a_shard"]):
            raise ValueError(f"{path}: a damaged data set: 'shards' does not fit 'samples' and 'rows_a_shard'")
        return cls(**{field.name: values[field.name] for field in fields(cls)})


def write_dataset(
    folder: Path, data: DataSet, tissue: dict[str, Any], protocol: Protocol, seed: int, engine: str = "r1rho"
) -> Manifest:
    """Write shards ``signal-00000.npy``, ``clean-…``, ``parameters-…`` (float64), ``noise_sd-…`` and the manifest.

    Args:
        folder: Existing empty folder; the caller makes it appear whole or not at all.
        data: Data set to write.
        tissue: Distribution of its tissues, as in the configuration.
        protocol: Acquisition protocol.
        seed: Seed of the tissues and of the noise in ``signal-…``.
        engine: Engine of the simulation.

    Raises:
        OSError: A file cannot be written.
    """
    columns = list(data.values)
    parameters = torch.stack([data.values[path] for path in columns], 1)
    arrays = dict(
        zip(ARRAYS, (noisy_signals(data, protocol, seed), data.clean, parameters, data.noise_sd), strict=True)
    )
    shards = math.ceil(len(data) / SHARD_ROWS)
    for shard in range(shards):
        rows = slice(shard * SHARD_ROWS, (shard + 1) * SHARD_ROWS)
        for name, values in arrays.items():
            buffer = io.BytesIO()  # numpy's own writer does not say why it fails
            np.save(buffer, values[rows].numpy())
            (folder / _file_name(name, shard)).write_bytes(buffer.getbuffer())
    manifest = Manifest(
        samples=len(data),
        shards=shards,
        rows_a_shard=SHARD_ROWS,
        columns=columns,
        measurements=protocol.measurement_count,
        seed=seed,
        protocol=protocol_to_dict(protocol),
        engine=engine,
        tissue=tissue,
    )
    (folder / MANIFEST).write_text(json.dumps(manifest.to_dict(), indent=1), encoding="utf-8")
    return manifest


def is_shard(name: str) -> bool:
    """Whether a file is a shard of a data set by its name."""
    return re.fullmatch(rf"({'|'.join(ARRAYS)})-\d{{5}}\.npy", name) is not None


@dataclass(frozen=True)
class StoredDataSet:
    """A data set on disk; only the rows that are used are read from it.

    Attributes:
        folder: Where it lies.
        manifest: What it holds.
        protocol: Acquisition protocol of its signals.
        signal: Normalised signals with noise, one array (voxel, measurement) float32 per shard.
        clean: Noise-free signals before any L2 normalisation, one array (voxel, measurement) float32 per shard.
        parameters: Entries of the tissues, one array (voxel, column) float64 per shard.
        noise_sd: Standard deviations of the noise, one array (voxel,) float32 per shard.
    """

    folder: Path
    manifest: Manifest
    protocol: Protocol
    signal: list[np.ndarray]
    clean: list[np.ndarray]
    parameters: list[np.ndarray]
    noise_sd: list[np.ndarray]

    def __len__(self) -> int:
        return self.manifest.samples

    def shard(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the noisy signals (voxel, measurement) of one shard, and its tissues' entries (voxel,) by path."""
        columns = torch.from_numpy(np.array(self.parameters[index])).unbind(1)
        return torch.from_numpy(np.array(self.signal[index])), dict(zip(self.manifest.columns, columns, strict=True))

    def rows(self, index: Tensor, paths: Sequence[str]) -> SampleRows:
        """Return the voxels of an index, with the entries of the given paths, from the shards that hold them."""
        columns = [self.manifest.columns.index(path) for path in paths]
        shards, rows = np.divmod(index.numpy(), self.manifest.rows_a_shard)
        clean = np.empty((len(rows), self.protocol.measurement_count), "f4")
        noise_sd = np.empty(len(rows), "f4")
        parameters = np.empty((len(rows), len(columns)), "f8")
        for shard in np.unique(shards):
            here = shards == shard
            clean[here] = self.clean[shard][rows[here]]
            noise_sd[here] = self.noise_sd[shard][rows[here]]
            parameters[here] = self.parameters[shard][rows[here]][:, columns]
        return SampleRows(torch.from_numpy(clean), torch.from_numpy(noise_sd), torch.from_numpy(parameters))

    def require_match(self, config: TrainingConfig) -> None:
        """Check that the data set was simulated for a configuration.

        Raises:
            ValueError: Protocol, tissue, engine or noise differ; the message names the first difference.
        """
        if difference := self._difference(config):
            raise ValueError(
                f"{self.folder}: the data set {difference}; simulate it again with 'cestquant dataset', or train with "
                "the configuration that made it"
            )

    def _difference(self, config: TrainingConfig) -> str:
        if difference := protocol_difference(self.protocol, config.protocol):
            return f"has another protocol: {difference}"
        stored, wanted = TissueDistribution.from_dict(self.manifest.tissue, str(self.folder)), config.distribution
        for path in {**wanted.entries, **stored.entries}:
            if stored.entries.get(path) != wanted.entries.get(path):
                return f"has another tissue: {path} differs"
        before, now = stored.structure.fixed_properties, wanted.structure.fixed_properties
        for path in {**now, **before}:
            if before.get(path) != now.get(path):
                said = [properties.get(path, "not given") for properties in (before, now)]
                return f"has another tissue: {path} is {said[0]}, in the configuration {said[1]}"
        if self.manifest.engine not in (None, config.engine):
            return f"was simulated by {self.manifest.engine}, but the configuration says {config.engine}"
        low, high = min(float(a.min()) for a in self.noise_sd), max(float(a.max()) for a in self.noise_sd)
        if low < config.noise_sd[0] * (1 - 1e-6) or high > config.noise_sd[1] * (1 + 1e-6):
            return f"has noise of {low:.3g} to {high:.3g}, outside the noise_sd of the configuration"
        return ""


def read_dataset(folder: str | Path) -> StoredDataSet:
    """Open a data set on disk.

    Raises:
        ValueError: It is missing, incomplete or damaged; the message names the folder.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).is_file():
        raise ValueError(f"{folder}: no complete data set ({MANIFEST} is missing)")
    try:
        manifest = Manifest.read(folder / MANIFEST)
        protocol = protocol_from_dict(manifest.protocol, str(folder / MANIFEST), measured=False)
        TissueDistribution.from_dict(manifest.tissue, str(folder / MANIFEST))
    except KeyError as error:
        raise ValueError(f"{folder / MANIFEST}: a damaged data set: {error} is missing") from None
    except (TypeError, AttributeError):
        raise ValueError(f"{folder / MANIFEST}: a damaged data set: a value is of another kind") from None
    arrays = {name: [_shard(folder / _file_name(name, shard)) for shard in range(manifest.shards)] for name in ARRAYS}
    if not _is_complete(manifest, protocol, arrays):
        raise ValueError(f"{folder}: a damaged data set (its arrays do not have the sizes that its manifest states)")
    return StoredDataSet(folder, manifest, protocol, **arrays)


def _shard(path: Path) -> np.ndarray:
    """Map one array of a data set into memory."""
    if not path.is_file():
        raise ValueError(f"{path.parent}: no complete data set ({path.name} is missing)")
    try:
        array = np.load(path, mmap_mode="r")
    except Exception:  # numpy parses the header as Python's literals, and lets the errors of its parser out
        raise ValueError(f"{path}: a damaged data set: it is no array of numpy, or a truncated one") from None
    check_stored(array, Numbers("f"), f"{path}: a damaged data set")
    return array


def _is_complete(manifest: Manifest, protocol: Protocol, arrays: dict[str, list[np.ndarray]]) -> bool:
    """Whether all arrays have the sizes that the manifest states."""
    whole, rest = divmod(manifest.samples, manifest.rows_a_shard)
    lengths = [manifest.rows_a_shard] * whole + [rest] * (rest > 0)
    widths = {"signal": (protocol.measurement_count,), "clean": (protocol.measurement_count,), "noise_sd": ()}
    widths["parameters"] = (len(manifest.columns),)
    return all(
        [len(array) for array in arrays[name]] == lengths and all(array.shape[1:] == width for array in arrays[name])
        for name, width in widths.items()
    )


def _file_name(name: str, shard: int) -> str:
    return f"{name}-{shard:05d}.npy"
