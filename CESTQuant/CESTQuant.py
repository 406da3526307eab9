"""CESTQuant: quantitative maps from CEST acquisitions.

The four classes of a scripted module: its description, its panel, its logic and its self-test. The pages of the panel,
the methods and the science are in CESTQuantLib, what the modules share is in NeuroCESTLib. Apart from the steps of the
self-test, they are imported only where they are used, so that the application starts fast.
"""

import importlib.util
import os
import sys
from typing import Annotated, Union

import slicer
from slicer import (
    vtkMRMLLabelMapVolumeNode,
    vtkMRMLMarkupsFiducialNode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
    vtkMRMLSequenceNode,
    vtkMRMLTransformNode,
)
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import Choice, Validator, WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
)

if sys.version_info < (3, 10):  # noqa: UP036  an older application loads this file too
    raise RuntimeError("NeuroCEST needs Slicer 5.10 or later, because earlier ones bring a Python before 3.10.")
if importlib.util.find_spec("NeuroCESTLib") is None:
    # In a source checkout the library that both modules share lies beside this folder, where Slicer does not look.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from CESTQuantLib.panel import self_test
from NeuroCESTLib.panel.frame import PanelWidget, registerLayouts
from NeuroCESTLib.panel.sample_data import PhantomFileReader, registerPhantom, withProgressDialog


class CESTQuant(ScriptedLoadableModule):
    """Description of the module for the application."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("CESTQuant")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Quantification")]
        self.parent.dependencies = []
        self.parent.contributors = ["NeuroCEST contributors"]
        self.parent.helpText = _(
            "Quantitative maps from chemical exchange saturation transfer (CEST) MRI: asymmetry, Lorentzian "
            "amplitudes, MTR_Rex, and pool fractions and exchange rates from model fits and networks, in physical "
            "units and with standard errors. "
            '<p>See the <a href="https://github.com/NeuroCEST/SlicerNeuroCEST">documentation</a>.</p>'
        )
        self.parent.acknowledgementText = _(
            "Built on 3D Slicer and PyTorch. The report of a run lists the publications of its method."
        )
        slicer.app.connect("startupCompleted()", registerSampleData)
        slicer.app.connect("startupCompleted()", registerLayouts)


def registerSampleData():
    """Offer the digital phantom in the Sample Data module; it is simulated, nothing is downloaded."""
    registerPhantom(__file__, "brain.cestphantom", "CEST brain phantom", "CEST phantom", addSamplePhantom)


def addSamplePhantom(source=None, **settings):
    """Simulate the digital phantom and add it to the scene; return its nodes, none after a click on Cancel."""
    from NeuroCESTLib.core.progress import Cancelled
    from NeuroCESTLib.panel.torch_extension import ensure_torch

    with slicer.util.tryWithErrorDisplay(_("The phantom could not be simulated."), waitCursor=True):
        ensure_torch("CESTQuant")
        try:
            nodes = withProgressDialog(
                _("Simulating the phantom"),
                lambda progress: CESTQuantLogic().addPhantom(progress=progress, **settings),
                ("torch", "CESTQuantLib.logic", "CESTQuantLib.tissue.phantom"),
            )
        except Cancelled:
            return []
        from NeuroCESTLib.scene import display

        display.turn_views(nodes.get("m0"))
        display.show_over(None, nodes.get("m0"))
        return list(nodes.values())


class CESTQuantFileReader(PhantomFileReader):
    """Reader of the sample data's description; the application finds it by its name."""

    DESCRIPTION = "CEST brain phantom"
    SUFFIX = "cestphantom"
    SETTINGS = ("seed", "noise_sd")

    def makePhantom(self, settings):
        return addSamplePhantom(**settings)


class KnownMethod(Validator):
    """Accepts the names of methods that CESTQuantLib has."""

    def validate(self, value):
        """Raise ValueError for the name of another method."""
        from CESTQuantLib.methods.registry import method_named

        method_named(value)


# Unions with None are how parameterNodeWrapper expresses "any of these nodes" (X | None does not work).
@parameterNodeWrapper
class CESTQuantParameterNode:
    """Settings of the panel, saved with the scene.

    Paths are strings, because an empty ``pathlib.Path`` would be shown and saved as the folder ``.``.
    """

    signal: vtkMRMLSequenceNode
    protocolPath: str
    protocol: str  # edited protocol as JSON text; empty for that of the file or acquisition
    reference: Union[vtkMRMLSequenceNode, vtkMRMLScalarVolumeNode, None]  # noqa: UP007
    mask: Union[vtkMRMLLabelMapVolumeNode, vtkMRMLSegmentationNode, vtkMRMLScalarVolumeNode, None]  # noqa: UP007
    b0: vtkMRMLScalarVolumeNode
    b1: vtkMRMLScalarVolumeNode
    t1: vtkMRMLScalarVolumeNode
    method: Annotated[str, KnownMethod()] = "lorentzian"
    asymmetryOffset_ppm: Annotated[float, WithinRange(0.0, 100.0)] = 3.5
    power_uT: Annotated[float, WithinRange(0.0, 100.0)] = 0.0
    lorentzianPreset: Annotated[str, Choice(["3T", "7T", "preclinical", "3T_two_step", "plof_3T"])] = "3T"
    lorentzian: str  # edited pools as JSON text; empty for those of the preset
    modelPath: str
    model: str  # edited model as JSON text; empty for that of the file
    networkPath: str
    configPath: str
    calibrationPath: str
    segmentation: vtkMRMLSegmentationNode
    folderName: str
    fieldSignal: vtkMRMLSequenceNode
    fieldMethod: Annotated[str, Choice(["wasabi", "wassr"])] = "wasabi"
    fieldProtocolPath: str
    trainingConfigPath: str
    trainingOutputPath: str
    fieldReference: vtkMRMLScalarVolumeNode
    pins: Union[vtkMRMLMarkupsFiducialNode, vtkMRMLSegmentationNode, None]  # noqa: UP007
    anatomy: vtkMRMLScalarVolumeNode
    furtherOffsets: str  # of asymmetries, in ppm, as typed
    normalization: Annotated[str, Choice(["as in the protocol", "m0", "l2", "none"])] = "as in the protocol"
    m0OverTime: Annotated[str, Choice(["interpolated", "mean"])] = "interpolated"
    device: Annotated[str, Choice(["auto", "cpu", "cuda"])] = "auto"
    visitMap: vtkMRMLScalarVolumeNode  # any map of the run; so is laterMap
    visitSegmentation: Union[vtkMRMLSegmentationNode, vtkMRMLLabelMapVolumeNode, None]  # noqa: UP007
    visitAnatomy: vtkMRMLScalarVolumeNode
    visitReference: vtkMRMLScalarVolumeNode
    laterMap: vtkMRMLScalarVolumeNode
    laterSegmentation: Union[vtkMRMLSegmentationNode, vtkMRMLLabelMapVolumeNode, None]  # noqa: UP007
    laterAnatomy: vtkMRMLScalarVolumeNode
    laterReference: vtkMRMLScalarVolumeNode
    between: vtkMRMLTransformNode
    rim_mm: Annotated[float, WithinRange(0.0, 50.0)] = 5.0
    registerCest: bool = False
    importSourcePath: str
    importOffsetsPath: str
    motionCorrection: bool = False
    denoising: bool = False
    smoothing_ppm: Annotated[float, WithinRange(0.0, 20.0)] = 0.0  # 0 for none
    quass: Annotated[str, Choice(["none", "equilibrium", "same-delay"])] = "none"
    relaxationSignal: vtkMRMLSequenceNode
    relaxationKind: Annotated[
        str, Choice(["inversion-recovery", "saturation-recovery", "variable-flip-angle", "multi-echo"])
    ] = "inversion-recovery"
    relaxationValues: str  # ms or degrees, as typed
    repetitionTime_ms: Annotated[float, WithinRange(0.0, 100000.0)] = 0.0
    noise_sd: Annotated[float, WithinRange(0.0, 1.0)] = 0.0  # 0 for that of repeated measurements
    posterior: bool = False
    spatialPrior: bool = False
    dictionaryEntries: Annotated[int, WithinRange(0, 100000000)] = 0  # 0 for that of the configuration
    threads: Annotated[int, WithinRange(0, 1024)] = 0  # 0 for all
    trainingKind: Annotated[str, Choice(["train", "optimize-schedule"])] = "train"
    trainingPreset: str  # bundled configuration; empty for that of the file


class CESTQuantWidget(PanelWidget):
    """The panel: binds the parameter node to the widgets and calls the logic; its pages are in CESTQuantLib.panel."""

    PATHS = (
        *("protocolPath", "modelPath", "networkPath", "configPath", "calibrationPath", "fieldProtocolPath"),
        *("trainingConfigPath", "trainingOutputPath", "importSourcePath", "importOffsetsPath"),
    )
    RUN_BUTTONS = ("previewButton",)
    LIBRARIES = ("torch", "CESTQuantLib.logic", "CESTQuantLib.fitting.marquardt", "CESTQuantLib.physics.simulation")
    SECTIONS = (
        *("inputsSection", "protocolSection", "mapsSection", "methodSection", "poolsSection", "modelSection"),
        *("fieldsSection", "outputsSection", "advancedSection", "compartmentsSection"),
        *("importSection", "preparationSection", "relaxationSection"),
    )

    def makeLogic(self):
        return CESTQuantLogic()

    def makePages(self):
        """Make the pages in the order in which they say what is missing."""
        from CESTQuantLib.panel.choices import ChoicesPage
        from CESTQuantLib.panel.compartments import CompartmentsPage
        from CESTQuantLib.panel.fields import FieldsPage
        from CESTQuantLib.panel.importer import ImportPage
        from CESTQuantLib.panel.inputs import InputsPage
        from CESTQuantLib.panel.methods import MethodsPage
        from CESTQuantLib.panel.pool_value import PoolValuePage
        from CESTQuantLib.panel.pools import PoolsPage
        from CESTQuantLib.panel.preparation import PreparationPage
        from CESTQuantLib.panel.protocol import ProtocolPage
        from CESTQuantLib.panel.relaxation import RelaxationPage
        from CESTQuantLib.panel.results import ResultsPage
        from CESTQuantLib.panel.run import RunPage
        from CESTQuantLib.panel.spectrum import SpectrumPage
        from CESTQuantLib.panel.training import TrainingPage

        self.inputs, self.protocol, self.methods = InputsPage(self), ProtocolPage(self), MethodsPage(self)
        self.fields, self.pools, self.runs = FieldsPage(self), PoolsPage(self), RunPage(self)
        self.spectrum, self.results, self.compartments = SpectrumPage(self), ResultsPage(self), CompartmentsPage(self)
        self.poolValue = PoolValuePage(self)
        given = (self.inputs, self.protocol, self.fields, self.methods, self.pools, self.poolValue)
        self.training, self.importer = TrainingPage(self), ImportPage(self)
        self.preparation, self.relaxation = PreparationPage(self), RelaxationPage(self)
        self.choices = ChoicesPage(self)
        prepared = (self.preparation, self.relaxation, self.importer, self.choices)
        return *given, *prepared, self.runs, self.spectrum, self.results, self.compartments, self.training

    def texts(self):
        return _("Compute the maps."), _("The maps could not be computed.")

    def run(self, progress):
        """Compute the maps and show the main one over the anatomy."""
        return self.runs.apply(progress)


class CESTQuantLogic(ScriptedLoadableModuleLogic):
    """Maps from nodes, for the panel and the Python console.

    ``CESTQuantLib.logic`` does the work, also for the batch commands. It is imported at the first call, so that the
    application starts fast.
    """

    def getParameterNode(self):
        """Return the parameters of the panel."""
        node = super().getParameterNode()
        stored = node.GetParameter("method")
        if stored.isupper():  # scenes of earlier versions have the name of an enumeration's member, such as MTR_REX
            name = {"MTR_ASYM": "mtrasym"}.get(stored, stored.lower().replace("_", "-"))
            node.SetParameter("method", name)
        return CESTQuantParameterNode(node)

    def fit(self, signalNode, protocol, **options):
        """Quantify an acquisition: ``fit(sequenceNode, "protocol.json", method="lorentzian", reference=m0Node)``.

        Options and result: see ``CESTQuantLib.logic.CESTQuantLogic.fit``.
        """
        return self._shared().fit(signalNode, protocol, **options)

    def fieldMaps(self, signalNode, protocol, **options):
        """Map B0 and B1 from a WASABI or WASSR acquisition; see ``CESTQuantLib.logic.CESTQuantLogic.fieldMaps``."""
        return self._shared().fieldMaps(signalNode, protocol, **options)

    def spectra(self, signalNode, protocol, **options):
        """Prepare an acquisition for looking at single spectra; see ``CESTQuantLib.logic.CESTQuantLogic.spectra``."""
        return self._shared().spectra(signalNode, protocol, **options)

    def spectrumAt(self, signalNode, protocol, position_RAS, **options):
        """Return the spectrum at a place with its fit: ``spectrumAt(sequenceNode, None, (10, 20, 0), method="r1rho")``.

        Options and result: see ``CESTQuantLib.logic.CESTQuantLogic.spectrumAt``.
        """
        return self._shared().spectrumAt(signalNode, protocol, position_RAS, **options)

    def compartments(self, first, second=None, **options):
        """Give the CEST numbers of the compartments of a tumour: ``compartments(CompartmentVisit("first", maps, …))``.

        Options and result: see ``CESTQuantLib.logic.CESTQuantLogic.compartments``.
        """
        return self._shared().compartments(first, second, **options)

    def settings(self, **options):
        """Return the settings of a method; see ``CESTQuantLib.logic.CESTQuantLogic.settings``."""
        return self._shared().settings(**options)

    def relaxation(self, signalNode, kind, values, **options):
        """Map T1 or T2: ``relaxation(sequenceNode, "inversion-recovery", [0.05, 0.4, 1.2, 3.0])``.

        Options and result: see ``CESTQuantLib.logic.CESTQuantLogic.relaxation``.
        """
        return self._shared().relaxation(signalNode, kind, values, **options)

    def importScan(self, source, **options):
        """Read scanner files into the scene; see ``CESTQuantLib.logic.CESTQuantLogic.importScan``."""
        return self._shared().importScan(source, **options)

    def openValues(self, signalNode):
        """Return what the files of an imported scan leave open; see ``CESTQuantLib.logic``."""
        return self._shared().openValues(signalNode)

    def fillIn(self, signalNode, key, text):
        """Give a value that the files of an imported scan do not say; see ``CESTQuantLib.logic``."""
        self._shared().fillIn(signalNode, key, text)

    def hasProtocol(self, signalNode):
        """Whether the acquisition carries its protocol, as the sample data do."""
        return self._shared().hasProtocol(signalNode)

    def protocolOf(self, signalNode):
        """Return the protocol that the acquisition carries, as a dictionary; None where it carries none."""
        return self._shared().protocolOf(signalNode)

    def offsetsOf(self, signalNode):
        """Return the offsets in ppm that are the index of the acquisition; None where its index is something else."""
        return self._shared().offsetsOf(signalNode)

    def setProtocol(self, signalNode, protocol):
        """Let the acquisition carry a protocol, a dictionary or file; see ``CESTQuantLib.logic``."""
        self._shared().setProtocol(signalNode, protocol)

    def addPhantom(self, **options):
        """Simulate the digital phantom and add it to the scene; returns its nodes by name."""
        return self._shared().addPhantom(**options)

    @staticmethod
    def _shared():
        from CESTQuantLib.logic import CESTQuantLogic as SharedLogic

        return SharedLogic()


class CESTQuantTest(
    self_test.CompartmentsTest,
    self_test.ImporterTest,
    self_test.InputsTest,
    self_test.ProtocolTest,
    self_test.FieldsTest,
    self_test.PoolsTest,
    self_test.PreparationTest,
    self_test.SpectrumTest,
    self_test.MapsTest,
    self_test.TrainingTest,
):
    """Uses the panel as a user does: in Slicer's self-test, in ctest, and in the panel host of Testing/."""
