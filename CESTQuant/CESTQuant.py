"""CESTQuant: quantitative maps from CEST acquisitions.

The four classes of a scripted module: its description, its panel, its logic and its self-test. The science and the
methods are in CESTQuantLib, what the modules share is in NeuroCESTLib. CESTQuantLib is imported only where it is used,
so that the application starts fast.
"""

# unittest's assertions, because the self-test also runs in the application, which has no pytest
# ruff: noqa: PT009

import importlib.util
import os
import sys
from typing import Annotated, Union

import slicer
from slicer import (
    vtkMRMLLabelMapVolumeNode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
    vtkMRMLSequenceNode,
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

from NeuroCESTLib.panel import self_test
from NeuroCESTLib.panel.frame import PanelWidget
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
    reference: Union[vtkMRMLSequenceNode, vtkMRMLScalarVolumeNode, None]  # noqa: UP007
    mask: Union[vtkMRMLLabelMapVolumeNode, vtkMRMLSegmentationNode, vtkMRMLScalarVolumeNode, None]  # noqa: UP007
    b0: vtkMRMLScalarVolumeNode
    b1: vtkMRMLScalarVolumeNode
    t1: vtkMRMLScalarVolumeNode
    method: Annotated[str, KnownMethod()] = "lorentzian"
    asymmetryOffset_ppm: Annotated[float, WithinRange(0.0, 100.0)] = 3.5
    power_uT: Annotated[float, WithinRange(0.0, 100.0)] = 0.0
    lorentzianPreset: Annotated[str, Choice(["3T", "7T"])] = "3T"
    modelPath: str
    networkPath: str
    configPath: str
    segmentation: vtkMRMLSegmentationNode
    folderName: str


class CESTQuantWidget(PanelWidget):
    """The panel: binds the parameter node to the widgets and calls the logic.

    Attributes:
        INPUTS: Parameter and widget of every input that only some methods use, by its name in the registry of methods.
        OPTIONAL_SECTIONS: Sections that are hidden if the method uses none of their inputs.
    """

    CHOSEN_FOR = "inputsChosenFor"  # attribute of the parameter node: the acquisition whose inputs were chosen by name
    PATHS = ("protocolPath", "modelPath", "networkPath", "configPath")
    LIBRARIES = ("torch", "CESTQuantLib.logic", "CESTQuantLib.fitting.marquardt", "CESTQuantLib.physics.simulation")
    SECTIONS = ("inputsSection", "mapsSection", "methodSection", "modelSection", "outputsSection")
    INPUTS = {  # noqa: RUF012
        "b0": ("b0", "b0Selector"),
        "b1": ("b1", "b1Selector"),
        "t1": ("t1", "t1Selector"),
        "lorentzian": ("lorentzianPreset", "lorentzianPresetComboBox"),
        "asymmetry-offset": ("asymmetryOffset_ppm", "asymmetryOffsetSpinBox"),
        "power": ("power_uT", "powerSpinBox"),
        "model": ("modelPath", "modelPathLineEdit"),
        "network": ("networkPath", "networkPathLineEdit"),
        "config": ("configPath", "configPathLineEdit"),
    }
    OPTIONAL_SECTIONS = {  # noqa: RUF012
        "mapsSection": ("b0", "b1", "t1"),
        "modelSection": ("model", "network", "config"),
    }

    liveSpectrum = None
    _spectra = None

    def makeLogic(self):
        return CESTQuantLogic()

    def texts(self):
        return _("Compute the maps."), _("The maps could not be computed.")

    def setup(self):
        """Build the panel; the registry of methods says what can be chosen."""
        super().setup()
        self.showMethods()
        self.showSpectrumValues("")
        self.ui.methodComboBox.connect("currentIndexChanged(int)", self.onMethodChosen)
        self.ui.liveSpectrumCheckBox.connect("toggled(bool)", self.onLiveSpectrumToggled)
        self.ui.shownMapComboBox.connect("currentIndexChanged(int)", self.onMapChosen)
        self.ui.opacitySlider.connect("valueChanged(int)", self.onMapChosen)

    def cleanup(self):
        """Stop following the mouse, and release the parameter node; called when the application closes."""
        self.ui.liveSpectrumCheckBox.checked = False
        super().cleanup()

    def exit(self):
        """Stop following the mouse; called each time the user leaves the module."""
        self.ui.liveSpectrumCheckBox.checked = False
        super().exit()

    def onSceneStartClose(self, caller, event):
        """Stop following the mouse in a scene that is closed."""
        self.ui.liveSpectrumCheckBox.checked = False
        super().onSceneStartClose(caller, event)

    def offerMaps(self, shown=None):
        """List the maps of the scene; where names repeat, with the folder of their run.

        Args:
            shown: Node of the map that the slice views show; None where they show none of them.
        """
        from NeuroCESTLib.scene import display, hierarchy

        choices = self.ui.shownMapComboBox
        blocked = choices.blockSignals(True)  # filling the list shows nothing
        choices.clear()
        maps = display.shown_maps()
        names = [node.GetName() for node in maps]
        for node in maps:
            folder = hierarchy.folder_of(node)
            title = f"{node.GetName()} ({folder})" if names.count(node.GetName()) > 1 and folder else node.GetName()
            choices.addItem(title, node.GetID())
        choices.currentIndex = choices.findData(shown.GetID()) if shown else -1
        self.ui.resultsSection.visible = bool(maps)
        choices.blockSignals(blocked)

    def onMapChosen(self, index=None):
        """Show the chosen map over the anatomy, in the chosen opacity."""
        from NeuroCESTLib.scene import display

        node = slicer.mrmlScene.GetNodeByID(self.ui.shownMapComboBox.currentData or "")
        if node and self._parameterNode:
            display.show_over(node, self.anatomy(self._parameterNode), self.ui.opacitySlider.value / 100)

    def onLiveSpectrumToggled(self, checked):
        """Show the spectrum under the mouse, or stop doing so."""
        from NeuroCESTLib.panel.live_spectrum import LiveSpectrum
        from NeuroCESTLib.panel.torch_extension import ensure_torch

        if self.liveSpectrum is None:
            self.liveSpectrum = LiveSpectrum(self.measuredSpectrum, self.fittedSpectrum, self.showSpectrumValues)
        self._spectra = None
        self.showSpectrumValues("")
        if not checked:
            self.liveSpectrum.stop()
            return
        with slicer.util.tryWithErrorDisplay(_("The spectrum cannot be shown.")):
            ensure_torch(self.moduleName)
            self.liveSpectrum.start()

    def showSpectrumValues(self, text):
        """Show the values of the fit beside the plot."""
        self.ui.spectrumValuesLabel.text = text
        self.ui.spectrumValuesLabel.visible = bool(text)

    def spectra(self):
        """Return the spectra of the chosen acquisition, which are prepared again after another choice.

        Raises:
            ValueError: The acquisition cannot be used, or something is not chosen yet.
        """
        parameters = self._parameterNode
        if not parameters or not parameters.signal:
            raise ValueError(_("Choose the CEST acquisition, a sequence of volumes."))
        used = self.usedInputs(parameters)
        nodes = {name: getattr(parameters, name) for name in ("b0", "b1", "t1") if name in used}
        paths = parameters.protocolPath, parameters.modelPath if "model" in used else ""
        chosen = {"reference": parameters.reference, **nodes}
        key = [node and (node.GetID(), node.GetMTime()) for node in (parameters.signal, *chosen.values())], paths
        if self._spectra is None or self._spectra[0] != key:
            spectra = self.logic.spectra(parameters.signal, paths[0] or None, model=paths[1] or None, **chosen)
            self._spectra = key, spectra
        return self._spectra[1]

    def measuredSpectrum(self, place):
        """Return the measured spectrum at a place (RAS, mm)."""
        return self.spectra().at(place)

    def fittedSpectrum(self, place):
        """Return the spectrum at a place with the fit by the chosen method; None while the method lacks an input."""
        if self.missingInputs():
            return None
        maps = ("b0", "b1", "t1")
        options = {name: value for name, value in self.methodOptions().items() if name not in maps}
        return self.spectra().at(place, self._parameterNode.method, self.logic.settings(**options))

    def showMethods(self):
        """List the methods of the registry."""
        import qt

        from CESTQuantLib.methods.registry import METHODS

        choices = self.ui.methodComboBox
        blocked = choices.blockSignals(True)  # filling the list chooses nothing
        choices.clear()
        for method in METHODS.values():
            choices.addItem(_(method.title), method.name)
            choices.setItemData(choices.count - 1, _(method.summary), qt.Qt.ToolTipRole)
        choices.blockSignals(blocked)
        self._onParametersModified()

    def onMethodChosen(self, index):
        """Take over the method that the user has chosen."""
        name = self.ui.methodComboBox.itemData(index)
        if self._parameterNode and name and self._parameterNode.method != name:
            self._parameterNode.method = name

    def initializeParameterNode(self):
        """Bind the scene's parameter node; the first acquisition is preselected."""
        super().initializeParameterNode()
        self.offerMaps()
        if not self._parameterNode.signal:
            self._parameterNode.signal = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSequenceNode")

    def chooseInputsByName(self, parameters):
        """Choose the empty inputs by the names of the nodes, once for every acquisition; say which."""
        from CESTQuantLib.scene.naming import inputs_by_name

        node, signal = parameters.parameterNode, parameters.signal
        if not signal:
            self.ui.chosenByNameLabel.visible = False
        if not signal or node.GetAttribute(self.CHOSEN_FOR) == signal.GetID():
            return
        node.SetAttribute(self.CHOSEN_FOR, signal.GetID())
        chosen = {role: found for role, found in inputs_by_name(signal).items() if not getattr(parameters, role)}
        for role, found in chosen.items():
            setattr(parameters, role, found)
        names = ", ".join(f"'{found.GetName()}'" for found in chosen.values())
        self.ui.chosenByNameLabel.text = _("Chosen by name: {names}.").format(names=names) if names else ""
        self.ui.chosenByNameLabel.visible = bool(names)

    def usedInputs(self, parameters):
        """Return the names of the inputs that the chosen method uses."""
        from CESTQuantLib.methods.base import Input
        from CESTQuantLib.methods.registry import METHODS

        method = METHODS.get(parameters.method)
        return {what.value for what in Input if method and method.uses(what)}

    def offerSettings(self, parameters):
        """Show the chosen method and the inputs that it uses; choose what goes with another acquisition by name."""
        self.chooseInputsByName(parameters)
        choices = self.ui.methodComboBox
        choices.currentIndex = choices.findData(parameters.method)
        used = self.usedInputs(parameters)
        for name, (_parameter, widget) in self.INPUTS.items():
            getattr(self.ui, widget).visible = name in used
            getattr(self.ui, f"{widget}Label").visible = name in used
        for section, names in self.OPTIONAL_SECTIONS.items():
            getattr(self.ui, section).visible = not used.isdisjoint(names)

    def missingInputs(self):
        """Return what has to be chosen before Apply, as sentences."""
        from CESTQuantLib.methods.registry import METHODS

        parameters = self._parameterNode
        missing = []
        if not parameters.signal:
            missing.append(_("Choose the CEST acquisition, a sequence of volumes."))
        if not parameters.protocolPath and not self.logic.hasProtocol(parameters.signal):
            missing.append(_("Choose the protocol: a JSON file, a text file of offsets, or a .seq file."))
        elif parameters.protocolPath and not os.path.isfile(parameters.protocolPath):
            missing.append(_("The protocol file {path} does not exist.").format(path=parameters.protocolPath))
        method = METHODS.get(parameters.method)
        if method is None:
            missing.append(_("The method {name} is not installed: choose another one.").format(name=parameters.method))
            return missing
        given = {what for what, (parameter, _widget) in self.INPUTS.items() if getattr(parameters, parameter)}
        for what in method.needs:
            if what.value not in given:
                missing.append(_("Choose {what}: the method needs it.").format(what=what.title))
        for name in self.usedInputs(parameters) & {"model", "network", "config"} & given:
            path = getattr(parameters, self.INPUTS[name][0])
            if not os.path.isfile(path):
                missing.append(_("The file {path} does not exist.").format(path=path))
        return missing

    def run(self, progress):
        """Compute the maps and show the main one over the anatomy."""
        parameters = self._parameterNode
        result = self.logic.fit(
            parameters.signal,
            parameters.protocolPath or None,
            method=parameters.method,
            reference=parameters.reference,
            mask=parameters.mask,
            segmentation=parameters.segmentation,
            folderName=parameters.folderName,
            progress=progress,
            **self.methodOptions(),
        )
        self.offerMaps(result.mainMap)
        self.onMapChosen()
        return _("{count} maps are in the folder '{folder}'.").format(
            count=len(result.nodes), folder=self.folderName(result)
        )

    def methodOptions(self):
        """Return what the panel gives to the chosen method, by the name of the argument."""
        parameters = self._parameterNode
        names = [self.INPUTS[name][0] for name in self.usedInputs(parameters)]
        chosen = {name: getattr(parameters, name) for name in names}
        # 0 µT means the single acquired power, and an empty path no file.
        return {name.removesuffix("Path"): value for name, value in chosen.items() if value}

    def anatomy(self, parameters):
        """Return the volume to show under the maps; None to keep what the views show."""
        reference = parameters.reference
        return reference if reference and reference.IsA("vtkMRMLScalarVolumeNode") else None


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

    def settings(self, **options):
        """Return the settings of a method; see ``CESTQuantLib.logic.CESTQuantLogic.settings``."""
        return self._shared().settings(**options)

    def hasProtocol(self, signalNode):
        """Whether the acquisition carries its protocol, as the sample data do."""
        return self._shared().hasProtocol(signalNode)

    def addPhantom(self, **options):
        """Simulate the digital phantom and add it to the scene; returns its nodes by name."""
        return self._shared().addPhantom(**options)

    @staticmethod
    def _shared():
        from CESTQuantLib.logic import CESTQuantLogic as SharedLogic

        return SharedLogic()


class CESTQuantTest(self_test.PanelTest):
    """Uses the panel as a user does: in Slicer's self-test, in ctest, and in the panel host of Testing/."""

    MODULE = "CESTQuant"

    def addSampleNodes(self):
        """Add a small acquisition: 256 voxels, lines of water and amide, M0 of 1000."""
        import numpy as np

        from NeuroCESTLib.scene.geometry import Geometry
        from NeuroCESTLib.scene.sequences import array_to_sequence
        from NeuroCESTLib.scene.volumes import add_volume

        offsets = np.linspace(-5.0, 5.0, 21)
        spectrum = 1.0 - 0.9 / (1 + (offsets / 0.7) ** 2) - 0.06 / (1 + ((offsets - 3.5) / 0.5) ** 2)
        self.spectrum = spectrum
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

    def chooseInputs(self, method="mtrasym"):
        """Choose what a user chooses before Apply."""
        self.ui.signalSelector.setCurrentNode(self.signal)
        self.ui.referenceSelector.setCurrentNode(self.reference)
        self.ui.protocolPathLineEdit.currentPath = self.protocolPath
        self.ui.methodComboBox.currentIndex = self.ui.methodComboBox.findData(method)

    def trainNetwork(self):
        """Train a small network for 21 offsets at 7 T, in seconds; return the paths of network and protocol."""
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
        self.assertEqual(self.ui.lorentzianPresetComboBox.currentText, "7T")
        self.assertIs(self.ui.maskSelector.currentNode(), self.reference)

    def test_onlyTheInputsThatTheMethodUsesAreShown(self):
        for method, used in (
            ("mtrasym", {"b0", "b1", "asymmetry-offset", "power"}),
            ("lorentzian", {"b0", "b1", "lorentzian", "power"}),
            ("bloch-mcconnell", {"b0", "b1", "t1", "model"}),
            ("dictionary", {"config"}),
        ):
            self.chooseInputs(method)
            rows = {name: getattr(self.ui, widget) for name, (_parameter, widget) in self.widget.INPUTS.items()}
            self.assertEqual({name for name, row in rows.items() if not row.isHidden()}, used)
            labels = {name: getattr(self.ui, f"{rows[name].name}Label") for name in rows}
            self.assertEqual({name for name, label in labels.items() if not label.isHidden()}, used)
        self.assertTrue(self.ui.mapsSection.isHidden())
        self.assertFalse(self.ui.modelSection.isHidden())

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
        self.assertTrue(self.ui.progressBar.isHidden())
        self.assertTrue(self.ui.applyButton.enabled)
        self.assertFalse(self.ui.cancelButton.enabled)

    def test_applyShowsTheMainMapOverTheReference(self):
        self.addSliceView()
        self.chooseInputs()
        self.ui.applyButton.click()
        for view in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
            self.assertEqual(view.GetBackgroundVolumeID(), self.reference.GetID())
            self.assertEqual(view.GetForegroundVolumeID(), slicer.util.getNode("*mtr_asym*").GetID())

    def test_anotherMapCanBeChosenAndFaded(self):
        self.addSliceView()
        self.chooseInputs("lorentzian")
        self.ui.applyButton.click()
        choices = self.ui.shownMapComboBox
        self.assertEqual(choices.currentText, "water_amplitude")
        choices.currentIndex = choices.findText("amide_amplitude")
        self.ui.opacitySlider.value = 40
        (view,) = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")[:1]
        self.assertEqual(view.GetForegroundVolumeID(), slicer.util.getNode("amide_amplitude").GetID())
        self.assertAlmostEqual(view.GetForegroundOpacity(), 0.4)
        self.ui.applyButton.click()  # a second run has maps of the same names
        self.assertEqual(choices.currentText, "water_amplitude (cest lorentzian (2))")
        self.ui.opacitySlider.value = 100

    def test_networkReconstructsWithUncertaintyAndReliability(self):
        self.chooseInputs("network")
        self.assertFalse(self.ui.networkPathLineEdit.isHidden())
        self.assertIn("network", self.ui.applyButton.toolTip)
        network, protocol = self.trainNetwork()
        self.ui.networkPathLineEdit.currentPath = network
        self.ui.protocolPathLineEdit.currentPath = protocol
        self.ui.applyButton.click()
        names = ("amide_fraction", "amide_fraction_sd", "rmse", "reliable")
        maps = {name: slicer.util.arrayFromVolume(slicer.util.getNode(name)) for name in names}
        self.assertTrue((maps["amide_fraction_sd"] > 0).all())
        # Such Lorentzian lines are not a spectrum of the tissue that the network was trained for, and it notices.
        self.assertEqual(float(maps["reliable"].max()), 0.0)
        display = slicer.util.getNode("reliable").GetScalarVolumeDisplayNode()
        self.assertEqual((display.GetWindowLevelMin(), display.GetWindowLevelMax()), (0.0, 1.0))

    def moveMouseTo(self, voxel):
        """Move the crosshair as the mouse does with Shift, to a voxel (i, j, k); return the place."""
        from NeuroCESTLib.scene.geometry import Geometry

        place = (Geometry.of(self.reference).ijk_to_ras @ (*voxel, 1.0))[:3]
        slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode").SetCursorPositionRAS(place)
        return place

    def curves(self):
        """Return the curves of the live plot by name, as arrays of offsets and values."""
        chart = slicer.util.getNode("Z-spectrum")
        found = {}
        for number in range(chart.GetNumberOfPlotSeriesNodes()):
            series = chart.GetNthPlotSeriesNode(number)
            table = series.GetTableNode()
            found[series.GetName()] = tuple(slicer.util.arrayFromTableColumn(table, name) for name in "xy")
        return found

    def test_spectrumFollowsTheMouse(self):
        self.chooseInputs("lorentzian")
        self.ui.liveSpectrumCheckBox.checked = True
        self.moveMouseTo((1, 2, 3))
        self.assertEqual(list(self.curves()), ["measured"])
        offsets, signal = self.curves()["measured"]
        self.assertEqual((offsets.min(), offsets.max()), (-5.0, 5.0))
        self.assertAlmostEqual(float(signal[0]), self.spectrum[0], places=5)
        self.assertIn("voxel (1, 2, 3)", self.ui.spectrumValuesLabel.text)
        self.widget.liveSpectrum.fit()  # as after the mouse has rested
        self.assertTrue({"measured", "fit", "residual", "amide"} <= set(self.curves()))
        self.assertIn("amide_amplitude: ", self.ui.spectrumValuesLabel.text)
        self.moveMouseTo((40, 2, 3))
        self.assertIn("outside", self.ui.spectrumValuesLabel.text)
        self.ui.liveSpectrumCheckBox.checked = False
        self.moveMouseTo((1, 2, 3))
        self.assertEqual(self.ui.spectrumValuesLabel.text, "")

    def test_liveSpectrumHasALayoutOfItsOwnAndLeavesIt(self):
        layout = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")
        if layout is None:
            layout = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLayoutNode")
        layout.SetViewArrangement(layout.SlicerLayoutFourUpView)
        self.chooseInputs("mtrasym")
        self.ui.liveSpectrumCheckBox.checked = True
        self.assertNotEqual(layout.GetViewArrangement(), layout.SlicerLayoutFourUpView)
        self.widget.exit()
        self.assertEqual(layout.GetViewArrangement(), layout.SlicerLayoutFourUpView)
        self.assertFalse(self.ui.liveSpectrumCheckBox.checked)

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
        self.assertEqual(self.ui.methodComboBox.currentText, "MTR asymmetry (APTw)")
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
