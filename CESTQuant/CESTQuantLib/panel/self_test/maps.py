"""Apply, and the maps that it shows."""

# unittest's assertions, because the self-test also runs in the application, which has no pytest
# ruff: noqa: PT009

import slicer

from .sample import SampleTest


class MapsTest(SampleTest):
    """Computes maps and looks at them."""

    def test_applyPutsMapsIntoOneFolder(self):
        self.chooseInputs()
        self.ui.folderNameLineEdit.text = "visit 1"
        self.ui.applyButton.click()
        hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
        folder = hierarchy.GetItemByName("visit 1")
        self.assertIn("visit 1", self.ui.statusLabel.text)
        asymmetry = slicer.util.getNode("*mtr_asym*")
        self.assertEqual(hierarchy.GetItemParent(hierarchy.GetItemByDataNode(asymmetry)), folder)
        values = slicer.util.arrayFromVolume(asymmetry)
        self.assertAlmostEqual(float(values.mean()), self.expectedAsymmetry, delta=0.005)
        self.assertEqual(self.ui.progressBar.value, 100)
        self.assertTrue(self.ui.progressBar.isHidden())
        self.assertTrue(self.ui.applyButton.enabled)
        self.assertFalse(self.ui.cancelButton.enabled)

    def test_applyShowsTheMainMapOverTheReference(self):
        self.addSliceView()
        self.chooseInputs()
        self.ui.applyButton.click()
        for view in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
            self.assertEqual(view.GetBackgroundVolumeID(), self.reference.GetID())
            self.assertEqual(view.GetForegroundVolumeID(), slicer.util.getNode("*mtr_asym*").GetID())
        shown = slicer.util.getNode("*mtr_asym*")
        self.assertTrue(shown.GetScalarVolumeDisplayNode().GetApplyThreshold())  # NaN is not drawn
        legend = slicer.modules.colors.logic().GetColorLegendDisplayNode(shown)
        self.assertTrue(legend.GetVisibility())

    def test_anotherMapCanBeChosenAndFaded(self):
        self.addSliceView()
        self.chooseInputs("lorentzian")
        self.ui.applyButton.click()
        choices = self.ui.shownMapComboBox
        self.assertEqual(choices.currentText, "water_amplitude")
        choices.currentIndex = choices.findText("amide_amplitude")
        self.ui.opacitySlider.value = 40
        (view,) = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")[:1]
        self.assertEqual(view.GetForegroundVolumeID(), slicer.util.getNode("amide_amplitude").GetID())
        self.assertAlmostEqual(view.GetForegroundOpacity(), 0.4)
        self.ui.applyButton.click()  # a second run has maps of the same names
        self.assertEqual(choices.currentText, "water_amplitude (cest lorentzian (2))")
        self.ui.opacitySlider.value = 100

    def test_networkReconstructsWithUncertaintyAndReliability(self):
        self.chooseInputs("network")
        self.assertFalse(self.ui.networkPathLineEdit.isHidden())
        self.assertIn("network", self.ui.applyButton.toolTip)
        network, protocol = self.trainNetwork()
        self.ui.networkPathLineEdit.currentPath = network
        self.ui.protocolPathLineEdit.currentPath = protocol
        self.ui.applyButton.click()
        names = ("amide_fraction", "amide_fraction_sd", "rmse", "reliable")
        maps = {name: slicer.util.arrayFromVolume(slicer.util.getNode(name)) for name in names}
        self.assertTrue((maps["amide_fraction_sd"] > 0).all())
        # Such Lorentzian lines are not a spectrum of the tissue that the network was trained for, and it notices.
        self.assertEqual(float(maps["reliable"].max()), 0.0)
        display = slicer.util.getNode("reliable").GetScalarVolumeDisplayNode()
        self.assertEqual((display.GetWindowLevelMin(), display.GetWindowLevelMax()), (0.0, 1.0))

    def test_wrongCountOfOffsetsIsReportedAndChangesNothing(self):
        self.chooseInputs()
        self.ui.protocolPathLineEdit.currentPath = self.writeOffsets("short.txt", [-3.5, 0.0, 3.5])
        self.assertApplyFailsSaying("21", "3")

    def test_previewQuantifiesTheSliceInTheViewUntilTheNextRun(self):
        from NeuroCESTLib.scene.geometry import Geometry

        view = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeRed")
        if view is None:
            view = slicer.vtkMRMLSliceNode()
            view.SetSingletonTag("Red")
            view.SetName("Red")
            view = slicer.mrmlScene.AddNode(view)
        view.GetSliceToRAS().Identity()
        for row, value in enumerate((Geometry.of(self.reference).ijk_to_ras @ (3, 3, 2, 1))[:3]):
            view.GetSliceToRAS().SetElement(row, 3, value)
        self.chooseInputs()
        hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
        for _ in range(2):
            self.ui.previewButton.click()
            self.assertIn("cest preview", self.ui.statusLabel.text)
            values = slicer.util.arrayFromVolume(slicer.util.getNode("*mtr_asym*"))
            self.assertEqual([bool((layer == layer).any()) for layer in values], [False, False, True, False])
        preview = slicer.util.getNode("*mtr_asym*")
        kept = slicer.vtkSlicerVolumesLogic.CloneVolume(slicer.mrmlScene, preview, "copy to keep")
        hierarchy.CreateItem(hierarchy.GetSceneItemID(), kept)
        self.ui.applyButton.click()
        self.assertFalse(hierarchy.GetItemByName("cest preview"))
        self.assertIs(slicer.util.getNode("copy to keep"), kept)
        self.assertEqual(self.mapNames().count("mtr_asym_3.5ppm"), 1)

    def test_previewThatWasMovedLeavesTheFoldersAroundItAlone(self):
        hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
        patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "patient")
        own = hierarchy.CreateFolderItem(patient, "my images")
        hierarchy.CreateItem(own, self.reference)
        self.chooseInputs()
        self.ui.previewButton.click()
        preview = hierarchy.GetItemByName("cest preview")
        hierarchy.SetItemParent(preview, patient)
        self.ui.applyButton.click()
        self.assertFalse(hierarchy.GetItemByName("cest preview"))
        self.assertEqual(hierarchy.GetItemParent(hierarchy.GetItemByDataNode(self.reference)), own)
        self.assertEqual(hierarchy.GetItemParent(own), patient)
        self.ui.previewButton.click()
        preview = hierarchy.GetItemByName("cest preview")
        hierarchy.CreateItem(preview, self.reference)  # put there by the user
        self.ui.applyButton.click()
        self.assertEqual(hierarchy.GetItemParent(hierarchy.GetItemByDataNode(self.reference)), preview)

    def test_regionsOfTheShownMapAndItsColorRangeAreInThePanel(self):
        import numpy as np

        from NeuroCESTLib.scene.geometry import Geometry
        from NeuroCESTLib.scene.segmentations import add_segmentation

        geometry = Geometry.of(self.reference)
        half = np.zeros(geometry.shape, bool)
        half[:, :4] = True
        regions = add_segmentation({"left": half, "right": ~half}, geometry, "halves")
        self.chooseInputs("lorentzian")
        self.ui.segmentationSelector.setCurrentNode(regions)
        self.ui.applyButton.click()
        table = self.ui.regionsTable
        self.assertEqual([table.item(row, 0).text() for row in range(table.rowCount)], ["left", "right"])
        self.assertEqual(table.item(0, 1).text(), "128")
        self.assertAlmostEqual(float(table.item(0, 2).text()), 0.9, delta=0.02)
        self.ui.windowLowLineEdit.text, self.ui.windowHighLineEdit.text = "0.2", "0.8"
        self.widget.results.onWindowTyped()
        display = slicer.util.getNode("water_amplitude").GetScalarVolumeDisplayNode()
        self.assertAlmostEqual(display.GetWindowLevelMin(), 0.2)
        self.assertAlmostEqual(display.GetWindowLevelMax(), 0.8)
        self.ui.windowHighLineEdit.text = "0.1"  # below the lower end
        self.widget.results.onWindowTyped()
        self.assertEqual(self.ui.windowHighLineEdit.text, "0.8")

    def test_mapsAreShownOverAChosenAnatomyWithTheWarningsOfTheRun(self):
        self.addSliceView()
        anatomy = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "T1 weighted")
        self.chooseInputs()
        self.assertTrue(self.ui.warningsLabel.isHidden())
        slicer.util.arrayFromVolume(self.reference)[:2] = 0.0  # no M0 in half of the voxels
        self.ui.applyButton.click()
        self.assertIn("⚠ 128 of 256 voxels", self.ui.warningsLabel.text)
        self.assertFalse(self.ui.warningsLabel.isHidden())
        self.ui.anatomySelector.setCurrentNode(anatomy)
        (view,) = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")[:1]
        self.assertEqual(view.GetBackgroundVolumeID(), anatomy.GetID())
        self.assertEqual(view.GetForegroundVolumeID(), slicer.util.getNode("*mtr_asym*").GetID())

    def test_severalOffsetsAreTypedInTheAdvancedSection(self):
        self.assertTrue(self.ui.advancedSection.collapsed)
        self.chooseInputs()
        self.ui.furtherOffsetsLineEdit.text = "2, far"
        self.assertIn("'far' is not a number", self.ui.applyButton.toolTip)
        self.ui.furtherOffsetsLineEdit.text = "2, 2.5"
        self.ui.applyButton.click()
        self.assertTrue({"mtr_asym_3.5ppm", "mtr_asym_2ppm", "mtr_asym_2.5ppm"} <= set(self.mapNames()))

    def test_offsetOfNothingIsRefused(self):
        self.chooseInputs()
        self.ui.furtherOffsetsLineEdit.text = "2"
        self.ui.asymmetryOffsetSpinBox.value = 0.0
        self.assertFalse(self.ui.applyButton.enabled)
        self.assertIn("a positive number of ppm, not 0", self.ui.applyButton.toolTip)
        self.assertEqual(self.widget.runs.options()["asymmetryOffset_ppm"], (0.0, 2.0))
        self.ui.asymmetryOffsetSpinBox.value = 3.5
        self.ui.furtherOffsetsLineEdit.text = "-2"
        self.assertIn("not -2", self.ui.applyButton.toolTip)
        self.ui.furtherOffsetsLineEdit.text = ""
        self.assertTrue(self.ui.applyButton.enabled)

    def test_leavingTheModuleDuringARunLosesNothing(self):
        import unittest.mock

        from NeuroCESTLib.core import background

        load, fit = background.load_libraries, self.widget.logic.fit

        def loadAndLeave(*arguments):
            load(*arguments)
            self.widget.exit()

        def fitAndLeave(*arguments, **options):
            result = fit(*arguments, **options)
            self.widget.exit()
            return result

        self.chooseInputs()
        for button, folder in ((self.ui.applyButton, "cest mtrasym"), (self.ui.previewButton, "cest preview")):
            for place in (
                unittest.mock.patch.object(background, "load_libraries", loadAndLeave),
                unittest.mock.patch.object(self.widget.logic, "fit", fitAndLeave),
            ):
                with place:
                    button.click()
                self.assertIn(f"in the folder '{folder}", self.ui.statusLabel.text)
                self.assertIsNone(self.widget.parameters)
                self.widget.enter()
                self.assertTrue(button.enabled)

    def test_closingTheSceneAfterLeavingDuringARunCancelsIt(self):
        def leaveAndClose(percent):
            if percent > 0 and self.widget.parameters:
                self.widget.exit()
                slicer.mrmlScene.RemoveNode(self.widget.parameters.parameterNode)  # which would survive
                slicer.mrmlScene.Clear()

        self.chooseInputs()
        self.ui.progressBar.value = 0
        self.ui.progressBar.connect("valueChanged(int)", leaveAndClose)
        self.addCleanup(self.ui.progressBar.disconnect, "valueChanged(int)", leaveAndClose)
        self.ui.applyButton.click()
        self.assertIn("Cancelled", self.ui.statusLabel.text)
        self.assertIsNone(self.widget.parameters)
        self.assertIsNone(slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScriptedModuleNode"))

    def mapNames(self):
        return [node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")]
