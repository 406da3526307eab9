"""Synthetic patients as a source of training pairs."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from NeuroCESTLib.core.checked_json import settings_from_json
from NeuroCESTLib.core.stored_values import Numbers, check_stored
from NeuroCESTLib.core.tensor_files import load_tensors, save_tensors

from ..cohort.sample import OUTSIDE, Pair, StudySample
from ..images.modalities import MODALITIES
from ..images.normalization import ZSCORE_RANGE
from .patient import SyntheticVisit, synthetic_patient
from .templates import Template, load_templates
from .tumor import RESECTED_SHARE

SPACING_MM = 2.0
"""Default voxel size in mm."""
_PATIENTS_PER_SEED = 1_000_000


@dataclass(frozen=True)
class SyntheticConfig:
    """Settings of synthetic patients.

    Attributes:
        spacing_mm: Voxel size in mm of the grid, which is 160 x 192 x 160 mm large.
        templates: Folder with skull-stripped T1 templates in addition to the template of nilearn, or None.
        cache: Folder in which patients are stored once they have been generated, or None.
        modalities: Channels, in this order.
        resected: Share of the patients whose tumour is resected at one of the visits.
        tumor_free: Share of the patients without a tumour.
    """

    spacing_mm: float = SPACING_MM
    templates: str | None = None
    cache: str | None = None
    modalities: tuple[str, ...] = MODALITIES
    resected: float = RESECTED_SHARE
    tumor_free: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "modalities", tuple(self.modalities))
        if unknown := [m for m in self.modalities if m not in MODALITIES]:
            raise ValueError(f"unknown modalities {', '.join(map(str, unknown))}; use {', '.join(MODALITIES)}")
        if not isinstance(self.spacing_mm, int | float) or not 0.5 <= self.spacing_mm <= 8:
            raise ValueError(f"spacing_mm is {self.spacing_mm!r} but must lie between 0.5 and 8")
        for name in ("resected", "tumor_free"):
            share = getattr(self, name)
            if not isinstance(share, int | float) or not 0 <= share <= 1:
                raise ValueError(f"{name} is {share!r} but must be a share from 0 to 1")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self) | {"modalities": list(self.modalities)}

    @classmethod
    def from_dict(cls, values: Any, where: str = "synthetic") -> SyntheticConfig:
        """Build the settings from an object as read from JSON.

        Raises:
            ValueError: A key is unknown or a value cannot be used; the message begins with ``where``.
        """
        return settings_from_json(cls, values, where)


GENERATOR = 3
"""Version of the patients that a seed stands for; a cache of another version is not read."""
_VISIT = {"images": Numbers("f", 4), "labels": Numbers("i", 3), "mask": Numbers("b", 3)}
"""Form of a cached visit, see ``stored_values``."""


class SyntheticSource:
    """Pairs of visits of synthetic patients; ``source[i]`` is always the same pair."""

    def __init__(
        self,
        config: SyntheticConfig,
        length: int,
        seed: int = 0,
        cavity: bool = False,
        templates: Sequence[Template] | None = None,
    ) -> None:
        """Load the templates.

        Args:
            config: Settings of the patients.
            length: Number of patients.
            seed: Seed; different seeds have different patients.
            cavity: Whether resection cavities have their class; else they are background.
            templates: Anatomies instead of those that the settings name.

        Raises:
            ValueError: There is no usable template for the voxel size.
        """
        self.config, self.length, self.seed, self.cavity = config, length, seed, cavity
        found = load_templates(config.templates) if templates is None else templates
        self._templates = [template.at(config.spacing_mm) for template in found]
        names = "-".join(template.name for template in self._templates)
        content = b"".join(template.tissues.numpy().tobytes() for template in self._templates)
        self._cache = None
        if config.cache is not None:
            own = f"-{hashlib.sha256(content).hexdigest()[:8]}-v{GENERATOR}" + ("-cavity" if cavity else "")
            if config.resected != RESECTED_SHARE:
                own += f"-resected{config.resected:g}"
            if config.tumor_free:
                own += f"-free{config.tumor_free:g}"
            self._cache = Path(config.cache) / f"{names}-{config.spacing_mm:g}mm-{'-'.join(config.modalities)}{own}"

    def __len__(self) -> int:
        return self.length

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: the patients are the same in every epoch."""

    def __getitem__(self, index: int) -> Pair:
        if not 0 <= index < self.length:
            raise IndexError(index)
        number = self.seed * _PATIENTS_PER_SEED + index
        visits = self._visits(number)
        return (
            _sample(visits["fixed"], f"synthetic {number} fixed"),
            _sample(visits["moving"], f"synthetic {number} moving"),
        )

    def _visits(self, number: int) -> dict[str, dict[str, Tensor]]:
        """Both visits of a patient, from the cache where they are stored."""
        file = None if self._cache is None else self._cache / f"{number}.pt"
        if file is not None and file.is_file():
            with contextlib.suppress(ValueError):  # a damaged one is made again
                stored = load_tensors(file, "cached patient")
                check_stored(stored, {"fixed": _VISIT, "moving": _VISIT}, str(file))
                return stored
        config = self.config
        patient = synthetic_patient(
            self._templates,
            number,
            config.spacing_mm,
            False,
            config.modalities,
            self.cavity,
            config.resected,
            config.tumor_free,
        )
        visits = {"fixed": _stored(patient.fixed), "moving": _stored(patient.moving)}
        if file is not None:
            os.makedirs(file.parent, exist_ok=True)
            save_tensors(visits, file)
        return visits


def sample_of(visit: SyntheticVisit, name: str) -> StudySample:
    """Convert a visit to a sample with z-scored images."""
    return _sample(_stored(visit), name)


def _stored(visit: SyntheticVisit) -> dict[str, Tensor]:
    """What the cache stores of a visit."""
    images = torch.stack([_zscore(image, visit.mask) for image in visit.images])
    return {"images": images.half(), "labels": visit.labels, "mask": visit.mask}


def _sample(stored: Mapping[str, Tensor], name: str) -> StudySample:
    return StudySample(stored["images"].float(), stored["labels"], stored["mask"], name)


def _zscore(image: Tensor, mask: Tensor) -> Tensor:
    inside = image[mask]
    scaled = ((image - inside.mean()) / inside.std().clamp_min(1e-6)).clamp(*ZSCORE_RANGE)
    return torch.where(mask, scaled, OUTSIDE)
