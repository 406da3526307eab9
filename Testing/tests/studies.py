"""Small simulated acquisitions as files, as a user has them, together with their true parameters."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from geometries import GRIDS

from CESTQuantLib.formats.protocol_json import protocol_to_dict
from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.physics.simulation import simulate
from CESTQuantLib.tissue.model import tissue_model_from_dict
from NeuroCESTLib.core.headers.nifti import non_finite_voxels
from NeuroCESTLib.scene.geometry import Geometry

M0 = 800.0
"""Reference signal of the simulated scanner at the first voxel; it varies by 20 % over the volume."""


AMIDE_SCENARIO = {
    "B0_T": 3.0,
    "gamma_rad_per_s_per_uT": 267.5153,
    "water": {"T1_s": 1.5, "T2_s": 0.08},
    "solute_pools_full_xyz": [{"name": "amide", "f": 0.001, "k_Hz": 50.0, "T1_s": 1.5, "T2_s": 0.1, "dw_ppm": 3.5}],
    "offsets_ppm": [-6.0, -3.5, 3.5, 6.0],
    "preparation": {"type": "CW block", "B1_uT": 2.0, "tsat_s": 10.0},
}
"""Scenario file of ``cestquant simulate``: amide at four offsets, saturated almost to the steady state."""


def spread(shape: tuple[int, ...], low: float, high: float, seed: int = 0) -> np.ndarray:
    """Return values between low and high that differ from voxel to voxel without any symmetry."""
    return np.random.default_rng(seed).permutation(np.linspace(low, high, int(np.prod(shape)))).reshape(shape)


def fit(start: float, low: float, high: float) -> dict:
    """Return a fitted value of a model file."""
    return {"fit": True, "start": start, "bounds": [low, high]}


def amine_model(**changes: object) -> dict:
    """Return a model file of water and an amine pool at 3 ppm.

    Its fraction and exchange rate are fitted, the water T1 is a map. ``changes`` are other values of the pool.
    """
    amine = {
        "name": "amine",
        "protons": 3,
        "dw_ppm": 3.0,
        "T1_s": 1.0,
        "T2_s": 0.04,
        "fraction": fit(0.002, 1e-5, 0.02),
        "k_Hz": fit(200.0, 5.0, 3000.0),
    }
    water = {"T1_s": {"map": "t1"}, "T2_s": 0.1}
    return {"water": water, "solutes": [amine | changes], "semisolid": None}


@dataclass(frozen=True)
class Acquisition:
    """A simulated acquisition.

    Attributes:
        geometry: Voxel grid of all arrays.
        protocol: Protocol of the measurements.
        signal: Signals (measurement, K, J, I) in scanner units.
        m0: Reference (K, J, I).
        maps: B0 shift in ppm, relative B1 and T1 in s as ``b0``, ``b1`` and ``t1``, (K, J, I).
        truth: True values (K, J, I) by path of the tissue entry.
    """

    geometry: Geometry
    protocol: Protocol
    signal: np.ndarray
    m0: np.ndarray
    maps: dict[str, np.ndarray]
    truth: dict[str, np.ndarray] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        """Write ``signal.nii.gz``, ``m0.nii.gz``, ``mask.nii.gz``, the maps and ``protocol.json`` into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        write_series(self.signal, self.geometry, folder / "signal.nii.gz")
        write_image(self.m0, self.geometry, folder / "m0.nii.gz")
        write_image(np.ones(self.geometry.shape, np.uint8), self.geometry, folder / "mask.nii.gz")
        for name, values in self.maps.items():
            write_image(values, self.geometry, folder / f"{name}.nii.gz")
        write_json(protocol_to_dict(self.protocol), folder / "protocol.json")
        return folder


def acquire(
    protocol: Protocol,
    model: dict | None = None,
    *,
    geometry: Geometry | None = None,
    b0_ppm: float = 0.0,
    b1_spread: float = 0.0,
    engine: str = "bloch-mcconnell",
    **values: tuple[float, float],
) -> Acquisition:
    """Simulate an acquisition.

    Args:
        protocol: Protocol to simulate.
        model: Model file that names the pools; by default that of :func:`amine_model`.
        geometry: Voxel grid; by default a small oblique one.
        b0_ppm: Largest B0 shift in ppm; the voxels lie between minus and plus this value.
        b1_spread: Largest deviation of the relative B1 from 1.
        engine: Engine of the simulation.
        values: Ranges of entries over the voxels, such as ``amine_fraction=(0.001, 0.003)``.
    """
    geometry = geometry or GRIDS["left-handed oblique"]
    shape = geometry.shape
    tissue = tissue_model_from_dict(model or amine_model())
    defaults = {"amine_fraction": (0.001, 0.004), "amine_k_Hz": (100.0, 400.0), "water_T1_s": (1.5, 2.5)}
    ranges = {_path(name): limits for name, limits in {**defaults, **values}.items()}
    truth = {
        path: spread(shape, *ranges[path], seed=seed) if path in ranges else np.full(shape, entry, float)
        for seed, (path, entry) in enumerate(tissue.entries.items())
        if path in ranges or isinstance(entry, float)
    }
    fields = {"b0": spread(shape, -b0_ppm, b0_ppm, 90), "b1": spread(shape, 1 - b1_spread, 1 + b1_spread, 91)}
    flat = {path: torch.from_numpy(values.ravel()) for path, values in truth.items()}
    z = simulate(
        tissue.tissue(flat),
        protocol,
        engine=engine,
        b0_shift_ppm=torch.from_numpy(fields["b0"].ravel()),
        b1_relative=torch.from_numpy(fields["b1"].ravel()),
    )
    m0 = spread(shape, 0.8 * M0, 1.2 * M0, 92)
    signal = (z.numpy().T.reshape(-1, *shape) * m0).astype(np.float32)
    maps = {name: array.astype(np.float32) for name, array in {**fields, "t1": truth["water.T1_s"]}.items()}
    return Acquisition(geometry, protocol, signal, m0.astype(np.float32), maps, truth)


def _path(name: str) -> str:
    owner, _, key = name.partition("_")
    return f"{owner}.{key}"


def spectrum_protocol(b1_uT: float = 1.0, time_s: float = 3.0, reach_ppm: float = 6.0, count: int = 41) -> Protocol:
    """Return the protocol of a Z-spectrum with evenly spaced offsets at 3 T."""
    return Protocol(3.0, torch.linspace(-reach_ppm, reach_ppm, count, dtype=torch.float64), b1_uT, time_s)


def pairs_protocol(offset_ppm: float = 3.0, times_s: tuple[float, ...] = (6.0,)) -> Protocol:
    """Return the protocol of QUESP and the omega plot: label and reference at ±offset for five powers."""
    powers = torch.tensor([0.5, 1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    b1 = powers.repeat_interleave(2).repeat(len(times_s))
    sign = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(len(powers) * len(times_s))
    time = torch.tensor(times_s, dtype=torch.float64).repeat_interleave(2 * len(powers))
    return Protocol(7.0, offset_ppm * sign, b1, time)


def write_image(array: np.ndarray, geometry: Geometry, path: Path) -> Path:
    """Write (K, J, I) in the voxel order of ``geometry``, without Slicer."""
    sitk.WriteImage(geometry.to_sitk(np.ascontiguousarray(array)), str(path))
    return path


def write_series(array: np.ndarray, geometry: Geometry, path: Path) -> Path:
    """Write (measurement, K, J, I) as a 4-D image in the voxel order of ``geometry``, without Slicer."""
    series = sitk.JoinSeries([geometry.to_sitk(np.ascontiguousarray(volume)) for volume in array])
    sitk.WriteImage(series, str(path))
    return path


def read_image(path: Path) -> np.ndarray:
    """Read the voxels (K, J, I) of a NIfTI file in the order of the file, without Slicer; NaN is kept."""
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    index, values = non_finite_voxels(path)
    array[tuple(index[:, axis] for axis in (2, 1, 0))] = values
    return array


def read_spectrum(path: Path) -> np.ndarray:
    """Read the table of ``cestquant simulate``, checked: offsets in ppm and Z, (measurement, 2)."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["index", "offset_ppm", "z"]
    assert [int(row["index"]) for row in rows] == list(range(len(rows)))
    return np.array([[float(row["offset_ppm"]), float(row["z"])] for row in rows])


def write_json(values: dict, path: Path) -> Path:
    """Write a JSON file."""
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


def checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, including hidden ones, by its relative path."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def fit_arguments(folder: Path, output: Path, method: str, **changes: object) -> list[str]:
    """Return arguments of ``cestquant fit`` for an acquisition in a folder.

    ``changes`` are other options: None leaves an option out, True makes it a flag.
    """
    options = {
        "signal": folder / "signal.nii.gz",
        "protocol": folder / "protocol.json",
        "reference": folder / "m0.nii.gz",
        "method": method,
        "output": output,
    }
    arguments = ["fit"]
    for name, value in (options | changes).items():
        if value is not None:
            arguments.append("--" + name.replace("_", "-"))
            values = value if isinstance(value, list) else [value]
            arguments += [str(item) for item in values if item is not True]
    return arguments


def messages(stderr: str) -> list[str]:
    """Return the lines on standard error that do not report progress."""
    return [line for line in stderr.splitlines() if not re.match(r"\s*\d+ % ", line)]
