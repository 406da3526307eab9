"""The water line of Z-spectra, as far as it can be seen without a fit."""

from __future__ import annotations

import torch
from torch import Tensor

NEAR_WATER_PPM = 1.5
FEWEST_OFFSETS = 5


def lowest_offsets(z: Tensor, offsets_ppm: Tensor) -> tuple[Tensor, float] | None:
    """Return the offset of the smallest signal of every voxel.

    Args:
        z: Spectra (voxel, offset).
        offsets_ppm: Offsets (offset,) in ppm.

    Returns:
        Offsets (voxel,) in ppm, NaN where the smallest signal lies at the end of the sampled range or a signal is NaN,
        and the largest distance of neighbouring offsets near water. None where fewer than five different offsets lie
        within 1.5 ppm of 0, or none on one of its sides.
    """
    offsets = offsets_ppm.to(z)
    near = offsets[offsets.abs() <= NEAR_WATER_PPM].unique()
    if len(near) < FEWEST_OFFSETS or not float(near[0]) < 0 < float(near[-1]):
        return None
    lowest = offsets[z.nan_to_num(nan=torch.inf).argmin(1)]
    inside = (lowest > offsets.min()) & (lowest < offsets.max())
    return torch.where(inside & torch.isfinite(z).all(1), lowest, torch.nan), float(near.diff().max())
