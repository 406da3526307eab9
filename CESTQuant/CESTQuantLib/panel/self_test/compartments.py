"""CEST numbers of the compartments of a tumour."""

# unittest's assertions, because the self-test also runs in the application, which has no pytest
# ruff: noqa: PT009

import slicer

from .sample import SampleTest


class CompartmentsTest(SampleTest):
    """Analyses maps of the scene in the panel."""

    def test_compartmentsOfMapsInTheScene(self):
        import numpy as np

        from NeuroCESTLib.scene.geometry import Geometry
        from NeuroCESTLib.scene.segmentations import add_segmentation
        from NeuroCESTLib.scene.tables import table_columns

        self.chooseInputs("mtrasym")
        self.ui.applyButton.click()
        self.assertFalse(self.ui.compartmentsButton.enabled)
        self.assertIn("Choose any map of the visit", self.ui.compartmentsButton.toolTip)
        geometry = Geometry.of(self.reference)
        edema, core = np.zeros(geometry.shape, bool), np.zeros(geometry.shape, bool)
        edema[1:3, 2:6, 2:6], core[1:3, 3:5, 3:5] = True, True
        tumor = add_segmentation({"Oedema": edema & ~core, "Enhancing tumour": core}, geometry, "tumour")
        self.ui.visitMapSelector.setCurrentNode(slicer.util.getNode("mtr_asym_3.5ppm"))
        self.ui.visitSegmentationSelector.setCurrentNode(tumor)
        self.assertTrue(self.ui.compartmentsButton.enabled)
        self.ui.registerCheckBox.checked = True
        self.assertIn("the registration needs them", self.ui.compartmentsButton.toolTip)
        self.ui.registerCheckBox.checked = False
        self.ui.compartmentsButton.click()
        self.assertIn("are in the folder 'Compartments'", self.ui.statusLabel.text)
        columns = table_columns(slicer.util.getNode("compartments"))
        rows = list(zip(columns["region"], columns["quantity"], strict=True))
        row = rows.index(("enhancing_tumor", "mtr_asym_3.5ppm"))
        self.assertEqual(columns["n"][row], 8)
        self.assertAlmostEqual(columns["mean"][row], self.expectedAsymmetry, delta=1e-4)

    def test_visitsUnderOnePatientKeepTheirOwnMaps(self):
        import numpy as np

        from NeuroCESTLib.scene.geometry import Geometry
        from NeuroCESTLib.scene.segmentations import add_segmentation
        from NeuroCESTLib.scene.tables import table_columns

        hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
        patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "patient")
        geometry = Geometry.of(self.reference)
        mask = np.zeros(geometry.shape, bool)
        mask[1:3, 2:6, 2:6] = True
        tumor = add_segmentation({"enhancing tumor": mask}, geometry, "tumour")
        self.chooseInputs("mtrasym")
        self.ui.segmentationSelector.setCurrentNode(tumor)
        maps = []
        for name in ("first", "later"):
            self.ui.folderNameLineEdit.text = name
            self.ui.applyButton.click()
            hierarchy.SetItemParent(hierarchy.GetItemByName(name), patient)
            maps.append(self.widget.results.shownMap())
            for number in range(self.signal.GetNumberOfDataNodes()):  # half the asymmetry at the later visit
                volume = slicer.util.arrayFromVolume(self.signal.GetNthDataNode(number))
                volume[:] = 0.5 * (volume + 1000.0)
        choices, regions = self.ui.shownMapComboBox, self.ui.regionsTable
        self.assertEqual({choices.itemText(i).partition(" ")[2] for i in range(choices.count)}, {"(first)", "(later)"})
        means = []
        for node in maps:
            choices.currentIndex = choices.findData(node.GetID())
            means.append(float(regions.item(0, 2).text()))
        self.assertAlmostEqual(means[1], 0.5 * means[0], delta=1e-4)
        for which, node in zip(("visit", "later"), maps, strict=True):
            getattr(self.ui, f"{which}MapSelector").setCurrentNode(node)
            getattr(self.ui, f"{which}SegmentationSelector").setCurrentNode(tumor)
        self.ui.compartmentsButton.click()
        columns = table_columns(slicer.util.getNode("compartments"))
        rows = zip(columns["region"], columns["quantity"], columns["mean"], strict=True)
        found = [
            mean for region, quantity, mean in rows if (region, quantity) == ("enhancing_tumor", maps[0].GetName())
        ]
        self.assertAlmostEqual(found[0], self.expectedAsymmetry, delta=1e-4)
        self.assertAlmostEqual(found[1], 0.5 * self.expectedAsymmetry, delta=1e-4)
