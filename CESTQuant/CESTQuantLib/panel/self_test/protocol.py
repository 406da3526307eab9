"""The tables of the protocol: where it comes from, typed offsets and values, and where it is kept."""

# unittest's assertions, because the self-test also runs in the application, which has no pytest
# ruff: noqa: PT009, PT027

import json
import os

import slicer

from .sample import SampleTest


class ProtocolTest(SampleTest):
    """Looks at the protocol and edits it."""

    def setUp(self):
        super().setUp()
        self.ui.protocolSection.collapsed = False
        self.addCleanup(setattr, self.ui.protocolSection, "collapsed", True)

    def measurement(self, row, title):
        """Return the item of a measurement, counted from 1; 0 is the line of all of them."""
        table = self.ui.measurementsTable
        titles = [table.horizontalHeaderItem(number).text() for number in range(table.columnCount)]
        return table.item(row, titles.index(title))

    def setting(self, title):
        """Return the item of a setting."""
        table = self.ui.settingsTable
        titles = [table.verticalHeaderItem(number).text() for number in range(table.rowCount)]
        return table.item(titles.index(title), 0)

    def typeOffsets(self, text):
        self.ui.rangesLineEdit.text = text
        self.ui.rangesButton.click()

    def test_protocolOfTheSequenceIsShownAndWhatIsAssumedIsSaid(self):
        self.ui.signalSelector.setCurrentNode(self.signal)
        self.assertEqual(self.ui.measurementsTable.rowCount, 22)
        self.assertEqual(self.measurement(1, "Offset (ppm)").text(), "-5")
        self.assertEqual(self.setting("Static field (T)").text(), "3")
        self.assertIn("3 T is assumed", self.ui.protocolNoteLabel.text)

    def test_applySaysWhatAModelNeedsOfTheProtocol(self):
        self.chooseInputs("quesp")
        self.assertFalse(self.ui.applyButton.enabled)
        self.assertIn("needs B1 (µT) and Saturation (s), which the protocol does not say", self.ui.applyButton.toolTip)
        self.typeOffsets("-5:0.5:5")
        self.measurement(0, "B1 (µT)").setText("2")
        self.assertIn("needs Saturation (s), which the protocol does not say", self.ui.applyButton.toolTip)
        self.measurement(0, "Saturation (s)").setText("1.5")
        self.assertTrue(self.ui.applyButton.enabled, self.ui.applyButton.toolTip)

    def test_fileIsShown(self):
        self.chooseInputs()
        self.assertIn("offsets.txt", self.ui.protocolNoteLabel.text)
        self.assertEqual(self.measurement(21, "Offset (ppm)").text(), "5")
        self.ui.protocolPathLineEdit.currentPath = os.path.join(self.directory, "absent.json")
        self.assertTrue(self.ui.measurementsTable.isHidden())

    def test_fileThatChangesOnDiskIsShownAndKeptAsItIsNow(self):
        def write(b1_uT):
            protocol = {"field_strength_T": 3.0, "offsets_ppm": self.offsets.tolist(), "b1_uT": b1_uT}
            with open(path, "w", encoding="utf-8") as file:
                json.dump({**protocol, "saturation_time_s": 2.0}, file)

        path = os.path.join(self.directory, "protocol.json")
        write(1.0)
        self.chooseInputs()
        self.ui.protocolPathLineEdit.currentPath = path
        self.assertEqual(self.measurement(0, "B1 (µT)").text(), "1")
        self.assertEqual(self.widget.spectrum.spectra().at((0, 0, 0)).power_uT[0], 1.0)
        write(1.75)
        self.assertEqual(self.widget.spectrum.spectra().at((0, 0, 0)).power_uT[0], 1.75)
        self.measurement(1, "Offset (ppm)").setText("-6")  # the table still shows the earlier file
        self.assertIn("make your change again", self.ui.protocolNoteLabel.text)
        self.assertEqual(self.measurement(0, "B1 (µT)").text(), "1.75")
        self.assertEqual(self.measurement(1, "Offset (ppm)").text(), "-5")
        write(1.5)
        saved = os.path.join(self.directory, "saved.json")
        self.widget.protocol.save(saved)
        with open(saved, encoding="utf-8") as file:
            self.assertEqual(json.load(file)["b1_uT"], 1.5)
        write(1.125)
        self.ui.attachProtocolButton.click()
        self.assertEqual(self.widget.logic.protocolOf(self.signal)["b1_uT"], 1.125)

    def test_protocolWhoseFileIsGoneIsNeitherKeptNorSaved(self):
        path = os.path.join(self.directory, "protocol.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"field_strength_T": 3.0, "offsets_ppm": self.offsets.tolist()}, file)
        self.chooseInputs()
        self.ui.protocolPathLineEdit.currentPath = path
        os.remove(path)
        self.ui.attachProtocolButton.click()
        self.assertIsNone(self.widget.logic.protocolOf(self.signal))
        self.assertEqual(self.ui.protocolNoteLabel.text, f"The protocol file {path} does not exist.")
        with self.assertRaisesRegex(ValueError, "does not exist"):
            self.widget.protocol.save(os.path.join(self.directory, "saved.json"))

    def test_typedProtocolIsUsedAndKeptWithTheAcquisition(self):
        self.chooseInputs("mtrasym")
        self.typeOffsets("-5:0.5:5")
        self.measurement(0, "B1 (µT)").setText("2")
        self.measurement(0, "Saturation (s)").setText("1.5")
        self.setting("Static field (T)").setText("7")
        self.assertIn("Edited here", self.ui.protocolNoteLabel.text)
        self.measurement(3, "B1 (µT)").setText("2.5")
        protocol = self.widget.protocol.given()
        self.assertEqual(protocol["b1_uT"], [2.0, 2.0, 2.5] + 18 * [2.0])
        self.assertEqual((protocol["saturation_time_s"], protocol["field_strength_T"]), (1.5, 7.0))
        self.measurement(0, "B1 (µT)").setText("2")
        self.ui.applyButton.click()
        values = slicer.util.arrayFromVolume(slicer.util.getNode("*mtr_asym*"))
        self.assertAlmostEqual(float(values.mean()), self.expectedAsymmetry, delta=0.005)
        self.ui.attachProtocolButton.click()
        self.assertEqual(self.ui.protocolPathLineEdit.currentPath, "")
        self.assertIn("Carried by the acquisition 'cest'", self.ui.protocolNoteLabel.text)
        self.assertEqual(self.widget.logic.protocolOf(self.signal)["b1_uT"], 2.0)
        self.assertTrue(self.ui.applyButton.enabled)

    def test_whatDoesNotFitIsSaid(self):
        self.chooseInputs()
        self.typeOffsets("-5:1:5")
        self.assertIn("11 measurements, but 'cest' has 21 volumes", self.ui.protocolNoteLabel.text)
        self.typeOffsets("-5:0.5")
        self.assertIn("from:step:to", self.ui.protocolNoteLabel.text)
        self.typeOffsets("-5:0.5:5")
        self.measurement(0, "B1 (µT)").setText("strong")
        self.assertIn("'strong' is not a number", self.ui.protocolNoteLabel.text)
        self.assertEqual(self.measurement(0, "B1 (µT)").text(), "0")
        rows = [self.ui.settingsTable.isRowHidden(number) for number in range(self.ui.settingsTable.rowCount)]
        self.assertEqual(rows.count(True), 5)  # those of a pulse train
        self.setting("Saturation").setText("pulse_train")
        self.assertFalse(self.ui.settingsTable.isRowHidden(2))
        self.assertIn("n_pulses", self.ui.protocolNoteLabel.text)
        self.setting("Normalisation").setText("m1")
        self.assertIn("m0 or l2 or none", self.ui.protocolNoteLabel.text)

    def test_protocolIsSavedAndAnotherFileTakesItsPlace(self):
        self.chooseInputs()
        self.setting("Static field (T)").setText("9.4")
        path = os.path.join(self.directory, "saved.json")
        self.widget.protocol.save(path)
        with open(path) as file:
            self.assertEqual(json.load(file)["field_strength_T"], 9.4)
        self.assertIsInstance(self.widget.protocol.given(), dict)
        self.ui.protocolPathLineEdit.currentPath = path
        self.assertEqual(self.widget.protocol.given(), path)
        self.assertEqual(self.setting("Static field (T)").text(), "9.4")

    def test_editedProtocolBelongsToTheAcquisitionWhateverItIsCalled(self):
        import numpy as np

        from NeuroCESTLib.scene.geometry import Geometry
        from NeuroCESTLib.scene.sequences import array_to_sequence

        self.ui.signalSelector.setCurrentNode(self.signal)
        self.measurement(0, "B1 (µT)").setText("1.25")
        self.signal.SetName("visit 1")
        self.ui.folderNameLineEdit.text = "visit 1"  # any change of the parameters
        self.assertEqual(self.widget.protocol.given()["b1_uT"], 1.25)
        geometry = Geometry.of(self.reference)
        other = array_to_sequence(
            np.ones((21, *geometry.shape), np.float32), geometry, "visit 1", (2 * self.offsets).tolist()
        )
        self.assertEqual(other.GetName(), self.signal.GetName())
        self.ui.signalSelector.setCurrentNode(other)
        self.assertIsNone(self.widget.protocol.given())
        self.assertEqual(self.measurement(1, "Offset (ppm)").text(), "-10")

    def test_editedProtocolOfAnEarlierVersionIsKept(self):
        self.chooseInputs()
        self.measurement(0, "B1 (µT)").setText("1.25")
        node = self.widget.parameters.parameterNode
        node.SetAttribute("protocolEditedFrom", f"cest\n{self.protocolPath}")
        node.SetNodeReferenceID("protocolEditedFor", None)
        self.ui.folderNameLineEdit.text = "visit 1"
        self.assertEqual(self.widget.protocol.given()["b1_uT"], 1.25)

    def test_tablesSurviveSavingAndLoadingTheScene(self):
        self.chooseInputs()
        self.measurement(0, "B1 (µT)").setText("1.25")
        before = self.widget.protocol.given()
        path = os.path.join(self.directory, "scene.mrb")
        self.assertTrue(slicer.util.saveScene(path))
        slicer.mrmlScene.Clear()
        slicer.util.loadScene(path)
        self.assertEqual(self.widget.protocol.given(), before)
        self.assertEqual(self.measurement(7, "B1 (µT)").text(), "1.25")
