"""A ball of brain with a tumour for the tests of the augmentation, and settings that do one thing or everything."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from JointRegSegLib.augmentation.config import AugmentationConfig, SpatialRanges
from JointRegSegLib.cohort.sample import OUTSIDE, Pair, StudySample

SHAPE = (24, 28, 20)
STRONG = AugmentationConfig(
    shared=SpatialRanges((0.3, 0.3, 0.5), 1.0, 15, 0.15, 0.05, 2, 4, 8),
    independent=SpatialRanges((0.0, 0.0, 0.0), 1.0, 5, 0.05, 0.0, 1, 1, 8),
    anisotropy_probability=0.5,
    blur_probability=0.5,
    bias_probability=0.5,
    intensity_probability=0.5,
    noise_probability=0.5,
    dropout_probability=0.3,
)


def coordinates() -> Tensor:
    """(3, D, H, W) voxel coordinates."""
    return torch.stack(torch.meshgrid(*[torch.arange(n, dtype=torch.float32) for n in SHAPE], indexing="ij"))


def ball(center: tuple[float, float, float], radius: float) -> Tensor:
    """Mask (D, H, W) of a ball; lengths in voxels."""
    return ((coordinates() - torch.tensor(center)[:, None, None, None]) ** 2).sum(0) < radius**2


def study(seed: int = 0, name: str = "a") -> StudySample:
    """A ball of brain with smooth structure and a tumour of three shells off its center."""
    phase = torch.rand(4, 3, generator=torch.Generator().manual_seed(seed)) * 6
    z = coordinates() / 4
    images = torch.stack([sum(torch.sin(z[k] + phase[c, k]) for k in range(3)) for c in range(4)]) / 1.3
    mask = ball((12, 14, 9), 8.5)
    labels = torch.zeros(SHAPE, dtype=torch.uint8)
    for value, radius in ((2, 5.0), (3, 3.5), (1, 2.0)):
        labels[ball((12, 16, 7), radius)] = value
    return StudySample(torch.where(mask, images, OUTSIDE), labels, mask, name)


def pair() -> Pair:
    return study(0, "fixed"), study(1, "moving")


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def same_values(a: StudySample, b: StudySample) -> bool:
    """Whether two labelled samples have the same values."""
    return all(torch.equal(x, y) for x, y in ((a.images, b.images), (a.labels, b.labels), (a.mask, b.mask)))


def only(**changes: Any) -> AugmentationConfig:
    """Settings that do nothing except what is given."""
    return dataclasses.replace(AugmentationConfig.none(), **changes)
