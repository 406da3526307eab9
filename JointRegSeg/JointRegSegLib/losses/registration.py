"""Loss of the registration: a similarity that leaves out tumour, and penalties that keep the map regular."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..images.labels import UNLABELED
from ..registration.deformation import Deformation, jacobian_determinant, warp
from ..registration.similarity import find_similarity
from .config import LossConfig


def tumor_of_labels(labels: Tensor) -> Tensor:
    """Return 1 in tumour and 0 elsewhere, including voxels without a label.

    Args:
        labels: Class numbers of shape (B, D, H, W) or (B, 1, D, H, W).

    Returns:
        Mask of shape (B, 1, D, H, W), float32.
    """
    labels = labels if labels.ndim == 5 else labels.unsqueeze(1)
    return ((labels > 0) & (labels != UNLABELED)).float()


def tumor_of_logits(logits: Tensor) -> Tensor:
    """Return 1 where the most probable class is a tumour class, and 0 elsewhere.

    Args:
        logits: Class scores of shape (B, classes, D, H, W).

    Returns:
        Mask of shape (B, 1, D, H, W), float32, without a gradient.
    """
    return (logits.detach().argmax(1, keepdim=True) > 0).float()


def healthy_in_both(fixed_tumor: Tensor, moving_tumor: Tensor, displacement: Tensor) -> Tensor:
    """Compute the weights of the relaxed similarity, ``R0seg * D0seg``, with the moving mask warped.

    Source: Estienne et al. 2020, eq. 6. The weights carry no gradient. Otherwise the map could lower the loss by moving
    tumour over tissue that does not match.

    Args:
        fixed_tumor: Tumour of the fixed study, 1 inside and 0 outside, of shape (B, 1, D, H, W).
        moving_tumor: The same for the moving study, on its own grid.
        displacement: Displacement of shape (B, 3, D, H, W) in voxels.

    Returns:
        Weights from 0 to 1 on the fixed grid, of shape (B, 1, D, H, W).
    """
    with torch.no_grad():
        return (1 - fixed_tumor) * (1 - warp(moving_tumor, displacement.detach()))


def gradient_deviation(gradients: Tensor) -> Tensor:
    """Compute the L1 distance of the gradients of a cumulative deformation from those of the identity.

    Args:
        gradients: Half gradients of shape (B, 3, D, H, W) in (0, 1); 0.5 is the identity.

    Returns:
        The sum over the grid and the components, averaged over the batch.
    """
    return (gradients - 0.5).abs().sum() / len(gradients)


def diffusion(field: Tensor) -> Tensor:
    """Compute the mean squared difference between neighbouring vectors of a field (B, 3, D, H, W) in voxels."""
    total = field.new_zeros(())
    for axis in (2, 3, 4):
        if field.shape[axis] > 1:
            total = total + field.diff(dim=axis).square().mean()
    return total / 3


def folding(displacement: Tensor) -> Tensor:
    """Compute the mean of ``max(0, -det J)`` of a displacement (B, 3, D, H, W); it is zero without folds."""
    return (-jacobian_determinant(displacement)).clamp_min(0).mean()


def registration_loss(
    fixed: Tensor,
    moving: Tensor,
    deformation: Deformation,
    config: LossConfig,
    fixed_tumor: Tensor | None = None,
    moving_tumor: Tensor | None = None,
) -> dict[str, Tensor]:
    """Compute the terms of the registration loss of pairs of studies.

    Args:
        fixed: Images of shape (B, C, D, H, W).
        moving: Images of the same shape.
        deformation: Maps from the fixed to the moving grid.
        config: Terms and their weights.
        fixed_tumor: Tumour of the fixed studies on their own grid, of shape (B, 1, D, H, W). Tumour is
            left out only if both masks are given.
        moving_tumor: The same for the moving studies.

    Returns:
        Weighted terms, which are scalars. They are 'similarity' and, if their weights are not zero, 'gradients',
        'smoothness' and 'folding'.

    Raises:
        ValueError: The configuration needs an inverse or gradients that the deformation does not have.
    """
    sides = _Side(fixed, fixed_tumor), _Side(moving, moving_tumor)
    losses = [_dissimilarity(*sides, deformation.displacement, config)]
    if config.symmetric:
        if deformation.inverse is None:
            raise ValueError("a symmetric loss needs a deformation with its inverse; set symmetric to false")
        losses.append(_dissimilarity(*sides[::-1], deformation.inverse, config))
    terms = {"similarity": torch.stack(losses).sum() / len(losses)}
    if config.phi_weight:
        if deformation.gradients is None:
            raise ValueError("phi_weight is for the deformation 'cumulative'; set it to 0")
        terms["gradients"] = config.phi_weight * gradient_deviation(deformation.gradients)
    if config.smoothness_weight:
        field = deformation.displacement if deformation.velocity is None else deformation.velocity
        terms["smoothness"] = config.smoothness_weight * diffusion(field)
    if config.jacobian_weight:
        terms["folding"] = config.jacobian_weight * folding(deformation.displacement)
    return terms


@dataclass(frozen=True)
class _Side:
    """One side of the registration: images (B, C, D, H, W), and their tumour (B, 1, D, H, W) if it is known."""

    images: Tensor
    tumor: Tensor | None


def _dissimilarity(fixed: _Side, moving: _Side, displacement: Tensor, config: LossConfig) -> Tensor:
    warped = warp(moving.images, displacement)
    healthy = None
    if config.relaxed and fixed.tumor is not None and moving.tumor is not None:
        healthy = healthy_in_both(fixed.tumor, moving.tumor, displacement)
    return find_similarity(config.similarity).loss(fixed.images, warped, healthy, config.window)
