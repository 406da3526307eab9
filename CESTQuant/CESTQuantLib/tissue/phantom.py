"""Digital brain phantom with a glioma: CEST acquisition, fields and true values, from the Bloch-McConnell engine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from NeuroCESTLib.core.messages.input_errors import InputError
from NeuroCESTLib.core.progress import Progress, silent

from ..formats.presets import tissue_values
from ..physics.protocol import Protocol
from ..physics.simulation import simulate
from .model import TissueModel, tissue_model_from_dict

AIR, WHITE_MATTER, GRAY_MATTER, FLUID, EDEMA, TUMOR_CORE = range(6)
REGIONS = {
    WHITE_MATTER: ("white matter", "white matter 3T"),
    GRAY_MATTER: ("grey matter", "grey matter 3T"),
    FLUID: ("cerebrospinal fluid", "cerebrospinal fluid 3T"),
    EDEMA: ("oedema", "oedema 3T"),
    TUMOR_CORE: ("tumour core", "glioma 3T"),
}
"""Name of the region and its tissue preset, by label value."""
M0 = (0.0, 700.0, 820.0, 1000.0, 880.0, 850.0)
"""Reference signal in scanner units, by label value."""
SHAPE = (3, 56, 48)
"""Slices, rows and columns."""
SPACING_MM = (3.5, 3.5, 5.0)
"""Between columns, rows and slices."""
HALF_AXES_MM = (72.0, 88.0, 60.0)
"""Half axes of the head along columns, rows and slices."""
BIOLOGICAL_SPREAD = 0.03
"""Relative standard deviation of the tissue values within a region."""
_CHUNK_VOXELS = 128


@dataclass(frozen=True)
class Phantom:
    """The simulated brain; arrays are (K, J, I) unless noted.

    Attributes:
        signal: (measurement, K, J, I) in scanner units.
        m0: Reference image in scanner units.
        labels: Regions, 0 for air, see ``REGIONS``.
        b0_shift_ppm: Position of the water in ppm.
        b1_relative: Actual over nominal B1.
        t1_s: Water T1 in s.
        truth: True values by entry of the tissue model, such as ``amide.fraction``.
        protocol: Acquisition.
    """

    signal: np.ndarray
    m0: np.ndarray
    labels: np.ndarray
    b0_shift_ppm: np.ndarray
    b1_relative: np.ndarray
    t1_s: np.ndarray
    truth: dict[str, np.ndarray]
    protocol: Protocol


def phantom_protocol() -> Protocol:
    """Return the protocol of the phantom: 3 T, continuous wave for 2 s, 35 offsets at 1 uT and the same at 2.5 uT."""
    side = torch.tensor(
        [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.25, 3.5, 3.75, 4.0, 4.5, 5.0, 6.0, 8.0, 12.0, 25.0, 50.0], dtype=torch.float64
    )
    offsets = torch.cat([-side.flip(0), torch.zeros(1, dtype=torch.float64), side])
    b1 = torch.tensor([1.0, 2.5], dtype=torch.float64).repeat_interleave(len(offsets))
    return Protocol(3.0, offsets.repeat(2), b1, torch.tensor(2.0, dtype=torch.float64))


def make_phantom(*, noise_sd: float = 0.002, seed: int = 1, progress: Progress | None = None) -> Phantom:
    """Simulate the phantom; the same seed gives the same data.

    Args:
        noise_sd: Standard deviation of white noise, relative to the reference signal of white matter.
        seed: Seed of the biological spread and of the noise.
        progress: Called with the share of voxels that are simulated.
    """
    labels = _anatomy()
    b0, b1 = _fields()
    if seed < 0:
        raise InputError("seed", f"the seed of the noise must not be negative, as {seed} is")
    generator = np.random.default_rng(seed)
    protocol = phantom_protocol()
    voxels = np.flatnonzero(labels)
    entries = _tissue_entries(labels.ravel()[voxels], generator)
    model = tissue_model_from_dict(tissue_values("white matter 3T"), "white matter 3T")
    z = simulate_voxels(model, entries, protocol, b0.ravel()[voxels], b1.ravel()[voxels], progress or silent)
    noise = M0[WHITE_MATTER] * noise_sd
    noise_free_m0 = np.array(M0)[labels]
    m0 = noise_free_m0 + noise * generator.standard_normal(labels.shape)
    signal = np.zeros((protocol.measurement_count, labels.size))
    signal[:, voxels] = z.T.numpy() * noise_free_m0.ravel()[voxels]
    signal += noise * generator.standard_normal(signal.shape)

    def volume(values: np.ndarray) -> np.ndarray:
        full = np.zeros(labels.size)
        full[voxels] = values
        return full.reshape(labels.shape)

    truth = {path: volume(values) for path, values in entries.items()}
    return Phantom(
        signal=np.abs(signal).reshape(-1, *labels.shape).astype(np.float32),
        m0=np.abs(m0).astype(np.float32),
        labels=labels.astype(np.uint8),
        b0_shift_ppm=b0.astype(np.float32),
        b1_relative=b1.astype(np.float32),
        t1_s=truth["water.T1_s"].astype(np.float32),
        truth=truth,
        protocol=protocol,
    )


def _coordinates() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return column, row and slice positions in units of the half axes of the head."""
    k, j, i = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in SHAPE), indexing="ij")
    x, y, z = (index * step / half for index, step, half in zip((i, j, k), SPACING_MM, HALF_AXES_MM, strict=True))
    return x, y, z


def _anatomy() -> np.ndarray:
    """Return the label of every voxel."""
    x, y, z = _coordinates()
    radius = np.sqrt(x**2 + y**2 + z**2)
    angle = np.arctan2(y, x)
    labels = np.full(SHAPE, AIR, dtype=np.int64)
    labels[radius < 1.0] = GRAY_MATTER
    labels[radius < 0.84 + 0.05 * np.cos(9 * angle)] = WHITE_MATTER
    for side in (-1, 1):
        deep_gray = ((x - 0.3 * side) / 0.12) ** 2 + ((y - 0.02) / 0.17) ** 2 + (z / 0.5) ** 2 < 1
        ventricle = ((x - 0.11 * side - 0.08 * side * y) / 0.07) ** 2 + ((y - 0.05) / 0.38) ** 2 + (z / 0.5) ** 2 < 1
        labels[deep_gray] = GRAY_MATTER
        labels[ventricle] = FLUID
    tumor = np.sqrt(((x - 0.45) / 0.30) ** 2 + ((y + 0.30) / 0.27) ** 2 + (z / 0.5) ** 2)
    labels[(tumor < 1.0) & (labels == WHITE_MATTER)] = EDEMA
    labels[(tumor < 0.62) & (radius < 0.95)] = TUMOR_CORE
    return labels


def _fields() -> tuple[np.ndarray, np.ndarray]:
    """Return B0 shift in ppm and relative B1 of every voxel."""
    x, y, z = _coordinates()
    b0 = 0.12 * y + 0.18 * np.exp(-((x**2 + (y - 0.9) ** 2) / 0.12)) - 0.05 * x + 0.03 * z
    b1 = 1.08 - 0.22 * (x**2 + y**2) + 0.05 * x
    return b0, b1


def _tissue_entries(labels: np.ndarray, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw the values of every pool for every voxel: those of the preset of its region, with biological spread."""
    presets = {label: preset_numbers(preset) for label, (_, preset) in REGIONS.items()}
    varied = ("fraction", "k_Hz", "T1_s", "T2_s")
    entries = {}
    for path in presets[WHITE_MATTER]:
        values = np.zeros(len(labels))
        for label, numbers in presets.items():
            values[labels == label] = numbers[path]
        if path.endswith(varied):
            values = values * np.exp(BIOLOGICAL_SPREAD * generator.standard_normal(len(labels)))
        entries[path] = values
    return entries


def preset_numbers(preset: str) -> dict[str, float]:
    """Return the values of a tissue preset by path, such as ``amide.fraction``."""
    entries = tissue_model_from_dict(tissue_values(preset), preset).entries
    return {path: entry for path, entry in entries.items() if isinstance(entry, float)}


def simulate_voxels(
    model: TissueModel,
    entries: dict[str, np.ndarray],
    protocol: Protocol,
    b0: np.ndarray,
    b1: np.ndarray,
    progress: Progress,
) -> torch.Tensor:
    """Simulate normalised signals (voxel, measurement) of tissue values (voxel,) by path."""
    voxels = len(b0)
    parts = []
    for start in range(0, voxels, _CHUNK_VOXELS):
        part = slice(start, start + _CHUNK_VOXELS)
        tissue = model.tissue({path: torch.from_numpy(values[part]) for path, values in entries.items()})
        parts.append(
            simulate(
                tissue,
                protocol,
                b0_shift_ppm=torch.from_numpy(b0[part]),
                b1_relative=torch.from_numpy(b1[part]),
            )
        )
        progress(min(1.0, (start + _CHUNK_VOXELS) / voxels), "Simulating the phantom")
    return torch.cat(parts)
