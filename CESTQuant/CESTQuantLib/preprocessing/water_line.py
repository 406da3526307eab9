"""The water line of Z-spectra, as far as it can be seen without a fit."""

from __future__ import annotations

import torch
from torch import Tensor

from ..physics.protocol import Protocol

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


def line_centers(z: Tensor, protocol: Protocol) -> Tensor | None:
    """Return where the lower half of the spectrum near water has its centre, finer than the offsets lie.

    Noise and a flat line pull it towards 0, but do not change its side. Where several powers were acquired, it is taken
    from that with the most offsets near water.

    Args:
        z: Spectra (voxel, offset).
        protocol: Their protocol.

    Returns:
        Centres (voxel,) in ppm, NaN where a signal near water is; None where no power has five different offsets within
        1.5 ppm of 0, on both of its sides.
    """
    offsets, power = (
        protocol.offsets_ppm.double(),
        torch.round(protocol.b1_uT.expand_as(protocol.offsets_ppm), decimals=3),
    )
    near = offsets.abs() <= NEAR_WATER_PPM
    groups = [torch.nonzero(near & (power == one)).flatten() for one in power.unique()]
    chosen = max(groups, key=lambda group: len(offsets[group].unique()))
    at, place = offsets[chosen].unique(return_inverse=True)
    if len(at) < FEWEST_OFFSETS or not float(at[0]) < 0 < float(at[-1]):
        return None
    sums = z.new_zeros(len(z), len(at), dtype=torch.float64).index_add(1, place.to(z.device), z[:, chosen].double())
    values = sums / torch.bincount(place).to(sums)
    depth = (values.median(1, keepdim=True).values - values).clamp_min(0).square() * torch.gradient(at)[0].to(sums)
    return (depth * at.to(sums)).sum(1) / depth.sum(1)
