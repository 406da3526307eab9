"""Flows and warped images with approximate gradients, as in log-domain demons, which cost far less than the exact ones.

The values are exact, so an optimisation minimises the same objective; only the directions of its steps are approximate.
Source: log-domain demons (Vercauteren et al. 2008, doi 10.1007/978-3-540-85988-8_90), where the gradient of the warped
image takes the place of the warped gradient, and what would improve the deformation changes the velocity.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..deformation import compose, integrate_velocity, warp


def flow(velocity: Tensor, steps: int) -> Tensor:
    """Integrate a velocity as ``deformation.integrate_velocity`` does, with an approximate gradient.

    What a point of the displacement asks for is passed to the velocity in the middle of that point's path.

    Args:
        velocity: Velocity (B, 3, D, H, W) in voxels.
        steps: Number of squarings, at least 1.

    Returns:
        Displacement of the same shape.
    """
    return _Flow.apply(velocity, steps)


def warped(image: Tensor, displacement: Tensor) -> Tensor:
    """Warp an image as ``deformation.warp`` does, with an approximate gradient with respect to the displacement only.

    The gradient is made of central differences of fourth order of the warped image, continued beyond its borders.

    Args:
        image: Image (1, C, D, H, W).
        displacement: Displacement (1, 3, D, H, W) in voxels.

    Returns:
        Warped image, of the shape of the image.
    """
    return _Warped.apply(image, displacement)


class _Flow(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, velocity: Tensor, steps: int) -> Tensor:
        half = integrate_velocity(velocity / 2, steps - 1)
        ctx.save_for_backward(half)
        return compose(half, half)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (half,) = ctx.saved_tensors
        return warp(gradient, -half), None


class _Warped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, displacement: Tensor) -> Tensor:
        values = warp(image, displacement)
        ctx.save_for_backward(values)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        (values,) = ctx.saved_tensors
        padded = F.pad(values, (2,) * 6, mode="replicate")
        components = []
        for axis in (2, 3, 4):
            before2, before, after, after2 = (_shifted(padded, axis, by) for by in (-2, -1, 1, 2))
            change = torch.sub(after, before).mul_(2 / 3).sub_(after2 - before2, alpha=1 / 12)
            components.append(change.mul_(gradient).sum(1))
        return None, torch.stack(components, 1)


def _shifted(padded: Tensor, axis: int, by: int) -> Tensor:
    """Return an image that was padded by two voxels, moved along an axis by two voxels at most."""
    for other in (2, 3, 4):
        padded = padded.narrow(other, 2 + by if other == axis else 2, padded.shape[other] - 4)
    return padded
