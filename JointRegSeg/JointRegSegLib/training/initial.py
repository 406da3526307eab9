"""The network that a training starts from."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch

from ..network.joint import JointNetwork
from ..network.weights import load_weights
from .checkpoints import load_checkpoint
from .config import TrainingConfig


def new_network(config: TrainingConfig) -> JointNetwork:
    """Make the network of a configuration.

    Its weights come from the seed, or from the file ``initial_weights``, which may be a weights file or a checkpoint.

    Raises:
        ValueError: The file cannot be read or belongs to another network; the message names it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.seed)
        network = JointNetwork(config.network)
    if config.initial_weights is None:
        return network
    state: dict[str, Any] | None = None
    with suppress(ValueError):
        state = load_checkpoint(config.initial_weights)["kept"]
    if state is None:
        state = load_weights(config.initial_weights).network.state_dict()
    try:
        network.load_state_dict(state)
    except RuntimeError:
        raise ValueError(
            f"the initial weights '{config.initial_weights}' belong to another network than '{config.network.name}'"
        ) from None
    return network
