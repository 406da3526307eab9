"""The headless host: Slicer's real scene without Slicer's application.

``start()`` gives the ``slicer`` package of the ``slicer-core`` wheel what the application gives it:
a scene, the application logic with the module logics, the default colour nodes, and the file I/O that
``slicer.util.loadVolume``, ``saveNode``, ``loadScene`` and the like go through. The demo, the tests and
cluster jobs then run the same module logics as the panels do.

    from NeuroCESTLib.scene import host

    slicer = host.start()
    volume = slicer.util.loadVolume("t1.nii.gz")
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from types import ModuleType
from typing import Any

# Module name in ``slicer.modules`` -> logic class in the wheel, in an order in which each logic finds
# those that it asks the application logic for (segmentations: terminologies; sequences: none).
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
    """One entry of ``slicer.modules``: what scripts use of a module without a panel."""

    def __init__(self, name: str, logic: Any) -> None:
        self.name = name
        self._logic = logic

    def logic(self) -> Any:
        """The module's logic, as ``qSlicerAbstractCoreModule::logic()``."""
        return self._logic


class HeadlessModules:
    """``slicer.modules``: the modules of the host as attributes, in lower case as in the application."""

    def add(self, module: HeadlessModule) -> None:
        """Make ``module`` reachable as ``slicer.modules.<name>``."""
        setattr(self, module.name.lower(), module)


class HeadlessModuleManager:
    """``slicer.app.moduleManager()``."""

    def __init__(self, modules: HeadlessModules) -> None:
        self._modules = modules

    def module(self, name: str) -> HeadlessModule | None:
        """The module called ``name``, or None."""
        return getattr(self._modules, name.lower(), None)

    def modulesNames(self) -> list[str]:
        """Names of all modules."""
        return sorted(module.name for module in vars(self._modules).values())


class HeadlessApplication:
    """``slicer.app``: the part of ``qSlicerCoreApplication`` that needs no window.

    Names are those of the application, so that code written for it finds them; whatever is absent here
    raises AttributeError instead of pretending to work.
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
        """The ``vtkSlicerApplicationLogic``."""
        return self._logic

    def coreIOManager(self) -> Any:
        """File I/O behind ``slicer.util.load…`` and ``save…``."""
        return self._io_manager

    ioManager = coreIOManager

    def moduleManager(self) -> HeadlessModuleManager:
        """Access to modules by name."""
        return self._module_manager

    def layoutManager(self) -> None:
        """None, as in an application without a main window."""
        return None

    def testingEnabled(self) -> bool:
        """True, which makes ``slicer.util`` report errors in the log and never in a dialog."""
        return True

    def commandOptions(self) -> HeadlessApplication:
        """Start-up options; only ``noMainWindow`` is known."""
        return self

    noMainWindow = True

    def startupEnvironment(self) -> dict[str, str]:
        """Environment for launched processes."""
        return dict(os.environ)

    def processEvents(self) -> None:
        """Nothing waits for events here."""

    def pauseRender(self) -> None:
        """Nothing is rendered here."""

    def resumeRender(self) -> None:
        """Nothing is rendered here."""

    def setOverrideCursor(self, cursor: object) -> None:
        """There is no cursor here."""

    def restoreOverrideCursor(self) -> None:
        """There is no cursor here."""


def in_application() -> bool:
    """Whether this interpreter runs inside a real Slicer application."""
    app = getattr(sys.modules.get("slicer"), "app", None)
    return app is not None and not isinstance(app, HeadlessApplication)


def is_running() -> bool:
    """Whether the headless host has been started in this interpreter."""
    return isinstance(getattr(sys.modules.get("slicer"), "app", None), HeadlessApplication)


def attach() -> ModuleType:
    """The ``slicer`` module of the application that runs, or of the headless host, which is started where none does."""
    return sys.modules["slicer"] if in_application() else start()


def start() -> ModuleType:
    """Start the headless host and return the ``slicer`` module; a second call returns the running host.

    Raises:
        RuntimeError: inside a Slicer application, or where the ``slicer-core`` package is missing.
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
    slicer.app = HeadlessApplication(application_logic, modules, CoreIOManager(scene, modules))
    # The application resolves it on demand; asking once creates it, so that it is saved with every scene.
    scene.GetSubjectHierarchyNode()
    return slicer


def _make_scene(slicer: ModuleType, application_logic: Any) -> Any:
    """A scene with remote I/O (``.mrb`` needs it), application logic and crosshair node."""
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
    scene.neurocest_remote_io = remote_io  # keeps it alive as long as the scene

    scene.AddNode(slicer.vtkMRMLCrosshairNode())
    application_logic.SetMRMLScene(scene)
    application_logic.SetMRMLSceneDataIO(scene, remote_io, slicer.vtkDataIOManagerLogic())
    for collection in (application_logic.SetSliceLogics, application_logic.SetViewLogics):
        collection(vtk.vtkCollection())
    return scene


def _cache_folder() -> str:
    """A folder for scenes that are being unpacked, removed when the interpreter ends."""
    folder = tempfile.mkdtemp(prefix="neurocest-cache-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _make_modules(slicer: ModuleType, application_logic: Any, scene: Any) -> HeadlessModules:
    """Create the module logics; setting their scene registers their node classes."""
    modules = HeadlessModules()
    for name, class_name in _MODULE_LOGICS.items():
        logic = getattr(slicer, class_name)()
        logic.SetMRMLApplicationLogic(application_logic)
        application_logic.SetModuleLogic(name, logic)
        if name == "Colors":
            application_logic.SetColorLogic(logic)
        with _quiet():
            logic.SetMRMLScene(scene)
        modules.add(HeadlessModule(name, logic))
    with _quiet():
        modules.colors.logic().AddDefaultColorNodes()
    return modules


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence VTK: the wheel lacks the terminology and colour files for which the logics then look."""
    import vtk

    shown = vtk.vtkObject.GetGlobalWarningDisplay()
    vtk.vtkObject.GlobalWarningDisplayOff()
    try:
        yield
    finally:
        vtk.vtkObject.SetGlobalWarningDisplay(shown)
