"""Losses of the segmentation: cross-entropy, soft Dice, and both at several levels.

Logits are (B, classes, D, H, W), labels (B, D, H, W) or (B, 1, D, H, W) of an integer dtype; voxels labelled
:data:`IGNORED` count nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..images.labels import CLASSES, REGIONS
from .config import LossConfig

IGNORED = 255
_SMOOTHING = 1.0
"""Voxels added to overlap and sizes, so that an absent region costs what is predicted of it and no more."""


def cross_entropy(logits: Tensor, labels: Tensor, weights: Sequence[float] = (), focal_gamma: float = 0.0) -> Tensor:
    """Mean of −(1 − p)^gamma log p of the true class, weighted by class; zero where every voxel is ignored.

    Sources: Estienne et al. 2020, eq. 4; the focal factor from Lin et al. 2017.
    """
    return _cross_entropy(_log_probabilities(logits), _checked(labels, logits), weights, focal_gamma)


def soft_dice_loss(logits: Tensor, labels: Tensor, over: str = "regions") -> Tensor:
    """1 − mean soft Dice over studies and over the three regions, or over the ``classes`` but background.

    Source: Milletari et al. 2016, with plain sums in the denominator.
    """
    return _soft_dice_loss(_log_probabilities(logits), _checked(labels, logits), over)


def segmentation_loss(
    logits: Tensor, labels: Tensor, config: LossConfig | None = None, auxiliary: Sequence[Tensor] = ()
) -> Tensor:
    """Loss of a configuration: at the finest level, and with halving weights at the lower ones, as a weighted mean."""
    config = config or LossConfig()
    total, weights, weight = _level_loss(logits, _checked(labels, logits), config), 1.0, config.auxiliary_weight
    for lower in auxiliary if weight else ():
        majority = majority_labels(labels, lower.shape[2:], lower.shape[1])
        total, weights = total + weight * _level_loss(lower, majority, config), weights + weight
        weight = weight / 2
    return total / weights


def majority_labels(labels: Tensor, shape: Sequence[int], classes: int) -> Tensor:
    """The most frequent label in each block of the finer grid: (B, *shape). The lowest of equally frequent ones."""
    labels = _flat(labels)
    counts = torch.stack([F.adaptive_avg_pool3d((labels == c).float(), tuple(shape)) for c in range(classes)], 1)
    share, majority = counts.max(1)
    return majority.masked_fill(share == 0, IGNORED)


def _level_loss(logits: Tensor, labels: Tensor, config: LossConfig) -> Tensor:
    logarithms = _log_probabilities(logits)
    if config.segmentation == "dice":
        return _soft_dice_loss(logarithms, labels, config.dice_over)
    entropy = _cross_entropy(logarithms, labels, config.class_weights, config.focal_gamma)
    if config.segmentation == "cross_entropy":
        return entropy
    return entropy + _soft_dice_loss(logarithms, labels, config.dice_over)


def _cross_entropy(logarithms: Tensor, labels: Tensor, weights: Sequence[float] | str, focal_gamma: float) -> Tensor:
    classes = logarithms.shape[1]
    if isinstance(weights, str):
        raise ValueError(f"the class weights '{weights}' are not computed yet: see training_data.open_data")
    if weights and len(weights) != classes:
        raise ValueError(f"there are {len(weights)} class weights for {classes} classes")
    factors = logarithms.new_tensor(weights) if weights else None
    if not focal_gamma:
        total = F.nll_loss(logarithms, labels, factors, ignore_index=IGNORED, reduction="sum")
    else:
        own = -F.nll_loss(logarithms, labels, ignore_index=IGNORED, reduction="none")
        focal = -((1 - own.exp()).clamp_min(0) ** focal_gamma) * own
        total = (focal if factors is None else focal * _voxel_weights(labels, factors)).sum()
    counted = labels != IGNORED
    size = counted.sum() if factors is None else _voxel_weights(labels, factors)[counted].sum()
    return total / size.clamp_min(torch.finfo(logarithms.dtype).tiny)


def _voxel_weights(labels: Tensor, factors: Tensor) -> Tensor:
    return factors[labels.where(labels != IGNORED, torch.zeros_like(labels))]


def _soft_dice_loss(logarithms: Tensor, labels: Tensor, over: str) -> Tensor:
    classes = logarithms.shape[1]
    numbers = torch.arange(classes, device=labels.device).view(1, -1, 1, 1, 1)
    true = (labels.unsqueeze(1) == numbers).to(logarithms.dtype)  # nothing where ignored
    # soft confusion matrix (B, predicted class, true class): all that any region's Dice needs
    with torch.autocast(logarithms.device.type, enabled=False):
        confusion = logarithms.exp().flatten(2) @ true.flatten(2).transpose(1, 2)
    losses = []
    for members in _groups(over, classes):
        predicted, actual = confusion[:, members], confusion[:, :, members]
        overlap = predicted[:, :, members].sum((1, 2))
        sizes = predicted.sum((1, 2)) + actual.sum((1, 2))
        losses.append(1 - (2 * overlap + _SMOOTHING) / (sizes + _SMOOTHING))
    return torch.stack(losses).mean()


def _groups(over: str, classes: int) -> list[list[int]]:
    """Classes that each Dice is taken over."""
    if over == "classes":
        return [[c] for c in range(1, classes)]
    if over != "regions":
        raise ValueError(f"Dice over '{over}' is unknown; use regions or classes")
    if classes != len(CLASSES):
        raise ValueError(f"regions are made of {len(CLASSES)} classes, not {classes}; take the Dice over classes")
    return [list(members) for members in REGIONS.values()]


def _log_probabilities(logits: Tensor) -> Tensor:
    """In float32 at least, whatever the autocast."""
    with torch.autocast(logits.device.type, enabled=False):
        return F.log_softmax(logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits, dim=1)


def _checked(labels: Tensor, logits: Tensor) -> Tensor:
    labels = _flat(labels)
    if labels.shape != (logits.shape[0], *logits.shape[2:]):
        raise ValueError(f"labels of shape {tuple(labels.shape)} do not fit logits of shape {tuple(logits.shape)}")
    return labels


def _flat(labels: Tensor) -> Tensor:
    """(B, D, H, W), int64."""
    if labels.is_floating_point():
        raise ValueError(f"labels are whole numbers, not {labels.dtype}")
    return (labels.squeeze(1) if labels.ndim == 5 else labels).long()
