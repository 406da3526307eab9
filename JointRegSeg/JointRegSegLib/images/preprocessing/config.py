"""Settings by which studies become tensors."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import SimpleITK as sitk

from NeuroCESTLib.core.checked_json import number, settings_from_json

from ..modalities import MODALITIES
from ..normalization import LANDMARK_PERCENTILES, background_value, check_normalization

LEARN = "learn"
"""Value of ``histogram_landmarks`` in training configurations: learn the landmarks from the training data."""
INTERPOLATIONS = {"linear": sitk.sitkLinear, "bspline": sitk.sitkBSpline}


@dataclass(frozen=True)
class PreprocessingConfig:
    """Settings by which studies become tensors; they are saved with the weights of a network.

    Attributes:
        spacing_mm: Voxel size of the isotropic working grid.
        normalisation: One of ``normalization.NORMALIZATIONS``, see ``normalization.normalize``.
        n4: Whether to correct the bias field first.
        interpolation: 'linear' or 'bspline' for images; labels are interpolated as one-hot images, linearly.
        crop_margin_mm: Least distance from the brain to the border of the grid. Where sizes are rounded up to
            multiples, up to 4 mm of it may be missing, but not of the last 2 mm.
        multiple_of: Divisor of the sizes of the grid: 16 for four halvings, times the stride of the network.
        histogram_landmarks: Landmarks of the normalisation 'histogram' by modality; modalities without them have those
            of a normal distribution.
    """

    spacing_mm: float = 1.0
    normalisation: str = "zscore"
    n4: bool = False
    interpolation: str = "linear"
    crop_margin_mm: float = 6.0
    multiple_of: int = 16
    histogram_landmarks: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("spacing_mm", "crop_margin_mm", "multiple_of"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int if name == "multiple_of" else int | float):
                kind = "a whole number" if name == "multiple_of" else "a number"
                raise ValueError(f"{name} is {value!r} but must be {kind}")
        if not isinstance(self.n4, bool):
            raise ValueError(f"n4 is {self.n4!r} but must be true or false")
        if not 0.2 <= self.spacing_mm <= 8:
            raise ValueError(f"spacing_mm is {self.spacing_mm}: use 0.2 to 8 mm")
        check_normalization(self.normalisation)
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(f"interpolation '{self.interpolation}' is unknown; use one of {', '.join(INTERPOLATIONS)}")
        marks = self.histogram_landmarks
        if not isinstance(marks, Mapping) or not all(isinstance(v, list | tuple) for v in marks.values()):
            raise ValueError(f"histogram_landmarks is {marks!r} but must be an object with numbers by modality")
        if unknown := [modality for modality in marks if modality not in MODALITIES]:
            raise ValueError(f"histogram_landmarks: unknown modality {unknown[0]!r}; use {', '.join(MODALITIES)}")
        for modality, positions in marks.items():
            _check_landmarks(positions, f"histogram_landmarks: {modality}")
        if self.crop_margin_mm < 0 or self.multiple_of < 1:
            raise ValueError("crop_margin_mm must not be negative, multiple_of at least 1")

    @property
    def background(self) -> float:
        """Value outside the brain and of absent modalities."""
        return background_value(self.normalisation)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as in a JSON file."""
        values = asdict(self)
        values["histogram_landmarks"] = {m: list(v) for m, v in self.histogram_landmarks.items()}
        return values

    @classmethod
    def from_dict(cls, values: Any, where: str = "preprocessing") -> PreprocessingConfig:
        """Build settings from plain values; those that are not given have their defaults.

        Args:
            values: Object as read from a file.
            where: File and section, with which every message begins.

        Raises:
            ValueError: A key is unknown or a value cannot be used; the message names it.
        """
        return settings_from_json(cls, values, where)


def _check_landmarks(positions: list[Any] | tuple[Any, ...], where: str) -> None:
    """Check the landmarks of a modality.

    Raises:
        ValueError: They are too few or too many, or not increasing numbers; the message begins with ``where``.
    """
    values = [number(position, f"{where}: a landmark") for position in positions]
    if len(values) != len(LANDMARK_PERCENTILES):
        raise ValueError(f"{where} has {len(values)} landmarks but needs {len(LANDMARK_PERCENTILES)}")
    if any(second <= first for first, second in itertools.pairwise(values)):
        raise ValueError(f"{where}: every landmark must be larger than the one before it")
