"""The network on prepared studies: segmentations averaged over variants of them, and the deformation."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from NeuroCESTLib.core.device import choose_device
from NeuroCESTLib.core.progress import Progress, part, silent

from ..images.grid import block_around
from ..images.labels import LABELS, classes_of_probabilities, is_tumor
from ..images.modalities import MODALITIES
from ..images.preprocessing.config import PreprocessingConfig
from ..images.preprocessing.prepared_study import PreparedStudy
from ..images.study import StudyImages
from ..network.precision import register_fast
from ..network.tiles import segment_block
from ..network.weights import LoadedWeights
from ..registration.deformation import Deformation
from .checks import CheckedStudy
from .plausibility import agreed_tumor, with_bright_enhancing, without_faint_tumor, without_tumor
from .uncertainty import MIRRORED, MeanSegmentation, Segmentation, Variant, variants_of

_SLIGHTLY_COARSER = 1.02
"""Factor by which the working grid may be coarser than the images, whose headers are rounded."""
_WHOLE = 1.0
"""Share of the brain, in hundredths, of an image that shows all of it."""


def network_preprocessing(weights: LoadedWeights) -> PreprocessingConfig:
    """Return the preprocessing that the network was trained with, on grids whose sizes it can halve.

    Raises:
        ValueError: The weights file holds settings that this version does not know.
    """
    where = "the weights" if weights.path is None else f"the weights '{weights.path}'"
    config = PreprocessingConfig.from_dict(weights.metadata.get("preprocessing", {}), f"{where}: preprocessing")
    network = weights.config
    return replace(config, multiple_of=math.lcm(config.multiple_of, network.multiple * network.stride))


def preprocessing_of(checked: CheckedStudy, weights: LoadedWeights) -> PreprocessingConfig:
    """Return the preprocessing of a study for a network, see `network_preprocessing`.

    Without contrast agent, what is bright because of the coil is easily taken for tumour. Where the weights judge by
    brightness, the bias field of a study is therefore corrected if T1 with contrast agent is absent, or does not show
    the whole brain and another image shows more of it.
    """
    config = network_preprocessing(weights)
    shares = {modality: checked.share_shown(modality) for modality in checked.study.present}
    contrast = shares.get("t1ce", -1.0) >= min(_WHOLE, max(shares.values()))
    return replace(config, n4=config.n4 or (weights.judged_by_brightness and not contrast))


def network_summary(weights: LoadedWeights | None) -> dict[str, Any]:
    """Return the name of a network and the classes that it knows, as plain values for a report; nothing without one.

    A class that the network does not know cannot be found, which is no proof of its absence.
    """
    if weights is None or weights.network.segmentation is None:
        return {}
    return {"network": {"name": weights.config.name, "classes": list(LABELS[: weights.config.classes])}}


def finest_spacing_mm(*studies: StudyImages) -> float:
    """Return the smallest distance between voxels of all images, along any axis."""
    return min(min(image.GetSpacing()) for study in studies for image in study.images.values())


def on_coarse_images(weights: LoadedWeights, finest_mm: float) -> LoadedWeights:
    """Return a network for a coarser working grid, where the images show nothing that a finer one could hold.

    A network that averages over blocks of its input, such as 2 x 2 x 2 voxels of 1 mm, sees the same from images with
    2 mm voxels on a grid of 2 mm without averaging, at an eighth of the computation around it.

    Args:
        weights: Network with its preprocessing.
        finest_mm: Smallest distance between voxels of the images, see ``finest_spacing_mm``.

    Returns:
        A network with the same weights, or the given one where a coarser grid does not suit it.
    """
    stride, spacing = weights.config.stride, network_preprocessing(weights).spacing_mm
    fitting = [n for n in range(2, stride + 1) if stride % n == 0 and spacing * n <= finest_mm * _SLIGHTLY_COARSER]
    if not fitting:
        return weights
    network = copy.copy(weights.network)  # with the same layers
    network.config = replace(weights.config, stride=stride // fitting[-1])
    preprocessing = {**weights.metadata.get("preprocessing", {}), "spacing_mm": spacing * fitting[-1]}
    return replace(weights, network=network, metadata={**weights.metadata, "preprocessing": preprocessing})


def network_device(name: str | None) -> torch.device:
    """Return the device of a torch device name; None is CUDA where there is one, else the CPU."""
    return choose_device() if name is None else torch.device(name)


def register_prepared(
    weights: LoadedWeights,
    fixed: PreparedStudy,
    moving: PreparedStudy,
    modalities: Collection[str],
    background: float,
    device: torch.device,
) -> Deformation | None:
    """Register two studies with the network.

    Args:
        weights: Network to run.
        fixed: Fixed study on the working grid.
        moving: Moving study on the same grid.
        modalities: Modalities of both studies to show to the network.
        background: Intensity outside of the brain.
        device: Device to compute on.

    Returns:
        The deformation, on the CPU; None if the network does not register, or knows none of the modalities.
    """
    network = weights.network.to(device)
    known = network.config.modalities
    common = [m in modalities for m in known]
    if network.registration is None or not any(common):
        return None
    with torch.inference_mode():
        shown = torch.tensor(common, device=device).view(1, -1, 1, 1, 1)
        blank = torch.full((), background, device=device)
        first, second = (torch.where(shown, _channels(s, known, device), blank) for s in (fixed, moving))
        return _on_cpu(register_fast(network, first, second))


def segment_prepared(
    weights: LoadedWeights,
    study: PreparedStudy,
    background: float,
    flips: bool,
    device: torch.device,
    progress: Progress = silent,
) -> Segmentation:
    """Segment one study.

    A network that normalises its features over the whole grid is shown as much background around the brain as its
    training data had; others see the smallest block around the brain. Large blocks are
    segmented by overlapping tiles, see ``network.tiles``. Where the weights say so, the brightness on T1 with contrast
    agent decides what enhances. Without that image, tumour must be bright on FLAIR, and be seen both with and without
    the correction of bias fields, see ``plausibility``.

    Args:
        weights: Network to run; it must have a segmentation head.
        study: Study on its working grid.
        background: Intensity of absent images, and outside of a brain that fills the grid.
        flips: Average over the variants of ``uncertainty``.
        device: Device to compute on.
        progress: May raise to cancel.

    Returns:
        The segmentation on the whole working grid, on the CPU.
    """
    faint = weights.judged_by_brightness and "t1ce" not in study.present
    if faint and flips and study.uncorrected is not None:
        return _segmented_twice(weights, study, background, device, progress)
    known = weights.network.config.modalities
    present = [m for m in known if m in study.present]
    variants = variants_of(present, weights.hides_modalities) if flips else MIRRORED[:1]
    found = _averaged(weights, study, variants, background, device, progress)
    if faint:
        return _without_faint(found, study)
    return _by_brightness(found, study) if weights.judged_by_brightness else found


def _segmented_twice(
    weights: LoadedWeights, study: PreparedStudy, background: float, device: torch.device, progress: Progress
) -> Segmentation:
    """Segment a study with and without the correction of bias fields, and keep what both show."""
    assert study.uncorrected is not None
    views = (study, MIRRORED[::2]), (replace(study, images=study.uncorrected), MIRRORED[1::2])
    found = [
        _averaged(weights, view, variants, background, device, part(progress, number / 2, (number + 1) / 2))
        for number, (view, variants) in enumerate(views)
    ]
    before = classes_of_probabilities((found[0].probabilities + found[1].probabilities) / 2)
    bright = [_without_faint(f, study) for f in found]
    agreed, disputed = agreed_tumor(*(f.probabilities for f in bright))
    kept = [f.with_probabilities(without_tumor(f.probabilities, disputed)) for f in bright]
    after = Segmentation(agreed, torch.cat([f.counts for f in kept])).with_probabilities(agreed)
    removed = is_tumor(before) & ~is_tumor(after.labels)
    return replace(after, removed=removed if bool(removed.any()) else None)


def _averaged(
    weights: LoadedWeights,
    study: PreparedStudy,
    variants: Sequence[Variant],
    background: float,
    device: torch.device,
    progress: Progress,
) -> Segmentation:
    """Average the network's segmentations of variants of a study, on its whole grid."""
    network = weights.network.to(device)
    known = network.config.modalities
    block = block_around(study.mask, network.config.multiple * network.config.stride, weights.brain_share)
    values = study.outside(background)
    outside = [values[MODALITIES.index(m)] for m in known]
    images = block.take(_channels(study, known, device), outside)
    mean = MeanSegmentation(block.take(study.mask).to(device))
    with torch.inference_mode():
        for number, variant in enumerate(variants):
            progress((number + 0.1) / len(variants), "segmenting")
            shown = _shown(images, variant, known, background)
            step = part(progress, number / len(variants), (number + 1) / len(variants))
            beyond = [background if m in variant.hidden else value for m, value in zip(known, outside, strict=True)]
            mean.add(variant, segment_block(network, shown, beyond, progress=step))
    return mean.result().placed(block, study.mask.shape)


def _shown(images: Tensor, variant: Variant, modalities: Sequence[str], background: float) -> Tensor:
    """Images (1, C, D, H, W) of these modalities as a variant shows them."""
    if variant.hidden:
        images = images.clone()
        images[:, [channel for channel, name in enumerate(modalities) if name in variant.hidden]] = background
    return variant.apply(images)


def _by_brightness(found: Segmentation, study: PreparedStudy) -> Segmentation:
    """Decide by the brightness on T1 with contrast agent what enhances, where the images are known."""
    t1ce, t1 = (study.images[MODALITIES.index(m)] if m in study.present else None for m in ("t1ce", "t1"))
    assert t1ce is not None
    known = study.mask & study.shown(["t1ce"])
    if t1 is not None:
        known = known & study.shown(["t1"])
    return found.with_probabilities(with_bright_enhancing(found.probabilities, t1ce, t1, known, study.grid.spacing_mm))


def _without_faint(found: Segmentation, study: PreparedStudy) -> Segmentation:
    """Remove tumour that is not bright on FLAIR, where that is known."""
    if "flair" not in study.present:
        return found
    flair, known = study.images[MODALITIES.index("flair")], study.mask & study.shown(["flair"])
    probabilities, removed = without_faint_tumor(found.probabilities, flair, known, study.grid.spacing_mm)
    return replace(found.with_probabilities(probabilities), removed=removed) if bool(removed.any()) else found


def _channels(study: PreparedStudy, modalities: tuple[str, ...], device: torch.device) -> Tensor:
    """Images (1, C, D, H, W) of the network's modalities."""
    return study.images[None, [MODALITIES.index(m) for m in modalities]].to(device)


def _on_cpu(deformation: Deformation) -> Deformation:
    with torch.inference_mode(False):
        return Deformation(
            _plain_copy(deformation.displacement),
            None if deformation.inverse is None else _plain_copy(deformation.inverse),
            None if deformation.velocity is None else _plain_copy(deformation.velocity),
        )


def _plain_copy(field: Tensor) -> Tensor:
    # A copy, because tensors made in inference mode cannot take part in the optimisation that follows.
    return field.detach().float().cpu().clone()
