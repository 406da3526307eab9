"""``slicer.app`` with Qt, and the registration of the packages that a module file imports."""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any

from NeuroCESTLib.scene import host

_application: Any = None  # Qt ends with the last reference to its application object


class PanelApplication(host.HeadlessApplication):
    """The headless application with the part that needs Qt."""

    def processEvents(self) -> None:
        """Process pending clicks and repaints."""
        _application.processEvents()

    def setOverrideCursor(self, cursor: Any) -> None:
        """Show a cursor until ``restoreOverrideCursor`` is called."""
        _application.setOverrideCursor(cursor)

    def restoreOverrideCursor(self) -> None:
        """Show the previous cursor again."""
        _application.restoreOverrideCursor()

    def topLevelWidgets(self) -> list:
        """Return all windows; there is no main window among them."""
        return _application.topLevelWidgets()

    def connect(self, signal: str, slot: Any) -> bool:
        """Call the slot of ``startupCompleted()`` at once, because modules are loaded after start-up here."""
        if signal != "startupCompleted()":
            raise AttributeError(f"qSlicerApplication has no signal {signal!r} in the panel host")
        slot()
        return True


def start() -> ModuleType:
    """Start the headless host and Qt, register ``qt``, ``ctk`` and the stand-ins, and return ``slicer``."""
    global _application
    slicer = host.start()
    if _application is not None:
        return slicer
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    from panel_host import pythonqt

    pythonqt.apply()
    from PySide6 import QtWidgets

    from panel_host import i18n, parameter_node_wrapper, sample_data, scripted_module, ui_loader

    _application = QtWidgets.QApplication.instance() or QtWidgets.QApplication(["panel_host"])
    _application.setStyle("Fusion")
    slicer.app.__class__ = PanelApplication

    qt, ctk = pythonqt.make_qt_module(), ModuleType("ctk", "Stand-ins for the ctk widgets.")
    qt.QUiLoader = ui_loader.QUiLoader
    for name, stand_in in ui_loader.STAND_INS.items():
        setattr(ctk if name.startswith("ctk") else slicer, name, stand_in)
    sys.modules.update({"qt": qt, "ctk": ctk, "SampleData": sample_data})
    packages = {
        "ScriptedLoadableModule": scripted_module,
        "parameterNodeWrapper": parameter_node_wrapper,
        "i18n": i18n,
    }
    for name, package in packages.items():
        sys.modules[f"slicer.{name}"] = package
        setattr(slicer, name, package)
    return slicer
