"""CESTQuant: quantitative maps from CEST acquisitions.

The four classes of a scripted module: what the application shows of it, its panel, its logic and its
self-test. The science is in CESTQuantLib, the scene's input and output in NeuroCESTLib; both are imported
where they are used, so that starting the application stays fast.
"""

# unittest's assertions, because the self-test also runs in the application, which has no pytest
# ruff: noqa: PT009

import enum
import os
from typing import Annotated, Union

import slicer
from slicer import (
    vtkMRMLLabelMapVolumeNode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
    vtkMRMLSequenceNode,
)
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
)

from NeuroCESTLib.panel.frame import PanelWidget
from NeuroCESTLib.panel.self_test import PanelTest


class CESTQuant(ScriptedLoadableModule):
    """What the application shows of the module."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = "CESTQuant"
        self.parent.categories = ["Quantification"]
        self.parent.dependencies = []
        self.parent.contributors = ["NeuroCEST contributors"]
        self.parent.helpText = _(
            "Quantitative maps from chemical exchange saturation transfer (CEST) MRI: asymmetry, Lorentzian "
            "amplitudes, MTR_Rex, and pool fractions and exchange rates from model fits, in physical units, "
            "with standard errors. "
            '<p>See the <a href="https://github.com/NeuroCEST/SlicerNeuroCEST">documentation</a>.</p>'
        )
        self.parent.acknowledgementText = _(
            "Built on 3D Slicer and PyTorch. Each method names its publication in the report of a run."
        )
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData():
    """Offer the digital phantom in the Sample Data module; it is simulated here, nothing is downloaded."""
    try:
        import SampleData
    except ImportError:  # applications may be built without that module
        return
    icons = os.path.join(os.path.dirname(__file__), "Resources", "Icons")
    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="NeuroCEST",
        sampleName="CEST brain phantom",
        thumbnailFileName=os.path.join(icons, "CESTQuant.png"),
        uris=[],
        fileNames=[],
        nodeNames=[],
        customDownloader=addSamplePhantom,
    )


def addSamplePhantom(source=None):
    """Simulate the digital phantom and add it to the scene."""
    with slicer.util.tryWithErrorDisplay(_("The phantom could not be simulated."), waitCursor=True):
        from NeuroCESTLib.panel.torch_extension import ensure_torch

        ensure_torch("CESTQuant")
        return list(CESTQuantLogic().addPhantom().values())


class Method(enum.Enum):
    """How maps are made of spectra. Values are the names that the logic and the batch command take."""

    LORENTZIAN = "lorentzian"
    MTR_ASYM = "mtrasym"
    MTR_REX = "mtr-rex"
    QUESP = "quesp"
    OMEGA_PLOT = "omega-plot"
    QUCESOP = "qucesop"
    R1RHO = "r1rho"
    BLOCH_MCCONNELL = "bloch-mcconnell"
    NETWORK = "network"

    def label(self):
        """What the panel shows."""
        return {
            Method.LORENTZIAN: _("Lorentzian fit"),
            Method.MTR_ASYM: _("MTR asymmetry (APTw)"),
            Method.MTR_REX: _("MTR_Rex and AREX"),
            Method.QUESP: _("QUESP / QUEST"),
            Method.OMEGA_PLOT: _("Omega plot"),
            Method.QUCESOP: _("QUCESOP"),
            Method.R1RHO: _("R1rho model fit (analytic)"),
            Method.BLOCH_MCCONNELL: _("Bloch-McConnell model fit (numerical)"),
            Method.NETWORK: _("Trained network, with reliability"),
        }[self]

    @property
    def needsModel(self):
        """Whether nothing can be fitted without a model file."""
        return self in (Method.R1RHO, Method.BLOCH_MCCONNELL)

    @property
    def takesModel(self):
        """Whether a model file is of any use."""
        return self.needsModel or self in (Method.QUESP, Method.OMEGA_PLOT, Method.QUCESOP)

    @property
    def needsNetwork(self):
        """Whether a trained network does the work."""
        return self is Method.NETWORK

    @property
    def takesPreset(self):
        """Whether pools are fitted as Lorentzian lines."""
        return self in (Method.LORENTZIAN, Method.MTR_REX)


# Unions with None are what parameterNodeWrapper takes for "any of these nodes" (X | None is not).
@parameterNodeWrapper
class CESTQuantParameterNode:
    """Settings of the panel, saved with the scene.

    Paths are texts, because an empty ``pathlib.Path`` would be shown and saved as the folder ``.``.
    """

    signal: vtkMRMLSequenceNode
    protocolPath: str
    reference: Union[vtkMRMLSequenceNode, vtkMRMLScalarVolumeNode, None]  # noqa: UP007
    mask: Union[vtkMRMLLabelMapVolumeNode, vtkMRMLSegmentationNode, vtkMRMLScalarVolumeNode, None]  # noqa: UP007
    b0: vtkMRMLScalarVolumeNode
    b1: vtkMRMLScalarVolumeNode
    t1: vtkMRMLScalarVolumeNode
    method: Method
    asymmetryOffset_ppm: Annotated[float, WithinRange(0.0, 100.0)] = 3.5
    power_uT: Annotated[float, WithinRange(0.0, 100.0)] = 0.0
    lorentzianPreset: Annotated[str, Choice(["3T", "7T"])] = "3T"
    modelPath: str
    networkPath: str
    segmentation: vtkMRMLSegmentationNode
    folderName: str


class CESTQuantWidget(PanelWidget):
    """The panel: binds the parameter node to the widgets and calls the logic."""

    PATHS = ("protocolPath", "modelPath", "networkPath")
    SECTIONS = ("inputsSection", "mapsSection", "methodSection", "modelSection", "outputsSection")

    def makeLogic(self):
        return CESTQuantLogic()

    def texts(self):
        return _("Compute the maps."), _("The maps could not be computed.")

    def initializeParameterNode(self):
        """Take the scene's parameter node; the first acquisition is preselected."""
        super().initializeParameterNode()
        if not self._parameterNode.signal:
            self._parameterNode.signal = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSequenceNode")

    def offerSettings(self, parameters):
        method = parameters.method
        self.ui.asymmetryOffsetSpinBox.enabled = method == Method.MTR_ASYM
        self.ui.powerSpinBox.enabled = method == Method.MTR_ASYM or method.takesPreset
        self.ui.lorentzianPresetComboBox.enabled = method.takesPreset
        self.ui.modelPathLineEdit.enabled = method.takesModel
        self.ui.networkPathLineEdit.enabled = method.needsNetwork

    def missingInputs(self):
        """What has to be chosen before Apply, one sentence each."""
        parameters = self._parameterNode
        missing = []
        if not parameters.signal:
            missing.append(_("Choose the CEST acquisition, a sequence of volumes."))
        if not parameters.protocolPath and not self.logic.hasProtocol(parameters.signal):
            missing.append(_("Choose the protocol: a JSON file, a text file of offsets, or a .seq file."))
        elif parameters.protocolPath and not os.path.isfile(parameters.protocolPath):
            missing.append(_("The protocol file {path} does not exist.").format(path=parameters.protocolPath))
        if parameters.method.needsModel and not parameters.modelPath:
            missing.append(_("Choose the model file: this method fits its parameters."))
        if parameters.method.takesModel and parameters.modelPath and not os.path.isfile(parameters.modelPath):
            missing.append(_("The model file {path} does not exist.").format(path=parameters.modelPath))
        if parameters.method.needsNetwork and not parameters.networkPath:
            missing.append(_("Choose the network file: this method reconstructs with a trained network."))
        elif parameters.method.needsNetwork and not os.path.isfile(parameters.networkPath):
            missing.append(_("The network file {path} does not exist.").format(path=parameters.networkPath))
        return missing

    def run(self, progress):
        """Compute the maps."""
        parameters = self._parameterNode
        result = self.logic.fit(
            parameters.signal,
            parameters.protocolPath or None,
            method=parameters.method.value,
            model=(parameters.modelPath or None) if parameters.method.takesModel else None,
            network=parameters.networkPath if parameters.method.needsNetwork else None,
            reference=parameters.reference,
            mask=parameters.mask,
            b0=parameters.b0,
            b1=parameters.b1,
            t1=parameters.t1,
            segmentation=parameters.segmentation,
            folderName=parameters.folderName,
            asymmetryOffset_ppm=parameters.asymmetryOffset_ppm,
            power_uT=parameters.power_uT or None,
            lorentzianPreset=parameters.lorentzianPreset,
            progress=progress,
        )
        return _("{count} maps are in the folder '{folder}'.").format(
            count=len(result.nodes), folder=self.folderName(result)
        )


class CESTQuantLogic(ScriptedLoadableModuleLogic):
    """Maps from nodes, for the panel and the Python console.

    The work is done by ``CESTQuantLib.logic``, which the batch commands share; it is imported at the first call, so
    that starting the application stays fast.
    """

    def getParameterNode(self):
        """The parameters of the panel."""
        return CESTQuantParameterNode(super().getParameterNode())

    def fit(self, signalNode, protocol, **options):
        """Quantify an acquisition: ``fit(sequenceNode, "protocol.json", method="lorentzian", reference=m0Node)``.

        Options and result: see ``CESTQuantLib.logic.CESTQuantLogic.fit``.
        """
        return self._shared().fit(signalNode, protocol, **options)

    def fieldMaps(self, signalNode, protocol, **options):
        """Field maps from a WASABI or WASSR acquisition; see ``CESTQuantLib.logic.CESTQuantLogic.fieldMaps``."""
        return self._shared().fieldMaps(signalNode, protocol, **options)

    def hasProtocol(self, signalNode):
        """Whether the acquisition carries its protocol, as the sample data do."""
        return self._shared().hasProtocol(signalNode)

    def addPhantom(self, **options):
        """Simulate the digital phantom and add it to the scene; its nodes by name."""
        return self._shared().addPhantom(**options)

    @staticmethod
    def _shared():
        from CESTQuantLib.logic import CESTQuantLogic as SharedLogic

        return SharedLogic()


class CESTQuantTest(PanelTest):
    """Drives the panel as a user does: in Slicer's self-test, in ctest, and in the panel host of Testing/."""

    MODULE = "CESTQuant"

    def addSampleNodes(self):
        """One small acquisition: 256 voxels, water and amide lines, M0 of 1000."""
        import numpy as np

        from NeuroCESTLib.scene.geometry import Geometry
        from NeuroCESTLib.scene.sequences import array_to_sequence
        from NeuroCESTLib.scene.volumes import add_volume

        offsets = np.linspace(-5.0, 5.0, 21)
        spectrum = 1.0 - 0.9 / (1 + (offsets / 0.7) ** 2) - 0.06 / (1 + ((offsets - 3.5) / 0.5) ** 2)
        self.expectedAsymmetry = spectrum[offsets == -3.5][0] - spectrum[offsets == 3.5][0]
        geometry = Geometry.from_spacing((4, 8, 8), (2.0, 2.0, 5.0))
        signal = 1000.0 * np.tile(spectrum[:, None, None, None], (1, *geometry.shape)).astype(np.float32)
        self.signal = array_to_sequence(signal, geometry, "cest", offsets)
        self.reference = add_volume(np.full(geometry.shape, 1000.0, np.float32), geometry, "m0")
        self.protocolPath = self.writeOffsets("offsets.txt", offsets)

    def writeOffsets(self, name, offsets):
        path = os.path.join(self.directory, name)
        with open(path, "w") as file:
            file.writelines(f"{offset:g}\n" for offset in offsets)
        return path

    def chooseInputs(self, method=Method.MTR_ASYM):
        """What a user chooses before Apply."""
        self.ui.signalSelector.setCurrentNode(self.signal)
        self.ui.referenceSelector.setCurrentNode(self.reference)
        self.ui.protocolPathLineEdit.currentPath = self.protocolPath
        self.ui.methodComboBox.currentIndex = list(Method).index(method)

    def trainNetwork(self):
        """A small network for 21 offsets at 7 T, trained in seconds; paths of network and protocol."""
        import json

        from CESTQuantLib.formats.protocol_json import protocol_to_dict
        from CESTQuantLib.networks.config import config_from_dict
        from CESTQuantLib.networks.files import save_network
        from CESTQuantLib.networks.fixed_protocol import train_from_config

        pool = {"name": "amide", "T1_s": 1.0, "T2_s": 0.05, "dw_ppm": 3.5, "k_Hz": 100.0}
        config = config_from_dict(
            {
                "protocol": {
                    "field_strength_T": 7.0,
                    "offsets_ppm": [-5.0 + 0.5 * i for i in range(21)],
                    "b1_uT": 1.0,
                    "saturation_time_s": 2.0,
                },
                "tissue": {
                    "water": {"T1_s": {"uniform": [1.0, 2.0]}, "T2_s": 0.05},
                    "solutes": [{**pool, "fraction": {"uniform": [0.0005, 0.003]}}],
                },
                "targets": ["amide.fraction"],
                "samples": 1000,
                "epochs": 3,
                "network": {"width": 32},
            }
        )
        network = os.path.join(self.directory, "network.pt")
        save_network(train_from_config(config)[0], network)
        protocol = os.path.join(self.directory, "protocol.json")
        with open(protocol, "w") as file:
            json.dump(protocol_to_dict(config.protocol), file)
        return network, protocol

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
        self.chooseInputs(Method.R1RHO)
        self.assertFalse(self.ui.applyButton.enabled)
        self.assertIn("model", self.ui.applyButton.toolTip)

    def test_firstAcquisitionIsPreselected(self):
        self.assertIs(self.ui.signalSelector.currentNode(), self.signal)

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
        self.chooseInputs(Method.MTR_ASYM)
        self.assertEqual(parameters.method, Method.MTR_ASYM)
        self.assertEqual(parameters.protocolPath, self.protocolPath)
        self.assertIs(parameters.reference, self.reference)
        self.ui.asymmetryOffsetSpinBox.value = 2.0
        self.ui.folderNameLineEdit.text = "visit 1"
        self.assertEqual(parameters.asymmetryOffset_ppm, 2.0)
        self.assertEqual(parameters.folderName, "visit 1")
        parameters.method = Method.LORENTZIAN
        parameters.lorentzianPreset = "7T"
        parameters.mask = self.reference
        self.assertEqual(self.ui.methodComboBox.currentText, Method.LORENTZIAN.label())
        self.assertEqual(self.ui.lorentzianPresetComboBox.currentText, "7T")
        self.assertIs(self.ui.maskSelector.currentNode(), self.reference)

    def test_settingsAreOfferedWhereTheMethodTakesThem(self):
        for method, offset, preset, model in (
            (Method.MTR_ASYM, True, False, False),
            (Method.LORENTZIAN, False, True, False),
            (Method.BLOCH_MCCONNELL, False, False, True),
        ):
            self.chooseInputs(method)
            self.assertEqual(self.ui.asymmetryOffsetSpinBox.enabled, offset)
            self.assertEqual(self.ui.lorentzianPresetComboBox.enabled, preset)
            self.assertEqual(self.ui.modelPathLineEdit.enabled, model)

    def test_applyPutsMapsIntoOneFolder(self):
        self.chooseInputs()
        self.ui.folderNameLineEdit.text = "visit 1"
        self.ui.applyButton.click()
        hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
        folder = hierarchy.GetItemByName("visit 1")
        self.assertIn("visit 1", self.ui.statusLabel.text)
        asymmetry = slicer.util.getNode("*mtr_asym*")
        self.assertEqual(hierarchy.GetItemParent(hierarchy.GetItemByDataNode(asymmetry)), folder)
        values = slicer.util.arrayFromVolume(asymmetry)
        self.assertAlmostEqual(float(values.mean()), self.expectedAsymmetry, delta=0.005)
        self.assertEqual(self.ui.progressBar.value, 100)
        self.assertTrue(self.ui.applyButton.enabled)
        self.assertFalse(self.ui.cancelButton.enabled)

    def test_networkReconstructsWithUncertaintyAndReliability(self):
        self.chooseInputs(Method.NETWORK)
        self.assertTrue(self.ui.networkPathLineEdit.enabled)
        self.assertIn("network", self.ui.applyButton.toolTip)
        network, protocol = self.trainNetwork()
        self.ui.networkPathLineEdit.currentPath = network
        self.ui.protocolPathLineEdit.currentPath = protocol
        self.ui.applyButton.click()
        names = ("amide_fraction", "amide_fraction_sd", "rmse", "reliable")
        maps = {name: slicer.util.arrayFromVolume(slicer.util.getNode(name)) for name in names}
        self.assertTrue((maps["amide_fraction_sd"] > 0).all())
        # These Lorentzian lines are no spectrum of the network's tissue, and it says so.
        self.assertEqual(float(maps["reliable"].max()), 0.0)
        display = slicer.util.getNode("reliable").GetScalarVolumeDisplayNode()
        self.assertEqual((display.GetWindowLevelMin(), display.GetWindowLevelMax()), (0.0, 1.0))

    def test_wrongCountOfOffsetsIsReportedAndChangesNothing(self):
        self.chooseInputs()
        self.ui.protocolPathLineEdit.currentPath = self.writeOffsets("short.txt", [-3.5, 0.0, 3.5])
        self.assertApplyFailsSaying("21", "3")

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
        self.assertEqual(self.ui.methodComboBox.currentText, Method.MTR_ASYM.label())
        self.assertEqual(self.ui.asymmetryOffsetSpinBox.value, 2.0)
        self.assertEqual(self.ui.folderNameLineEdit.text, "visit 1")
        self.ui.applyButton.click()
        self.assertIsNotNone(slicer.util.getNode("*mtr_asym*"))
