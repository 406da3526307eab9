"""Validation of a network during training: losses and scores on fixed pairs, and what their pictures show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from NeuroCESTLib.core.processes import Processes

from ..images.labels import UNLABELED, classes_of_logits
from ..images.modalities import MODALITIES, TITLES
from ..network.joint import JointNetwork, JointOutput
from ..network.precision import Precision
from ..pictures.cases import SHOWN_MODALITIES, CasePicture
from ..registration.deformation import jacobian_determinant, warp
from ..tasks.registry import find_task
from .batches import Batch
from .config import TrainingConfig
from .log import Row
from .step import network_output, output_loss, study_pair


@dataclass(frozen=True)
class Validation:
    """Result of a validation.

    Attributes:
        row: Means over the cases by name, ``val_<name>``.
        cases: What the pictures of the first cases show.
    """

    row: Row
    cases: list[CasePicture]


@torch.no_grad()
def validate(
    network: JointNetwork,
    cases: Sequence[Batch],
    config: TrainingConfig,
    precision: Precision,
    processes: Processes | None = None,
    drawn: int = 0,
) -> Validation:
    """Compute losses and scores of a network on held-out pairs.

    The processes share the cases, and all of them get the same means. Which scores there are depends on the task, see
    ``tasks.joint.joint_scores``; those for which nothing is known are left out. Of a study that is paired with itself
    only the segmentation is judged.

    Args:
        network: Network to validate.
        cases: Batches of one pair each.
        config: Configuration of the training.
        precision: Number format of the convolutions.
        processes: This process among the others; None for a single one.
        drawn: Number of cases to prepare pictures of.
    """
    processes = processes or Processes()
    task = find_task(config.task)
    was_training = network.training
    network.eval()
    device = next(network.parameters()).device
    rows: list[Row] = []
    pictures: list[CasePicture] = []
    for number in range(processes.rank, len(cases), processes.count):
        batch = cases[number].to(device)
        fixed, moving = batch.names[0]
        registers = config.registers and not (config.segments and fixed == moving)
        with precision.autocast(device):
            output = network_output(network, batch, config, registers, precision)
        _, parts = output_loss(output, batch, config)
        scores = task.scores(output, study_pair(batch, 0, config))
        rows.append({name: float(total) for name, (total, _) in parts.items()} | scores)
        if len(pictures) < drawn:
            pictures.append(_picture(output, batch, config))
    network.train(was_training)
    return Validation(_means(rows, task.reported, processes, device), pictures)


def _means(rows: list[Row], reported: Sequence[str], processes: Processes, device: torch.device) -> Row:
    """Means over the cases of all processes; scores that are not finite do not count."""
    names = ("loss", *reported)
    sums = torch.zeros(2, len(names), dtype=torch.float64, device=device)
    for row in rows:
        for column, name in enumerate(names):
            value = row.get(name, float("nan"))
            if name == "loss" or np.isfinite(value):  # a loss that is not finite must show
                sums[0, column] += value
                sums[1, column] += 1
    processes.average([sums])
    total, count = sums.tolist()
    return {f"val_{name}": total[i] / count[i] for i, name in enumerate(names) if count[i]}


def _picture(output: JointOutput, batch: Batch, config: TrainingConfig) -> CasePicture:
    """What the picture of the batch's first pair shows: one modality, the classes and the deformation."""
    channel, modality = _shown_channel(batch, config)
    warped = determinant = None
    if output.deformation is not None:
        displacement = output.deformation.displacement
        warped = warp(batch.moving[:1, channel : channel + 1], displacement[:1])[0, 0].cpu().numpy()
        determinant = jacobian_determinant(displacement)[0, 0].cpu().numpy()
    labeled = bool((batch.fixed_labels != UNLABELED).any())
    return CasePicture(
        *batch.names[0],
        TITLES[modality],
        batch.fixed[0, channel].float().cpu().numpy(),
        batch.moving[0, channel].float().cpu().numpy(),
        warped,
        batch.fixed_labels[0].cpu().numpy() if labeled else None,
        None if output.fixed_logits is None else _classes(output.fixed_logits),
        determinant,
    )


def _shown_channel(batch: Batch, config: TrainingConfig) -> tuple[int, str]:
    """Channel and name of the preferred modality that the fixed study has."""
    names = MODALITIES if batch.fixed.shape[1] == len(MODALITIES) else config.network.modalities
    images = batch.fixed[0].flatten(1)
    varies = (images.amax(1) > images.amin(1)).tolist()
    present = [name for name in SHOWN_MODALITIES if name in names and varies[names.index(name)]]
    shown = present[0] if present else names[0]
    return names.index(shown), shown


def _classes(logits: Tensor) -> np.ndarray:
    """Classes (D, H, W) of the first study of logits (B, classes, D, H, W)."""
    return classes_of_logits(logits[0]).cpu().numpy()
