"""The mean spectrum of a region, with its fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class RegionSpectrum:
    """Mean spectrum of a region, weighted by partial volume, and its fit.

    Attributes:
        region: Name of the region.
        offsets_ppm: Offsets in ppm, shape (measurement,).
        power_uT: B1 in uT of each measurement, shape (measurement,).
        signal: Normalised mean signal, shape (measurement,).
        sd: Weighted standard deviation over the voxels, shape (measurement,).
        fit: Fitted signal, shape (measurement,), NaN where the method uses no measurement; None without a fit.
        pools: Line of each Lorentzian pool as ``1 - line``, shape (measurement,), by name.
        values: Value and standard error of each fitted quantity, by name.
        engine_errors: How far each fitted quantity is off, at most, because the method solves the Bloch-McConnell
            equations approximately, by name; empty for methods that do not.
        note: Sentence that says why there is no fit; empty where there is one.
    """

    region: str
    offsets_ppm: np.ndarray
    power_uT: np.ndarray
    signal: np.ndarray
    sd: np.ndarray
    fit: np.ndarray | None = None
    pools: Mapping[str, np.ndarray] = field(default_factory=dict)
    values: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    engine_errors: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
