"""Denoising of an acquisition by its own redundancy, with a map of the noise (MP-PCA).

In a small patch, the spectra of neighbouring voxels are combinations of a few components. The other components are
noise, and their singular values follow the Marchenko-Pastur distribution, from which the number of components to keep
and the standard deviation of the noise follow without any setting: Veraart et al., NeuroImage 2016;142:394; degrees of
freedom as in Cordero-Grande et al., NeuroImage 2019;200:391; overlapping patches weighted as in Manjón et al., PLoS ONE
2013;8:e73021.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from NeuroCESTLib.core.progress import Progress, silent

_FEWEST_MEASUREMENTS = 8
_PATCHES_AT_ONCE = 256


@dataclass(frozen=True)
class Denoised:
    """Result of a denoising.

    Attributes:
        images: Images (measurement, K, J, I).
        noise_sd: Standard deviation (K, J, I) of the noise of one measurement, in the unit of the signal.
        components: Mean number (K, J, I) of components that were kept.
    """

    images: Tensor
    noise_sd: Tensor
    components: Tensor


def denoise(images: Tensor, *, progress: Progress = silent) -> Denoised:
    """Remove noise that neighbouring spectra do not share.

    Magnitude images of low signal have a positive mean of the noise (Rice), which stays.

    Args:
        images: Images (measurement, K, J, I); values that are not finite count as 0 and stay as they are.
        progress: Called with the fraction done and a message; may raise to cancel.

    Raises:
        ValueError: There are fewer than eight measurements, or the images are smaller than a patch.
    """
    count = len(images)
    if count < _FEWEST_MEASUREMENTS:
        raise ValueError(f"denoising needs at least {_FEWEST_MEASUREMENTS} measurements, not {count}")
    volume = torch.nan_to_num(images.double(), nan=0.0, posinf=0.0, neginf=0.0)
    edges = patch_edges(tuple(images.shape[1:]), count)
    total, weight = torch.zeros_like(volume), torch.zeros_like(volume[0])
    variance, kept = torch.zeros_like(weight), torch.zeros_like(weight)
    corners = list(itertools.product(*(_starts(n, edge) for n, edge in zip(images.shape[1:], edges, strict=True))))
    grids = torch.meshgrid(*(torch.arange(edge) for edge in edges), indexing="ij")
    shape = images.shape[1:]
    inside = ((grids[0] * shape[1] + grids[1]) * shape[2] + grids[2]).flatten()
    flat = volume.reshape(count, -1)
    for first in range(0, len(corners), _PATCHES_AT_ONCE):
        origin = torch.tensor(
            [(k * shape[1] + j) * shape[2] + i for k, j, i in corners[first : first + _PATCHES_AT_ONCE]]
        )
        index = origin[:, None] + inside  # (patch, voxel)
        patches = flat[:, index].permute(1, 2, 0)  # (patch, voxel, measurement)
        cleaned, sigma2, rank = shrink(patches)
        share = (1 / (1 + rank.double()))[:, None].expand(index.shape)
        where = index.reshape(-1)
        total.view(count, -1).index_add_(1, where, (cleaned * share[..., None]).permute(2, 0, 1).reshape(count, -1))
        for target, value in ((weight, 1.0), (variance, sigma2[:, None]), (kept, rank.double()[:, None])):
            target.view(-1).index_add_(0, where, (share * value).reshape(-1))
        progress(min(1.0, (first + len(origin)) / len(corners)), "denoising")
    denoised = torch.where(torch.isfinite(images), (total / weight).to(images.dtype), images)
    return Denoised(denoised, (variance / weight).sqrt(), kept / weight)


def patch_edges(shape: tuple[int, ...], count: int) -> tuple[int, int, int]:
    """Return the edges (k, j, i) of the smallest odd cubes, or squares of few slices, with as many voxels as images.

    Raises:
        ValueError: The images are smaller than a patch.
    """
    for edge in range(3, 2 * max(shape) + 2, 2):
        edges = tuple(min(edge, n) for n in shape)
        if edges[0] * edges[1] * edges[2] >= count:
            return edges[0], edges[1], edges[2]
    raise ValueError(f"denoising needs images of at least as many voxels as measurements ({count})")


def _starts(size: int, edge: int) -> list[int]:
    """First indices of patches along an axis: half an edge apart, the last one at the end."""
    step = max(1, edge // 2)
    return sorted({*range(0, size - edge + 1, step), size - edge})


def shrink(patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Keep the components of patches that stand out of the noise.

    Args:
        patches: (patch, voxel, measurement).

    Returns:
        The patches without noise components, the variance (patch,) of the noise, and the number (patch,) of components.
    """
    voxels, measurements = patches.shape[1:]
    small, large = min(voxels, measurements), max(voxels, measurements)
    by_measurement = measurements <= voxels
    gram = patches.transpose(1, 2) @ patches if by_measurement else patches @ patches.transpose(1, 2)
    energies, vectors = torch.linalg.eigh(gram)  # ascending
    energies = energies.clamp_min(0)
    noise_count = torch.arange(1, small + 1, dtype=energies.dtype)  # if the first 1, 2, … are noise
    freedom = noise_count * (large - (small - noise_count))
    by_mean = energies.cumsum(1) / freedom
    ratio = noise_count / (large - (small - noise_count))
    width = (energies - energies[:, :1]) / (large - (small - noise_count))
    by_range = width / (4 * ratio.sqrt())
    is_noise = by_range <= by_mean
    last = torch.where(is_noise, noise_count, 0.0).amax(1).long().clamp_min(1)
    sigma2 = by_mean.gather(1, (last - 1)[:, None]).squeeze(1)
    kept = vectors * (torch.arange(small) >= last[:, None])[:, None, :]
    cleaned = patches @ kept @ kept.transpose(1, 2) if by_measurement else kept @ kept.transpose(1, 2) @ patches
    return cleaned, sigma2, small - last
