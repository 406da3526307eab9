"""What a method has found in a single spectrum, at the measurements of that spectrum: fit, lines and values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .base import Quantification


@dataclass(frozen=True)
class FittedSpectrum:
    """Fit of one spectrum.

    Attributes:
        fit: Fitted signal, shape (measurement,), NaN where the method uses no measurement; None for methods that fit
            none.
        pools: Line of each Lorentzian pool as ``1 - line``, shape (measurement,), by name.
        values: Value and standard error (NaN where there is none) of each quantity, by name.
    """

    fit: np.ndarray | None
    pools: dict[str, np.ndarray]
    values: dict[str, tuple[float, float]]


def fitted_spectrum(result: Quantification, offsets_ppm: np.ndarray, power_uT: np.ndarray) -> FittedSpectrum:
    """Take the first voxel of a result apart.

    Args:
        result: What the method returned for the spectrum.
        offsets_ppm: Offsets of the spectrum in ppm, shape (measurement,).
        power_uT: B1 of its measurements in uT, shape (measurement,).
    """
    import torch

    numbers = {name: float(value[0]) for name, value in result.quantities.items()}
    values = {
        name: (number, numbers.get(f"{name}_sd", float("nan")))
        for name, number in numbers.items()
        if not name.endswith("_sd")
    }
    fit, pools = None, {}
    used = _measurements_used(result, offsets_ppm, power_uT)
    if result.predict is not None and used is not None:
        with torch.no_grad():
            predicted = result.predict(torch.tensor([0]))[0].cpu().numpy()
        fit = _at_measurements(len(offsets_ppm), used, predicted)
        pools = {
            name: _at_measurements(len(offsets_ppm), used, line)
            for name, line in _lines(numbers, result.protocol.offsets_ppm.detach().numpy()).items()
        }
    return FittedSpectrum(fit, pools, values)


def _measurements_used(result: Quantification, offsets_ppm: np.ndarray, power_uT: np.ndarray) -> np.ndarray | None:
    """Return which measurements of the spectrum a method used; None where it made new ones."""
    offsets = result.protocol.offsets_ppm.detach().numpy()
    if len(offsets) == len(offsets_ppm):
        return np.arange(len(offsets))
    powers = result.protocol.b1_uT.detach().expand(len(offsets)).numpy()
    rows = [
        np.flatnonzero((offsets_ppm == offset) & (power_uT == power))
        for offset, power in zip(offsets, powers, strict=True)
    ]
    return np.array([row[0] for row in rows]) if all(len(row) for row in rows) else None


def _at_measurements(count: int, used: np.ndarray, values: np.ndarray) -> np.ndarray:
    full = np.full(count, np.nan)
    full[used] = values
    return full


def _lines(numbers: dict[str, float], offsets_ppm: np.ndarray) -> dict[str, np.ndarray]:
    """Return ``1 - line`` of each fitted Lorentzian pool, at offsets in ppm."""
    lines = {}
    for name, amplitude in numbers.items():
        pool = name.removesuffix("_amplitude")
        if pool != name and f"{pool}_width_ppm" in numbers and f"{pool}_position_ppm" in numbers:
            distance = (offsets_ppm - numbers[f"{pool}_position_ppm"]) / (numbers[f"{pool}_width_ppm"] / 2)
            lines[pool] = 1 - amplitude / (1 + distance**2)
    return lines
