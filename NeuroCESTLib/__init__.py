"""Code that both modules of NeuroCEST share; each room below says what lives in it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from NeuroCESTLib.scene import host

__all__ = ["host"]


def __getattr__(name: str) -> Any:
    # Loaded when it is first used, so that importing the core imports nothing of the scene.
    if name == "host":
        return importlib.import_module("NeuroCESTLib.scene.host")
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
