"""The frame of a module's panel: binding of its parameter node, Apply, progress and Cancel.

Only the module files import it, when the application or the panel host is running.
"""

from typing import Any

import slicer
import vtk
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin


def registerLayouts():
    """Make the layouts of the panels known when the application has started, for scenes that were saved in them."""
    from NeuroCESTLib.scene.plots import register_layouts

    register_layouts()


class PanelWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Panel with an Apply and a Cancel button, progress and status.

    The ``.ui`` file must contain ``applyButton``, ``cancelButton``, ``progressBar`` and ``statusLabel``. A module
    implements ``makeLogic``, ``run`` and ``texts`` and, where it needs them, ``makePages``, and sets ``PATHS`` and
    ``SECTIONS``.

    Attributes:
        PATHS: Names of the parameters that are paths of files. The widget of ``modelPath`` is called
            ``modelPathLineEdit``; this class binds it, because the parameter node wrapper saves an empty path as ".".
        SECTIONS: Names of the widgets that are disabled during a run.
        RUN_BUTTONS: Names of further buttons that can be clicked whenever Apply can.
        LIBRARIES: Python modules that a run needs; they are loaded in the background, because that takes seconds.
    """

    PATHS: tuple[str, ...] = ()
    SECTIONS: tuple[str, ...] = ()
    RUN_BUTTONS: tuple[str, ...] = ()
    LIBRARIES: tuple[str, ...] = ()

    def __init__(self, parent=None):
        # Set before the base class is initialised, because it calls setup() where there is no parent.
        self.logic: Any = None
        self.pages: tuple[Any, ...] = ()
        self._parameterNode: Any = None
        self._parameterNodeGuiTag = None
        self._sceneIsClosing = False
        self._running = False
        self._left = False
        self._cancelRequested = False
        VTKObservationMixin.__init__(self)
        ScriptedLoadableModuleWidget.__init__(self, parent)

    def makeLogic(self):
        """Return a new logic of the module."""
        raise NotImplementedError

    def makePages(self):
        """Return the pages of the panel, in the order in which they are told of changes."""
        return ()

    @property
    def parameters(self):
        """Parameter node that the panel is bound to; None where it is bound to none."""
        return self._parameterNode

    def missingInputs(self):
        """Return what still has to be chosen before Apply, as sentences; only called with a parameter node."""
        return [sentence for page in self.pages for sentence in page.missing()]

    def run(self, progress):
        """Do the work of Apply.

        Args:
            progress: Progress to report to, which raises ``Cancelled`` after a click on Cancel.

        Returns:
            A sentence that says where the results are.
        """
        raise NotImplementedError

    def texts(self):
        """Return two sentences: what Apply does, and what an error message says when it fails."""
        raise NotImplementedError

    def offerSettings(self, parameters):
        """Show the parameters in the widgets that are not bound to them."""
        for page in self.pages:
            page.show()

    def setup(self):
        """Build the panel from its ``.ui`` file and connect it; called once."""
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath(f"UI/{self.moduleName}.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = self.makeLogic()
        for parameter in self.PATHS:
            # Not currentPathChanged: it keeps quiet about an empty field, and about endings beside the name filters.
            self._pathWidget(parameter).comboBox().connect(
                "editTextChanged(QString)", lambda path, parameter=parameter: self._onPathChanged(parameter, path)
            )
        self.pages = tuple(self.makePages())
        for page in self.pages:
            page.setup()
        self.ui.progressBar.visible = False
        self.ui.applyButton.connect("clicked(bool)", self.onApplyButton)
        self.ui.cancelButton.connect("clicked(bool)", self.onCancelButton)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneReplaced)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneReplaced)
        self.initializeParameterNode()

    def cleanup(self):
        """Release the parameter node and all observers; called when the application closes."""
        self._leavePages()
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self):
        """Bind the scene's parameter node; called each time the user opens the module."""
        self._left = False
        self.initializeParameterNode()

    def exit(self):
        """Release the parameter node; called each time the user leaves the module, after which scenes get none.

        A run in progress goes on with the parameters, which are released when it has ended.
        """
        self._leavePages()
        self._left = True
        if not self._running:
            self.setParameterNode(None)

    def onSceneStartClose(self, caller, event):
        """Release the parameter node, which is removed with the scene, and cancel a run in progress."""
        self._leavePages()
        self._cancelRequested = True
        self._sceneIsClosing = self._parameterNode is not None and not self._left
        self.setParameterNode(None)

    def onSceneReplaced(self, caller, event):
        """Bind the parameter node of the new scene."""
        if self._sceneIsClosing or self._parameterNode:
            self._sceneIsClosing = False
            self.initializeParameterNode()

    def initializeParameterNode(self):
        """Bind the scene's parameter node, which is made where there is none."""
        registerLayouts()
        self.setParameterNode(self.logic.getParameterNode())
        for page in self.pages:
            page.bound()

    def setParameterNode(self, parameterNode):
        """Bind the widgets to a parameter node, or to none."""
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParametersModified)
        self._parameterNode = parameterNode
        if self._parameterNode:
            self._parameterNodeGuiTag = self._parameterNode.connectGui(self.ui)
            self.addObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParametersModified)
        self._onParametersModified()

    def onApplyButton(self, checked=False):
        """Run, and show where the results are or why there are none."""
        self.work(self.run)

    def work(self, run):
        """Do some work with progress and Cancel, and show where the results are or why there are none.

        Args:
            run: Function of the progress to report to, which returns a sentence that says where the results are.
        """
        from NeuroCESTLib.core.progress import Cancelled
        from NeuroCESTLib.panel.torch_extension import ensure_torch

        with slicer.util.tryWithErrorDisplay(self.texts()[1], waitCursor=True):
            self._setRunning(True)
            self.ui.progressBar.value = 0
            status = ""
            try:
                ensure_torch(self.moduleName)
                status = self._runWithPackages(run)
                self.ui.progressBar.value = 100
            except Cancelled:
                self.ui.progressBar.value = 0
                status = _("Cancelled; nothing was changed.")
            except Exception as error:
                status = str(error) or type(error).__name__
                raise
            finally:
                self._setRunning(False)
                self._showStatus(status)

    def _runWithPackages(self, run):
        """Run; a package that turns out to be missing is installed if the user agrees, and the run starts again."""
        from NeuroCESTLib.core.background import InteractiveProgress, load_libraries
        from NeuroCESTLib.core.packages import MissingPackage
        from NeuroCESTLib.panel.optional_packages import install

        progress = InteractiveProgress(self._onProgress)
        load_libraries(self.LIBRARIES, progress)
        try:
            return run(progress)
        except MissingPackage as missing:
            if not install(missing, self.moduleName):
                raise
        return run(progress)

    def onCancelButton(self, checked=False):
        """Ask the run to stop, which it does at its next report of progress."""
        self._cancelRequested = True
        self.ui.cancelButton.enabled = False

    def folderName(self, result):
        """Return the name of the subject-hierarchy folder that holds a result."""
        return slicer.mrmlScene.GetSubjectHierarchyNode().GetItemName(result.folderItemID)

    def refresh(self):
        """Show the parameters again, after something that they name has changed."""
        self._onParametersModified()

    def _leavePages(self):
        for page in self.pages:
            page.leave()

    def _pathWidget(self, parameter):
        return getattr(self.ui, f"{parameter}LineEdit")

    def _onPathChanged(self, parameter, path):
        if self._parameterNode and getattr(self._parameterNode, parameter) != path:
            setattr(self._parameterNode, parameter, path)

    def _onParametersModified(self, caller=None, event=None):
        """Show the paths, enable the settings of the chosen method, and show what Apply still needs."""
        missing = [_("There is no scene.")]
        if self._parameterNode:
            for parameter in self.PATHS:
                widget, path = self._pathWidget(parameter), getattr(self._parameterNode, parameter)
                if widget.currentPath != path:
                    widget.currentPath = path
            self.offerSettings(self._parameterNode)
            missing = self.missingInputs()
        self.ui.applyButton.enabled = not missing and not self._running
        for name in self.RUN_BUTTONS:
            getattr(self.ui, name).enabled = self.ui.applyButton.enabled
        self.ui.applyButton.toolTip = "\n".join(missing) if missing else self.texts()[0]
        if not self._running:
            self._showStatus(missing[0] if missing else _("Ready."))

    def _onProgress(self, fraction, message=""):
        from NeuroCESTLib.core.progress import Cancelled

        self.ui.progressBar.value = round(100 * fraction)
        if message:
            self._showStatus(message)
        slicer.app.processEvents()
        if self._cancelRequested:
            raise Cancelled

    def _setRunning(self, running):
        self._running = running
        self._cancelRequested = False
        for section in self.SECTIONS:
            getattr(self.ui, section).enabled = not running
        self.ui.cancelButton.enabled = running
        self.ui.progressBar.visible = running
        if self._left and not running:
            self.setParameterNode(None)
        self._onParametersModified()

    def _showStatus(self, text):
        self.ui.statusLabel.text = text
