"""Voxel grids: comparison, reordering, resampling, parent transforms, agreement with ITK."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from geometries import GRIDS, SHAPE, rotation, world_ramp
from hypothesis import given, settings
from hypothesis import strategies as st

from NeuroCESTLib.scene.geometry import Geometry, harden
from NeuroCESTLib.scene.volumes import add_volume, volume_array
from NeuroCESTLib.scene.writing import write_volume


@pytest.mark.parametrize("name", GRIDS)
def test_geometry_of_a_volume_node_is_the_one_it_was_made_with(slicer: ModuleType, name: str) -> None:
    geometry = GRIDS[name]
    assert Geometry.of(add_volume(np.zeros(SHAPE), geometry, "v")).matches(geometry)


@pytest.mark.parametrize("name", GRIDS)
def test_geometry_agrees_with_simpleitk(name: str) -> None:
    geometry = GRIDS[name]
    image = geometry.to_sitk(world_ramp(geometry))
    assert Geometry.from_sitk(image).matches(geometry)
    lps = image.TransformIndexToPhysicalPoint((5, 2, 3))
    expected = geometry.ijk_to_lps @ [5, 2, 3, 1]
    np.testing.assert_allclose(lps, expected[:3], atol=1e-9)


def test_parent_transforms_move_the_geometry(slicer: ModuleType) -> None:
    volume = add_volume(np.zeros(SHAPE), GRIDS["oblique"], "v")
    outer, inner = np.eye(4), np.eye(4)
    outer[:3, :3], inner[:3, 3] = rotation((0, 30, 0)), (1, -2, 3)
    parent = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    slicer.util.updateTransformMatrixFromArray(parent, outer)
    child = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    slicer.util.updateTransformMatrixFromArray(child, inner)
    child.SetAndObserveTransformNodeID(parent.GetID())
    volume.SetAndObserveTransformNodeID(child.GetID())
    expected = outer @ inner @ GRIDS["oblique"].ijk_to_ras
    np.testing.assert_allclose(Geometry.of(volume).ijk_to_ras, expected, atol=1e-9)
    assert Geometry.of(volume, world=False).matches(GRIDS["oblique"])


@pytest.fixture
def composite(slicer: ModuleType, tmp_path: Path) -> tuple[Any, np.ndarray]:
    """A transform node from a file with a composite of two linear transforms, as ANTs writes it, and its matrix."""
    turn = sitk.Euler3DTransform((10, 20, 30), 0.2, -0.1, 0.3)
    sitk.WriteTransform(
        sitk.CompositeTransform([turn, sitk.TranslationTransform(3, (-30, 20, 10))]), str(tmp_path / "composite.h5")
    )
    from_world = np.eye(4)
    from_world[:3, :3] = np.reshape(turn.GetMatrix(), (3, 3))
    from_world[:3, 3] = turn.TransformPoint((-30, 20, 10))
    to_lps = np.diag([-1, -1, 1, 1])
    return slicer.util.loadTransform(str(tmp_path / "composite.h5")), to_lps @ np.linalg.inv(from_world) @ to_lps


def test_composites_of_linear_transforms_move_the_geometry(
    slicer: ModuleType, composite: tuple[Any, np.ndarray], tmp_path: Path
) -> None:
    """Slicer calls them linear but gives the identity as their matrix."""
    parent, matrix = composite
    volume = add_volume(world_ramp(GRIDS["oblique"]), GRIDS["oblique"], "v")
    child = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    slicer.util.updateTransformMatrixFromArray(child, matrix)
    child.SetAndObserveTransformNodeID(parent.GetID())
    for transform, expected in ((parent, matrix), (child, matrix @ matrix)):
        volume.SetAndObserveTransformNodeID(transform.GetID())
        moved = Geometry(SHAPE, expected @ GRIDS["oblique"].ijk_to_ras)
        np.testing.assert_allclose(Geometry.of(volume).ijk_to_ras, moved.ijk_to_ras, atol=1e-9)
        written = sitk.ReadImage(str(write_volume(volume, tmp_path / "moved.nii.gz")))
        assert Geometry.from_sitk(written).matches(moved)


def test_a_volume_is_hardened_under_a_composite_of_linear_transforms(
    slicer: ModuleType, composite: tuple[Any, np.ndarray]
) -> None:
    parent, matrix = composite
    volume = add_volume(world_ramp(GRIDS["oblique"]), GRIDS["oblique"], "v")
    volume.SetAndObserveTransformNodeID(parent.GetID())
    harden(volume)
    assert volume.GetParentTransformNode() is None
    assert Geometry.of(volume).matches(Geometry(SHAPE, matrix @ GRIDS["oblique"].ijk_to_ras))
    np.testing.assert_array_equal(volume_array(volume), world_ramp(GRIDS["oblique"]))


def test_non_linear_parent_transforms_are_refused(slicer: ModuleType) -> None:
    import vtk

    volume = add_volume(np.zeros(SHAPE), GRIDS["axial"], "v")
    grid = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode", "warp")
    displacement = vtk.vtkImageData()
    displacement.SetDimensions(3, 3, 3)
    displacement.AllocateScalars(vtk.VTK_DOUBLE, 3)
    displacement.GetPointData().GetScalars().Fill(1.0)
    warp = slicer.vtkOrientedGridTransform()
    warp.SetDisplacementGridData(displacement)
    grid.SetAndObserveTransformToParent(warp)
    volume.SetAndObserveTransformNodeID(grid.GetID())
    with pytest.raises(ValueError, match="non-linear transform 'warp': harden it"):
        Geometry.of(volume)


@pytest.mark.parametrize(
    ("other", "phrase"),
    [
        (Geometry.from_spacing((4, 5, 7)), "7 x 5 x 4 voxels instead of 6 x 5 x 4"),
        (Geometry.from_spacing(SHAPE, (1, 1, 2)), "voxels of 1 x 1 x 2 mm instead of 1 x 1 x 1 mm"),
        (Geometry.from_spacing(SHAPE, (1, 1, 1), (0, 0, 4)), "the same grid, shifted by up to 4 mm"),
        (Geometry.from_spacing(SHAPE, direction=rotation((0, 0, 10))), "axes turned by up to 10.0 degrees"),
        (Geometry.from_spacing(SHAPE, (1, 1, 1), (0, 0, 1e-4)), ""),
    ],
)
def test_difference_says_in_one_phrase_what_differs(other: Geometry, phrase: str) -> None:
    assert GRIDS["axial"].difference(other) == phrase
    assert GRIDS["axial"].matches(other) == (phrase == "")


@pytest.mark.parametrize("target", GRIDS)
@pytest.mark.parametrize("source", GRIDS)
def test_resampling_keeps_what_is_linear_in_the_world(source: str, target: str) -> None:
    fine = Geometry(SHAPE, GRIDS[source].ijk_to_ras)
    big = Geometry.from_spacing((90, 90, 90), (2, 2, 2), fine.ijk_to_ras[:3, 3] - 90, rotation((3, 4, 5)))
    values = GRIDS[target].resample(world_ramp(big), big)
    inside = np.isfinite(values)
    assert inside.any() or source != target
    np.testing.assert_allclose(values[inside], world_ramp(GRIDS[target])[inside], atol=1e-6)


def test_resampling_outside_the_source_gives_nan() -> None:
    far = Geometry.from_spacing(SHAPE, (1, 1, 1), (500, 0, 0))
    assert np.isnan(far.resample(np.ones(SHAPE), GRIDS["axial"])).all()


@settings(max_examples=60, deadline=None)
@given(
    order=st.permutations([0, 1, 2]),
    flips=st.lists(st.booleans(), min_size=3, max_size=3),
    name=st.sampled_from(sorted(GRIDS)),
)
def test_reordering_finds_the_same_voxels_in_any_order(order: list[int], flips: list[bool], name: str) -> None:
    geometry, values = GRIDS[name], world_ramp(GRIDS[name])
    sizes = np.array(geometry.shape[::-1])
    permutation = np.zeros((4, 4))
    permutation[3, 3] = 1
    for new, old in enumerate(order):
        permutation[old, new] = -1 if flips[old] else 1
        permutation[old, 3] = sizes[old] - 1 if flips[old] else 0
    shape = tuple(int(sizes[old]) for old in order)[::-1]
    other = Geometry(shape, geometry.ijk_to_ras @ permutation)
    reordered = geometry.reorder(world_ramp(other), other)
    np.testing.assert_allclose(reordered, values, atol=1e-9)


def test_reordering_refuses_other_voxels() -> None:
    values = world_ramp(GRIDS["anisotropic"])
    assert GRIDS["axial"].reorder(values, GRIDS["anisotropic"]) is None
    moved = GRIDS["axial"].ijk_to_ras.copy()
    moved[0, 3] += 1.0
    assert GRIDS["axial"].reorder(values, Geometry(SHAPE, moved)) is None


@pytest.mark.parametrize("matrix", [np.zeros((4, 4)), np.full((4, 4), np.nan), np.eye(3)], ids=["flat", "nan", "3x3"])
def test_impossible_matrices_are_refused(matrix: np.ndarray) -> None:
    with pytest.raises(ValueError, match="ijk_to_ras"):
        Geometry(SHAPE, matrix)


def test_grids_that_are_equal_within_a_tolerance_cannot_be_hashed() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(GRIDS["axial"])
