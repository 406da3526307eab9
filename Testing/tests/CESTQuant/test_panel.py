"""The panel of CESTQuant in the panel host: the module's self-test, its parameters, and its choice of methods."""

import importlib.metadata
import importlib.util
import subprocess
import sys
import unittest
from pathlib import Path
from types import SimpleNamespace

import further_contrast
import pytest
from paths import ROOT

pytest.importorskip("PySide6")

sys.path[:0] = [str(ROOT), str(ROOT / "Testing")]

import panel_host  # noqa: E402

from CESTQuantLib.methods.base import Input  # noqa: E402
from CESTQuantLib.methods.registry import METHODS  # noqa: E402

slicer = panel_host.start()
CESTQuant = panel_host.load_module(ROOT / "CESTQuant" / "CESTQuant.py")

import qt  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def leave_the_scene_as_it_was():
    """Detach the panel, which lives as long as this process and would otherwise follow the scenes of other tests."""
    yield
    panel = slicer.util.getModuleWidget("CESTQuant")
    panel.exit()
    slicer.mrmlScene.RemoveNode(panel.logic.getParameterNode().parameterNode)
    slicer.mrmlScene.Clear()


class TestCESTQuantPanel(CESTQuant.CESTQuantTest):
    """The self-test that runs in the application, collected by pytest."""


def test_every_widget_of_the_panel_explains_itself():
    ui = slicer.util.getModuleWidget("CESTQuant").ui
    for name, widget in vars(ui).items():
        if name.endswith(("Selector", "LineEdit", "ComboBox", "SpinBox", "Button", "Bar")):
            assert widget.toolTip, name


def test_panel_binds_every_parameter():
    panel = slicer.util.getModuleWidget("CESTQuant")
    bound = {widget.property("SlicerParameterName") for widget in vars(panel.ui).values()} - {None}
    assert bound | {
        "method",
        "protocol",
        "model",
        "lorentzian",
        *panel.PATHS,
        *panel.choices.titles(),
        *panel.training.titles(),
    } == set(CESTQuant.CESTQuantParameterNode.allParameters)


def test_picture_of_the_panel_is_drawn(tmp_path):
    picture = tmp_path / "panel.png"
    command = [sys.executable, str(ROOT / "Testing" / "panel_picture.py"), str(picture)]
    subprocess.run(command, check=True, capture_output=True)
    image = qt.QImage(str(picture))
    colors = {image.pixel(image.width() // 3, y) for y in range(0, image.height(), 5)}
    assert image.width() > 800
    assert len(colors) > 10


def test_self_test_runs_as_in_the_application(monkeypatch):
    # pytest runs every test above; here two of them run, and the others say that they are called
    kept, called = {"test_selectorsShowTheScene", "test_applyPutsMapsIntoOneFolder"}, []
    names = unittest.defaultTestLoader.getTestCaseNames(CESTQuant.CESTQuantTest)
    for name in set(names) - kept:
        monkeypatch.setattr(CESTQuant.CESTQuantTest, name, lambda self, name=name: called.append(name))
    description = CESTQuant.CESTQuant(slicer.modules.cestquant)
    assert description.parent.title
    assert description.parent.categories
    assert description.parent.contributors
    assert "href" in description.parent.helpText
    assert description.parent.acknowledgementText
    assert not description.parent.icon.isNull()
    description.runTest()
    assert sorted(called) == sorted(set(names) - kept)


def test_parameters_are_stored_as_slicers_own_wrapper_stores_them():
    node = slicer.vtkMRMLScriptedModuleNode()
    slicer.mrmlScene.AddNode(node)
    parameters = CESTQuant.CESTQuantParameterNode(node)
    parameters.t1 = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    parameters.mask = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    parameters.method = "quesp"
    assert node.GetNodeReferenceID("t1") == parameters.t1.GetID()
    assert node.GetNodeReferenceID("mask_1") == parameters.mask.GetID()
    assert node.GetParameter("reference_2") == "True"  # None, the last member of the union
    assert node.GetParameter("method") == "quesp"
    assert node.GetParameter("asymmetryOffset_ppm") == "3.5"


def test_scenes_of_earlier_versions_keep_their_method():
    panel = slicer.util.getModuleWidget("CESTQuant")
    node = panel.logic.getParameterNode().parameterNode
    for stored, name in (("MTR_ASYM", "mtrasym"), ("BLOCH_MCCONNELL", "bloch-mcconnell"), ("qucesop", "qucesop")):
        node.SetParameter("method", stored)
        assert panel.logic.getParameterNode().method == name


def test_the_panel_offers_the_methods_of_the_registry():
    panel = slicer.util.getModuleWidget("CESTQuant")
    choices = panel.ui.methodComboBox
    assert [choices.itemData(i) for i in range(choices.count)] == list(METHODS)
    assert [choices.itemText(i) for i in range(choices.count)] == [method.title for method in METHODS.values()]
    assert {what.value for what in Input} == set(panel.methods.INPUTS)


def test_the_panel_offers_a_further_contrast(monkeypatch):
    (method,) = further_contrast.METHODS
    panel = slicer.util.getModuleWidget("CESTQuant")
    panel.enter()
    with monkeypatch.context() as patch:
        patch.setitem(METHODS, method.name, method)
        panel.methods.list()
        panel.ui.methodComboBox.currentIndex = panel.ui.methodComboBox.findData(method.name)
        assert panel.ui.methodComboBox.currentText == "Depth of saturation"
        assert panel.logic.getParameterNode().method == method.name
        shown = {name for name, (_, widget) in panel.methods.INPUTS.items() if not getattr(panel.ui, widget).isHidden()}
        assert shown == {"asymmetry-offset"}
        panel.logic.getParameterNode().method = "lorentzian"
    panel.methods.list()


def test_a_method_of_another_installation_is_named():
    panel = slicer.util.getModuleWidget("CESTQuant")
    panel.enter()
    panel.logic.getParameterNode().parameterNode.SetParameter("method", "magic")
    sentence = "The method magic is not installed: choose another one."
    assert sentence in panel.ui.applyButton.toolTip
    assert not panel.ui.applyButton.enabled
    panel.exit()
    panel.enter()  # as after loading such a scene
    assert sentence in panel.ui.applyButton.toolTip
    assert panel.ui.spatialPriorCheckBox.isHidden()
    panel.logic.getParameterNode().method = "lorentzian"


@pytest.mark.parametrize(
    ("name", "value"),
    [("method", "magic"), ("asymmetryOffset_ppm", -1.0), ("lorentzianPreset", "9T"), ("protocolPath", None)],
)
def test_parameter_refuses_a_value_that_is_not_allowed(name, value):
    parameters = CESTQuant.CESTQuantParameterNode(slicer.vtkMRMLScriptedModuleNode())
    with pytest.raises((TypeError, ValueError)):
        setattr(parameters, name, value)


def test_sample_phantom_can_be_loaded_by_name(monkeypatch):
    import SampleData

    made = []
    monkeypatch.setattr(slicer.modules, "sampleDataSources", {}, raising=False)
    monkeypatch.setattr(
        CESTQuant.CESTQuantLogic,
        "addPhantom",
        lambda self, progress, **settings: (
            made.append(settings) or {"signal": slicer.mrmlScene.AddNode(slicer.vtkMRMLSequenceNode())}
        ),
    )
    CESTQuant.registerSampleData()
    node = SampleData.downloadSample("CEST brain phantom")
    assert node.IsA("vtkMRMLSequenceNode")
    assert made == [{"seed": 1, "noise_sd": 0.002}]
    (source,) = slicer.modules.sampleDataSources["NeuroCEST"]
    assert Path(source.thumbnailFileName).is_file()
    assert source.customDownloader(source) == [slicer.util.getNodesByClass("vtkMRMLSequenceNode")[-1]]


def test_damaged_description_of_a_phantom_is_refused(tmp_path, caplog):
    (tmp_path / "p.cestphantom").write_text('{"sed": 1}')
    assert not slicer.app.coreIOManager().loadNodes("cestphantom", {"fileName": str(tmp_path / "p.cestphantom")})
    assert "sed" in caplog.text


def test_unittest_collects_the_tests_of_the_module_alone(monkeypatch):
    def tests_in(suite):
        return [test for part in suite for test in tests_in(part)] if isinstance(suite, unittest.TestSuite) else [suite]

    # as ctest runs them in the application, see slicer.testing.runUnitTest
    suite = unittest.defaultTestLoader.loadTestsFromName("CESTQuant")
    assert {type(test) for test in tests_in(suite)} == {CESTQuant.CESTQuantTest}
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else find_spec(name))
    result = unittest.TestResult()
    suite.run(result)
    assert result.wasSuccessful()
    assert len(result.skipped) == result.testsRun > 8


def test_description_is_translated(monkeypatch):
    monkeypatch.setattr(CESTQuant, "_", lambda text: f"<{text}>")
    monkeypatch.setattr(CESTQuant, "translate", lambda context, text: f"{context}: {text}")
    parent = CESTQuant.CESTQuant(slicer.modules.cestquant).parent
    assert parent.title == "<CESTQuant>"
    assert parent.categories == ["qSlicerAbstractCoreModule: Quantification"]


def test_torch_comes_through_the_pytorch_extension_only(monkeypatch):
    from NeuroCESTLib.panel.torch_extension import ensure_torch

    asked = []

    class PyTorchUtilsLogic:
        def torchInstalled(self):
            return False

        def installTorch(self, askConfirmation, torchVersionRequirement):
            asked.append((askConfirmation, torchVersionRequirement))
            return None  # the user said no

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="PyTorch extension"):
        ensure_torch("CESTQuant")
    extension = SimpleNamespace(PyTorchUtilsLogic=PyTorchUtilsLogic)
    monkeypatch.setitem(sys.modules, "PyTorchUtils", extension)
    with pytest.raises(RuntimeError, match="not installed"):
        ensure_torch("CESTQuant")
    assert asked == [(True, ">=2.2")]


@pytest.mark.parametrize(("version", "usable"), [("1.13.1", False), ("2.2.0+cu121", True), ("2.10.0", True)])
def test_torch_must_be_recent_enough(monkeypatch, version, usable):
    from NeuroCESTLib.panel.torch_extension import ensure_torch

    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    if usable:
        ensure_torch("CESTQuant")
    else:
        with pytest.raises(RuntimeError, match=r"needs PyTorch >=2\.2, but 1\.13\.1"):
            ensure_torch("CESTQuant")


def test_missing_package_is_offered_for_installation_and_the_run_starts_again(monkeypatch):
    from NeuroCESTLib.core.packages import MissingPackage

    asked, runs = [], []
    panel = slicer.util.getModuleWidget("CESTQuant")
    panel.enter()

    def run(progress):
        runs.append(progress)
        if len(runs) == 1:
            raise MissingPackage("pypulseq", "'protocol.seq': .seq files need the package")
        return "done"

    packaging = SimpleNamespace(pip_ensure=lambda requirement, requester: asked.append((requirement, requester)))
    monkeypatch.setitem(sys.modules, "slicer.packaging", packaging)
    packaging.__spec__ = importlib.util.spec_from_loader("slicer.packaging", None)
    monkeypatch.setattr(panel, "run", run)
    monkeypatch.setattr(type(slicer.app), "testingEnabled", lambda self: False)
    panel.onApplyButton()
    assert asked == [("pypulseq>=1.4", "CESTQuant")]
    assert len(runs) == 2
    assert panel.ui.statusLabel.text == "done"


def test_window_is_served_while_maps_are_computed(monkeypatch):
    """A timer goes on to run during a computation that reports nothing."""
    import threading

    from CESTQuantLib.scene.logic import maps

    ticks, enough, compute = [], threading.Event(), maps.quantify

    def tick():
        ticks.append(panel.ui.cancelButton.enabled)
        if len(ticks) == 5:
            enough.set()

    panel = slicer.util.getModuleWidget("CESTQuant")
    test = CESTQuant.CESTQuantTest("test_applyPutsMapsIntoOneFolder")
    test.setUp()
    try:
        test.chooseInputs()
        timer = qt.QTimer()
        timer.setInterval(1)
        timer.connect("timeout()", tick)
        monkeypatch.setattr(maps, "quantify", lambda *a, **o: (enough.wait(60), compute(*a, **o))[1])
        timer.start()
        panel.onApplyButton()
        timer.stop()
    finally:
        test.doCleanups()
    assert len(ticks) >= 5
    assert any(ticks)  # Cancel could be clicked


def test_declined_installation_says_what_is_missing(monkeypatch):
    from NeuroCESTLib.core.packages import MissingPackage
    from NeuroCESTLib.panel.optional_packages import install

    questions = []
    monkeypatch.setattr(type(slicer.app), "testingEnabled", lambda self: False)
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text: questions.append(text))
    monkeypatch.setattr(slicer.util, "pip_install", lambda requirement: pytest.fail("installed without consent"))
    assert not install(MissingPackage("yaml", "'pools.yaml': .yaml files need the package"), "CESTQuant")
    (question,) = questions
    assert question.startswith("'pools.yaml': .yaml files need the package PyYAML")


def test_nothing_heavy_is_imported_with_the_module():
    code = (
        f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'Testing')!r}]\n"
        "import panel_host; panel_host.start(); before = set(sys.modules)\n"
        f"panel_host.load_module({str(ROOT / 'CESTQuant' / 'CESTQuant.py')!r})\n"
        "heavy = {'torch', 'numpy', 'scipy', 'SimpleITK', 'matplotlib'}\n"
        "loaded = set(sys.modules) - before\n"
        "rooms = {name for name in loaded if name.startswith('CESTQuantLib.')} - {'CESTQuantLib.panel'}\n"
        "print(sorted(heavy & loaded), {name.split('.')[2] for name in rooms})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split("\n")[-2] == "[] {'self_test'}"
