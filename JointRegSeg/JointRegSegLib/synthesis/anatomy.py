"""A new head made from a template: random pose, size and shape, and the deformation between two visits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..registration.deformation import integrate_velocity, resize_displacement, warp
from .random_fields import Draw, voxel_positions
from .templates import Template

BRAIN_ML = 1350.0
"""Volume of the brain of a synthetic head of mean size, without tumour.

Eight brains of the BraTS challenge have 1,270 to 1,560 ml with their tumours. The templates are larger: ICBM152 has
1,910 ml.
"""


def random_head(template: Template, shape: tuple[int, int, int], draw: Draw) -> Tensor:
    """Make the tissues of a new head.

    The template is brought to a volume of ``BRAIN_ML``, rotated by up to about 12 degrees, scaled by up to 15 % along
    each axis, mirrored in half of the heads, and deformed smoothly. Ventricles and sulci are widened or narrowed by a
    power of the probability of CSF.

    Args:
        template: Anatomy to start from.
        shape: Grid (D, H, W) of the head, with the voxel size of the template.
        draw: Source of the random numbers.

    Returns:
        Probabilities (3, D, H, W) of CSF, grey and white matter.
    """
    size = (1000 * BRAIN_ML / template.volume_mm3) ** (1 / 3)
    first, second, third = (size * (1 + draw.uniform(-0.13, 0.15)) for _ in range(3))
    moved = moved_template(template.tissues, template.spacing_mm, shape, draw, (first, second, third))
    return with_sulci(moved, draw.uniform(0.6, 1.5))


def moved_template(
    fields: Tensor,
    spacing_mm: float,
    shape: tuple[int, int, int],
    draw: Draw,
    scales: tuple[float, float, float],
) -> Tensor:
    """Scale the fields of a template, and rotate, mirror, shift and bend them at random.

    Args:
        fields: Fields (C, D, H, W), of which the first three are the probabilities of CSF, grey and white matter.
        spacing_mm: Voxel size of the template and of the grid.
        shape: Grid (D, H, W) of the head.
        draw: Source of the random numbers.
        scales: Factors of the size along (D, H, W).

    Returns:
        Fields (C, D, H, W) on the grid of the head.
    """
    if draw.chance(0.5):
        fields = fields.flip(-1)
    matrix = torch.eye(3)
    for axis in range(3):
        matrix = matrix @ _rotation(axis, draw.normal(0, 5.0 if axis else 7.0))
    matrix = matrix @ torch.diag(torch.tensor([1 / scale for scale in scales]))
    wide, fine = draw.smooth(shape, 40 / spacing_mm, 3), draw.smooth(shape, 15 / spacing_mm, 3)
    bend = wide * (2.5 / spacing_mm) + fine * (0.8 / spacing_mm)
    center = (torch.tensor(shape, dtype=torch.float32) - 1) / 2
    brain = fields[:3].sum(0) > 0.5
    brain_center = torch.stack([w.float().mean() for w in brain.nonzero().unbind(1)])
    shift = torch.tensor([draw.normal(0, 3.0) / spacing_mm for _ in range(3)])
    from_center = voxel_positions(shape) - (center + shift).view(3, 1, 1, 1)
    positions = torch.einsum("ij,jdhw->idhw", matrix, from_center) + bend
    positions = positions + brain_center.view(3, 1, 1, 1)
    sizes = torch.tensor(fields.shape[1:], dtype=torch.float32).view(3, 1, 1, 1)
    grid = (positions * 2 / (sizes - 1) - 1).permute(1, 2, 3, 0).flip(-1)
    return F.grid_sample(fields[None], grid[None], padding_mode="zeros", align_corners=True)[0]


def with_sulci(tissues: Tensor, exponent: float) -> Tensor:
    """Widen (exponent below 1) or narrow ventricles and sulci by a power of the probability of CSF.

    Args:
        tissues: Probabilities (3, D, H, W) of CSF, grey and white matter.
        exponent: Power of the probability of CSF.
    """
    total = tissues.sum(0).clamp(0, 1)
    changed = torch.stack([tissues[0].clamp_min(0) ** exponent, tissues[1], tissues[2]])
    return changed / changed.sum(0).clamp_min(1e-3) * total


def visit_deformation(shape: tuple[int, int, int], spacing_mm: float, draw: Draw) -> tuple[Tensor, Tensor]:
    """Make the deformation that remains after an affine alignment: a smooth diffeomorphism of some 1 to 3 mm.

    Args:
        shape: Grid (D, H, W).
        spacing_mm: Voxel size in mm.
        draw: Source of the random numbers.

    Returns:
        Displacement (1, 3, D, H, W) in voxels from the grid of a visit to that of the patient, and its inverse.
    """
    d, h, w = (max(4, n // 4) for n in shape)
    size = draw.uniform(0.5, 2.0) / (4 * spacing_mm)
    velocity = draw.smooth((d, h, w), draw.uniform(25, 45) / (4 * spacing_mm), 3)[None] * size
    forward, inverse = (resize_displacement(integrate_velocity(v, 4), shape) for v in (velocity, -velocity))
    return forward, inverse


def mass_effect(shape: tuple[int, int, int], center: Tensor, radius: float, strength: float) -> Tensor:
    """Make the displacement that pushes the anatomy around a tumour outwards.

    It maps a point of the visit to healthy anatomy: nearer to the centre by the fraction ``strength`` close to it, and
    not at all far away. The tissue that was close to the centre is thereby pushed outwards.

    Args:
        shape: Grid (D, H, W).
        center: Centre (3,) of the tumour in voxels.
        radius: Distance in voxels over which the effect falls off (standard deviation of a Gaussian).
        strength: Strength within [-0.4, 0.8); a negative one draws the tissue inwards.

    Returns:
        Displacement (1, 3, D, H, W) in voxels.
    """
    away = voxel_positions(shape) - center.view(3, 1, 1, 1)
    return (-strength * away * torch.exp(-away.square().sum(0) / (2 * radius**2)))[None]


def warp_fields(fields: Tensor, displacement: Tensor) -> Tensor:
    """Warp fields (C, D, H, W) by a displacement (1, 3, D, H, W) in voxels."""
    return warp(fields[None], displacement)[0]


def _rotation(axis: int, degrees: float) -> Tensor:
    a, b = (k for k in range(3) if k != axis)
    angle = torch.deg2rad(torch.tensor(degrees))
    matrix = torch.eye(3)
    matrix[a, a] = matrix[b, b] = angle.cos()
    matrix[a, b], matrix[b, a] = -angle.sin(), angle.sin()
    return matrix
