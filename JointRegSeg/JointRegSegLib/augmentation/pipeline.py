"""Random augmentation of a pair of studies: labels follow the images, and the generator alone decides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..cohort.sample import OUTSIDE, Pair, StudySample
from ..cohort.sampling import draw_center, patch_corner
from ..images.modalities import MODALITIES
from . import intensity, spatial
from .config import AugmentationConfig
from .geometry import draw_geometry, moved, uniform


class Augmentation:
    """Augments pairs (fixed, moving) as configured::

        augment = Augmentation(AugmentationConfig(noise_sd=0.2))
        fixed, moving = augment((fixed, moving), torch.Generator().manual_seed(7))

    Geometry comes first (mirroring, then one resampling for affine map and deformation), then the patch. Thick slices,
    blur, bias field, contrast, gamma and noise change each image by itself, and modalities are dropped last. Images
    keep their value outside the brain, absent modalities stay absent, and the given studies are not changed.
    """

    def __init__(
        self, config: AugmentationConfig, background: float = OUTSIDE, modalities: Sequence[str] = MODALITIES
    ) -> None:
        """Set the augmentation up.

        Args:
            config: What is changed, and how much.
            background: Value of an absent modality, which depends on the normalisation (-3 for z-scores).
            modalities: Modalities of the network, of which each study keeps at least one. They are looked up in studies
                with the channels of ``MODALITIES``; others have the channels of the network.
        """
        self.config = config
        self.background = background
        self._known = torch.tensor([name in modalities for name in MODALITIES])

    def __call__(self, pair: Pair, generator: torch.Generator) -> Pair:
        """Augment a pair.

        Args:
            pair: Fixed and moving study.
            generator: Source of all random numbers; the same state gives the same pair.

        Returns:
            The augmented pair.

        Raises:
            ValueError: The studies have different grids, or the patch is larger than the grid.
        """
        fixed, moving = pair
        config = self.config
        shared = draw_geometry(config.shared, fixed.shape, generator)
        if moving.shape != fixed.shape and shared.affine is not None:
            raise ValueError(
                f"'{fixed.name}' and '{moving.name}' have different grids ({fixed.shape} and {moving.shape}); "
                "prepare both studies on one grid"
            )
        fixed_geometry, moving_geometry = (
            draw_geometry(config.independent, sample.shape, generator) for sample in pair
        )
        fixed, moving = moved(fixed, (shared, fixed_geometry)), moved(moving, (shared, moving_geometry))
        if config.patch is not None:
            fixed, moving = self._crop(fixed, moving, config.patch, generator)
        fixed, moving = self._change_intensity(fixed, generator), self._change_intensity(moving, generator)
        return self._drop_modalities(fixed, moving, generator)

    def single(self, sample: StudySample, generator: torch.Generator) -> StudySample:
        """Augment one study by itself, with the geometry of ``shared``.

        Args:
            sample: Study.
            generator: Source of all random numbers; the same state gives the same study.

        Raises:
            ValueError: The patch is larger than the grid.
        """
        sample = moved(sample, (draw_geometry(self.config.shared, sample.shape, generator),))
        if self.config.patch is not None:
            sample, _ = self._crop(sample, sample, self.config.patch, generator)
        sample = self._change_intensity(sample, generator)
        return self._drop_modalities(sample, sample, generator)[0]

    def _crop(
        self, fixed: StudySample, moving: StudySample, patch: tuple[int, int, int], generator: torch.Generator
    ) -> Pair:
        """Cut the patch out of both studies at the same place."""
        if most := self.config.patch_margin_voxels:
            short = max(p - n for p, n in zip(patch, fixed.shape, strict=True))
            least = min(max(0, -(-short // 2)), most)
            margin = int(torch.randint(least, most + 1, (1,), generator=generator))
            fixed, moving = spatial.pad(fixed, margin), spatial.pad(moving, margin)
        center = draw_center(fixed.labels, fixed.mask, self.config.patch_proportions, generator)
        corner = patch_corner(center, patch, fixed.shape, f"'{fixed.name}'")
        return spatial.crop(fixed, corner, patch), spatial.crop(moving, corner, patch)

    def _change_intensity(self, sample: StudySample, generator: torch.Generator) -> StudySample:
        """Change the images of a study, each by itself."""
        present = sample.present.tolist()
        # Drawn for absent modalities too: what one modality gets does not depend on the presence of another.
        changes = [_draw_intensity(self.config, sample.shape, generator) for _ in present]
        if not any(change.any for change in changes):
            return sample
        outside = sample.outside.tolist()
        images = [
            change.apply(image, sample.mask, generator, value) if is_present and change.any else image
            for image, change, is_present, value in zip(sample.images, changes, present, outside, strict=True)
        ]
        return replace(sample, images=torch.stack(images))

    def _drop_modalities(self, fixed: StudySample, moving: StudySample, generator: torch.Generator) -> Pair:
        """Make modalities of the studies absent; each study keeps at least one that the network knows."""
        probability = self.config.dropout_probability
        if probability == 0 or self.config.dropout_pairs == 0:
            return fixed, moving
        if self.config.dropout_pairs < 1 and float(torch.rand(1, generator=generator)) >= self.config.dropout_pairs:
            return fixed, moving
        draws = [torch.rand(len(fixed.images), generator=generator) for _ in range(2)]
        if self.config.dropout_shared:
            keep = _keep(draws[0] >= probability, self._usable(fixed) & self._usable(moving), draws[0])
            # Studies without a common modality keep one each.
            keeps = [_keep(keep, self._usable(sample), draws[0]) for sample in (fixed, moving)]
        else:
            keeps = [
                _keep(drawn >= probability, self._usable(sample), drawn)
                for drawn, sample in zip(draws, (fixed, moving), strict=True)
            ]
        return (
            drop_modalities(fixed, keeps[0], self.background),
            drop_modalities(moving, keeps[1], self.background),
        )

    def _usable(self, sample: StudySample) -> Tensor:
        """Which modalities (C,) the study has and the network knows, bool, on the CPU."""
        present = sample.present.cpu()
        return present & self._known if len(present) == len(MODALITIES) else present


def drop_modalities(sample: StudySample, keep: Tensor, background: float = OUTSIDE) -> StudySample:
    """Make modalities of a study absent.

    Args:
        sample: Study.
        keep: Modalities (C,) bool that stay.
        background: Value of an absent modality.
    """
    if bool(keep.all()):
        return sample
    keep = keep.to(sample.images.device)[:, None, None, None]
    return replace(sample, images=torch.where(keep, sample.images, background))


def _keep(keep: Tensor, present: Tensor, drawn: Tensor) -> Tensor:
    """``keep`` such that at least one present modality stays: the one that was furthest from being dropped."""
    if present.any() and not (keep & present).any():
        keep = keep.clone()
        keep[int(torch.where(present, drawn, -1.0).argmax())] = True
    return keep


@dataclass(frozen=True)
class _IntensityChange:
    """A drawn change of one image; None where a step is left out.

    Attributes:
        slices: Axis and thickness (voxels) of thick slices.
        blur: Standard deviation of the blur in voxels.
        bias: Coefficients and knot spacing (voxels) of the bias field.
        contrast: Shift, contrast factor and gamma exponent.
        noise: Standard deviation of the noise.
    """

    slices: tuple[int, float] | None
    blur: float | None
    bias: tuple[Tensor, float] | None
    contrast: tuple[float, float, float] | None
    noise: float | None

    @property
    def any(self) -> bool:
        """Whether the image is changed at all."""
        steps = (self.slices, self.blur, self.bias, self.contrast, self.noise)
        return any(step is not None for step in steps)

    def apply(self, image: Tensor, mask: Tensor, generator: torch.Generator, outside: float) -> Tensor:
        """Change an image (D, H, W)."""
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
        bias = uniform(generator, math.prod(count), config.bias_strength).view(count), config.bias_spacing_voxels
    if chance[3] < config.intensity_probability:
        shift = (2 * size[3] - 1) * config.shift
        factor = math.exp((2 * size[4] - 1) * config.contrast)
        contrast = shift, factor, math.exp((2 * size[5] - 1) * config.gamma)
    if chance[4] < config.noise_probability and config.noise_sd > 0:
        noise = size[6] * config.noise_sd
    return _IntensityChange(slices, blur, bias, contrast, noise)
