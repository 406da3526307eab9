"""Settings of the instance optimisation: similarity, levels from coarse to fine, regulariser and stopping criteria."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from NeuroCESTLib.core.checked_json import check_keys, number, settings_from_json, whole_number

from .similarity import find_similarity

REGULARIZERS = ("diffusion", "curvature")


@dataclass(frozen=True)
class RefinementLevel:
    """One level of the refinement, in which images and velocity have a fixed resolution.

    Attributes:
        image_stride: Edge of the blocks over which the images are averaged, in voxels of the given images.
        velocity_stride: Spacing of the velocity grid, in voxels of the given images, at least ``image_stride``.
        window: Edge of the neighbourhoods of local similarities, in voxels of the averaged image; an odd number.
        iterations: Largest number of iterations.
        window_stride: Spacing of the neighbourhoods along each axis, in voxels of the averaged image.
    """

    image_stride: int
    velocity_stride: int
    window: int
    iterations: int
    window_stride: int = 1

    def __post_init__(self) -> None:
        for name, least in (("image_stride", None), ("velocity_stride", None), ("window", None), ("iterations", 0)):
            object.__setattr__(self, name, whole_number(getattr(self, name), name, least))
        object.__setattr__(self, "window_stride", whole_number(self.window_stride, "window_stride", 1))
        if not 1 <= self.image_stride <= self.velocity_stride:
            raise ValueError(
                f"velocity_stride is {self.velocity_stride} and image_stride {self.image_stride}: use an image_stride "
                "of at least 1 and a velocity_stride of at least image_stride"
            )
        if self.window < 3 or self.window % 2 == 0:
            raise ValueError(f"window is {self.window}: use an odd number of voxels of at least 3")


@dataclass(frozen=True)
class RefinementSettings:
    """Settings of ``instance_optimization.refine``; the defaults are meant for voxels of about 1 mm.

    Attributes:
        levels: Levels from coarse to fine.
        iterations: Largest number of iterations on every level; None for the number that each level gives.
        similarity: Name of the similarity measure, see ``similarity.SIMILARITIES``.
        regulariser: Penalty on the first ('diffusion') or second ('curvature') derivatives of the velocity.
        regularisation: Weight of that penalty relative to the similarity.
        learning_rate: Largest step of the velocity in one iteration, in voxels of its grid.
        tolerance: A level ends when the objective has improved by less than this in the last ten iterations.
        time_limit_s: Time in seconds after which no further iteration starts; None for no limit.
        mask_dilation: Number of voxels by which tumour masks are grown.
        integration_steps: Largest number of squarings in the integration of the velocity.
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
    similarity: str = "lncc"

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", tuple(_level(level) for level in self.levels))
        if not self.levels:
            raise ValueError("the refinement needs at least one level")
        find_similarity(self.similarity)
        check_regularizer(self.regulariser)
        for name in ("mask_dilation", "iterations", "integration_steps"):
            value = getattr(self, name)
            if value is not None or name != "iterations":
                object.__setattr__(self, name, whole_number(value, f"{name} of the refinement", 0))
        for name in ("regularisation", "tolerance"):
            value = getattr(self, name)
            if number(value, f"{name} of the refinement") < 0:
                raise ValueError(f"{name} of the refinement is {value}: use 0 or more")
        for name in ("learning_rate", "time_limit_s"):
            value = getattr(self, name)
            if value is None and name == "time_limit_s":
                continue
            if number(value, f"{name} of the refinement") <= 0:
                raise ValueError(f"{name} of the refinement is {value}: use a positive number")
        if not 1 <= self.integration_steps <= 12:
            raise ValueError(f"integration_steps of the refinement is {self.integration_steps}: use 1 to 12")

    def on_level(self, level: RefinementLevel) -> int:
        """Return the largest number of iterations that these settings allow on a level."""
        return level.iterations if self.iterations is None else self.iterations

    def for_spacing(self, spacing_mm: float) -> RefinementSettings:
        """Convert settings meant for voxels of 1 mm to voxels of ``spacing_mm``, keeping all lengths in millimetres."""

        def scaled(stride: int, least: int) -> int:
            return max(least, round(stride / spacing_mm))

        levels = []
        for level in self.levels:
            image = scaled(level.image_stride, 1)
            levels.append(replace(level, image_stride=image, velocity_stride=scaled(level.velocity_stride, image)))
        mask_dilation = scaled(self.mask_dilation, 1) if self.mask_dilation else 0
        return replace(self, levels=tuple(levels), mask_dilation=mask_dilation)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values for a JSON file."""
        return {**asdict(self), "levels": [asdict(level) for level in self.levels]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RefinementSettings:
        """Build settings from plain values; missing ones take their defaults.

        Args:
            values: Settings as read from a JSON file.

        Raises:
            ValueError: A key is unknown or a value cannot be used; the message names it.
        """
        return settings_from_json(cls, values, "refinement settings")


def check_regularizer(name: str) -> None:
    """Check the name of a regulariser.

    Raises:
        ValueError: The name is unknown; the message lists the known ones.
    """
    if name not in REGULARIZERS:
        raise ValueError(f"regulariser '{name}' is unknown; use one of {', '.join(REGULARIZERS)}")


def _level(values: RefinementLevel | Mapping[str, Any]) -> RefinementLevel:
    if isinstance(values, RefinementLevel):
        return values
    values = check_keys(values, [entry.name for entry in fields(RefinementLevel)], "refinement level")
    try:
        return RefinementLevel(**values)
    except TypeError as error:
        raise ValueError("a refinement level needs image_stride, velocity_stride, window and iterations") from error
