"""Joint segmentation and registration of two brain MR studies, and the scene logic of JointRegSeg."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .network.configuration import NetworkConfig, load_network_config
    from .network.joint import JointNetwork, build_network
    from .network.weights import default_weights_path, load_weights, save_weights

_PLACES = {
    "JointNetwork": ".network.joint",
    "build_network": ".network.joint",
    "NetworkConfig": ".network.configuration",
    "load_network_config": ".network.configuration",
    "default_weights_path": ".network.weights",
    "load_weights": ".network.weights",
    "save_weights": ".network.weights",
}
"""The room of each public name, imported when the name is first used: torch takes seconds to load."""

__all__ = [
    "JointNetwork",
    "NetworkConfig",
    "build_network",
    "default_weights_path",
    "load_network_config",
    "load_weights",
    "save_weights",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(_PLACES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
