"""The network on a pair of prepared studies: segmentations with test-time variants, and the deformation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .deformation import Deformation
from .modalities import MODALITIES
from .precision import run_fast, segment_fast
from .preprocessing import PreparedStudy
from .uncertainty import VARIANTS, MeanSegmentation, Segmentation
from .weights import LoadedWeights
from .working_grid import smallest_block


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
    channels = [MODALITIES.index(m) for m in modalities]
    first, second = (study.images[None, channels].to(device) for study in (fixed, moving))
    variants = VARIANTS if flips and network.segmentation is not None else VARIANTS[:1]
    common = [m in fixed.present and m in moving.present for m in modalities]
    alike = fixed.present == moving.present
    deformation: Deformation | None = None
    # each study on no more background than its own brain needs, which networks with instance norm are sensitive to
    blocks = [smallest_block(study.mask, network.config.multiple * network.config.stride) for study in (fixed, moving)]
    means = [MeanSegmentation(s.mask[block].to(device)) for s, block in zip((fixed, moving), blocks, strict=True)]
    with torch.inference_mode():
        if not alike and network.registration is not None and any(common):
            progress(0.0, "registering with the network")
            shown = torch.tensor(common, device=device).view(1, -1, 1, 1, 1)
            blank = torch.full((), background, device=device)
            output = run_fast(network, torch.where(shown, first, blank), torch.where(shown, second, blank))
            deformation = _on_processor(output.deformation)
        progress(0.02, "segmenting" if network.segmentation is not None else "registering")
        output = run_fast(network, first, second)
        if alike:
            deformation = _on_processor(output.deformation)
        logits = [output.fixed_logits, output.moving_logits]
        del output
        for number, variant in enumerate(variants if network.segmentation is not None else ()):
            for which, study in enumerate((first, second)):
                progress((number + which / 2 + 0.1) / len(variants), "segmenting")
                part = study[(..., *blocks[which])]
                if number or part.shape != study.shape:
                    logits[which] = segment_fast(network, variant.apply(part))
                means[which].add(variant, logits[which])
                logits[which] = None
    if network.segmentation is None:
        return NetworkResult(None, None, deformation)
    shape = fixed.mask.shape
    segmentations = [mean.result().placed(block, shape) for mean, block in zip(means, blocks, strict=True)]
    return NetworkResult(*segmentations, deformation)


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
