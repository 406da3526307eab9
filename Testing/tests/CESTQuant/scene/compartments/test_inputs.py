"""Visits of the scene as inputs of the analysis of compartments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from geometries import rotation

from CESTQuantLib.scene.compartments.inputs import CompartmentVisit, between_transform, linear_transform, visit_input
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.segmentations import add_segmentation
from NeuroCESTLib.scene.volumes import add_volume

GRID = Geometry.from_spacing((8, 9, 10), (2.0, 2.0, 2.0))


def linear(slicer: ModuleType, name: str, shift_mm: tuple[float, ...], degrees: tuple[float, float, float]) -> Any:
    """Add a linear transform to the scene."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation(degrees), shift_mm
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    return node


def deformation(slicer: ModuleType, name: str, direction: str) -> Any:
    """Add a displacement by 3 mm along all axes, stored from or to its parent."""
    import vtk

    field = vtk.vtkImageData()
    field.SetDimensions(5, 5, 5)
    field.SetSpacing(40, 40, 40)
    field.SetOrigin(-80, -80, -80)
    field.AllocateScalars(vtk.VTK_DOUBLE, 3)
    field.GetPointData().GetScalars().Fill(3.0)
    transform = slicer.vtkOrientedGridTransform()
    transform.SetDisplacementGridData(field)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", name)
    getattr(node, f"SetAndObserveTransform{direction}Parent")(transform)
    return node


@pytest.mark.parametrize(("shift_mm", "degrees"), [((-8.0, 0.0, 0.0), (0, 0, 0)), ((30.0, -7.0, 2.0), (12, -25, 40))])
def test_a_segmentation_that_was_moved_keeps_its_volume(
    slicer: ModuleType, shift_mm: tuple[float, ...], degrees: tuple[float, float, float]
) -> None:
    mask = np.zeros(GRID.shape, bool)
    mask[2:5, 1:5, :3] = True
    node = add_segmentation({"enhancing tumor": mask, "edema": np.roll(mask, 7, 2)}, GRID, "tumour")
    node.SetAndObserveTransformNodeID(linear(slicer, "motion", shift_mm, degrees).GetID())
    masks = visit_input(CompartmentVisit("visit", segmentation=node), "visit", None).segmentation
    assert masks is not None
    assert {name: int(each.sum()) for name, each in masks.masks.items()} == {"enhancing tumor": 36, "edema": 36}
    volume = abs(np.linalg.det(masks.grid.ijk_to_ras[:3, :3]))
    assert volume == pytest.approx(8.0)


def test_labels_without_names_are_told_with_a_remedy_of_the_application(slicer: ModuleType) -> None:
    node = add_volume(np.ones(GRID.shape, np.uint8), GRID, "labels", label=True)
    (note,) = visit_input(CompartmentVisit("visit", segmentation=node), "visit", None).notes
    assert "the labels of 'labels' have no names" in note
    assert "import it into a segmentation and name its segments" in note
    assert "--" not in note


def labels_of(*numbers: int) -> Any:
    """Add a label map with these numbers, a slice each."""
    array = np.zeros(GRID.shape, np.uint8)
    array[: len(numbers)] = np.array(numbers, np.uint8)[:, None, None]
    return add_volume(array, GRID, "labels", label=True)


def test_meanings_of_another_convention_are_refused(slicer: ModuleType) -> None:
    meanings = {1: "necrotic core", 2: "oedema", 3: "enhancing"}
    with pytest.raises(
        ValueError, match="'labels' are not those whose meaning is given: it lacks 3, and has 4 without"
    ):
        visit_input(CompartmentVisit("visit", segmentation=labels_of(1, 2, 4), labels=meanings), "visit", None)


def test_a_number_that_is_absent_in_a_patient_is_fine(slicer: ModuleType) -> None:
    meanings = {1: "necrotic core", 2: "oedema", 3: "enhancing"}
    for numbers in ((2,), (1, 2), (1, 2, 3)):
        found = visit_input(CompartmentVisit("visit", segmentation=labels_of(*numbers), labels=meanings), "visit", None)
        assert found.segmentation is not None
        masks = found.segmentation.masks
        assert {name for name, mask in masks.items() if mask.any()} == {meanings[number] for number in numbers}
        assert set(masks) == set(meanings.values())
    more = CompartmentVisit("visit", segmentation=labels_of(1, 2, 3, 7), labels=meanings)
    assert "label 7" in visit_input(more, "visit", None).segmentation.masks


def test_a_convention_says_what_all_numbers_mean(slicer: ModuleType) -> None:
    visit = CompartmentVisit("visit", segmentation=labels_of(1, 2), labels="brats2023")
    masks = visit_input(visit, "visit", None).segmentation.masks
    assert {name: bool(mask.any()) for name, mask in masks.items()} == {
        "necrotic_core": True,
        "edema": True,
        "enhancing_tumor": False,
    }
    with pytest.raises(ValueError, match="'labels' has the number 4, which brats2023 does not have: declare another"):
        visit_input(CompartmentVisit("visit", segmentation=labels_of(1, 2, 3, 4), labels="brats2023"), "visit", None)


@pytest.mark.parametrize("deformed", [False, True])
def test_parents_of_the_transform_between_visits_count(slicer: ModuleType, deformed: bool) -> None:
    import vtk

    own = deformation(slicer, "own", "From") if deformed else linear(slicer, "own", (5, 0, 0), (0, 10, 0))
    middle = linear(slicer, "middle", (1.0, 2.0, 3.0), (0, 0, 30))
    outer = linear(slicer, "outer", (10.0, 0.0, 0.0), (20, 0, 0))
    own.SetAndObserveTransformNodeID(middle.GetID())
    middle.SetAndObserveTransformNodeID(outer.GetID())
    from_world = vtk.vtkGeneralTransform()
    own.GetTransformFromWorld(from_world)
    place = (11.0, -7.0, 5.0)
    to_lps = np.array([-1, -1, 1])
    expected = to_lps * from_world.TransformPoint(place)
    found = between_transform(own).TransformPoint(tuple(to_lps * place))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_an_inverted_deformation_between_visits_is_refused_by_its_name(slicer: ModuleType) -> None:
    node = deformation(slicer, "later to first", "To")
    with pytest.raises(ValueError, match=r"the transform 'later to first' cannot be .* displacement field"):
        between_transform(node)


def test_a_composite_of_linear_transforms_moves_the_cest_images(slicer: ModuleType, tmp_path: Path) -> None:
    shift, turn = sitk.TranslationTransform(3, (3, 2, 0)), sitk.Euler3DTransform((5, 6, 7), 0, 0, 0.1)
    sitk.WriteTransform(sitk.CompositeTransform([sitk.AffineTransform(3), shift]), str(tmp_path / "shift.h5"))
    expected = np.eye(4)
    expected[:3, 3] = 3, 2, 0  # the inverse of the map of points, RAS
    np.testing.assert_allclose(linear_transform(tmp_path / "shift.h5"), expected, atol=1e-9)
    both = sitk.CompositeTransform([turn, shift])
    sitk.WriteTransform(both, str(tmp_path / "both.tfm"))
    to_lps, point = np.diag([-1, -1, 1, 1]), np.array([20.0, -30.0, 40.0, 1.0])
    moved = to_lps @ linear_transform(tmp_path / "both.tfm") @ to_lps @ [*both.TransformPoint(point[:3].tolist()), 1]
    np.testing.assert_allclose(moved, point, atol=1e-6)


def test_a_linear_transform_under_a_deformation_is_refused(slicer: ModuleType) -> None:
    node = linear(slicer, "onto anatomy", (3, 0, 0), (0, 0, 0))
    node.SetAndObserveTransformNodeID(deformation(slicer, "warp", "To").GetID())
    with pytest.raises(ValueError, match="'onto anatomy' is not linear, or one of its parents is not"):
        linear_transform(node)


@pytest.mark.parametrize("ending", ["tfm", "mat"])
@pytest.mark.parametrize("read", [between_transform, linear_transform])
def test_a_file_with_several_transforms_is_refused(
    slicer: ModuleType, tmp_path: Path, ending: str, read: Callable
) -> None:
    """ITK would use the first alone."""
    first, second = (tmp_path / f"{name}.{ending}" for name in ("first", "second"))
    sitk.WriteTransform(sitk.TranslationTransform(3, (10, 0, 0)), str(first))
    sitk.WriteTransform(sitk.TranslationTransform(3, (0, 20, 0)), str(second))
    head = b"#Insight Transform File V1.0\n"
    both = tmp_path / f"both.{ending}"
    both.write_bytes(first.read_bytes() + second.read_bytes().removeprefix(head).replace(b"form 0", b"form 1"))
    with pytest.raises(ValueError, match=rf"both.{ending}' holds 2 transforms.*save them as one composite"):
        read(both)


@pytest.mark.parametrize("ending", ["h5", "tfm"])
def test_a_composite_is_one_transform_between_visits(tmp_path: Path, ending: str) -> None:
    parts = [sitk.TranslationTransform(3, (10, 0, 0)), sitk.TranslationTransform(3, (0, 20, 0))]
    path = tmp_path / f"composite.{ending}"
    sitk.WriteTransform(sitk.CompositeTransform(parts), str(path))
    assert between_transform(path).TransformPoint((0, 0, 0)) == (10, 20, 0)


def test_a_transform_of_two_dimensions_is_refused(tmp_path: Path) -> None:
    sitk.WriteTransform(sitk.Euler2DTransform(), str(tmp_path / "slice.tfm"))
    with pytest.raises(ValueError, match=r"slice.tfm' is a transform of 2 dimensions: give one of 3"):
        between_transform(tmp_path / "slice.tfm")
