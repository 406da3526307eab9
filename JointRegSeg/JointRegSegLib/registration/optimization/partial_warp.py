"""Warping of those voxels of an image alone on which a similarity depends."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..deformation import warp

_MOST_THREADS = 4
"""Largest number of parts of the points that are sampled at the same time."""
_WORTHWHILE = 0.85
"""Share of the voxels from which on warping all of them takes no longer."""


class PartialWarp:
    """Warps one image by many displacements, at some of its voxels only.

    At the other voxels the result is the image as it is, and the displacement has no gradient.
    """

    def __init__(self, image: Tensor, where: Tensor | None = None) -> None:
        """Prepare the warping.

        Args:
            image: Image of shape (1, C, D, H, W).
            where: Voxels to warp, bool (1, 1, D, H, W); None for all of them.
        """
        self._image = image
        self._voxels: Tensor | None = None
        if where is None or image.device.type != "cpu" or min(image.shape[2:]) < 2:
            return
        voxels = torch.nonzero(where.flatten())[:, 0]
        if not 0 < len(voxels) < _WORTHWHILE * where.numel():
            return
        self._parts = min(torch.get_num_threads(), _MOST_THREADS)
        # Of parts of equal length, which repeat the last voxel, each takes one thread.
        self._voxels = torch.cat([voxels, voxels[-1:].expand(-len(voxels) % self._parts)])
        shape = image.shape[2:]
        self._scale = torch.tensor([2 / (n - 1) for n in shape], dtype=image.dtype)
        positions = torch.stack(torch.unravel_index(self._voxels, shape), 1)
        self._positions = positions * self._scale - 1

    def __call__(self, displacement: Tensor) -> Tensor:
        """Return the image (1, C, D, H, W) at the points ``x + u(x)``, as ``deformation.warp`` does.

        Args:
            displacement: Displacement (1, 3, D, H, W) in voxels.
        """
        if self._voxels is None:
            return warp(self._image, displacement)
        moved = _TakenVoxels.apply(displacement, self._voxels)
        points = torch.addcmul(self._positions, moved.t(), self._scale).view(self._parts, -1, 1, 1, 3)
        # The components of the points are in the order of the axes if that of the image is reversed.
        image = self._image.permute(0, 1, 4, 3, 2).expand(self._parts, -1, -1, -1, -1)
        values = F.grid_sample(image, points, "bilinear", "border", align_corners=True)
        values = values.transpose(0, 1).reshape(1, self._image.shape[1], -1)
        return self._image.flatten(2).index_copy(2, self._voxels, values).view_as(self._image)


class _TakenVoxels(torch.autograd.Function):
    """Vectors (3, N) of a field (1, 3, D, H, W) at some voxels, of which none counts twice."""

    @staticmethod
    def forward(ctx: Any, field: Tensor, voxels: Tensor) -> Tensor:
        ctx.save_for_backward(voxels)
        ctx.shape = field.shape
        return field.flatten(2)[0].index_select(1, voxels)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (voxels,) = ctx.saved_tensors
        result = gradient.new_zeros(ctx.shape)
        result.view(3, -1).index_copy_(1, voxels, gradient)
        return result, None
