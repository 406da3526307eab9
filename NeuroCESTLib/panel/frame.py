"""The frame of a module's panel: the life of its parameter node, Apply, progress and Cancel.

Panel layer: imported by the module files only, once the application or the panel host is there.
"""

import slicer
import vtk
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin


class PanelWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """A panel whose ``.ui`` file has applyButton, cancelButton, progressBar and statusLabel.

    A module says the rest: ``makeLogic``, ``missingInputs``, ``run``, ``texts`` and, where it has any, ``PATHS``,
    ``SECTIONS`` and ``offerSettings``.
    """

    PATHS = ()
    """Parameters that are files; the widget of ``modelPath`` is ``modelPathLineEdit``, which no wrapper binds."""
    SECTIONS = ()
    """Parts of the panel that a run locks."""

    def __init__(self, parent=None):
        # Set before the base class, which calls setup() where there is no parent.
        self.logic = None
        self._parameterNode = None
        self._parameterNodeGuiTag = None
        self._sceneIsClosing = False
        self._running = False
        self._cancelRequested = False
        VTKObservationMixin.__init__(self)
        ScriptedLoadableModuleWidget.__init__(self, parent)

    def makeLogic(self):
        """The module's logic."""
        raise NotImplementedError

    def missingInputs(self):
        """What has to be chosen before Apply, one sentence each; called with a parameter node only."""
        raise NotImplementedError

    def run(self, progress):
        """Do what Apply promises; the sentence that says where the results are."""
        raise NotImplementedError

    def texts(self):
        """What Apply does, and what is said when it fails: two sentences."""
        raise NotImplementedError

    def offerSettings(self, parameters):
        """Enable what the chosen method takes."""

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath(f"UI/{self.moduleName}.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = self.makeLogic()
        for parameter in self.PATHS:
            self._pathWidget(parameter).connect(
                "currentPathChanged(QString)", lambda path, parameter=parameter: self._onPathChanged(parameter, path)
            )
        self.ui.applyButton.connect("clicked(bool)", self.onApplyButton)
        self.ui.cancelButton.connect("clicked(bool)", self.onCancelButton)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneReplaced)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneReplaced)
        self.initializeParameterNode()

    def cleanup(self):
        """Called when the application closes and the panel is destroyed."""
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self):
        """Called each time the user opens the module."""
        self.initializeParameterNode()

    def exit(self):
        """Called each time the user leaves the module; from here on scenes get no parameter node."""
        self.setParameterNode(None)

    def onSceneStartClose(self, caller, event):
        """The parameter node goes with the scene; a run that is on its way ends."""
        self._cancelRequested = True
        self._sceneIsClosing = self._parameterNode is not None
        self.setParameterNode(None)

    def onSceneReplaced(self, caller, event):
        """Another scene is there, with its own parameters or with none."""
        if self._sceneIsClosing or self._parameterNode:
            self._sceneIsClosing = False
            self.initializeParameterNode()

    def initializeParameterNode(self):
        """Take the scene's parameter node."""
        self.setParameterNode(self.logic.getParameterNode())

    def setParameterNode(self, parameterNode):
        """Bind the widgets to another parameter node, or to none."""
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParametersModified)
        self._parameterNode = parameterNode
        if self._parameterNode:
            self._parameterNodeGuiTag = self._parameterNode.connectGui(self.ui)
            self.addObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParametersModified)
        self._onParametersModified()

    def onApplyButton(self, checked=False):
        """Run, and say where the results are or why there are none."""
        from NeuroCESTLib.core.progress import Cancelled
        from NeuroCESTLib.panel.torch_extension import ensure_torch

        with slicer.util.tryWithErrorDisplay(self.texts()[1], waitCursor=True):
            self._setRunning(True)
            self.ui.progressBar.value = 0
            status = ""
            try:
                ensure_torch(self.moduleName)
                status = self.run(self._onProgress)
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

    def onCancelButton(self, checked=False):
        """Ask the run to end; it does at its next report of progress."""
        self._cancelRequested = True
        self.ui.cancelButton.enabled = False

    def folderName(self, result):
        """Name of the subject-hierarchy folder that holds a result."""
        return slicer.mrmlScene.GetSubjectHierarchyNode().GetItemName(result.folderItemID)

    def _pathWidget(self, parameter):
        return getattr(self.ui, f"{parameter}LineEdit")

    def _onPathChanged(self, parameter, path):
        if self._parameterNode and getattr(self._parameterNode, parameter) != path:
            setattr(self._parameterNode, parameter, path)

    def _onParametersModified(self, caller=None, event=None):
        """Show paths, offer what the method takes, and say what Apply still needs."""
        missing = [_("There is no scene.")]
        if self._parameterNode:
            for parameter in self.PATHS:
                widget, path = self._pathWidget(parameter), getattr(self._parameterNode, parameter)
                if widget.currentPath != path:
                    widget.currentPath = path
            self.offerSettings(self._parameterNode)
            missing = self.missingInputs()
        self.ui.applyButton.enabled = not missing and not self._running
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
        self._onParametersModified()

    def _showStatus(self, text):
        self.ui.statusLabel.text = text
