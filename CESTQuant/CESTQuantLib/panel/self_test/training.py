"""Networks that are trained beside the application."""

# unittest's assertions, because the self-test also runs in the application, which has no pytest
# ruff: noqa: PT009

import json
import os

import slicer

from NeuroCESTLib.panel.self_test import TrainingSteps

from .sample import SampleTest


class TrainingTest(TrainingSteps, SampleTest):
    """Trains a network in a process of its own."""

    CHOSEN = "networkPath"

    def writeConfig(self, **changes):
        pool = {"name": "amide", "T1_s": 1.0, "T2_s": 0.05, "dw_ppm": 3.5, "k_Hz": 100.0}
        config = {
            "protocol": {"field_strength_T": 7.0, "offsets_ppm": [-4, 0, 4], "b1_uT": 1.0, "saturation_time_s": 2.0},
            "tissue": {
                "water": {"T1_s": {"uniform": [1.0, 2.0]}, "T2_s": 0.05},
                "solutes": [{**pool, "fraction": {"uniform": [0.0005, 0.003]}}],
            },
            "targets": ["amide.fraction"],
            "samples": 200,
            "epochs": 2,
            "network": {"width": 8},
            **changes,
        }
        return self.writeJson("training.json", config)

    def writeNetwork(self):
        """Write a file in place of a network, which is read only when it is used."""
        return self.writeJson("any.pt", {})

    def test_networkIsTrainedBesideTheApplicationAndChosen(self):
        ui = self.ui
        self.assertStartNeedsConfigurationAndFolder(self.writeConfig(), self.directory)
        self.assertStarted()
        ui.stopTrainingButton.click()
        self.waitForTheEnd()
        self.assertEqual(self.widget.logic.getParameterNode().networkPath, "")
        self.assertTrue(ui.startTrainingButton.enabled)
        ui.startTrainingButton.click()
        self.waitForTheEnd()
        network = os.path.join(self.directory, "network.pt")
        self.assertIn("is chosen", ui.trainingNoteLabel.text, ui.trainingLog.plainText)
        self.assertEqual(self.widget.logic.getParameterNode().networkPath, network)

    def test_scheduleIsOptimizedBesideTheApplicationAndDrawn(self):
        ui, training = self.ui, self.widget.training
        config = self.writeConfig(
            trainable=["b1_uT", "offsets_ppm"],
            limits={"b1_peak_uT": 6.0},
            samples=64,
            epochs=1,
            crlb={"steps": 4, "starts": 1, "first_steps": 2, "voxels": 8},
            held_out=64,
            batch_size=32,
        )
        ui.trainingKindComboBox.currentIndex = ui.trainingKindComboBox.findData("optimize-schedule")
        self.addCleanup(setattr, ui.trainingKindComboBox, "currentIndex", 0)
        ui.trainingConfigPathLineEdit.currentPath = config
        output = os.path.join(self.directory, "schedule")
        ui.trainingOutputPathLineEdit.currentPath = output
        self.assertTrue(ui.trainingQuantityComboBox.isHidden())
        training.look.setInterval(10)
        ui.startTrainingButton.click()
        self.waitForTheEnd()
        self.assertIn("is chosen", ui.trainingNoteLabel.text, ui.trainingLog.plainText)
        self.assertEqual(self.widget.logic.getParameterNode().networkPath, os.path.join(output, "network.pt"))
        self.assertFalse(ui.trainingQuantityComboBox.isHidden())
        with open(os.path.join(output, "report.json")) as file:
            evolution = json.load(file)["summary"]["evolution"]
        ui.trainingQuantityComboBox.currentIndex = ui.trainingQuantityComboBox.findData("b1_uT")
        drawn = self.drawnIn("Schedule")
        self.assertEqual(drawn["start"], evolution[0]["schedule"]["b1_uT"])
        self.assertEqual(drawn["now"], evolution[-1]["schedule"]["b1_uT"])
        self.assertNotEqual(drawn["start"], drawn["now"])
        self.assertEqual(slicer.util.getNode("Schedule").GetYAxisTitle(), "B1 (µT)")
        self.assertTrue(self.drawnIn("Training"))

    def test_lossIsDrawnAndAFailedTrainingSaysWhy(self):
        training = self.widget.training
        self.ui.trainingConfigPathLineEdit.currentPath = self.writeConfig(targets=["creatine.fraction"])
        self.ui.trainingOutputPathLineEdit.currentPath = self.directory
        self.ui.startTrainingButton.click()
        for epoch, loss in ((1, 0.9), (2, 0.5), (3, 0.25)):  # as the command writes them
            training.onLine(f" {10 * epoch} % epoch {epoch}: loss {loss}, held out {2 * loss}")
        self.assertEqual(self.ui.trainingProgressBar.value, 30)
        drawn = self.drawnIn("Training")
        self.assertEqual(list(drawn), ["training", "held out"])
        self.assertEqual(drawn["held out"], [1.8, 1.0, 0.5])
        self.waitForTheEnd()
        self.assertIn("creatine", self.ui.trainingNoteLabel.text)
