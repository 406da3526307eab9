"""Weights of an earlier training that a new one starts with, as far as they fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from NeuroCESTLib.core.tensor_files import load_tensors

from ..images.modalities import MODALITIES
from ..network.weights import KIND as JOINT_KIND
from ..tasks.tissue import Tissue
from ..training.updates.optimizer import ENCODER
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
    segmentation takes. Weights that belong to modalities, such as the kernels of the first convolution, are taken by
    the name of the modality, in whatever order the file has them. Where the file lacks a modality of the network, they
    are left out.

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
    own, axes = network.state_dict(), _modality_axes(network)
    config = values.get("config")
    known = config.get("modalities") if isinstance(config, dict) else None
    modalities = [name for name in known if isinstance(name, str)] if isinstance(known, list | tuple) else []
    taken, left_out = set(), []
    for name, value in state.items():
        target = name
        if values["kind"] == JOINT_KIND and name.startswith(_JOINT_HEAD) and tissue is not None:
            target = f"heads.{key_of(tissue)}.{name}"
        fitting = value
        if target in axes:
            fitting = _of_modalities(value, axes[target], modalities, network.config.modalities)
        if not _fits(fitting, own.get(target)):
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


def _modality_axes(network: MultiTaskNetwork) -> dict[str, int]:
    """Return the axis along which a tensor has one part for each modality, by the names of all such tensors.

    They are those whose shape depends on the number of modalities.
    """
    other = MODALITIES[:2] if len(network.config.modalities) == 1 else MODALITIES[:1]
    with torch.device("meta"):  # shapes alone
        compared = MultiTaskNetwork(replace(network.config, modalities=other), network.tasks).state_dict()
    axes = {}
    for name, value in network.state_dict().items():
        pairs = zip(value.shape, compared[name].shape, strict=True)
        differing = [axis for axis, (size, another) in enumerate(pairs) if size != another]
        if differing:
            axes[name] = differing[0]
    return axes


def _of_modalities(value: Any, axis: int, known: Sequence[str], wanted: Sequence[str]) -> Tensor | None:
    """Return the parts of a tensor that belong to some modalities, in their order; None where one is not known."""
    if not isinstance(value, Tensor) or axis >= value.ndim or not known or not set(wanted) <= set(known):
        return None
    if value.shape[axis] % len(known):
        return None
    parts = value.chunk(len(known), axis)
    return torch.cat([parts[known.index(name)] for name in wanted], axis)


def _fits(value: Any, own: Tensor | None) -> bool:
    if own is None or not isinstance(value, Tensor):
        return False
    return value.shape == own.shape and bool(torch.isfinite(value).all())


def _modules(names: tuple[str, ...]) -> list[str]:
    """Parts of a network that tensors belong to, such as ``encoder`` or ``heads.age``."""
    short = [".".join(name.split(".")[: 2 if name.startswith("heads.") else 1]) for name in names]
    return list(dict.fromkeys(short))
