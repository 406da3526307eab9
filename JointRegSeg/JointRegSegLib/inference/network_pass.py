"""The network on a pair of prepared studies: segmentations with test-time variants, and the deformation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..images.grid import block_around
from ..images.modalities import MODALITIES
from ..images.preprocessing import PreparedStudy
from ..network.precision import run_fast, segment_fast
from ..network.weights import LoadedWeights
from ..registration.deformation import Deformation
from .uncertainty import VARIANTS, MeanSegmentation, Segmentation


@dataclass(frozen=True)
class NetworkResult:
    """Segmentations and deformation on the working grid, on the processor; None for heads that the network lacks."""

    fixed: Segmentation | None
    moving: Segmentation | None
    deformation: Deformation | None


def run_network(
    weights: LoadedWeights,
    fixed: PreparedStudy,
    moving: PreparedStudy,
    background: float,
    flips: bool,
    device: torch.device,
    progress: Callable[[float, str], None],
) -> NetworkResult:
    """Segment both studies from all their modalities, and register them by the modalities that both have.

    background: value outside of the brain. flips: average over the variants of ``uncertainty``. ``progress`` may raise
    to cancel.
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
            deformation = _on_processor(run_fast(network, first, second).deformation)
            del first, second
    if network.segmentation is None:
        return NetworkResult(None, None, deformation)
    found = [
        segment_prepared(
            weights, study, background, flips, device, lambda f, which=which: progress((f + which) / 2, "segmenting")
        )
        for which, study in enumerate((fixed, moving))
    ]
    return NetworkResult(found[0], found[1], deformation)


def segment_prepared(
    weights: LoadedWeights,
    study: PreparedStudy,
    background: float,
    flips: bool,
    device: torch.device,
    progress: Callable[[float], None] = lambda fraction: None,
) -> Segmentation:
    """Classes of one study, on as much background around its brain as the network was trained with."""
    network = weights.network.to(device)
    block = block_around(study.mask, network.config.multiple * network.config.stride, weights.brain_share)
    images = block.take(_channels(study, network.config.modalities, device), background)
    mean = MeanSegmentation(block.take(study.mask).to(device))
    variants = VARIANTS if flips else VARIANTS[:1]
    with torch.inference_mode():
        for number, variant in enumerate(variants):
            progress((number + 0.1) / len(variants))
            mean.add(variant, segment_fast(network, variant.apply(images)))
    return mean.result().placed(block, study.mask.shape)


def _channels(study: PreparedStudy, modalities: tuple[str, ...], device: torch.device) -> Tensor:
    """Images (1, C, D, H, W) of the network's modalities."""
    return study.images[None, [MODALITIES.index(m) for m in modalities]].to(device)


def _on_processor(deformation: Deformation | None) -> Deformation | None:
    def brought(field: Tensor | None) -> Tensor | None:
        # a copy: tensors of inference mode cannot take part in the optimisation that follows
        return None if field is None else field.detach().float().cpu().clone()

    if deformation is None:
        return None
    with torch.inference_mode(False):
        return Deformation(
            brought(deformation.displacement), brought(deformation.inverse), brought(deformation.velocity)
        )
