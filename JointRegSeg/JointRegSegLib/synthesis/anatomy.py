"""A new head from a template: random pose, size and shape, and the deformation between two visits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..registration.deformation import integrate_velocity, resize_displacement, warp
from .random_fields import Draw
from .templates import Template


def random_head(template: Template, shape: tuple[int, int, int], draw: Draw) -> Tensor:
    """Tissue probabilities (3, D, H, W) of a head that no one has, on the template's spacing.

    Rotated by up to about 12 degrees, scaled by up to 15 % along each axis, mirrored in half of the heads, and deformed
    smoothly; ventricles and sulci are widened or narrowed by a power of the CSF's probability.
    """
    spacing = template.spacing_mm
    tissues = template.tissues
    if draw.chance(0.5):
        tissues = tissues.flip(-1)
    matrix = torch.eye(3)
    for axis in range(3):
        matrix = matrix @ _rotation(axis, draw.normal(0, 5.0 if axis else 7.0))
    matrix = matrix @ torch.diag(torch.tensor([1 / (1 + draw.uniform(-0.13, 0.15)) for _ in range(3)]))
    bend = draw.smooth(shape, 40 / spacing, 3) * (2.5 / spacing) + draw.smooth(shape, 15 / spacing, 3) * (0.8 / spacing)
    centre = (torch.tensor(shape, dtype=torch.float32) - 1) / 2
    brain = tissues.sum(0) > 0.5
    middle = torch.stack([w.float().mean() for w in brain.nonzero().unbind(1)])
    shift = torch.tensor([draw.normal(0, 3.0) / spacing for _ in range(3)])
    voxels = torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in shape), indexing="ij"))
    positions = torch.einsum("ij,jdhw->idhw", matrix, voxels - (centre + shift).view(3, 1, 1, 1)) + bend
    positions = positions + middle.view(3, 1, 1, 1)
    sizes = torch.tensor(tissues.shape[1:], dtype=torch.float32).view(3, 1, 1, 1)
    grid = (positions * 2 / (sizes - 1) - 1).permute(1, 2, 3, 0).flip(-1)
    moved = F.grid_sample(tissues[None], grid[None], padding_mode="zeros", align_corners=True)[0]
    total = moved.sum(0).clamp(0, 1)
    csf = moved[0].clamp_min(0) ** draw.uniform(0.6, 1.5)
    moved = torch.stack([csf, moved[1], moved[2]])
    return moved / moved.sum(0).clamp_min(1e-3) * total


def visit_deformation(shape: tuple[int, int, int], spacing_mm: float, draw: Draw) -> tuple[Tensor, Tensor]:
    """Displacement (1, 3, D, H, W) in voxels from a visit's grid to the patient's, and its inverse.

    What remains after an affine alignment: a smooth diffeomorphism of some 1 to 3 mm.
    """
    coarse = tuple(max(4, n // 4) for n in shape)
    size = draw.uniform(0.5, 2.0) / (4 * spacing_mm)
    velocity = draw.smooth(coarse, draw.uniform(25, 45) / (4 * spacing_mm), 3)[None] * size
    there, back = (resize_displacement(integrate_velocity(v, 4), shape) for v in (velocity, -velocity))
    return there, back


def mass_effect(shape: tuple[int, int, int], centre: Tensor, radius: float, strength: float) -> Tensor:
    """Displacement (1, 3, D, H, W) in voxels that pulls the anatomy around a centre (3,) apart.

    It maps a point of the visit to healthy anatomy, nearer to the centre by ``strength`` within [-0.4, 0.8) there and
    by nothing far away: the tissue that lay near the centre has been pushed outwards (negative: drawn inwards).
    """
    voxels = torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in shape), indexing="ij"))
    away = voxels - centre.view(3, 1, 1, 1)
    return (-strength * away * torch.exp(-away.square().sum(0) / (2 * radius**2)))[None]


def carried(fields: Tensor, displacement: Tensor) -> Tensor:
    """Fields (C, D, H, W) warped by a displacement (1, 3, D, H, W)."""
    return warp(fields[None], displacement)[0]


def _rotation(axis: int, degrees: float) -> Tensor:
    a, b = (k for k in range(3) if k != axis)
    angle = torch.deg2rad(torch.tensor(degrees))
    matrix = torch.eye(3)
    matrix[a, a] = matrix[b, b] = angle.cos()
    matrix[a, b], matrix[b, a] = -angle.sin(), angle.sin()
    return matrix
