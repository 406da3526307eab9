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
