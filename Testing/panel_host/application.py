"""``slicer.app`` with Qt, and the registration of everything that a module file imports."""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any

from NeuroCESTLib.scene import host

_application: Any = None  # Qt ends with the last reference to its application object


class PanelApplication(host.HeadlessApplication):
    """The headless application plus what needs Qt."""

    def processEvents(self) -> None:
        """Let clicks and repaints happen."""
        _application.processEvents()

    def setOverrideCursor(self, cursor: Any) -> None:
        """Show ``cursor`` until it is restored."""
        _application.setOverrideCursor(cursor)

    def restoreOverrideCursor(self) -> None:
        """Show the cursor that was there before."""
        _application.restoreOverrideCursor()

    def topLevelWidgets(self) -> list:
        """All windows; there is no main window among them."""
        return _application.topLevelWidgets()

    def connect(self, signal: str, slot: Any) -> bool:
        """Connect ``startupCompleted()``; start-up is over when modules are loaded, so it comes at once."""
        if signal != "startupCompleted()":
            raise AttributeError(f"qSlicerApplication has no signal {signal!r} in the panel host")
        slot()
        return True


def start() -> ModuleType:
    """Start the headless host and Qt, register ``qt``, ``ctk`` and the doubles; return ``slicer``."""
    global _application
    slicer = host.start()
    if _application is not None:
        return slicer
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    from panel_host import pythonqt

    pythonqt.apply()
    from PySide6 import QtWidgets

    from panel_host import i18n, parameter_node_wrapper, scripted_module, ui_loader

    _application = QtWidgets.QApplication.instance() or QtWidgets.QApplication(["panel_host"])
    _application.setStyle("Fusion")
    slicer.app.__class__ = PanelApplication

    qt, ctk = pythonqt.make_qt_module(), ModuleType("ctk", "Stand-ins for the ctk widgets.")
    qt.QUiLoader = ui_loader.QUiLoader
    for name, stand_in in ui_loader.STAND_INS.items():
        setattr(ctk if name.startswith("ctk") else slicer, name, stand_in)
    sys.modules.update({"qt": qt, "ctk": ctk})
    doubles = {
        "ScriptedLoadableModule": scripted_module,
        "parameterNodeWrapper": parameter_node_wrapper,
        "i18n": i18n,
    }
    for name, double in doubles.items():
        sys.modules[f"slicer.{name}"] = double
        setattr(slicer, name, double)
    return slicer
