"""The network on prepared studies: segmentations averaged over mirrored copies, and the deformation."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from NeuroCESTLib.core.device import choose_device
from NeuroCESTLib.core.progress import Progress, part, silent

from ..images.grid import block_around
from ..images.modalities import MODALITIES
from ..images.preprocessing import PreparedStudy, PreprocessingConfig
from ..network.precision import run_fast, segment_fast
from ..network.weights import LoadedWeights
from ..registration.deformation import Deformation
from .uncertainty import VARIANTS, MeanSegmentation, Segmentation


@dataclass(frozen=True)
class NetworkResult:
    """What the network says of a pair on the working grid, on the CPU.

    Attributes:
        fixed: Segmentation of the fixed study; None if the network does not segment.
        moving: Segmentation of the moving study; None if the network does not segment.
        deformation: Deformation of the moving to the fixed study; None if the network does not register.
    """

    fixed: Segmentation | None = None
    moving: Segmentation | None = None
    deformation: Deformation | None = None


def network_preprocessing(weights: LoadedWeights) -> PreprocessingConfig:
    """Return the preprocessing that the network was trained with, on grids whose sizes it can halve.

    Raises:
        ValueError: The weights file holds settings that this version does not know.
    """
    config = PreprocessingConfig.from_dict(dict(weights.metadata.get("preprocessing", {})))
    network = weights.config
    return replace(config, multiple_of=math.lcm(config.multiple_of, network.multiple * network.stride))


def network_device(name: str | None) -> torch.device:
    """Return the device of a torch device name; None is CUDA where there is one, else the CPU."""
    return choose_device() if name is None else torch.device(name)


def run_network(
    weights: LoadedWeights,
    fixed: PreparedStudy,
    moving: PreparedStudy,
    background: float,
    flips: bool,
    device: torch.device,
    progress: Progress,
) -> NetworkResult:
    """Segment both studies from all their modalities and register them by the modalities that both have.

    Args:
        weights: Network to run.
        fixed: Fixed study on the working grid.
        moving: Moving study on the same grid.
        background: Intensity outside of the brain.
        flips: Average the segmentation over the variants of ``uncertainty``.
        device: Device to compute on.
        progress: May raise to cancel.
    """
    network = weights.network.to(device)
    modalities = network.config.modalities
    deformation: Deformation | None = None
    common = [m in fixed.present and m in moving.present for m in modalities]
    with torch.inference_mode():
        if network.registration is not None and any(common):
            progress(0.0, "registering with the network")
            shown = torch.tensor(common, device=device).view(1, -1, 1, 1, 1)
            blank = torch.full((), background, device=device)
            first, second = (torch.where(shown, _channels(s, modalities, device), blank) for s in (fixed, moving))
            deformation = _on_cpu(run_fast(network, first, second).deformation)
            del first, second
    if network.segmentation is None:
        return NetworkResult(deformation=deformation)
    return NetworkResult(
        segment_prepared(weights, fixed, background, flips, device, part(progress, 0.0, 0.5)),
        segment_prepared(weights, moving, background, flips, device, part(progress, 0.5, 1.0)),
        deformation,
    )


def segment_prepared(
    weights: LoadedWeights,
    study: PreparedStudy,
    background: float,
    flips: bool,
    device: torch.device,
    progress: Progress = silent,
) -> Segmentation:
    """Segment one study, shown with as much background around its brain as the training data had.

    Args:
        weights: Network to run; it must have a segmentation head.
        study: Study on its working grid.
        background: Intensity outside of the brain.
        flips: Average over the variants of ``uncertainty``.
        device: Device to compute on.
        progress: May raise to cancel.

    Returns:
        The segmentation on the whole working grid, on the CPU.
    """
    network = weights.network.to(device)
    block = block_around(study.mask, network.config.multiple * network.config.stride, weights.brain_share)
    images = block.take(_channels(study, network.config.modalities, device), background)
    mean = MeanSegmentation(block.take(study.mask).to(device))
    variants = VARIANTS if flips else VARIANTS[:1]
    with torch.inference_mode():
        for number, variant in enumerate(variants):
            progress((number + 0.1) / len(variants), "segmenting")
            mean.add(variant, segment_fast(network, variant.apply(images)))
    return mean.result().placed(block, study.mask.shape)


def _channels(study: PreparedStudy, modalities: tuple[str, ...], device: torch.device) -> Tensor:
    """Images (1, C, D, H, W) of the network's modalities."""
    return study.images[None, [MODALITIES.index(m) for m in modalities]].to(device)


def _on_cpu(deformation: Deformation | None) -> Deformation | None:
    if deformation is None:
        return None
    with torch.inference_mode(False):
        return Deformation(
            _plain_copy(deformation.displacement),
            None if deformation.inverse is None else _plain_copy(deformation.inverse),
            None if deformation.velocity is None else _plain_copy(deformation.velocity),
        )


def _plain_copy(field: Tensor) -> Tensor:
    # A copy, because tensors made in inference mode cannot take part in the optimisation that follows.
    return field.detach().float().cpu().clone()
