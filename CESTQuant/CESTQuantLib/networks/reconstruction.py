"""Reconstruction of tissue parameters from signals by a trained network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from NeuroCESTLib.core.threads import in_threads

from .architecture import ReconstructionNetwork
from .files import NetworkFile

VOXELS_AT_ONCE = 512
"""Voxels of a chunk: their activations stay in the cache, which makes the network twice as fast."""
_MARGIN = 0.02
"""Share of a training range by which known values may leave it."""
_TOLERATED_SHARE = 0.01
"""Share of the voxels that may leave a training range by more."""
_CORRELATION = " correlation"
_WEAK_CORRELATION = 0.5
"""Correlation of estimates and true values below which a schedule does not determine a quantity."""


@dataclass(frozen=True)
class Reconstruction:
    """Parameters that a network found.

    Attributes:
        mean: Parameters in their own units, (voxel, output).
        sd: Their standard deviations in the same units, (voxel, output).
        expected_rmse: RMSE of the tissue model that the network expects, (voxel,), relative to the normalised signal.
    """

    mean: Tensor
    sd: Tensor
    expected_rmse: Tensor


@torch.no_grad()
def reconstruct(
    network: ReconstructionNetwork, signal: Tensor, threads: int | None = None, *, reference_noise: float = 0.0
) -> Reconstruction:
    """Reconstruct tissue parameters.

    Args:
        network: Trained network.
        signal: Normalised signals, (voxel, measurement).
        threads: Threads that share the chunks of voxels; by default as many as torch uses.
        reference_noise: Variance of M0 relative to that of a measurement, see ``ZSpectra``. A network is trained with
            noise that differs between measurements; that of M0 scales all of them, and adds to the standard deviations
            what the estimates change by.
    """
    network.eval()
    signal = signal.float()
    count, outputs = len(signal), network.outputs
    result = Reconstruction(torch.empty(count, outputs), torch.empty(count, outputs), torch.empty(count))

    @torch.no_grad()
    def compute(start: int) -> None:
        part = slice(start, start + VOXELS_AT_ONCE)
        prediction = network.predict(signal[part])
        result.mean[part] = network.to_physical(prediction.mean)
        result.sd[part] = network.physical_sd(prediction)
        result.expected_rmse[part] = prediction.log_rmse.exp()
        if reference_noise:
            sd_of_m0 = reference_noise**0.5 * result.expected_rmse[part, None]
            scaled = network.to_physical(network.predict(signal[part] * (1 + sd_of_m0)).mean)
            result.sd[part] = torch.hypot(result.sd[part], scaled - result.mean[part])

    in_threads(compute, range(0, count, VOXELS_AT_ONCE), threads)
    return result


def weak_output_warnings(held_out: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each quantity that a network hardly finds, even for simulated tissues.

    Args:
        held_out: Errors for tissues that did not enter the training: ``"<quantity> correlation": r``, or
            ``"<quantity>": {"correlation": r}``.
    """
    correlations = {
        name.removesuffix(_CORRELATION): value for name, value in held_out.items() if name.endswith(_CORRELATION)
    }
    correlations |= {name: errors["correlation"] for name, errors in held_out.items() if isinstance(errors, Mapping)}
    return [
        f"this schedule does not determine {name}: for simulated tissues the estimates of the network "
        f"{_weak(value)}, so they are little more than the mean of the training; leave it out "
        "of the targets, or optimise a schedule for it"
        for name, value in correlations.items()
        if not value >= _WEAK_CORRELATION
    ]


def _weak(correlation: float) -> str:
    if math.isnan(correlation):
        return "are the same for all true values"
    return f"correlate with the true values by {correlation:.2f} only"


def out_of_range_warnings(file: NetworkFile, maps: Mapping[str, Tensor]) -> list[str]:
    """Return warnings about known maps that leave the ranges that a network was trained for.

    Args:
        file: Trained network.
        maps: Known values by path, (voxel,); NaN where they are unknown.
    """
    warnings = []
    for path, (low, high) in file.distribution.ranges().items():
        if path not in maps:
            continue
        values = maps[path][torch.isfinite(maps[path])]
        margin = _MARGIN * (high - low) + 1e-3 * max(abs(low), abs(high))
        outside = float(((values < low - margin) | (values > high + margin)).double().mean()) if len(values) else 0.0
        if outside > _TOLERATED_SHARE:
            warnings.append(
                f"{100 * outside:.0f} % of the voxels have a {path} outside the range {low:g} to {high:g} that the "
                "network was trained for; do not trust it there"
            )
    return warnings
