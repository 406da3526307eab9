"""Data of a training: source of pairs, validation pairs, augmentation and preprocessing of a configuration."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from NeuroCESTLib.core.progress import Progress, silent

from ..augmentation.config import AugmentationConfig
from ..augmentation.mixture import MixedPairs, TransplantedPairs
from ..augmentation.pipeline import Augmentation
from ..augmentation.transplant import TransplantConfig
from ..cohort.consistency import warn_without_validation
from ..cohort.manifest import read_manifest
from ..cohort.pairing import Pairing
from ..cohort.preparation import PreparationConfig
from ..cohort.sample import Pair, PairSource
from ..cohort.sources import open_pairs, plan_pairs
from ..cohort.studies import Cohort
from ..images.labels import CAVITY
from ..synthesis.source import SyntheticConfig, SyntheticSource
from .config import TrainingConfig
from .learned import with_class_weights, with_histogram_landmarks

_HELD_OUT_SEED = 1_000_003
"""Added to the seed of the synthetic patients for those of the validation."""


@dataclass(frozen=True)
class TrainingData:
    """What a training needs besides the network.

    Attributes:
        config: Configuration in which everything learned from the data (class weights, landmarks) stands as numbers.
        source: Training pairs.
        validation: Fixed pairs, not augmented.
        augmentation: Random changes of the training pairs, or None.
        preprocessing: Preprocessing that is saved with the weights.
        description: Where the data come from, in words.
        labels: Number of label files by their convention.
        studies: Studies of all splits; None without a manifest.
    """

    config: TrainingConfig
    source: PairSource
    validation: list[Pair]
    augmentation: Augmentation | None
    preprocessing: dict[str, Any] = field(default_factory=dict)
    description: str = ""
    labels: dict[str, int] = field(default_factory=dict)
    studies: Cohort | None = None


def open_data(
    config: TrainingConfig,
    manifest: str | Path | None,
    folder: str | Path,
    progress: Progress = silent,
    labels: str | None = None,
) -> TrainingData:
    """Open the data of a configuration.

    Synthetic patients need no manifest; where one is given, its split ``val`` validates them. What is learned from the
    data is taken from the checkpoint in ``folder`` where there is one, so that a resumed training goes on with it.

    Args:
        config: Configuration of the training.
        manifest: Manifest of the cohort, or None.
        folder: Output folder of the training.
        progress: Called while studies are prepared; may raise to cancel.
        labels: Convention of the label files that the manifest declares none for; None to recognize it.

    Raises:
        ValueError: Settings or studies cannot be used, or the manifest is missing.
    """
    folder = Path(folder)
    cohort = None
    if manifest is None:
        training, held_out, description = _synthetic_pairs(config)
    else:
        cohort = read_manifest(manifest).with_convention(labels)
        _check_splits(config, cohort)
        config = with_histogram_landmarks(config, cohort, folder, progress)
        training, held_out, description = _cohort_pairs(config, cohort, folder, progress)
    config = with_class_weights(config, training, folder, progress)
    preparation = _preparation(config)
    augmentation = None
    if config.data.augmentation is not None:
        settings = AugmentationConfig.from_dict(config.data.augmentation, "data: augmentation")
        augmentation = Augmentation(settings, preparation.preprocessing.background, config.network.modalities)
    validation = _validation_pairs(config, held_out, progress)
    return TrainingData(
        config,
        training,
        validation,
        augmentation,
        _saved_preprocessing(config, preparation),
        description,
        {} if cohort is None else cohort.conventions(),
        cohort,
    )


def _check_splits(config: TrainingConfig, cohort: Cohort) -> None:
    """Refuse splits of which no pair can be made, and tell what they lack, before the first study is prepared."""
    synthetic = config.data.path == "synthetic"
    if config.data.validation_pairs:
        instead = "synthetic patients validate the training" if synthetic else ""
        warn_without_validation(cohort, "validation_pairs", instead)
    pairings = {} if synthetic else {"train": config.data.pairing}
    if _is_held_out(config, cohort):
        pairings["val"] = _held_out_pairing(config, cohort.of_split("val"))
    for split, pairing in pairings.items():
        studies = cohort.of_split(split)
        studies.require_modalities(config.network.modalities)
        try:
            plan = plan_pairs(studies, pairing, labeled=not config.registers)
        except ValueError as error:
            raise ValueError(f"split '{split}': {error}") from None
        if plan.left_out:
            warnings.warn(
                f"'{cohort.source}': {plan.left_out} of {plan.left_out + len(plan)} pairs of the split '{split}' are "
                "left out, because neither study has labels and the segmentation alone is trained",
                stacklevel=3,
            )


_Opened = tuple[PairSource, PairSource | None, str]
"""Training pairs, held-out pairs where there are any, and where they come from in words."""


def _synthetic_pairs(config: TrainingConfig) -> _Opened:
    """Patients that are generated as they are needed; those of the validation have another seed."""
    data = config.data
    if data.path != "synthetic":
        raise ValueError(f"data path '{data.path}' needs a cohort: give --manifest COHORT.csv")
    settings, cavity = _synthetic(config), _knows_cavity(config)
    training = SyntheticSource(settings, data.length, data.seed, cavity)
    held_out = SyntheticSource(settings, max(data.validation_pairs, 1), data.seed + _HELD_OUT_SEED, cavity)
    return training, held_out, f"synthetic patients, seed {data.seed}"


def _cohort_pairs(config: TrainingConfig, cohort: Cohort, folder: Path, progress: Progress) -> _Opened:
    """Pairs of the splits 'train' and 'val'; the training pairs may be synthetic all the same."""
    data = config.data
    training: PairSource
    held_out: PairSource | None = None
    transplants = _transplants(config)
    if data.path == "synthetic":
        training, held_out, description = _synthetic_pairs(config)
    else:
        studies = cohort.of_split("train")
        description = f"{len(studies)} studies of {len(studies.visits())} subjects"
        training = open_pairs(
            studies,
            data.path,
            _preparation(config),
            data.pairing,
            data.sampling,
            folder / data.cache,
            data.seed,
            progress,
            labeled=not config.registers,
        )
        if transplants is not None:
            training = TransplantedPairs(training, transplants, data.seed)
        if data.synthetic_share:
            synthetic = SyntheticSource(_synthetic(config), data.length, data.seed, _knows_cavity(config))
            training = MixedPairs(training, synthetic, data.synthetic_share, data.seed)
            description += f" and synthetic patients, seed {data.seed}"
    if _is_held_out(config, cohort):
        # Without a cache they are prepared as they are read, because only a few are used.
        path = "cache" if data.path == "cache" else "on_the_fly"
        held_out = _open_held_out(config, cohort.of_split("val"), path, folder, progress)
    return training, held_out, description


def _is_held_out(config: TrainingConfig, cohort: Cohort) -> bool:
    """Whether studies of the cohort validate the training."""
    return config.data.validation_pairs > 0 and any(study.split == "val" for study in cohort.studies)


def _transplants(config: TrainingConfig) -> TransplantConfig | None:
    """How tumours are exchanged, where they are."""
    if config.data.transplants is None:
        return None
    return TransplantConfig.from_dict(config.data.transplants, "data: transplants")


def _knows_cavity(config: TrainingConfig) -> bool:
    """Whether the network has a class for the resection cavity."""
    return config.network.classes > CAVITY


def _preparation(config: TrainingConfig) -> PreparationConfig:
    """How studies are prepared; held-out ones get the voxel size of the patients where all of these are synthetic."""
    preparation = PreparationConfig.from_dict(config.data.preprocessing, "data: preprocessing")
    if config.data.path == "synthetic":
        spacing_mm = float(_synthetic(config).spacing_mm)
        preparation = replace(preparation, preprocessing=replace(preparation.preprocessing, spacing_mm=spacing_mm))
    return replace(preparation, cavity=_knows_cavity(config))


def _synthetic(config: TrainingConfig) -> SyntheticConfig:
    cohort = PreparationConfig.from_dict(config.data.preprocessing, "data: preprocessing").preprocessing
    return SyntheticConfig.from_dict(config.data.synthetic_settings(cohort.spacing_mm), "data: synthetic")


def _open_held_out(config: TrainingConfig, studies: Cohort, path: str, folder: Path, progress: Progress) -> PairSource:
    data = config.data
    return open_pairs(
        studies,
        path,
        _preparation(config),
        _held_out_pairing(config, studies),
        None,
        folder / data.cache,
        data.seed,
        progress,
        labeled=not config.registers,
    )


def _held_out_pairing(config: TrainingConfig, studies: Cohort) -> Any:
    """How held-out studies are paired: as in training, but none with itself where the registration is judged.

    Held-out pairs are not augmented, so that two equal studies would be registered by no deformation at all.
    """
    pairing = Pairing.of(config.data.pairing)
    if pairing.kind != "same" or not config.registers:
        return config.data.pairing
    if len(studies) > 1:
        return asdict(replace(pairing, kind="auto"))
    if not config.segments or studies.studies[0].label is None:
        raise ValueError(
            f"'{studies.source}' has a single study in the split 'val', which has no partner to be registered with: "
            "add a study, or set validation_pairs to 0"
        )
    return config.data.pairing  # see ``validation.validate``


def _validation_pairs(config: TrainingConfig, held_out: PairSource | None, progress: Progress) -> list[Pair]:
    """Read the first held-out pairs, as many as the configuration wants and there are."""
    wanted = config.data.validation_pairs
    pairs: list[Pair] = []
    if held_out is not None:
        for index in range(min(wanted, len(held_out))):
            progress(0.0, f"validation pair {index + 1} of {wanted}")
            pairs.append(held_out[index])
    if config.training.monitor == "dice" and not any(study.labels is not None for pair in pairs for study in pair):
        raise ValueError("monitor 'dice' needs labelled studies in the split 'val'; use monitor 'loss' without them")
    return pairs


def _saved_preprocessing(config: TrainingConfig, preparation: PreparationConfig) -> dict[str, Any]:
    """Preprocessing for using the network with its own stride, which may differ from that of the training.

    A network that was trained with stride 1 on voxels of 2 mm serves voxels of 1 mm with stride 2.
    """
    spacing_mm = preparation.preprocessing.spacing_mm * config.training_stride / config.network.stride
    return preparation.preprocessing.to_dict() | {"spacing_mm": spacing_mm}
