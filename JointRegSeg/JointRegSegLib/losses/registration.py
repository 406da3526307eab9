"""Losses of the registration: similarity that leaves tumour out, and what keeps the map regular."""

from __future__ import annotations

import torch
from torch import Tensor

from ..registration.deformation import Deformation, jacobian_determinant, warp
from ..registration.similarity import lncc
from .config import LossConfig


def tumour_of_labels(labels: Tensor) -> Tensor:
    """1 where a label (B, D, H, W) or (B, 1, D, H, W) is tumour, else 0: (B, 1, D, H, W), float32."""
    labels = labels if labels.ndim == 5 else labels.unsqueeze(1)
    return ((labels > 0) & (labels != 255)).float()


def tumour_of_logits(logits: Tensor) -> Tensor:
    """1 where the likeliest class of logits (B, classes, D, H, W) is tumour: (B, 1, D, H, W), without gradient."""
    return (logits.detach().argmax(1, keepdim=True) > 0).float()


def healthy_in_both(fixed_tumour: Tensor, moving_tumour: Tensor, displacement: Tensor) -> Tensor:
    """Weight of the fixed grid's voxels in the relaxed similarity: R⁰seg · D⁰seg, the moving study's mask warped.

    The mask passes no gradient: else the map could lower the loss by moving tumour over whatever does not match.
    """
    with torch.no_grad():
        return (1 - fixed_tumour) * (1 - warp(moving_tumour, displacement.detach()))


def relaxed_mse(fixed: Tensor, warped: Tensor, healthy: Tensor | None = None) -> Tensor:
    """‖(R − D)·D⁰seg·R⁰seg‖² as a mean over all voxels of the channels (B, C, D, H, W) that both studies have.

    Source: Estienne et al. 2020, eq. 6.
    """
    difference = fixed - warped if healthy is None else (fixed - warped) * healthy
    present = _varies(fixed) & _varies(warped)
    squares = difference.square() * present
    return squares.sum() / (present.sum() * squares[0, 0].numel()).clamp_min(1)


def gradient_deviation(gradients: Tensor) -> Tensor:
    """‖Φ − Φ_I‖₁: a sum over the grid and the components, a mean over the batch."""
    return (gradients - 0.5).abs().sum() / len(gradients)


def diffusion(field: Tensor) -> Tensor:
    """Mean squared difference of neighbouring vectors of a field (B, 3, D, H, W) in voxels: a squared strain."""
    return sum(field.diff(dim=axis).square().mean() for axis in (2, 3, 4) if field.shape[axis] > 1) / 3


def folding(displacement: Tensor) -> Tensor:
    """Mean of max(0, −det J); zero for a map that does not fold."""
    return (-jacobian_determinant(displacement)).clamp_min(0).mean()


def registration_loss(
    fixed: Tensor,
    moving: Tensor,
    deformation: Deformation,
    config: LossConfig,
    fixed_tumour: Tensor | None = None,
    moving_tumour: Tensor | None = None,
) -> dict[str, Tensor]:
    """Weighted terms of a pair of studies (B, C, D, H, W): 'similarity' and the regularisers that have a weight.

    fixed_tumour, moving_tumour: (B, 1, D, H, W), each in its own study; both or none.

    Raises:
        ValueError: a symmetric loss of a deformation without inverse, or a weight of gradients that it lacks.
    """
    if config.symmetric and deformation.inverse is None:
        raise ValueError("a symmetric loss needs a deformation with its inverse; set symmetric to false")
    if config.phi_weight and deformation.gradients is None:
        raise ValueError("phi_weight is for the deformation 'cumulative'; set it to 0")
    directions = [(fixed, moving, fixed_tumour, moving_tumour, deformation.displacement)]
    if config.symmetric:
        directions.append((moving, fixed, moving_tumour, fixed_tumour, deformation.inverse))
    terms = {"similarity": sum(_dissimilarity(*one, config) for one in directions) / len(directions)}
    if config.phi_weight:
        terms["gradients"] = config.phi_weight * gradient_deviation(deformation.gradients)
    if config.smoothness_weight:
        field = deformation.displacement if deformation.velocity is None else deformation.velocity
        terms["smoothness"] = config.smoothness_weight * diffusion(field)
    if config.jacobian_weight:
        terms["folding"] = config.jacobian_weight * folding(deformation.displacement)
    return terms


def _dissimilarity(
    fixed: Tensor,
    moving: Tensor,
    fixed_tumour: Tensor | None,
    moving_tumour: Tensor | None,
    displacement: Tensor,
    config: LossConfig,
) -> Tensor:
    warped = warp(moving, displacement)
    healthy = None
    if config.relaxed and fixed_tumour is not None and moving_tumour is not None:
        healthy = healthy_in_both(fixed_tumour, moving_tumour, displacement)
    if config.similarity == "mse":
        return relaxed_mse(fixed, warped, healthy)
    return 1 - lncc(fixed, warped, config.window, healthy)


def _varies(images: Tensor) -> Tensor:
    """(B, C, 1, 1, 1): whether a channel holds anything; absent modalities are constant."""
    flat = images.detach().flatten(2)
    return (flat.amax(2) > flat.amin(2)).view(*images.shape[:2], 1, 1, 1)
