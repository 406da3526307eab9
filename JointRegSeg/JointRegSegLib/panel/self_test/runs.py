"""Segmentation and registration."""

# unittest's assertions, because the self-test also runs in the application, which has no pytest
# ruff: noqa: PT009

import os

import qt
import slicer

from ..choices import STUDIES, Affine
from .sample import SampleTest


class RunsTest(SampleTest):
    """Runs the panel."""

    def test_applyRegistersAndCarriesAlong(self):
        self.addSliceView()
        self.chooseInputs(affine=Affine.RIGID)
        self.ui.fixedTumorSelector.setCurrentNode(self.studies["fixed"]["tumor"])
        self.ui.movingTumorSelector.setCurrentNode(self.studies["moving"]["tumor"])
        self.carry(self.studies["moving"]["t2"], self.studies["moving"]["tumor"])
        self.ui.advancedSection.collapsed = False
        self.addCleanup(setattr, self.ui.advancedSection, "collapsed", True)
        self.ui.timeLimitSpinBox.value = 300
        self.ui.folderNameLineEdit.text = "two visits"
        self.ui.applyButton.click()
        hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
        folder = hierarchy.GetItemByName("two visits")
        self.assertIn("two visits", self.ui.statusLabel.text)
        carried = {"phantom visit 2 tumour on fixed"}
        self.assertEqual(self.visibleSegmentations(), {"fixed segmentation", "moving segmentation on fixed"} | carried)
        (view,) = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")[:1]
        self.assertEqual(view.GetBackgroundVolumeID(), self.studies["fixed"]["t1"].GetID())
        self.assertEqual(view.GetForegroundVolumeID(), slicer.util.getNode("T1 warped").GetID())
        transform = slicer.util.getNode("moving to fixed")
        self.assertEqual(hierarchy.GetItemParent(hierarchy.GetItemByDataNode(transform)), folder)
        carried = slicer.util.getNode("phantom visit 2 T2 on fixed")
        fixed = self.studies["fixed"]["t2"]
        before = self.difference(fixed, self.studies["moving"]["t2"])
        self.assertLess(self.difference(fixed, carried), 0.7 * before)
        self.assertEqual(self.ui.progressBar.value, 100)
        self.assertTrue(self.ui.applyButton.enabled)
        self.assertFalse(self.ui.cancelButton.enabled)

    def test_oneVisitIsSegmentedAlone(self):
        self.ui.fixedFlairSelector.setCurrentNode(self.studies["fixed"]["flair"])
        self.ui.weightsPathLineEdit.currentPath = self.saveSmallNetwork()
        self.ui.flipsCheckBox.checked = False
        self.assertTrue(self.ui.applyButton.enabled)
        self.ui.segmentCheckBox.checked = False
        self.assertFalse(self.ui.applyButton.enabled)
        self.ui.segmentCheckBox.checked = True
        self.ui.folderNameLineEdit.text = "first visit"
        self.ui.applyButton.click()
        self.assertIn("segmented alone", self.ui.statusLabel.text)
        self.assertIsNotNone(slicer.util.getNode("segmentation"))
        self.assertIsNotNone(slicer.util.getNode("volumes"))

    def test_whatAVisitAloneHasNoUseForIsNotIgnored(self):
        self.ui.fixedFlairSelector.setCurrentNode(self.studies["fixed"]["flair"])
        self.assertTrue(self.ui.applyButton.enabled)
        self.ui.fixedTumorSelector.setCurrentNode(self.studies["fixed"]["tumor"])
        self.assertFalse(self.ui.applyButton.enabled)
        self.assertIn("leave out 'phantom visit 1 tumour'", self.ui.applyButton.toolTip)
        self.ui.fixedTumorSelector.setCurrentNode(None)
        self.carry(self.studies["moving"]["t2"])
        self.assertIn("leave out 'phantom visit 2 T2'", self.ui.applyButton.toolTip)
        self.ui.movingFlairSelector.setCurrentNode(self.studies["moving"]["flair"])
        self.assertTrue(self.ui.applyButton.enabled)

    def test_networkSegmentsBothVisits(self):
        self.addViews()
        self.chooseInputs()
        self.ui.flipsCheckBox.checked = True
        self.ui.refineSpinBox.value = 0
        self.ui.applyButton.click()
        for which in STUDIES:
            segmentation = slicer.util.getNode(f"{which} segmentation").GetSegmentation()
            names = [segmentation.GetNthSegment(i).GetName() for i in range(segmentation.GetNumberOfSegments())]
            self.assertEqual(names, ["Necrotic core", "Oedema", "Enhancing tumour"])
            self.assertIsNotNone(slicer.util.getNode(f"{which} uncertainty"))
        self.assertIsNotNone(slicer.util.getNode("volumes"))
        choices = self.ui.compareModeComboBox
        choices.currentIndex = choices.findData("uncertainty")
        self.addCleanup(setattr, choices, "currentIndex", 0)
        shown = slicer.mrmlScene.GetNodeByID(self.view("Yellow").GetForegroundVolumeID())
        self.assertEqual(shown.GetName(), "moving uncertainty on fixed")
        self.assertIsNone(shown.GetParentTransformNode())
        self.assertTrue(shown.GetDisplayNode().GetApplyThreshold())
        fixed = slicer.mrmlScene.GetNodeByID(self.view("Red").GetForegroundVolumeID())
        self.assertEqual(fixed.GetName(), "fixed uncertainty")
        self.ui.fadeSlider.value = 30
        self.assertAlmostEqual(self.view("Yellow").GetForegroundOpacity(), 0.3)
        self.assertEqual(self.ui.compareNoteLabel.text, "")

    def test_leavingTheModuleDuringARunLosesNothing(self):
        self.chooseInputs()
        self.ui.folderNameLineEdit.text = "left"
        process = self.widget.logic.process

        def processAndLeave(*arguments, **options):
            result = process(*arguments, **options)
            self.widget.exit()
            return result

        self.widget.logic.process = processAndLeave
        self.addCleanup(setattr, self.widget.logic, "process", process)
        self.ui.applyButton.click()
        self.assertIn("The results are in the folder 'left'", self.ui.statusLabel.text)
        self.widget.enter()
        self.assertIsNotNone(slicer.util.getNode("T1 warped"))

    def test_nodesToCarryAlongAreTickedAndSavedWithTheScene(self):
        self.chooseInputs()
        selector = self.ui.carrySelector
        t2, tumor = self.studies["moving"]["t2"], self.studies["moving"]["tumor"]
        self.carry(t2, tumor)
        self.assertEqual(self.widget.runs.carried(), selector.checkedNodes())
        self.assertEqual({node.GetName() for node in self.widget.runs.carried()}, {t2.GetName(), tumor.GetName()})
        path = os.path.join(self.directory, "scene.mrb")
        self.assertTrue(slicer.util.saveScene(path))
        slicer.mrmlScene.RemoveNode(t2)
        self.assertEqual([node.GetName() for node in self.widget.runs.carried()], ["phantom visit 2 tumour"])
        slicer.mrmlScene.Clear()
        self.assertEqual(selector.checkedNodes(), [])
        slicer.util.loadScene(path)
        slicer.app.processEvents()
        names = {node.GetName() for node in selector.checkedNodes()}
        self.assertEqual(names, {"phantom visit 2 T2", "phantom visit 2 tumour"})
        for node in selector.checkedNodes():
            selector.setCheckState(node, qt.Qt.Unchecked)
        self.assertEqual(self.widget.runs.carried(), [])

    def carry(self, *nodes):
        for node in nodes:
            self.ui.carrySelector.setCheckState(node, qt.Qt.Checked)

    def test_unusableInputIsReportedAndChangesNothing(self):
        self.chooseInputs()
        slicer.util.arrayFromVolume(self.studies["fixed"]["flair"])[:] = 7
        self.assertApplyFailsSaying("flair", "constant")
