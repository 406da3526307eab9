"""The network of tasks on single studies: one encoder and a head for each task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..network.brain_norm import Brains
from ..network.configuration import NetworkConfig
from ..network.encoder import Encoder
from ..network.resolution import DetailHead, enlarge, standardize
from ..tasks.study_task import StudyTask

_NO_HEADS = nn.ModuleDict()


class MultiTaskNetwork(nn.Module):
    """One encoder with the heads of several tasks.

    Attributes:
        config: Configuration of encoder and decoders.
        tasks: The tasks.
        encoder: Encoder of a study.
        heads: Head of each task by its name.
    """

    def __init__(self, config: NetworkConfig, tasks: Sequence[StudyTask]) -> None:
        super().__init__()
        self.config, self.tasks = config, tuple(tasks)
        self.encoder = Encoder(config)
        self.heads = nn.ModuleDict({key_of(task): task.head(config) for task in tasks})
        self._initialize()

    def forward(self, images: Tensor) -> dict[str, Any]:
        """Compute the outputs of all heads.

        Args:
            images: Studies (B, C, D, H, W) with the modalities of the configuration as channels.

        Returns:
            Output of each head by the name of the task.

        Raises:
            ValueError: The number of channels is wrong, or a size is not a multiple of ``config.multiple``.
        """
        self._check(images)
        with torch.autocast(images.device.type, enabled=False):  # bfloat16 would round the images
            views = {task.name: task.view(images) for task in self.tasks}
        outputs: dict[str, Any] = {}
        if any(view is None for view in views.values()):
            brains = self._brains(images)
            codes = self.encoder(images, brains)
            outputs = {
                task.name: self.heads[key_of(task)](codes, brains) for task in self.tasks if views[task.name] is None
            }
        outputs |= {task.name: self.refine(task, view) for task in self.tasks if (view := views[task.name]) is not None}
        return {task.name: outputs[task.name] for task in self.tasks}

    def refine(self, task: StudyTask, coarse: Tensor) -> Tensor:
        """Compute images with smaller voxels: the interpolated ones, and the detail of a head on top.

        Args:
            task: Task of the kind ``super_resolution``.
            coarse: Images (B, C, d, h, w) of any size, each of one value outside the brain.

        Returns:
            Images (B, C, D, H, W) float32.
        """
        seen, sd = standardize(coarse.float())
        multiple = self.config.multiple
        ends = [end for size in reversed(seen.shape[2:]) for end in (0, -size % multiple)]
        seen = F.pad(seen, ends, value=float(seen.amin()))
        brains = self._brains(seen)
        head = self.heads[key_of(task)]
        assert isinstance(head, DetailHead)
        detail = head(self.encoder(seen, brains), brains, tuple(coarse.shape[2:]))
        with torch.autocast(coarse.device.type, enabled=False):
            return enlarge(coarse.float(), head.factor) + sd * detail.float()

    def _brains(self, images: Tensor) -> Brains | None:
        return Brains.of_studies(images, self.config.levels) if self.config.normalisation == "brain" else None

    @property
    def parameter_count(self) -> int:
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    def _check(self, images: Tensor) -> None:
        channels = len(self.config.modalities)
        if images.ndim != 5 or images.shape[1] != channels:
            raise ValueError(
                f"the network '{self.config.name}' takes studies of shape (B, {channels}, D, H, W) with the channels "
                f"{', '.join(self.config.modalities)}; this study has the shape {tuple(images.shape)}"
            )
        multiple = self.config.multiple
        if any(size % multiple or not size for size in images.shape[2:]):
            raise ValueError(
                f"the study has {' x '.join(map(str, images.shape[2:]))} voxels but the network '{self.config.name}' "
                f"needs multiples of {multiple}"
            )

    def _initialize(self) -> None:
        """Draw the weights of convolutions by the method of He; set biases to zero."""
        for module in self.modules():
            if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
                nn.init.kaiming_normal_(module.weight, a=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, DetailHead):  # the untrained network interpolates
                nn.init.zeros_(module.output.weight)


def key_of(task: StudyTask) -> str:
    """Return the name of a task's head among the weights.

    Dots, which separate the parts of names, are replaced, and names that a ``ModuleDict`` has as an attribute, such as
    'type', begin with ``task_``.
    """
    key = task.name.replace(".", "_")
    return f"task_{key}" if hasattr(_NO_HEADS, key) else key


def select(output: Any, index: int) -> Any:
    """Return the output of a head for one study of a batch, as a batch of one."""
    if isinstance(output, Tensor):
        return output[index : index + 1]
    return tuple(part[index : index + 1] for part in output)
