"""A training of tasks on single studies, from the manifest to the network with calibrated uncertainties."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from NeuroCESTLib.core.processes import Processes
from NeuroCESTLib.core.progress import Progress, silent
from NeuroCESTLib.core.tensor_files import load_tensors

from ..augmentation.pipeline import Augmentation
from ..cohort.consistency import warn_without_validation
from ..cohort.manifest import read_manifest
from ..cohort.studies import Cohort
from ..network.precision import FLOAT32
from ..tasks.study_task import StudyTask
from ..training.loop import train
from ..training.state import TrainingResult
from .config import MultiTaskConfig
from .initial import Initialization, initialize
from .network import MultiTaskNetwork, select
from .objective import StudyObjective, judged, run, task_losses
from .studies import StudyAugmentation, TargetStudies, TargetStudy, combine


@dataclass(frozen=True)
class StudyTraining:
    """A finished training.

    Attributes:
        network: Network with the best weights, and tasks with what they learned.
        result: How the training went.
        config: Configuration with what the tasks learned.
        training_studies: Number of training studies.
        validation_studies: Number of validation studies.
        known: Number of training studies with a target, by the name of the task.
        start: What the network took from the weights that it started with; None without any.
    """

    network: MultiTaskNetwork
    result: TrainingResult
    config: MultiTaskConfig
    training_studies: int
    validation_studies: int
    known: dict[str, int]
    start: Initialization | None = None


def train_tasks(
    config: MultiTaskConfig,
    manifest: str | Path,
    folder: str | Path,
    *,
    resume: bool = False,
    processes: Processes | None = None,
    progress: Progress = silent,
) -> StudyTraining:
    """Train the tasks of a configuration on a cohort.

    Args:
        config: Configuration of the training.
        manifest: Manifest of the cohort with the columns of the tasks.
        folder: Folder for checkpoints, log and pictures.
        resume: Continue from the last checkpoint in ``folder``.
        processes: This process among the others; None for a single one.
        progress: Called after each step; may raise to interrupt, after which a checkpoint is written.

    Returns:
        The trained network and how the training went.

    Raises:
        ValueError: Settings or studies cannot be used, or the training diverges.
    """
    # A resumed training needs the initial weights only if its checkpoint turns out to be damaged.
    initialized = bool(config.initial_weights) and (not resume or Path(config.initial_weights).is_file())
    if initialized:
        load_tensors(config.initial_weights, "weights file", mapped=True)  # noticed before the studies are prepared
    cohort = read_manifest(manifest, config.targets)
    source = open_studies(config, cohort.of_split("train"), folder, config.tasks, progress)
    targets = {task.name: source.raw_targets(task) for task in config.tasks}
    tasks = tuple(task.fitted(targets[task.name], str(manifest)) for task in config.tasks)
    config = config.with_tasks(tasks)
    validation = _validation(config, cohort, folder, progress)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.seed)
        network = MultiTaskNetwork(config.network, tasks)
    start = None
    if initialized:
        start = initialize(network, config.initial_weights)
    settings = config.data.augment()
    augmentation = None
    if settings is not None:
        background = config.data.preparation().preprocessing.background
        augmentation = StudyAugmentation(Augmentation(settings, background, config.network.modalities))
    result = train(
        StudyObjective(config),
        network,
        source.with_tasks(tasks),
        validation,
        folder,
        augmentation=augmentation,
        resume=resume,
        processes=processes,
        progress=progress,
        studies=cohort,
    )
    tasks = calibrated(network, validation)
    network.tasks = tasks
    known = {name: sum(target is not None for target in found) for name, found in targets.items()}
    return StudyTraining(network, result, config.with_tasks(tasks), len(source), len(validation), known, start)


def open_studies(
    config: MultiTaskConfig, cohort: Cohort, folder: str | Path, tasks: tuple[StudyTask, ...], progress: Progress
) -> TargetStudies:
    """Open the studies of a cohort with the targets of tasks; each needs a modality of the network."""
    data = config.data
    cohort.require_modalities(config.network.modalities)
    return TargetStudies(cohort, tasks, data.preparation(), data.path, Path(folder) / data.cache, progress)


@torch.no_grad()
def calibrated(network: MultiTaskNetwork, studies: list[TargetStudy]) -> tuple[StudyTask, ...]:
    """Return the tasks of a network with uncertainties scaled to the errors of held-out studies."""
    found: dict[str, list[tuple[Any, Any]]] = {task.name: [] for task in network.tasks}
    if all(task.from_image or task.map_classes for task in network.tasks):
        return network.tasks  # no uncertainties
    network.eval()
    device = next(network.parameters()).device
    for study in studies:
        batch = combine([study], network.config.multiple, 0, network.config.modalities).to(device)
        outputs = run(network, batch, FLOAT32)
        for task in network.tasks:
            if task_losses(task, outputs[task.name], batch)[0] is not None:
                found[task.name].append(judged(task, select(outputs[task.name], 0), batch))
    return tuple(
        task.calibrated([p for p, _ in found[task.name]], [t for _, t in found[task.name]]) for task in network.tasks
    )


def _validation(config: MultiTaskConfig, cohort: Cohort, folder: str | Path, progress: Progress) -> list[TargetStudy]:
    """Prepare the first studies of the split 'val'."""
    if config.data.validation_studies:
        warn_without_validation(cohort, "validation_studies")
    if not config.data.validation_studies or not any(study.split == "val" for study in cohort.studies):
        return []
    held_out = open_studies(config, cohort.of_split("val"), folder, config.tasks, progress)
    return [held_out[index] for index in range(min(config.data.validation_studies, len(held_out)))]
