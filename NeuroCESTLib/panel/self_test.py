"""What the self-tests of both modules share, in the application as in the panel host."""

# unittest's assertions, because the self-test also runs in the application, which has no pytest
# ruff: noqa: PT009, PT027

import unittest

import slicer
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleTest


class PanelTest(ScriptedLoadableModuleTest):
    """A module adds ``MODULE``, ``chooseInputs`` and its own ``test_…`` methods.

    CANCEL_AT: percent of progress after which the test of Cancel presses it.
    """

    MODULE = ""
    CANCEL_AT = 0

    def chooseInputs(self):
        """Choose what Apply needs."""
        raise NotImplementedError

    def setUp(self):
        """An empty scene, the module's panel, and a folder that the test may fill."""
        import tempfile

        temporaryDirectory = tempfile.TemporaryDirectory()
        self.addCleanup(temporaryDirectory.cleanup)
        self.directory = temporaryDirectory.name
        slicer.mrmlScene.Clear()
        self.widget = slicer.util.getModuleWidget(self.MODULE)
        self.ui = self.widget.ui
        self.addSampleNodes()
        self.widget.enter()
        self.addCleanup(slicer.mrmlScene.Clear)
        self.addCleanup(self.widget.exit)

    def addSampleNodes(self):
        """Add what the tests work on to the scene."""
        raise NotImplementedError

    def runTest(self):
        """All tests, for Slicer's self-test."""
        for name in unittest.defaultTestLoader.getTestCaseNames(type(self)):
            self.delayDisplay(name)
            self.setUp()
            try:
                getattr(self, name)()
            finally:
                self.doCleanups()
        slicer.util.getModuleWidget(self.MODULE).enter()

    def nodeIDs(self):
        """Of all nodes in the scene."""
        scene = slicer.mrmlScene
        return [scene.GetNthNode(index).GetID() for index in range(scene.GetNumberOfNodes())]

    def assertApplyFailsSaying(self, *parts):
        """Apply reports an error with these parts, leaves the scene as it was, and can be pressed again."""
        import unittest.mock

        before = self.nodeIDs()
        with unittest.mock.patch.object(slicer.util, "errorDisplay"), self.assertRaises(ValueError):
            self.widget.onApplyButton()
        for part in parts:
            self.assertIn(part, self.ui.statusLabel.text)
        self.assertEqual(self.nodeIDs(), before)
        self.assertTrue(self.ui.applyButton.enabled)

    def test_selectorsShowTheScene(self):
        for name, widget in vars(self.ui).items():
            if name.endswith("Selector"):
                self.assertIs(widget.mrmlScene(), slicer.mrmlScene, name)

    def test_cancelLeavesTheSceneAsItWas(self):
        def cancelOnTheWay(percent):
            if percent > self.CANCEL_AT:
                self.ui.cancelButton.click()

        self.chooseInputs()
        before = self.nodeIDs()
        self.ui.progressBar.value = 0
        self.ui.progressBar.connect("valueChanged(int)", cancelOnTheWay)
        self.addCleanup(self.ui.progressBar.disconnect, "valueChanged(int)", cancelOnTheWay)
        self.ui.applyButton.click()
        self.assertEqual(self.ui.statusLabel.text, _("Cancelled; nothing was changed."))
        self.assertEqual(self.nodeIDs(), before)
        self.assertTrue(self.ui.applyButton.enabled)
        self.assertFalse(self.ui.cancelButton.enabled)

    def test_panelThatIsNotOpenAddsNothingToScenes(self):
        self.widget.exit()
        slicer.mrmlScene.RemoveNode(self.widget.logic.getParameterNode().parameterNode)
        slicer.mrmlScene.Clear()
        self.assertIsNone(slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScriptedModuleNode"))
        self.assertFalse(self.ui.applyButton.enabled)
        self.widget.enter()
        self.assertIsNotNone(slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScriptedModuleNode"))
