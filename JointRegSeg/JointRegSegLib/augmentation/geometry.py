"""Random geometric changes of a study: mirroring, and an affine map with a deformation in one resampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..cohort.sample import StudySample
from . import spatial
from .config import SpatialRanges


@dataclass(frozen=True)
class Affine:
    """A drawn affine map with a deformation.

    Attributes:
        matrix: Matrix (3, 3) without the mirroring.
        translation: Translation (3,) in voxels.
        coefficients: Coefficients (d, h, w, 3) of the deformation in voxels, or None.
        knot_spacing: Knot spacing of the deformation in voxels.
    """

    matrix: Tensor
    translation: Tensor
    coefficients: Tensor | None
    knot_spacing: float


@dataclass(frozen=True)
class Geometry:
    """A drawn geometric change: axes of mirroring, and the map that needs resampling, if any."""

    mirrored: tuple[int, ...]
    affine: Affine | None


def uniform(generator: torch.Generator, count: int, reach: float) -> Tensor:
    """Draw numbers (count,) uniformly from -reach to reach."""
    return (2 * torch.rand(count, generator=generator) - 1) * reach


def draw_geometry(ranges: SpatialRanges, shape: tuple[int, int, int], generator: torch.Generator) -> Geometry:
    """Draw a change within ranges for studies on a grid (D, H, W)."""
    draws = torch.rand(4, generator=generator).tolist()
    mirrored = tuple(axis for axis in range(3) if draws[axis] < ranges.flip[axis])
    if ranges.flips_only or draws[3] >= ranges.probability:
        return Geometry(mirrored, None)
    rotation, scale, shear, translation = (
        uniform(generator, 3, reach)
        for reach in (ranges.rotation_deg, ranges.scaling, ranges.shear, ranges.translation_voxels)
    )
    coefficients = None
    if ranges.deformation_voxels > 0:
        size = spatial.knots(shape, ranges.knot_spacing_voxels)
        reach = min(ranges.deformation_voxels, spatial.INJECTIVE_FRACTION * ranges.knot_spacing_voxels)
        coefficients = uniform(generator, 3 * math.prod(size), reach).view(*size, 3)
    matrix = spatial.affine_matrix(rotation, scale, shear)
    return Geometry(mirrored, Affine(matrix, translation, coefficients, ranges.knot_spacing_voxels))


def moved(sample: StudySample, changes: Sequence[Geometry]) -> StudySample:
    """Apply changes in one resampling: mirroring, then the maps one within the other with their deformations added."""
    axes = tuple(axis for axis in range(3) if sum(axis in change.mirrored for change in changes) % 2)
    sample = spatial.flip(sample, axes)
    parts = [change.affine for change in changes if change.affine is not None]
    if not parts:
        return sample
    device = sample.images.device
    matrix, translation = torch.eye(3), torch.zeros(3)
    displacement = None
    for part in parts:
        translation = translation + matrix @ part.translation
        matrix = matrix @ part.matrix
        if part.coefficients is not None:
            bend = spatial.smooth_field(part.coefficients.to(device), sample.shape, part.knot_spacing)
            displacement = bend if displacement is None else displacement + bend
    positions = spatial.source_positions(sample.shape, matrix.to(device), translation, displacement)
    return spatial.resample(sample, positions)
