"""Images, settings and what is missing."""

# unittest's assertions, because the self-test also runs in the application, which has no pytest
# ruff: noqa: PT009

import os

import slicer

from ..choices import Affine, Regularizer
from .sample import SampleTest


class InputsTest(SampleTest):
    """Chooses studies and settings."""

    def test_applySaysWhatIsMissing(self):
        self.ui.segmentCheckBox.checked = False
        self.assertFalse(self.ui.applyButton.enabled)
        self.assertIn("fixed study", self.ui.applyButton.toolTip)
        self.assertIn("moving study", self.ui.applyButton.toolTip)
        self.chooseInputs(["flair"])
        self.assertTrue(self.ui.applyButton.enabled)
        self.assertNotIn("Choose", self.ui.applyButton.toolTip)
        self.ui.movingT1Selector.setCurrentNode(self.studies["fixed"]["flair"])
        self.assertFalse(self.ui.applyButton.enabled)
        self.assertIn("more than once", self.ui.applyButton.toolTip)

    def test_weightsAreNeededToSegment(self):
        self.chooseInputs()
        self.ui.weightsPathLineEdit.currentPath = os.path.join(self.directory, "absent.pt")
        self.assertFalse(self.ui.applyButton.enabled)
        self.assertIn("absent.pt", self.ui.applyButton.toolTip)
        self.assertFalse(self.ui.weightsPathLineEdit.isHidden())
        self.ui.segmentCheckBox.checked = False
        self.assertTrue(self.ui.applyButton.enabled)
        self.assertTrue(self.ui.weightsPathLineEdit.isHidden())
        self.assertTrue(self.ui.flipsCheckBox.isHidden())

    def test_networkIsOneOfThePackageOrThatOfAFile(self):
        method = self.widget.method
        parameters = self.widget.logic.getParameterNode()
        networks = self.ui.networkComboBox
        parameters.weightsPath = ""
        self.assertEqual(method.weights(), "neurocest")
        self.assertTrue(self.ui.weightsPathLineEdit.isHidden())
        networks.currentIndex = networks.count - 1
        self.assertFalse(self.ui.weightsPathLineEdit.isHidden())
        self.assertIn("network of the package", self.ui.applyButton.toolTip)
        self.ui.weightsPathLineEdit.currentPath = "network.pt"
        self.assertEqual(method.weights(), "network.pt")
        networks.currentIndex = networks.findData("neurocest")
        self.assertEqual((method.weights(), parameters.weightsPath), ("neurocest", ""))

    def test_selectorsFollowTheScene(self):
        count = self.ui.fixedT2Selector.nodeCount()
        added = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "t2")
        self.assertEqual(self.ui.fixedT2Selector.nodeCount(), count + 1)
        self.ui.fixedT2Selector.setCurrentNode(added)
        self.assertIs(self.widget.logic.getParameterNode().fixedT2, added)
        slicer.mrmlScene.RemoveNode(added)
        self.assertIsNone(self.ui.fixedT2Selector.currentNode())
        self.assertIsNone(self.widget.logic.getParameterNode().fixedT2)

    def test_widgetsAndParametersFollowEachOther(self):
        parameters = self.widget.logic.getParameterNode()
        self.chooseInputs()
        self.assertIs(parameters.movingFlair, self.studies["moving"]["flair"])
        self.assertEqual(parameters.refineIterations, 5)
        self.ui.affineComboBox.currentIndex = list(Affine).index(Affine.RIGID)
        self.ui.similarityComboBox.currentIndex = self.ui.similarityComboBox.findData("mse")
        self.ui.folderNameLineEdit.text = "glioma"
        self.assertTrue(parameters.coregister)
        self.ui.coregisterCheckBox.checked = False
        self.assertFalse(parameters.coregister)
        self.assertTrue(self.ui.labelsLineEdit.isHidden())
        self.ui.labelsLineEdit.text = "brats2024"
        self.assertEqual(parameters.labels, "brats2024")
        parameters.fixedTumor = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
        self.assertFalse(self.ui.labelsLineEdit.isHidden())
        self.assertEqual(parameters.affine, Affine.RIGID)
        self.assertEqual(parameters.similarity, "mse")
        self.assertEqual(parameters.folderName, "glioma")
        parameters.affine = Affine.NONE
        parameters.similarity = ""
        parameters.movingTumor = self.studies["moving"]["tumor"]
        parameters.weightsPath = "network.pt"
        self.assertEqual(self.ui.affineComboBox.currentText, Affine.NONE.label())
        self.assertEqual(self.ui.similarityComboBox.currentText, "Default")
        self.assertEqual(self.ui.regulariserComboBox.currentText, Regularizer.CURVATURE.label())
        self.ui.regulariserComboBox.currentIndex = list(Regularizer).index(Regularizer.DIFFUSION)
        self.ui.regularisationSpinBox.value = 2.5
        self.ui.timeLimitSpinBox.value = 60
        self.ui.deviceComboBox.currentIndex = self.ui.deviceComboBox.findData("cpu")
        self.assertEqual((parameters.regulariser, parameters.regularisation), (Regularizer.DIFFUSION, 2.5))
        self.assertEqual((parameters.timeLimit, parameters.device), (60, "cpu"))
        self.ui.advancedSection.collapsed = False
        self.addCleanup(setattr, self.ui.advancedSection, "collapsed", True)
        self.assertFalse(self.ui.timeLimitSpinBox.isHidden())
        self.ui.refineSpinBox.value = 0
        for name in ("similarityComboBox", "regulariserComboBox", "regularisationSpinBox", "timeLimitSpinBox"):
            self.assertTrue(getattr(self.ui, name).isHidden(), name)
        self.assertIs(self.ui.movingTumorSelector.currentNode(), self.studies["moving"]["tumor"])
        self.assertEqual(self.ui.weightsPathLineEdit.currentPath, "network.pt")

    def test_onlyTheFirstVisitOfThePhantomShowsItsTumor(self):
        self.assertEqual(self.visibleSegmentations(), {"phantom visit 1 tumour"})

    def test_parametersSurviveSavingAndLoadingTheScene(self):
        self.chooseInputs()
        self.ui.folderNameLineEdit.text = "glioma"
        path = os.path.join(self.directory, "scene.mrb")
        self.assertTrue(slicer.util.saveScene(path))
        slicer.mrmlScene.Clear()
        self.assertIsNone(self.ui.fixedT1Selector.currentNode())
        self.assertEqual(self.ui.folderNameLineEdit.text, "")
        slicer.util.loadScene(path)
        self.assertEqual(self.ui.movingFlairSelector.currentNode().GetName(), "phantom visit 2 FLAIR")
        self.assertEqual(self.ui.refineSpinBox.value, 5)
        self.assertEqual(self.ui.folderNameLineEdit.text, "glioma")
        self.assertTrue(self.ui.applyButton.enabled)
