"""The water line of Z-spectra, as far as it can be seen without a fit."""

from __future__ import annotations

import torch
from torch import Tensor

from ..physics.protocol import Protocol
from ..tissue.spectra import ZSpectra

NEAR_WATER_PPM = 1.5
FEWEST_OFFSETS = 5
ON_WATER_PPM = 0.5
OFF_WATER_PPM = 3.0
"""Farthest offsets that are closer to water than this are not compared with those on it."""
SATURATED = 0.9
"""Mean signal on water, relative to that at the farthest offsets, from which on a spectrum shows no water line."""
LARGEST_Z = 2.0
"""Signals of air relative to M0 have no limit."""


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


def water_warnings(spectra: ZSpectra) -> list[str]:
    """Return a sentence where the mean spectrum is not lower on water than far from it, at any power.

    Water lies at 0, where a B0 map has it, or at the lowest mean signal if that is within 1.5 ppm of 0, so that a shift
    of B0 is not taken for a missing line. Nothing is said where no offset lies within 0.5 ppm of 0 or of the water of
    the map, or none far from it, and where the signal depends on the measurements before it, starts inverted, or is
    normalised to length one.

    Args:
        spectra: Normalised spectra.
    """
    protocol = spectra.protocol
    changing = protocol.magnetisation_carried_over or protocol.events is not None
    if changing or protocol.initial_magnetisation < 0 or protocol.signal_normalisation == "l2":
        return []
    voxels = torch.isfinite(spectra.signal).all(1)
    if not bool(voxels.any()):
        return []
    signal = spectra.signal[voxels].abs().clamp_max(LARGEST_Z)
    if spectra.brightness is not None:  # which leaves air, where there is no mask, no weight
        signal = signal * spectra.brightness[voxels].nan_to_num(0.0).to(signal).unsqueeze(1)
    signal, offsets = signal.cpu(), protocol.offsets_ppm
    mean, distance = signal.mean(0), offsets.abs()
    power = torch.round(protocol.b1_uT.expand_as(distance), decimals=3)
    shares = []
    for one in power.unique():
        own = power == one
        off = own & (distance >= distance[own].max() / 2) & (distance >= OFF_WATER_PPM)
        if not bool(off.any()):
            continue
        expected = [offsets.new_zeros(len(signal))]
        if spectra.b0_shift_ppm is not None:
            expected.append(spectra.b0_shift_ppm[voxels].cpu().nan_to_num(0.0).to(offsets))
        if all(bool(((offsets[own] - place[:, None]).abs() > ON_WATER_PPM).all()) for place in expected):
            continue
        lowest = offsets[own][mean[own].argmin()]
        shifted = [lowest.expand(len(signal))] if bool(lowest.abs() <= NEAR_WATER_PPM) else []
        for place in (*expected, *shifted):
            on = own & ((offsets - place[:, None]).abs() <= ON_WATER_PPM)
            with_any = on.any(1)
            if bool(with_any.any()):
                on_water = (signal * on).sum(1)[with_any] / on.sum(1)[with_any]
                shares.append(float(on_water.mean() / signal[with_any][:, off].mean()))
    if not shares or min(shares) <= SATURATED:
        return []
    return [
        f"the spectra show no water line: their mean on water is {100 * min(shares):.0f} % of that at the farthest "
        "offsets, as of noise, or of offsets in another order or unit; check signal, mask and protocol"
    ]
