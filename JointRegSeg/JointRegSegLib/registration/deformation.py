"""Deformations as displacement fields: warping, composition, integration and inversion.

A displacement ``u`` (B, 3, D, H, W) is in voxels of its own grid; channel c is the component along the spatial axis c.
It maps a point x of the fixed grid to the point ``x + u(x)`` of the moving image, so that ``warp(moving, u)`` is the
moving image on the fixed grid. Grids of different sizes cover the same field of view from border to border, as they do
after average pooling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .separable import resize

_FEWEST_POINTS = 4096
"""Number of points from which on an image is interpolated by several threads; torch takes one for each image."""
_MOST_GRADIENT_THREADS = 4
"""Largest number of threads that compute a gradient. Each holds a copy of it, so more would cost too much memory."""


@dataclass(frozen=True)
class Deformation:
    """A map from the fixed grid to the moving one, with the quantities it was computed from.

    Attributes:
        displacement: Displacement (B, 3, D, H, W) in voxels.
        inverse: Displacement of the inverse map, from the moving grid to the fixed one, of the same shape.
        velocity: Stationary velocity (B, 3, d, h, w) in voxels of its own grid, which may be coarser.
        gradients: Spatial gradients Φ (B, 3, d, h, w) in (0, 1), from which ``cumulative_displacement`` computes the
            displacement; 0.5 everywhere gives the identity.
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

    def select(self, pair: int) -> Deformation:
        """Return the deformation of one pair of the batch, as a batch of one."""

        def select(field: Tensor | None) -> Tensor | None:
            return None if field is None else field[pair : pair + 1]

        displacement = self.displacement[pair : pair + 1]
        return Deformation(displacement, select(self.inverse), select(self.velocity), select(self.gradients))


def identity_displacement(shape: tuple[int, ...], like: Tensor | None = None, batch: int = 1) -> Tensor:
    """Return zeros of shape ``(batch, 3, *shape)``, with the dtype and device of ``like``."""
    return torch.zeros((batch, 3, *shape)) if like is None else like.new_zeros((batch, 3, *shape))


def warp(image: Tensor, displacement: Tensor, mode: str = "bilinear", padding: str = "border") -> Tensor:
    """Sample images at the points ``x + u(x)``.

    Args:
        image: Images (B or 1, C, d, h, w). Integers and half precision are converted to the dtype of the displacement.
        displacement: Displacements (B or 1, 3, D, H, W) in voxels of the image.
        mode: 'bilinear' (trilinear interpolation) or 'nearest'.
        padding: Value of points outside the image: 'border' (that of the nearest voxel) or 'zeros'.

    Returns:
        Warped images (B, C, D, H, W), in the dtype of the displacement, or in that of the image for nearest neighbours.

    Raises:
        ValueError: The shapes do not fit each other.
    """
    _check_field(displacement, "displacement")
    if image.ndim != 5:
        raise ValueError(f"an image to be warped must have shape (B, C, D, H, W), not {tuple(image.shape)}")
    batch = max(len(image), len(displacement))
    if len(image) not in (1, batch) or len(displacement) not in (1, batch):
        raise ValueError(f"{len(image)} images cannot be warped by {len(displacement)} displacements")
    grid = _normalized_points(displacement, image.shape[2:])
    image_values = image.to(grid.dtype).expand(batch, -1, -1, -1, -1)
    values = _sample(image_values, grid.expand(batch, -1, -1, -1, -1), mode, padding)
    return values.to(image.dtype) if mode == "nearest" else values


def at_indices(image: Tensor, indices: Tensor) -> Tensor:
    """Interpolate an image at any points, trilinearly.

    Args:
        image: Image (1, C, d, h, w).
        indices: Indices (n, 3) of the points along w, h and d. Beyond the image its outermost voxels count.

    Returns:
        Values (C, n).
    """
    count = min(torch.get_num_threads(), 64) if len(indices) >= _FEWEST_POINTS and image.device.type == "cpu" else 1
    last = indices.new_tensor([max(n - 1.0, 1.0) for n in reversed(image.shape[2:])])
    points = F.pad(2 / last * indices - 1, (0, 0, 0, -len(indices) % count)).view(count, 1, 1, -1, 3)
    values = F.grid_sample(image.expand(count, -1, -1, -1, -1), points, "bilinear", "border", align_corners=True)
    return values.transpose(0, 1).reshape(image.shape[1], -1)[:, : len(indices)]


def warp_labels(labels: Tensor, displacement: Tensor, classes: int | None = None) -> Tensor:
    """Warp labels as one-hot images with linear interpolation; the class with the largest share wins.

    Args:
        labels: Class numbers (B, 1, d, h, w) of an integer dtype.
        displacement: Displacements (B, 3, D, H, W) in voxels.
        classes: Number of classes; None for the largest label plus one.

    Returns:
        Class numbers (B, 1, D, H, W) in the dtype of the labels.
    """
    classes = int(labels.max()) + 1 if classes is None else classes
    best = torch.full((len(labels), 1, *displacement.shape[2:]), -1.0, device=labels.device, dtype=displacement.dtype)
    winner = torch.zeros_like(best, dtype=labels.dtype)
    for value in range(classes):  # one class at a time keeps the memory low
        share = warp((labels == value).to(displacement.dtype), displacement)
        winner = torch.where(share > best, torch.full_like(winner, value), winner)
        best = torch.maximum(share, best)
    return winner


def compose(first: Tensor, second: Tensor) -> Tensor:
    """Compose two maps on one grid; the first one is applied first.

    Args:
        first: Displacement (B, 3, D, H, W) in voxels.
        second: Displacement of the same shape.

    Returns:
        Displacement of ``x ↦ y + second(y)`` with ``y = x + first(x)``, of the same shape.
    """
    return first + warp(second, first)


def integrate_velocity(velocity: Tensor, steps: int = 6) -> Tensor:
    """Integrate a stationary velocity to its flow at unit time, by scaling and squaring (Arsigny et al. 2006).

    The negative velocity gives the inverse map.

    Args:
        velocity: Velocity (B, 3, D, H, W) in voxels.
        steps: Number of squarings.

    Returns:
        Displacement of the same shape, in float32 at least.
    """
    _check_field(velocity, "velocity")
    with torch.autocast(velocity.device.type, enabled=False):
        displacement = (velocity.float() if velocity.dtype in (torch.float16, torch.bfloat16) else velocity) / 2**steps
        for _ in range(steps):
            displacement = compose(displacement, displacement)
    return displacement


def cumulative_displacement(gradients: Tensor) -> Tensor:
    """Sum half spatial gradients to a map: its coordinate c is the cumulative sum of ``2Φ_c`` along axis c.

    For Φ = 0.5 everywhere, the sum over the voxels 0 to i is i + 1. The sum therefore starts at −1, so that this is
    exactly the identity map. Every coordinate increases along its axis. Source: Estienne et al. 2020, section 2.2,
    except for the start of the sum.

    Args:
        gradients: Half gradients Φ (B, 3, D, H, W) in (0, 1).

    Returns:
        Displacement of the same shape in voxels, in float32 at least.
    """
    _check_field(gradients, "gradients")
    steps = 2 * (gradients.float() if gradients.dtype in (torch.float16, torch.bfloat16) else gradients) - 1
    return torch.stack([steps[:, axis].cumsum(axis + 1) for axis in range(3)], 1)


def jacobian_determinant(displacement: Tensor) -> Tensor:
    """Compute ``det(I + ∇u)`` by central differences, with one-sided differences at the borders.

    The determinant is the volume that a unit volume of the fixed grid has in the moving image. The map folds where
    it is not positive.

    Args:
        displacement: Displacement (B, 3, D, H, W) in voxels.

    Returns:
        Determinants (B, 1, D, H, W), dimensionless.

    Raises:
        ValueError: An axis has fewer than two voxels.
    """
    _check_field(displacement, "displacement")
    if min(displacement.shape[2:]) < 2:
        raise ValueError(
            f"the Jacobian needs at least two voxels along every axis, not {tuple(displacement.shape[2:])}"
        )
    rows = []
    for component in range(3):
        row = list(torch.gradient(displacement[:, component], dim=(1, 2, 3)))
        row[component] = row[component] + 1
        rows.append(row)
    (a, b, c), (d, e, f), (g, h, i) = rows
    return (a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)).unsqueeze(1)


def folded_fraction(displacement: Tensor, mask: Tensor | None = None) -> float:
    """Compute the fraction of voxels in which a map folds, where its Jacobian determinant is not positive.

    Args:
        displacement: Displacement (B, 3, D, H, W) in voxels.
        mask: Voxels that count, as non-zero voxels of a tensor (B, 1, D, H, W); None for all.

    Returns:
        A fraction from 0 to 1; 0 for an empty mask.
    """
    folded = ~(jacobian_determinant(displacement) > 0)
    selected = folded if mask is None else folded[mask.bool()]
    return float(selected.double().mean()) if selected.numel() else 0.0


def resize_displacement(displacement: Tensor, shape: Sequence[int]) -> Tensor:
    """Resample a displacement (B, 3, D, H, W) to another grid over the same field of view, in voxels of that grid."""
    _check_field(displacement, "displacement")
    old, new = tuple(displacement.shape[2:]), tuple(shape)
    if old == new:
        return displacement
    resized = resize(displacement, new)
    scale = resized.new_tensor([n / o for n, o in zip(new, old, strict=True)])
    return resized * scale.view(1, 3, 1, 1, 1)


def invert_displacement(displacement: Tensor, iterations: int = 100, tolerance: float = 1e-3) -> Tensor:
    """Invert a map by the fixed-point iteration ``w ← −u(x + w)`` (Chen et al. 2008).

    A map that folds has no inverse, and outside the grid the map is unknown. ``inverse_error`` shows how accurate the
    result is.

    Args:
        displacement: Displacement (B, 3, D, H, W) in voxels.
        iterations: Largest number of iterations.
        tolerance: The iteration ends when no voxel moves by more than this, in voxels.

    Returns:
        Displacement of the inverse map, of the same shape.
    """
    inverse, rate, largest = -displacement, 1.0, math.inf
    for _ in range(iterations):
        step = warp(displacement, inverse).add_(inverse).neg_()
        change = float(step.abs().amax())
        if change > largest:  # the plain iteration oscillates where the map expands more than twofold
            rate = max(rate / 2, 0.1)
        largest = change
        inverse = inverse + rate * step
        if change < tolerance:
            break
    return inverse


def inverse_error(first: Tensor, second: Tensor) -> Tensor:
    """Compute the distance between x and ``second(first(x))``, which is zero for maps inverse to each other.

    Args:
        first: Displacement (B, 3, D, H, W) in voxels.
        second: Displacement of the same shape.

    Returns:
        Distances (B, 1, D, H, W) in voxels.
    """
    return length(compose(first, second))


def length(displacement: Tensor) -> Tensor:
    """Return the length (B, 1, D, H, W) of every vector of a displacement (B, 3, D, H, W), in its own unit."""
    return displacement.square().sum(1, keepdim=True).sqrt()  # vector_norm takes ten times as long on the CPU


def _normalized_points(displacement: Tensor, image_shape: torch.Size) -> Tensor:
    """Return ``x + u(x)`` for ``grid_sample``: (B, D, H, W, 3), last axis first, with image corners at −1 and 1."""
    components = displacement.unbind(1)  # its gradient is one stack, that of three indices would be three sums
    coordinates = []
    for axis in (2, 1, 0):
        size, points = image_shape[axis], displacement.shape[2 + axis]
        # An axis of one voxel has both corners at its centre, so every point is at 0.
        scale, corner = (2 / (size - 1), -1) if size > 1 else (0, 0)
        voxels = torch.arange(points, dtype=displacement.dtype, device=displacement.device) * scale + corner
        along = voxels.view([-1 if a == axis else 1 for a in range(3)])
        coordinates.append(torch.add(along, components[axis], alpha=scale))
    return torch.stack(coordinates, 1).permute(0, 2, 3, 4, 1)  # far faster than to write the coordinates in turn


def _sample(image: Tensor, grid: Tensor, mode: str, padding: str) -> Tensor:
    """Call ``grid_sample``, on parts of a single image on the CPU, so that it uses several threads."""
    count = min(torch.get_num_threads(), _MOST_GRADIENT_THREADS if image.requires_grad else 64)
    _, depth, height, width, _ = grid.shape
    rows = depth * height
    count = math.gcd(count, rows)
    if len(image) > 1 or image.device.type != "cpu" or count == 1 or rows * width < _FEWEST_POINTS:
        return F.grid_sample(image, grid, mode=mode, padding_mode=padding, align_corners=True)
    parts = grid.reshape(count, rows // count, 1, width, 3)
    values = F.grid_sample(image.expand(count, -1, -1, -1, -1), parts, mode, padding, align_corners=True)
    return values.transpose(0, 1).reshape(1, image.shape[1], depth, height, width)


def _check_field(field: Tensor, name: str) -> None:
    if field.ndim != 5 or field.shape[1] != 3:
        raise ValueError(f"{name} must have shape (B, 3, D, H, W), not {tuple(field.shape)}")
    if not field.is_floating_point():
        raise ValueError(f"{name} must have a floating-point dtype, not {field.dtype}")
