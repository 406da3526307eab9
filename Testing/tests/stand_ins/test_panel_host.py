"""The panel host of the tests publishes only what Slicer's and Qt's real classes have; all else is an error."""

import sys

import pytest
from paths import ROOT

pytest.importorskip("PySide6")

sys.path[:0] = [str(ROOT), str(ROOT / "Testing")]

import panel_host  # noqa: E402

slicer = panel_host.start()

import ctk  # noqa: E402
import qt  # noqa: E402


@pytest.fixture
def load_ui(tmp_path):
    """Load a .ui file with these widgets and connections in a qMRMLWidget named ``top``."""

    def load(widgets, connections=""):
        path = tmp_path / "panel.ui"
        path.write_text(
            '<ui version="4.0"><widget class="qMRMLWidget" name="top">'
            '<layout class="QVBoxLayout" name="rows">'
            f"{widgets}</layout></widget><connections>{connections}</connections></ui>"
        )
        return slicer.util.loadUI(str(path))

    return load


def connection(sender, signal, receiver, slot):
    return (
        f"<connection><sender>{sender}</sender><signal>{signal}</signal>"
        f"<receiver>{receiver}</receiver><slot>{slot}</slot></connection>"
    )


SELECTOR = '<item><widget class="qMRMLNodeComboBox" name="selector"/></item>'


def test_property_is_an_attribute_and_cannot_be_called():
    button = qt.QPushButton("Apply")
    button.enabled = False
    assert (button.text, button.enabled) == ("Apply", False)
    with pytest.raises(TypeError):
        button.text()


def test_property_refuses_a_value_of_another_type():
    with pytest.raises(ValueError, match="value takes a int"):
        qt.QProgressBar().value = "half"


@pytest.mark.parametrize("signature", ["clickd()", "clicked(int)", "currentNodeChanged(vtkMRMLNode*)"])
def test_unknown_signal_is_an_error(signature):
    with pytest.raises(AttributeError, match="has no signal"):
        qt.QPushButton().connect(signature, lambda: None)


def test_stand_in_knows_the_signals_of_the_real_class_only():
    selector, received = slicer.qMRMLNodeComboBox(), []
    selector.connect("currentNodeChanged(vtkMRMLNode*)", received.append)
    selector.connect("currentNodeChanged(bool)", received.append)
    for signature in ("currentNodeChanged(PyObject)", "currentIndexChanged(int)"):
        with pytest.raises(AttributeError, match="has no signal"):
            selector.connect(signature, received.append)


@pytest.mark.parametrize(
    ("filters", "text", "said"),
    [
        (["Protocol (*.json *.txt)"], "p.json", True),
        (["Protocol (*.json *.txt)"], "p.jso", True),  # the last letter is optional
        (["Protocol (*.json *.txt)"], "p.csv", False),
        (["Protocol (*.json *.txt)"], "", False),
        (["Signal (*.seq.nrrd)", "All (*)"], "a.seq", True),  # the first ending counts, a bare star is no ending
        (["Signal (*.seq.nrrd)", "All (*)"], "a.nrrd", False),
        ([], "anything", True),
        ([], "", False),
    ],
)
def test_path_field_says_only_what_its_name_filters_accept(filters, text, said):
    field, received = ctk.ctkPathLineEdit(), []
    field.nameFilters = filters
    field.currentPath = "before"
    field.connect("currentPathChanged(QString)", received.append)
    field.currentPath = text
    assert received == [text] * said
    assert field.currentPath == text


# Public names of the real classes (ctkCollapsibleButton.h, ctkPathLineEdit.h, qMRMLWidget.h,
# qMRMLNodeComboBox.h, qMRMLCheckableNodeComboBox.h), without those that the stand-ins do not need.
REAL_NAMES = {
    "ctkCollapsibleButton": "collapsed setCollapsed contentsCollapsed hitButton paintEvent",
    "ctkPathLineEdit": "Dirs Files Drives Readable Writable Executable NoDot NoDotDot NoDotAndDotDot "
    "comboBox currentPath setCurrentPath currentPathChanged validInputChanged filters setFilters nameFilters "
    "setNameFilters settingKey setSettingKey showBrowseButton setShowBrowseButton",
    "qMRMLWidget": "mrmlScene setMRMLScene mrmlSceneChanged",
    "qMRMLNodeComboBox": "mrmlScene setMRMLScene nodeTypes hideChildNodeTypes showHidden showChildNodeTypes "
    "noneEnabled noneDisplay addEnabled removeEnabled renameEnabled editEnabled selectNodeUponCreation "
    "baseName nodeCount nodeFromIndex currentNode setCurrentNode currentNodeID setCurrentNodeID "
    "setCurrentNodeIndex addNode removeCurrentNode currentNodeChanged nodeAddedByUser",
    "qMRMLCheckableNodeComboBox": "checkedNodes uncheckedNodes allChecked noneChecked checkState setCheckState "
    "setUserCheckable checkedNodesChanged",
}


@pytest.mark.parametrize("name", REAL_NAMES)
def test_stand_in_publishes_only_names_of_the_real_class(name):
    from panel_host.ui_loader import STAND_INS

    assert set(REAL_NAMES) == set(STAND_INS)
    public = {member for member in vars(STAND_INS[name]) if not member.startswith("_")}
    assert public - set(dir(qt.QObject)) <= set(REAL_NAMES[name].split())  # every widget reimplements those of QObject


def test_unknown_names_are_absent():
    with pytest.raises(AttributeError):
        _ = ctk.ctkNotThere
    with pytest.raises(AttributeError):
        _ = slicer.qMRMLNodeComboBox().selectedNode


def test_ui_connections_are_made(load_ui):
    widget = load_ui(
        SELECTOR,
        connection("top", "mrmlSceneChanged(vtkMRMLScene*)", "selector", "setMRMLScene(vtkMRMLScene*)"),
    )
    widget.setMRMLScene(slicer.mrmlScene)
    assert slicer.util.findChild(widget, "selector").mrmlScene() is slicer.mrmlScene


@pytest.mark.parametrize(
    ("widgets", "connections", "message"),
    [
        ('<item><widget class="qMRMLNodeSelector" name="a"/></item>', "", "qMRMLNodeSelector"),
        (
            '<item><widget class="QLabel" name="a"><property name="txt"><string/></property></widget></item>',
            "",
            "txt",
        ),
        (SELECTOR, connection("top", "sceneChanged()", "selector", "setMRMLScene(vtkMRMLScene*)"), "signal"),
        (SELECTOR, connection("top", "mrmlSceneChanged(vtkMRMLScene*)", "selector", "setScene()"), "slot"),
        (SELECTOR, connection("top", "mrmlSceneChanged(vtkMRMLScene*)", "absent", "hide()"), "absent"),
    ],
    ids=["class", "property", "signal", "slot", "receiver"],
)
def test_unknown_name_in_a_ui_file_is_an_error(load_ui, widgets, connections, message):
    with pytest.raises(AttributeError, match=message):
        load_ui(widgets, connections)
