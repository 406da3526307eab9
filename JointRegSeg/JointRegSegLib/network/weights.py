"""Weights files, which hold a network with its configuration and a record of its training.

Loading a file never executes code from it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from NeuroCESTLib.core.stored_values import check_weights
from NeuroCESTLib.core.tensor_files import load_tensors, save_tensors

from .configuration import NetworkConfig
from .joint import JointNetwork, build_network

KIND = "neurocest joint network"
FORMAT = 1
_LARGEST_PARAMETERS = 500_000_000
_OFTEN = 0.3
"""Probability with which a modality was dropped in training, from which on a network does well without it."""
_Network = TypeVar("_Network", bound=nn.Module)


@dataclass(frozen=True)
class LoadedWeights:
    """Network that was read from a weights file.

    Attributes:
        network: Network in evaluation mode.
        metadata: Record in the file: preprocessing, summary of the training, versions, licence.
        path: Weights file, or None for a network that was not read from a file.
    """

    network: JointNetwork
    metadata: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None

    @property
    def config(self) -> NetworkConfig:
        """Configuration of the network."""
        return self.network.config

    @property
    def brain_share(self) -> float | None:
        """Share of the training patches that was brain, in (0, 1]; None where it has no influence or is not known."""
        if self.config.normalisation != "instance":
            return None
        share = self.metadata.get("brain_share")
        return float(share) if isinstance(share, int | float) and 0 < share <= 1 else None

    @property
    def judged_by_brightness(self) -> bool:
        """Whether the brightness of z-scored images decides what part of the tumour enhances and what is too faint."""
        normalisation = dict(self.metadata.get("preprocessing") or {}).get("normalisation", "zscore")
        return self.metadata.get("enhancing_by_brightness") is True and normalisation == "zscore"

    @property
    def hides_modalities(self) -> bool:
        """Whether segmentations are averaged over fewer images too: only after a training that often went without some.

        Like the rules on brightness, this was judged for networks that carry their mark.
        """
        values: Any = self.metadata
        for key in ("configuration", "data", "augmentation", "dropout_probability"):
            values = values.get(key) if isinstance(values, dict) else None
        return self.judged_by_brightness and isinstance(values, int | float) and values >= _OFTEN

    @property
    def trained_to_register(self) -> bool:
        """Whether the network registers, and was not trained last for the segmentation alone."""
        configuration = self.metadata.get("configuration")
        tasks = configuration.get("tasks") if isinstance(configuration, dict) else None
        return self.network.registration is not None and tasks != "segmentation"

    def check_modalities(self, modalities: Sequence[str]) -> None:
        """Check that the network can use the modalities of a study.

        Raises:
            ValueError: The network does not know one of the modalities, or there are none.
        """
        known = self.config.modalities
        source = "the weights" if self.path is None else f"the weights '{self.path}'"
        if unknown := [name for name in modalities if name not in known]:
            raise ValueError(f"{source} know the modalities {', '.join(known)}, not {', '.join(unknown)}")
        if not modalities:
            raise ValueError(f"{source} need at least one of the modalities {', '.join(known)}")


def save_weights(path: str | Path, network: JointNetwork, metadata: Mapping[str, Any], half: bool = False) -> Path:
    """Write a weights file, completely or not at all.

    Args:
        path: File to write; an existing file is replaced only by a complete one.
        network: Network whose weights are saved.
        metadata: Record of the training; plain values only (numbers, strings, lists, dictionaries).
        half: Whether to store the weights as float16, which halves the size of the file.

    Returns:
        Path of the file.

    Raises:
        ValueError: The metadata are not plain finite values, or the file cannot be written.
    """
    return write_network(path, network, KIND, FORMAT, metadata, half)


def write_network(
    path: str | Path,
    network: nn.Module,
    kind: str,
    form: int,
    metadata: Mapping[str, Any],
    half: bool = False,
    **further: Any,
) -> Path:
    """Write a network with its configuration and a record of its training, completely or not at all.

    Args:
        path: File to write; an existing file is replaced only by a complete one.
        network: Network with a configuration ``config``.
        kind: Kind of the file.
        form: Number of its format.
        metadata: Record of the training; plain values only.
        half: Whether to store the weights as float16.
        further: Further entries of the file.

    Raises:
        ValueError: The metadata are not plain finite values, or the file cannot be written.
    """
    try:
        plain = json.loads(json.dumps(dict(metadata), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"the metadata of '{path}' must be plain finite values: {error}") from None
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    if half:
        state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    config: Any = network.config
    values = {
        "kind": kind,
        "format": form,
        "config": config.to_dict(),
        **further,
        "state": state,
        "metadata": plain,
        "versions": {"torch": str(torch.__version__)},
    }
    return save_tensors(values, path)


def load_weights(path: str | Path) -> LoadedWeights:
    """Read a weights file.

    Returns:
        Network with float32 weights in evaluation mode, and the record of its training.

    Raises:
        ValueError: The file is missing, damaged or not a weights file of a joint network; the message names it.
    """
    path = Path(path)
    values = load_tensors(path, "weights file")
    if "checkpoint" in str(values.get("kind")):
        raise ValueError(
            f"'{path}' is a checkpoint of a training, which 'jointregseg train --resume' continues; the weights are in "
            "weights.pt beside it once the training has ended"
        )
    if "study network" in str(values.get("kind")):
        raise ValueError(
            f"'{path}' holds the weights of tasks on single studies, not of a joint network: use 'jointregseg predict' "
            "with it"
        )
    if values.get("kind") != KIND:
        raise ValueError(
            f"'{path}' does not hold the weights of a joint network; make a weights file with 'jointregseg train'"
        )
    if values.get("format") != FORMAT:
        raise ValueError(f"'{path}' has format {values.get('format')!r}, but this version reads format {FORMAT}")
    network, metadata = read_network(path, values, build_network)
    return LoadedWeights(network, metadata, path)


def read_network(
    path: Path, values: Mapping[str, Any], build: Callable[[NetworkConfig], _Network]
) -> tuple[_Network, dict[str, Any]]:
    """Build the network of a weights file.

    Args:
        path: The file, for messages.
        values: Its entries.
        build: Builds the untrained network of a configuration.

    Returns:
        Network with float32 weights in evaluation mode, and the record of its training.

    Raises:
        ValueError: The file is damaged.
    """
    metadata, state = values.get("metadata"), values.get("state")
    if not isinstance(metadata, dict) or not isinstance(state, dict):
        raise ValueError(f"'{path}' is damaged: its state or its metadata are missing")
    config = NetworkConfig.from_dict(values.get("config"), f"'{path}' is damaged")
    with torch.device("meta"):  # an absurd configuration needs no memory
        network = build(config)
    count = sum(parameter.numel() for parameter in network.parameters())
    if count > _LARGEST_PARAMETERS:
        raise ValueError(f"'{path}' is damaged: its network would have {count} parameters")
    check_weights(state, network.state_dict(), f"'{path}' is damaged")
    network.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)
    network.requires_grad_(True).eval()
    return network, metadata
