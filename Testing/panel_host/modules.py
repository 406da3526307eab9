"""Scripted modules as the application manages them: description, panel and self-test."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import slicer

from NeuroCESTLib.scene import host


class qSlicerScriptedLoadableModuleWidget:  # noqa: N801
    """The application's side of a panel, which holds the Python object."""

    def __init__(self, panel: Any) -> None:
        self._panel = panel

    def self(self) -> Any:
        """Return the module's Python widget object."""
        return self._panel


class qSlicerScriptedLoadableModule(host.HeadlessModule):  # noqa: N801
    """The application's side of a module: the ``parent`` to which the module file writes its description."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.stem, None)
        self.path = str(path)
        self._representation: qSlicerScriptedLoadableModuleWidget | None = None

    def widgetRepresentation(self) -> qSlicerScriptedLoadableModuleWidget:
        """Return the module's panel, which is made at the first call."""
        if self._representation is None:
            self._representation = self.createNewWidgetRepresentation()
        return self._representation

    def createNewWidgetRepresentation(self) -> qSlicerScriptedLoadableModuleWidget:
        """Make another panel of the module."""
        module = importlib.import_module(self.name)
        return qSlicerScriptedLoadableModuleWidget(getattr(module, self.name + "Widget")())


def load_module(path: str | Path) -> Any:
    """Load a module file as the application does when it starts, and return the Python module."""
    path = Path(path).resolve()
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    slicer.qSlicerScriptedLoadableModule = qSlicerScriptedLoadableModule
    slicer.qSlicerScriptedLoadableModuleWidget = qSlicerScriptedLoadableModuleWidget
    module = importlib.import_module(path.stem)
    if not hasattr(slicer.modules, path.stem.lower()):
        description = qSlicerScriptedLoadableModule(path)
        slicer.modules.add(description)
        getattr(module, path.stem)(description)
    return module
