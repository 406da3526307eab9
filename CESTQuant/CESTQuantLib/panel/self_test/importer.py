"""Scanner files that become an acquisition."""

# unittest's assertions, because the self-test also runs in the application, which has no pytest
# ruff: noqa: PT009, PT027

import json
import os

import slicer

from .sample import SampleTest


class ImporterTest(SampleTest):
    """Imports a series and fills in what its files do not say."""

    def writeScan(self, name, **known):
        """Write a 4-D NIfTI file of M0 and the spectrum of the sample, with a JSON file beside it."""
        import numpy as np
        import SimpleITK as sitk

        spectrum = 1000.0 * np.array([1.0, *self.spectrum], np.float32)
        signal = np.tile(spectrum[:, None, None, None], (1, 2, 4, 4))
        sitk.WriteImage(sitk.GetImageFromArray(signal, isVector=False), os.path.join(self.directory, f"{name}.nii.gz"))
        with open(os.path.join(self.directory, f"{name}.json"), "w") as file:
            json.dump(known, file)

    def fillIn(self, key, text):
        """Type a value into the table of open values, as a user does."""
        table = self.ui.openValuesTable
        headings = [table.verticalHeaderItem(row).text() for row in range(table.rowCount)]
        table.item(headings.index(key), 0).setText(text)

    def openValues(self):
        table = self.ui.openValuesTable
        return [table.verticalHeaderItem(row).text() for row in range(table.rowCount)]

    def test_seriesIsListedImportedAndFilledIn(self):
        ui, parameters = self.ui, self.widget.logic.getParameterNode()
        ui.importSection.collapsed = False
        self.addCleanup(setattr, ui.importSection, "collapsed", True)
        self.assertIn("Choose the folder", ui.findSeriesButton.toolTip)
        self.writeScan("sub-01_T1w")
        self.writeScan("sub-01_cest", MagneticFieldStrength=3.0)
        ui.importSourcePathLineEdit.currentPath = self.directory
        self.assertFalse(ui.importButton.enabled)
        ui.findSeriesButton.click()
        self.assertEqual(ui.seriesTable.item(1, 0).text(), "sub-01_cest.nii.gz")
        self.assertIn("2 series, 1 of them of CEST", ui.statusLabel.text)
        ui.importButton.click()  # the series of CEST is chosen
        self.assertEqual(parameters.signal.GetNumberOfDataNodes(), 22)
        self.assertIn("fill in", ui.statusLabel.text)
        self.assertFalse(ui.openValuesTable.isHidden())
        self.assertEqual(self.openValues(), ["Offset (ppm)", "B1 (µT)", "Saturation", "Saturation (s)"])
        self.fillIn("Offset (ppm)", "-5:0.5:4")
        self.assertIn("19 offsets do not fit 22 volumes", ui.importNoteLabel.text)
        self.assertFalse(self.widget.logic.hasProtocol(parameters.signal))
        self.fillIn("Offset (ppm)", "-300, -5:0.5:5")
        self.fillIn("Saturation", "pulse_train")
        self.assertEqual(self.openValues(), ["B1 (µT)", "Pulses", "Pulse duration (s)", "Pulse shape"])
        self.fillIn("B1 (µT)", "2 uT")
        self.assertIn("is not a number", ui.importNoteLabel.text)
        for key, text in (("B1 (µT)", "2"), ("Pulses", "30"), ("Pulse duration (s)", "0.05"), ("Pulse shape", "block")):
            self.fillIn(key, text)
        self.assertTrue(ui.openValuesTable.isHidden())
        protocol = self.widget.logic.protocolOf(parameters.signal)
        self.assertEqual(
            (protocol["b1_uT"], protocol["n_pulses"], protocol["offsets_ppm"][:2]), (2.0, 30, [-300.0, -5.0])
        )
        ui.referenceSelector.setCurrentNode(None)  # M0 is the first measurement
        ui.methodComboBox.currentIndex = ui.methodComboBox.findData("mtrasym")
        ui.applyButton.click()
        values = slicer.util.arrayFromVolume(slicer.util.getNode("*mtr_asym*"))
        self.assertAlmostEqual(float(values.mean()), self.expectedAsymmetry, delta=0.01)

    def writeDicom(self, name, number, values):
        """Write a DICOM series with two slices for each value, and M0 of 1000 in front."""
        import numpy as np
        import SimpleITK as sitk

        folder = os.path.join(self.directory, "dicom")
        os.makedirs(folder, exist_ok=True)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        for place, value in enumerate(2 * [*values]):
            slice_number, measurement = divmod(place, len(values))
            image = sitk.GetImageFromArray(np.full((1, 4, 4), round(1000 * value), np.uint16))
            image.SetSpacing((2.0, 2.0, 5.0))
            image.SetOrigin((0.0, 0.0, 5.0 * slice_number))
            for tag, text in {
                "0008|0060": "MR",
                "0008|0070": "SIEMENS",
                "0008|103e": name,
                "0018|0087": "3",
                "0020|000d": "1.2.3",
                "0020|000e": f"1.2.3.{number}",
                "0020|0011": f"{number}",
                "0020|0012": f"{measurement + 1}",
                "0020|0013": f"{1 + 2 * measurement + slice_number}",
            }.items():
                image.SetMetaData(tag, text)
            writer.SetFileName(os.path.join(folder, f"{name}_{place:03d}.dcm"))
            writer.Execute(image)
        return folder

    def test_dicomSeriesIsImportedWithOffsetsFromATextFile(self):
        ui = self.ui
        ui.importSection.collapsed = False
        self.addCleanup(setattr, ui.importSection, "collapsed", True)
        self.writeDicom("t1_mprage", 3, [0.7])
        ui.importSourcePathLineEdit.currentPath = self.writeDicom("cest_apt", 7, [1.0, *self.spectrum])
        ui.findSeriesButton.click()
        self.assertEqual(ui.seriesTable.rowCount, 2)
        (chosen,) = self.widget.importer.selected()
        self.assertIn("cest_apt", chosen.title)
        ui.importOffsetsPathLineEdit.currentPath = self.writeOffsets("typed.txt", [-300.0, *self.offsets])
        ui.importButton.click()
        signal = self.widget.logic.getParameterNode().signal
        self.assertEqual(signal.GetNumberOfDataNodes(), 22)
        volume = signal.GetNthDataNode(1)
        self.assertEqual(volume.GetImageData().GetDimensions(), (4, 4, 2))
        self.assertEqual([round(step) for step in volume.GetSpacing()], [2, 2, 5])
        self.assertAlmostEqual(
            float(slicer.util.arrayFromVolume(volume).mean()), 1000 * float(self.spectrum[0]), delta=1.0
        )
        self.assertNotIn("Offset (ppm)", self.openValues())
        for key, text in (("B1 (µT)", "2"), ("Saturation", "cw"), ("Saturation (s)", "1")):
            self.fillIn(key, text)
        self.assertEqual(self.widget.logic.protocolOf(signal)["offsets_ppm"][:2], [-300.0, -5.0])
        ui.referenceSelector.setCurrentNode(None)
        ui.methodComboBox.currentIndex = ui.methodComboBox.findData("mtrasym")
        ui.applyButton.click()
        values = slicer.util.arrayFromVolume(slicer.util.getNode("*mtr_asym*"))
        self.assertAlmostEqual(float(values.mean()), self.expectedAsymmetry, delta=0.01)

    def test_seriesWithAGapAreNotJoined(self):
        ui = self.ui
        ui.importSection.collapsed = False
        self.addCleanup(setattr, ui.importSection, "collapsed", True)
        for number in (3, 4, 5):
            folder = self.writeDicom(f"cest_{number}", number, [1.0])
        ui.importSourcePathLineEdit.currentPath = folder
        ui.findSeriesButton.click()
        ui.seriesTable.item(2, 0).setSelected(True)
        self.assertFalse(ui.importButton.enabled)
        self.assertIn("series 3 to 5 are joined", ui.importButton.toolTip)
        self.assertIn("series 3 to 5 are joined", ui.importNoteLabel.text)
        ui.seriesTable.item(1, 0).setSelected(True)
        self.assertTrue(ui.importButton.enabled)
        self.assertEqual(ui.importNoteLabel.text, "")

    def test_scansOfParaVisionAreNotJoined(self):
        ui = self.ui
        ui.importSection.collapsed = False
        self.addCleanup(setattr, ui.importSection, "collapsed", True)
        for number in ("4", "5"):
            os.makedirs(os.path.join(self.directory, number))
            with open(os.path.join(self.directory, number, "method"), "w") as file:
                file.write("##$Method=( 65 )\n<Bruker:RARE>\n##END=\n")
        ui.importSourcePathLineEdit.currentPath = self.directory
        ui.findSeriesButton.click()
        self.assertTrue(ui.importButton.enabled)
        ui.seriesTable.item(1, 0).setSelected(True)
        self.assertFalse(ui.importButton.enabled)
        self.assertIn("only DICOM series with numbers can be joined", ui.importNoteLabel.text)

    def test_leavingTheModuleDuringAnImportLosesNothing(self):
        self.writeScan("sub-01_cest", MagneticFieldStrength=3.0)
        self.ui.importSourcePathLineEdit.currentPath = self.directory
        self.ui.findSeriesButton.click()
        importScan = self.widget.logic.importScan

        def importAndLeave(*arguments, **options):
            imported = importScan(*arguments, **options)
            self.widget.exit()
            return imported

        self.widget.logic.importScan = importAndLeave
        self.addCleanup(setattr, self.widget.logic, "importScan", importScan)
        self.ui.importButton.click()
        self.assertIn("is in the scene", self.ui.statusLabel.text)
        self.widget.enter()
        self.assertEqual(self.ui.signalSelector.currentNode().GetNumberOfDataNodes(), 22)

    def test_folderWithoutScansSaysWhatToGive(self):
        import unittest.mock

        self.ui.importSourcePathLineEdit.currentPath = self.directory
        with unittest.mock.patch.object(slicer.util, "errorDisplay"), self.assertRaisesRegex(ValueError, "ParaVision"):
            self.widget.work(self.widget.importer.find)
        self.assertFalse(self.ui.importButton.enabled)
