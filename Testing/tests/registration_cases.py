"""Images with a known deformation between them, for tests of registration."""

from __future__ import annotations

import torch

from JointRegSegLib.registration.deformation import integrate_velocity, warp
from JointRegSegLib.registration.refinement_settings import RefinementLevel, RefinementSettings
from JointRegSegLib.registration.separable import smooth

SHAPE = (32, 40, 24)
QUICK = RefinementSettings(
    levels=(RefinementLevel(2, 4, 5, 30), RefinementLevel(1, 4, 5, 15, 2)), mask_dilation=1, regularisation=0.2
)


def texture(seed: int = 0, shape: tuple[int, ...] = SHAPE, channels: int = 1) -> torch.Tensor:
    """Return smooth blobs within an ellipsoid and −3 outside, like a brain after normalisation: (1, C, *shape)."""
    generator = torch.Generator().manual_seed(seed)
    image = smooth(torch.randn((1, channels, *shape), generator=generator), 1.5)
    return torch.where(radius(shape) < 0.9, image / image.std(), -3.0)


def radius(shape: tuple[int, ...] = SHAPE, center: tuple[float, ...] = (0, 0, 0), size: float = 1) -> torch.Tensor:
    """Return a map that is 1 on the surface of an ellipsoid; that of size 1 about (0, 0, 0) touches the borders."""
    axes = [torch.linspace(-1, 1, n) - c for n, c in zip(shape, center, strict=True)]
    squares = sum(g.square() for g in torch.meshgrid(*axes, indexing="ij"))
    return squares.sqrt()[None, None] / size


def known_velocity(size: float = 4.0, seed: int = 1, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    """Return a smooth velocity (1, 3, *shape) whose largest component is ``size`` voxels."""
    generator = torch.Generator().manual_seed(seed)
    velocity = smooth(torch.randn((1, 3, *shape), generator=generator), 5.0)
    return size * velocity / velocity.abs().max()


def pair(size: float = 4.0, channels: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return a fixed image, a moving image and the true displacement between them."""
    fixed, velocity = texture(channels=channels), known_velocity(size)
    moving = warp(fixed, integrate_velocity(-velocity))
    return fixed, moving, integrate_velocity(velocity)


def error(found: torch.Tensor, true: torch.Tensor) -> float:
    """Return the mean distance in voxels of a displacement from the true one, inside of the ellipsoid."""
    return float((found - true).norm(dim=1, keepdim=True)[radius() < 0.8].mean())
