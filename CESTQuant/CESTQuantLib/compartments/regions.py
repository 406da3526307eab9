"""The regions of a visit as masks on the grid of its segmentation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .grid import Grid
from .inputs import Settings, VisitInput
from .segment_names import COLORS, compartments_and_segments


@dataclass(frozen=True)
class RegionMask:
    """A region before it is brought to the CEST grid.

    Attributes:
        name: Name of the region, see ``results.Region``.
        kind: ``tumor``, ``rim``, ``reference`` or ``segment``.
        grid: Grid of the mask, in the space of the anatomy.
        mask: Boolean mask (K, J, I).
        color: Red, green and blue from 0 to 1.
    """

    name: str
    kind: str
    grid: Grid
    mask: np.ndarray
    color: tuple[float, float, float]


def regions_of(visit: VisitInput, settings: Settings) -> list[RegionMask]:
    """Return the regions of a visit.

    Raises:
        ValueError: The segmentation is empty.
    """
    if visit.segmentation is None:
        return []
    given = visit.segmentation
    if not any(mask.any() for mask in given.masks.values()):
        raise ValueError(f"the segmentation '{given.name}' is empty: no voxel is set")
    compartments, segments = compartments_and_segments(given.masks)
    found = [RegionMask(n, "tumor", given.grid, m, COLORS[n]) for n, m in compartments.items()]
    tumor = [m for n, m in compartments.items() if n != "resection_cavity"]
    if len(tumor) > 1:
        core = [compartments[n] for n in ("necrotic_core", "enhancing_tumor") if n in compartments]
        if len(core) > 1:
            found.append(RegionMask("tumor_core", "tumor", given.grid, np.any(core, axis=0), COLORS["tumor_core"]))
        found.append(RegionMask("whole_tumor", "tumor", given.grid, np.any(tumor, axis=0), COLORS["whole_tumor"]))
    found += [RegionMask(n, "segment", given.grid, m, (1.0, 0.0, 1.0)) for n, m in segments.items()]
    return found
