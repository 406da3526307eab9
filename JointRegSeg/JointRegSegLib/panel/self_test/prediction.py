"""Predictions of other networks than that of the tumour."""

# unittest's assertions, because the self-test also runs in the application, which has no pytest
# ruff: noqa: PT009

import os

import slicer

from .sample import SampleTest


class PredictionTest(SampleTest):
    """Chooses weights, reads what they can do, and predicts."""

    def saveStudyNetwork(self):
        """Save an untrained network of four tasks for voxels of 4 mm and return its path."""
        from JointRegSegLib.multitask.network import MultiTaskNetwork
        from JointRegSegLib.multitask.weights import save_study_weights
        from JointRegSegLib.network.configuration import NetworkConfig
        from JointRegSegLib.tasks.registry import study_task_from_dict

        config = NetworkConfig(
            modalities=("t1",),
            channels=(4, 8),
            encoder_convolutions=(1, 1),
            decoder_convolutions=(1,),
            registration=False,
            registration_level=0,
            auxiliary=0,
            stride=1,
        )
        tasks = [
            {"task": "tissue", "classes": {"gm": 1, "wm": 2}, "class_weights": [1, 1, 1]},
            {"task": "regression", "column": "age", "mean": 50, "sd": 10},
            {"task": "autoencoder", "code_size": 4},
            {"task": "super_resolution", "factor": [2, 2, 2]},
        ]
        network = MultiTaskNetwork(config, [study_task_from_dict(task, "test") for task in tasks])
        path = os.path.join(self.directory, "study.pt")
        return str(save_study_weights(path, network, {"preparation": {"spacing_mm": 4.0}}))

    def test_weightsOfThePackageAreOfferedFirstAndSayWhatTheyFind(self):
        from JointRegSegLib.multitask.shipped import SHIPPED

        self.ui.predictSection.collapsed = False  # a collapsed section hides its widgets
        choices = self.ui.predictModelComboBox
        parameters = self.widget.logic.getParameterNode()
        self.assertEqual([choices.itemData(n) for n in range(choices.count)], [*SHIPPED, ""])
        for number in range(len(SHIPPED)):
            choices.currentIndex = number
            self.assertEqual(parameters.predictModel, choices.itemData(number))
            self.assertIn("These weights find", self.ui.predictOfferLabel.text)
            self.assertTrue(self.ui.predictWeightsPathLineEdit.isHidden())
        choices.currentIndex = len(SHIPPED)
        self.assertNotIn(parameters.predictModel, SHIPPED)
        self.assertFalse(self.ui.predictWeightsPathLineEdit.isHidden())
        self.assertEqual(self.ui.predictOfferLabel.text, "")

    def test_weightsSayWhatTheyFindAndFindItAndThoseOfTheTumorAreRefused(self):
        ui = self.ui
        ui.predictModelComboBox.currentIndex = ui.predictModelComboBox.findData("")
        self.assertFalse(ui.predictButton.enabled)
        self.assertIn("Choose weights", ui.predictButton.toolTip)
        ui.predictWeightsPathLineEdit.currentPath = self.saveSmallNetwork()
        self.assertIn("weights of the joint task", ui.predictOfferLabel.text)
        self.assertFalse(ui.predictButton.enabled)
        ui.predictWeightsPathLineEdit.currentPath = self.saveStudyNetwork()
        for words in ("segmentation of", "age with its 95 % interval", "map of anomalies", "divided by 2 x 2 x 2"):
            self.assertIn(words, ui.predictOfferLabel.text)
        self.assertIn("that these weights know: T1", ui.predictButton.toolTip)
        ui.fixedT2Selector.setCurrentNode(self.studies["fixed"]["t2"])
        self.assertFalse(ui.predictButton.enabled)
        ui.fixedT1Selector.setCurrentNode(self.studies["fixed"]["t1"])
        self.assertTrue(ui.predictButton.enabled)
        ui.predictButton.click()
        self.assertIn("results are in the folder", ui.statusLabel.text)
        fine = slicer.util.getNode("super resolution t1")
        given = self.studies["fixed"]["t1"].GetSpacing()
        self.assertLess(fine.GetSpacing()[0], given[0])
        hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
        folder = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(fine))
        for name in ("tissue", "predictions", "anomaly", "reconstruction t1"):
            item = hierarchy.GetItemByDataNode(slicer.util.getNode(name))
            self.assertEqual(hierarchy.GetItemParent(item), folder, name)
