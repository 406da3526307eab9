"""A part of the brain at one visit, and the names of regions."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np

CONTRALATERAL = "contralateral"
"""Name of the reference region: the mirror image of the whole tumour."""
WHITE_MATTER = "white_matter"
"""Name of the normal-appearing white matter."""


def title_of(name: str) -> str:
    """Return the name of a region as shown to readers, in British spelling."""
    return name.replace("_", " ").replace("tumor", "tumour").replace("edema", "oedema").capitalize()


@dataclass(frozen=True)
class Region:
    """A part of the brain at one visit.

    Attributes:
        name: ``necrotic_core``, ``edema``, ``enhancing_tumor``, ``resection_cavity``, ``tumor_core``, ``whole_tumor``,
            ``rim_<mm>mm``, ``contralateral``, ``white_matter``, or the name of a user's segment.
        kind: ``tumor``, ``rim``, ``reference`` or ``segment``.
        weights: Share of each CEST voxel that lies in the region, 0 to 1, float32 (K, J, I): its partial volume. The
            contour at 0.5 is the outline. Empty, (0, 0, 0), for a visit without CEST.
        mask: The region on ``Visit.mask_grid``, bool, in the space of the anatomy.
        volume_ml: Volume on the grid of the segmentation, in ml.
        covered_ml: Volume that lies in the voxels of the CEST slab, in ml.
        color: Red, green and blue from 0 to 1.
        at_least: Whether the volume is only the least one, because the anatomical images do not show all of the region.
    """

    name: str
    kind: str
    weights: np.ndarray
    mask: np.ndarray
    volume_ml: float
    covered_ml: float
    color: tuple[float, float, float] = (1.0, 1.0, 1.0)
    at_least: bool = False

    @property
    def coverage(self) -> float:
        """Share of the region, 0 to 1, that lies in the CEST slab; NaN for an empty region."""
        return min(self.covered_ml / self.volume_ml, 1.0) if self.volume_ml > 0 else nan

    @property
    def title(self) -> str:
        """Name as shown to readers, in British spelling."""
        return title_of(self.name)
