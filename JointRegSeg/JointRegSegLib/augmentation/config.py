"""Settings of the augmentation: frozen, checked once, and plain JSON in a training configuration."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..cohort.sampling import check_proportions


@dataclass(frozen=True)
class SpatialRanges:
    """How far geometric augmentation goes; every value is drawn uniformly within ± its range.

    flip: probability to mirror along each of (D, H, W); the last one exchanges left and right.
    probability: of everything below, drawn once; otherwise the study is only flipped, which needs no resampling.
    rotation_deg: about each axis. scaling: log of the factor along each axis. shear: off-diagonal entries.
    translation_voxels: along each axis.
    deformation_voxels: coefficients of a cubic B-spline deformation, cut where it could fold.
    knot_spacing_voxels: of that deformation; the larger, the smoother.
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
        _check_numbers(self, ("flip",))
        if not self.knot_spacing_voxels >= 2:
            raise ValueError(f"knot_spacing_voxels must be at least 2, got {self.knot_spacing_voxels!r}")

    @property
    def flips_only(self) -> bool:
        """Whether nothing of this needs resampling."""
        ranges = (self.rotation_deg, self.scaling, self.shear, self.translation_voxels, self.deformation_voxels)
        return self.probability == 0 or not any(ranges)


@dataclass(frozen=True)
class AugmentationConfig:
    """What happens to a pair of studies, in this order. Each ``…_probability`` is drawn for every image alone.

    shared, independent: geometry that both studies undergo alike, and that each undergoes by itself (the difference
        is what the registration has to find).
    patch: shape (D, H, W) of a crop at the same place in both studies, or None; its centre in the fixed study lies
        in a class drawn by ``patch_proportions`` (class names of ``labels.CLASSES`` or 'anywhere').
    patch_margin_voxels: the patch may reach up to a drawn 0 to so many voxels beyond the grid, where all is background,
        so that the share of background varies, which moves the statistics of an instance normalisation. A patch larger
        than the grid needs it.
    anisotropy: slices up to ``anisotropy_factor`` voxels thick along one axis. blur: Gaussian up to ``blur_voxels``.
    bias: smooth gain, up to exp(± ``bias_strength``), with a knot every ``bias_spacing_voxels``.
    contrast, shift, gamma: factor exp(± contrast) about the mean, ± shift in standard deviations of the brain,
        exponent exp(± gamma). noise: white, standard deviation up to ``noise_sd``.
    dropout_probability: of each modality; one at least stays. dropout_shared: both studies miss the same ones.
    """

    shared: SpatialRanges = field(
        default_factory=lambda: SpatialRanges(
            flip=(0.0, 0.0, 0.5),
            probability=0.5,
            rotation_deg=10.0,
            scaling=0.1,
            shear=0.03,
            translation_voxels=4.0,
            deformation_voxels=3.0,
        )
    )
    independent: SpatialRanges = field(default_factory=SpatialRanges)
    patch: tuple[int, int, int] | None = None
    patch_proportions: Mapping[str, float] = field(
        default_factory=lambda: {"anywhere": 0.4, "necrotic_core": 0.2, "edema": 0.2, "enhancing_tumor": 0.2}
    )
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
    dropout_probability: float = 0.08
    dropout_shared: bool = True

    def __post_init__(self) -> None:
        if self.patch is not None:
            patch = tuple(self.patch) if isinstance(self.patch, list | tuple) else ()
            if len(patch) != 3 or not all(type(n) is int and n > 0 for n in patch):
                raise ValueError(f"patch needs three positive whole numbers (D, H, W), got {self.patch!r}")
            object.__setattr__(self, "patch", patch)
        if not isinstance(self.patch_proportions, Mapping):
            raise ValueError(f"patch_proportions is an object of proportions, got {self.patch_proportions!r}")
        check_proportions(self.patch_proportions)
        if not isinstance(self.dropout_shared, bool):
            raise ValueError(f"dropout_shared is true or false, got {self.dropout_shared!r}")
        for name in ("shared", "independent"):
            if not isinstance(getattr(self, name), SpatialRanges):
                raise ValueError(f"{name} is an object with the ranges of the geometry, got {getattr(self, name)!r}")
        _check_numbers(self, ("shared", "independent", "patch", "patch_proportions", "dropout_shared"))
        if type(self.patch_margin_voxels) is not int:
            raise ValueError(f"patch_margin_voxels must be a whole number, got {self.patch_margin_voxels!r}")
        if not self.anisotropy_factor >= 1:
            raise ValueError(f"anisotropy_factor must be at least 1, got {self.anisotropy_factor!r}")
        if not self.bias_spacing_voxels >= 2:
            raise ValueError(f"bias_spacing_voxels must be at least 2, got {self.bias_spacing_voxels!r}")

    @classmethod
    def none(cls) -> AugmentationConfig:
        """Leaves every pair as it is."""
        off = {name: 0.0 for name in _names(cls) if name.endswith("_probability")}
        return cls(shared=SpatialRanges(), **off)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "augmentation") -> AugmentationConfig:
        """From the JSON of ``to_dict``, or a part of it. Raises ValueError naming ``source`` and the entry."""
        try:
            values = dict(_known(cls, values))
            for name in ("shared", "independent"):
                if isinstance(values.get(name), Mapping):
                    values[name] = SpatialRanges(**_known(SpatialRanges, values[name]))
            return cls(**values)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        values = {name: getattr(self, name) for name in _names(type(self))}
        for name in ("shared", "independent"):
            values[name] = dataclasses.asdict(values[name]) | {"flip": list(values[name].flip)}
        values["patch"] = None if self.patch is None else list(self.patch)
        values["patch_proportions"] = dict(self.patch_proportions)
        return values


def _names(cls: type) -> list[str]:
    return [entry.name for entry in dataclasses.fields(cls)]


def _known(cls: type, values: object) -> Mapping[str, Any]:
    if not isinstance(values, Mapping):
        raise ValueError(f"an object with settings is needed, got {values!r}")
    unknown = [name for name in values if name not in _names(cls)]
    if unknown:
        raise ValueError(f"unknown setting {', '.join(map(repr, unknown))}; known are {', '.join(_names(cls))}")
    return values


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_probability(value: object) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _check_numbers(config: object, others: tuple[str, ...]) -> None:
    """Raise ValueError unless every further setting is a number of 0 or more, and probabilities at most 1."""
    for name in _names(type(config)):
        value = getattr(config, name)
        if name in others:
            continue
        if name.endswith("probability"):
            if not _is_probability(value):
                raise ValueError(f"{name} must be a probability in [0, 1], got {value!r}")
        elif not _is_number(value) or value < 0:
            raise ValueError(f"{name} must be a number of 0 or more, got {value!r}")
