"""Inputs, methods and their rows in the panel."""

# unittest's assertions, because the self-test also runs in the application, which has no pytest
# ruff: noqa: PT009

import os

import slicer

from .sample import SampleTest


class InputsTest(SampleTest):
    """Chooses inputs and methods."""

    def test_applySaysWhatIsMissing(self):
        self.ui.signalSelector.setCurrentNode(None)
        self.ui.protocolPathLineEdit.currentPath = ""
        self.assertFalse(self.ui.applyButton.enabled)
        self.assertIn("acquisition", self.ui.applyButton.toolTip)
        self.assertIn("protocol", self.ui.applyButton.toolTip)
        self.ui.protocolPathLineEdit.currentPath = os.path.join(self.directory, "absent.json")
        self.assertIn("absent.json", self.ui.applyButton.toolTip)
        self.chooseInputs()
        self.assertTrue(self.ui.applyButton.enabled)
        self.assertNotIn("Choose", self.ui.applyButton.toolTip)
        self.chooseInputs("r1rho")
        self.assertFalse(self.ui.applyButton.enabled)
        self.assertIn("model", self.ui.applyButton.toolTip)

    def test_firstAcquisitionIsPreselected(self):
        self.assertIs(self.ui.signalSelector.currentNode(), self.signal)

    def test_inputsAreChosenByNameOnceAndCanBeCorrected(self):
        parameters = self.widget.logic.getParameterNode()
        self.assertIs(parameters.reference, self.reference)
        self.assertIn("'m0'", self.ui.chosenByNameLabel.text)
        parameters.reference = None
        parameters.method = "mtrasym"
        self.assertIsNone(parameters.reference)

    def test_inputsThatWereChosenByNameFollowTheAcquisition(self):
        def add(kind, name):
            return slicer.mrmlScene.AddNewNodeByClass(f"vtkMRML{kind}Node", name)

        parameters = self.widget.logic.getParameterNode()
        parameters.reference = None
        visits = [add("Sequence", f"visit {number}") for number in (1, 2, 3)]
        m0 = [add("ScalarVolume", f"visit {number} m0") for number in (1, 2)]
        b0 = [add("ScalarVolume", f"visit {number} b0") for number in (1, 2)]
        wasabi = [add("Sequence", f"visit {number} wasabi") for number in (1, 2)]
        own = add("ScalarVolume", "B1 of the day")
        slicer.mrmlScene.RemoveNode(self.reference)
        for number in (0, 1):
            self.ui.signalSelector.setCurrentNode(visits[number])
            chosen = (parameters.reference, parameters.b0, parameters.fieldSignal)
            self.assertEqual(chosen, (m0[number], b0[number], wasabi[number]))
            parameters.b1 = own
        self.assertEqual(
            self.ui.chosenByNameLabel.text,
            "Chosen by name: 'visit 2 wasabi', 'visit 2 m0', 'visit 2 b0'. Kept as chosen before: 'B1 of the day'.",
        )
        self.ui.signalSelector.setCurrentNode(visits[2])  # nothing in the scene goes with it
        self.assertEqual((parameters.reference, parameters.b0, parameters.b1), (None, None, own))

    def test_selectorsFollowTheScene(self):
        self.assertEqual(self.ui.signalSelector.nodeCount(), 1)
        self.assertEqual(self.ui.t1Selector.nodeCount(), 1)
        added = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "t1")
        self.assertEqual(self.ui.t1Selector.nodeCount(), 2)
        self.ui.t1Selector.setCurrentNode(added)
        self.assertIs(self.widget.logic.getParameterNode().t1, added)
        slicer.mrmlScene.RemoveNode(added)
        self.assertIsNone(self.ui.t1Selector.currentNode())
        self.assertIsNone(self.widget.logic.getParameterNode().t1)

    def test_widgetsAndParametersFollowEachOther(self):
        parameters = self.widget.logic.getParameterNode()
        self.chooseInputs("mtrasym")
        self.assertEqual(parameters.method, "mtrasym")
        self.assertEqual(parameters.protocolPath, self.protocolPath)
        self.assertIs(parameters.reference, self.reference)
        self.ui.asymmetryOffsetSpinBox.value = 2.0
        self.ui.folderNameLineEdit.text = "visit 1"
        self.assertEqual(parameters.asymmetryOffset_ppm, 2.0)
        self.assertEqual(parameters.folderName, "visit 1")
        parameters.method = "lorentzian"
        parameters.lorentzianPreset = "7T"
        parameters.mask = self.reference
        self.assertEqual(self.ui.methodComboBox.currentText, "Lorentzian fit")
        self.assertEqual(self.ui.lorentzianPresetComboBox.currentText, "7 T")
        self.assertIs(self.ui.maskSelector.currentNode(), self.reference)

    def test_onlyTheInputsThatTheMethodUsesAreShown(self):
        for method, used in (
            ("mtrasym", {"b0", "b1", "asymmetry-offset", "power"}),
            ("lorentzian", {"b0", "b1", "lorentzian", "power"}),
            ("bloch-mcconnell", {"b0", "b1", "t1", "model"}),
            ("dictionary", {"config"}),
        ):
            self.chooseInputs(method)
            rows = {name: getattr(self.ui, widget) for name, (_parameter, widget) in self.widget.methods.INPUTS.items()}
            self.assertEqual({name for name, row in rows.items() if not row.isHidden()}, used)
            labels = {name: getattr(self.ui, f"{rows[name].name}Label") for name in rows}
            self.assertEqual({name for name, label in labels.items() if not label.isHidden()}, used)
        self.assertTrue(self.ui.mapsSection.isHidden())
        self.assertTrue(self.ui.poolsSection.isHidden())
        self.assertFalse(self.ui.modelSection.isHidden())

    def test_closingTheSceneEmptiesThePanel(self):
        self.chooseInputs()
        self.ui.folderNameLineEdit.text = "visit 1"
        slicer.mrmlScene.Clear()
        self.assertIsNone(self.ui.signalSelector.currentNode())
        self.assertEqual(self.ui.folderNameLineEdit.text, "")
        self.assertEqual(self.ui.protocolPathLineEdit.currentPath, "")
        self.assertFalse(self.ui.applyButton.enabled)

    def test_parametersSurviveSavingAndLoadingTheScene(self):
        self.chooseInputs()
        self.ui.asymmetryOffsetSpinBox.value = 2.0
        self.ui.folderNameLineEdit.text = "visit 1"
        path = os.path.join(self.directory, "scene.mrb")
        self.assertTrue(slicer.util.saveScene(path))
        slicer.mrmlScene.Clear()
        slicer.util.loadScene(path)
        self.assertEqual(self.ui.signalSelector.currentNode().GetName(), "cest")
        self.assertEqual(self.ui.referenceSelector.currentNode().GetName(), "m0")
        self.assertEqual(self.ui.protocolPathLineEdit.currentPath, self.protocolPath)
        self.assertEqual(self.ui.methodComboBox.currentData, "mtrasym")
        self.assertEqual(self.ui.asymmetryOffsetSpinBox.value, 2.0)
        self.assertEqual(self.ui.folderNameLineEdit.text, "visit 1")
        self.ui.applyButton.click()
        self.assertIsNotNone(slicer.util.getNode("*mtr_asym*"))

    def test_aPathCanBeClearedAndTakeAnyEnding(self):
        parameters = self.widget.logic.getParameterNode()
        field = self.ui.protocolPathLineEdit
        for path in (self.protocolPath, self.writeOffsets("offsets.list", [0.0]), ""):
            field.comboBox().setEditText(path)  # as typed by the user
            self.assertEqual(parameters.protocolPath, path)
