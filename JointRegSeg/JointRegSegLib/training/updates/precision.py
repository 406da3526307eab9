"""The number format of a training."""

from __future__ import annotations

import warnings
from dataclasses import replace

import torch

from NeuroCESTLib.core.processes import Processes

from ...network.configuration import NetworkConfig
from ...network.precision import Precision, has_bfloat16_instructions
from ..settings import TrainingSettings


def for_gradients(precision: Precision, depth: int, network: NetworkConfig, device: torch.device) -> Precision:
    """Choose a number format in which the gradients of a volume are right.

    On processors the weights' gradient of a 3x3x3 convolution in bfloat16 is arbitrary where the map is two voxels
    deep (torch 2.13 with oneDNN; found by comparison with float32): such volumes are computed in float32.

    Args:
        precision: Wanted format.
        depth: Size of the volume along D, after the stride.
        network: Configuration of the network.
        device: Device that computes.
    """
    depths = [depth >> level for level in range(network.levels)]
    if device.type == "cpu" and precision.dtype == "bfloat16" and 2 in depths:
        return replace(precision, dtype="float32")
    return precision


def choose_precision(settings: TrainingSettings, device: torch.device) -> Precision:
    """Choose the number format that the settings ask for; ``auto`` takes the fastest.

    On a GPU that is bfloat16 where the GPU supports it, and float16 otherwise; on a processor bfloat16 where it has
    instructions for it, and float32 otherwise. Nothing is timed, so that a training repeats itself on a busy machine.
    A processor without such instructions computes bfloat16 about twenty times as slowly as float32, which is told.

    Args:
        settings: Settings of the training.
        device: Device that computes.

    Raises:
        ValueError: float16 is asked for on a processor.
    """
    channels_last = settings.channels_last is not False
    if device.type == "cuda":
        fastest = "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
        return Precision(fastest if settings.precision == "auto" else settings.precision, channels_last)
    if settings.precision == "float16":
        raise ValueError("precision 'float16' needs a GPU; use auto, float32 or bfloat16")
    fastest = "bfloat16" if has_bfloat16_instructions() else "float32"
    if settings.precision == "bfloat16" and fastest != "bfloat16":
        warnings.warn(
            "this processor has no instructions for bfloat16, in which a training takes many times as long as in "
            "float32: set training.precision to 'auto' or 'float32'",
            stacklevel=2,
        )
    return Precision(fastest if settings.precision == "auto" else settings.precision, channels_last)


def common_precision(precision: Precision, processes: Processes, device: torch.device) -> Precision:
    """Give all processes the choice of rank 0, because they may have measured differently."""
    rounded = torch.tensor(float(precision.dtype == "bfloat16"), device=device)
    processes.share([rounded])
    if precision.dtype == "float16":
        return precision
    return replace(precision, dtype="bfloat16" if rounded else "float32")
