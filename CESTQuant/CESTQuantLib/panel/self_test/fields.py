"""Field maps from acquisitions of their own."""

# unittest's assertions, because the self-test also runs in the application, which has no pytest
# ruff: noqa: PT009

import slicer

from .sample import SampleTest


class FieldsTest(SampleTest):
    """Computes field maps in the panel."""

    def test_fieldMapsAreComputedAndUsedAtOnce(self):
        import numpy as np

        from NeuroCESTLib.scene.geometry import Geometry
        from NeuroCESTLib.scene.sequences import array_to_sequence

        geometry = Geometry.of(self.reference)
        offsets = np.linspace(-1.0, 1.0, 21)
        line = 1.0 - 0.9 / (1 + ((offsets - 0.12) / 0.25) ** 2)
        signal = 1000.0 * np.tile(line[:, None, None, None], (1, *geometry.shape)).astype(np.float32)
        wassr = array_to_sequence(signal, geometry, "wassr", offsets.tolist())
        self.chooseInputs("mtrasym")
        self.assertFalse(self.ui.fieldMapsButton.enabled)
        self.assertIn("Choose the WASABI or WASSR acquisition", self.ui.fieldMapsButton.toolTip)
        self.ui.fieldSignalSelector.setCurrentNode(wassr)
        self.ui.fieldReferenceSelector.setCurrentNode(self.reference)
        self.ui.fieldMethodComboBox.currentIndex = 1
        self.assertTrue(self.ui.fieldMapsButton.enabled)
        self.ui.fieldMapsButton.click()
        chosen = self.ui.b0Selector.currentNode()
        self.assertEqual(chosen.GetName(), "b0_shift_ppm")
        self.assertAlmostEqual(float(slicer.util.arrayFromVolume(chosen).mean()), 0.12, delta=0.01)
        self.assertIn("used from now on", self.ui.statusLabel.text)
        self.ui.applyButton.click()
        self.assertIsNotNone(slicer.util.getNode("*mtr_asym*"))
