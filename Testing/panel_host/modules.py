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


class qSlicerScriptedFileReader:  # noqa: N801
    """The application's side of a scripted file reader: the ``parent`` to which it writes the IDs of its nodes."""

    def __init__(self, reader: Any) -> None:
        self.loadedNodes: list[str] = []
        self._reader = reader(self)
        for method, kind in (("description", str), ("fileType", str), ("extensions", list)):
            if not isinstance(getattr(self._reader, method)(), kind):
                raise TypeError(f"{reader.__name__}.{method} must return a {kind.__name__}")

    def fileType(self) -> str:
        """Return the type of the files that it reads."""
        return self._reader.fileType()

    def load(self, fileName: str, properties: dict[str, Any], messages: Any) -> Any:
        """Read a file and return its first node, or None."""
        loaded = self._reader.load({**properties, "fileName": fileName})
        if not isinstance(loaded, bool):
            raise TypeError("load of a scripted file reader must return a bool")
        return slicer.mrmlScene.GetNodeByID(self.loadedNodes[0]) if loaded and self.loadedNodes else None


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
        if reader := getattr(module, f"{path.stem}FileReader", None):
            file_reader = qSlicerScriptedFileReader(reader)
            slicer.app.coreIOManager().addReader(file_reader.fileType(), file_reader.load)
        getattr(module, path.stem)(description)
    return module
