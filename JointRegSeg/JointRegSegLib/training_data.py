"""The data of a training: source of pairs, validation pairs, augmentation and preprocessing of a configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .augmentation import Augmentation
from .augmentation_config import AugmentationConfig
from .manifest import Cohort, read_manifest
from .study_preparation import PreparationConfig
from .study_sample import Pair
from .study_sources import open_pairs
from .training_batches import PairSource
from .training_config import TrainingConfig

Progress = Callable[[float, str], None]
SYNTHETIC_SPACING_MM = 2.0
_HELD_OUT_SEED = 1_000_003


@dataclass(frozen=True)
class TrainingData:
    """source: of training pairs. validation: fixed pairs, not augmented. augmentation: None for none. preprocessing:
    settings that are saved with the weights. description: for people."""

    source: PairSource
    validation: list[Pair]
    augmentation: Augmentation | None
    preprocessing: dict[str, Any] = field(default_factory=dict)
    description: str = ""


def open_data(
    config: TrainingConfig, manifest: str | Path | None, folder: str | Path, progress: Progress | None = None
) -> TrainingData:
    """The data that a configuration names.

    Synthetic patients need no manifest; where one is given, its split 'val' validates them.

    Raises:
        ValueError: settings or studies that cannot be used.
    """
    data = config.data
    if manifest is None and data.path != "synthetic":
        raise ValueError(f"data path '{data.path}' needs a cohort: give --manifest COHORT.csv")
    report = progress or (lambda fraction, message: None)
    preparation = PreparationConfig.from_dict(dict(data.preprocessing))
    augmentation = None
    if data.augmentation is not None:
        settings = AugmentationConfig.from_dict(data.augmentation, "data: augmentation")
        augmentation = Augmentation(settings, preparation.preprocessing.background)
    cohort = None if manifest is None else read_manifest(manifest)
    held_out = None
    if data.path == "synthetic":
        source, held_out, description = _synthetic(config)
    else:
        source, description = _studies(config, cohort, Path(folder), report)
    if cohort is not None:
        held_out = _validation_studies(config, cohort, Path(folder), report) or held_out
    validation = []
    for index in range(min(data.validation_pairs, len(held_out)) if held_out is not None else 0):
        report(0.0, f"validation pair {index + 1} of {data.validation_pairs}")
        validation.append(held_out[index])
    if config.training.monitor == "dice" and not any(s.labels is not None for pair in validation for s in pair):
        raise ValueError("monitor 'dice' needs labelled studies in the split 'val'; use monitor 'loss' without them")
    return TrainingData(source, validation, augmentation, _preprocessing(config, preparation), description)


def _preprocessing(config: TrainingConfig, preparation: PreparationConfig) -> dict[str, Any]:
    """Preprocessing for using the network with its own stride, which may be another than in training: a network
    trained with stride 1 on voxels of 2 mm serves voxels of 1 mm with stride 2."""
    spacing = preparation.preprocessing.spacing_mm
    if config.data.path == "synthetic":
        spacing = float(config.data.synthetic.get("spacing_mm", SYNTHETIC_SPACING_MM))
    spacing *= (config.stride or config.network.stride) / config.network.stride
    return preparation.preprocessing.to_dict() | {"spacing_mm": spacing}


def _synthetic(config: TrainingConfig) -> tuple[PairSource, PairSource, str]:
    """Patients that are generated as they are needed; those of validation have another seed."""
    from .synthetic_source import SyntheticConfig, SyntheticSource

    data = config.data
    settings = SyntheticConfig.from_dict(dict(data.synthetic))
    source = SyntheticSource(settings, data.length, data.seed)
    held_out = SyntheticSource(settings, max(data.validation_pairs, 1), data.seed + _HELD_OUT_SEED)
    return source, held_out, f"synthetic patients, seed {data.seed}"


def _studies(config: TrainingConfig, cohort: Cohort, folder: Path, report: Progress) -> tuple[PairSource, str]:
    """Pairs of the split 'train'."""
    data = config.data
    studies = cohort.of_split("train")
    source = open_pairs(
        studies, data.path, data.preprocessing, data.pairing, data.sampling, folder / data.cache, data.seed, report
    )
    return source, f"{len(studies)} studies of {len(studies.visits())} subjects"


def _validation_studies(config: TrainingConfig, cohort: Cohort, folder: Path, report: Progress) -> PairSource | None:
    """Pairs of the split 'val', prepared as they are read; None where there is none."""
    if not config.data.validation_pairs or all(study.split != "val" for study in cohort.studies):
        return None
    data = config.data
    path = "cache" if data.path == "cache" else "on_the_fly"
    return open_pairs(
        cohort.of_split("val"), path, data.preprocessing, data.pairing, None, folder / data.cache, data.seed, report
    )
