"""Networks that are trained beside the application."""

# unittest's assertions, because the self-test also runs in the application, which has no pytest
# ruff: noqa: PT009

import os

from NeuroCESTLib.panel.self_test import TrainingSteps

from .sample import SampleTest


class TrainingTest(TrainingSteps, SampleTest):
    """Trains a network in a process of its own."""

    CHOSEN = "weightsPath"

    def writeConfig(self, **training):
        """Write the configuration of a tiny network that learns from synthetic patients on coarse voxels."""
        config = {
            "network": {
                "base": "neurocest",
                "channels": [4, 8],
                "encoder_convolutions": [1, 1],
                "decoder_convolutions": [1],
                "registration_level": 0,
                "auxiliary": 0,
                "stride": 1,
            },
            "data": {
                "path": "synthetic",
                "length": 2,
                "validation_pairs": 1,
                "augmentation": None,
                "synthetic": {"spacing_mm": 8.0},
            },
            "training": {
                "epochs": 1,
                "batch_size": 1,
                "validate_every_batches": 2,
                "pictures": 0,
                "workers": 0,
                "device": "cpu",
                "precision": "float32",
                **training,
            },
        }
        return self.writeJson("training.json", config)

    def writeNetwork(self):
        """Write an untrained network."""
        return self.saveSmallNetwork()

    def test_networkIsTrainedBesideTheApplicationAndChosen(self):
        ui, training = self.ui, self.widget.training
        output = os.path.join(self.directory, "run")
        self.assertStartNeedsConfigurationAndFolder(self.writeConfig(), output)
        self.assertStarted()
        self.waitForTheEnd()
        weights = os.path.join(output, "weights.pt")
        self.assertIn("is chosen", ui.trainingNoteLabel.text, ui.trainingLog.plainText)
        self.assertEqual(self.widget.logic.getParameterNode().weightsPath, weights)
        self.assertIn("--resume", training.arguments())

    def test_stoppedTrainingSaysThatItCanContinue(self):
        self.ui.trainingConfigPathLineEdit.currentPath = self.writeConfig()
        self.ui.trainingOutputPathLineEdit.currentPath = os.path.join(self.directory, "run")
        self.ui.startTrainingButton.click()
        self.ui.stopTrainingButton.click()
        self.waitForTheEnd()
        self.assertIn("Start continues", self.ui.trainingNoteLabel.text)
        self.assertEqual(self.widget.logic.getParameterNode().weightsPath, "")
        self.assertTrue(self.ui.startTrainingButton.enabled)

    def test_lossIsDrawnAndAFailedTrainingSaysWhy(self):
        training = self.widget.training
        self.ui.trainingConfigPathLineEdit.currentPath = self.writeConfig(optimiser="newton")
        self.ui.trainingOutputPathLineEdit.currentPath = os.path.join(self.directory, "run")
        self.ui.startTrainingButton.click()
        for step, loss in ((1, 0.9), (2, 0.5), (3, 0.25)):  # as the command writes them
            training.onLine(f" {10 * step} % step {step}: loss {loss}, Dice {1 - loss:.3f}, 0.10 s per step")
        self.assertEqual(self.ui.trainingProgressBar.value, 30)
        drawn = self.drawnIn("Training")
        self.assertEqual(list(drawn), ["training loss", "Dice of the validation"])
        self.assertEqual(drawn["Dice of the validation"], [0.1, 0.5, 0.75])
        self.waitForTheEnd()
        self.assertIn("newton", self.ui.trainingNoteLabel.text)

    def test_bundledConfigurationNeedsATableOfStudies(self):
        choices = self.ui.trainingPresetComboBox
        choices.currentIndex = choices.findData("neurocest")
        self.addCleanup(setattr, choices, "currentIndex", 0)
        self.assertTrue(self.ui.trainingConfigPathLineEdit.isHidden())
        self.assertIn("table of studies", self.ui.startTrainingButton.toolTip)
        manifest = os.path.join(self.directory, "cohort.csv")
        self.ui.trainingManifestPathLineEdit.currentPath = manifest
        self.assertIn("does not exist", self.ui.startTrainingButton.toolTip)
        with open(manifest, "w") as file:
            file.write("subject,visit,t1\n")
        self.ui.trainingOutputPathLineEdit.currentPath = self.directory
        self.assertTrue(self.ui.startTrainingButton.enabled)
        self.assertEqual(self.widget.training.arguments()[:3], ["train", "--config", "neurocest"])
        self.assertIn(manifest, self.widget.training.arguments())
