"""The loss of a batch: the network's output for it, and the mean of the losses of its pairs."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..images.labels import UNLABELED
from ..images.modalities import MODALITIES
from ..network.joint import JointNetwork, JointOutput
from ..network.precision import FLOAT32, Precision
from ..tasks.protocol import StudyPair
from ..tasks.registry import find_task
from .batches import Batch
from .config import TrainingConfig


def batch_loss(
    network: JointNetwork, batch: Batch, config: TrainingConfig, registers: bool, precision: Precision = FLOAT32
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the loss of a batch.

    Args:
        network: Network to train.
        batch: Pairs on the network's device.
        config: Configuration of the training.
        registers: Whether the registration takes part in this step; else only pairs without labels are registered, for
            which there is nothing else to train.
        precision: Number format of the convolutions.

    Returns:
        The loss to minimise, and its parts by name without gradient, as sum and number (2,) over the pairs that have
        them; ``loss`` is the whole.
    """
    with precision.autocast(batch.fixed.device):
        output = network_output(network, batch, config, registers or _has_nothing_else(batch, config), precision)
    return output_loss(output, batch, config, registers)


def network_output(
    network: JointNetwork, batch: Batch, config: TrainingConfig, registers: bool, precision: Precision = FLOAT32
) -> JointOutput:
    """Compute the output of the network for a batch, leaving out heads that are not trained.

    The arguments are those of ``batch_loss``.
    """
    fixed, moving = (precision.arrange(images) for images in network_inputs(batch, config))
    if registers:
        output = network(fixed, moving, config.stride)
        return output if config.segments else JointOutput(deformation=output.deformation)
    fixed_logits, fixed_lower = network.segment_levels(fixed, config.stride)
    moving_logits, moving_lower = network.segment_levels(moving, config.stride)
    return JointOutput(fixed_logits, moving_logits, None, fixed_lower, moving_lower)


def network_inputs(batch: Batch, config: TrainingConfig) -> tuple[Tensor, Tensor]:
    """Select the modalities of the network from the images of a batch.

    A batch has the channels of ``MODALITIES``, or already those of the network.

    Returns:
        Fixed and moving images (B, C, D, H, W).
    """
    wanted = config.network.modalities
    if wanted == MODALITIES or batch.fixed.shape[1] == len(wanted) < len(MODALITIES):
        return batch.fixed, batch.moving
    channels = [MODALITIES.index(name) for name in wanted]
    return batch.fixed[:, channels], batch.moving[:, channels]


def _has_nothing_else(batch: Batch, config: TrainingConfig) -> bool:
    """Whether a pair without labels can be registered only."""
    return config.registers and not all(_is_labeled(study_pair(batch, i, config)) for i in range(len(batch)))


def _is_labeled(pair: StudyPair) -> bool:
    return pair.fixed_labels is not None or pair.moving_labels is not None


def output_loss(
    output: JointOutput, batch: Batch, config: TrainingConfig, registers: bool = True
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the loss of an output of the network, as ``batch_loss`` does.

    The loss of each pair is computed by itself, so that the mean does not depend on how pairs are divided into batches.
    """
    task = find_task(config.task)
    total = batch.fixed.new_zeros(())
    parts: dict[str, Tensor] = {}
    for index in range(len(batch)):
        found, pair = output.select(index), study_pair(batch, index, config)
        if not registers and _is_labeled(pair):
            found = replace(found, deformation=None)
        value, terms = task.loss(found, pair, config.loss)
        total = total + value / len(batch)
        for name, term in {"loss": value.detach(), **terms}.items():
            parts[name] = parts.get(name, 0) + counted(term, 1)
    return total, parts


def counted(total: Tensor, number: int) -> Tensor:
    """Return a sum and the number of its summands (2,) float64, which can be added to others."""
    return torch.stack([total.detach().double(), total.new_tensor(number, dtype=torch.float64)])


def study_pair(batch: Batch, index: int, config: TrainingConfig) -> StudyPair:
    """Select one pair of a batch for a task, with the modalities of the network and None for absent labels."""
    part = slice(index, index + 1)
    fixed, moving = network_inputs(batch, config)
    labels = (batch.fixed_labels[part], batch.moving_labels[part])
    fixed_labels, moving_labels = (None if bool((side == UNLABELED).all()) else side for side in labels)
    return StudyPair(fixed[part], moving[part], fixed_labels, moving_labels, batch.fixed_mask[part])
