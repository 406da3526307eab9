"""The headless host: Slicer's real scene without Slicer's application.

``start`` completes the ``slicer`` package of the ``slicer-core`` wheel with what the application would set up: a scene,
the application logic with the module logics, the default colour nodes, and the file I/O behind
``slicer.util.loadVolume``, ``saveNode``, ``loadScene`` and the like. Commands, tests and cluster jobs then run the same
module logics as the panels do::

    from NeuroCESTLib.scene import host

    slicer = host.start()
    volume = slicer.util.loadVolume("t1.nii.gz")
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from types import ModuleType
from typing import Any

from NeuroCESTLib.core.output.hidden import make_temporary
from NeuroCESTLib.scene.messages import quiet_vtk

# Module name in ``slicer.modules`` and class of its logic in the wheel. A logic that asks the application logic for
# another one comes after it: segmentations need terminologies.
_MODULE_LOGICS = {
    "Colors": "vtkSlicerColorLogic",
    "Units": "vtkSlicerUnitsLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "Terminologies": "vtkSlicerTerminologiesModuleLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Sequences": "vtkSlicerSequencesLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Plots": "vtkSlicerPlotsLogic",
    "Texts": "vtkSlicerTextsLogic",
    "Models": "vtkSlicerModelsLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "CropVolume": "vtkSlicerCropVolumeLogic",
}


class HeadlessModule:
    """Entry of ``slicer.modules``: the part of a module that scripts use and that needs no panel.

    Attributes:
        name: Name of the module as in the application, such as ``CropVolume``.
    """

    def __init__(self, name: str, logic: Any) -> None:
        self.name = name
        self._logic = logic

    def logic(self) -> Any:
        """Return the module's logic, as ``qSlicerAbstractCoreModule::logic()`` does."""
        return self._logic


class HeadlessModules:
    """``slicer.modules``: the modules as attributes, whose names are in lower case as in the application."""

    def add(self, module: HeadlessModule) -> None:
        """Make a module available as ``slicer.modules.<name>``."""
        setattr(self, module.name.lower(), module)

    def __getattr__(self, name: str) -> HeadlessModule:
        raise AttributeError(f"the headless host has no module '{name}'")


class HeadlessModuleManager:
    """Modules by name: ``slicer.app.moduleManager()``."""

    def __init__(self, modules: HeadlessModules) -> None:
        self._modules = modules

    def module(self, name: str) -> HeadlessModule | None:
        """Return the module called ``name``, or None where there is none."""
        return getattr(self._modules, name.lower(), None)

    def modulesNames(self) -> list[str]:
        """Return the names of all modules."""
        return sorted(module.name for module in vars(self._modules).values())


class HeadlessApplication:
    """``slicer.app``: the part of ``qSlicerCoreApplication`` that needs no window.

    The names are those of the application, so that code written for it works here too. Anything else raises
    AttributeError instead of pretending to work.
    """

    applicationName = "NeuroCEST headless host"
    majorVersion = 5
    minorVersion = 13

    def __init__(self, logic: Any, modules: HeadlessModules, io_manager: Any) -> None:
        self._logic = logic
        self._module_manager = HeadlessModuleManager(modules)
        self._io_manager = io_manager

    @property
    def temporaryPath(self) -> str:
        """Folder for temporary files."""
        return self._logic.GetTemporaryPath()

    def applicationLogic(self) -> Any:
        """Return the ``vtkSlicerApplicationLogic``."""
        return self._logic

    def coreIOManager(self) -> Any:
        """Return the file I/O behind the load and save functions of ``slicer.util``."""
        return self._io_manager

    ioManager = coreIOManager

    def moduleManager(self) -> HeadlessModuleManager:
        """Return the modules by name."""
        return self._module_manager

    def layoutManager(self) -> None:
        """Return None, as in an application without a main window."""
        return None

    def testingEnabled(self) -> bool:
        """Return True, so that ``slicer.util`` reports errors in the log and never in a dialogue."""
        return True

    def commandOptions(self) -> HeadlessApplication:
        """Return the start-up options, of which ``noMainWindow`` is the only one here."""
        return self

    noMainWindow = True

    def startupEnvironment(self) -> dict[str, str]:
        """Return the environment for processes that are launched from here."""
        return dict(os.environ)

    def processEvents(self) -> None:
        """Do nothing: no events wait here."""

    def pauseRender(self) -> None:
        """Do nothing: nothing is rendered here."""

    def resumeRender(self) -> None:
        """Do nothing: nothing is rendered here."""

    def setOverrideCursor(self, cursor: object) -> None:
        """Do nothing: there is no cursor here."""

    def restoreOverrideCursor(self) -> None:
        """Do nothing: there is no cursor here."""


def in_application() -> bool:
    """Whether this interpreter runs inside a real Slicer application."""
    app = getattr(sys.modules.get("slicer"), "app", None)
    return app is not None and not isinstance(app, HeadlessApplication)


def is_running() -> bool:
    """Whether the headless host has been started in this interpreter."""
    return isinstance(getattr(sys.modules.get("slicer"), "app", None), HeadlessApplication)


def attach() -> ModuleType:
    """Return the ``slicer`` module of the running application; outside an application, start the headless host."""
    return sys.modules["slicer"] if in_application() else start()


def start() -> ModuleType:
    """Start the headless host.

    Returns:
        The ``slicer`` module; a second call returns that of the running host.

    Raises:
        RuntimeError: The interpreter runs inside a Slicer application, or the ``slicer-core`` package is missing.
    """
    if in_application():
        raise RuntimeError("the headless host cannot start inside a Slicer application: use its own scene")
    try:
        import slicer
    except ImportError as error:
        raise RuntimeError("the package slicer-core is missing: install it with 'pip install slicer-core'") from error
    if is_running():
        return slicer
    if not hasattr(slicer, "vtkSlicerApplicationLogic"):
        raise RuntimeError("this 'slicer' package has no MRML: install it with 'pip install slicer-core'")

    import slicer.util

    from NeuroCESTLib.scene.host_io import CoreIOManager

    application_logic = slicer.vtkSlicerApplicationLogic()
    application_logic.SetTemporaryPath(tempfile.gettempdir())
    scene = _make_scene(slicer, application_logic)
    modules = _make_modules(slicer, application_logic, scene)
    slicer.mrmlScene = scene
    slicer.modules = modules
    io_manager = CoreIOManager(scene, lambda name: getattr(modules, name).logic())
    slicer.app = HeadlessApplication(application_logic, modules, io_manager)
    # Made at the first request; it then belongs to every scene that is saved.
    scene.GetSubjectHierarchyNode()
    return slicer


def _make_scene(slicer: ModuleType, application_logic: Any) -> Any:
    """Make a scene with a crosshair node, application logic, and the remote I/O that ``.mrb`` files need."""
    import vtk

    scene = slicer.vtkMRMLScene()
    cache = slicer.vtkCacheManager()
    cache.SetMRMLScene(scene)
    cache.SetRemoteCacheDirectory(_cache_folder())
    remote_io = slicer.vtkMRMLRemoteIOLogic()
    remote_io.SetCacheManager(cache)
    remote_io.SetMRMLScene(scene)
    data_io_manager = slicer.vtkDataIOManager()
    data_io_manager.SetCacheManager(cache)
    remote_io.SetDataIOManager(data_io_manager)
    remote_io.AddDataIOToScene()
    scene.neurocest_remote_io = remote_io  # keeps the object alive as long as the scene

    scene.AddNode(slicer.vtkMRMLCrosshairNode())
    application_logic.SetMRMLScene(scene)
    application_logic.SetMRMLSceneDataIO(scene, remote_io, slicer.vtkDataIOManagerLogic())
    application_logic.SetSliceLogics(vtk.vtkCollection())
    application_logic.SetViewLogics(vtk.vtkCollection())
    return scene


def _cache_folder() -> str:
    """Make a folder in which scenes are unpacked, and remove it when the interpreter ends."""
    folder = str(make_temporary())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _make_modules(slicer: ModuleType, application_logic: Any, scene: Any) -> HeadlessModules:
    """Make the module logics; they register their node classes as soon as they get the scene."""
    modules = HeadlessModules()
    with quiet_vtk():  # the wheel lacks the terminology and colour files that the logics look for
        for name, class_name in _MODULE_LOGICS.items():
            logic = getattr(slicer, class_name)()
            logic.SetMRMLApplicationLogic(application_logic)
            application_logic.SetModuleLogic(name, logic)
            if name == "Colors":
                application_logic.SetColorLogic(logic)
            logic.SetMRMLScene(scene)
            modules.add(HeadlessModule(name, logic))
        modules.colors.logic().AddDefaultColorNodes()
    return modules
