"""Panel host: runs a scripted module's panel without the Slicer application.

The scene, its nodes, the storage nodes and ``slicer.util`` are the real ones (``NeuroCESTLib.scene.host``), and
so are the Qt widgets and the ``QUiLoader`` (PySide6, off screen), made to answer as they do under PythonQt.
Only what no Python package offers is stood in for: the ctk and qMRML widgets and Slicer's pure-Python
packages ``ScriptedLoadableModule``, ``parameterNodeWrapper`` and ``i18n``.

Stand-ins publish only names that the real classes have. Whatever is not known here (a widget class, a
property, a signal, a connection) raises instead of passing silently.

    import panel_host

    slicer = panel_host.start()
    module = panel_host.load_module("CESTQuant/CESTQuant.py")
    widget = slicer.util.getModuleWidget("CESTQuant")
"""

from panel_host.application import start
from panel_host.modules import load_module

__all__ = ["load_module", "start"]
