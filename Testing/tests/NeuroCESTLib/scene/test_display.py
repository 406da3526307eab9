"""Units, colour tables, windows and legends of maps."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from geometries import GRIDS, SHAPE
from vtk.util.numpy_support import vtk_to_numpy

from NeuroCESTLib.scene import display
from NeuroCESTLib.scene.volumes import add_volume


@pytest.mark.parametrize("name", display.COLOR_MAPS)
def test_colour_maps_run_over_colours_from_zero_to_one(name: str) -> None:
    colors = display.color_map_rgb(name, 64)
    assert colors.shape == (64, 3)
    assert colors.min() >= 0
    assert colors.max() <= 1
    assert len(np.unique(colors, axis=0)) == 64


def test_colour_nodes_are_made_once(slicer: ModuleType) -> None:
    assert display.color_node("viridis") is display.color_node("viridis")
    assert display.color_node("grey").GetName() == "Grey"
    with pytest.raises(ValueError, match="unknown colour map 'jet'"):
        display.color_node("jet")


@pytest.mark.parametrize("values", [[np.nan], [3.0, 3.0], [0.0, 0.0, np.nan]])
def test_maps_without_contrast_still_get_a_window(values: list[float]) -> None:
    low, high = display.robust_window(np.array(values))
    assert low < high


@pytest.mark.parametrize("level", [1.3, -250.0, 4e-5])
def test_a_map_that_is_constant_but_for_rounding_gets_a_window_of_5_percent(level: float) -> None:
    values = level * (1 + 1e-7 * np.random.default_rng(0).normal(size=100))
    low, high = display.robust_window(values)
    np.testing.assert_allclose(sorted([low, high]), sorted([0.95 * level, 1.05 * level]), rtol=1e-5)
    assert low < high


def test_a_window_leaves_out_outliers_and_values_that_are_not_finite() -> None:
    values = np.concatenate([np.linspace(0, 1, 1000), [np.nan, np.inf, 1e6]])
    low, high = display.robust_window(values)
    assert 0 < low < 0.05
    assert 0.95 < high < 1


@pytest.mark.parametrize("window", [(1.0, 1.0), (2.0, 1.0), (0.0, float("nan"))])
def test_impossible_windows_are_refused(slicer: ModuleType, window: tuple[float, float]) -> None:
    node = add_volume(np.zeros(SHAPE), GRIDS["axial"], "map")
    with pytest.raises(ValueError, match="the window of 'map' must have low < high"):
        display.set_window(node, *window)


@pytest.mark.parametrize(("unit", "code", "title"), [("Hz", "Hz", "rate (Hz)"), ("", "1", "rate")])
def test_a_map_shows_its_unit(slicer: ModuleType, unit: str, code: str, title: str) -> None:
    node = add_volume(np.arange(120.0).reshape(SHAPE), GRIDS["axial"], "rate")
    display.show_map(node, unit, "viridis", (0, 100))
    assert display.unit_of(node) == unit
    assert node.GetVoxelValueUnits().GetCodeValue() == code
    legend = slicer.modules.colors.logic().GetColorLegendDisplayNode(node)
    assert legend.GetTitleText() == title
    assert legend.GetVisibility()


def test_voxels_without_a_finite_value_are_transparent(slicer: ModuleType) -> None:
    values = np.linspace(1.0, 2.0, 120).reshape(SHAPE)
    values[0, 0, 0], values[0, 0, 1], values[0, 0, 2] = np.nan, np.inf, 1e6
    node = add_volume(values, GRIDS["axial"], "rate")
    display.show_map(node, "Hz", "viridis", (1.2, 1.8))
    colors = node.GetDisplayNode().GetOutputImageDataConnection().GetProducer()
    colors.Update()
    opacity = vtk_to_numpy(colors.GetOutput().GetPointData().GetScalars())[:, 3]
    assert opacity[:2].tolist() == [0, 0]
    assert (opacity[2:] == 255).all()


def test_map_is_shown_over_the_anatomy_in_all_slice_views(slicer: ModuleType) -> None:
    views = [slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode", name) for name in ("Red", "Green")]
    anatomy, first, second = (add_volume(np.ones(SHAPE), GRIDS["axial"], name) for name in ("t1", "apt", "noe"))
    display.show_over(first, anatomy)
    display.show_over(second, None, 0.4)
    for view in views:
        assert view.GetBackgroundVolumeID() == anatomy.GetID()
        assert view.GetForegroundVolumeID() == second.GetID()
        assert view.GetForegroundOpacity() == 0.4


def test_legends_follow_a_map_that_a_program_shows(slicer: ModuleType) -> None:
    first, second = (add_volume(np.ones(SHAPE), GRIDS["oblique"], name) for name in ("first", "second"))
    modified: list[object] = []
    for node in (first, second):
        display.show_map(node, "", "viridis")
        legend = slicer.modules.colors.logic().GetColorLegendDisplayNode(node)
        legend.AddObserver("ModifiedEvent", lambda caller, event: modified.append(caller))
    modified.clear()
    display.show_over(second, None)
    assert len(modified) == 2


def test_views_are_turned_into_the_plane_of_an_oblique_slab(slicer: ModuleType) -> None:
    view = slicer.vtkMRMLSliceNode()
    view.SetSingletonTag("Turned")
    view.SetLayoutName("Turned")
    view = slicer.mrmlScene.AddNode(view)
    display.turn_views(None)
    before = [view.GetSliceToRAS().GetElement(row, 2) for row in range(3)]
    display.turn_views(add_volume(np.ones(SHAPE), GRIDS["oblique"], "slab"))
    normal = np.array([view.GetSliceToRAS().GetElement(row, 2) for row in range(3)])
    axes = GRIDS["oblique"].ijk_to_ras[:3, :3] / np.linalg.norm(GRIDS["oblique"].ijk_to_ras[:3, :3], axis=0)
    assert np.abs(axes.T @ normal).max() == pytest.approx(1.0)
    assert not np.allclose(normal, before)
    slicer.mrmlScene.RemoveNode(view)
