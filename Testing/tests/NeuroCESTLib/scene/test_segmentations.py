"""Segmentations and label maps as masks."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from geometries import rotation

from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.segmentations import add_segmentation, grid_holding, grid_of, masks_on

GRID = Geometry.from_spacing((8, 9, 10), (2.0, 2.0, 2.0))


def block() -> np.ndarray:
    """Return a block of 36 voxels at an edge of the grid."""
    mask = np.zeros(GRID.shape, bool)
    mask[2:5, 1:5, :3] = True
    return mask


@pytest.mark.parametrize(("shift_mm", "degrees"), [((-8.0, 0.0, 0.0), (0, 0, 0)), ((30.0, -7.0, 2.0), (12, -25, 40))])
def test_the_grid_of_a_segmentation_moves_with_its_parent_transform(
    slicer: ModuleType, shift_mm: tuple[float, float, float], degrees: tuple[float, float, float]
) -> None:
    node = add_segmentation({"core": block()}, GRID, "tumour")
    motion = np.eye(4)
    motion[:3, :3], motion[:3, 3] = rotation(degrees), shift_mm
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "motion")
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(motion))
    node.SetAndObserveTransformNodeID(transform.GetID())
    moved = grid_of(node)
    assert moved.matches(Geometry(GRID.shape, motion @ GRID.ijk_to_ras))
    np.testing.assert_array_equal(masks_on(node, moved)["core"], block())


def test_a_deformed_segmentation_has_no_grid(slicer: ModuleType) -> None:
    node = add_segmentation({"core": block()}, GRID, "tumour")
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "deformation")
    transform.SetAndObserveTransformFromParent(slicer.vtkOrientedGridTransform())
    node.SetAndObserveTransformNodeID(transform.GetID())
    with pytest.raises(ValueError, match=r"'tumour' is under the non-linear transform 'deformation': harden it first"):
        grid_of(node)


def test_the_grid_that_holds_a_segmentation_is_its_own_whatever_the_image_shows(slicer: ModuleType) -> None:
    slab = Geometry.from_spacing((2, 9, 10), (2.0, 2.0, 2.0), (0.0, 0.0, 10.0))
    for own in (GRID, Geometry.from_spacing(GRID.shape, (2.0, 2.0, 2.0), direction=rotation((12, -25, 40)))):
        node = add_segmentation({"core": block()}, own, "tumour")
        assert grid_holding(node, slab).matches(own)


@pytest.mark.parametrize("turn", [(0, 0, 0), (0, 0, 30)])
def test_another_grid_is_continued_to_hold_a_segmentation_without_its_own(
    slicer: ModuleType, turn: tuple[float, float, float]
) -> None:
    node = add_segmentation({"core": block()}, GRID, "tumour")
    name = slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()
    node.GetSegmentation().SetConversionParameter(name, "")
    slab = Geometry.from_spacing((2, 9, 10), (2.0, 2.0, 2.0), (0.0, 0.0, 8.0), rotation(turn))
    held = grid_holding(node, slab)
    volume = masks_on(node, held)["core"].sum()
    assert volume == pytest.approx(block().sum(), rel=0.0 if turn == (0, 0, 0) else 0.2)
    assert masks_on(node, slab)["core"].sum() < 0.8 * block().sum()


def test_label_maps_exported_by_slicer_keep_the_names_of_their_segments(slicer: ModuleType) -> None:
    node = add_segmentation({"enhancing tumor": block(), "7": np.roll(block(), 4, 2)}, GRID, "tumour")
    labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    assert logic.ExportAllSegmentsToLabelmapNode(node, labels, slicer.vtkSegmentation.EXTENT_REFERENCE_GEOMETRY)
    assert list(masks_on(labels, GRID)) == ["enhancing tumor", "label 2"]
