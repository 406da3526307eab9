"""Weights files of tasks on single studies: network, tasks with what they learned, and a record of the training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from NeuroCESTLib.core.tensor_files import load_tensors

from ..cohort.preparation import PreparationConfig
from ..network.configuration import NetworkConfig
from ..network.weights import KIND as JOINT_KIND
from ..network.weights import read_network, write_network
from ..tasks.registry import study_task_from_dict
from ..tasks.study_task import StudyTask
from .network import MultiTaskNetwork

KIND = "neurocest study network"
FORMAT = 1


@dataclass(frozen=True)
class StudyWeights:
    """Network that was read from a weights file.

    Attributes:
        network: Network in evaluation mode.
        metadata: Record in the file: preparation, summary of the training, versions, licence.
        path: Weights file.
    """

    network: MultiTaskNetwork
    metadata: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None

    @property
    def tasks(self) -> tuple[StudyTask, ...]:
        """Tasks of the network."""
        return self.network.tasks

    @property
    def preparation(self) -> PreparationConfig:
        """How studies are prepared for the network."""
        return PreparationConfig.from_dict(
            self.metadata.get("preparation", {}), f"the weights '{self.path}': preparation"
        )


def save_study_weights(
    path: str | Path, network: MultiTaskNetwork, metadata: Mapping[str, Any], half: bool = False
) -> Path:
    """Write a weights file, completely or not at all.

    Args:
        path: File to write.
        network: Network whose weights and tasks are saved.
        metadata: Record of the training; plain values only.
        half: Whether to store the weights as float16, which halves the size of the file.

    Raises:
        ValueError: The file cannot be written.
    """
    tasks = [task.to_dict() for task in network.tasks]
    return write_network(path, network, KIND, FORMAT, metadata, half, tasks=tasks)


def is_study_weights(path: str | Path) -> bool:
    """Whether a file holds weights of tasks on single studies; False for files that cannot be read."""
    try:
        return load_tensors(path, "weights file").get("kind") == KIND
    except ValueError:
        return False


def load_study_weights(path: str | Path) -> StudyWeights:
    """Read a weights file.

    Raises:
        ValueError: The file is missing, damaged, or holds the weights of another task; the message names it.
    """
    path = Path(path)
    values, tasks = _read(path)
    network, metadata = read_network(path, values, lambda config: MultiTaskNetwork(config, tasks))
    return StudyWeights(network, metadata, path)


def offer_of(path: str | Path) -> tuple[list[str], tuple[str, ...]]:
    """Say what the weights of a file find in a study, without building the network.

    Returns:
        What each task finds, in words, and the modalities that the network knows.

    Raises:
        ValueError: As for ``load_study_weights``.
    """
    path = Path(path)
    values, tasks = _read(path)
    config = NetworkConfig.from_dict(values.get("config"), f"'{path}' is damaged")
    return [task.offer for task in tasks], config.modalities


def _read(path: Path) -> tuple[dict[str, Any], list[StudyTask]]:
    """Entries and tasks of a weights file."""
    values = load_tensors(path, "weights file")
    if values.get("kind") == JOINT_KIND:
        raise ValueError(
            f"'{path}' holds the weights of the joint task (tumour segmentation and registration), not of a task on "
            "single studies: use 'jointregseg segment' or 'jointregseg apply' with it"
        )
    if values.get("kind") != KIND:
        raise ValueError(f"'{path}' does not hold weights of a task; make a weights file with 'jointregseg train'")
    if values.get("format") != FORMAT:
        raise ValueError(f"'{path}' has format {values.get('format')!r}, but this version reads format {FORMAT}")
    tasks = values.get("tasks")
    if not isinstance(tasks, list):
        raise ValueError(f"'{path}' is damaged: its tasks are missing")
    found = [study_task_from_dict(task, f"'{path}' is damaged") for task in tasks]
    return values, found
