"""Loss of the segmentation: cross-entropy and soft Dice, with deep supervision at several levels.

Logits have shape (B, classes, D, H, W); labels have shape (B, D, H, W) or (B, 1, D, H, W) and an integer dtype. Voxels
with the label ``images.labels.UNLABELED`` are ignored.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..images.labels import CAVITY, CLASSES, LABELS, REGIONS, UNLABELED
from .config import LossConfig

_SMOOTHING = 1.0
"""Voxels added to the overlap and the sizes; the loss of an absent region is 0 when none of it is predicted."""


def cross_entropy(logits: Tensor, labels: Tensor, weights: Sequence[float] = (), focal_gamma: float = 0.0) -> Tensor:
    """Compute the mean of ``-(1 - p)^gamma log p`` over the voxels, where p is the probability of the true class.

    Source: Estienne et al. 2020, eq. 4; the focal factor is from Lin et al. 2017.

    Args:
        logits: Class scores (B, classes, D, H, W).
        labels: Classes (B, D, H, W) or (B, 1, D, H, W).
        weights: Weights of the classes in the mean; empty for equal weights.
        focal_gamma: Exponent gamma of the focal factor; 0 for none.

    Returns:
        A scalar; zero where no voxel has a label.

    Raises:
        ValueError: The labels or the weights do not fit the logits.
    """
    return _cross_entropy(_log_probabilities(logits), _checked(labels, logits), weights, focal_gamma)


def soft_dice_loss(logits: Tensor, labels: Tensor, over: str = "regions") -> Tensor:
    """Compute 1 minus the soft Dice coefficient, averaged over the studies and over regions or classes.

    Source: Milletari et al. 2016, with plain sums instead of squares in the denominator.

    Args:
        logits: Class scores (B, classes, D, H, W).
        labels: Classes (B, D, H, W) or (B, 1, D, H, W).
        over: 'regions' (whole tumour, tumour core, enhancing tumour, and the resection cavity where it is a class) or
            'classes' (all but the background).

    Returns:
        A scalar from 0 to 1.

    Raises:
        ValueError: The labels do not fit the logits, or ``over`` is unknown.
    """
    return _soft_dice_loss(_log_probabilities(logits), _checked(labels, logits), over)


def segmentation_loss(
    logits: Tensor, labels: Tensor, config: LossConfig | None = None, auxiliary: Sequence[Tensor] = ()
) -> Tensor:
    """Compute the segmentation loss of a configuration as a weighted mean over the levels.

    Args:
        logits: Class scores (B, classes, D, H, W) of the finest level.
        labels: Classes (B, D, H, W) or (B, 1, D, H, W).
        config: Terms and weights; None for the defaults.
        auxiliary: Class scores of the lower levels, finest first, each on its own grid. The weights are halved from
            level to level.

    Returns:
        A scalar.

    Raises:
        ValueError: The labels or the class weights do not fit the logits.
    """
    config = config or LossConfig()
    total, weights, weight = _level_loss(logits, _checked(labels, logits), config), 1.0, config.auxiliary_weight
    for lower in auxiliary if weight else ():
        majority = majority_labels(labels, lower.shape[2:], lower.shape[1])
        total, weights = total + weight * _level_loss(lower, majority, config), weights + weight
        weight = weight / 2
    return total / weights


def majority_labels(labels: Tensor, shape: Sequence[int], classes: int) -> Tensor:
    """Return the most frequent label in each block of voxels of a coarser grid.

    Args:
        labels: Classes (B, D, H, W) or (B, 1, D, H, W).
        shape: Size (d, h, w) of the coarser grid.
        classes: Number of classes.

    Returns:
        Classes (B, d, h, w), int64. Of equally frequent ones the lowest is taken; blocks without labels hold
        ``images.labels.UNLABELED``.
    """
    labels = _flat(labels)
    depth, height, width = shape
    shares = [F.adaptive_avg_pool3d((labels == c).float(), (depth, height, width)) for c in range(classes)]
    share, majority = torch.stack(shares, 1).max(1)
    return majority.masked_fill(share == 0, UNLABELED)


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
        raise ValueError(f"the class weights '{weights}' have not been computed yet: see training.data.open_data")
    if weights and len(weights) != classes:
        raise ValueError(f"there are {len(weights)} class weights for {classes} classes")
    factors = logarithms.new_tensor(weights) if weights else None
    if not focal_gamma:
        total = F.nll_loss(logarithms, labels, factors, ignore_index=UNLABELED, reduction="sum")
    else:
        logarithm = -F.nll_loss(logarithms, labels, ignore_index=UNLABELED, reduction="none")
        # At a probability of 1 the power of zero would have an infinite derivative for an exponent below 1.
        wrong = (1 - logarithm.exp()).clamp_min(torch.finfo(logarithm.dtype).tiny)
        focal = -(wrong**focal_gamma) * logarithm
        total = (focal if factors is None else focal * _voxel_weights(labels, factors)).sum()
    counted = labels != UNLABELED
    size = counted.sum() if factors is None else _voxel_weights(labels, factors)[counted].sum()
    return total / size.clamp_min(torch.finfo(logarithms.dtype).tiny)


def _voxel_weights(labels: Tensor, factors: Tensor) -> Tensor:
    return factors[labels.where(labels != UNLABELED, torch.zeros_like(labels))]


def _soft_dice_loss(logarithms: Tensor, labels: Tensor, over: str) -> Tensor:
    classes = logarithms.shape[1]
    numbers = torch.arange(classes, device=labels.device).view(1, -1, 1, 1, 1)
    true = (labels.unsqueeze(1) == numbers).to(logarithms.dtype)  # zero for voxels without a label
    # The Dice of any region follows from the soft confusion matrix (B, predicted class, true class).
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
    """Return the groups of classes for which the Dice coefficient is computed."""
    if over == "classes":
        return [[c] for c in range(1, classes)]
    if over != "regions":
        raise ValueError(f"Dice over '{over}' is unknown; use regions or classes")
    if classes not in (len(CLASSES), len(LABELS)):
        raise ValueError(
            f"regions are made of {len(CLASSES)} classes, or {len(LABELS)} with the resection cavity, not {classes}; "
            "take the Dice over classes"
        )
    groups = [list(members) for members in REGIONS.values()]
    return [*groups, [CAVITY]] if classes > CAVITY else groups


def _log_probabilities(logits: Tensor) -> Tensor:
    """Compute the logarithms of the class probabilities, in float32 at least, even under autocast."""
    with torch.autocast(logits.device.type, enabled=False):
        return F.log_softmax(logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits, dim=1)


def _checked(labels: Tensor, logits: Tensor) -> Tensor:
    labels = _flat(labels)
    if labels.shape != (logits.shape[0], *logits.shape[2:]):
        raise ValueError(f"labels of shape {tuple(labels.shape)} do not fit logits of shape {tuple(logits.shape)}")
    return labels


def _flat(labels: Tensor) -> Tensor:
    """Return labels as (B, D, H, W), int64."""
    if labels.is_floating_point():
        raise ValueError(f"labels must be whole numbers, not {labels.dtype}")
    return (labels.squeeze(1) if labels.ndim == 5 else labels).long()
