"""Joint segmentation and registration of two brain MR studies, and the scene logic of JointRegSeg."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .findings.result import JointResult
    from .images.study import StudyImages
    from .inference.pipeline import process_pair
    from .inference.settings import InferenceSettings
    from .inference.single_study import segment_study
    from .network.configuration import NetworkConfig, load_network_config
    from .network.joint import JointNetwork, build_network
    from .network.shipped import default_weights_path
    from .network.weights import load_weights, save_weights
    from .registration.deformation import Deformation, jacobian_determinant, warp
    from .registration.instance_optimization import refine

_MODULES = {
    "JointNetwork": ".network.joint",
    "build_network": ".network.joint",
    "NetworkConfig": ".network.configuration",
    "load_network_config": ".network.configuration",
    "default_weights_path": ".network.shipped",
    "load_weights": ".network.weights",
    "save_weights": ".network.weights",
    "StudyImages": ".images.study",
    "process_pair": ".inference.pipeline",
    "segment_study": ".inference.single_study",
    "InferenceSettings": ".inference.settings",
    "JointResult": ".findings.result",
    "refine": ".registration.instance_optimization",
    "Deformation": ".registration.deformation",
    "jacobian_determinant": ".registration.deformation",
    "warp": ".registration.deformation",
}
"""Module of each public name. It is imported when the name is first used, because torch takes seconds to load."""

__all__ = [
    "Deformation",
    "InferenceSettings",
    "JointNetwork",
    "JointResult",
    "NetworkConfig",
    "StudyImages",
    "build_network",
    "default_weights_path",
    "jacobian_determinant",
    "load_network_config",
    "load_weights",
    "process_pair",
    "refine",
    "save_weights",
    "segment_study",
    "warp",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    module, _, attribute = _MODULES[name].partition(":")
    return getattr(importlib.import_module(module, __name__), attribute or name)


def __dir__() -> list[str]:
    return sorted(__all__)
