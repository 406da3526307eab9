"""Spectra as plots: a table, its plot series and a chart, which plot views show; and layouts of views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Curve:
    """One curve of a plot.

    Attributes:
        name: Name in the legend.
        x: Values along the x axis, shape (n,).
        y: Values, shape (n,); NaN is left out.
        color: Red, green and blue from 0 to 1.
        points: Whether to draw points instead of a line.
        dashed: Whether the line is dashed.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    color: tuple[float, float, float]
    points: bool = False
    dashed: bool = False


class SpectrumChart:
    """Chart of curves, by default of spectra over the offset, which runs from right to left as the field draws it.

    The nodes are made at the first ``show`` and used again by every later one, also after the scene has been saved
    and loaded.

    Args:
        name: Name of the chart node.
        x_title: Title of the x axis.
        y_title: Title of the y axis.
        reversed_x: Whether the x axis runs from right to left.
    """

    def __init__(
        self, name: str, x_title: str = "offset (ppm)", y_title: str = "Z = M / M0", reversed_x: bool = True
    ) -> None:
        self.name = name
        self._reversed_x = reversed_x
        self._titles = (x_title, y_title)

    @property
    def node(self) -> Any:
        """Chart node, made where there is none."""
        import slicer

        chart = slicer.mrmlScene.GetFirstNode(self.name, "vtkMRMLPlotChartNode")
        if chart is None:
            chart = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotChartNode", self.name)
            chart.SetXAxisTitle(self._titles[0])
            chart.SetYAxisTitle(self._titles[1])
            chart.SetXAxisRangeAuto(False)
        return chart

    def show(self, title: str, curves: Sequence[Curve], x_range: tuple[float, float]) -> None:
        """Show curves in place of the earlier ones.

        Args:
            title: Title of the chart.
            curves: The curves.
            x_range: Lowest and highest offset to show.
        """
        import slicer

        chart = self.node
        with slicer.util.NodeModify(chart):
            chart.SetTitle(title)
            low, high = min(x_range), max(x_range)
            chart.SetXAxisRange(*((high, low) if self._reversed_x else (low, high)))
            for number, curve in enumerate(curves):
                self._show_curve(chart, number, curve)
            while chart.GetNumberOfPlotSeriesNodes() > len(curves):
                chart.RemoveNthPlotSeriesNodeID(chart.GetNumberOfPlotSeriesNodes() - 1)

    def _show_curve(self, chart: Any, number: int, curve: Curve) -> None:
        import numpy as np
        import slicer
        from vtk.util.numpy_support import numpy_to_vtk

        series = self._series(number)
        table = series.GetTableNode()
        shown = np.isfinite(curve.x) & np.isfinite(curve.y)
        with slicer.util.NodeModify(table), slicer.util.NodeModify(series):
            table.RemoveAllColumns()
            for title, values in (("x", curve.x), ("y", curve.y)):
                column = numpy_to_vtk(np.ascontiguousarray(values[shown], dtype=np.float64), deep=True)
                column.SetName(title)
                table.AddColumn(column)
            series.SetName(curve.name)
            series.SetXColumnName("x")
            series.SetYColumnName("y")
            series.SetPlotType(series.PlotTypeScatter)
            series.SetMarkerStyle(series.MarkerStyleCircle if curve.points else series.MarkerStyleNone)
            line = series.LineStyleDash if curve.dashed else series.LineStyleSolid
            series.SetLineStyle(series.LineStyleNone if curve.points else line)
            series.SetColor(*curve.color)
        if not chart.HasPlotSeriesNodeID(series.GetID()):
            chart.AddAndObservePlotSeriesNodeID(series.GetID())

    def _series(self, number: int) -> Any:
        """Plot series of a curve, with a table of its own, made where there is none."""
        import slicer

        mark = f"{self.name} {number}"
        for series in slicer.util.getNodesByClass("vtkMRMLPlotSeriesNode"):
            if series.GetAttribute("NeuroCEST.curve") == mark:
                return series
        series = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", mark)
        series.SetAttribute("NeuroCEST.curve", mark)
        table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", f"{mark} values")
        table.SetHideFromEditors(True)
        series.SetAndObserveTableNodeID(table.GetID())
        return series


LAYOUT_ID = 14130
"""Number of the layout of slices and plot; Slicer's own are below 1000."""
_LAYOUT = """
<layout type="vertical" split="true">
 <item splitSize="600"><layout type="horizontal">
  <item><view class="vtkMRMLSliceNode" singletontag="Red">
   <property name="orientation" action="default">Axial</property>
   <property name="viewlabel" action="default">R</property>
   <property name="viewcolor" action="default">#F34A33</property></view></item>
  <item><view class="vtkMRMLSliceNode" singletontag="Green">
   <property name="orientation" action="default">Coronal</property>
   <property name="viewlabel" action="default">G</property>
   <property name="viewcolor" action="default">#6EB04B</property></view></item>
 </layout></item>
 <item splitSize="400"><view class="vtkMRMLPlotViewNode" singletontag="PlotView1">
  <property name="viewlabel" action="default">P</property></view></item>
</layout>
"""


TWO_PLOTS_ID = 14140
"""Number of the layout of two plots."""
_TWO_PLOTS = """
<layout type="vertical" split="true">
 <item><view class="vtkMRMLPlotViewNode" singletontag="PlotView1">
  <property name="viewlabel" action="default">P</property></view></item>
 <item><view class="vtkMRMLPlotViewNode" singletontag="PlotView2">
  <property name="viewlabel" action="default">S</property></view></item>
</layout>
"""


SIDE_BY_SIDE_ID = 14131
"""Number of the layout of two slice views side by side."""
FIXED_VIEW, MOVING_VIEW = "Red", "Yellow"
"""Slice views of the two visits side by side."""
_VIEW = """
  <item><view class="vtkMRMLSliceNode" singletontag="{tag}">
   <property name="orientation" action="default">Axial</property>
   <property name="viewlabel" action="default">{label}</property>
   <property name="viewcolor" action="default">{color}</property></view></item>"""
_SIDE_BY_SIDE = (
    '<layout type="horizontal">'
    + _VIEW.format(tag=FIXED_VIEW, label="Fixed", color="#F34A33")
    + _VIEW.format(tag=MOVING_VIEW, label="Moving", color="#EDD54C")
    + "</layout>"
)


class ViewLayout:
    """A layout of views, and the way back to the earlier one.

    Args:
        number: Number of the layout; Slicer's own are below 1000.
        description: Description of the layout in Slicer's XML.
    """

    def __init__(self, number: int, description: str) -> None:
        self.number = number
        self._description = description
        self._earlier: int | None = None

    def enter(self) -> None:
        """Show the layout; does nothing where there is no window."""
        import slicer

        layout = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")
        if layout is None:
            return
        self.register()
        if layout.GetViewArrangement() != self.number:
            self._earlier = layout.GetViewArrangement()
            layout.SetViewArrangement(self.number)
        elif self._earlier is None:  # a scene that was saved in this layout
            self._earlier = layout.SlicerLayoutFourUpView

    def register(self) -> None:
        """Make the layout known, so that a scene that was saved in it can be shown; does nothing without a window."""
        import slicer

        layout = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")
        if layout is None or layout.IsLayoutDescription(self.number):
            return
        layout.AddLayoutDescription(self.number, self._description)
        if layout.GetViewArrangement() == self.number:  # asked for before it was known: shown now
            layout.SetViewArrangement(layout.SlicerLayoutFourUpView)
            layout.SetViewArrangement(self.number)

    def leave(self) -> None:
        """Go back to the layout of before, unless the user has chosen another one in the meantime."""
        import slicer

        layout = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")
        if layout is not None and self._earlier is not None and layout.GetViewArrangement() == self.number:
            layout.SetViewArrangement(self._earlier)
        self._earlier = None


class PlotLayout(ViewLayout):
    """Layout of two slice views over a plot, and the way back to the earlier one."""

    def __init__(self) -> None:
        super().__init__(LAYOUT_ID, _LAYOUT)

    def show(self, chart: Any) -> None:
        """Show slices and a chart; does nothing where there is no window.

        Args:
            chart: Chart node.
        """
        import slicer

        self.enter()
        for view in slicer.util.getNodesByClass("vtkMRMLPlotViewNode"):
            view.SetPlotChartNodeID(chart.GetID())


class TwoPlotsLayout(ViewLayout):
    """Layout of two plots, one above the other, and the way back to the earlier one."""

    def __init__(self) -> None:
        super().__init__(TWO_PLOTS_ID, _TWO_PLOTS)

    def show(self, upper: Any, lower: Any) -> None:
        """Show two charts; does nothing where there is no window.

        Args:
            upper: Chart node of the upper plot.
            lower: Chart node of the lower plot; None leaves it empty.
        """
        import slicer

        self.enter()
        for name, chart in (("PlotView1", upper), ("PlotView2", lower)):
            view = slicer.mrmlScene.GetSingletonNode(name, "vtkMRMLPlotViewNode")
            if view is not None:
                view.SetPlotChartNodeID(chart.GetID() if chart is not None else None)


class SideBySideLayout(ViewLayout):
    """Layout of the two visits in slice views side by side, and the way back to the earlier one."""

    def __init__(self) -> None:
        super().__init__(SIDE_BY_SIDE_ID, _SIDE_BY_SIDE)


def register_layouts() -> None:
    """Make all layouts known, so that scenes that were saved in one of them are shown in it."""
    for layout in (PlotLayout(), TwoPlotsLayout(), SideBySideLayout()):
        layout.register()
