"""The panel host, which runs the panel of a scripted module without the Slicer application.

The scene, its nodes, the storage nodes and ``slicer.util`` are the real ones (``NeuroCESTLib.scene.host``). The Qt
widgets and the ``QUiLoader`` are real as well (PySide6, off screen), adapted to behave as under PythonQt. Stand-ins
replace only what no Python package offers: the ctk and qMRML widgets, and Slicer's Python packages
``ScriptedLoadableModule``, ``parameterNodeWrapper`` and ``i18n``.

Stand-ins have only names that the real classes have. Anything unknown (a widget class, a property, a signal, a
connection) raises an error instead of being ignored::

    import panel_host

    slicer = panel_host.start()
    module = panel_host.load_module("CESTQuant/CESTQuant.py")
    widget = slicer.util.getModuleWidget("CESTQuant")
"""

from panel_host.application import start
from panel_host.modules import load_module

__all__ = ["load_module", "start"]
