"""Random augmentation of a pair of studies, label-consistent and decided by the generator alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..cohort.sample import OUTSIDE, Pair, StudySample
from ..cohort.sampling import draw_centre, patch_corner
from . import intensity as intensity
from . import spatial as spatial
from .config import AugmentationConfig, SpatialRanges


class Augmentation:
    """Augments (fixed, moving) by a configuration.

        augment = Augmentation(AugmentationConfig(noise_sd=0.2))
        fixed, moving = augment((fixed, moving), torch.Generator().manual_seed(7))

    Geometry comes first (flips, then one resampling for affine map and deformation), then the patch, then thick
    slices and blur, bias field, contrast, gamma and noise of each image by itself, at last modality dropout. Outside
    of the brain images keep their value, and absent modalities stay absent. The studies given are left as they are.

    background: value of an absent modality, which the preprocessing decides (-3 for z-scores).
    """

    def __init__(self, config: AugmentationConfig, background: float = OUTSIDE) -> None:
        self.config = config
        self.background = background

    def __call__(self, pair: Pair, generator: torch.Generator) -> Pair:
        """The augmented pair; the same generator state gives the same pair."""
        config = self.config
        shared = _draw_geometry(config.shared, pair[0].shape, generator)
        if pair[1].shape != pair[0].shape and shared.resamples:
            raise ValueError(
                f"'{pair[0].name}' and '{pair[1].name}' have different grids ({pair[0].shape} and {pair[1].shape}); "
                "prepare both studies on one grid"
            )
        own = [_draw_geometry(config.independent, sample.shape, generator) for sample in pair]
        samples = [_move(sample, shared, geometry) for sample, geometry in zip(pair, own, strict=True)]
        if config.patch is not None:
            samples = self._crop(samples, generator)
        samples = [self._change_intensity(sample, generator) for sample in samples]
        return tuple(self._drop_modalities(samples, generator))

    def _crop(self, samples: list[StudySample], generator: torch.Generator) -> list[StudySample]:
        if most := self.config.patch_margin_voxels:
            short = max(p - n for p, n in zip(self.config.patch, samples[0].shape, strict=True))
            least = min(max(0, -(-short // 2)), most)
            margin = int(torch.randint(least, most + 1, (1,), generator=generator))
            samples = [spatial.pad(sample, margin) for sample in samples]
        fixed = samples[0]
        centre = draw_centre(fixed.labels, fixed.mask, self.config.patch_proportions, generator)
        corner = patch_corner(centre, self.config.patch, fixed.shape, f"'{fixed.name}'")
        return [spatial.crop(sample, corner, self.config.patch) for sample in samples]

    def _change_intensity(self, sample: StudySample, generator: torch.Generator) -> StudySample:
        present = sample.present.tolist()
        # Drawn for absent modalities too: what one modality gets does not depend on the presence of another.
        steps = [_draw_intensity(self.config, sample.shape, generator) for _ in present]
        if not any(step.any for step in steps):
            return sample
        outside = sample.outside.tolist()
        images = [
            step.apply(image, sample.mask, generator, value) if there and step.any else image
            for image, step, there, value in zip(sample.images, steps, present, outside, strict=True)
        ]
        return StudySample(torch.stack(images), sample.labels, sample.mask, sample.name)

    def _drop_modalities(self, samples: list[StudySample], generator: torch.Generator) -> list[StudySample]:
        probability = self.config.dropout_probability
        if probability == 0:
            return samples
        channels = len(samples[0].images)
        drawn = [torch.rand(channels, generator=generator) for _ in samples]
        if self.config.dropout_shared:
            present = samples[0].present & samples[1].present
            drawn = [drawn[0], drawn[0]]
            keeps = [_kept(drawn[0] >= probability, present.cpu(), drawn[0])] * 2
        else:
            keeps = [_kept(d >= probability, s.present.cpu(), d) for d, s in zip(drawn, samples, strict=True)]
        return [drop_modalities(sample, keep, self.background) for sample, keep in zip(samples, keeps, strict=True)]


def drop_modalities(sample: StudySample, keep: Tensor, background: float = OUTSIDE) -> StudySample:
    """The sample with the modalities that are not in ``keep`` (C,) bool made absent."""
    if bool(keep.all()):
        return sample
    keep = keep.to(sample.images.device)[:, None, None, None]
    return StudySample(torch.where(keep, sample.images, background), sample.labels, sample.mask, sample.name)


def _kept(keep: Tensor, present: Tensor, drawn: Tensor) -> Tensor:
    """``keep`` such that at least one present modality stays: the one that was furthest from being dropped."""
    if present.any() and not (keep & present).any():
        keep = keep.clone()
        keep[int(torch.where(present, drawn, -1.0).argmax())] = True
    return keep


@dataclass(frozen=True)
class _Geometry:
    """One drawn geometric change."""

    mirrored: tuple[int, ...]
    matrix: Tensor | None  # (3, 3), without the mirrors; None: flips only
    translation: Tensor | None
    coefficients: Tensor | None  # (d, h, w, 3) in voxels
    knot_spacing: float

    @property
    def resamples(self) -> bool:
        return self.matrix is not None


def _uniform(generator: torch.Generator, count: int, reach: float) -> Tensor:
    return (2 * torch.rand(count, generator=generator) - 1) * reach


def _draw_geometry(ranges: SpatialRanges, shape: tuple[int, int, int], generator: torch.Generator) -> _Geometry:
    draws = torch.rand(4, generator=generator).tolist()
    mirrored = tuple(axis for axis in range(3) if draws[axis] < ranges.flip[axis])
    if ranges.flips_only or draws[3] >= ranges.probability:
        return _Geometry(mirrored, None, None, None, ranges.knot_spacing_voxels)
    rotation, scale, shear, translation = (
        _uniform(generator, 3, reach)
        for reach in (ranges.rotation_deg, ranges.scaling, ranges.shear, ranges.translation_voxels)
    )
    coefficients = None
    if ranges.deformation_voxels > 0:
        size = spatial.knots(shape, ranges.knot_spacing_voxels)
        reach = min(ranges.deformation_voxels, spatial.INJECTIVE_FRACTION * ranges.knot_spacing_voxels)
        coefficients = _uniform(generator, 3 * math.prod(size), reach).view(*size, 3)
    matrix = spatial.affine_matrix(rotation, scale, shear)
    return _Geometry(mirrored, matrix, translation, coefficients, ranges.knot_spacing_voxels)


def _move(sample: StudySample, shared: _Geometry, own: _Geometry) -> StudySample:
    """Apply both geometries in one resampling: first the flips, then shared ∘ own, with their deformations added."""
    sample = spatial.flip(
        sample, tuple(axis for axis in range(3) if (axis in shared.mirrored) != (axis in own.mirrored))
    )
    parts = [part for part in (shared, own) if part.resamples]
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


@dataclass(frozen=True)
class _IntensityChange:
    """One drawn change of one image; None where a step is left out."""

    slices: tuple[int, float] | None  # axis, factor
    blur: float | None
    bias: tuple[Tensor, float] | None  # coefficients, spacing
    contrast: tuple[float, float, float] | None  # shift, contrast, gamma
    noise: float | None

    @property
    def any(self) -> bool:
        steps = (self.slices, self.blur, self.bias, self.contrast, self.noise)
        return any(step is not None for step in steps)

    def apply(self, image: Tensor, mask: Tensor, generator: torch.Generator, outside: float) -> Tensor:
        if self.slices is not None:
            image = intensity.thick_slices(image, mask, *self.slices, outside)
        if self.blur is not None:
            image = intensity.blur(image, mask, self.blur, outside)
        if self.bias is not None:
            image = intensity.bias_field(image, mask, self.bias[0].to(image.device), self.bias[1], outside)
        if self.contrast is not None:
            shift, contrast, exponent = self.contrast
            image = intensity.shift_and_contrast(image, mask, shift, contrast, outside)
            image = intensity.gamma(image, mask, exponent, outside)
        if self.noise is not None:
            image = intensity.add_noise(image, mask, self.noise, generator, outside)
        return intensity.clip(image, mask, outside)


def _draw_intensity(
    config: AugmentationConfig, shape: tuple[int, int, int], generator: torch.Generator
) -> _IntensityChange:
    chance = torch.rand(5, generator=generator).tolist()
    size = torch.rand(7, generator=generator).tolist()
    slices = blur = bias = contrast = noise = None
    if chance[0] < config.anisotropy_probability:
        slices = (int(3 * size[0]), 1 + size[1] * (config.anisotropy_factor - 1))
    if chance[1] < config.blur_probability and config.blur_voxels > 0:
        blur = max(0.2, size[2]) * config.blur_voxels
    if chance[2] < config.bias_probability and config.bias_strength > 0:
        count = spatial.knots(shape, config.bias_spacing_voxels)
        bias = _uniform(generator, math.prod(count), config.bias_strength).view(count), config.bias_spacing_voxels
    if chance[3] < config.intensity_probability:
        shift = (2 * size[3] - 1) * config.shift
        factor = math.exp((2 * size[4] - 1) * config.contrast)
        contrast = shift, factor, math.exp((2 * size[5] - 1) * config.gamma)
    if chance[4] < config.noise_probability and config.noise_sd > 0:
        noise = size[6] * config.noise_sd
    return _IntensityChange(slices, blur, bias, contrast, noise)
