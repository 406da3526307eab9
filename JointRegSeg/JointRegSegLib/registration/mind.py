"""MIND-SSC: difference of the local self-similarity of two images, whatever their contrasts, with pathology masked out.

The modality-independent neighbourhood descriptor with self-similarity context describes a voxel by how much the patches
around its six neighbours differ from each other, relative to the local noise. Source: Heinrich et al., Towards realtime
multimodal fusion for image-guided interventions using self-similarities, MICCAI 2013, LNCS 8149:187-194. As in the
authors' code the noise is the mean of the distances of a voxel, within limits, and the smallest distance is subtracted.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from NeuroCESTLib.core.smoothing import along_axes

from .comparison import varying_channels
from .local_correlation import LocalStatistics, central_voxels

PATCH = 3
"""Edge of the patches in voxels."""
DISTANCE = 2
"""Distance of the six neighbours from the voxel, in voxels."""
DIRECTIONS = tuple(
    tuple(DISTANCE * sign * (axis == second) + DISTANCE * (axis == first) for axis in range(3))
    for first, second in itertools.combinations(range(3), 2)
    for sign in (1, -1)
)
"""Offsets (D, H, W) between the neighbours of a pair. Each belongs to two of the twelve pairs, see `starts`."""
_MARGIN = DISTANCE + PATCH // 2
_NOISE_LIMITS = 1e-3, 1e3
"""Limits of the local noise, relative to its mean over the image."""
_LEAST_SHARE = 1e-3
"""Least share of a pair of patches that must be unmasked for its distance to be used."""


def starts(direction: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the offsets of the first neighbour of the two pairs that lie in a direction of `DIRECTIONS`.

    Neighbours that lie opposite each other form no pair. A pair whose offset is (2, 2, 0) leads from (-2, 0, 0) to
    (0, 2, 0), or from (0, -2, 0) to (2, 0, 0).
    """
    axes = [axis for axis, step in enumerate(direction) if step]
    return [tuple(-step if axis == chosen else 0 for axis, step in enumerate(direction)) for chosen in axes]


@dataclass(frozen=True)
class SelfSimilarity:
    """Descriptors of fixed images, to be compared with those of moving ones; see `comparison.Comparison`.

    Attributes:
        fixed: Fixed images (B, C, D, H, W).
        mask: Weights (B, 1 or C, D, H, W) of the voxels, or None.
        window: Edge of the neighbourhoods in which structure is looked for, in voxels.
        patches: What the descriptors of both images are computed with.
        descriptors: Descriptors of the fixed images (B, C, 12, d, h, w).
        weights: Weights of the entries in the result, broadcastable to that shape.
    """

    fixed: Tensor
    mask: Tensor | None
    window: int
    patches: Patches
    descriptors: Tensor
    weights: Tensor

    @property
    def structured_share(self) -> float:
        """Share of the unmasked voxels that lie in neighbourhoods with structure."""
        return LocalStatistics.of(self.fixed, self.window, self.mask, self.patches.stride).structured_share

    def similarity(self, moving: Tensor) -> Tensor:
        """Compute minus the mean squared difference of the descriptors, from -1 to 0.

        Args:
            moving: Images (B, C, D, H, W) on the grid of the fixed ones.

        Returns:
            The weighted mean over the entries, the voxels and the channels that both images have, averaged over the
            batch.
        """
        present = (varying_channels(self.fixed) & varying_channels(moving)).unsqueeze(2)
        weights = (self.weights * present).expand_as(self.descriptors)
        squares = (self.descriptors - self.patches.descriptors(moving)).square() * weights
        axes = (1, 2, 3, 4, 5)
        return -(squares.sum(axes) / weights.sum(axes).clamp_min(torch.finfo(squares.dtype).tiny)).mean()


def prepare(fixed: Tensor, mask: Tensor | None, window: int, stride: int) -> SelfSimilarity:
    """Prepare a fixed image; see `similarity.Prepare`. The patches have a size of their own, not ``window``."""
    mask = None if mask is None else mask.to(fixed.dtype).expand(len(fixed), -1, -1, -1, -1)
    patches = Patches.of(fixed, mask, stride)
    weights = patches.valid.to(fixed.dtype)
    if mask is not None:
        depth, height, width = (central_voxels(size, stride) for size in fixed.shape[2:])
        weights = weights * mask[..., depth, height, width].unsqueeze(2)
    return SelfSimilarity(fixed, mask, window, patches, patches.descriptors(fixed), weights)


@dataclass(frozen=True)
class Patches:
    """Distances between the patches around the neighbours of every voxel, with masked voxels left out.

    Beyond the border of an image the nearest voxel is taken.

    Attributes:
        stride: Descriptors are evaluated at every so many voxels along each axis.
        weights: For each direction the products of the weights of the voxels that are compared; empty without a mask.
        shares: The means of the products over the patches (B, 1 or C, 12, d, h, w); None without a mask.
        valid: Which distances can be used (B or 1, 1 or C, 12 or 1, d or 1, h or 1, w or 1).
    """

    stride: int
    weights: tuple[Tensor, ...]
    shares: Tensor | None
    valid: Tensor

    @classmethod
    def of(cls, fixed: Tensor, mask: Tensor | None, stride: int) -> Patches:
        """Prepare the patches for images of the shape of ``fixed`` with a mask (B, 1 or C, D, H, W)."""
        unmasked = cls(stride, (), None, torch.ones((1,) * 6, dtype=torch.bool, device=fixed.device))
        if mask is None:
            return unmasked
        weights = tuple(first * second for first, second in _compared_voxels(mask))
        shares = unmasked._patch_means(weights, fixed.shape[2:])
        return cls(stride, weights, shares.clamp_min(_LEAST_SHARE), shares > _LEAST_SHARE)

    def descriptors(self, image: Tensor) -> Tensor:
        """Compute the descriptors of images (B, C, D, H, W): (B, C, 12, d, h, w), each entry from 0 to 1."""
        squares = [(first - second).square() for first, second in _compared_voxels(image)]
        if self.shares is None:
            distances = self._patch_means(squares, image.shape[2:])
            noise = distances.mean(2, keepdim=True)
        else:
            products = [square * weights for square, weights in zip(squares, self.weights, strict=True)]
            distances = self._patch_means(products, image.shape[2:]) / self.shares
            noise = (distances * self.valid).sum(2, keepdim=True) / self.valid.sum(2, keepdim=True).clamp_min(1)
            distances = torch.where(self.valid, distances, distances.detach().amax())  # never the smallest
        least, most = (limit * self._mean_noise(noise) for limit in _NOISE_LIMITS)
        noise = torch.minimum(torch.maximum(noise, least), most)
        return torch.exp((distances.amin(2, keepdim=True) - distances) / noise)

    @torch.no_grad()
    def _mean_noise(self, noise: Tensor) -> Tensor:
        """Average the noise over the voxels with a valid distance (B, C, 1, 1, 1, 1); positive also without noise."""
        known = self.valid.any(2, keepdim=True).expand_as(noise)
        axes = (2, 3, 4, 5)
        mean = (noise * known).sum(axes, keepdim=True) / known.sum(axes, keepdim=True).clamp_min(1)
        return mean.clamp_min(torch.finfo(noise.dtype).tiny / _NOISE_LIMITS[0])

    def _patch_means(self, values: Sequence[Tensor], shape: torch.Size) -> Tensor:
        """Average the values of each direction over the patches of its two pairs: (B, C, 12, d, h, w).

        The patches of all voxels and of both pairs lie on one lattice, which is averaged only once.
        """
        step = math.gcd(self.stride, DISTANCE)
        centers = [range(size)[central_voxels(size, self.stride)] for size in shape]
        means = []
        for direction, field in zip(DIRECTIONS, values, strict=True):
            rows = []
            for axis, positions in enumerate(centers):
                extent = abs(direction[axis])
                lattice = range(positions[0], positions[-1] + extent + 1, step)
                rows.append(_patch_rows(lattice, shape[axis] + extent, field.dtype, field.device))
            lattice_means = along_axes(field, rows)
            for start in starts(direction):
                depth, height, width = (
                    slice((offset + max(along, 0)) // step, None, self.stride // step)
                    for offset, along in zip(start, direction, strict=True)
                )
                part = lattice_means[:, :, depth, height, width]
                means.append(part[..., : len(centers[0]), : len(centers[1]), : len(centers[2])])
        return torch.stack(means, 2)


def _compared_voxels(images: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return, for each direction, the two voxels that are compared wherever a patch of its pairs may need them.

    Along an axis of the direction both tensors are longer than the images (B, C, D, H, W) by DISTANCE, and by the
    margin of a patch along every axis. They start at the first voxel of the patch of the first voxel of the image.
    """
    wide = F.pad(images, (_MARGIN,) * 6, mode="replicate")

    def part(direction: tuple[int, ...], second: bool) -> Tensor:
        result = wide
        for axis, step in enumerate(direction, 2):
            # The first neighbours lie DISTANCE behind the voxel at most where the direction is forward, else before it.
            first = DISTANCE - max(step, 0) + (step if second else 0)
            result = result.narrow(axis, first, images.shape[axis] + abs(step) + PATCH - 1)
        return result

    return [(part(direction, False), part(direction, True)) for direction in DIRECTIONS]


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # The matrix is cached, and later calls may need gradients.
def _patch_rows(lattice: range, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Rows (lattice, size + margins) that average over the patches whose first voxels lie on a lattice."""
    voxels = torch.arange(size + PATCH - 1, device=device)
    first = torch.tensor(list(lattice), device=device)[:, None]
    return ((voxels >= first) & (voxels < first + PATCH)).to(dtype) / PATCH
