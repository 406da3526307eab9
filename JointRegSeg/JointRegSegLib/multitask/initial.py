"""Weights of an earlier training that a new one starts with, as far as they fit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from NeuroCESTLib.core.tensor_files import load_tensors

from ..network.weights import KIND as JOINT_KIND
from ..tasks.tissue import Tissue
from ..training.optimizer import ENCODER
from .network import MultiTaskNetwork, key_of
from .weights import KIND

_JOINT_HEAD = "segmentation."


@dataclass(frozen=True)
class Initialization:
    """What a network took from a weights file.

    Attributes:
        source: The file.
        taken: Number of tensors that fit.
        left_out: Names of those in the file that did not fit.
        new: Names of those of the network that keep their random start.
    """

    source: str
    taken: int
    left_out: tuple[str, ...]
    new: tuple[str, ...]

    def sentence(self) -> str:
        """Say it in words."""
        parts = [f"{self.taken} weights come from '{self.source}'"]
        for what, names in (("left out there", self.left_out), ("new in this network", self.new)):
            if names:
                shown = ", ".join(_modules(names))
                parts.append(f"{what}: {shown} ({len(names)} tensors)")
        return "; ".join(parts)


@torch.no_grad()
def initialize(network: MultiTaskNetwork, path: str | Path) -> Initialization:
    """Give a network the weights of a file that have the names and shapes of its own.

    The file may be one of tasks on single studies or of the joint task, whose segmentation decoder a tissue
    segmentation takes. Where the file knows more modalities, the first convolution takes the kernels of those that the
    network has.

    Args:
        network: Network, changed in place.
        path: Weights file.

    Raises:
        ValueError: The file cannot be used, or not one weight of its encoder fits.
    """
    values = load_tensors(path, "weights file")
    state = values.get("state")
    if values.get("kind") not in (KIND, JOINT_KIND) or not isinstance(state, dict):
        raise ValueError(
            f"'{path}' does not hold the weights of a network; 'initialise' takes a file of 'jointregseg train'"
        )
    tissue = next((task for task in network.tasks if isinstance(task, Tissue)), None)
    own = network.state_dict()
    taken, left_out = set(), []
    for name, value in state.items():
        target = name
        if values["kind"] == JOINT_KIND and name.startswith(_JOINT_HEAD) and tissue is not None:
            target = f"heads.{key_of(tissue)}.{name}"
        fitting = _fitting(value, own.get(target), values.get("config"), network)
        if fitting is None:
            left_out.append(name)
        else:
            own[target].copy_(fitting)
            taken.add(target)
    if not any(name.startswith(ENCODER) for name in taken):
        raise ValueError(
            f"no weight of the encoder of '{path}' fits the network '{network.config.name}': give the network the "
            "channels, convolutions and modalities of that file"
        )
    return Initialization(str(path), len(taken), tuple(left_out), tuple(name for name in own if name not in taken))


def _fitting(value: Any, own: Tensor | None, config: Any, network: MultiTaskNetwork) -> Tensor | None:
    """Tensor of the file in the shape of the network's own; None where it does not fit."""
    if own is None or not isinstance(value, Tensor) or not bool(torch.isfinite(value).all()):
        return None
    if value.shape == own.shape:
        return value
    modalities = config.get("modalities", []) if isinstance(config, dict) else []
    wanted = network.config.modalities
    if value.ndim == 5 and value.shape[1] == len(modalities) and set(wanted) <= set(modalities):
        kept = value[:, [modalities.index(name) for name in wanted]]
        return kept if kept.shape == own.shape else None
    return None


def _modules(names: tuple[str, ...]) -> list[str]:
    """Parts of a network that tensors belong to, such as ``encoder`` or ``heads.age``."""
    short = [".".join(name.split(".")[: 2 if name.startswith("heads.") else 1]) for name in names]
    return list(dict.fromkeys(short))
