"""Deformations: displacement fields, how they warp, compose, integrate and invert.

A displacement ``u`` (B, 3, D, H, W) is in voxels of the grid it lies on, channel c along spatial axis c. It maps a
point x of the fixed grid to the point x + u(x) of the moving image, so ``warp(moving, u)`` is the moving image on the
fixed grid. Grids of different size cover the same field of view, border to border (as average pooling makes them).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .separable import resize

_LARGEST_SHARE = 4
"""Copies of the gradient of a warped image, one a thread; more threads than these would cost more memory than time."""


@dataclass(frozen=True)
class Deformation:
    """A map from the fixed grid to the moving one, with whatever it was made from.

    displacement: (B, 3, D, H, W) in voxels. inverse: the same of the inverse map, from the moving grid to the fixed
    one. velocity: stationary velocity (B, 3, d, h, w) in voxels of its own grid, which may be coarser. gradients: the
    spatial gradients Φ in (0, 1), 0.5 being identity, of which the displacement is the cumulative sum.
    """

    displacement: Tensor
    inverse: Tensor | None = None
    velocity: Tensor | None = None
    gradients: Tensor | None = None

    def __post_init__(self) -> None:
        for name in ("displacement", "inverse", "velocity", "gradients"):
            field = getattr(self, name)
            if field is not None:
                _check_field(field, name)


def identity_displacement(shape: tuple[int, ...], like: Tensor | None = None, batch: int = 1) -> Tensor:
    """Zeros (batch, 3, *shape), with dtype and device of ``like``."""
    return torch.zeros((batch, 3, *shape)) if like is None else like.new_zeros((batch, 3, *shape))


def warp(image: Tensor, displacement: Tensor, mode: str = "bilinear", padding: str = "border") -> Tensor:
    """The image (B, C, d, h, w) at the points x + u(x): (B, C, D, H, W).

    displacement: (B or 1, 3, D, H, W), in voxels of the image. mode: "bilinear" (trilinear) or "nearest"; padding:
    "border" (points outside take the nearest voxel's value) or "zeros". Images in integers or half precision are
    sampled in the displacement's precision; nearest neighbours keep the image's dtype.
    """
    _check_field(displacement, "displacement")
    if image.ndim != 5:
        raise ValueError(f"an image to be warped has shape (B, C, D, H, W), not {tuple(image.shape)}")
    batch = max(len(image), len(displacement))
    if len(image) not in (1, batch) or len(displacement) not in (1, batch):
        raise ValueError(f"{len(image)} images cannot be warped by {len(displacement)} displacements")
    grid = _normalised_points(displacement, image.shape[2:])
    image_values = image.to(grid.dtype).expand(batch, -1, -1, -1, -1)
    values = _sample(image_values, grid.expand(batch, -1, -1, -1, -1), mode, padding)
    return values.to(image.dtype) if mode == "nearest" else values


def warp_labels(labels: Tensor, displacement: Tensor, classes: int | None = None) -> Tensor:
    """Labels (B, 1, D, H, W), of an integer dtype, warped one-hot and linearly: the class with the largest share."""
    classes = int(labels.max()) + 1 if classes is None else classes
    best = torch.full((len(labels), 1, *displacement.shape[2:]), -1.0, device=labels.device, dtype=displacement.dtype)
    winner = torch.zeros_like(best, dtype=labels.dtype)
    for value in range(classes):  # one class at a time keeps the memory low
        share = warp((labels == value).to(displacement.dtype), displacement)
        winner = torch.where(share > best, torch.full_like(winner, value), winner)
        best = torch.maximum(share, best)
    return winner


def compose(first: Tensor, second: Tensor) -> Tensor:
    """Displacement of x ↦ y + second(y) with y = x + first(x); both (B, 3, D, H, W), on the same grid."""
    return first + warp(second, first)


def integrate_velocity(velocity: Tensor, steps: int = 6) -> Tensor:
    """Displacement at unit time of the flow of a stationary velocity (B, 3, D, H, W), by scaling and squaring.

    The negative velocity gives the inverse map. Computed in float32 at least. Source: Arsigny et al. 2006.
    """
    _check_field(velocity, "velocity")
    with torch.autocast(velocity.device.type, enabled=False):
        displacement = (velocity.float() if velocity.dtype in (torch.float16, torch.bfloat16) else velocity) / 2**steps
        for _ in range(steps):
            displacement = compose(displacement, displacement)
    return displacement


def cumulative_displacement(gradients: Tensor) -> Tensor:
    """Displacement of which Φ (B, 3, D, H, W) in (0, 1) are the gradients: sums of 2Φ_c along axis c are coordinates.

    Φ = 0.5 everywhere is exactly the identity map: the sum 2Φ_0 + … + 2Φ_i would be i + 1, so it starts at −1.
    Every coordinate grows along its own axis. Source: Estienne et al. 2020, section 2.2, but for the start.
    """
    _check_field(gradients, "gradients")
    steps = 2 * (gradients.float() if gradients.dtype in (torch.float16, torch.bfloat16) else gradients) - 1
    return torch.stack([steps[:, axis].cumsum(axis + 1) for axis in range(3)], 1)


def jacobian_determinant(displacement: Tensor) -> Tensor:
    """det(I + ∇u) (B, 1, D, H, W) by central differences, one-sided ones at the borders.

    It is the volume in the moving image of what fills a unit volume of the fixed grid; at or below 0 the map folds.
    """
    _check_field(displacement, "displacement")
    if min(displacement.shape[2:]) < 2:
        raise ValueError(f"the Jacobian needs two voxels along every axis, not {tuple(displacement.shape[2:])}")
    rows = []
    for component in range(3):
        row = list(torch.gradient(displacement[:, component], dim=(1, 2, 3)))
        row[component] = row[component] + 1
        rows.append(row)
    (a, b, c), (d, e, f), (g, h, i) = rows
    return (a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)).unsqueeze(1)


def folded_fraction(displacement: Tensor, mask: Tensor | None = None) -> float:
    """Share of voxels, of those in a mask (B, 1, D, H, W), where the Jacobian determinant is not positive."""
    folded = ~(jacobian_determinant(displacement) > 0)
    selected = folded if mask is None else folded[mask.bool()]
    return float(selected.double().mean()) if selected.numel() else 0.0


def resize_displacement(displacement: Tensor, shape: Sequence[int]) -> Tensor:
    """The same map on another grid (…, *shape) over the same field of view, in voxels of that grid."""
    _check_field(displacement, "displacement")
    old, new = tuple(displacement.shape[2:]), tuple(shape)
    if old == new:
        return displacement
    resized = resize(displacement, new)
    scale = resized.new_tensor([n / o for n, o in zip(new, old, strict=True)])
    return resized * scale.view(1, 3, 1, 1, 1)


def invert_displacement(displacement: Tensor, iterations: int = 100, tolerance: float = 1e-3) -> Tensor:
    """Displacement of the inverse map, by the fixed-point iteration w ← −u(x + w); (B, 3, D, H, W).

    Stops where no voxel moves by more than ``tolerance`` voxels. The inverse of a folded map does not exist, and what
    points outside of the grid come from is not known: :func:`inverse_error` tells how far the result can be trusted.
    Source: Chen et al. 2008.
    """
    inverse, rate, largest = -displacement, 1.0, math.inf
    for _ in range(iterations):
        step = warp(displacement, inverse).add_(inverse).neg_()
        change = float(step.abs().amax())
        if change > largest:  # where the map expands more than twofold the plain iteration swings
            rate = max(rate / 2, 0.1)
        largest = change
        inverse = inverse + rate * step
        if change < tolerance:
            break
    return inverse


def inverse_error(first: Tensor, second: Tensor) -> Tensor:
    """Distance in voxels between x and second(first(x)): (B, 1, D, H, W), zero where they are each other's inverse."""
    return torch.linalg.vector_norm(compose(first, second), dim=1, keepdim=True)


def _normalised_points(displacement: Tensor, image_shape: torch.Size) -> Tensor:
    """x + u(x) as ``grid_sample`` wants it: (B, D, H, W, 3), last axis first, the image's corners at −1 and 1."""
    coordinates = []
    for axis in (2, 1, 0):
        size, points = image_shape[axis], displacement.shape[2 + axis]
        voxels = torch.arange(points, dtype=displacement.dtype, device=displacement.device)
        position = displacement[:, axis] + voxels.view([-1 if a == axis else 1 for a in range(3)])
        # an axis of one voxel has both corners at its centre: every point of it is at 0
        coordinates.append(position * (2 / (size - 1)) - 1 if size > 1 else torch.zeros_like(position))
    return torch.stack(coordinates, -1)


def _sample(image: Tensor, grid: Tensor, mode: str, padding: str) -> Tensor:
    """grid_sample, which on a CPU uses one thread an image: a single one is divided among the threads."""
    shares = min(torch.get_num_threads(), _LARGEST_SHARE if image.requires_grad else 64)
    _, depth, height, width, _ = grid.shape
    rows = depth * height
    shares = math.gcd(shares, rows)
    if len(image) > 1 or image.device.type != "cpu" or shares == 1 or rows * width < 4096:
        return F.grid_sample(image, grid, mode=mode, padding_mode=padding, align_corners=True)
    parts = grid.reshape(shares, rows // shares, 1, width, 3)
    values = F.grid_sample(image.expand(shares, -1, -1, -1, -1), parts, mode, padding, align_corners=True)
    return values.transpose(0, 1).reshape(1, image.shape[1], depth, height, width)


def _check_field(field: Tensor, name: str) -> None:
    if field.ndim != 5 or field.shape[1] != 3:
        raise ValueError(f"a {name} has shape (B, 3, D, H, W), not {tuple(field.shape)}")
    if not field.is_floating_point():
        raise ValueError(f"a {name} is in floating-point numbers, not {field.dtype}")
