"""Studies recognised by the names of their volumes."""

import pytest

from JointRegSegLib.scene.naming import ambiguous_names, studies_by_name
from NeuroCESTLib.scene import host

slicer = host.attach()


@pytest.fixture(autouse=True)
def empty_scene():
    slicer.mrmlScene.Clear()
    yield
    slicer.mrmlScene.Clear()


def add(name, kind="vtkMRMLScalarVolumeNode"):
    return slicer.mrmlScene.AddNewNodeByClass(kind, name)


def test_volumes_are_grouped_by_visit_in_natural_order():
    for name in ("P1 visit 10 T1", "P1 visit 2 FLAIR", "P1 visit 2 T1 Gd", "P1 visit 10 t2", "P1 amide_fraction"):
        add(name)
    studies = studies_by_name()
    assert list(studies) == ["P1 visit 2", "P1 visit 10"]
    assert {role: node.GetName() for role, node in studies["P1 visit 2"].items()} == {
        "t1ce": "P1 visit 2 T1 Gd",
        "flair": "P1 visit 2 FLAIR",
    }


def test_two_volumes_of_the_same_study_and_modality_are_ambiguous():
    for name in ("a T1", "a T1", "a T2"):
        add(name)
    add("a flair", "vtkMRMLLabelMapVolumeNode")
    assert {role: node.GetName() for role, node in studies_by_name()["a"].items()} == {"t2": "a T2"}
    assert ambiguous_names() == ["a T1"]
