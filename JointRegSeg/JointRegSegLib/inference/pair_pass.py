"""The network on two prepared studies, whose images may show different parts of the brain."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from NeuroCESTLib.core.progress import Progress, part, silent

from ..images.modalities import MODALITIES
from ..images.preprocessing.prepared_study import PreparedStudy
from ..network.weights import LoadedWeights
from ..registration.deformation import Deformation
from .network_pass import network_preprocessing, register_prepared, segment_prepared
from .uncertainty import MIRRORED, Segmentation

_COMPLETE = 0.99
"""Share of the brain from which on an image is shown to the network as it is."""
_LEAST_SHARE = 0.01
"""Smallest share of the brain that is segmented by itself from the images that show it."""
_SAMPLES = 20000


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


def run_network(
    weights: LoadedWeights,
    fixed: PreparedStudy,
    moving: PreparedStudy,
    background: float,
    flips: bool,
    device: torch.device,
    progress: Progress,
    register: bool = True,
) -> NetworkResult:
    """Segment both studies from all their modalities and register them by the modalities that both have.

    The network registers by images alone that show the whole brain of both visits, because it was never shown a part of
    a brain beside a whole one.

    Args:
        weights: Network to run.
        fixed: Fixed study on the working grid.
        moving: Moving study on the same grid.
        background: Intensity outside of the brain.
        flips: Average the segmentation over the variants of ``uncertainty``.
        device: Device to compute on.
        progress: May raise to cancel.
        register: Whether the deformation is wanted.
    """
    brain = fixed.mask | moving.mask
    common = [
        m
        for m in fixed.present
        if m in moving.present and min(_share(s, m, brain) for s in (fixed, moving)) > _COMPLETE
    ]
    deformation: Deformation | None = None
    if register:
        progress(0.0, "registering with the network")
        deformation = register_prepared(weights, fixed, moving, common, background, device)
    if weights.network.segmentation is None:
        return NetworkResult(deformation=deformation)
    return NetworkResult(
        segment_by_coverage(weights, fixed, background, flips, device, part(progress, 0.0, 0.5)),
        segment_by_coverage(weights, moving, background, flips, device, part(progress, 0.5, 1.0)),
        deformation,
    )


def segment_by_coverage(
    weights: LoadedWeights,
    study: PreparedStudy,
    background: float,
    flips: bool,
    device: torch.device,
    progress: Progress = silent,
) -> Segmentation:
    """Segment one study, each part of its brain from the images that show that part.

    A network was trained with whole images and with absent ones. An image that shows a part of the brain is therefore
    absent where the other part is segmented. Where its own part is segmented it is continued beyond it, by what the
    other images let expect, so that its edge does not look like one of the anatomy.

    Args:
        weights: Network to run; it must have a segmentation head.
        study: Study on its working grid.
        background: Intensity outside of the brain.
        flips: Average over the variants of ``uncertainty``.
        device: Device to compute on.
        progress: May raise to cancel.

    Returns:
        The segmentation on the whole working grid; what no image shows is background.
    """
    used = [m for m in study.present if m in weights.config.modalities]
    if all(_share(study, m, study.mask) > _COMPLETE for m in used):
        return segment_prepared(weights, _as_trained(study, tuple(used), weights), background, flips, device, progress)
    parts = _parts(study, used)
    total = torch.zeros((), dtype=torch.float32)
    counts = torch.zeros((), dtype=torch.float64)
    removed = torch.zeros_like(study.mask)
    for number, (modalities, where) in enumerate(parts):
        shown = _continued(_as_trained(study, modalities, weights), modalities, where, background)
        step = part(progress, number / len(parts), (number + 1) / len(parts))
        found = segment_prepared(weights, shown, background, flips, device, step)
        total = total + found.probabilities * where
        counts = counts + _counted(found, where)
        if found.removed is not None:
            removed |= found.removed & where
    nothing = 1 - total.sum(0)
    total[0] += nothing
    counts[:, 0] += nothing.sum().to(counts.dtype)
    return Segmentation(total, counts.round().long(), removed if bool(removed.any()) else None)


def _share(study: PreparedStudy, modality: str, brain: Tensor) -> float:
    """Share of the brain that an image shows."""
    return int((study.shown([modality]) & brain).sum()) / max(int(brain.sum()), 1)


def _parts(study: PreparedStudy, modalities: list[str]) -> list[tuple[tuple[str, ...], Tensor]]:
    """Parts of the brain (D, H, W) that the same images show, with these images; slivers join the fullest part."""
    code = torch.zeros(study.mask.shape, dtype=torch.uint8)
    for bit, modality in enumerate(modalities):
        code += study.shown([modality]).to(torch.uint8) << bit
    code[~study.mask] = 0
    sizes = torch.bincount(code.flatten(), minlength=2 ** len(modalities))
    sizes[0] = 0  # what no image shows
    large = [int(c) for c in torch.nonzero(sizes >= _LEAST_SHARE * sizes.sum()).flatten()]
    fullest = max(large, key=lambda c: (int(c).bit_count(), int(sizes[c])))
    for c in torch.nonzero(sizes).flatten().tolist():
        if c not in large:
            code[code == c] = fullest
    return [(tuple(m for bit, m in enumerate(modalities) if c >> bit & 1), code == c) for c in large]


def _as_trained(study: PreparedStudy, modalities: tuple[str, ...], weights: LoadedWeights) -> PreparedStudy:
    """Study without the correction of bias fields that was only for the parts without T1 with contrast agent."""
    if study.uncorrected is None or "t1ce" not in modalities or network_preprocessing(weights).n4:
        return study
    return replace(study, images=study.uncorrected, uncorrected=None, bias_corrected=False)


def _continued(study: PreparedStudy, modalities: tuple[str, ...], where: Tensor, background: float) -> PreparedStudy:
    """Study with these images alone, each continued over the brain that it does not show."""
    complete = [m for m in modalities if bool((study.shown([m]) | ~study.mask).all())]
    images, uncorrected = (
        None if i is None else _extrapolated(i, study, modalities, complete, background)
        for i in (study.images, study.uncorrected)
    )
    assert images is not None
    # Without a complete image to continue the others by, only the part itself is brain.
    mask = study.mask if complete else where
    return replace(study, images=images, uncorrected=uncorrected, present=modalities, mask=mask)


def _extrapolated(
    given: Tensor, study: PreparedStudy, modalities: tuple[str, ...], complete: list[str], background: float
) -> Tensor:
    """Images (modality, D, H, W), each continued by what the complete ones let expect; the others are absent."""
    images = torch.full_like(given, background)
    basis = torch.stack([torch.ones_like(given[0]), *(given[MODALITIES.index(m)] for m in complete)])
    for modality in modalities:
        channel = MODALITIES.index(modality)
        images[channel] = given[channel]
        missing = study.mask & ~study.shown([modality])
        known = study.mask & study.shown([modality])
        if complete and bool(missing.any()):
            rows, values = basis[:, known].T, given[channel][known]
            step = max(1, len(values) // _SAMPLES)
            weights = torch.linalg.lstsq(rows[::step].double(), values[::step, None].double()).solution[:, 0].float()
            limits = float(values.min()), float(values.max())
            images[channel][missing] = (weights @ basis[:, missing]).clamp(*limits)
    return images


def _counted(found: Segmentation, where: Tensor) -> Tensor:
    """Voxels (variant, class) of a part, with the spread over the variants that the whole segmentation has."""
    inside = torch.bincount(found.labels[where].flatten().long(), minlength=len(found.probabilities)).double()
    counts = found.counts.double()
    if len(counts) > 1:  # other parts may have another number of variants
        counts = counts.repeat(len(MIRRORED) // len(counts), 1)
    return counts / counts.mean(0).clamp(min=1) * inside
