"""The data of a training: source of pairs, validation pairs, augmentation and preprocessing of a configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from NeuroCESTLib.core.progress import Progress

from ..augmentation.config import AugmentationConfig
from ..augmentation.pipeline import Augmentation
from ..cohort.manifest import Cohort, read_manifest
from ..cohort.preparation import PreparationConfig, StudyPreparer
from ..cohort.sample import Pair, StudySample
from ..cohort.sampling import class_counts, median_frequency_weights
from ..cohort.sources import StudyPairs, open_pairs
from ..images.modalities import MODALITIES
from ..images.normalization import ZSCORE_RANGE, histogram_landmarks
from ..images.preprocessing import LEARN
from ..losses.config import MEDIAN_FREQUENCY
from .batches import PairSource
from .checkpoints import LAST, load_checkpoint
from .config import TrainingConfig

SYNTHETIC_SPACING_MM = 2.0
_HELD_OUT_SEED = 1_000_003
_COUNTED_PATIENTS = 16
"""Synthetic patients whose labels give the class weights."""


@dataclass(frozen=True)
class TrainingData:
    """config: with what was learned from the data (class weights, landmarks) as numbers. source: of training pairs.
    validation: fixed pairs, not augmented. augmentation: None for none. preprocessing: settings that are saved with the
    weights. description: for people."""

    config: TrainingConfig
    source: PairSource
    validation: list[Pair]
    augmentation: Augmentation | None
    preprocessing: dict[str, Any] = field(default_factory=dict)
    description: str = ""


def open_data(
    config: TrainingConfig, manifest: str | Path | None, folder: str | Path, progress: Progress | None = None
) -> TrainingData:
    """The data that a configuration names.

    Synthetic patients need no manifest; where one is given, its split 'val' validates them. What is learned from the
    data is that of the checkpoint in ``folder`` where there is one, so that a resumed training goes on with it.

    Raises:
        ValueError: settings or studies that cannot be used.
    """
    if manifest is None and config.data.path != "synthetic":
        raise ValueError(f"data path '{config.data.path}' needs a cohort: give --manifest COHORT.csv")
    report = progress or (lambda fraction, message: None)
    cohort = None if manifest is None else read_manifest(manifest)
    config = _with_landmarks(config, cohort, Path(folder), report)
    data = config.data
    preparation = PreparationConfig.from_dict(dict(data.preprocessing))
    augmentation = None
    if data.augmentation is not None:
        settings = AugmentationConfig.from_dict(data.augmentation, "data: augmentation")
        augmentation = Augmentation(settings, preparation.preprocessing.background)
    held_out = None
    if data.path == "synthetic":
        source, held_out, description = _synthetic(config)
    else:
        source, description = _studies(config, cohort, Path(folder), report)
    if cohort is not None:
        held_out = _validation_studies(config, cohort, Path(folder), report) or held_out
    config = _with_class_weights(config, source, Path(folder), report)
    validation = []
    for index in range(min(data.validation_pairs, len(held_out)) if held_out is not None else 0):
        report(0.0, f"validation pair {index + 1} of {data.validation_pairs}")
        validation.append(held_out[index])
    if config.training.monitor == "dice" and not any(s.labels is not None for pair in validation for s in pair):
        raise ValueError("monitor 'dice' needs labelled studies in the split 'val'; use monitor 'loss' without them")
    return TrainingData(config, source, validation, augmentation, _preprocessing(config, preparation), description)


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
    from ..synthesis.source import SyntheticConfig, SyntheticSource

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


def _with_class_weights(config: TrainingConfig, source: PairSource, folder: Path, report: Progress) -> TrainingConfig:
    """The configuration with class weights as numbers."""
    if config.loss.class_weights != MEDIAN_FREQUENCY:
        return config
    weights = _earlier(folder).get("loss", {}).get("class_weights", ()) if config.segments else ()
    if config.segments and not weights:
        counts = []
        for study in _counted(source, report):
            if study.labels is not None:
                counts.append(class_counts(study.labels, study.mask))
        if not counts:
            raise ValueError(f"class_weights '{MEDIAN_FREQUENCY}' need labelled studies in the split 'train'")
        weights = [_rounded(weight) for weight in median_frequency_weights(torch.stack(counts)).tolist()]
    return replace(config, loss=replace(config.loss, class_weights=tuple(weights)))


def _counted(source: PairSource, report: Progress) -> Iterator[StudySample]:
    """The studies whose labels count: all of a cohort, or the visits of the first synthetic patients."""
    studies = source.studies if isinstance(source, StudyPairs) else source
    number = len(studies) if isinstance(source, StudyPairs) else min(len(source), _COUNTED_PATIENTS)
    for index in range(number):
        report(index / number, "class weights")
        item = studies[index]
        yield from (item,) if isinstance(item, StudySample) else item


def _with_landmarks(config: TrainingConfig, cohort: Cohort | None, folder: Path, report: Progress) -> TrainingConfig:
    """The configuration with histogram landmarks as numbers."""
    settings = dict(config.data.preprocessing)
    if settings.get("histogram_landmarks") != LEARN or cohort is None:
        return config
    learned = _earlier(folder).get("data", {}).get("preprocessing", {}).get("histogram_landmarks")
    if not isinstance(learned, Mapping) or not learned:
        learned = _landmarks(cohort.of_split("train"), settings, report)
    return replace(config, data=replace(config.data, preprocessing=settings | {"histogram_landmarks": learned}))


def _landmarks(cohort: Cohort, settings: Mapping[str, Any], report: Progress) -> dict[str, list[float]]:
    """Mean positions of the landmarks over the studies of a cohort, by modality; prepares one study at a time."""
    plain = {**settings, "normalisation": "zscore", "histogram_landmarks": {}}
    prepare = StudyPreparer(cohort, PreparationConfig.from_dict(plain))
    found: dict[str, list[tuple[float, ...]]] = {}
    for index, record in enumerate(cohort.studies):
        report(index / len(cohort), f"histogram of {record.name}")
        study = prepare(index)
        for modality, image, present in zip(MODALITIES, study.images, study.present, strict=True):
            inside = image[study.mask & (image > ZSCORE_RANGE[0])].numpy()  # not beyond the field of view
            if present:
                found.setdefault(modality, []).append(histogram_landmarks([inside]))
    return {m: [_rounded(position) for position in np.mean(each, axis=0)] for m, each in found.items()}


def _earlier(folder: Path) -> dict[str, Any]:
    """Settings of the training that is continued; none where one starts."""
    return load_checkpoint(folder / LAST)["trajectory"] if (folder / LAST).is_file() else {}


def _rounded(value: float) -> float:
    """To six digits, so that it is the same on every machine."""
    return float(f"{value:.6g}")
