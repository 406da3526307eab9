"""The spectrum under the mouse."""

# unittest's assertions, because the self-test also runs in the application, which has no pytest
# ruff: noqa: PT009

import os

import slicer

from .sample import SampleTest


class SpectrumTest(SampleTest):
    """Moves the mouse over the slices."""

    def moveMouseTo(self, voxel):
        """Move the crosshair as the mouse does with Shift, to a voxel (i, j, k); return the place."""
        from NeuroCESTLib.scene.geometry import Geometry

        place = (Geometry.of(self.reference).ijk_to_ras @ (*voxel, 1.0))[:3]
        slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode").SetCursorPositionRAS(place)
        return place

    def curves(self):
        """Return the curves of the live plot by name, as arrays of offsets and values."""
        chart = slicer.util.getNode("Z-spectrum")
        found = {}
        for number in range(chart.GetNumberOfPlotSeriesNodes()):
            series = chart.GetNthPlotSeriesNode(number)
            table = series.GetTableNode()
            found[series.GetName()] = tuple(slicer.util.arrayFromTableColumn(table, name) for name in "xy")
        return found

    def test_spectrumFollowsTheMouse(self):
        self.chooseInputs("lorentzian")
        self.ui.liveSpectrumCheckBox.checked = True
        self.moveMouseTo((1, 2, 3))
        self.assertEqual(list(self.curves()), ["measured"])
        offsets, signal = self.curves()["measured"]
        self.assertEqual((offsets.min(), offsets.max()), (-5.0, 5.0))
        self.assertAlmostEqual(float(signal[0]), self.spectrum[0], places=5)
        self.assertIn("voxel (1, 2, 3)", self.ui.spectrumValuesLabel.text)
        self.widget.spectrum.live.fit()  # as after the mouse has rested
        self.assertTrue({"measured", "fit", "residual", "amide"} <= set(self.curves()))
        self.assertIn("amide_amplitude: ", self.ui.spectrumValuesLabel.text)
        self.moveMouseTo((40, 2, 3))
        self.assertIn("outside", self.ui.spectrumValuesLabel.text)
        self.ui.liveSpectrumCheckBox.checked = False
        self.moveMouseTo((1, 2, 3))
        self.assertEqual(self.ui.spectrumValuesLabel.text, "")

    def test_liveSpectrumHasALayoutOfItsOwnAndLeavesIt(self):
        layout = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")
        if layout is None:
            layout = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLayoutNode")
        layout.SetViewArrangement(layout.SlicerLayoutFourUpView)
        self.chooseInputs("mtrasym")
        self.ui.liveSpectrumCheckBox.checked = True
        self.assertNotEqual(layout.GetViewArrangement(), layout.SlicerLayoutFourUpView)
        self.widget.exit()
        self.assertEqual(layout.GetViewArrangement(), layout.SlicerLayoutFourUpView)
        self.assertFalse(self.ui.liveSpectrumCheckBox.checked)

    def test_sceneThatWasSavedInTheLayoutOfTheSpectrumComesBackInIt(self):
        layout = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")
        if layout is None:
            layout = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLayoutNode")
        self.chooseInputs("mtrasym")
        self.ui.liveSpectrumCheckBox.checked = True
        self.moveMouseTo((1, 2, 3))
        path = os.path.join(self.directory, "scene.mrb")
        self.assertTrue(slicer.util.saveScene(path))
        slicer.mrmlScene.Clear()
        slicer.util.loadScene(path)
        layout = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")
        self.assertIn("vtkMRMLPlotViewNode", layout.GetCurrentLayoutDescription() or "")
        self.assertIn("measured", self.curves())
        self.ui.liveSpectrumCheckBox.checked = True
        self.ui.liveSpectrumCheckBox.checked = False
        self.assertEqual(layout.GetViewArrangement(), layout.SlicerLayoutFourUpView)

    def test_spectraFollowATransformOfTheAcquisition(self):
        import numpy as np

        from NeuroCESTLib.scene import sequences

        self.chooseInputs()
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        for node in (sequences.browse(self.signal, 0), self.reference):
            node.SetAndObserveTransformNodeID(transform.GetID())
        self.assertEqual(self.widget.spectrum.measured((2.0, 2.0, 5.0)).name, "voxel (1, 1, 1)")
        matrix = np.eye(4)
        matrix[0, 3] = 4.0
        transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
        self.assertEqual(self.widget.spectrum.measured((6.0, 2.0, 5.0)).name, "voxel (1, 1, 1)")

    def test_liveFitUsesTheNumberOfEntriesOfADictionary(self):
        import unittest.mock

        self.chooseInputs("lorentzian")
        self.widget.parameters.dictionaryEntries = 200
        with unittest.mock.patch.object(self.widget.logic, "settings", wraps=self.widget.logic.settings) as settings:
            self.widget.spectrum.fitted((2.0, 2.0, 5.0))
        self.assertEqual(settings.call_args.kwargs["dictionaryEntries"], 200)

    def test_pointsAndSegmentsStayInThePlotForComparison(self):
        import numpy as np

        from NeuroCESTLib.scene.geometry import Geometry
        from NeuroCESTLib.scene.segmentations import add_segmentation

        geometry = Geometry.of(self.reference)
        mask = np.zeros(geometry.shape, bool)
        mask[1, 2:5, 2:5] = True
        segmentation = add_segmentation({"tumour": mask}, geometry, "regions")
        points = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "pins")
        points.AddControlPoint(self.moveMouseTo((1, 2, 3)), "white matter")
        points.AddControlPoint([500.0, 0.0, 0.0], "outside")
        self.chooseInputs("lorentzian")
        self.ui.pinsSelector.setCurrentNode(points)
        self.ui.liveSpectrumCheckBox.checked = True
        self.moveMouseTo((2, 2, 2))
        self.assertEqual(list(self.curves()), ["measured", "white matter"])
        points.AddControlPoint(self.moveMouseTo((3, 3, 1)), "another")
        self.assertEqual(list(self.curves()), ["measured", "white matter", "another"])
        self.ui.pinsSelector.setCurrentNode(segmentation)
        self.assertEqual(list(self.curves()), ["measured", "tumour", "tumour + SD", "tumour - SD"])
        offsets, mean = self.curves()["tumour"]
        self.assertEqual(len(offsets), 21)
        self.assertAlmostEqual(float(mean[0]), self.spectrum[0], places=5)
        self.assertAlmostEqual(float((self.curves()["tumour + SD"][1] - mean).max()), 0.0, places=5)  # equal voxels
        self.ui.pinsSelector.setCurrentNode(None)
        self.assertEqual(list(self.curves()), ["measured"])

    def test_emptySliceViewsShowTheAnatomyThatTheMouseMovesOver(self):
        self.addSliceView()
        (view,) = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")[:1]
        view.SetBackgroundVolumeID(None)
        view.SetForegroundVolumeID(None)
        self.chooseInputs("mtrasym")
        self.ui.liveSpectrumCheckBox.checked = True
        self.assertEqual(view.GetBackgroundVolumeID(), self.reference.GetID())

    def test_imagesOfTheAcquisitionAreBrowsedWithTheirOffsets(self):
        self.addSliceView()
        self.chooseInputs()
        self.assertEqual(self.ui.offsetSlider.maximum, 20)
        self.ui.offsetSlider.value = 10
        self.assertEqual(self.ui.offsetLabel.text, "0 ppm (11/21)")
        (view,) = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")[:1]
        shown = slicer.mrmlScene.GetNodeByID(view.GetBackgroundVolumeID())
        self.assertAlmostEqual(float(slicer.util.arrayFromVolume(shown).mean()), 1000 * self.spectrum[10], delta=0.1)
        self.ui.offsetSlider.value = 0
        self.assertAlmostEqual(float(slicer.util.arrayFromVolume(shown).mean()), 1000 * self.spectrum[0], delta=0.1)
        self.assertEqual(len(slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode")), 1)
