"""Synthetic patients as a source of training pairs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from NeuroCESTLib.core.tensor_files import load_tensors, save_tensors

from ..cohort.sample import OUTSIDE, Pair, StudySample
from ..images.modalities import MODALITIES
from ..images.normalization import ZSCORE_RANGE
from .patient import Visit, synthetic_patient
from .templates import Template, load_templates

_PATIENTS_PER_SEED = 1_000_000


@dataclass(frozen=True)
class SyntheticConfig:
    """spacing_mm: of the grid, 160 x 192 x 160 mm large. templates: folder of further skull-stripped T1 templates
    beside the one of nilearn, or None. cache: folder in which patients are kept once they have been generated, or None.
    modalities: channels, in this order."""

    spacing_mm: float = 2.0
    templates: str | None = None
    cache: str | None = None
    modalities: tuple[str, ...] = MODALITIES

    def __post_init__(self) -> None:
        object.__setattr__(self, "modalities", tuple(self.modalities))
        if unknown := [m for m in self.modalities if m not in MODALITIES]:
            raise ValueError(f"synthetic: modalities {unknown} are unknown; use {', '.join(MODALITIES)}")
        if not isinstance(self.spacing_mm, int | float) or not 0.5 <= self.spacing_mm <= 8:
            raise ValueError(f"synthetic: spacing_mm is {self.spacing_mm!r} but must lie between 0.5 and 8")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"modalities": list(self.modalities)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SyntheticConfig:
        """Checked; the ValueError names the key."""
        known = [entry.name for entry in fields(cls)]
        if unknown := sorted(set(values) - set(known)):
            raise ValueError(f"synthetic: unknown keys {', '.join(unknown)}; use {', '.join(known)}")
        return cls(**values)


class SyntheticSource:
    """``length`` patients of a seed; ``source[i]`` is always the same pair of visits."""

    def __init__(self, config: SyntheticConfig, length: int, seed: int = 0) -> None:
        self.config, self.length, self.seed = config, length, seed
        self._templates: list[Template] = [t.at(config.spacing_mm) for t in load_templates(config.templates)]
        names = "-".join(t.name for t in self._templates)
        self._cache = None
        if config.cache is not None:
            self._cache = Path(config.cache) / f"{names}-{config.spacing_mm:g}mm-{'-'.join(config.modalities)}"

    def __len__(self) -> int:
        return self.length

    def set_epoch(self, epoch: int) -> None:
        """The patients are the same in every epoch."""

    def __getitem__(self, index: int) -> Pair:
        if not 0 <= index < self.length:
            raise IndexError(index)
        number = self.seed * _PATIENTS_PER_SEED + index
        file = None if self._cache is None else self._cache / f"{number}.pt"
        if file is not None and file.is_file():
            kept = load_tensors(file, "cached patient")
        else:
            patient = synthetic_patient(self._templates, number, self.config.spacing_mm, False, self.config.modalities)
            kept = {side: _kept(visit) for side, visit in (("fixed", patient.fixed), ("moving", patient.moving))}
            if file is not None:
                os.makedirs(file.parent, exist_ok=True)
                save_tensors(kept, file)
        return tuple(_sample(kept[side], f"synthetic {number} {side}") for side in ("fixed", "moving"))


def sample_of(visit: Visit, name: str) -> StudySample:
    """The visit as the network sees it."""
    return _sample(_kept(visit), name)


def _kept(visit: Visit) -> dict[str, Tensor]:
    images = torch.stack([_zscore(image, visit.mask) for image in visit.images])
    return {"images": images.half(), "labels": visit.labels, "mask": visit.mask}


def _sample(kept: Mapping[str, Tensor], name: str) -> StudySample:
    return StudySample(kept["images"].float(), kept["labels"], kept["mask"], name)


def _zscore(image: Tensor, mask: Tensor) -> Tensor:
    inside = image[mask]
    scaled = ((image - inside.mean()) / inside.std().clamp_min(1e-6)).clamp(*ZSCORE_RANGE)
    return torch.where(mask, scaled, OUTSIDE)
