"""The network that a training starts from."""

from __future__ import annotations

import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from ..images.labels import NECROTIC_CORE
from ..network.joint import JointNetwork
from ..network.shipped import weights_path
from ..network.weights import load_weights
from .checkpoints import BEST, LAST, load_checkpoint
from .config import TrainingConfig

_CLASS_SCORES = ("segmentation.output.", "segmentation.auxiliary.")
"""Layers with one output for each class."""


def new_network(config: TrainingConfig, resumed: bool = False) -> JointNetwork:
    """Make the network of a configuration.

    Its weights come from the seed, or from the file ``initial_weights``, which may be a weights file or a checkpoint.
    Where the file's network knows fewer classes, the further ones start as copies of the necrotic core, which is what a
    network takes a cavity for at first.

    Args:
        config: Configuration of the training.
        resumed: Whether the weights of a checkpoint will take their place; a missing file is then a warning only,
            because a training whose checkpoint cannot be restored refuses to start without it.

    Raises:
        ValueError: The file cannot be read, or belongs to another network or to other modalities; the message names it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.seed)
        network = JointNetwork(config.network)
    if config.initial_weights is None:
        return network
    path = weights_path(config.initial_weights)
    if resumed and not path.is_file():
        warnings.warn(
            f"the initial weights '{path}' are no longer there; the training continues with those of its checkpoint",
            stacklevel=2,
        )
        return network
    source = str(path)
    state: dict[str, Any] | None = None
    known: Any = None
    with suppress(ValueError):
        checkpoint = load_checkpoint(source)
        state, known = checkpoint["kept"], _modalities_of(checkpoint) or _modalities_beside(source)
        if known is None:
            warnings.warn(
                f"'{source}' does not tell the modalities of its network: make sure that they are "
                f"{', '.join(config.network.modalities)} in this order",
                stacklevel=2,
            )
    if state is None:
        loaded = load_weights(source)
        state, known = loaded.network.state_dict(), loaded.config.modalities
    if known is not None and tuple(known) != config.network.modalities:
        raise ValueError(
            f"the initial weights '{source}' know the modalities {', '.join(known)} in this order, not "
            f"{', '.join(config.network.modalities)}: give the network the modalities of that file"
        )
    try:
        network.load_state_dict(_with_further_classes(state, network))
    except RuntimeError:
        raise ValueError(
            f"the initial weights '{source}' belong to another network than '{config.network.name}'"
        ) from None
    return network


def _modalities_of(checkpoint: dict[str, Any]) -> list[str] | None:
    """The modalities of the network in a checkpoint; None where it does not tell them."""
    values: Any = checkpoint
    for key in ("trajectory", "network", "modalities"):
        values = values.get(key) if isinstance(values, dict) else None
    return values if isinstance(values, list) else None


def _modalities_beside(source: str) -> list[str] | None:
    """The modalities in the last checkpoint of the same training; earlier versions did not store them with the best."""
    path = Path(source)
    if path.name == BEST:
        with suppress(ValueError):
            return _modalities_of(load_checkpoint(path.with_name(LAST)))
    return None


def _with_further_classes(state: dict[str, Any], network: JointNetwork) -> dict[str, Any]:
    """The state with copies of the necrotic core for the classes that it does not know."""
    own = network.state_dict()
    extended = dict(state)
    for name, value in state.items():
        start = own.get(name)
        if not name.startswith(_CLASS_SCORES) or start is None or value.shape[1:] != start.shape[1:]:
            continue
        if len(value) < len(start):
            further = len(start) - len(value)
            extended[name] = torch.cat(
                [value, value[NECROTIC_CORE : NECROTIC_CORE + 1].expand(further, *value.shape[1:])]
            )
    return extended
