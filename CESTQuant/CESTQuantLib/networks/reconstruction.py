"""Reconstruction of tissue parameters from signals by a trained network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from NeuroCESTLib.core.threads import in_threads

from .architecture import ReconstructionNetwork
from .files import NetworkFile

VOXELS_AT_ONCE = 512
"""The activations of so many voxels stay in the cache, which makes the network twice as fast."""


@dataclass(frozen=True)
class Reconstruction:
    """Per voxel: mean and sd (voxel, output) in the outputs' own units, and the RMSE that the network expects."""

    mean: Tensor
    sd: Tensor
    expected_rmse: Tensor


@torch.no_grad()
def reconstruct(network: ReconstructionNetwork, signal: Tensor, threads: int | None = None) -> Reconstruction:
    """Parameters of normalised signals (voxel, measurement), in small chunks that are shared out among threads."""
    network.eval()
    signal = signal.float()
    count, outputs = len(signal), network.options["outputs"]
    result = Reconstruction(torch.empty(count, outputs), torch.empty(count, outputs), torch.empty(count))

    @torch.no_grad()
    def compute(start: int) -> None:
        part = slice(start, start + VOXELS_AT_ONCE)
        prediction = network.predict(signal[part])
        result.mean[part] = network.to_physical(prediction.mean)
        result.sd[part] = network.physical_sd(prediction)
        result.expected_rmse[part] = prediction.log_rmse.exp()

    in_threads(compute, range(0, count, VOXELS_AT_ONCE), threads)
    return result


def in_training_range(file: NetworkFile, maps: Mapping[str, Tensor]) -> list[str]:
    """Warnings for known maps (voxel,) by path that leave the range the network was trained for."""
    warnings = []
    for path, (low, high) in file.distribution.ranges().items():
        if path not in maps:
            continue
        values = maps[path][torch.isfinite(maps[path])]
        margin = 0.02 * (high - low) + 1e-3 * max(abs(low), abs(high))
        outside = float(((values < low - margin) | (values > high + margin)).double().mean()) if len(values) else 0.0
        if outside > 0.01:
            warnings.append(
                f"{100 * outside:.0f} % of the voxels have a {path} outside the range {low:g} to {high:g} that the "
                "network was trained for; do not trust it there"
            )
    return warnings
