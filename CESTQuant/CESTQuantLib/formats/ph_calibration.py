"""Calibrations of ratiometric pH: the ratio of two contrasts of an agent, measured at known pH.

A file has the keys ``offsets_ppm`` (the two resonances), ``contrast``, ``pH``, ``ratio`` (contrast at the first offset
over that at the second) and, where wanted, ``least_contrast``. A calibration holds for its agent, field, temperature,
B1 and saturation time; none is bundled.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from NeuroCESTLib.core.checked_json import check_keys, number, read_json

CALIBRATION_KEYS = ("offsets_ppm", "contrast", "pH", "ratio", "least_contrast")
CONTRASTS = ("mtr_asym", "saturation_transfer", "inverse")
"""Contrasts: ``Z- - Z+``, ``1 - Z+ / Z-`` and ``Z- / Z+ - 1`` with Z at plus and minus the offset."""
LEAST_CONTRAST = 0.01


@dataclass(frozen=True)
class PHCalibration:
    """pH as a function of a ratio.

    Attributes:
        offsets_ppm: The two resonances of the agent.
        contrast: One of ``CONTRASTS``.
        ratios: Ratios (n,), ascending.
        ph: Their pH (n,).
        least_contrast: Contrast at either offset below which a voxel holds too little of the agent.
    """

    offsets_ppm: tuple[float, float]
    contrast: str
    ratios: Tensor
    ph: Tensor
    least_contrast: float = LEAST_CONTRAST

    @classmethod
    def from_dict(cls, description: Any, source: str = "calibration") -> PHCalibration:
        """Build a calibration from the content of its file.

        Raises:
            ValueError: The object describes no calibration; the message names ``source`` and the key.
        """
        values = check_keys(description, CALIBRATION_KEYS, source, also=("name", "note", "source"))
        offsets, ph, ratio = (_numbers(values, key, source) for key in ("offsets_ppm", "pH", "ratio"))
        if len(offsets) != 2 or not all(offset > 0 for offset in offsets):
            raise ValueError(f"{source}: offsets_ppm must be the two positive offsets of the agent")
        contrast = values.get("contrast", CONTRASTS[0])
        if contrast not in CONTRASTS:
            raise ValueError(f"{source}: contrast '{contrast}' is unknown; use one of {', '.join(CONTRASTS)}")
        if len(ph) != len(ratio) or len(ph) < 3:
            raise ValueError(f"{source}: pH and ratio must have the same number of values, at least three")
        order = sorted(range(len(ratio)), key=lambda i: ratio[i])
        ratios, sorted_ph = (torch.tensor([each[i] for i in order], dtype=torch.float64) for each in (ratio, ph))
        steps = sorted_ph.diff()
        if not bool((ratios.diff() > 0).all()) or not bool((steps > 0).all() | (steps < 0).all()):
            raise ValueError(f"{source}: pH must rise, or fall, steadily with the ratio; a ratio has one pH only")
        least = number(values.get("least_contrast", LEAST_CONTRAST), f"{source}: least_contrast")
        return cls((offsets[0], offsets[1]), contrast, ratios, sorted_ph, least)


def read_ph_calibration(path: str | Path) -> PHCalibration:
    """Read a calibration from its JSON file.

    Raises:
        ValueError: The file is missing or describes no calibration; the message names the file and the key.
    """
    return PHCalibration.from_dict(read_json(path), str(path))


def _numbers(values: dict[str, Any], key: str, source: str) -> list[float]:
    listed = values.get(key)
    if not isinstance(listed, list):
        raise ValueError(f"{source}: {key} must be a list of numbers")
    return [number(value, f"{source}: {key}") for value in listed]
