"""Comparison of the visits, the change of the compartments, and the update from corrected segmentations."""

# unittest's assertions, because the self-test also runs in the application, which has no pytest
# ruff: noqa: PT009

import os

import slicer

from ..choices import Affine
from .sample import SampleTest


class CompareTest(SampleTest):
    """Looks at fixed and warped images."""

    def register(self):
        """Register with the given segmentations, without a network."""
        self.addViews()
        self.chooseInputs(affine=Affine.RIGID)
        self.ui.segmentCheckBox.checked = False
        for which in ("fixed", "moving"):
            getattr(self.ui, f"{which}TumorSelector").setCurrentNode(self.studies[which]["tumor"])
        self.ui.folderNameLineEdit.text = "visits"
        self.ui.applyButton.click()

    def chooseMode(self, name):
        choices = self.ui.compareModeComboBox
        choices.currentIndex = choices.findData(name)

    def shown(self, name="Red"):
        """Return the names of background and foreground of a view."""
        view = self.view(name)
        nodes = [
            slicer.mrmlScene.GetNodeByID(ID or "")
            for ID in (view.GetBackgroundVolumeID(), view.GetForegroundVolumeID())
        ]
        return [node.GetName() if node else None for node in nodes]

    def test_visitsAreComparedInEveryWay(self):
        import numpy as np

        self.register()
        fixed, layout = "phantom visit 1 T1", slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")
        before = layout.GetViewArrangement()
        self.assertEqual(self.ui.compareModeComboBox.currentData, "fade")
        self.assertEqual(self.shown(), [fixed, "T1 warped"])
        self.assertFalse(slicer.util.getNode("fixed segmentation").GetDisplayNode().GetVisibility2DFill())
        windows = [slicer.util.getNode(name).GetScalarVolumeDisplayNode() for name in (fixed, "T1 warped")]
        levels = [(window.GetWindowLevelMin(), window.GetWindowLevelMax()) for window in windows]
        for value, other in zip(*levels, strict=True):  # the phantom has the same intensities at both visits
            self.assertAlmostEqual(value, other, delta=0.1 * levels[0][1])
        self.ui.fadeSlider.value = 20
        self.assertAlmostEqual(self.view("Red").GetForegroundOpacity(), 0.2)
        self.chooseMode("flicker")
        self.assertTrue(self.ui.fadeSlider.isHidden())
        opacities = []
        for _ in range(2):
            self.widget.compare.flicker()  # as the timer does
            opacities.append(self.view("Red").GetForegroundOpacity())
        self.assertEqual(opacities, [1.0, 0.0])
        self.chooseMode("side")
        self.assertEqual((self.shown("Red"), self.shown("Yellow")), ([fixed, None], ["T1 warped", None]))
        self.assertTrue(self.view("Yellow").GetLinkedControl())
        self.assertNotEqual(layout.GetViewArrangement(), before)
        self.chooseMode("checkerboard")
        self.assertEqual(layout.GetViewArrangement(), before)
        self.assertEqual(self.shown(), ["checkerboard", None])
        self.ui.tileSpinBox.value = 20
        self.assertEqual(len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")), self.volumes() + 1)
        self.chooseMode("difference")
        self.assertEqual(self.shown(), ["difference", None])
        difference = slicer.util.arrayFromVolume(slicer.util.getNode("difference"))
        head = slicer.util.arrayFromVolume(self.studies["fixed"]["t1"]) > 0
        self.assertLess(float(np.nanmedian(np.abs(difference[head]))), 0.1)
        self.chooseMode("jacobian")
        self.assertEqual(self.shown(), [fixed, "Jacobian determinant"])
        self.chooseMode("uncertainty")
        self.assertIn("no result of this kind", self.ui.compareNoteLabel.text)
        self.chooseMode("grid")
        transform = slicer.util.getNode("moving to fixed")
        self.assertTrue(transform.GetDisplayNode().GetVisibility())
        self.chooseMode("fade")
        self.assertFalse(transform.GetDisplayNode().GetVisibility())
        self.chooseMode("side")
        self.widget.exit()
        self.assertEqual(layout.GetViewArrangement(), before)

    def compareFixedImages(self):
        """Choose two images to compare without a run."""
        self.addViews()
        self.ui.comparedFixedSelector.setCurrentNode(self.studies["fixed"]["t1"])
        self.ui.comparedWarpedSelector.setCurrentNode(self.studies["fixed"]["flair"])
        self.addCleanup(setattr, self.ui.compareModeComboBox, "currentIndex", 0)

    def test_comparisonEndsWhenTheModuleIsLeftAndBeginsAgainOnReturn(self):
        self.compareFixedImages()
        layout = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")
        before = layout.GetViewArrangement()
        self.ui.fadeSlider.value = 70
        self.chooseMode("flicker")
        while self.view("Red").GetForegroundOpacity() > 0:
            self.widget.compare.flicker()  # as the timer does
        self.widget.exit()
        self.assertAlmostEqual(self.view("Red").GetForegroundOpacity(), 0.7)
        self.widget.enter()
        self.assertTrue(self.widget.compare.timer.isActive())
        self.chooseMode("side")
        beside = layout.GetViewArrangement()
        self.assertNotEqual(beside, before)
        self.widget.exit()
        self.assertEqual(layout.GetViewArrangement(), before)
        self.widget.enter()
        self.assertEqual(layout.GetViewArrangement(), beside)
        self.chooseMode("fade")
        self.widget.exit()
        shown = self.studies["moving"]["t1"]  # by the user, in another module
        self.view("Red").SetBackgroundVolumeID(shown.GetID())
        self.widget.enter()
        self.assertEqual(self.view("Red").GetBackgroundVolumeID(), shown.GetID())

    def test_copyOfAComparisonStays(self):
        self.compareFixedImages()
        self.chooseMode("difference")
        difference = slicer.util.getNode("difference")
        kept = slicer.vtkSlicerVolumesLogic.CloneVolume(slicer.mrmlScene, difference, "copy to keep")
        self.chooseMode("checkerboard")
        self.chooseMode("difference")
        self.assertIs(slicer.util.getNode("copy to keep"), kept)
        self.assertIsNone(difference.GetScene())

    def volumes(self):
        """Return the number of volumes that are no comparison."""
        nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        return len([node for node in nodes if not node.GetAttribute("NeuroCEST.comparison")])

    def test_changeOfCompartmentsIsShownAndUpdatedFromACorrectedSegmentation(self):
        self.assertFalse(self.ui.updateButton.enabled)
        self.register()
        table = self.ui.changesTable
        regions = [table.item(row, 0).text() for row in range(table.rowCount)]
        self.assertIn("Enhancing tumour", regions)
        row = regions.index("Enhancing tumour")
        before = float(table.item(row, 1).text())
        self.assertGreater(before, 0.0)
        self.assertTrue(self.ui.updateButton.enabled)
        segmentation = slicer.util.getNode("fixed segmentation")
        name = segmentation.GetSegmentation().GetSegmentIdBySegmentName("Enhancing tumour")
        reference = self.studies["fixed"]["t1"]
        corrected = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, name, reference)
        corrected[:, :, corrected.any((0, 1)).argmax() :][:, :, ::2] = 0  # every other column is removed
        slicer.util.updateSegmentBinaryLabelmapFromArray(corrected, segmentation, name, reference)
        self.ui.updateButton.click()
        self.assertIn("visits corrected", self.ui.statusLabel.text)
        self.assertLess(float(table.item(row, 1).text()), 0.8 * before)
        self.assertTrue(self.ui.updateButton.enabled)
        self.ui.fixedT1Selector.setCurrentNode(self.studies["fixed"]["t2"])  # the segmentations are not those of T2
        self.assertFalse(self.ui.updateButton.enabled)

    def test_resultsAreFoundWhateverTheyAreCalledAlsoInALoadedScene(self):
        self.register()
        for name in ("fixed segmentation", "moving to fixed", "changes"):
            slicer.util.getNode(name).SetName(f"{name} checked by AB")
        backup = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        backup.Copy(slicer.util.getNode("fixed segmentation checked by AB"))  # as Clone does in the tree of the scene
        backup.SetName("fixed segmentation")
        hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
        hierarchy.CreateItem(hierarchy.GetItemByName("visits"), backup)
        path = os.path.join(self.directory, "scene.mrb")
        self.assertTrue(slicer.util.saveScene(path))
        slicer.mrmlScene.Clear()
        self.assertTrue(self.ui.changesTable.isHidden())
        slicer.util.loadScene(path)
        slicer.app.processEvents()
        self.assertEqual(self.ui.comparedWarpedSelector.currentNode().GetName(), "T1 warped")
        self.assertFalse(self.ui.changesTable.isHidden())
        self.widget.refresh()
        corrected = {which: node.GetName() for which, node in self.widget.runs.corrected().items()}
        self.assertEqual(corrected, {"fixed": "fixed segmentation checked by AB", "moving": "moving segmentation"})
        self.assertIn("'fixed segmentation checked by AB' and 'moving segm", self.ui.updateButton.toolTip)

    def test_studiesAreChosenByTheNamesOfTheirVolumes(self):
        self.ui.byNameButton.click()
        for modality, suffix in (("t1", "T1"), ("t1ce", "T1ce"), ("t2", "T2"), ("flair", "Flair")):
            for which in ("fixed", "moving"):
                chosen = getattr(self.ui, f"{which}{suffix}Selector").currentNode()
                self.assertIs(chosen, self.studies[which].get(modality), f"{which} {modality}")
        self.assertIn("'phantom visit 1' is fixed, 'phantom visit 2' is moving", self.ui.byNameLabel.text)
