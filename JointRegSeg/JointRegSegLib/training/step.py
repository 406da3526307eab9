"""The loss of a batch: the network's output for it, and the mean of the losses of its pairs."""

from __future__ import annotations

import torch
from torch import Tensor

from ..images.modalities import MODALITIES
from ..network.joint import JointNetwork, JointOutput
from ..registration.deformation import Deformation
from ..tasks.joint import joint_loss
from .batches import UNLABELLED, Batch
from .config import TrainingConfig
from .optimizer import Precision


def batch_loss(
    network: JointNetwork, batch: Batch, config: TrainingConfig, registers: bool, precision: Precision | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss to minimise, and its parts by name with 'loss' for the whole, as means over the pairs.

    registers: whether the registration takes part in this step.
    """
    precision = precision or Precision()
    with precision.autocast(batch.fixed.device):
        output = network_output(network, batch, config, registers, precision)
    return output_loss(output, batch, config)


def network_output(
    network: JointNetwork, batch: Batch, config: TrainingConfig, registers: bool, precision: Precision | None = None
) -> JointOutput:
    """What the network says of a batch, without heads that are not trained."""
    precision = precision or Precision()
    fixed, moving = (precision.arrange(images) for images in network_inputs(batch, config))
    if registers:
        output = network(fixed, moving, config.stride)
        return output if config.segments else JointOutput(deformation=output.deformation)
    fixed_logits, fixed_lower = network.segment_levels(fixed, config.stride)
    moving_logits, moving_lower = network.segment_levels(moving, config.stride)
    return JointOutput(fixed_logits, moving_logits, None, fixed_lower, moving_lower)


def network_inputs(batch: Batch, config: TrainingConfig) -> tuple[Tensor, Tensor]:
    """Fixed and moving images with the network's own modalities, chosen from all or as they come."""
    wanted = config.network.modalities
    if wanted == MODALITIES or batch.fixed.shape[1] == len(wanted) < len(MODALITIES):
        return batch.fixed, batch.moving
    channels = [MODALITIES.index(name) for name in wanted]
    return batch.fixed[:, channels], batch.moving[:, channels]


def output_loss(output: JointOutput, batch: Batch, config: TrainingConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """As ``batch_loss``, of an output.

    Each pair's loss is computed by itself, so that the mean does not depend on how pairs are divided into batches.
    """
    images = network_inputs(batch, config)
    total: Tensor | float = 0.0
    parts: dict[str, Tensor] = {}
    for pair in range(len(batch)):
        fixed, moving = (side[pair : pair + 1] for side in images)
        labels = [_labels(side, pair) for side in (batch.fixed_labels, batch.moving_labels)]
        own = _of_pair(output, pair)
        value, terms = joint_loss(own, fixed, moving, *labels, config.loss, config.network)
        total = total + value / len(batch)
        for name, term in {"loss": value.detach(), **terms}.items():
            parts[name] = parts.get(name, 0.0) + term / len(batch)
    return total, parts


def _of_pair(output: JointOutput, pair: int) -> JointOutput:
    """The output for one pair of the batch."""

    def cut(value: Tensor | None) -> Tensor | None:
        return None if value is None else value[pair : pair + 1]

    def cut_all(values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(value[pair : pair + 1] for value in values)

    deformation = output.deformation
    if deformation is not None:
        deformation = Deformation(
            cut(deformation.displacement),
            cut(deformation.inverse),
            cut(deformation.velocity),
            cut(deformation.gradients),
        )
    return JointOutput(
        cut(output.fixed_logits),
        cut(output.moving_logits),
        deformation,
        cut_all(output.fixed_auxiliary),
        cut_all(output.moving_auxiliary),
    )


def _labels(side: Tensor, pair: int) -> Tensor | None:
    labels = side[pair : pair + 1]
    return None if bool(torch.eq(labels, UNLABELLED).all()) else labels
