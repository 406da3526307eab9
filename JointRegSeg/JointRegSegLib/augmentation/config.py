"""Settings of the augmentation: frozen, checked once, and plain JSON in a training configuration."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from NeuroCESTLib.core.checked_json import check_keys, settings_from_json

from ..cohort.sampling import check_proportions


@dataclass(frozen=True)
class SpatialRanges:
    """Ranges of random geometric changes; every value is drawn uniformly within ± its range.

    Attributes:
        flip: Probability of mirroring along each of (D, H, W); the last one exchanges left and right.
        probability: Probability of all changes below, drawn once; otherwise a study is only mirrored, which needs no
            resampling.
        rotation_deg: Angle about each axis in degrees.
        scaling: Logarithm of the factor along each axis.
        shear: Off-diagonal entries of the matrix.
        translation_voxels: Shift along each axis.
        deformation_voxels: Coefficients of a cubic B-spline deformation, limited where it could fold.
        knot_spacing_voxels: Knot spacing of that deformation; the larger, the smoother.
    """

    flip: tuple[float, float, float] = (0.0, 0.0, 0.0)
    probability: float = 0.0
    rotation_deg: float = 0.0
    scaling: float = 0.0
    shear: float = 0.0
    translation_voxels: float = 0.0
    deformation_voxels: float = 0.0
    knot_spacing_voxels: float = 16.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "flip", tuple(self.flip) if isinstance(self.flip, list | tuple) else self.flip)
        if not isinstance(self.flip, tuple) or len(self.flip) != 3 or not all(_is_probability(p) for p in self.flip):
            raise ValueError(f"flip needs a probability in [0, 1] for each of three axes, got {self.flip!r}")
        _check_numbers(self, but=("flip",))
        if not self.knot_spacing_voxels >= 2:
            raise ValueError(f"knot_spacing_voxels must be at least 2, got {self.knot_spacing_voxels!r}")

    @property
    def flips_only(self) -> bool:
        """Whether a study is at most mirrored, so that nothing needs resampling."""
        ranges = (self.rotation_deg, self.scaling, self.shear, self.translation_voxels, self.deformation_voxels)
        return self.probability == 0 or not any(ranges)


def _default_geometry() -> SpatialRanges:
    return SpatialRanges(
        flip=(0.0, 0.0, 0.5),
        probability=0.5,
        rotation_deg=10.0,
        scaling=0.1,
        shear=0.03,
        translation_voxels=4.0,
        deformation_voxels=3.0,
    )


def _default_proportions() -> dict[str, float]:
    return {"anywhere": 0.4, "necrotic_core": 0.2, "edema": 0.2, "enhancing_tumor": 0.2}


@dataclass(frozen=True)
class AugmentationConfig:
    """What happens to a pair of studies, in this order; each ``..._probability`` is drawn for every image separately.

    Attributes:
        shared: Geometric changes that both studies undergo alike.
        independent: Geometric changes that each study undergoes by itself; their difference is what the registration
            has to find.
        patch: Size (D, H, W) of a patch from the same place in both studies, or None.
        patch_proportions: Proportions of the classes (``labels.LABELS`` or ``anywhere``) of the patch's centre in the
            fixed study.
        patch_margin_voxels: The patch may reach beyond the grid, where all is background, by a drawn number of voxels
            up to this one. The share of background then varies, which changes the statistics of an instance
            normalisation. A patch larger than the grid needs a margin.
        anisotropy_probability: Probability of thick slices along one axis.
        anisotropy_factor: Largest slice thickness in voxels.
        blur_probability: Probability of Gaussian blur.
        blur_voxels: Largest standard deviation of the blur in voxels.
        bias_probability: Probability of a bias field.
        bias_strength: The field multiplies intensities by up to exp(± this).
        bias_spacing_voxels: Knot spacing of the field.
        intensity_probability: Probability of contrast, shift and gamma together.
        contrast: Distances from the mean are multiplied by exp(± this).
        shift: Shift by ± this many standard deviations of the brain.
        gamma: Exponent exp(± this).
        noise_probability: Probability of white noise.
        noise_sd: Largest standard deviation of the noise, in standard deviations of the brain.
        dropout_pairs: Probability that a pair loses modalities at all.
        dropout_probability: Probability of dropping each modality of such a pair; at least one stays.
        dropout_shared: Both studies lose the same modalities.
    """

    shared: SpatialRanges = field(default_factory=_default_geometry)
    independent: SpatialRanges = field(default_factory=SpatialRanges)
    patch: tuple[int, int, int] | None = None
    patch_proportions: Mapping[str, float] = field(default_factory=_default_proportions)
    patch_margin_voxels: int = 0
    anisotropy_probability: float = 0.1
    anisotropy_factor: float = 3.0
    blur_probability: float = 0.15
    blur_voxels: float = 0.8
    bias_probability: float = 0.3
    bias_strength: float = 0.3
    bias_spacing_voxels: float = 32.0
    intensity_probability: float = 0.5
    contrast: float = 0.2
    shift: float = 0.1
    gamma: float = 0.3
    noise_probability: float = 0.3
    noise_sd: float = 0.15
    dropout_pairs: float = 1.0
    dropout_probability: float = 0.08
    dropout_shared: bool = True

    def __post_init__(self) -> None:
        self._check_patch()
        if not isinstance(self.dropout_shared, bool):
            raise ValueError(f"dropout_shared must be true or false, got {self.dropout_shared!r}")
        for name in ("shared", "independent"):
            if not isinstance(getattr(self, name), SpatialRanges):
                raise ValueError(f"{name} must be an object with geometric ranges, got {getattr(self, name)!r}")
        _check_numbers(self, but=("shared", "independent", "patch", "patch_proportions", "dropout_shared"))
        if type(self.patch_margin_voxels) is not int:
            raise ValueError(f"patch_margin_voxels must be a whole number, got {self.patch_margin_voxels!r}")
        if not self.anisotropy_factor >= 1:
            raise ValueError(f"anisotropy_factor must be at least 1, got {self.anisotropy_factor!r}")
        if not self.bias_spacing_voxels >= 2:
            raise ValueError(f"bias_spacing_voxels must be at least 2, got {self.bias_spacing_voxels!r}")

    def _check_patch(self) -> None:
        if self.patch is not None:
            patch = tuple(self.patch) if isinstance(self.patch, list | tuple) else ()
            if len(patch) != 3 or not all(type(n) is int and n > 0 for n in patch):
                raise ValueError(f"patch needs three positive whole numbers (D, H, W), got {self.patch!r}")
            object.__setattr__(self, "patch", patch)
        if not isinstance(self.patch_proportions, Mapping):
            raise ValueError(f"patch_proportions must be an object of proportions, got {self.patch_proportions!r}")
        check_proportions(self.patch_proportions)

    @classmethod
    def none(cls) -> AugmentationConfig:
        """Make the settings that leave every pair as it is."""
        return cls(
            shared=SpatialRanges(),
            anisotropy_probability=0.0,
            blur_probability=0.0,
            bias_probability=0.0,
            intensity_probability=0.0,
            noise_probability=0.0,
            dropout_probability=0.0,
        )

    @classmethod
    def from_dict(cls, values: Any, where: str = "augmentation") -> AugmentationConfig:
        """Build the settings from an object as ``to_dict`` returns it, or from a part of it.

        Args:
            values: Object as read from JSON; keys that are left out have their defaults.
            where: File and section; it opens the message of an error.

        Raises:
            ValueError: A key is unknown or a value cannot be used; the message names it.
        """
        values = check_keys(values, [entry.name for entry in dataclasses.fields(cls)], where)
        for name in ("shared", "independent"):
            if name in values:
                values[name] = settings_from_json(SpatialRanges, values[name], f"{where}: {name}")
        return settings_from_json(cls, values, where)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        values: dict[str, Any] = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        for name in ("shared", "independent"):
            values[name] = dataclasses.asdict(values[name]) | {"flip": list(values[name].flip)}
        values["patch"] = None if self.patch is None else list(self.patch)
        values["patch_proportions"] = dict(self.patch_proportions)
        return values


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_probability(value: object) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _check_numbers(config: SpatialRanges | AugmentationConfig, but: tuple[str, ...]) -> None:
    """Raise ValueError unless all fields but some are numbers of 0 or more, and probabilities at most 1."""
    for name in (entry.name for entry in dataclasses.fields(config) if entry.name not in but):
        value = getattr(config, name)
        if name.endswith("probability") or name == "dropout_pairs":
            if not _is_probability(value):
                raise ValueError(f"{name} must be a probability in [0, 1], got {value!r}")
        elif not _is_number(value) or value < 0:
            raise ValueError(f"{name} must be a number of 0 or more, got {value!r}")
