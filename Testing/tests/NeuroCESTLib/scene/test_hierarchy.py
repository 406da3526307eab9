"""Folders of the subject hierarchy."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from geometries import GRIDS, SHAPE

from NeuroCESTLib.core.progress import Cancelled
from NeuroCESTLib.scene import hierarchy
from NeuroCESTLib.scene.transaction import scene_unchanged_on_error
from NeuroCESTLib.scene.volumes import add_volume


def test_a_name_that_is_taken_gets_a_number(slicer: ModuleType) -> None:
    first, second = hierarchy.make_folder("CEST"), hierarchy.make_folder("CEST")
    assert first == hierarchy.folder_named("CEST")
    assert second == hierarchy.folder_named("CEST (2)")
    assert hierarchy.folder_named("no such folder") is None


def test_nodes_are_moved_from_one_folder_to_another(slicer: ModuleType) -> None:
    first, second = hierarchy.make_folder("first"), hierarchy.make_folder("second")
    nodes = [add_volume(np.zeros(SHAPE), GRIDS["axial"], name) for name in ("a", "b")]
    hierarchy.put(nodes, first)
    hierarchy.put(nodes[1:], second)
    assert hierarchy.nodes_in(first) == nodes[:1]
    assert hierarchy.nodes_in(second) == nodes[1:]


def test_a_mark_stays_with_its_node_and_does_not_go_to_copies(slicer: ModuleType) -> None:
    node = add_volume(np.zeros(SHAPE), GRIDS["axial"], "a")
    assert hierarchy.marked(node, "NeuroCEST.test") == ""
    hierarchy.mark(node, "NeuroCEST.test", "preview")
    copy = slicer.vtkSlicerVolumesLogic.CloneVolume(slicer.mrmlScene, node, "a")
    node.SetName("b")
    assert hierarchy.marked(node, "NeuroCEST.test") == "preview"
    assert hierarchy.marked(copy, "NeuroCEST.test") == ""


def test_the_folder_of_a_node_is_the_nearest_one(slicer: ModuleType) -> None:
    top = slicer.mrmlScene.GetSubjectHierarchyNode()
    patient = top.CreateSubjectItem(top.GetSceneItemID(), "patient")
    run = hierarchy.make_folder("run", patient)
    errors = hierarchy.make_folder("errors", run)
    nodes = [add_volume(np.zeros(SHAPE), GRIDS["axial"], name) for name in ("a", "b", "c")]
    hierarchy.put(nodes[:1], run)
    hierarchy.put(nodes[1:2], errors)
    assert [hierarchy.nearest_folder_of(node) for node in nodes] == [run, errors, 0]
    assert [hierarchy.nearest_folder_of(node, part="errors") for node in nodes] == [run, run, 0]
    assert [hierarchy.folder_of(node) for node in nodes] == ["run", "errors", ""]


def test_a_removed_folder_leaves_its_nodes_in_the_scene(slicer: ModuleType) -> None:
    folder = hierarchy.make_folder("CEST")
    node = add_volume(np.zeros(SHAPE), GRIDS["axial"], "map")
    hierarchy.put([node], folder)
    hierarchy.remove_item(folder)
    hierarchy.remove_item(folder)
    assert folder not in hierarchy.top_items()
    assert slicer.util.getNode("map") is node


@pytest.mark.parametrize("error", [ValueError, Cancelled, KeyboardInterrupt])
def test_a_run_that_does_not_succeed_leaves_the_scene_as_it_was(slicer: ModuleType, error: type[BaseException]) -> None:
    def node_ids() -> list[str]:
        scene = slicer.mrmlScene
        return [scene.GetNthNode(i).GetID() for i in range(scene.GetNumberOfNodes())]

    earlier = add_volume(np.zeros(SHAPE), GRIDS["axial"], "earlier")
    before = hierarchy.top_items(), node_ids()
    with pytest.raises(error), scene_unchanged_on_error():
        hierarchy.put([add_volume(np.zeros(SHAPE), GRIDS["axial"], "half")], hierarchy.make_folder("CEST"))
        raise error
    assert (hierarchy.top_items(), node_ids()) == before
    assert slicer.util.getNode("earlier") is earlier


def test_a_run_that_succeeds_keeps_its_nodes(slicer: ModuleType) -> None:
    with scene_unchanged_on_error():
        node = add_volume(np.zeros(SHAPE), GRIDS["axial"], "map")
    assert slicer.util.getNode("map") is node
