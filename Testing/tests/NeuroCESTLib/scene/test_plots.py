"""Charts of spectra, and the layout that shows them beside the slices."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np

from NeuroCESTLib.scene.plots import LAYOUT_ID, Curve, PlotLayout, SpectrumChart, register_layouts

X = np.array([-3.0, 0.0, 3.0])


def curve(name: str, points: bool = False) -> Curve:
    return Curve(name, X, np.array([0.9, np.nan, 0.8]), (1.0, 0.0, 0.0), points)


def test_offsets_run_from_right_to_left_and_unusable_values_are_left_out(slicer: ModuleType) -> None:
    chart = SpectrumChart("Z")
    chart.show("voxel", [curve("measured", points=True), curve("fit")], (-3.0, 3.0))
    assert chart.node.GetXAxisRange() == (3.0, -3.0)
    measured, fit = (chart.node.GetNthPlotSeriesNode(number) for number in (0, 1))
    assert slicer.util.arrayFromTableColumn(measured.GetTableNode(), "x").tolist() == [-3.0, 3.0]
    assert (measured.GetLineStyle(), fit.GetMarkerStyle()) == (measured.LineStyleNone, fit.MarkerStyleNone)


def test_showing_again_uses_the_same_nodes(slicer: ModuleType) -> None:
    chart = SpectrumChart("Z")
    chart.show("first", [curve("a"), curve("b"), curve("c")], (-3.0, 3.0))
    count = slicer.mrmlScene.GetNumberOfNodes()
    chart.show("second", [curve("a")], (-3.0, 3.0))
    chart.show("third", [curve("a"), curve("d")], (-3.0, 3.0))
    assert slicer.mrmlScene.GetNumberOfNodes() == count
    names = [chart.node.GetNthPlotSeriesNode(i).GetName() for i in range(chart.node.GetNumberOfPlotSeriesNodes())]
    assert names == ["a", "d"]


def test_chart_of_a_saved_scene_is_used_again(slicer: ModuleType, tmp_path: Path) -> None:
    SpectrumChart("Z").show("first", [curve("a"), curve("b")], (-3.0, 3.0))
    slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    count = slicer.mrmlScene.GetNumberOfNodes()
    SpectrumChart("Z").show("second", [curve("b"), curve("a")], (-3.0, 3.0))
    assert slicer.mrmlScene.GetNumberOfNodes() == count


def test_layout_is_restored_unless_the_user_has_chosen_another_one(slicer: ModuleType) -> None:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLayoutNode")
    chart = SpectrumChart("Z").node
    for chosen, after in ((None, node.SlicerLayoutFourUpView), (node.SlicerLayoutOneUp3DView,) * 2):
        node.SetViewArrangement(node.SlicerLayoutFourUpView)
        layout = PlotLayout()
        layout.show(chart)
        assert node.GetCurrentLayoutDescription().count("vtkMRMLPlotViewNode") == 1
        if chosen is not None:
            node.SetViewArrangement(chosen)
        layout.leave()
        assert node.GetViewArrangement() == after


def test_layout_of_a_scene_from_another_session_is_shown_as_soon_as_it_is_known(slicer: ModuleType) -> None:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLayoutNode")
    node.SetViewArrangement(LAYOUT_ID)  # as the scene file says; a new session knows only Slicer's own layouts
    assert not node.GetCurrentLayoutDescription()
    register_layouts()
    assert "vtkMRMLPlotViewNode" in node.GetCurrentLayoutDescription()
    layout = PlotLayout()
    layout.show(SpectrumChart("Z").node)
    layout.leave()
    assert node.GetViewArrangement() == node.SlicerLayoutFourUpView
