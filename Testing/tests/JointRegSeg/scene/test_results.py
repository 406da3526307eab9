"""Nodes that a run adds to the scene, and where they lie: a perfect result, compared node by node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import SimpleITK as sitk
from joint_studies import (
    HeadStudy,
    by_node,
    by_sitk,
    exact_result,
    points_in_head,
    registration_error,
    table_position,
)

from JointRegSegLib.findings.result import LesionChange
from JointRegSegLib.images.compartments import shown_compartments
from JointRegSegLib.scene.files import write_transform
from JointRegSegLib.scene.results import into_scene, lesion_columns
from JointRegSegLib.scene.study import image_of, study_of
from NeuroCESTLib.scene import hierarchy
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.segmentations import grid_of, masks_on
from NeuroCESTLib.scene.tables import table_columns
from NeuroCESTLib.scene.volumes import add_volume, array_on, volume_array
from NeuroCESTLib.scene.writing import write_node

TENTH_OF_A_VOXEL_MM = 0.4  # the smallest voxel side of these grids is 4 mm
PAIRS = [("axial", "oblique"), ("left-handed oblique", "LPS"), ("oblique", "sagittal"), ("LPS", "left-handed")]


@pytest.fixture
def exact(slicer: ModuleType) -> Callable[..., tuple]:
    """Result of a perfect run in the scene, with its images and nodes, for a pair of orientations."""

    def make(fixed_turn: str = "left-handed oblique", moving_turn: str = "LPS", carry: tuple = ()) -> tuple:
        studies = HeadStudy.of(fixed_turn), HeadStudy.of(moving_turn, second=True)
        joint = exact_result(*studies)
        nodes = [study.nodes(name) for study, name in zip(studies, ("fixed", "moving"), strict=True)]
        images = {n: study_of(k, None, None, n)[0] for n, k in zip(("fixed", "moving"), nodes, strict=True)}
        return joint, into_scene(joint, images, nodes[1], list(carry), "exact"), studies, nodes

    return make


@pytest.mark.parametrize("turn", ["axial", "left-handed oblique", "sagittal"])
@pytest.mark.parametrize("parent", [False, True], ids=["alone", "under a transform"])
def test_images_have_the_world_position_of_their_nodes(slicer: ModuleType, turn: str, parent: bool) -> None:
    study = HeadStudy.of(turn)
    node = study.nodes("visit", ("t1",), table_position(slicer) if parent else None)["t1"]
    image = image_of(node)
    assert Geometry.from_sitk(image).matches(study.grid)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), study.visit.images["t1"])


@pytest.mark.parametrize(("fixed", "moving"), PAIRS)
def test_node_file_and_simpleitk_agree_to_a_tenth_of_a_voxel(
    slicer: ModuleType, exact: Callable, tmp_path: Path, fixed: str, moving: str
) -> None:
    joint, result, _, _ = exact(fixed, moving)
    inside = points_in_head()
    outside = np.random.default_rng(1).uniform(-250, 250, (100, 3))
    for which, transform in (("moving_to_fixed", joint.moving_to_fixed), ("fixed_to_moving", joint.fixed_to_moving)):
        write_transform(transform, tmp_path / f"{which}.h5")
    for points in (inside, outside):
        mapped = by_sitk(joint.moving_to_fixed, points)
        by_file = by_sitk(sitk.ReadTransform(str(tmp_path / "moving_to_fixed.h5")), points)
        loaded = slicer.util.loadTransform(str(tmp_path / "moving_to_fixed.h5"))
        back = slicer.util.loadTransform(str(tmp_path / "fixed_to_moving.h5"))
        np.testing.assert_allclose(by_file, mapped, atol=1e-9)
        for found in (by_node(result.transform, points, False), by_node(loaded, points, False)):
            np.testing.assert_allclose(found, mapped, atol=TENTH_OF_A_VOXEL_MM / 4)
        # the opposite direction: the inverse of the node, and the file of the inverse map
        for found in (
            by_node(result.transform, mapped, True),
            by_node(back, mapped, False),
            by_sitk(joint.fixed_to_moving, mapped),
        ):
            np.testing.assert_allclose(found, points, atol=TENTH_OF_A_VOXEL_MM)
    assert registration_error(inside, by_sitk(joint.moving_to_fixed, inside)) < 0.1


@pytest.mark.parametrize(("fixed", "moving"), PAIRS)
def test_a_moving_volume_under_the_transform_hardens_onto_the_fixed_one(
    slicer: ModuleType, exact: Callable, fixed: str, moving: str
) -> None:
    """Slicer's own hardening and SimpleITK's resampling give the same voxels, up to interpolating twice."""
    _, result, studies, nodes = exact(fixed, moving)
    node = nodes[1]["t1"]
    unmoved = array_on(node, studies[0].grid)
    node.SetAndObserveTransformNodeID(result.transform.GetID())
    assert node.HardenTransform()
    hardened, warped = array_on(node, studies[0].grid), volume_array(result.warped["t1"])
    brain = studies[0].visit.brain & np.isfinite(hardened) & np.isfinite(unmoved)
    assert np.abs(hardened - warped)[brain].mean() < 0.35 * np.abs(unmoved - warped)[brain].mean()
    truth = studies[0].visit.images["t1"]
    assert np.abs(warped - truth)[brain].mean() < 0.7 * np.abs(unmoved - truth)[brain].mean()


def test_points_of_the_moving_visit_move_with_the_transform(slicer: ModuleType, exact: Callable) -> None:
    from JointRegSegLib.synthesis.phantom import to_second_visit

    _, result, _, _ = exact()
    markups = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "landmarks")
    points = points_in_head(20)
    for point in to_second_visit(points):
        markups.AddControlPointWorld(point.tolist())
    markups.SetAndObserveTransformNodeID(result.transform.GetID())
    markups.HardenTransform()
    moved = [markups.GetNthControlPointPositionWorld(i) for i in range(20)]
    np.testing.assert_allclose(moved, points, atol=0.1)


def test_segmentations_have_names_colours_and_codes(slicer: ModuleType, exact: Callable) -> None:
    import vtk

    joint, result, studies, _ = exact()
    codes = {"Necrotic core": "6574001", "Oedema": "79654002", "Enhancing tumour": "86049000"}
    nodes = (result.fixedSegmentation, result.movingSegmentation)
    for node, study in zip(nodes, studies, strict=True):
        assert grid_of(node).matches(study.grid)
        masks = masks_on(node, study.grid)
        assert list(masks) == list(codes)
        for number, compartment in shown_compartments().items():
            np.testing.assert_array_equal(masks[compartment.name], study.visit.labels == number)
            segment = node.GetSegmentation().GetNthSegment(number - 1)
            np.testing.assert_allclose(segment.GetColor(), compartment.color)
            entry = vtk.reference("")
            assert segment.GetTag("TerminologyEntry", entry)
            category, kind = str(entry).split("~")[1:3]
            assert category.startswith("SCT^49755003^")
            assert kind.split("^")[:2] == ["SCT", codes[compartment.name]]
    warped = masks_on(result.warpedSegmentation, studies[0].grid)
    array = sitk.GetArrayViewFromImage(joint.warped_labels)
    np.testing.assert_array_equal(warped["Oedema"], array == 2)


def test_a_compartment_that_a_given_segmentation_cannot_have_gets_no_segment(
    slicer: ModuleType, tmp_path: Path
) -> None:
    """An empty segment would say that there is none, and a later comparison would take it for gone."""
    studies = HeadStudy.of("axial"), HeadStudy.of("axial", second=True)
    nodes = [study.nodes(name) for study, name in zip(studies, ("fixed", "moving"), strict=True)]
    hd_glio = np.array([0, 0, 1, 2], np.uint8)[studies[1].visit.labels]
    given = add_volume(hd_glio, studies[1].grid, "hd_glio", label=True)
    visits = {
        "fixed": study_of(nodes[0], None, None, "fixed")[0],
        "moving": study_of(nodes[1], None, given, "moving", labels="hd-glio")[0],
    }
    labels = studies[1].grid.to_sitk(np.where(hd_glio == 1, 2, 0).astype(np.uint8))  # the tumour no longer enhances
    joint = replace(exact_result(*studies), moving_labels=labels, warped_labels=labels)
    result = into_scene(joint, visits, nodes[1], [], "HD-GLIO")
    for node, study, names in (
        (result.fixedSegmentation, studies[0], ["Necrotic core", "Oedema", "Enhancing tumour"]),
        (result.movingSegmentation, studies[1], ["Oedema", "Enhancing tumour"]),
        (result.warpedSegmentation, studies[1], ["Oedema", "Enhancing tumour"]),
    ):
        assert list(masks_on(node, study.grid)) == names
    write_node(result.movingSegmentation, tmp_path / "moving.seg.nrrd")
    written = sitk.ReadImage(str(tmp_path / "moving.seg.nrrd"))
    assert [written.GetMetaData(f"Segment{n}_LabelValue") for n in (0, 1)] == ["2", "3"]
    assert np.unique(sitk.GetArrayFromImage(written)).tolist() == [0, 2]


def test_results_lie_in_one_folder_with_colours_windows_and_tables(slicer: ModuleType, exact: Callable) -> None:
    _, result, studies, nodes = exact()
    assert hierarchy.nodes_in(result.folderItemID) == result.nodes
    assert hierarchy.folder_named("exact") == result.folderItemID
    shown = result.jacobian.GetDisplayNode()
    assert shown.GetColorNode().GetName() == "NeuroCEST diverging"
    assert (shown.GetWindowLevelMin(), shown.GetWindowLevelMax()) == (0.5, 1.5)
    for modality, node in result.warped.items():
        assert Geometry.of(node).matches(studies[0].grid)
        assert node.GetDisplayNode().GetWindowLevelMax() > node.GetDisplayNode().GetWindowLevelMin()
        assert nodes[1][modality].GetParentTransformNode() is None
    volumes, changes = table_columns(result.volumes), table_columns(result.changes)
    assert volumes["study"] == ["fixed", "moving"] * 3
    for row, region in enumerate(changes["region"]):
        ml = [v for v, r in zip(volumes["volume_ml"], volumes["region"], strict=True) if r == region]
        assert changes["change_ml"][row] == pytest.approx(ml[1] - ml[0])
        assert np.isnan(changes["fixed_deformed_ml"][row])  # not known


def test_the_scene_survives_saving_with_its_transform(slicer: ModuleType, exact: Callable, tmp_path: Path) -> None:
    from NeuroCESTLib.scene.writing import write_scene

    joint, _, _, _ = exact()
    write_scene(tmp_path / "scene.mrb")
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    points = points_in_head(50)
    node = slicer.util.getNode("moving to fixed")
    np.testing.assert_allclose(by_node(node, points, False), by_sitk(joint.moving_to_fixed, points), atol=0.1)
    assert slicer.util.getNode("fixed segmentation").GetSegmentation().GetNumberOfSegments() == 3


def test_the_table_of_lesions_tells_which_volumes_are_only_the_least() -> None:
    cut = LesionChange("whole_tumor", 1, "covered in part", 3.0, 2.0, 1, 1, (0.0, 0.0, 0.0), moving_unseen_ml=1.0)
    joint = replace(exact_result(HeadStudy.of("LPS"), HeadStudy.of("LPS", second=True)), lesions=(cut,))
    columns = lesion_columns(joint)
    assert (columns["fixed_bound"], columns["moving_bound"]) == ([""], ["at least"])
    assert np.isnan([columns["change_ml"], columns["change_percent"]]).all()
