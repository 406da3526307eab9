"""Reconstruction of tissue parameters from signals by a trained network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .network import ReconstructionNetwork
from .network_file import NetworkFile

VOXELS_A_CHUNK = 8192


@dataclass(frozen=True)
class Reconstruction:
    """Per voxel: mean and sd (voxel, output) in the outputs' own units, and the RMSE that the network expects."""

    mean: Tensor
    sd: Tensor
    expected_rmse: Tensor


@torch.no_grad()
def reconstruct(network: ReconstructionNetwork, signal: Tensor) -> Reconstruction:
    """Parameters of normalised signals (voxel, measurement); NaN where a signal is not finite."""
    network.eval()
    parts = []
    for part in signal.float().split(VOXELS_A_CHUNK):
        prediction = network.predict(part)
        parts.append((network.to_physical(prediction.mean), network.physical_sd(prediction), prediction.log_rmse.exp()))
    if not parts:
        outputs = network.options["outputs"]
        return Reconstruction(torch.empty(0, outputs), torch.empty(0, outputs), torch.empty(0))
    return Reconstruction(*(torch.cat(column) for column in zip(*parts, strict=True)))


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
