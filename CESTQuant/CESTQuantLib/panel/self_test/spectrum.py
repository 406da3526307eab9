"""The spectrum under the mouse."""

# unittest's assertions, because the self-test also runs in the application, which has no pytest
# ruff: noqa: PT009

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
