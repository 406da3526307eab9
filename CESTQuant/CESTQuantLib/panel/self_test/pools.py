"""The table of the pools: presets, typed values, files, and what the fit gets."""

# unittest's assertions, because the self-test also runs in the application, which has no pytest
# ruff: noqa: PT009

import json
import os

import slicer

from .sample import SampleTest


class PoolsTest(SampleTest):
    """Edits models in the table of the pools."""

    def cell(self, row, title):
        """Return the item of a cell, by the name of the pool and the heading of the column."""
        table = self.ui.poolTable
        headings = [table.horizontalHeaderItem(number).text() for number in range(table.columnCount)]
        names = [table.item(number, 0).text() for number in range(table.rowCount)]
        return table.item(names.index(row), headings.index(title))

    def select(self, row, title):
        """Click on a cell, which shows its parts under the table."""
        self.ui.poolTable.setCurrentItem(self.cell(row, title))

    def choosePreset(self, name):
        """Choose a model to start from, as with the mouse."""
        choices = self.ui.modelPresetComboBox
        choices.currentIndex = choices.findData(name)
        self.widget.pools.onPresetChosen(choices.currentIndex)

    def test_modelStartsFromAPresetAndIsEditedInPlace(self):
        self.chooseInputs("r1rho")
        self.assertIn("Choose a tissue model", self.ui.applyButton.toolTip)
        self.assertTrue(self.ui.poolTable.isHidden())
        self.choosePreset("white matter 3T")
        self.assertFalse(self.ui.poolTable.isHidden())
        self.assertNotIn("Choose a tissue model", self.ui.applyButton.toolTip)
        self.assertIn("Stanisz", self.ui.poolsNoteLabel.text)
        self.assertEqual(self.cell("water", "T1 (s)").text(), "1.084")
        self.assertEqual(self.cell("semisolid", "Lineshape").text(), "superlorentzian")
        self.cell("water", "T1 (s)").setText("from t1")
        self.assertIn("Choose the T1 map: the model refers to it.", self.ui.applyButton.toolTip)
        self.ui.t1Selector.setCurrentNode(self.reference)
        self.assertNotIn("T1 map", self.ui.applyButton.toolTip)
        self.cell("amide", "Rate (Hz)").setText("60 [20, 200] prior 60 ± 10")
        self.cell("amide", "Pool").setText("APT")
        model = self.widget.methods.options()["model"]
        self.assertEqual(model["water"]["T1_s"], {"map": "t1"})
        self.assertEqual(model["solutes"][0]["name"], "APT")
        self.assertEqual(
            model["solutes"][0]["k_Hz"],
            {"fit": True, "start": 60.0, "bounds": [20.0, 200.0], "prior": {"mean": 60.0, "sd": 10.0}},
        )

    def test_whatCannotBeAValueIsRefusedAndSaid(self):
        self.chooseInputs("r1rho")
        self.choosePreset("white matter 3T")
        before = self.widget.methods.options()["model"]
        for text, reason in (("fast", "type a number"), ("5 [1, 2]", "outside its bounds"), ("-1", "negative")):
            self.cell("amide", "Rate (Hz)").setText(text)
            self.assertIn(reason, self.ui.poolsNoteLabel.text)
            self.assertIn("amide, Rate (Hz)", self.ui.poolsNoteLabel.text)
            self.assertEqual(self.cell("amide", "Rate (Hz)").text(), "50")
        self.cell("amide", "Pool").setText("noe")
        self.assertIn("used already", self.ui.poolsNoteLabel.text)
        self.assertEqual(self.widget.methods.options()["model"], before)

    def test_partsOfAValueAreEditedUnderTheTable(self):
        ui = self.ui
        self.chooseInputs("r1rho")
        self.choosePreset("creatine phantom 7T")
        self.select("creatine", "T2 (s)")
        self.assertEqual(ui.cellBox.title, "creatine: T2 (s)")
        self.assertEqual((ui.cellKindComboBox.currentData, ui.cellValueLineEdit.text), ("fixed", "0.1"))
        self.assertTrue(ui.cellLowerLineEdit.isHidden())
        ui.cellKindComboBox.currentIndex = ui.cellKindComboBox.findData("fitted")
        self.widget.poolValue.onKindChosen(ui.cellKindComboBox.currentIndex)
        self.assertFalse(ui.cellLowerLineEdit.isHidden())
        self.assertEqual(self.cell("creatine", "T2 (s)").text(), "0.1 [0.05, 0.2]")
        ui.cellLowerLineEdit.text = "0.01"
        self.widget.poolValue.onCellEdited()
        self.assertEqual(self.cell("creatine", "T2 (s)").text(), "0.1 [0.01, 0.2]")
        ui.cellKindComboBox.currentIndex = ui.cellKindComboBox.findData("map")
        self.widget.poolValue.onKindChosen(ui.cellKindComboBox.currentIndex)
        ui.cellMapComboBox.setEditText("t2.nii.gz")
        self.assertEqual(self.widget.methods.options()["model"]["solutes"][0]["T2_s"], {"map": "t2.nii.gz"})

    def test_poolsAreAddedAndRemoved(self):
        self.chooseInputs("bloch-mcconnell")
        self.choosePreset("creatine phantom 7T")
        self.assertFalse(self.ui.addSemisolidButton.isHidden())
        self.ui.addSemisolidButton.click()
        self.assertTrue(self.ui.addSemisolidButton.isHidden())
        self.ui.addPoolButton.click()
        self.assertEqual(self.cell("pool1", "Shift (ppm)").text(), "2")
        self.select("creatine", "Pool")
        self.ui.removePoolButton.click()
        model = self.widget.methods.options()["model"]
        self.assertEqual([pool["name"] for pool in model["solutes"]], ["pool1"])
        self.assertEqual(model["semisolid"]["lineshape"], "superlorentzian")
        self.select("water", "Pool")
        self.ui.removePoolButton.click()
        self.assertIn("'water' cannot be removed", self.ui.poolsNoteLabel.text)

    def test_modelFileIsReadIntoTheTableAndSavedFromIt(self):
        path, saved = (os.path.join(self.directory, name) for name in ("model.json", "saved.json"))
        pool = {"name": "amide", "fraction": 0.001, "k_Hz": 50, "T1_s": 1, "T2_s": 0.1, "dw_ppm": 3.5}
        model = {"water": {"T1_s": {"map": "t1.nii"}, "T2_s": 0.1}, "solutes": [pool], "semisolid": None}
        with open(path, "w") as file:
            json.dump(model, file)
        open(os.path.join(self.directory, "t1.nii"), "w").close()
        self.chooseInputs("r1rho")
        self.ui.modelPathLineEdit.currentPath = path
        self.assertEqual(self.widget.methods.options()["model"], path)  # as long as nothing is edited
        self.cell("amide", "Fraction").setText("0.001 [0, 0.01]")
        self.widget.pools.save(saved)
        with open(saved) as file:
            written = json.load(file)
        self.assertEqual(written, self.widget.methods.options()["model"])
        self.assertEqual(written["solutes"][0]["fraction"], {"fit": True, "start": 0.001, "bounds": [0.0, 0.01]})
        self.assertEqual(written["water"]["T1_s"]["map"], os.path.join(self.directory, "t1.nii"))
        self.ui.modelPathLineEdit.currentPath = saved  # another file takes the place of what was edited
        self.assertEqual(self.widget.methods.options()["model"], saved)
        with open(path, "w") as file:
            file.write('{"water": 3}')
        self.ui.modelPathLineEdit.currentPath = path
        self.assertIn("not a model", self.ui.poolsNoteLabel.text)

    def test_modelFileThatChangesOnDiskIsShownAsItIsNow(self):
        from CESTQuantLib.formats.presets import model_values

        def write(rate_Hz):
            model = json.loads(json.dumps(model_values("digital phantom 3T")))
            model["solutes"][0]["k_Hz"] = rate_Hz
            with open(path, "w", encoding="utf-8") as file:
                json.dump(model, file)
            return model["solutes"][0]["name"]

        path, saved = (os.path.join(self.directory, name) for name in ("model.json", "saved.json"))
        name = write(50.0)
        self.chooseInputs("r1rho")
        self.ui.modelPathLineEdit.currentPath = path
        self.assertEqual(self.cell(name, "Rate (Hz)").text(), "50")
        write(64.0)
        self.widget.pools.save(saved)
        with open(saved, encoding="utf-8") as file:
            self.assertEqual(json.load(file)["solutes"][0]["k_Hz"], 64.0)
        write(77.0)
        self.ui.addPoolButton.click()  # the table still shows the earlier file
        self.assertIn("make your change again", self.ui.poolsNoteLabel.text)
        self.assertEqual(self.cell(name, "Rate (Hz)").text(), "77")
        self.ui.addPoolButton.click()
        self.assertEqual(json.loads(self.widget.parameters.model)["solutes"][0]["k_Hz"], 77.0)

    def test_lorentzianPoolsAreEditedInTheSameTable(self):
        self.chooseInputs("lorentzian")
        self.assertTrue(self.ui.modelPresetComboBox.isHidden())
        self.assertEqual(self.cell("amide", "Position (ppm)").text(), "water + 3.5")
        self.cell("amide", "Position (ppm)").setText("2.0 [1.5, 2.5]")
        self.cell("amide", "Pool").setText("guanidinium")
        self.select("mt", "Pool")
        self.ui.removePoolButton.click()
        self.ui.applyButton.click()
        self.assertIsNotNone(slicer.util.getNode("guanidinium_amplitude"))
        position = slicer.util.arrayFromVolume(slicer.util.getNode("guanidinium_position_ppm"))
        self.assertTrue((position >= 1.5).all())
        self.assertTrue((position <= 2.5).all())
        self.ui.lorentzianPresetComboBox.currentIndex = 1  # another preset takes the place of what was edited
        self.assertEqual(self.cell("amide", "Position (ppm)").text(), "3.5 [2.5, 4.5]")

    def test_peaksOfPlofAreEditedInTheSameTable(self):
        self.chooseInputs("plof")
        self.assertEqual(self.cell("amide", "Position (ppm)").text(), "3.5 [3.2, 3.8]")
        self.assertEqual(self.cell("background", "Degree").text(), "2")
        self.cell("amide", "Window from (ppm)").setText("3")
        self.assertIn("peak_ppm must lie within window_ppm", self.ui.poolsNoteLabel.text)
        self.assertEqual(self.widget.methods.options()["lorentzianPreset"], "plof_3T")  # nothing was edited
        self.cell("amide", "Window to (ppm)").setText("6")
        self.cell("amide", "Pool").setText("apt")
        self.ui.addPoolButton.click()
        peaks = self.widget.methods.options()["lorentzianPreset"]["peaks"]
        self.assertEqual((peaks[0]["name"], peaks[0]["window_ppm"]), ("apt", [1.9, 6.0]))
        self.select("pool1", "Pool")
        self.ui.removePoolButton.click()
        self.cell("background", "Water term").setText("no")
        given = self.widget.logic.settings(**self.widget.methods.options()).lorentzian
        self.assertEqual([peak.name for peak in given.peaks], ["apt"])
        self.assertFalse(given.water_term)

    def test_scaleAndNoiseFloorOfTheSignalAndUncertainConstantsAreValuesOfTheModel(self):
        self.chooseInputs("r1rho")
        self.choosePreset("glioma 3T")
        self.cell("signal scale", "Fraction").setText("1 [0.8, 1.2]")
        self.cell("noise floor", "Fraction").setText("0.01")
        self.cell("amide", "T2 (s)").setText("0.1 ± 0.02")
        model = self.widget.methods.options()["model"]
        self.assertEqual(model["signal_scale"], {"fit": True, "start": 1.0, "bounds": [0.8, 1.2]})
        self.assertEqual(model["noise_floor"], 0.01)
        amide = next(pool for pool in model["solutes"] if pool["name"] == "amide")
        self.assertEqual(amide["T2_s"], {"value": 0.1, "sd": 0.02})
        self.select("amide", "T2 (s)")
        self.assertEqual(self.ui.cellValueLineEdit.text, "0.1 ± 0.02")
        self.cell("noise floor", "Fraction").setText("")
        self.assertNotIn("noise_floor", self.widget.methods.options()["model"])

    def test_methodsAreChosenWithPoolsThatTheyCanUse(self):
        from CESTQuantLib.methods.base import Input
        from CESTQuantLib.methods.registry import METHODS

        for method in METHODS.values():
            self.assertEqual(method.uses(Input.LORENTZIAN), bool(method.pool_presets), method.name)
            self.chooseInputs(method.name)
            if method.pool_presets:
                self.assertIn(self.ui.lorentzianPresetComboBox.currentData, method.pool_presets)

    def test_poolsComeBackWithTheMethodsThatCanUseThem(self):
        parameters, choices = self.widget.logic.getParameterNode(), self.ui.lorentzianPresetComboBox
        self.chooseInputs("lorentzian")
        choices.currentIndex = choices.findData("7T")
        self.cell("amide", "Amplitude").setText("0.05 [0, 0.3]")
        edited = self.widget.pools.given("lorentzian")
        for method in ("plof", "mtrasym", "ld", "mtr-rex", "lorentzian"):
            self.chooseInputs(method)
            of_plof = {"plof": "plof_3T", "mtrasym": "plof_3T", "ld": "3T_two_step"}
            self.assertEqual(parameters.lorentzianPreset, of_plof.get(method, "7T"))
        self.assertEqual(self.widget.pools.given("lorentzian"), edited)
        self.assertEqual(choices.currentText, "7 T")

    def test_everyPresetOfPoolsHasATitle(self):
        from CESTQuantLib.methods.registry import METHODS

        titles = self.widget.choices.titles()["lorentzianPreset"]
        self.assertEqual({name for method in METHODS.values() for name in method.pool_presets}, set(titles))

    def test_editingABoundKeepsAllDigitsOfTheStart(self):
        self.chooseInputs("r1rho")
        self.choosePreset("white matter 3T")
        self.cell("amide", "Rate (Hz)").setText("50.12345678 [20, 200]")
        self.select("amide", "Rate (Hz)")
        self.assertEqual(self.ui.cellValueLineEdit.text, "50.12345678")
        before = self.widget.parameters.model
        self.widget.poolValue.onCellEdited()  # left as it was
        self.assertEqual(self.widget.parameters.model, before)
        self.ui.cellLowerLineEdit.text = "10"
        self.widget.poolValue.onCellEdited()
        rate = self.widget.methods.options()["model"]["solutes"][0]["k_Hz"]
        self.assertEqual((rate["start"], rate["bounds"]), (50.12345678, [10.0, 200.0]))

    def test_tableSurvivesSavingAndLoadingTheScene(self):
        self.chooseInputs("r1rho")
        self.choosePreset("glioma 3T")
        self.cell("amide", "Rate (Hz)").setText("75 [10, 300]")
        before = self.widget.methods.options()["model"]
        path = os.path.join(self.directory, "scene.mrb")
        self.assertTrue(slicer.util.saveScene(path))
        slicer.mrmlScene.Clear()
        self.assertEqual(self.widget.logic.getParameterNode().model, "")
        slicer.util.loadScene(path)
        self.assertEqual(self.cell("amide", "Rate (Hz)").text(), "75 [10, 300]")
        self.assertEqual(self.widget.methods.options()["model"], before)
