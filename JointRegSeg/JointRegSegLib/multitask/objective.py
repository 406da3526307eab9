"""What the training of tasks on single studies minimises and reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from NeuroCESTLib.core.processes import Processes

from ..network.precision import Precision
from ..pictures.predictions import Shown, draw_predictions
from ..tasks.study_task import StudyTask
from ..training.batches import Collate
from ..training.log import Row
from ..training.objective import Draw
from ..training.settings import TrainingSettings
from ..training.step import counted
from ..training.updates.precision import for_gradients
from .config import MultiTaskConfig
from .network import MultiTaskNetwork, select
from .studies import StudyBatch, combine


class StudyObjective:
    """Sum of the weighted losses of the tasks; a missing target counts nothing.

    Each task's loss is divided by the share of the training studies that have a target, so that a task of which few
    studies know the target has the same weight, and the mean does not depend on how studies are put into batches.
    """

    def __init__(self, config: MultiTaskConfig) -> None:
        self.config = config
        self.tasks = config.tasks
        self.multiple = config.network.multiple
        self.terms = ("loss", *(task.name for task in self.tasks), "brain_share")
        self.combine: Collate = partial(combine, modalities=config.network.modalities)
        self.scores: Mapping[str, str] | None = {
            f"val_{task.name}_{task.main_score[0]}": task.main_score[1] for task in self.tasks
        }

    @property
    def name(self) -> str:
        """Name of the network."""
        return self.config.network.name

    @property
    def settings(self) -> TrainingSettings:
        """Settings of the training loop."""
        return self.config.training

    @property
    def initial_weights(self) -> str:
        """File of the weights that the training starts from; empty for those of the seed."""
        return self.config.initial_weights

    def trajectory(self) -> dict[str, Any]:
        """Return the settings of the configuration that decide the weights."""
        return self.config.trajectory()

    def loss(self, network: Any, batch: Any, step: int, precision: Precision) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of a batch of studies."""
        device, network_config = batch.images.device, self.config.network
        exact = for_gradients(precision, batch.images.shape[2], network_config, device)
        outputs = run(network, batch, exact)
        total = sum((_first(output).float().sum() * 0.0 for output in outputs.values()), torch.zeros((), device=device))
        parts: dict[str, Tensor] = {}
        with torch.autocast(device.type, enabled=False):
            for task in self.tasks:
                losses = [loss for loss in task_losses(task, outputs[task.name], batch) if loss is not None]
                if losses:
                    known = torch.stack(losses).sum()
                    total = total + task.weight * known / len(batch) / task.share
                    parts[task.name] = counted(known, len(losses))
        whole = {"loss": total, "brain_share": batch.mask.float().mean()}
        return total, parts | {name: counted(value * len(batch), len(batch)) for name, value in whole.items()}

    @torch.no_grad()
    def validate(
        self, network: Any, cases: Sequence[Any], precision: Precision, processes: Processes, drawn: int
    ) -> tuple[Row, Draw | None]:
        """Compute losses and scores of the held-out studies; every process computes all of them."""
        was_training = network.training
        network.eval()
        device = next(network.parameters()).device
        losses: dict[str, list[float]] = {task.name: [] for task in self.tasks}
        found: dict[str, list[tuple[Any, Any]]] = {task.name: [] for task in self.tasks}
        shown: dict[str, list[Shown]] = {task.name: [] for task in self.tasks}
        for case in cases:
            batch = case.to(device)
            outputs = run(network, batch, precision)
            for task in self.tasks:
                loss = task_losses(task, outputs[task.name], batch)[0]
                if loss is not None:
                    losses[task.name].append(float(loss))
                    found[task.name].append(judged(task, select(outputs[task.name], 0), batch))
                    if len(shown[task.name]) < drawn:
                        shown[task.name].append(Shown(case.names[0], _first_image(case), *found[task.name][-1]))
        network.train(was_training)
        row: Row = {"val_loss": 0.0}
        for task in self.tasks:
            if losses[task.name]:
                predictions, targets = ([pair[side] for pair in found[task.name]] for side in (0, 1))
                row[f"val_{task.name}_loss"] = task.held_out_loss(losses[task.name], predictions, targets)
                row["val_loss"] += task.weight * row[f"val_{task.name}_loss"]
                scores = task.scores(predictions, targets, self._spacing_mm)
                row |= {f"val_{task.name}_{name}": value for name, value in scores.items()}
        if not any(losses.values()):
            raise ValueError("no study of the split 'val' has a target: leave the split out or fill its columns")

        def draw(path: Path, title: str) -> None:
            draw_predictions(self.tasks, found, shown, path, title)

        return row, draw if drawn else None

    @property
    def _spacing_mm(self) -> float:
        return self.config.data.preparation().preprocessing.spacing_mm


def run(network: MultiTaskNetwork, batch: StudyBatch, precision: Precision) -> dict[str, Any]:
    """Compute the outputs of all heads for a batch, by the name of the task."""
    with precision.autocast(batch.images.device):
        return network(precision.arrange(batch.images))


def task_losses(task: StudyTask, output: Any, batch: StudyBatch) -> list[Tensor | None]:
    """Compute the loss of each study of a batch; None where the target is missing."""
    losses: list[Tensor | None] = []
    for index in range(len(batch)):
        target = batch.target(task, index)
        losses.append(None if target is None else task.loss(_float(select(output, index)), target, batch.mask[index]))
    return losses


def judged(task: StudyTask, output: Any, batch: StudyBatch) -> tuple[Any, Any]:
    """Return the compact prediction of the only study of a batch, and its target where scores need it."""
    target = batch.target(task, 0)
    return task.compact(task.decode(output), target), None if task.from_image else target


def _float(output: Any) -> Any:
    return output.float() if isinstance(output, Tensor) else tuple(part.float() for part in output)


def _first(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def _first_image(batch: StudyBatch) -> np.ndarray:
    """First image (D, H, W) of a study that is not constant."""
    images = batch.images[0].float()
    varies = (images.flatten(1).amax(1) > images.flatten(1).amin(1)).tolist()
    return images[varies.index(True) if True in varies else 0].cpu().numpy()
