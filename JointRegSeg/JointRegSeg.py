"""JointRegSeg: tumour segmentations of two brain MR studies, and the deformation between them.

This file has the four classes of a scripted module: its description, panel, logic and self-test. The science is in
JointRegSegLib, the input and output of the scene in NeuroCESTLib. Both are imported where they are used, so that the
application starts fast.
"""

# The self-test also runs in the application, which has no pytest; hence unittest's assertions.
# ruff: noqa: PT009

import enum
import importlib.util
import os
import sys
from typing import Annotated, Union

import slicer
from slicer import vtkMRMLLabelMapVolumeNode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
)

if sys.version_info < (3, 10):  # noqa: UP036  an older application loads this file too
    raise RuntimeError("NeuroCEST needs Slicer 5.10 or later, because earlier ones bring a Python before 3.10.")
if importlib.util.find_spec("NeuroCESTLib") is None:
    # In a source checkout the library that both modules share lies beside this folder, where Slicer does not look.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from NeuroCESTLib.panel import self_test
from NeuroCESTLib.panel.frame import PanelWidget
from NeuroCESTLib.panel.sample_data import PhantomFileReader, registerPhantom, withProgressDialog

STUDIES = ("fixed", "moving")
# Selectors of a study by modality, in the order of the network's channels
IMAGES = {"t1": "T1", "t1ce": "T1ce", "t2": "T2", "flair": "Flair"}


class JointRegSeg(ScriptedLoadableModule):
    """Description of the module in the application."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("JointRegSeg")
        self.parent.categories = [
            translate("qSlicerAbstractCoreModule", "Segmentation"),
            translate("qSlicerAbstractCoreModule", "Registration"),
        ]
        self.parent.dependencies = []
        self.parent.contributors = ["NeuroCEST contributors"]
        self.parent.helpText = _(
            "Segments the tumour in two brain MR studies of a glioma patient and finds the deformation between them: "
            "necrotic core, oedema and enhancing tumour, their volumes and changes, warped images and a Jacobian map. "
            "For research, not for clinical use. "
            '<p>See the <a href="https://github.com/NeuroCEST/SlicerNeuroCEST">documentation</a>.</p>'
        )
        self.parent.acknowledgementText = _(
            "Built on 3D Slicer, SimpleITK and PyTorch. The joint network follows Estienne et al., Frontiers in "
            "Computational Neuroscience 2020;14:17."
        )
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData():
    """Offer a digital head at two visits in the Sample Data module; it is computed here, nothing is downloaded."""
    name = "Brain tumour at two visits (digital phantom)"
    registerPhantom(__file__, "head.visitsphantom", name, "T1 fixed", addSamplePhantom)


def addSamplePhantom(source=None, **settings):
    """Compute the digital head at two visits and add it to the scene; return its nodes, or none after Cancel."""
    from NeuroCESTLib.core.progress import Cancelled

    with slicer.util.tryWithErrorDisplay(_("The phantom could not be made."), waitCursor=True):
        try:
            studies = withProgressDialog(
                _("Computing the phantom"),
                lambda progress: JointRegSegLogic().addPhantom(progress=progress, **settings),
                ("JointRegSegLib.logic", "JointRegSegLib.synthesis.phantom"),
            )
        except Cancelled:
            return []
        return [node for study in studies.values() for node in study.values()]


class JointRegSegFileReader(PhantomFileReader):
    """Reader of the sample data's description; the application finds it by its name."""

    DESCRIPTION = "Brain tumour at two visits, digital phantom"
    SUFFIX = "visitsphantom"
    SETTINGS = ("spacing_mm",)

    def makePhantom(self, settings):
        return addSamplePhantom(**settings)


class Affine(enum.Enum):
    """Linear alignment before the deformation; the values are the names that the logic and the batch command take."""

    AFFINE = "affine"
    RIGID = "rigid"
    NONE = "none"

    def label(self):
        """Text in the panel."""
        return {
            Affine.AFFINE: _("Affine (rotation, shift, scale, shear)"),
            Affine.RIGID: _("Rigid (rotation, shift)"),
            Affine.NONE: _("None (already aligned)"),
        }[self]


# parameterNodeWrapper understands "any of these nodes" as a typing.Union with None; it does not know X | None.
MaskNode = Union[vtkMRMLLabelMapVolumeNode, vtkMRMLSegmentationNode, vtkMRMLScalarVolumeNode, None]  # noqa: UP007
TumorNode = Union[vtkMRMLSegmentationNode, vtkMRMLLabelMapVolumeNode, None]  # noqa: UP007


@parameterNodeWrapper
class JointRegSegParameterNode:
    """Settings of the panel, saved with the scene.

    Paths are strings, because an empty ``pathlib.Path`` would be shown and saved as the folder ``.``.
    """

    fixedT1: vtkMRMLScalarVolumeNode
    fixedT1ce: vtkMRMLScalarVolumeNode
    fixedT2: vtkMRMLScalarVolumeNode
    fixedFlair: vtkMRMLScalarVolumeNode
    fixedMask: MaskNode
    fixedTumor: TumorNode
    movingT1: vtkMRMLScalarVolumeNode
    movingT1ce: vtkMRMLScalarVolumeNode
    movingT2: vtkMRMLScalarVolumeNode
    movingFlair: vtkMRMLScalarVolumeNode
    movingMask: MaskNode
    movingTumor: TumorNode
    segment: bool = True
    weightsPath: str
    affine: Affine
    refineIterations: Annotated[int, WithinRange(-1, 1000)] = -1  # the default number of each level
    similarity: str  # empty for the default
    labels: str  # meaning of the numbers in label maps of the tumour; empty to recognize it
    flips: bool = True
    coregister: bool = True
    carry: MaskNode
    folderName: str


class JointRegSegWidget(PanelWidget):
    """The panel: binds the parameter node to the widgets and calls the logic."""

    PATHS = ("weightsPath",)
    LIBRARIES = ("torch", "JointRegSegLib.logic", "JointRegSegLib.inference.pipeline", "JointRegSegLib.network.weights")
    SECTIONS = ("fixedSection", "movingSection", "methodSection", "outputsSection")

    def makeLogic(self):
        return JointRegSegLogic()

    def texts(self):
        return _("Segment and register."), _("The studies could not be processed.")

    def setup(self):
        """Build the panel; the registry of similarities says what the refinement can maximise."""
        super().setup()
        self.showSimilarities()
        self.ui.similarityComboBox.connect("currentIndexChanged(int)", self.onSimilarityChosen)

    def showSimilarities(self):
        """List the similarities of the registry."""
        import qt

        from JointRegSegLib.registration.similarity import SIMILARITIES

        choices = self.ui.similarityComboBox
        blocked = choices.blockSignals(True)  # filling the list chooses nothing
        choices.clear()
        choices.addItem(_("Default"), "")
        for name, similarity in SIMILARITIES.items():
            choices.addItem(_(similarity.title), name)
            choices.setItemData(
                choices.count - 1, _("For {images}.").format(images=similarity.suits), qt.Qt.ToolTipRole
            )
        choices.blockSignals(blocked)
        self._onParametersModified()

    def onSimilarityChosen(self, index):
        """Take over the similarity that the user has chosen."""
        name = self.ui.similarityComboBox.itemData(index)
        if self._parameterNode and name is not None and self._parameterNode.similarity != name:
            self._parameterNode.similarity = name

    def offerSettings(self, parameters):
        """Show the chosen similarity, and enable what the other choices leave to choose."""
        choices = self.ui.similarityComboBox
        choices.currentIndex = choices.findData(parameters.similarity)
        choices.enabled = parameters.refineIterations != 0
        self.ui.weightsPathLineEdit.enabled = parameters.segment
        self.ui.flipsCheckBox.enabled = parameters.segment
        tumors = (parameters.fixedTumor, parameters.movingTumor)
        self.ui.labelsLineEdit.enabled = any(node and node.IsA("vtkMRMLLabelMapVolumeNode") for node in tumors)

    def missingInputs(self):
        """List what has to be chosen before Apply, one sentence each."""
        fixed, moving = (self._study(which) for which in STUDIES)
        missing = []
        if not fixed:
            missing.append(_("Choose at least one image of the fixed study."))
        if not moving and not self._parameterNode.segment:
            missing.append(_("Choose at least one image of the moving study, or switch the segmentation on."))
        chosen = [node.GetID() for study in (fixed, moving) for node in study.values()]
        for node in {**fixed, **moving}.values():
            if chosen.count(node.GetID()) > 1:
                missing.append(_("The image '{name}' is chosen more than once.").format(name=node.GetName()))
                break
        path = self._parameterNode.weightsPath
        if self._parameterNode.segment and path and not os.path.isfile(path):
            missing.append(_("The weights file {path} does not exist.").format(path=path))
        elif self._parameterNode.segment and not path and not os.path.isfile(self.logic.shippedWeights()):
            missing.append(_("Choose a weights file, or switch the segmentation off: the bundled weights are missing."))
        return missing

    def run(self, progress):
        """Segment and register, and show the warped image over the fixed one; say where the results are.

        Without images of the moving study, the fixed one is segmented alone.
        """
        from NeuroCESTLib.scene import display

        parameters = self._parameterNode
        if not self._study("moving"):
            return self.segmentAlone(progress)
        result = self.logic.process(
            self._study("fixed"),
            self._study("moving"),
            fixedMask=parameters.fixedMask,
            movingMask=parameters.movingMask,
            fixedTumor=parameters.fixedTumor,
            movingTumor=parameters.movingTumor,
            labels=parameters.labels.strip() or None,
            weights=(parameters.weightsPath or None) if parameters.segment else "none",
            affine=parameters.affine.value,
            refine=None if parameters.refineIterations < 0 else parameters.refineIterations,
            similarity=parameters.similarity or None,
            flips=parameters.flips,
            coregister=parameters.coregister,
            carry=parameters.carry,
            folderName=parameters.folderName,
            progress=progress,
        )
        modality = next((name for name in result.warped if name in self._study("fixed")), None)
        if modality:
            display.show_over(result.warped[modality], self._study("fixed")[modality], 0.5)
        where = _("The results are in the folder '{name}'.").format(name=self.folderName(result))
        return " ".join([where, *result.warnings])

    def segmentAlone(self, progress):
        """Segment the fixed study; say where the results are."""
        parameters = self._parameterNode
        result = self.logic.segment(
            self._study("fixed"),
            mask=parameters.fixedMask,
            weights=parameters.weightsPath or None,
            flips=parameters.flips,
            coregister=parameters.coregister,
            folderName=parameters.folderName,
            progress=progress,
        )
        where = _("The fixed study was segmented alone; the results are in the folder '{name}'.")
        return " ".join([where.format(name=self.folderName(result)), *result.warnings])

    def _study(self, which):
        """Chosen images of the fixed or moving study, by modality."""
        nodes = {name: getattr(self._parameterNode, which + suffix) for name, suffix in IMAGES.items()}
        return {name: node for name, node in nodes.items() if node}


class JointRegSegLogic(ScriptedLoadableModuleLogic):
    """Segmentation and registration of nodes, for the panel and the Python console.

    ``JointRegSegLib.logic`` does the work, for the batch commands too. It is imported at the first call, so that the
    application starts fast.
    """

    def getParameterNode(self):
        """Return the parameters of the panel."""
        return JointRegSegParameterNode(super().getParameterNode())

    def shippedWeights(self):
        """Return the path of the bundled weights."""
        return os.path.join(os.path.dirname(__file__), "JointRegSegLib", "weights", "neurocest.pt")

    def process(self, fixedStudy, movingStudy, **options):
        """Segment and register two visits: ``process({"t1": node, "flair": node}, {"t1": node}, refine=50)``.

        For the options and the result see ``JointRegSegLib.logic.JointRegSegLogic.process``.
        """
        return self._shared().process(fixedStudy, movingStudy, **options)

    def segment(self, study, **options):
        """Segment one visit: ``segment({"t1ce": node, "flair": node})``.

        For the options and the result see ``JointRegSegLib.logic.JointRegSegLogic.segment``.
        """
        return self._shared().segment(study, **options)

    def follow(self, visits, **options):
        """Segment two or more visits and register each to one of them: ``follow([{"flair": a}, {"flair": b}, …])``.

        For the options and the result see ``JointRegSegLib.logic.JointRegSegLogic.follow``.
        """
        return self._shared().follow(visits, **options)

    def addPhantom(self, **options):
        """Add a digital head at two visits to the scene; return its nodes by study and modality."""
        return self._shared().addPhantom(**options)

    @staticmethod
    def _shared():
        from JointRegSegLib.logic import JointRegSegLogic as SharedLogic

        return SharedLogic()


class JointRegSegTest(self_test.PanelTest):
    """Drives the panel as a user does: in Slicer's self-test, in ctest, and in the panel host of Testing/."""

    MODULE = "JointRegSeg"
    CANCEL_AT = 20

    def addSampleNodes(self):
        """The digital head at two visits, on small grids."""
        self.studies = self.widget.logic.addPhantom(spacing_mm=5.0)

    def chooseInputs(self, modalities=("t1", "flair"), affine=Affine.NONE):
        """Make the choices of a user before Apply, with a small network for coarse voxels."""
        for which in STUDIES:
            for modality in modalities:
                selector = getattr(self.ui, f"{which}{IMAGES[modality]}Selector")
                selector.setCurrentNode(self.studies[which][modality])
        self.ui.weightsPathLineEdit.currentPath = self.saveSmallNetwork()
        self.ui.affineComboBox.currentIndex = list(Affine).index(affine)
        self.ui.flipsCheckBox.checked = False
        self.ui.refineSpinBox.value = 5

    def saveSmallNetwork(self):
        """Save an untrained network for voxels of 4 mm and return its path."""
        from JointRegSegLib.network.configuration import NetworkConfig
        from JointRegSegLib.network.joint import build_network
        from JointRegSegLib.network.weights import save_weights

        path = os.path.join(self.directory, "small.pt")
        config = NetworkConfig(
            channels=(4, 8, 8), encoder_convolutions=(1, 1, 1), decoder_convolutions=(1, 1), auxiliary=0, stride=1
        )
        save_weights(path, build_network(config), {"preprocessing": {"spacing_mm": 4.0}})
        return path

    def test_applySaysWhatIsMissing(self):
        self.ui.segmentCheckBox.checked = False
        self.assertFalse(self.ui.applyButton.enabled)
        self.assertIn("fixed study", self.ui.applyButton.toolTip)
        self.assertIn("moving study", self.ui.applyButton.toolTip)
        self.chooseInputs(["flair"])
        self.assertTrue(self.ui.applyButton.enabled)
        self.assertNotIn("Choose", self.ui.applyButton.toolTip)
        self.ui.movingT1Selector.setCurrentNode(self.studies["fixed"]["flair"])
        self.assertFalse(self.ui.applyButton.enabled)
        self.assertIn("more than once", self.ui.applyButton.toolTip)

    def test_weightsAreNeededToSegment(self):
        self.chooseInputs()
        self.ui.weightsPathLineEdit.currentPath = os.path.join(self.directory, "absent.pt")
        self.assertFalse(self.ui.applyButton.enabled)
        self.assertIn("absent.pt", self.ui.applyButton.toolTip)
        self.assertTrue(self.ui.weightsPathLineEdit.enabled)
        self.ui.segmentCheckBox.checked = False
        self.assertTrue(self.ui.applyButton.enabled)
        self.assertFalse(self.ui.weightsPathLineEdit.enabled)
        self.assertFalse(self.ui.flipsCheckBox.enabled)

    def test_selectorsFollowTheScene(self):
        count = self.ui.fixedT2Selector.nodeCount()
        added = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "t2")
        self.assertEqual(self.ui.fixedT2Selector.nodeCount(), count + 1)
        self.ui.fixedT2Selector.setCurrentNode(added)
        self.assertIs(self.widget.logic.getParameterNode().fixedT2, added)
        slicer.mrmlScene.RemoveNode(added)
        self.assertIsNone(self.ui.fixedT2Selector.currentNode())
        self.assertIsNone(self.widget.logic.getParameterNode().fixedT2)

    def test_widgetsAndParametersFollowEachOther(self):
        parameters = self.widget.logic.getParameterNode()
        self.chooseInputs()
        self.assertIs(parameters.movingFlair, self.studies["moving"]["flair"])
        self.assertEqual(parameters.refineIterations, 5)
        self.ui.affineComboBox.currentIndex = list(Affine).index(Affine.RIGID)
        self.ui.similarityComboBox.currentIndex = self.ui.similarityComboBox.findData("mse")
        self.ui.folderNameLineEdit.text = "glioma"
        self.assertTrue(parameters.coregister)
        self.ui.coregisterCheckBox.checked = False
        self.assertFalse(parameters.coregister)
        self.assertFalse(self.ui.labelsLineEdit.enabled)
        self.ui.labelsLineEdit.text = "brats2024"
        self.assertEqual(parameters.labels, "brats2024")
        parameters.fixedTumor = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
        self.assertTrue(self.ui.labelsLineEdit.enabled)
        self.assertEqual(parameters.affine, Affine.RIGID)
        self.assertEqual(parameters.similarity, "mse")
        self.assertEqual(parameters.folderName, "glioma")
        parameters.affine = Affine.NONE
        parameters.similarity = ""
        parameters.movingTumor = self.studies["moving"]["tumor"]
        parameters.weightsPath = "network.pt"
        self.assertEqual(self.ui.affineComboBox.currentText, Affine.NONE.label())
        self.assertEqual(self.ui.similarityComboBox.currentText, "Default")
        self.ui.refineSpinBox.value = 0
        self.assertFalse(self.ui.similarityComboBox.enabled)
        self.assertIs(self.ui.movingTumorSelector.currentNode(), self.studies["moving"]["tumor"])
        self.assertEqual(self.ui.weightsPathLineEdit.currentPath, "network.pt")

    def test_onlyTheFirstVisitOfThePhantomShowsItsTumour(self):
        self.assertEqual(self.visibleSegmentations(), {"phantom visit 1 tumour"})

    def test_applyRegistersAndCarriesAlong(self):
        self.addSliceView()
        self.chooseInputs(affine=Affine.RIGID)
        self.ui.fixedTumorSelector.setCurrentNode(self.studies["fixed"]["tumor"])
        self.ui.movingTumorSelector.setCurrentNode(self.studies["moving"]["tumor"])
        self.ui.carrySelector.setCurrentNode(self.studies["moving"]["t2"])
        self.ui.folderNameLineEdit.text = "two visits"
        self.ui.applyButton.click()
        hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
        folder = hierarchy.GetItemByName("two visits")
        self.assertIn("two visits", self.ui.statusLabel.text)
        self.assertEqual(self.visibleSegmentations(), {"fixed segmentation", "moving segmentation on fixed"})
        (view,) = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")[:1]
        self.assertEqual(view.GetBackgroundVolumeID(), self.studies["fixed"]["t1"].GetID())
        self.assertEqual(view.GetForegroundVolumeID(), slicer.util.getNode("T1 warped").GetID())
        transform = slicer.util.getNode("moving to fixed")
        self.assertEqual(hierarchy.GetItemParent(hierarchy.GetItemByDataNode(transform)), folder)
        carried = slicer.util.getNode("phantom visit 2 T2 on fixed")
        fixed = self.studies["fixed"]["t2"]
        before = self.difference(fixed, self.studies["moving"]["t2"])
        self.assertLess(self.difference(fixed, carried), 0.7 * before)
        self.assertEqual(self.ui.progressBar.value, 100)
        self.assertTrue(self.ui.applyButton.enabled)
        self.assertFalse(self.ui.cancelButton.enabled)

    def visibleSegmentations(self):
        nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
        return {node.GetName() for node in nodes if node.GetDisplayNode().GetVisibility()}

    def difference(self, first, second):
        """Return the mean absolute difference of two volumes where both have values."""
        import numpy as np

        from NeuroCESTLib.scene.geometry import Geometry
        from NeuroCESTLib.scene.volumes import array_on

        grid = Geometry.of(first)
        return float(np.nanmean(np.abs(array_on(first, grid) - array_on(second, grid))))

    def test_oneVisitIsSegmentedAlone(self):
        self.ui.fixedFlairSelector.setCurrentNode(self.studies["fixed"]["flair"])
        self.ui.weightsPathLineEdit.currentPath = self.saveSmallNetwork()
        self.ui.flipsCheckBox.checked = False
        self.assertTrue(self.ui.applyButton.enabled)
        self.ui.segmentCheckBox.checked = False
        self.assertFalse(self.ui.applyButton.enabled)
        self.ui.segmentCheckBox.checked = True
        self.ui.folderNameLineEdit.text = "first visit"
        self.ui.applyButton.click()
        self.assertIn("segmented alone", self.ui.statusLabel.text)
        self.assertIsNotNone(slicer.util.getNode("segmentation"))
        self.assertIsNotNone(slicer.util.getNode("volumes"))

    def test_networkSegmentsBothVisits(self):
        self.chooseInputs()
        self.ui.flipsCheckBox.checked = True
        self.ui.refineSpinBox.value = 0
        self.ui.applyButton.click()
        for which in STUDIES:
            segmentation = slicer.util.getNode(f"{which} segmentation").GetSegmentation()
            names = [segmentation.GetNthSegment(i).GetName() for i in range(segmentation.GetNumberOfSegments())]
            self.assertEqual(names, ["Necrotic core", "Oedema", "Enhancing tumour"])
            self.assertIsNotNone(slicer.util.getNode(f"{which} uncertainty"))
        self.assertIsNotNone(slicer.util.getNode("volumes"))

    def test_unusableInputIsReportedAndChangesNothing(self):
        self.chooseInputs()
        slicer.util.arrayFromVolume(self.studies["fixed"]["flair"])[:] = 7
        self.assertApplyFailsSaying("flair", "constant")

    def test_parametersSurviveSavingAndLoadingTheScene(self):
        self.chooseInputs()
        self.ui.folderNameLineEdit.text = "glioma"
        path = os.path.join(self.directory, "scene.mrb")
        self.assertTrue(slicer.util.saveScene(path))
        slicer.mrmlScene.Clear()
        self.assertIsNone(self.ui.fixedT1Selector.currentNode())
        self.assertEqual(self.ui.folderNameLineEdit.text, "")
        slicer.util.loadScene(path)
        self.assertEqual(self.ui.movingFlairSelector.currentNode().GetName(), "phantom visit 2 FLAIR")
        self.assertEqual(self.ui.refineSpinBox.value, 5)
        self.assertEqual(self.ui.folderNameLineEdit.text, "glioma")
        self.assertTrue(self.ui.applyButton.enabled)
