"""What fills a resection cavity besides clear fluid, and the traces of blood along its wall.

After surgery a cavity may hold fluid that is rich in protein, which FLAIR does not suppress, or blood, which is bright
on T1. Methaemoglobin along the wall is bright on T1 with and without contrast agent, and therefore no enhancement.
"""

from __future__ import annotations

import torch
from torch import Tensor

from NeuroCESTLib.core.smoothing import gaussian_smooth

from .random_fields import Draw, grid_of

FILLINGS = {"fluid": 0.6, "protein": 0.25, "blood": 0.15}
"""What a cavity holds, with its frequency."""
_RANGES = {
    "fluid": {},
    "protein": {"t1": (0.0, 0.25), "t1ce": (0.0, 0.25), "t2": (-0.15, 0.1), "flair": (0.1, 0.9)},
    "blood": {"t1": (0.3, 0.8), "t1ce": (0.3, 0.8), "t2": (-0.7, 0.1), "flair": (0.2, 0.9)},
}
"""Least and greatest difference from clear fluid, in units in which white matter on T1 is about 0.85."""
_WALL_MM = 1.2
"""Standard deviation of the transition from the cavity to the brain, in which blood may lie."""


class Surgery:
    """Content and wall of the resection cavity of one visit, the same on all modalities.

    Args:
        draw: Source of the random numbers.
    """

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        filling = draw.choice(FILLINGS)
        share = draw.uniform(0, 1)  # T1 with and without contrast agent show the same blood
        self._difference = {name: low + (high - low) * share for name, (low, high) in _RANGES[filling].items()}
        self._wall = draw.uniform(0.1, 0.6) if draw.chance(0.4) else 0.0
        self._seed = int(draw.uniform(0, 1e6))

    def added(self, name: str, image: Tensor, cavity: Tensor, spacing_mm: float) -> Tensor:
        """Add content and wall to an image whose cavity is filled with clear fluid.

        Args:
            name: Modality.
            image: Image (D, H, W), with white matter on T1 at about 0.85.
            cavity: Share (D, H, W) of each voxel in the cavity, 0 to 1.
            spacing_mm: Voxel size in mm.

        Returns:
            Image (D, H, W).
        """
        places = Draw(self._seed)  # the same places on all modalities
        image = image + self._difference.get(name, 0.0) * cavity
        if self._wall and name in ("t1", "t1ce"):
            soft = gaussian_smooth(cavity[None], _WALL_MM / spacing_mm, border="replicate", truncate=3)[0]
            clots = torch.sigmoid((places.smooth(grid_of(image), 10 / spacing_mm)[0] - 0.2) * 4)
            image = image + self._wall * clots * 4 * soft * (1 - soft)
        return image.clamp_min(0)
