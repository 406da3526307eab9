"""The joint task: segmentation of two studies and their registration, with the loss of Estienne et al. 2020."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..images.labels import CAVITY, LABELS, REGIONS, classes_of_logits, region
from ..losses.config import LossConfig
from ..losses.registration import registration_loss, tumor_of_labels, tumor_of_logits
from ..losses.segmentation import segmentation_loss
from ..metrics.deformation import jacobian_statistics
from ..metrics.overlap import dice, region_scores
from ..network.joint import JointOutput
from ..registration.deformation import jacobian_determinant, warp_labels
from .protocol import StudyPair, Task

_REGION_SCORES = tuple(f"dice_{name}" for name in REGIONS)
_CAVITY_SCORE = f"dice_{LABELS[CAVITY]}"


def joint_loss(
    output: JointOutput, pair: StudyPair, config: LossConfig | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the loss of both studies' segmentation plus beta times that of their registration.

    Args:
        output: Output of the network for the two studies.
        pair: The studies with their labels, where there are any.
        config: Terms and weights; None for the defaults.

    Returns:
        The total, and its parts without gradient: 'segmentation' (mean over the studies with labels), 'registration'
        (before the factor beta), and the terms of the registration.

    Raises:
        ValueError: There is nothing to train, as there are neither labels nor a deformation, or the loss does not fit
            the network.
    """
    config = config or LossConfig()
    total, parts = pair.fixed.new_zeros(()), {}
    with torch.autocast(pair.fixed.device.type, enabled=False):
        losses = _segmentation_losses(output, pair, config)
        if not losses and output.deformation is None:
            raise ValueError("there is nothing to train: the studies have no labels and the network no registration")
        if losses:
            parts["segmentation"] = _sum(losses) / len(losses)
            total = total + parts["segmentation"]
        if output.deformation is not None:
            fixed_tumor = moving_tumor = None
            if config.relaxed:
                fixed_tumor = _tumor(output.fixed_logits, pair.fixed_labels, config)
                moving_tumor = _tumor(output.moving_logits, pair.moving_labels, config)
            terms = registration_loss(pair.fixed, pair.moving, output.deformation, config, fixed_tumor, moving_tumor)
            parts["registration"] = _sum(list(terms.values()))
            parts |= terms
            total = total + config.registration_weight * parts["registration"]
    return total, {name: value.detach() for name, value in parts.items()}


def joint_scores(output: JointOutput, pair: StudyPair) -> dict[str, float]:
    """Score the segmentation of both studies and the deformation between them.

    Args:
        output: Output of the network for one pair (B = 1).
        pair: The studies with their labels, where there are any, and the brain of the fixed one.

    Returns:
        ``dice_<region>``, the mean over both studies, and ``dice``, the mean over the regions of the tumour;
        ``folded_fraction`` and ``sd_log_jacobian`` of the map in the fixed brain; ``warped_dice``, the overlap of the
        whole tumour in the fixed and the warped moving labels. Scores for which labels or a head are missing are left
        out.
    """
    scores: dict[str, float] = {}
    sides = ((output.fixed_logits, pair.fixed_labels), (output.moving_logits, pair.moving_labels))
    found = [
        region_scores(_array(classes_of_logits(logits[0])), _array(labels[0]), (1.0, 1.0, 1.0), distances=False)
        for logits, labels in sides
        if logits is not None and labels is not None
    ]
    if found:
        scores |= {name: float(np.mean([one[name] for one in found])) for name in _REGION_SCORES}
        if cavity := [one[_CAVITY_SCORE] for one in found if _CAVITY_SCORE in one]:
            scores[_CAVITY_SCORE] = float(np.mean(cavity))
        scores["dice"] = float(np.mean([scores[name] for name in _REGION_SCORES]))
    if output.deformation is not None:
        displacement = output.deformation.displacement
        mask = None if pair.fixed_mask is None else _array(pair.fixed_mask[0])
        scores |= jacobian_statistics(_array(jacobian_determinant(displacement)[0, 0]), mask)
        if pair.fixed_labels is not None and pair.moving_labels is not None:
            moved = warp_labels(pair.moving_labels[:, None], displacement, len(LABELS))[0, 0]
            tumors = (region(_array(labels), "whole_tumor") for labels in (moved, pair.fixed_labels[0]))
            scores["warped_dice"] = dice(*tumors)
    return scores


JOINT = Task(
    name="joint",
    title="Segmentation and registration of two visits",
    columns=("label", "mask"),
    reported=(
        "segmentation",
        "registration",
        "similarity",
        "smoothness",
        "dice",
        *_REGION_SCORES,
        _CAVITY_SCORE,
        "warped_dice",
        "folded_fraction",
        "sd_log_jacobian",
    ),
    loss=joint_loss,
    scores=joint_scores,
    terms=("segmentation", "registration", "similarity", "gradients", "smoothness", "folding"),
)


def _array(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()


def _segmentation_losses(output: JointOutput, pair: StudyPair, config: LossConfig) -> list[Tensor]:
    """Compute the losses of the studies that have both labels and class scores."""
    losses = []
    if output.fixed_logits is not None and pair.fixed_labels is not None:
        losses.append(segmentation_loss(output.fixed_logits, pair.fixed_labels, config, output.fixed_auxiliary))
    if output.moving_logits is not None and pair.moving_labels is not None:
        losses.append(segmentation_loss(output.moving_logits, pair.moving_labels, config, output.moving_auxiliary))
    return losses


def _sum(terms: list[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _tumor(logits: Tensor | None, labels: Tensor | None, config: LossConfig) -> Tensor | None:
    """Return the mask of a study's tumour, given or predicted as configured; None where it is not known."""
    if labels is not None and (config.mask_labels or logits is None):
        return tumor_of_labels(labels)
    return None if logits is None else tumor_of_logits(logits)
