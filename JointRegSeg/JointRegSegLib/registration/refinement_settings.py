"""Settings of the instance optimisation: levels from coarse to fine, regulariser, when to stop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

REGULARISERS = ("diffusion", "curvature")


@dataclass(frozen=True)
class RefinementLevel:
    """One level: strides are in voxels of the images given.

    image_stride: images are averaged over blocks of this size. velocity_stride: spacing of the velocity's grid, at
    least image_stride. window: of the local correlation, in voxels of the averaged image, odd. window_stride: local
    correlations are taken at every so many of those voxels. iterations: at most so many.
    """

    image_stride: int
    velocity_stride: int
    window: int
    iterations: int
    window_stride: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.image_stride <= self.velocity_stride:
            raise ValueError(
                f"velocity_stride {self.velocity_stride} must be at least image_stride {self.image_stride}, and that 1"
            )
        if self.window < 3 or self.window % 2 == 0:
            raise ValueError(f"the window must be an odd number of voxels, 3 or more, not {self.window}")
        if self.window_stride < 1:
            raise ValueError(f"window_stride must be at least 1, not {self.window_stride}")
        if self.iterations < 0:
            raise ValueError(f"iterations must not be negative: {self.iterations}")


@dataclass(frozen=True)
class RefinementSettings:
    """How :func:`instance_optimisation.refine` works; made for images of about 1 mm.

    iterations: the most on each level, None for each level's own. regularisation: weight of the velocity's roughness
    against the local correlation; ``regulariser`` takes it of first ('diffusion') or second ('curvature') derivatives.
    learning_rate: largest step of the velocity, in voxels of its grid. tolerance: a level ends when the objective
    gained less than this in the last ten iterations. time_limit_s: no iteration starts later. mask_dilation: tumour
    masks grow by so many voxels. integration_steps: squarings of the velocity's exponential, at most.
    """

    levels: tuple[RefinementLevel, ...] = (
        RefinementLevel(image_stride=4, velocity_stride=8, window=5, iterations=60),
        RefinementLevel(image_stride=2, velocity_stride=8, window=5, iterations=20, window_stride=2),
        RefinementLevel(image_stride=2, velocity_stride=4, window=5, iterations=30, window_stride=2),
    )
    iterations: int | None = None
    regulariser: str = "curvature"
    regularisation: float = 0.5
    learning_rate: float = 0.15
    tolerance: float = 5e-4
    time_limit_s: float | None = None
    mask_dilation: int = 2
    integration_steps: int = 6

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", tuple(_level(level) for level in self.levels))
        if not self.levels:
            raise ValueError("the refinement needs at least one level")
        if self.regulariser not in REGULARISERS:
            raise ValueError(f"regulariser '{self.regulariser}' is unknown: use {' or '.join(REGULARISERS)}")
        for name in ("regularisation", "tolerance", "mask_dilation", "iterations"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"{name} of the refinement is {value}: use 0 or more")
        for name in ("learning_rate", "time_limit_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} of the refinement is {value}: use a positive number")
        if not 1 <= self.integration_steps <= 12:
            raise ValueError(f"integration_steps of the refinement is {self.integration_steps}: use 1 to 12")

    def on_level(self, level: RefinementLevel) -> int:
        """The most iterations on this level."""
        return level.iterations if self.iterations is None else self.iterations

    def for_spacing(self, spacing_mm: float) -> RefinementSettings:
        """The same in millimetres on images whose voxels are ``spacing_mm`` wide rather than 1 mm."""

        def scaled(stride: int, least: int) -> int:
            return max(least, round(stride / spacing_mm))

        levels = []
        for level in self.levels:
            image = scaled(level.image_stride, 1)
            levels.append(replace(level, image_stride=image, velocity_stride=scaled(level.velocity_stride, image)))
        dilation = scaled(self.mask_dilation, 1) if self.mask_dilation else 0
        return replace(self, levels=tuple(levels), mask_dilation=dilation)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON has them."""
        return {**asdict(self), "levels": [asdict(level) for level in self.levels]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RefinementSettings:
        """Settings from such values; those not given have their defaults, unknown ones raise ValueError."""
        _require_known(values, cls, "refinement settings")
        return cls(**{**values, **({"levels": tuple(values["levels"])} if "levels" in values else {})})


def _level(values: RefinementLevel | Mapping[str, Any]) -> RefinementLevel:
    if isinstance(values, RefinementLevel):
        return values
    _require_known(values, RefinementLevel, "a refinement level")
    try:
        return RefinementLevel(**values)
    except TypeError as error:
        raise ValueError("a refinement level needs image_stride, velocity_stride, window and iterations") from error


def _require_known(values: Mapping[str, Any], kind: type, what: str) -> None:
    unknown = sorted(set(values) - {field.name for field in fields(kind)})
    if unknown:
        raise ValueError(f"{what} do not have {', '.join(unknown)}")
