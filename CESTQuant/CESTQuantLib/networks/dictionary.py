"""Dictionary matching: the simulated spectrum whose direction is the nearest to the measured one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .architecture import normalise_input
from .config import TrainingConfig
from .dataset import simulate_dataset

_VOXELS, _ENTRIES = 1024, 16384
"""Voxels and entries of one product: 64 MiB."""


@dataclass(frozen=True)
class DictionaryMatch:
    """values: (voxel,) by path; dot_product: (voxel,) of unit vectors; signal: (voxel, measurement) of the entry,
    normalised as the protocol says; rmse: (voxel,) its distance from the measured one. NaN without a usable signal.
    """

    values: dict[str, Tensor]
    dot_product: Tensor
    signal: Tensor
    rmse: Tensor


@torch.no_grad()
def match_dictionary(
    signal: Tensor, config: TrainingConfig, progress: Callable[[float, str], None] | None = None
) -> DictionaryMatch:
    """Match normalised signals (voxel, measurement) to ``config.samples`` simulated spectra without noise."""
    report = progress or (lambda fraction, message: None)
    data = simulate_dataset(
        config.distribution,
        config.protocol,
        config.samples,
        seed=config.settings.seed,
        engine=config.engine,
        progress=lambda f, m: report(0.3 * f, m),
    )
    best, index = nearest(signal, data.clean, lambda f: report(0.3 + 0.7 * f, "matching"))
    found = normalise_input(data.clean[index], config.protocol.signal_normalisation)
    usable = torch.isfinite(signal).all(1)
    nan = torch.tensor(torch.nan)
    rmse = torch.where(usable, (signal - found).square().mean(1).sqrt(), nan)
    values = {path: torch.where(usable, value[index], nan.double()) for path, value in data.values.items()}
    return DictionaryMatch(values, torch.where(usable, best, nan), found, rmse)


def nearest(signal: Tensor, entries: Tensor, progress: Callable[[float], None] | None = None) -> tuple[Tensor, Tensor]:
    """Largest dot product (voxel,) of unit vectors and the index of its entry, for signals (voxel, measurement)."""
    entries = normalise_input(entries, "l2")
    best = torch.full((len(signal),), -torch.inf)
    index = torch.zeros(len(signal), dtype=torch.int64)
    for first in range(0, len(signal), _VOXELS):
        voxels = slice(first, first + _VOXELS)
        unit = normalise_input(signal[voxels].nan_to_num(0.0), "l2")
        for start in range(0, len(entries), _ENTRIES):
            products, places = (unit @ entries[start : start + _ENTRIES].T).max(1)
            better = products > best[voxels]
            best[voxels] = torch.where(better, products, best[voxels])
            index[voxels] = torch.where(better, places + start, index[voxels])
        if progress is not None:
            progress(min(1.0, (first + _VOXELS) / len(signal)))
    return best, index
