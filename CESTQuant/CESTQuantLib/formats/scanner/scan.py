"""A scan as its files describe it, whatever scanner wrote them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class FrameGroup:
    """A loop over images.

    Attributes:
        name: Name such as ``FG_CYCLE``, ``FG_ECHO`` or ``acquisition``.
        comment: What the scanner says about it.
        count: Number of passes.
    """

    name: str
    comment: str
    count: int


@dataclass(frozen=True)
class ScannedImages:
    """Reconstructed images of a scan.

    Attributes:
        array: Values (measurement, K, J, I) in float32, scaled as the files say.
        ijk_to_lps: Matrix (4, 4) from voxel index (i, j, k, 1) to patient coordinates LPS in mm.
        groups: Loops that the measurements come from, the fastest first; empty for a single measurement.
        notes: Sentences for the user.
    """

    array: np.ndarray
    ijk_to_lps: np.ndarray
    groups: tuple[FrameGroup, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scan:
    """A scan with its images and what its files say.

    Attributes:
        name: Number or name of the scan.
        description: Its number, name and images in words.
        images: Images with their place.
        protocol: Keys of a ``protocol.json``, None for what the files do not say; None for a scan without saturation.
        files: Files that were read.
        repetitions: How often the list of offsets was measured.
        notes: Sentences for the user.
        is_aptw_percent: Whether the images are a finished map of APT weighting in percent.
    """

    name: str
    description: str
    images: ScannedImages
    protocol: dict[str, Any] | None
    files: tuple[Path, ...]
    repetitions: int = 1
    notes: tuple[str, ...] = field(default=())
    is_aptw_percent: bool = False
