"""What a training learns from its data before it starts: class weights and histogram landmarks.

Both are part of the configuration in the checkpoint, from which a resumed training takes them, and are rounded to six
digits, so that they are the same on every machine.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from NeuroCESTLib.core.progress import Progress

from ..augmentation.mixture import MixedPairs, TransplantedPairs
from ..cohort.preparation import PreparationConfig, StudyPreparer
from ..cohort.sample import PairSource, StudySample
from ..cohort.sampling import class_counts, median_frequency_weights
from ..cohort.sources import StudyPairs
from ..cohort.studies import Cohort
from ..images.labels import CAVITY, LABELS
from ..images.modalities import MODALITIES
from ..images.normalization import ZSCORE_RANGE, histogram_landmarks
from ..images.preprocessing.config import LEARN
from ..losses.config import MEDIAN_FREQUENCY
from ..synthesis.source import SyntheticSource
from .checkpoints import LAST, load_checkpoint
from .config import TrainingConfig

_COUNTED_PATIENTS = 16
"""Pairs that are synthetic or have transplants, of which as many are counted for the class weights."""


def with_class_weights(config: TrainingConfig, source: PairSource, folder: Path, progress: Progress) -> TrainingConfig:
    """Replace class weights 'median_frequency' by numbers.

    Args:
        config: Configuration of the training.
        source: Training pairs, whose labels are counted unless the training is resumed.
        folder: Output folder of the training.
        progress: Called before each study; may raise to cancel.

    Raises:
        ValueError: No study has labels, or how frequent the resection cavity is in the pairs is not known.
    """
    if config.loss.class_weights != MEDIAN_FREQUENCY:
        return config
    weights = _earlier(folder, "loss", "class_weights") if config.segments else ()
    if config.segments and not weights:
        weights = _class_weights(source, config.network.classes, progress)
    return replace(config, loss=replace(config.loss, class_weights=tuple(weights)))


def with_histogram_landmarks(
    config: TrainingConfig, cohort: Cohort, folder: Path, progress: Progress
) -> TrainingConfig:
    """Replace histogram landmarks 'learn' by numbers.

    Args:
        config: Configuration of the training.
        cohort: Cohort, whose split 'train' is prepared unless the training is resumed.
        folder: Output folder of the training.
        progress: Called before each study; may raise to cancel.

    Raises:
        ValueError: A study cannot be used.
    """
    settings = dict(config.data.preprocessing)
    if settings.get("histogram_landmarks") != LEARN:
        return config
    learned = _earlier(folder, "data", "preprocessing", "histogram_landmarks")
    if not isinstance(learned, Mapping) or not learned:
        learned = _mean_landmarks(cohort.of_split("train"), settings, progress)
    return replace(config, data=replace(config.data, preprocessing=settings | {"histogram_landmarks": learned}))


def _class_weights(source: PairSource, classes: int, progress: Progress) -> list[float]:
    """Weights of the classes of a network; those that no study has are counted where the pairs get them from."""
    counts = [each[:classes] for each in _label_counts(source, progress)]
    if not counts:
        raise ValueError(f"class_weights '{MEDIAN_FREQUENCY}' need labelled studies in the split 'train'")
    further = None
    if bool((torch.stack(counts).sum(0) == 0).any()):
        found = [each[:classes] for part in _parts_with_further_classes(source) for each in _counts(part, progress)]
        further = torch.stack(found) if found else None
    weights = median_frequency_weights(torch.stack(counts), further)
    missing = [LABELS[number].replace("_", " ") for number in range(classes) if not weights[number]]
    if classes > CAVITY and not weights[CAVITY] and _may_hold_cavities(source):
        raise ValueError(
            f"class_weights '{MEDIAN_FREQUENCY}' cannot weight the resection cavity, which neither a labelled study "
            f"has nor one of the first {_COUNTED_PATIENTS} resected or synthetic pairs: give class_weights as numbers"
        )
    if missing:
        warnings.warn(
            f"no training study has the class {' or '.join(missing)}: its class weight is 0, and the network does not "
            "learn it",
            stacklevel=2,
        )
    return [_rounded(weight) for weight in weights.tolist()]


def _parts_with_further_classes(source: PairSource) -> list[PairSource]:
    """The parts of training pairs that can hold classes that no study of the cohort has."""
    if isinstance(source, MixedPairs):
        return [*_parts_with_further_classes(source.cohort), source.synthetic]
    if isinstance(source, TransplantedPairs) and source.config.resection_probability:
        return [source.resected()]
    return []


def _may_hold_cavities(source: PairSource) -> bool:
    """Whether tumours of the training pairs are resected, apart from those of the cohort."""
    if isinstance(source, MixedPairs):
        return _may_hold_cavities(source.cohort) or _may_hold_cavities(source.synthetic)
    if isinstance(source, TransplantedPairs):
        return source.config.resection_probability > 0
    return isinstance(source, SyntheticSource) and source.config.resected > 0


def _label_counts(source: PairSource, progress: Progress) -> list[Tensor]:
    """Voxels of each class in the labelled studies; synthetic patients count where a cohort has no labels."""
    if isinstance(source, MixedPairs):
        return _label_counts(source.cohort, progress) or _label_counts(source.synthetic, progress)
    return _counts(source.pairs if isinstance(source, TransplantedPairs) else source, progress)


def _counts(source: PairSource, progress: Progress) -> list[Tensor]:
    """Voxels of each class in the labelled ones of the studies that are counted."""
    studies = _counted_studies(source, progress)
    return [class_counts(study.labels, study.mask) for study in studies if study.labels is not None]


def _counted_studies(source: PairSource, progress: Progress) -> Iterator[StudySample]:
    """Studies whose labels count: all of a cohort, or those of the first pairs that are made at random."""
    if isinstance(source, StudyPairs):
        for index in range(len(source.studies)):
            progress(index / len(source.studies), "class weights")
            yield source.studies[index]
        return
    count = min(len(source), _COUNTED_PATIENTS)
    for index in range(count):
        progress(index / count, "class weights")
        yield from source[index]


def _mean_landmarks(cohort: Cohort, settings: Mapping[str, Any], progress: Progress) -> dict[str, list[float]]:
    """Mean positions of the landmarks over the studies, by modality; one study at a time is prepared."""
    plain = {**settings, "normalisation": "zscore", "histogram_landmarks": {}}
    prepare = StudyPreparer(cohort, PreparationConfig.from_dict(plain, "data: preprocessing"))
    found: dict[str, list[tuple[float, ...]]] = {}
    for index, record in enumerate(cohort.studies):
        progress(index / len(cohort), f"histogram of {record.name}")
        study = prepare(index)
        for modality, image, present in zip(MODALITIES, study.images, study.present, strict=True):
            inside = image[study.mask & (image > ZSCORE_RANGE[0])].numpy()  # not beyond the field of view
            if present:
                found.setdefault(modality, []).append(histogram_landmarks([inside]))
    return {m: [_rounded(position) for position in np.mean(each, axis=0)] for m, each in found.items()}


def _earlier(folder: Path, *keys: str) -> Any:
    """A setting of the training that is resumed; empty where one starts or the setting is missing."""
    if not (folder / LAST).is_file():
        return ()
    value: Any = load_checkpoint(folder / LAST)["trajectory"]
    for key in keys:
        value = value.get(key, {}) if isinstance(value, Mapping) else ()
    return value


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
