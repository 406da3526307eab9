"""Field maps from acquisitions of their own."""

# unittest's assertions, because the self-test also runs in the application, which has no pytest
# ruff: noqa: PT009

import os

import slicer

from .sample import SampleTest

OFFSETS = [-1.0 + 0.1 * number for number in range(21)]
"""Offsets of a WASSR acquisition in ppm."""


class FieldsTest(SampleTest):
    """Computes field maps in the panel."""

    def test_fieldMapsAreComputedAndUsedAtOnce(self):
        wassr = self.addWassr("wassr", 0.12)
        self.chooseInputs("mtrasym")
        self.assertFalse(self.ui.fieldMapsButton.enabled)
        self.assertIn("Choose the WASABI or WASSR acquisition", self.ui.fieldMapsButton.toolTip)
        self.ui.fieldSignalSelector.setCurrentNode(wassr)
        self.ui.fieldReferenceSelector.setCurrentNode(self.reference)
        self.assertIn("WASABI needs B1 (µT) and Saturation (s)", self.ui.fieldMapsButton.toolTip)
        self.ui.fieldMethodComboBox.currentIndex = self.ui.fieldMethodComboBox.findData("wassr")
        self.assertEqual(self.widget.logic.getParameterNode().fieldMethod, "wassr")
        self.assertTrue(self.ui.fieldMapsButton.enabled)
        compute = self.widget.logic.fieldMaps

        def computeAndLeave(*arguments, **options):
            result = compute(*arguments, **options)
            self.widget.exit()
            return result

        self.widget.logic.fieldMaps = computeAndLeave
        self.addCleanup(setattr, self.widget.logic, "fieldMaps", compute)
        self.ui.fieldMapsButton.click()
        self.assertIn("used from now on", self.ui.statusLabel.text)
        self.widget.enter()
        chosen = self.ui.b0Selector.currentNode()
        self.assertEqual(chosen.GetName(), "b0_shift_ppm")
        self.assertAlmostEqual(float(slicer.util.arrayFromVolume(chosen).mean()), 0.12, delta=0.01)
        self.ui.applyButton.click()
        self.assertIsNotNone(slicer.util.getNode("*mtr_asym*"))

    def addWassr(self, name, shift_ppm):
        """Add a WASSR acquisition with one B0 shift everywhere."""
        import numpy as np

        from NeuroCESTLib.scene.geometry import Geometry
        from NeuroCESTLib.scene.sequences import array_to_sequence

        geometry = Geometry.of(self.reference)
        line = 1.0 - 0.9 / (1 + ((np.array(OFFSETS) - shift_ppm) / 0.25) ** 2)
        signal = 1000.0 * np.tile(line[:, None, None, None], (1, *geometry.shape)).astype(np.float32)
        return array_to_sequence(signal, geometry, name, OFFSETS)

    def test_computedFieldMapsAreUsedAsLongAsTheirFieldAcquisitionIs(self):
        def add(kind, name):
            return slicer.mrmlScene.AddNewNodeByClass(f"vtkMRML{kind}Node", name)

        parameters = self.widget.logic.getParameterNode()
        wassr = [self.addWassr(f"visit {number} wassr", shift) for number, shift in ((1, 0.12), (2, -0.3))]
        visits = [add("Sequence", name) for name in ("visit 1", "visit 1 again", "visit 2", "visit 2 again")]
        b0 = add("ScalarVolume", "visit 2 b0")
        self.ui.signalSelector.setCurrentNode(visits[0])
        parameters.fieldReference = self.reference
        self.ui.fieldMapsButton.click()
        computed = parameters.b0
        self.assertIn(computed.GetName(), self.ui.statusLabel.text)
        for visit, expected in zip(visits, (computed, computed, b0, None), strict=True):
            self.ui.signalSelector.setCurrentNode(visit)
            self.assertIs(parameters.b0, expected)
            self.assertIs(parameters.fieldSignal, wassr["2" in visit.GetName()])

    def test_whatTheUserHasChosenForTheFieldAcquisitionOfBeforeIsNamed(self):
        parameters = self.widget.logic.getParameterNode()
        for number in (1, 2):
            self.addWassr(f"visit {number} wassr", 0.0)
        visits = [slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", f"visit {number}") for number in (1, 2)]
        self.ui.signalSelector.setCurrentNode(visits[0])
        parameters.fieldReference = self.reference
        parameters.fieldProtocolPath = self.protocolPath
        self.ui.signalSelector.setCurrentNode(visits[1])
        self.assertEqual(parameters.fieldSignal.GetName(), "visit 2 wassr")
        name = os.path.basename(self.protocolPath)
        self.assertIn(f"Kept as chosen before: 'm0', '{name}'.", self.ui.chosenByNameLabel.text)

    def test_wasabiIsChosenByNameAndGivesBothFields(self):
        import numpy as np
        import torch

        from CESTQuantLib.preprocessing.wasabi import WasabiPulse
        from NeuroCESTLib.scene.geometry import Geometry
        from NeuroCESTLib.scene.sequences import array_to_sequence

        geometry, offsets = Geometry.of(self.reference), np.linspace(-2.0, 2.0, 31)
        pulse = WasabiPulse()
        truth = torch.tensor([1.1 * pulse.b1_uT, 0.15, 0.95, 1.6], dtype=torch.float64)
        z = pulse.predict(truth[:, None], torch.from_numpy(offsets)[:, None])[0].flatten().numpy()
        signal = 1000.0 * np.tile(z[:, None, None, None], (1, *geometry.shape)).astype(np.float32)
        wasabi = array_to_sequence(signal, geometry, "wasabi", offsets.tolist())
        protocol = {"field_strength_T": 3.0, "offsets_ppm": offsets.tolist(), "b1_uT": pulse.b1_uT}
        self.widget.logic.setProtocol(wasabi, {**protocol, "saturation_time_s": pulse.duration_s})
        self.widget.exit()  # both acquisitions are in the scene when the module is opened
        slicer.mrmlScene.RemoveNode(self.widget.logic.getParameterNode().parameterNode)
        self.widget.enter()
        self.assertIs(self.ui.signalSelector.currentNode(), self.signal)
        self.assertIs(self.ui.fieldSignalSelector.currentNode(), wasabi)
        self.assertEqual(self.ui.fieldMethodComboBox.currentText, "WASABI (B0 and B1)")
        self.assertIn("'wasabi'", self.ui.chosenByNameLabel.text)
        self.chooseInputs("mtrasym")
        self.ui.fieldReferenceSelector.setCurrentNode(self.reference)
        self.ui.fieldMapsButton.click()
        maps = [slicer.util.arrayFromVolume(getattr(self.ui, f"{name}Selector").currentNode()) for name in ("b0", "b1")]
        self.assertAlmostEqual(float(maps[0].mean()), 0.15, delta=0.02)
        self.assertAlmostEqual(float(maps[1].mean()), 1.1, delta=0.02)
        self.ui.applyButton.click()
        self.assertIsNotNone(slicer.util.getNode("*mtr_asym*"))
