"""Weights files of tasks on single studies: network, tasks with what they learned, and a record of the training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from NeuroCESTLib.core.stored_values import check_weights
from NeuroCESTLib.core.tensor_files import load_tensors, save_tensors

from ..cohort.preparation import PreparationConfig
from ..network.configuration import NetworkConfig
from ..network.weights import KIND as JOINT_KIND
from ..tasks.registry import study_task_from_dict
from ..tasks.study_task import StudyTask
from .network import MultiTaskNetwork

KIND = "neurocest study network"
FORMAT = 1
_MOST_PARAMETERS = 500_000_000


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
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    if half:
        state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    values = {
        "kind": KIND,
        "format": FORMAT,
        "config": network.config.to_dict(),
        "tasks": [task.to_dict() for task in network.tasks],
        "state": state,
        "metadata": json.loads(json.dumps(dict(metadata), allow_nan=False)),
        "versions": {"torch": str(torch.__version__)},
    }
    return save_tensors(values, path)


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
    state, metadata, tasks = values.get("state"), values.get("metadata"), values.get("tasks")
    if not isinstance(state, dict) or not isinstance(metadata, dict) or not isinstance(tasks, list):
        raise ValueError(f"'{path}' is damaged: its state, its tasks or its metadata are missing")
    config = NetworkConfig.from_dict(values.get("config"), f"'{path}' is damaged")
    found = [study_task_from_dict(task, f"'{path}' is damaged") for task in tasks]
    with torch.device("meta"):
        network = MultiTaskNetwork(config, found)
    if network.parameter_count > _MOST_PARAMETERS:
        raise ValueError(f"'{path}' is damaged: its network would have {network.parameter_count} parameters")
    check_weights(state, network.state_dict(), f"'{path}' is damaged")
    network.load_state_dict({n: v.float() for n, v in state.items()}, assign=True)
    return StudyWeights(network.requires_grad_(True).eval(), metadata, path)
