"""The joint loss: segmentation of both studies plus beta times their registration."""

from __future__ import annotations

import torch
from torch import Tensor

from ..losses.config import LossConfig
from ..losses.registration import registration_loss, tumor_of_labels, tumor_of_logits
from ..losses.segmentation import segmentation_loss
from ..network.configuration import NetworkConfig
from ..network.joint import JointOutput


def joint_loss(
    output: JointOutput,
    fixed: Tensor,
    moving: Tensor,
    fixed_labels: Tensor | None,
    moving_labels: Tensor | None,
    config: LossConfig | None = None,
    network_config: NetworkConfig | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Total and its parts.

    Args:
        output: of the network, for the two studies.
        fixed, moving: images (B, C, D, H, W).
        fixed_labels, moving_labels: (B, D, H, W) or (B, 1, D, H, W), whole numbers; None where a study has none,
            255 where a voxel has none.
        config: terms and weights; None for those of ``network_config``.

    Returns:
        The total, and its parts without gradient: 'segmentation' (mean over labelled studies), 'registration' (before
        beta) and the registration's parts.

    Raises:
        ValueError: nothing to train (neither labels nor a deformation), or a loss that does not fit the network.
    """
    config = config or (network_config or NetworkConfig()).loss
    total, parts = fixed.new_zeros(()), {}
    studies = (
        (output.fixed_logits, fixed_labels, output.fixed_auxiliary),
        (output.moving_logits, moving_labels, output.moving_auxiliary),
    )
    labelled = [study for study in studies if study[0] is not None and study[1] is not None]
    if not labelled and output.deformation is None:
        raise ValueError("there is nothing to train: the studies have no labels and the network no registration")
    with torch.autocast(fixed.device.type, enabled=False):
        if labelled:
            losses = [segmentation_loss(logits, labels, config, lower) for logits, labels, lower in labelled]
            parts["segmentation"] = sum(losses) / len(losses)
            total = total + parts["segmentation"]
        if output.deformation is not None:
            tumours = (
                [_tumour(logits, labels, config) for logits, labels, _ in studies] if config.relaxed else [None] * 2
            )
            terms = registration_loss(fixed, moving, output.deformation, config, *tumours)
            parts["registration"] = sum(terms.values())
            parts |= terms
            total = total + config.registration_weight * parts["registration"]
    return total, {name: value.detach() for name, value in parts.items()}


def _tumour(logits: Tensor | None, labels: Tensor | None, config: LossConfig) -> Tensor | None:
    """Mask of a study's tumour, given or predicted, as configured; None where it is unknown."""
    if labels is not None and (config.mask_labels or logits is None):
        return tumor_of_labels(labels)
    return None if logits is None else tumor_of_logits(logits)
