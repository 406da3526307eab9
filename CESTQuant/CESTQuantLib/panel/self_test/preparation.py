"""What is done to the spectra before they are quantified, relaxation maps, and the advanced settings."""

# unittest's assertions, because the self-test also runs in the application, which has no pytest
# ruff: noqa: PT009

import json
import os

import slicer

from .sample import SampleTest


class PreparationTest(SampleTest):
    """Prepares spectra, maps T1 and sets what is under Advanced."""

    def open(self, section):
        """Open a section, which is closed at first and hides its widgets then."""
        self.assertTrue(section.collapsed)
        section.collapsed = False
        self.addCleanup(setattr, section, "collapsed", True)

    def lastFit(self):
        """Return the arguments of the next fit, and the report of it."""
        import unittest.mock

        logic, calls = self.widget.logic, []
        fit = logic.fit

        def recorded(*given, **options):
            result = fit(*given, **options)
            calls.append((options, result.report))
            return result

        with unittest.mock.patch.object(logic, "fit", recorded):
            self.ui.applyButton.click()
        return calls[-1]

    def test_preparationIsOptionalAndRecorded(self):
        self.chooseInputs()
        _options, report = self.lastFit()
        self.assertNotIn("preparation", report)
        self.ui.denoisingCheckBox.checked = True
        self.ui.smoothingSpinBox.value = 0.6
        _options, report = self.lastFit()
        self.assertEqual(report["preparation"]["denoising"]["method"], "MP-PCA")
        self.assertEqual(report["preparation"]["smoothing"], {"width_ppm": 0.6})
        self.assertNotIn("motion", report["preparation"])
        self.assertIsNotNone(slicer.util.getNode("noise_sd"))

    def test_motionIsCorrectedBeforeTheFit(self):
        self.chooseInputs()
        self.ui.motionCorrectionCheckBox.checked = True
        options, report = self.lastFit()
        self.assertTrue(options["motionCorrection"])
        found = report["preparation"]["motion"]
        self.assertEqual(len(found["measurements"]), len(found["translations_mm"]))
        self.assertEqual(found["resampled"], [])  # the sample does not move

    def test_smoothingActsOnTheSpectrumUnderTheMouse(self):
        self.chooseInputs()
        place = self.widget.logic.spectra(
            self.signal, self.protocolPath, reference=self.reference
        ).geometry.ijk_to_ras @ (2, 2, 1, 1)
        measured = self.widget.spectrum.measured(tuple(place[:3])).signal
        self.ui.smoothingSpinBox.value = 1.0
        smoothed = self.widget.spectrum.measured(tuple(place[:3])).signal
        self.assertGreater(float(smoothed[10]), float(measured[10]) + 0.01)  # water

    def test_steadyStateNeedsT1(self):
        self.chooseInputs()
        self.assertTrue(self.ui.t1Selector.isHidden())
        self.ui.quassComboBox.currentIndex = self.ui.quassComboBox.findData("equilibrium")
        self.assertFalse(self.ui.t1Selector.isHidden())
        self.assertIn("Choose the T1 map", self.ui.applyButton.toolTip)
        self.ui.t1Selector.setCurrentNode(self.reference)
        self.assertNotIn("T1 map", self.ui.applyButton.toolTip)

    def test_t1MapIsComputedAndUsedAtOnce(self):
        import numpy as np

        from NeuroCESTLib.scene.geometry import Geometry
        from NeuroCESTLib.scene.sequences import array_to_sequence

        geometry, times = Geometry.of(self.reference), np.array([50.0, 200.0, 500.0, 1000.0, 2000.0, 4000.0])
        signal = 1000.0 * np.abs(1 - 2 * np.exp(-times / 1300.0))
        array = np.tile(signal[:, None, None, None], (1, *geometry.shape)).astype(np.float32)
        images = array_to_sequence(array, geometry, "recovery", range(1, 7), "measurement", "")
        self.chooseInputs("mtr-rex")
        self.open(self.ui.relaxationSection)
        self.assertIn("Choose the images", self.ui.relaxationButton.toolTip)
        self.ui.relaxationSignalSelector.setCurrentNode(images)
        self.ui.relaxationValuesLineEdit.text = "50, 200, 500"
        self.assertIn("3 values are typed, but 'recovery' has 6 volumes", self.ui.relaxationButton.toolTip)
        kinds = self.ui.relaxationKindComboBox
        kinds.currentIndex = kinds.findData("variable-flip-angle")
        self.assertFalse(self.ui.repetitionTimeSpinBox.isHidden())
        kinds.currentIndex = kinds.findData("inversion-recovery")
        self.assertTrue(self.ui.repetitionTimeSpinBox.isHidden())
        self.ui.relaxationValuesLineEdit.text = "50, 200, 500, 1000, 2000, 4000"
        self.ui.relaxationButton.click()
        chosen = self.widget.logic.getParameterNode().t1
        self.assertEqual(chosen.GetName(), "t1_s")
        self.assertAlmostEqual(float(slicer.util.arrayFromVolume(chosen).mean()), 1.3, delta=0.01)
        self.assertIn("used from now on", self.ui.statusLabel.text)

    def test_advancedSettingsReachTheFit(self):
        self.chooseInputs()
        self.open(self.ui.advancedSection)
        self.assertTrue(self.ui.dictionarySpinBox.isHidden())
        self.ui.threadsSpinBox.value = 1
        self.ui.noiseSpinBox.value = 0.004
        options, _report = self.lastFit()
        self.assertEqual((options["threads"], options["noise_sd"]), (1, 0.004))
        self.assertEqual((options["dictionaryEntries"], options["posterior"]), (None, False))

    def test_spatialPrior(self):
        self.chooseInputs("mtrasym")
        self.open(self.ui.advancedSection)
        self.assertTrue(self.ui.spatialPriorCheckBox.isHidden())
        self.chooseInputs("lorentzian")
        self.assertFalse(self.ui.spatialPriorCheckBox.isHidden())
        self.ui.spatialPriorCheckBox.checked = True
        options, report = self.lastFit()
        self.assertTrue(options["spatialPrior"])
        self.assertIn("spatial_prior edges", report)

    def waterAndAmide(self):
        """Return a model with which the spectrum of the sample can be fitted."""
        pool = {"name": "amide", "k_Hz": 50, "T1_s": 1.0, "T2_s": 0.1, "dw_ppm": 3.5}
        fitted = {"fit": True, "start": 0.001, "bounds": [0.0001, 0.02]}
        water = {"T1_s": 1.2, "T2_s": {"fit": True, "start": 0.06, "bounds": [0.005, 0.5]}}
        return {"water": water, "solutes": [{**pool, "fraction": fitted}], "semisolid": None}

    def writeProtocol(self):
        """Write a protocol that says what a model fit needs to know, and return its path."""
        offsets = self.widget.logic.offsetsOf(self.signal)
        known = {"field_strength_T": 3.0, "offsets_ppm": offsets, "b1_uT": 1.0, "saturation_time_s": 2.0}
        path = os.path.join(self.directory, "protocol.json")
        with open(path, "w") as file:
            json.dump(known, file)
        return path

    def textsDuring(self, work):
        """Return what the panel says while some work is done, as a user sees it."""
        import qt

        told, timer = set(), qt.QTimer()
        timer.setInterval(0)
        timer.connect("timeout()", lambda: told.add(self.ui.statusLabel.text))
        timer.start()
        try:
            work()
        finally:
            timer.stop()
        return told

    def test_posteriorOfTheRegions(self):
        import numpy as np

        from NeuroCESTLib.scene.geometry import Geometry
        from NeuroCESTLib.scene.segmentations import add_segmentation
        from NeuroCESTLib.scene.tables import table_columns

        self.chooseInputs("r1rho")
        self.open(self.ui.advancedSection)
        self.assertFalse(self.ui.posteriorCheckBox.isHidden())
        self.ui.posteriorCheckBox.checked = True
        self.assertIn("the posterior is that of their mean spectra", self.ui.applyButton.toolTip)
        geometry = Geometry.of(self.reference)
        mask = np.zeros(geometry.shape, bool)
        mask[1, 2:4, 2:4] = True
        regions = add_segmentation({"tumour": mask}, geometry, "regions")
        self.ui.segmentationSelector.setCurrentNode(regions)
        self.assertNotIn("the posterior", self.ui.applyButton.toolTip)
        self.assertTrue(self.widget.runs.wantsPosterior())
        self.ui.maskSelector.setCurrentNode(regions)
        self.widget.pools.keep("model", self.waterAndAmide())
        self.ui.protocolPathLineEdit.currentPath = self.writeProtocol()
        told = self.textsDuring(self.ui.applyButton.click)
        self.assertIn("tumour: Sampling the posterior", told)  # the window is alive and says so
        columns = table_columns(slicer.util.getNode("posterior"))
        self.assertEqual(set(columns["region"]), {"tumour"})
        row = columns["quantity"].index("amide_fraction")
        lower, median, upper = (columns[name][row] for name in ("lower", "median", "upper"))
        self.assertLess(lower, median)
        self.assertLess(median, upper)
        self.chooseInputs("lorentzian")
        self.assertTrue(self.ui.posteriorCheckBox.isHidden())
        self.assertFalse(self.widget.runs.wantsPosterior())
