"""Networks that are trained beside the application."""

# unittest's assertions, because the self-test also runs in the application, which has no pytest
# ruff: noqa: PT009

import json
import os
import time

import slicer

from .sample import SampleTest


class TrainingTest(SampleTest):
    """Trains a network in a process of its own."""

    LONGEST_S = 300
    """Time after which a process that does not end fails the test."""

    def setUp(self):
        """Open the section, which is closed at first."""
        super().setUp()
        self.ui.trainingSection.collapsed = False
        self.addCleanup(setattr, self.ui.trainingSection, "collapsed", True)
        self.addCleanup(self.widget.training.command.stop)

    def waitForTheEnd(self):
        end = time.monotonic() + self.LONGEST_S
        while self.widget.training.command.running and time.monotonic() < end:
            slicer.app.processEvents()
            time.sleep(0.02)
        self.assertFalse(self.widget.training.command.running)

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
        path = os.path.join(self.directory, "training.json")
        with open(path, "w") as file:
            json.dump(config, file)
        return path

    def test_networkIsTrainedBesideTheApplicationAndChosen(self):
        ui, training = self.ui, self.widget.training
        self.assertFalse(ui.startTrainingButton.enabled)
        self.assertIn("Choose a configuration", ui.startTrainingButton.toolTip)
        ui.trainingConfigPathLineEdit.currentPath = self.writeConfig()
        self.assertIn("Choose a folder", ui.startTrainingButton.toolTip)
        ui.trainingOutputPathLineEdit.currentPath = self.directory
        self.assertTrue(ui.trainingProgressBar.isHidden())
        ui.startTrainingButton.click()
        self.assertTrue(training.command.running)
        self.assertFalse(ui.startTrainingButton.enabled)
        self.assertFalse(ui.trainingProgressBar.isHidden())
        ui.stopTrainingButton.click()
        self.waitForTheEnd()
        self.assertEqual(self.widget.logic.getParameterNode().networkPath, "")
        self.assertTrue(ui.startTrainingButton.enabled)
        ui.startTrainingButton.click()
        self.waitForTheEnd()
        network = os.path.join(self.directory, "network.pt")
        self.assertIn("is chosen", ui.trainingNoteLabel.text, ui.trainingLog.plainText)
        self.assertEqual(self.widget.logic.getParameterNode().networkPath, network)

    def test_lossIsDrawnAndAFailedTrainingSaysWhy(self):
        training = self.widget.training
        self.ui.trainingConfigPathLineEdit.currentPath = self.writeConfig(targets=["creatine.fraction"])
        self.ui.trainingOutputPathLineEdit.currentPath = self.directory
        self.ui.startTrainingButton.click()
        for epoch, loss in ((1, 0.9), (2, 0.5), (3, 0.25)):  # as the command writes them
            training.onLine(f" {10 * epoch} % epoch {epoch}: loss {loss}, held out {2 * loss}")
        self.assertEqual(self.ui.trainingProgressBar.value, 30)
        chart = slicer.util.getNode("Training")
        series = [chart.GetNthPlotSeriesNode(number) for number in range(chart.GetNumberOfPlotSeriesNodes())]
        self.assertEqual([node.GetName() for node in series], ["training", "held out"])
        values = slicer.util.arrayFromTableColumn(series[1].GetTableNode(), "y")
        self.assertEqual(values.tolist(), [1.8, 1.0, 0.5])
        self.waitForTheEnd()
        self.assertIn("creatine", self.ui.trainingNoteLabel.text)
