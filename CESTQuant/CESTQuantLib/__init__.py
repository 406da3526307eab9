"""Quantitative CEST-MRI: spin physics, fits, networks and schedules in torch, and the scene logic of CESTQuant."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .formats.protocol_files import read_protocol
    from .methods.base import Settings
    from .methods.model_fit import fit
    from .methods.registry import METHODS, quantify
    from .physics.pools import Pool, Tissue, Water
    from .physics.protocol import Protocol
    from .physics.simulation import simulate
    from .tissue.model import TissueModel, read_tissue_model
    from .tissue.spectra import ZSpectra

_MODULES = {
    "Pool": ".physics.pools",
    "Tissue": ".physics.pools",
    "Water": ".physics.pools",
    "Protocol": ".physics.protocol",
    "simulate": ".physics.simulation",
    "read_protocol": ".formats.protocol_files",
    "TissueModel": ".tissue.model",
    "read_tissue_model": ".tissue.model",
    "fit": ".methods.model_fit",
    "METHODS": ".methods.registry",
    "Settings": ".methods.base",
    "quantify": ".methods.registry",
    "ZSpectra": ".tissue.spectra",
}
"""Module of each public name. It is imported when the name is first used, because torch takes seconds to load."""

__all__ = [
    "METHODS",
    "Pool",
    "Protocol",
    "Settings",
    "Tissue",
    "TissueModel",
    "Water",
    "ZSpectra",
    "fit",
    "quantify",
    "read_protocol",
    "read_tissue_model",
    "simulate",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    module, _, attribute = _MODULES[name].partition(":")
    return getattr(importlib.import_module(module, __name__), attribute or name)


def __dir__() -> list[str]:
    return sorted(__all__)
