"""Weights files, which hold a network with its configuration and a record of its training.

Loading a file executes no code of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from NeuroCESTLib.core.tensor_files import load_tensors, save_tensors

from .configuration import NetworkConfig
from .joint import JointNetwork, build_network

KIND = "neurocest joint network"
FORMAT = 1
_LARGEST_PARAMETERS = 500_000_000


@dataclass(frozen=True)
class LoadedWeights:
    """A network that was read from a weights file.

    Attributes:
        network: Network in evaluation mode.
        metadata: What the file records: preprocessing, summary of the training, versions, licence.
        path: The file, or None.
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
        """Share of the training's patches that was brain, in (0, 1]; None where the file does not record it."""
        share = self.metadata.get("brain_share")
        return float(share) if isinstance(share, int | float) and 0 < share <= 1 else None

    def check_modalities(self, modalities: Sequence[str]) -> None:
        """Check that the network can use the modalities of a study.

        Raises:
            ValueError: The network does not know one of them, or there are none.
        """
        known = self.config.modalities
        source = "the weights" if self.path is None else f"the weights '{self.path}'"
        if unknown := [name for name in modalities if name not in known]:
            raise ValueError(f"{source} know the modalities {', '.join(known)}, not {', '.join(unknown)}")
        if not modalities:
            raise ValueError(f"{source} need at least one of the modalities {', '.join(known)}")


def default_weights_path() -> Path:
    """Return the path of the bundled weights, a data file of this package."""
    return Path(__file__).resolve().parents[1] / "weights" / "neurocest.pt"


def save_weights(path: str | Path, network: JointNetwork, metadata: Mapping[str, Any], half: bool = False) -> Path:
    """Write a weights file, whole or not at all.

    Args:
        path: File to write; an earlier one is replaced only by a complete one.
        network: Network whose weights are saved.
        metadata: Record of the training, of plain values only (numbers, texts, lists, dictionaries).
        half: Whether to store the weights in float16, which halves the size of the file.

    Returns:
        The path of the file.

    Raises:
        ValueError: The metadata are not plain values, or the file cannot be written.
    """
    try:
        plain = json.loads(json.dumps(dict(metadata), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"the metadata of '{path}' must be plain finite values: {error}") from None
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    if half:
        state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    values = {
        "kind": KIND,
        "format": FORMAT,
        "config": network.config.to_dict(),
        "state": state,
        "metadata": plain,
        "versions": {"torch": str(torch.__version__)},
    }
    return save_tensors(values, path)


def load_weights(path: str | Path) -> LoadedWeights:
    """Read a weights file; the weights of the network are float32.

    Raises:
        ValueError: The file is missing, damaged, or something other than a weights file; the message names it.
    """
    path = Path(path)
    values = load_tensors(path, "weights file")
    if values.get("kind") != KIND:
        raise ValueError(f"'{path}' holds no weights of a joint network; make a weights file with 'jointregseg train'")
    if values.get("format") != FORMAT:
        raise ValueError(f"'{path}' has format {values.get('format')!r}, but this version reads format {FORMAT}")
    metadata, state = values.get("metadata"), values.get("state")
    if not isinstance(metadata, dict) or not isinstance(state, dict):
        raise ValueError(f"'{path}' is damaged: it lacks its state or its metadata")
    config = NetworkConfig.from_dict(values.get("config"), f"'{path}' is damaged")
    network = _shell(config, path)
    _check_state(network, state, path)
    network.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)
    return LoadedWeights(network.requires_grad_(True).eval(), metadata, path)


def _shell(config: NetworkConfig, path: Path) -> JointNetwork:
    """Build the network without memory for its weights, so that an absurd configuration costs nothing."""
    with torch.device("meta"):
        network = build_network(config)
    if network.parameter_count > _LARGEST_PARAMETERS:
        raise ValueError(f"'{path}' is damaged: its network would have {network.parameter_count} parameters")
    return network


def _check_state(network: JointNetwork, state: dict, path: Path) -> None:
    expected = network.state_dict()
    if missing := [name for name in expected if name not in state]:
        raise ValueError(f"'{path}' is damaged: it lacks {len(missing)} weights, such as {missing[0]}")
    if foreign := [name for name in state if name not in expected]:
        raise ValueError(f"'{path}' is damaged: it has {len(foreign)} weights too many, such as {foreign[0]}")
    for name, value in expected.items():
        stored = state[name]
        if not isinstance(stored, torch.Tensor) or not stored.is_floating_point() or stored.layout != torch.strided:
            raise ValueError(f"'{path}' is damaged: {name} is not a tensor of floating-point numbers")
        if stored.shape != value.shape:
            raise ValueError(
                f"'{path}' is damaged: {name} has the shape {tuple(stored.shape)}, not {tuple(value.shape)}"
            )
        if not bool(torch.isfinite(stored).all()):
            raise ValueError(f"'{path}' is damaged: {name} has weights that are not finite")
