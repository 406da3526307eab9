"""Small simulated acquisitions as files: what a user hands to the commands, with the truth beside it."""

from __future__ import annotations

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
from NeuroCESTLib.core.nifti_files import non_finite_voxels
from NeuroCESTLib.scene.geometry import Geometry

M0 = 800.0
"""Reference signal of the simulated scanner at the first voxel; it varies by 20 % over the volume."""


def spread(shape: tuple[int, ...], low: float, high: float, seed: int = 0) -> np.ndarray:
    """Values between low and high that differ from voxel to voxel without any symmetry."""
    return np.random.default_rng(seed).permutation(np.linspace(low, high, int(np.prod(shape)))).reshape(shape)


def fit(start: float, low: float, high: float) -> dict:
    """A fitted value of a model file."""
    return {"fit": True, "start": start, "bounds": [low, high]}


def amine_model(**changes: object) -> dict:
    """Model file of water with one amine pool (3 ppm): fraction and exchange rate are fitted, water T1 is a map."""
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
    """A simulated acquisition: arrays (K, J, I) on ``geometry``, signal (measurement, K, J, I) in scanner units."""

    geometry: Geometry
    protocol: Protocol
    signal: np.ndarray
    m0: np.ndarray
    maps: dict[str, np.ndarray]
    truth: dict[str, np.ndarray] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        """Write ``signal.nii.gz``, ``m0.nii.gz``, ``mask.nii.gz``, the maps and ``protocol.json``; the folder."""
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
    """Simulate ``model``; ``values`` are ranges of its entries, such as amine_fraction=(0.001, 0.003), over the voxels.

    b0_ppm, b1_spread: the fields vary by so much to either side of 0 and 1.
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
    """A Z-spectrum of evenly spaced offsets at 3 T."""
    return Protocol(3.0, torch.linspace(-reach_ppm, reach_ppm, count, dtype=torch.float64), b1_uT, time_s)


def pairs_protocol(offset_ppm: float = 3.0, times_s: tuple[float, ...] = (6.0,)) -> Protocol:
    """Label and reference at +-offset for five powers: QUESP and the omega plot."""
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
    """Voxels (K, J, I) of a NIfTI file as they lie there, without Slicer; NaN too, which ITK reads as zero."""
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    index, values = non_finite_voxels(path)
    array[tuple(index[:, axis] for axis in (2, 1, 0))] = values
    return array


def write_json(values: dict, path: Path) -> Path:
    """Write a JSON file."""
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file under a folder, hidden ones too, by its path there."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def fit_arguments(folder: Path, output: Path, method: str, **changes: object) -> list[str]:
    """Arguments of ``cestquant fit`` for an acquisition in a folder; None leaves an option out, True makes a flag."""
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
    """Lines on standard error that are no progress."""
    return [line for line in stderr.splitlines() if not re.match(r"\s*\d+ % ", line)]
