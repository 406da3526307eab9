"""CEST acquisition of a given anatomy: a label map of tissues becomes a slab of noisy images with known values.

Every voxel holds shares of several tissues. Its signal is their mean, weighted by share and proton density; each part
is simulated by the Bloch-McConnell engine at the field of the voxel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from NeuroCESTLib.core.checked_json import check_keys, number
from NeuroCESTLib.core.messages.input_errors import InputError
from NeuroCESTLib.core.progress import Progress, silent

from ..formats.plausible import relaxation_time
from ..formats.presets import tissue_values
from ..physics.protocol import Protocol
from ..tissue.model import tissue_model_from_dict
from ..tissue.phantom import BIOLOGICAL_SPREAD, HALF_AXES_MM, preset_numbers, simulate_voxels
from ..tissue.quantities import map_name

WHITE_MATTER, GRAY_MATTER, FLUID, EDEMA, ENHANCING, NECROSIS = range(1, 7)
REGIONS = {
    WHITE_MATTER: "white_matter",
    GRAY_MATTER: "gray_matter",
    FLUID: "cerebrospinal_fluid",
    EDEMA: "edema",
    ENHANCING: "enhancing_tumor",
    NECROSIS: "necrotic_core",
}
"""Name of the tissue by its value in the label map; 0 is air."""
TUMOR = (EDEMA, ENHANCING, NECROSIS)
"""Values of the parts of a tumour."""
PROTON_DENSITY = {
    WHITE_MATTER: 700.0,
    GRAY_MATTER: 820.0,
    FLUID: 1000.0,
    EDEMA: 880.0,
    ENHANCING: 850.0,
    NECROSIS: 940.0,
}
"""Reference signal in scanner units of a voxel full of a tissue."""
_UNIONS = {"tumor_core": (ENHANCING, NECROSIS), "whole_tumor": TUMOR}
_PRESETS = {
    WHITE_MATTER: "white matter 3T",
    GRAY_MATTER: "grey matter 3T",
    FLUID: "cerebrospinal fluid 3T",
    EDEMA: "oedema 3T",
    ENHANCING: "glioma 3T",
    NECROSIS: "glioma 3T",
}
_CHANGES = {
    # At 50/s, as the model file assumes; in slow exchange the effect depends on the product, which stays the same.
    ENHANCING: {"amide.k_Hz": 50.0, "amide.fraction": 0.0018},
    NECROSIS: {
        "water.T1_s": 2.6,
        "water.T2_s": 0.35,
        "amide.k_Hz": 50.0,
        "amide.fraction": 0.0006,
        "noe.fraction": 0.0008,
        "semisolid.fraction": 0.015,
    },
}
"""What differs from the preset, by path."""
_VARIED = ("fraction", "k_Hz", "T1_s", "T2_s")
_LEAST_SHARE = 0.03
"""Smallest share of a tissue in a voxel that is simulated; smaller ones are given to the others in proportion."""

Values = Mapping[int, Mapping[str, float]]
"""Values by path of every tissue, by its value in the label map."""


@dataclass(frozen=True)
class PatientPhantom:
    """The simulated slab; arrays are (K, J, I) unless noted.

    Attributes:
        signal: (measurement, K, J, I) in scanner units.
        m0: Reference image in scanner units.
        labels: Tissue with the largest share, 0 for air.
        mask: Voxels of which more than half is tissue.
        b0_shift_ppm: Position of the water in ppm.
        b1_relative: Actual over nominal B1.
        t1_s: Water T1 in s, the mean over the tissues in a voxel.
        protocol: Acquisition.
    """

    signal: np.ndarray
    m0: np.ndarray
    labels: np.ndarray
    mask: np.ndarray
    b0_shift_ppm: np.ndarray
    b1_relative: np.ndarray
    t1_s: np.ndarray
    protocol: Protocol


def patient_protocol() -> Protocol:
    """Return the protocol: 3 T, continuous wave for 2 s, 21 offsets at 1 uT and the same at 2.5 uT."""
    side = torch.tensor([0.75, 1.5, 2.5, 3.0, 3.5, 4.0, 5.0, 8.0, 20.0, 50.0], dtype=torch.float64)
    offsets = torch.cat([-side.flip(0), torch.zeros(1, dtype=torch.float64), side])
    b1 = torch.tensor([1.0, 2.5], dtype=torch.float64).repeat_interleave(len(offsets))
    return Protocol(3.0, offsets.repeat(2), b1, torch.tensor(2.0, dtype=torch.float64))


def region_values(changes: object = None, source: str = "values") -> dict[int, dict[str, float]]:
    """Return the values of every tissue.

    Args:
        changes: Object with a key per tissue, such as ``{"enhancing_tumor": {"amide.fraction": 0.002}}``, that replaces
            values; None for none.
        source: What messages call it, usually the file.

    Returns:
        Values by path, by the value of the tissue in the label map.

    Raises:
        ValueError: A tissue or a path is unknown, or a value is not a number above zero, not a fraction below 1, or a
            relaxation time that no tissue has.
    """
    values = {label: preset_numbers(preset) | _CHANGES.get(label, {}) for label, preset in _PRESETS.items()}
    checked = check_keys({} if changes is None else changes, REGIONS.values(), source)
    for label, name in REGIONS.items():
        of_region = check_keys(checked.get(name, {}), values[label], f"{source}: {name}")
        for path, entry in of_region.items():
            what = f"{source}: {name}: {path}"
            value = values[label][path] = number(entry, what)
            if path.endswith(_VARIED) and not value > 0:
                raise ValueError(f"{what} is {entry}, but must be above 0")
            if path.endswith("fraction") and not value < 1:
                raise ValueError(f"{what} is {entry}, but must be below 1: give a proton fraction, relative to water")
            if path.endswith(("T1_s", "T2_s")):
                relaxation_time(value, what)
    return values


def true_values(values: Values, shares: np.ndarray, voxel_ml: float) -> list[dict[str, str | float]]:
    """Return the true value of every quantity in every region, as rows of a table.

    Args:
        values: Values of every tissue.
        shares: Share of each voxel that a tissue fills, (tissue, K, J, I) in the order of ``REGIONS``.
        voxel_ml: Volume of a voxel in ml.

    Returns:
        Rows with ``region``, ``quantity`` (the name of its map), ``value`` and ``volume_ml`` in the slab. A region of
        several tissues has their mean, weighted by volume; regions that are not in the slab are left out.
    """
    volumes = {label: float(share.sum()) * voxel_ml for label, share in zip(REGIONS, shares, strict=True)}
    parts = {name: (label,) for label, name in REGIONS.items()} | _UNIONS
    rows: list[dict[str, str | float]] = []
    for name, labels in parts.items():
        volume = sum(volumes[label] for label in labels)
        if volume == 0:
            continue
        for path in values[WHITE_MATTER]:
            mean = sum(_reported(path, values[label][path]) * volumes[label] for label in labels) / volume
            rows.append({"region": name, "quantity": map_name(path), "value": mean, "volume_ml": volume})
    return rows


def simulate_patient(
    shares: np.ndarray,
    positions_mm: np.ndarray,
    values: Values,
    *,
    noise_sd: float = 0.002,
    seed: int = 1,
    spread: float = BIOLOGICAL_SPREAD,
    progress: Progress = silent,
) -> PatientPhantom:
    """Simulate the acquisition of a slab; the same seed gives the same data.

    Args:
        shares: Share of each voxel that a tissue fills, (tissue, K, J, I) in the order of ``REGIONS``; what is missing
            from 1 is air.
        positions_mm: Position of each voxel relative to the centre of the brain, (K, J, I, 3) in mm, along right,
            anterior and superior; the fields depend on it.
        values: Values of every tissue, as ``region_values`` returns them.
        noise_sd: Standard deviation of white noise, relative to the reference signal of white matter.
        seed: Seed of the biological spread and of the noise.
        spread: Relative standard deviation of the tissue values within a region.
        progress: Called with the share of voxels that are simulated.

    Returns:
        The images, fields and true maps of the slab.

    Raises:
        ValueError: The seed is negative, or no voxel is more than half tissue.
    """
    if seed < 0:
        raise InputError("seed", f"the seed of the noise must not be negative, as {seed} is")
    if not (shares.sum(0) > 0.5).any():
        raise ValueError(
            "no voxel of the slab is more than half tissue: give smaller voxels, or a label map with more tissue"
        )
    generator = np.random.default_rng(seed)
    shape = shares.shape[1:]
    shares = _without_traces(shares.reshape(len(REGIONS), -1))
    b0, b1 = _fields(positions_mm.reshape(-1, 3))
    tissues, voxels = np.nonzero(shares)
    labels = np.array(list(REGIONS))[tissues]
    weights = shares[tissues, voxels]
    entries = _entries(labels, values, spread, generator)
    model = tissue_model_from_dict(tissue_values("white matter 3T"), "white matter 3T")
    protocol = patient_protocol()
    z = simulate_voxels(model, entries, protocol, b0[voxels], b1[voxels], progress).T.numpy()
    density = np.array([PROTON_DENSITY[int(label)] for label in labels]) * weights

    def total(of_parts: np.ndarray) -> np.ndarray:
        return np.bincount(voxels, weights=of_parts, minlength=shares.shape[1])

    m0 = total(density)
    signal = np.stack([total(density * part) for part in z])
    noise = PROTON_DENSITY[WHITE_MATTER] * noise_sd
    m0 = np.abs(m0 + noise * generator.standard_normal(m0.shape))
    signal = np.abs(signal + noise * generator.standard_normal(signal.shape))
    filled = shares.sum(0)
    t1 = total(weights * entries["water.T1_s"]) / np.maximum(filled, _LEAST_SHARE)
    largest = np.where(filled > 0.5, np.array(list(REGIONS))[shares.argmax(0)], 0)
    return PatientPhantom(
        signal=signal.reshape(-1, *shape).astype(np.float32),
        m0=m0.reshape(shape).astype(np.float32),
        labels=largest.reshape(shape).astype(np.uint8),
        mask=(filled > 0.5).reshape(shape),
        b0_shift_ppm=b0.reshape(shape).astype(np.float32),
        b1_relative=b1.reshape(shape).astype(np.float32),
        t1_s=t1.reshape(shape).astype(np.float32),
        protocol=protocol,
    )


def _reported(path: str, value: float) -> float:
    """The value as its map has it: R2 for a T2."""
    return 1 / value if path.endswith("T2_s") else value


def _without_traces(shares: np.ndarray) -> np.ndarray:
    """Set traces of a tissue to zero and keep the sum of each voxel."""
    kept = np.where(shares < _LEAST_SHARE, 0.0, shares)
    sums = kept.sum(0)
    return kept * np.divide(shares.sum(0), sums, out=np.zeros_like(sums), where=sums > 0)


def _fields(positions_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return B0 shift in ppm and relative B1 at positions (n, 3): smooth, with a peak of B0 above the sinuses."""
    x, y, z = (positions_mm / np.array(HALF_AXES_MM)).T
    b0 = 0.08 * y + 0.18 * np.exp(-(x**2 + (y - 0.9) ** 2) / 0.12) - 0.05 * x + 0.03 * z
    b1 = 1.08 - 0.22 * (x**2 + y**2) + 0.05 * x
    return b0, np.maximum(b1, 0.6)


def _entries(
    labels: np.ndarray, values: Values, spread: float, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """Draw the values of every part: those of its tissue, with biological spread."""
    entries = {}
    for path in values[WHITE_MATTER]:
        of_part = np.zeros(len(labels))
        for label, of_region in values.items():
            of_part[labels == label] = of_region[path]
        if path.endswith(_VARIED):
            of_part = of_part * np.exp(spread * generator.standard_normal(len(labels)))
        entries[path] = of_part
    return entries
