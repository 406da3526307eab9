"""JointRegSeg: tumour segmentations of two brain MR studies, and the deformation between them.

This file has the four classes of a scripted module: its description, panel, logic and self-test. The pages of the panel
and the science are in JointRegSegLib, the input and output of the scene in NeuroCESTLib. Apart from the steps of the
self-test, they are imported where they are used, so that the application starts fast.
"""

import importlib.util
import os
import sys
from typing import Annotated, Union

import slicer
from slicer import vtkMRMLLabelMapVolumeNode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
)

if sys.version_info < (3, 10):  # noqa: UP036  an older application loads this file too
    raise RuntimeError("NeuroCEST needs Slicer 5.10 or later, because earlier ones bring a Python before 3.10.")
if importlib.util.find_spec("NeuroCESTLib") is None:
    # In a source checkout the library that both modules share lies beside this folder, where Slicer does not look.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from JointRegSegLib.panel import self_test
from JointRegSegLib.panel.choices import Affine, Regularizer
from NeuroCESTLib.panel.frame import PanelWidget, registerLayouts
from NeuroCESTLib.panel.sample_data import PhantomFileReader, registerPhantom, withProgressDialog


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
        slicer.app.connect("startupCompleted()", registerLayouts)


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


# parameterNodeWrapper understands "any of these nodes" as a typing.Union with None; it does not know X | None.
MaskNode = Union[vtkMRMLLabelMapVolumeNode, vtkMRMLSegmentationNode, vtkMRMLScalarVolumeNode, None]  # noqa: UP007
TumorNode = Union[vtkMRMLSegmentationNode, vtkMRMLLabelMapVolumeNode, None]  # noqa: UP007


@parameterNodeWrapper
class JointRegSegParameterNode:
    """Settings of the panel, saved with the scene.

    Paths are strings, because an empty ``pathlib.Path`` would be shown and saved as the folder ``.``. The nodes
    that are carried along are references of the node, because there can be several; see ``RunPage``.
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
    network: str = "neurocest"  # weights of the package; empty for those of the file
    weightsPath: str
    affine: Affine
    refineIterations: Annotated[int, WithinRange(-1, 1000)] = -1  # the default number of each level
    similarity: str  # empty for the default
    regulariser: Regularizer
    regularisation: Annotated[float, WithinRange(0.0, 100.0)] = 0.5
    timeLimit: Annotated[int, WithinRange(0, 3600)] = 0  # in s; 0 for none
    device: Annotated[str, Choice(["auto", "cpu", "cuda"])] = "auto"
    labels: str  # meaning of the numbers in label maps of the tumour; empty to recognize it
    flips: bool = True
    coregister: bool = True
    folderName: str
    comparedFixed: vtkMRMLScalarVolumeNode
    comparedWarped: vtkMRMLScalarVolumeNode
    predictModel: str = "tissue"  # weights of the package; empty for those of the file
    predictWeightsPath: str
    trainingConfigPath: str
    trainingManifestPath: str
    trainingOutputPath: str
    trainingPreset: str  # bundled configuration; empty for that of the file


class JointRegSegWidget(PanelWidget):
    """The panel: binds the parameter node to the widgets and calls the logic; its pages are in JointRegSegLib.panel."""

    PATHS = ("weightsPath", "predictWeightsPath", "trainingConfigPath", "trainingManifestPath", "trainingOutputPath")
    LIBRARIES = ("torch", "JointRegSegLib.logic", "JointRegSegLib.inference.pipeline", "JointRegSegLib.network.weights")
    SECTIONS = (
        "fixedSection",
        "movingSection",
        "methodSection",
        "advancedSection",
        "outputsSection",
        "compareSection",
        "predictSection",
    )

    def makeLogic(self):
        return JointRegSegLogic()

    def makePages(self):
        """Make the pages in the order in which they say what is missing."""
        from JointRegSegLib.panel.compare import ComparePage
        from JointRegSegLib.panel.device import DevicePage
        from JointRegSegLib.panel.method import MethodPage
        from JointRegSegLib.panel.prediction import PredictionPage
        from JointRegSegLib.panel.run import RunPage
        from JointRegSegLib.panel.studies import StudiesPage
        from JointRegSegLib.panel.training import TrainingPage

        self.studies, self.method = StudiesPage(self), MethodPage(self)
        self.runs, self.compare, self.training = RunPage(self), ComparePage(self), TrainingPage(self)
        self.prediction, self.device = PredictionPage(self), DevicePage(self)
        return self.studies, self.method, self.device, self.runs, self.compare, self.prediction, self.training

    def texts(self):
        return _("Segment and register."), _("The studies could not be processed.")

    def run(self, progress):
        """Segment and register, and show the warped image over the fixed one; say where the results are."""
        return self.runs.apply(progress)


class JointRegSegLogic(ScriptedLoadableModuleLogic):
    """Segmentation and registration of nodes, for the panel and the Python console.

    ``JointRegSegLib.logic`` does the work, for the batch commands too. It is imported at the first call, so that the
    application starts fast.
    """

    def getParameterNode(self):
        """Return the parameters of the panel."""
        return JointRegSegParameterNode(super().getParameterNode())

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

    def predict(self, study, weights, **options):
        """Predict tissues, numbers, classes, smaller voxels or anomalies: ``predict({"t1": node}, "weights.pt")``.

        For the options and the result see ``JointRegSegLib.logic.JointRegSegLogic.predict``.
        """
        return self._shared().predict(study, weights, **options)

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


class JointRegSegTest(
    self_test.InputsTest,
    self_test.RunsTest,
    self_test.CompareTest,
    self_test.PredictionTest,
    self_test.TrainingTest,
):
    """Drives the panel as a user does: in Slicer's self-test, in ctest, and in the panel host of Testing/."""
