"""Digital brain phantom with a glioma: CEST acquisition, fields and truth, made by the Bloch-McConnell engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ..formats.presets import tissue_values
from ..physics.pools import Tissue
from ..physics.protocol import Protocol
from ..physics.simulation import simulate
from .model import TissueModel, tissue_model_from_dict

REGIONS = {
    1: ("white matter", "white matter 3T"),
    2: ("grey matter", "grey matter 3T"),
    3: ("cerebrospinal fluid", "cerebrospinal fluid 3T"),
    4: ("oedema", "oedema 3T"),
    5: ("tumour core", "glioma 3T"),
}
"""Label value -> name of the region and tissue preset."""
SHAPE = (3, 56, 48)
SPACING_MM = (3.5, 3.5, 5.0)
_CHUNK = 128


@dataclass(frozen=True)
class Phantom:
    """Arrays are (K, J, I) unless noted; truth maps are by entry of the tissue model ('amide.fraction', ...).

    signal: (measurement, K, J, I) in scanner units; m0: reference image; labels: 0 is air, see ``REGIONS``.
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
    """3 T, continuous wave for 2 s, 35 offsets at 1 uT and the same at 2.5 uT."""
    side = torch.tensor(
        [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.25, 3.5, 3.75, 4.0, 4.5, 5.0, 6.0, 8.0, 12.0, 25.0, 50.0], dtype=torch.float64
    )
    offsets = torch.cat([-side.flip(0), torch.zeros(1, dtype=torch.float64), side])
    b1 = torch.tensor([1.0, 2.5], dtype=torch.float64).repeat_interleave(len(offsets))
    return Protocol(3.0, offsets.repeat(2), b1, 2.0)


def phantom_model() -> dict:
    """Model file that fits the phantom: amide, NOE and semisolid fractions, semisolid exchange rate, water T2.

    The amide rate is fixed: at 50/s two powers do not separate it from the fraction.
    """

    def fit(start: float, low: float, high: float) -> dict:
        return {"fit": True, "start": start, "bounds": [low, high]}

    model = tissue_values("white matter 3T")
    amide, noe = (dict(solute) for solute in model["solutes"])
    amide |= {"fraction": fit(1e-3, 0.0, 5e-3)}
    noe |= {"fraction": fit(3e-3, 0.0, 1e-2)}
    semisolid = dict(model["semisolid"]) | {"fraction": fit(0.08, 0.0, 0.3), "k_Hz": fit(30.0, 5.0, 100.0)}
    water = {"T1_s": {"map": "t1"}, "T2_s": fit(0.1, 0.02, 2.5)}
    return {"water": water, "solutes": [amide, noe], "semisolid": semisolid}


def make_phantom(
    *, noise_sd: float = 0.002, seed: int = 1, progress: Callable[[float, str], None] | None = None
) -> Phantom:
    """Simulate the phantom; the same seed gives the same data.

    noise_sd: standard deviation of white noise relative to the reference signal of white matter.
    """
    labels = _anatomy()
    b0, b1 = _fields()
    generator = np.random.default_rng(seed)
    protocol = phantom_protocol()
    voxels = np.flatnonzero(labels)
    entries = _tissue_entries(labels.ravel()[voxels], generator)
    model = tissue_model_from_dict(tissue_values("white matter 3T"), "white matter 3T")
    z = _simulate(model, entries, protocol, b0.ravel()[voxels], b1.ravel()[voxels], progress)
    proton_density = np.array([0.0, 700.0, 820.0, 1000.0, 880.0, 850.0])[labels]
    m0 = proton_density + 700.0 * noise_sd * generator.standard_normal(labels.shape)
    signal = np.zeros((protocol.measurement_count, labels.size))
    signal[:, voxels] = z.T.numpy() * proton_density.ravel()[voxels]
    signal += 700.0 * noise_sd * generator.standard_normal(signal.shape)

    def volume(values: np.ndarray) -> np.ndarray:
        full = np.zeros(labels.size)
        full[voxels] = values
        return full.reshape(labels.shape)

    truth = {path: volume(values) for path, values in entries.items()}
    return Phantom(
        np.abs(signal).reshape(-1, *labels.shape).astype(np.float32),
        np.abs(m0).astype(np.float32),
        labels.astype(np.uint8),
        b0.astype(np.float32),
        b1.astype(np.float32),
        truth["water.T1_s"].astype(np.float32),
        truth,
        protocol,
    )


def _coordinates() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Column, row and slice positions in units of the half axes of the head."""
    k, j, i = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in SHAPE), indexing="ij")
    return i * SPACING_MM[0] / 72, j * SPACING_MM[1] / 88, k * SPACING_MM[2] / 60


def _anatomy() -> np.ndarray:
    x, y, z = _coordinates()
    radius = np.sqrt(x**2 + y**2 + z**2)
    angle = np.arctan2(y, x)
    labels = np.zeros(SHAPE, dtype=np.int64)
    labels[radius < 1.0] = 2
    labels[radius < 0.84 + 0.05 * np.cos(9 * angle)] = 1
    for side in (-1, 1):
        deep_grey = ((x - 0.3 * side) / 0.12) ** 2 + ((y - 0.02) / 0.17) ** 2 + (z / 0.5) ** 2 < 1
        ventricle = ((x - 0.11 * side - 0.08 * side * y) / 0.07) ** 2 + ((y - 0.05) / 0.38) ** 2 + (z / 0.5) ** 2 < 1
        labels[deep_grey] = 2
        labels[ventricle] = 3
    tumour = np.sqrt(((x - 0.45) / 0.30) ** 2 + ((y + 0.30) / 0.27) ** 2 + (z / 0.5) ** 2)
    labels[(tumour < 1.0) & (labels == 1)] = 4
    labels[(tumour < 0.62) & (radius < 0.95)] = 5
    return labels


def _fields() -> tuple[np.ndarray, np.ndarray]:
    x, y, z = _coordinates()
    b0 = 0.12 * y + 0.18 * np.exp(-((x**2 + (y - 0.9) ** 2) / 0.12)) - 0.05 * x + 0.03 * z
    b1 = 1.08 - 0.22 * (x**2 + y**2) + 0.05 * x
    return b0, b1


def _tissue_entries(labels: np.ndarray, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Values of every pool per voxel: the preset of its region with 3 % biological spread."""
    models = {label: tissue_model_from_dict(tissue_values(p), p).entries for label, (_, p) in REGIONS.items()}
    spread = ("fraction", "k_Hz", "T1_s", "T2_s")
    entries = {}
    for path in models[1]:
        values = np.zeros(len(labels))
        for label, model in models.items():
            values[labels == label] = model[path]
        if path.endswith(spread):
            values = values * np.exp(0.03 * generator.standard_normal(len(labels)))
        entries[path] = values
    return entries


def _simulate(
    model: TissueModel,
    entries: dict[str, np.ndarray],
    protocol: Protocol,
    b0: np.ndarray,
    b1: np.ndarray,
    progress,
) -> torch.Tensor:
    voxels = len(b0)
    parts = []
    for start in range(0, voxels, _CHUNK):
        part = slice(start, start + _CHUNK)
        tissue: Tissue = model.tissue({path: torch.from_numpy(values[part]) for path, values in entries.items()})
        parts.append(
            simulate(
                tissue,
                protocol,
                b0_shift_ppm=torch.from_numpy(b0[part]),
                b1_relative=torch.from_numpy(b1[part]),
            )
        )
        if progress is not None:
            progress(min(1.0, (start + _CHUNK) / voxels), "simulating the phantom")
    return torch.cat(parts)
