"""The part of the self-tests that both modules share; it runs in the application and in the panel host."""

# unittest's assertions, because the self-test also runs in the application, which has no pytest
# ruff: noqa: PT009, PT027

import importlib.util
import unittest

import slicer
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleTest


class PanelTest(ScriptedLoadableModuleTest):
    """Self-test of a module.

    A module sets ``MODULE``, implements ``addSampleNodes`` and ``chooseInputs``, and adds tests of its own.

    Attributes:
        MODULE: Name of the module.
        CANCEL_AT: Progress in percent after which the test of Cancel clicks it.
    """

    MODULE = ""
    CANCEL_AT = 0

    def chooseInputs(self):
        """Choose the inputs that Apply needs."""
        raise NotImplementedError

    def setUp(self):
        """Clear the scene, open the module's panel, and make a folder for the files of the test.

        Raises:
            SkipTest: PyTorch is not installed, as in an application that has just been built.
        """
        import tempfile

        if importlib.util.find_spec("torch") is None:
            self.skipTest("PyTorch is not installed: install it with the PyTorch extension")
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
        """Add the nodes that the tests work on to the scene."""
        raise NotImplementedError

    def runTest(self):
        """Run all tests, as Slicer's self-test does."""
        for name in unittest.defaultTestLoader.getTestCaseNames(type(self)):
            self.delayDisplay(name)
            try:
                self.setUp()
                getattr(self, name)()
            except unittest.SkipTest as reason:
                self.delayDisplay(str(reason))
                return
            finally:
                self.doCleanups()
        slicer.util.getModuleWidget(self.MODULE).enter()

    def addSliceView(self):
        """Add a slice view where there is none, as in an application without a main window."""
        if not slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
            slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode", "Red")

    def nodeIDs(self):
        """Return the IDs of all nodes in the scene."""
        scene = slicer.mrmlScene
        return [scene.GetNthNode(index).GetID() for index in range(scene.GetNumberOfNodes())]

    def assertApplyFailsSaying(self, *parts):
        """Check that Apply shows an error with these parts, leaves the scene as it was, and can be clicked again."""
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
        def cancelDuringRun(percent):
            if percent > self.CANCEL_AT:
                self.ui.cancelButton.click()

        self.chooseInputs()
        before = self.nodeIDs()
        self.ui.progressBar.value = 0
        self.ui.progressBar.connect("valueChanged(int)", cancelDuringRun)
        self.addCleanup(self.ui.progressBar.disconnect, "valueChanged(int)", cancelDuringRun)
        self.ui.applyButton.click()
        self.assertEqual(self.ui.statusLabel.text, _("Cancelled; nothing was changed."))
        self.assertEqual(self.nodeIDs(), before)
        self.assertTrue(self.ui.applyButton.enabled)
        self.assertFalse(self.ui.cancelButton.enabled)

    def test_missingPackageIsInstalledIfTheUserAgreesAndTheRunStartsAgain(self):
        import unittest.mock

        from NeuroCESTLib.core.packages import MissingPackage

        runs = []

        def run(progress):
            runs.append(progress)
            if len(runs) == 1:
                raise MissingPackage("pypulseq", "'protocol.seq': .seq files need the package")
            return "done"

        installer = "NeuroCESTLib.panel.optional_packages.install"
        with unittest.mock.patch.object(self.widget, "run", run):
            with unittest.mock.patch(installer, return_value=True):
                self.widget.onApplyButton()
            self.assertEqual((len(runs), self.ui.statusLabel.text), (2, "done"))
            runs.clear()
            with (
                unittest.mock.patch(installer, return_value=False),
                unittest.mock.patch.object(slicer.util, "errorDisplay"),
                self.assertRaises(MissingPackage),
            ):
                self.widget.onApplyButton()
        self.assertEqual(len(runs), 1)
        self.assertIn("pypulseq", self.ui.statusLabel.text)

    def test_panelThatIsNotOpenAddsNothingToScenes(self):
        self.widget.exit()
        slicer.mrmlScene.RemoveNode(self.widget.logic.getParameterNode().parameterNode)
        slicer.mrmlScene.Clear()
        self.assertIsNone(slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScriptedModuleNode"))
        self.assertFalse(self.ui.applyButton.enabled)
        self.widget.enter()
        self.assertIsNotNone(slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScriptedModuleNode"))


class TrainingSteps(PanelTest):
    """What the self-tests do with a training beside the application.

    Attributes:
        LONGEST_S: Time in s after which a process that does not end fails the test.
        CHOSEN: Parameter with the path of the network of a training.
    """

    LONGEST_S = 300
    CHOSEN = ""

    def writeConfig(self):
        """Write the configuration of a small training and return its path."""
        raise NotImplementedError

    def writeNetwork(self):
        """Write a network that the module can use and return its path."""
        raise NotImplementedError

    def setUp(self):
        """Open the section, which is closed at first, and end what the test leaves running."""
        super().setUp()
        self.ui.trainingSection.collapsed = False
        self.addCleanup(setattr, self.ui.trainingSection, "collapsed", True)
        self.addCleanup(self.widget.training.command.stop)

    def waitForTheEnd(self):
        """Handle events until the process has ended."""
        import time

        end = time.monotonic() + self.LONGEST_S
        while self.widget.training.command.running and time.monotonic() < end:
            slicer.app.processEvents()
            time.sleep(0.02)
        self.assertFalse(self.widget.training.command.running)

    def writeJson(self, name, content):
        """Write a file and return its path."""
        import json
        import os

        path = os.path.join(self.directory, name)
        with open(path, "w") as file:
            json.dump(content, file)
        return path

    def drawnIn(self, name):
        """Return the drawn values of every curve of a chart, by the name of the curve."""
        chart = slicer.util.getNode(name)
        series = [chart.GetNthPlotSeriesNode(number) for number in range(chart.GetNumberOfPlotSeriesNodes())]
        return {node.GetName(): slicer.util.arrayFromTableColumn(node.GetTableNode(), "y").tolist() for node in series}

    def assertStartNeedsConfigurationAndFolder(self, config, output):
        """Check that the button says what is missing, and choose a configuration and a folder for the results."""
        ui = self.ui
        self.assertFalse(ui.startTrainingButton.enabled)
        self.assertIn("Choose a configuration", ui.startTrainingButton.toolTip)
        ui.trainingConfigPathLineEdit.currentPath = config
        self.assertIn("Choose a folder", ui.startTrainingButton.toolTip)
        ui.trainingOutputPathLineEdit.currentPath = output
        self.assertTrue(ui.trainingProgressBar.isHidden())

    def assertStarted(self):
        """Start, and check what can be clicked while the process runs."""
        ui = self.ui
        ui.startTrainingButton.click()
        self.assertTrue(self.widget.training.command.running)
        self.assertFalse(ui.startTrainingButton.enabled)
        self.assertTrue(ui.stopTrainingButton.enabled)
        self.assertFalse(ui.trainingProgressBar.isHidden())

    def test_configurationIsSavedWithTheScene(self):
        import os

        choices, training = self.ui.trainingPresetComboBox, self.widget.training
        file = self.writeConfig()
        self.ui.trainingConfigPathLineEdit.currentPath = file
        saved = {}
        for name in (training.BUNDLED[0], ""):
            choices.currentIndex = choices.findData(name)
            saved[name or file] = os.path.join(self.directory, f"{name or 'file'}.mrb")
            self.assertTrue(slicer.util.saveScene(saved[name or file]))
        for config, path in saved.items():
            slicer.mrmlScene.Clear()
            self.assertEqual(training.config(), "")
            slicer.util.loadScene(path)
            self.assertEqual(training.config(), config)
            self.assertEqual(choices.currentData, training.parameters.trainingPreset)

    def test_networkIsChosenAndDrawnOnlyInTheSceneThatItsTrainingWasStartedFrom(self):
        import os
        import unittest.mock

        ui, training = self.ui, self.widget.training
        with open(os.path.join(self.directory, "batch.py"), "w", encoding="utf-8") as file:  # takes no time
            file.write("import os, shutil\n")
            file.write(f"shutil.copy({self.writeNetwork()!r}, os.environ['NETWORK_OF_THE_TEST'])\n")
            file.write("print(' 50 % epoch 1: loss 0.5', ' 50 % step 1: loss 0.5', sep='\\n')\n")

        def start(name):
            ui.trainingConfigPathLineEdit.currentPath = self.writeConfig()
            ui.trainingOutputPathLineEdit.currentPath = os.path.join(self.directory, name)
            os.mkdir(training.output())
            with unittest.mock.patch.dict(os.environ, NETWORK_OF_THE_TEST=training.result()):
                ui.startTrainingButton.click()
            return training.result()

        def chosen():
            return getattr(self.widget.logic.getParameterNode(), self.CHOSEN)

        with unittest.mock.patch.object(training, "PACKAGE", self.directory):
            network = start("left")
            self.widget.exit()
            self.waitForTheEnd()
            self.assertIn(f"the network is in {network}", ui.trainingNoteLabel.text)
            self.widget.enter()
            self.assertEqual(chosen(), network)
            self.assertIn("is chosen", ui.trainingNoteLabel.text)
            self.assertTrue(self.drawnIn("Training"))
            network = start("closed")
            slicer.mrmlScene.Clear()
            self.waitForTheEnd()
            self.assertIn(f"the network is in {network}", ui.trainingNoteLabel.text)
            self.assertEqual(chosen(), "")
            self.assertEqual(slicer.util.getNodesByClass("vtkMRMLPlotSeriesNode"), [])
