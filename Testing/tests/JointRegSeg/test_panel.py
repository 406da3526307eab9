"""The panel of JointRegSeg in the panel host: the module's self-test, its parameters and its description."""

import subprocess
import sys
import unittest
from pathlib import Path

import pytest
from paths import ROOT

from NeuroCESTLib.core.checksum import sha256

pytest.importorskip("PySide6")

sys.path[:0] = [str(ROOT), str(ROOT / "Testing")]

import panel_host  # noqa: E402

slicer = panel_host.start()
JointRegSeg = panel_host.load_module(ROOT / "JointRegSeg" / "JointRegSeg.py")

import qt  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def leave_the_scene_as_it_was():
    """Detach the panel, which lives as long as this process and would otherwise follow the scenes of other tests."""
    yield
    panel = slicer.util.getModuleWidget("JointRegSeg")
    panel.exit()
    slicer.mrmlScene.RemoveNode(panel.logic.getParameterNode().parameterNode)
    slicer.mrmlScene.Clear()


class TestJointRegSegPanel(JointRegSeg.JointRegSegTest):
    """The self-test that runs in the application, collected by pytest."""


def test_every_widget_of_the_panel_explains_itself():
    ui = slicer.util.getModuleWidget("JointRegSeg").ui
    for name, widget in vars(ui).items():
        if name.endswith(("Selector", "LineEdit", "ComboBox", "SpinBox", "CheckBox", "Button", "Bar")):
            assert widget.toolTip, name


def test_panel_binds_every_parameter():
    panel = slicer.util.getModuleWidget("JointRegSeg")
    bound = {widget.property("SlicerParameterName") for widget in vars(panel.ui).values()} - {None}
    assert bound | {
        "similarity",
        "network",
        "predictModel",
        *panel.PATHS,
        *panel.device.titles(),
        *panel.training.titles(),
    } == set(JointRegSeg.JointRegSegParameterNode.allParameters)


def test_panel_offers_what_the_refinement_knows():
    from JointRegSegLib.registration.refinement_settings import REGULARIZERS, RefinementSettings

    parameters = JointRegSeg.JointRegSegParameterNode.allParameters
    assert {choice.value for choice in parameters["regulariser"].type} == set(REGULARIZERS)
    assert parameters["regulariser"].default.value == RefinementSettings().regulariser
    assert parameters["regularisation"].default == RefinementSettings().regularisation


def test_picture_of_the_panel_is_drawn(tmp_path):
    picture = tmp_path / "panel.png"
    script = str(ROOT / "Testing" / "panel_picture.py")
    subprocess.run([sys.executable, script, "--module", "JointRegSeg", str(picture)], check=True, capture_output=True)
    image = qt.QImage(str(picture))
    colors = {image.pixel(image.width() // 3, y) for y in range(0, image.height(), 5)}
    assert image.width() > 800
    assert len(colors) > 10


def test_description_has_what_the_extension_index_asks_for():
    description = JointRegSeg.JointRegSeg(slicer.modules.jointregseg)
    assert description.parent.title
    assert description.parent.categories
    assert description.parent.contributors
    assert "href" in description.parent.helpText
    assert "not for clinical use" in description.parent.helpText
    assert description.parent.acknowledgementText
    assert not description.parent.icon.isNull()


def test_self_test_runs_every_test_as_in_the_application(monkeypatch):
    ran = []
    tests = [name for name in dir(JointRegSeg.JointRegSegTest) if name.startswith("test_")]
    for name in tests:
        monkeypatch.setattr(JointRegSeg.JointRegSegTest, name, lambda self, name=name: ran.append(name))
    JointRegSeg.JointRegSeg(slicer.modules.jointregseg).runTest()
    assert len(tests) > 8
    assert ran == sorted(tests)


def test_parameters_are_stored_as_slicers_own_wrapper_stores_them():
    node = slicer.vtkMRMLScriptedModuleNode()
    slicer.mrmlScene.AddNode(node)
    parameters = JointRegSeg.JointRegSegParameterNode(node)
    parameters.fixedT1ce = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    parameters.movingMask = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    parameters.affine = JointRegSeg.Affine.RIGID
    assert node.GetNodeReferenceID("fixedT1ce") == parameters.fixedT1ce.GetID()
    assert node.GetNodeReferenceID("movingMask_1") == parameters.movingMask.GetID()
    assert node.GetParameter("affine") == "RIGID"
    assert node.GetParameter("segment") == "True"


@pytest.mark.parametrize(("name", "value"), [("affine", "rigid"), ("refineIterations", -2), ("flips", None)])
def test_parameter_refuses_a_value_that_is_not_allowed(name, value):
    parameters = JointRegSeg.JointRegSegParameterNode(slicer.vtkMRMLScriptedModuleNode())
    with pytest.raises((TypeError, ValueError)):
        setattr(parameters, name, value)


def test_the_panel_offers_the_similarities_of_the_registry():
    from JointRegSegLib.registration.similarity import SIMILARITIES

    choices = slicer.util.getModuleWidget("JointRegSeg").ui.similarityComboBox
    assert [choices.itemData(i) for i in range(choices.count)] == ["", *SIMILARITIES]
    assert [choices.itemText(i) for i in range(1, choices.count)] == [entry.title for entry in SIMILARITIES.values()]


def test_choices_of_the_panel_are_those_of_the_logic():
    from JointRegSegLib.images.modalities import MODALITIES
    from JointRegSegLib.inference.settings import AFFINE_KINDS
    from JointRegSegLib.network.shipped import SHIPPED
    from JointRegSegLib.panel.choices import IMAGES

    assert {kind.value for kind in JointRegSeg.Affine} == set(AFFINE_KINDS)
    assert tuple(IMAGES) == MODALITIES
    networks = slicer.util.getModuleWidget("JointRegSeg").ui.networkComboBox
    assert [networks.itemData(i) for i in range(networks.count)] == [*SHIPPED, ""]


def test_sample_data_can_be_loaded_by_name(monkeypatch, tmp_path):
    import SampleData

    monkeypatch.setattr(slicer.modules, "sampleDataSources", {}, raising=False)
    JointRegSeg.registerSampleData()
    (source,) = slicer.modules.sampleDataSources["NeuroCEST"]
    assert Path(source.thumbnailFileName).is_file()
    coarse = tmp_path / "coarse.visitsphantom"
    coarse.write_text('{"spacing_mm": 8.0}')
    source.uris, source.checksums = [coarse.as_uri()], [f"SHA256:{sha256(coarse)}"]
    node = SampleData.downloadSample("Brain tumour at two visits (digital phantom)")
    assert node.GetName() == "phantom visit 1 T1"
    assert node.GetSpacing() == (8.0, 8.0, 8.0)
    slicer.mrmlScene.Clear()
    nodes = source.customDownloader(source, spacing_mm=8.0)
    assert sorted(node.GetClassName() for node in nodes) == (
        8 * ["vtkMRMLScalarVolumeNode"] + 2 * ["vtkMRMLSegmentationNode"]
    )


def test_unittest_collects_the_tests_of_the_module_alone():
    suite = unittest.defaultTestLoader.loadTestsFromName("JointRegSeg")
    assert [type(test) for part in suite for test in part] == len(list(*suite)) * [JointRegSeg.JointRegSegTest]


def test_nothing_heavy_is_imported_with_the_module():
    code = (
        f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'Testing')!r}]\n"
        "import panel_host; panel_host.start(); before = set(sys.modules)\n"
        f"panel_host.load_module({str(ROOT / 'JointRegSeg' / 'JointRegSeg.py')!r})\n"
        "heavy = {'torch', 'numpy', 'scipy', 'SimpleITK', 'matplotlib'}\n"
        "loaded = set(sys.modules) - before\n"
        "rooms = {name for name in loaded if name.startswith('JointRegSegLib.')} - {'JointRegSegLib.panel'}\n"
        "print(sorted(heavy & loaded), sorted({name.split('.')[2] for name in rooms}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split("\n")[-2] == "[] ['choices', 'self_test']"


def test_volumes_of_one_name_and_an_image_chosen_twice_are_told():
    panel = slicer.util.getModuleWidget("JointRegSeg")
    panel.enter()
    slicer.mrmlScene.Clear()
    nodes = [slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "head T1") for _ in range(2)]
    panel.studies.chooseByName()
    assert panel.ui.byNameLabel.text.startswith("Several volumes are called 'head T1': rename all but one")
    parameters = panel.studies.parameters
    parameters.fixedT1 = parameters.fixedT2 = nodes[0]
    parameters.movingT1, parameters.movingT2 = (
        nodes[1],
        slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "other"),
    )
    assert panel.studies.missing() == ["The image 'head T1' is chosen more than once."]
    slicer.mrmlScene.Clear()


def changes_beside_a_map(columns):
    """Show the table of changes with these columns, which lies beside a chosen volume; return the texts of its rows."""
    import numpy as np

    from NeuroCESTLib.scene import hierarchy
    from NeuroCESTLib.scene.geometry import Geometry
    from NeuroCESTLib.scene.tables import add_table
    from NeuroCESTLib.scene.volumes import add_volume

    grid = Geometry.from_spacing((3, 4, 5), (1.0, 1.0, 1.0))
    fixed, beside = (add_volume(np.ones(grid.shape, np.float32), grid, name) for name in ("T1", "beside"))
    hierarchy.put([beside, add_table(columns, "changes")], hierarchy.make_folder("results"))
    panel = slicer.util.getModuleWidget("JointRegSeg")
    panel.enter()
    panel.ui.comparedFixedSelector.setCurrentNode(fixed)
    panel.ui.comparedWarpedSelector.setCurrentNode(beside)
    table = panel.ui.changesTable
    return [[table.item(row, column).text() for column in range(table.columnCount)] for row in range(table.rowCount)]


def test_volumes_that_the_images_do_not_show_whole_are_at_least_those_in_the_table_of_changes():
    nothing = float("nan")
    columns = {
        "region": ["edema", "whole_tumor", "enhancing_tumor"],
        "fixed_ml": [10.0, 12.0, nothing],
        "moving_ml": [4.0, 6.0, 2.0],
        "change_ml": [nothing, -6.0, nothing],
        "change_percent": [nothing, -50.0, nothing],
    }
    bounds = {"fixed_bound": ["", "", "at least"], "moving_bound": ["at least", "", ""]}
    assert changes_beside_a_map({**columns, **bounds}) == [
        ["Oedema", "10", "≥ 4", "", ""],
        ["Whole tumour", "12", "6", "-6", "-50"],
        ["Enhancing tumour", "", "2", "", ""],
    ]
    assert changes_beside_a_map(columns)[0] == ["Oedema", "10", "4", "", ""]
    slicer.mrmlScene.Clear()


def test_a_map_of_another_module_beside_its_own_table_of_changes_can_be_compared():
    columns = {"region": ["edema"], "quantity": ["amide"], "first": [1.0], "second": [2.0]}
    assert changes_beside_a_map(columns) == []
    slicer.mrmlScene.Clear()
