"""Dictionary matching: the simulated spectrum whose direction is nearest to that of the measured one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from NeuroCESTLib.core.progress import Progress, part, silent

from .architecture import normalize_input
from .config import TrainingConfig

_VOXELS, _ENTRIES = 1024, 16384
"""Voxels and dictionary entries of one product, which takes 64 MiB."""


@dataclass(frozen=True)
class DictionaryMatch:
    """Best dictionary entry of every voxel; NaN where the measured signal is not finite.

    Attributes:
        values: Tissue parameters of the entry by path, (voxel,).
        dot_product: Dot product of the unit vectors of measured signal and entry, (voxel,).
        signal: Signal of the entry, (voxel, measurement), normalised as the protocol says.
        rmse: Root-mean-square difference between that signal and the measured one, (voxel,).
    """

    values: dict[str, Tensor]
    dot_product: Tensor
    signal: Tensor
    rmse: Tensor


@torch.no_grad()
def match_dictionary(signal: Tensor, config: TrainingConfig, progress: Progress = silent) -> DictionaryMatch:
    """Match signals to a dictionary of ``config.samples`` simulated spectra without noise.

    Args:
        signal: Normalised signals, (voxel, measurement).
        config: What to simulate.
        progress: Called while simulating and matching; may raise to cancel.
    """
    data = config.simulate(progress=part(progress, 0.0, 0.3))
    best, index = nearest(signal, data.clean, part(progress, 0.3, 1.0))
    found = normalize_input(data.clean[index], config.protocol.signal_normalisation)
    usable = torch.isfinite(signal).all(1)
    nan = torch.tensor(torch.nan)
    rmse = torch.where(usable, (signal - found).square().mean(1).sqrt(), nan)
    values = {path: torch.where(usable, value[index], nan.double()) for path, value in data.values.items()}
    return DictionaryMatch(values, torch.where(usable, best, nan), found, rmse)


def nearest(signal: Tensor, entries: Tensor, progress: Progress = silent) -> tuple[Tensor, Tensor]:
    """Find the entry with the largest dot product of unit vectors.

    Args:
        signal: Signals, (voxel, measurement).
        entries: Signals of the dictionary, (entry, measurement).
        progress: Called after every chunk of voxels; may raise to cancel.

    Returns:
        Largest dot product and index of its entry, both of shape (voxel,).
    """
    entries = normalize_input(entries, "l2")
    best = torch.full((len(signal),), -torch.inf)
    index = torch.zeros(len(signal), dtype=torch.int64)
    for first in range(0, len(signal), _VOXELS):
        voxels = slice(first, first + _VOXELS)
        unit = normalize_input(signal[voxels].nan_to_num(0.0), "l2")
        for start in range(0, len(entries), _ENTRIES):
            products, places = (unit @ entries[start : start + _ENTRIES].T).max(1)
            better = products > best[voxels]
            best[voxels] = torch.where(better, products, best[voxels])
            index[voxels] = torch.where(better, places + start, index[voxels])
        progress(min(1.0, (first + _VOXELS) / len(signal)), "matching")
    return best, index
