"""Draw what the views of the application show of the scene: slice views and plots, off screen.

Slice views are drawn by Slicer's own slice logic and displayable managers, from the nodes of the scene. Plots are drawn
from the chart nodes by VTK's charts, as the application's plot view does. The window around the views is left out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
SLICE_SIZE = (620, 560)
"""Width and height of a slice view in pixels."""
PLOT_SIZE = (900, 560)
"""Width and height of a plot in pixels."""
NOISE_SD = 0.02
"""Noise of the pictures before and after denoising, relative to M0 of white matter."""
MANAGERS = (
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLTransformsDisplayableManager2D",
    "vtkMRMLColorLegendDisplayableManager",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLCrosshairDisplayableManager",
)
"""Displayable managers of slice views that draw what the modules show."""


class SliceView:
    """A slice view of the scene.

    Args:
        tag: Singleton tag of its node, such as ``Red``.
        orientation: ``Axial``, ``Coronal`` or ``Sagittal``.
    """

    def __init__(self, tag: str, orientation: str) -> None:
        import slicer
        import vtk

        self.logic = slicer.vtkMRMLSliceLogic()
        self.logic.SetMRMLScene(slicer.mrmlScene)
        self.node = slicer.mrmlScene.GetSingletonNode(tag, "vtkMRMLSliceNode") or self.logic.AddSliceNode(tag)
        self.logic.SetSliceNode(self.node)
        slicer.app.applicationLogic().GetSliceLogics().AddItem(self.logic)
        self.node.SetOrientation(orientation)
        self.node.SetDimensions(*SLICE_SIZE, 1)
        self._window, self._renderer = _window(SLICE_SIZE)
        self._image = vtk.vtkImageMapper()
        self._image.SetColorWindow(255)
        self._image.SetColorLevel(127.5)
        actor = vtk.vtkActor2D()
        actor.SetMapper(self._image)
        actor.GetProperty().SetDisplayLocationToBackground()
        self._renderer.AddActor2D(actor)
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        factory.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        for name in MANAGERS:
            if not factory.IsDisplayableManagerRegistered(name):
                factory.RegisterDisplayableManager(name)
        self._group = slicer.vtkMRMLDisplayableManagerGroup()
        self._group.Initialize(factory, self._renderer)
        self._group.SetMRMLDisplayableNode(self.node)

    def fit(self) -> None:
        """Show all of the background, in the plane through its middle."""
        self.logic.FitSliceToBackground(*SLICE_SIZE)
        self.node.UpdateMatrices()

    def picture(self) -> Any:
        """Return the view as an array (row, column, RGB)."""
        self.logic.UpdatePipeline()
        self._image.SetInputConnection(self.logic.GetImageDataConnection())
        return _pixels(self._window)


def plot_picture(chart: Any) -> Any:
    """Return a chart of the scene as an array (row, column, RGB).

    Args:
        chart: Plot chart node.
    """
    import vtk

    drawn = vtk.vtkChartXY()
    drawn.SetTitle(chart.GetTitle() or "")
    drawn.SetShowLegend(True)
    drawn.GetLegend().SetHorizontalAlignment(vtk.vtkChartLegend.LEFT)
    drawn.GetLegend().SetVerticalAlignment(vtk.vtkChartLegend.BOTTOM)
    drawn.GetLegend().GetBrush().SetColorF(1.0, 1.0, 1.0, 0.7)
    for axis, title, size in (
        (vtk.vtkAxis.BOTTOM, chart.GetXAxisTitle(), 22),
        (vtk.vtkAxis.LEFT, chart.GetYAxisTitle(), 22),
    ):
        drawn.GetAxis(axis).SetTitle(title)
        drawn.GetAxis(axis).GetTitleProperties().SetFontSize(size)
        drawn.GetAxis(axis).GetLabelProperties().SetFontSize(18)
    drawn.GetTitleProperties().SetFontSize(24)
    drawn.GetLegend().GetLabelProperties().SetFontSize(18)
    for number in range(chart.GetNumberOfPlotSeriesNodes()):
        _add_series(drawn, chart.GetNthPlotSeriesNode(number))
    drawn.GetAxis(vtk.vtkAxis.BOTTOM).SetBehavior(vtk.vtkAxis.FIXED)
    drawn.GetAxis(vtk.vtkAxis.BOTTOM).SetRange(*chart.GetXAxisRange())
    window, renderer = _window(PLOT_SIZE)
    renderer.SetBackground(1.0, 1.0, 1.0)
    actor = vtk.vtkContextActor()
    scene = vtk.vtkContextScene()
    actor.SetScene(scene)
    scene.AddItem(drawn)
    scene.SetRenderer(renderer)
    renderer.AddActor(actor)
    return _pixels(window)


def _add_series(chart: Any, series: Any) -> None:
    """Add a plot series to a chart as the application's plot view does."""
    import vtk

    points = series.GetMarkerStyle() != series.MarkerStyleNone
    line = series.GetLineStyle() != series.LineStyleNone
    plot = chart.AddPlot(vtk.vtkChart.LINE if line else vtk.vtkChart.POINTS)
    plot.SetInputData(series.GetTableNode().GetTable(), "x", "y")
    plot.SetLabel(series.GetName())
    plot.SetColorF(*series.GetColor())
    plot.SetWidth(3.0)
    if line:
        plot.GetPen().SetLineType(
            vtk.vtkPen.DASH_LINE if series.GetLineStyle() == series.LineStyleDash else vtk.vtkPen.SOLID_LINE
        )
    if points:
        plot.SetMarkerStyle(vtk.vtkPlotPoints.CIRCLE)
        plot.SetMarkerSize(9.0)


def _window(size: tuple[int, int]) -> tuple[Any, Any]:
    import vtk

    window, renderer = vtk.vtkRenderWindow(), vtk.vtkRenderer()
    window.SetOffScreenRendering(True)
    window.SetMultiSamples(4)
    window.SetSize(*size)
    window.AddRenderer(renderer)
    interactor = vtk.vtkRenderWindowInteractor()
    interactor.SetRenderWindow(window)
    window.interactor_ = interactor
    return window, renderer


def _pixels(window: Any) -> Any:
    import numpy as np
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    window.Render()
    window.Render()  # the first one lays labels out
    grabbed = vtk.vtkWindowToImageFilter()
    grabbed.SetInput(window)
    grabbed.ReadFrontBufferOff()
    grabbed.Update()
    image = grabbed.GetOutput()
    columns, rows, _ = image.GetDimensions()
    values = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(rows, columns, -1)
    return np.ascontiguousarray(values[::-1, :, :3])


def save(pictures: list[Any], path: Path) -> None:
    """Write views side by side as PNG."""
    import numpy as np
    import SimpleITK as sitk

    sitk.WriteImage(sitk.GetImageFromArray(np.concatenate(pictures, axis=1), isVector=True), str(path))
    print(path)


class Session:
    """What a user does with the sample data in the panel of CESTQuant, of which the pictures are taken.

    Args:
        folder: Folder for the pictures.
    """

    def __init__(self, folder: Path) -> None:
        import slicer

        self.folder = folder
        self.panel = slicer.util.getModuleWidget("CESTQuant")
        self.nodes = self.panel.logic.addPhantom()
        self.view = SliceView("Red", "Axial")
        self.panel.enter()
        self.parameters = self.panel.logic.getParameterNode()

    def place(self, i: int, j: int, k: int) -> list[float]:
        """Return the place of a voxel in world coordinates (RAS, mm)."""
        import numpy as np

        from NeuroCESTLib.scene.geometry import Geometry

        return [float(x) for x in (Geometry.of(self.nodes["m0"]).ijk_to_ras @ np.array([i, j, k, 1.0]))[:3]]

    def choose(self, method: str) -> None:
        """Choose a method, and for a model fit the model of the phantom."""
        ui = self.panel.ui
        ui.methodComboBox.currentIndex = ui.methodComboBox.findData(method)
        if self.panel.pools.kind() == "model":
            ui.modelPresetComboBox.currentIndex = ui.modelPresetComboBox.findData("digital phantom 3T")
            self.panel.pools.onPresetChosen(ui.modelPresetComboBox.currentIndex)

    def spectrum(self) -> None:
        """Follow the mouse over the tumour, with a pinned point in white matter."""
        import slicer

        self.choose("r1rho")
        points = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "normal tissue")
        points.AddControlPoint(self.place(12, 30, 1), "white matter")
        self.parameters.pins = points
        self.panel.ui.liveSpectrumCheckBox.checked = True
        self.view.fit()
        crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        crosshair.SetCrosshairMode(crosshair.ShowBasic)
        crosshair.SetCrosshairRAS(self.place(34, 17, 1))
        crosshair.SetCursorPositionRAS(self.place(34, 17, 1))
        self.panel.spectrum.live.fit()  # as soon as the mouse rests
        plot = plot_picture(self.panel.spectrum.live.chart.node)
        save([self.view.picture(), plot], self.folder / "view_spectrum.png")
        self.panel.ui.liveSpectrumCheckBox.checked = False
        crosshair.SetCrosshairMode(crosshair.NoCrosshair)
        points.SetDisplayVisibility(False)

    def map(self) -> None:
        """Compute the maps of the slice in the view, and show that of amide."""
        ui = self.panel.ui
        self.choose("r1rho")
        ui.previewButton.click()
        ui.shownMapComboBox.currentIndex = ui.shownMapComboBox.findText("amide_fraction")
        save([self.view.picture()], self.folder / "view_map.png")

    def denoising(self) -> None:
        """Map the asymmetry of a noisy acquisition as it is, and after the noise has been removed."""
        import numpy as np
        import slicer

        from NeuroCESTLib.scene import volumes
        from NeuroCESTLib.scene.sequences import array_to_sequence, sequence_to_array

        array, geometry, index = sequence_to_array(self.nodes["signal"])
        level = float(np.median(array[0][array[0] > 0]))
        noisy = array + NOISE_SD * level * np.random.default_rng(1).standard_normal(array.shape).astype(np.float32)
        signal = array_to_sequence(noisy, geometry, "noisy", index.tolist())
        self.panel.logic.setProtocol(signal, self.panel.logic.protocolOf(self.nodes["signal"]))
        self.parameters.signal = signal
        self.choose("mtrasym")
        ui, views = self.panel.ui, []
        ui.powerSpinBox.value = 1.0
        for denoised in (False, True):
            ui.denoisingCheckBox.checked = denoised
            ui.applyButton.click()
            ui.shownMapComboBox.currentIndex = ui.shownMapComboBox.findText("mtr_asym_3.5ppm")
            if self.panel.results.shownMap() is None:  # a second map of this name is listed with its folder
                ui.shownMapComboBox.currentIndex = ui.shownMapComboBox.count - 1
            self.panel.ui.windowLowLineEdit.text, self.panel.ui.windowHighLineEdit.text = "-0.12", "0.04"
            self.panel.results.onWindowTyped()
            views.append(self.view.picture())
            for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
                if node.GetName() == "mtr_asym_3.5ppm":
                    volumes.remove(node)
        save(views, self.folder / "view_denoising.png")


def main() -> int:
    """Draw the pictures of the documentation into a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where to write the pictures")
    options = parser.parse_args()
    sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "Testing")]
    import panel_host

    panel_host.start()
    panel_host.load_module(REPOSITORY / "CESTQuant" / "CESTQuant.py")
    session = Session(options.folder.resolve())
    session.spectrum()
    session.map()
    session.denoising()
    return 0


if __name__ == "__main__":
    sys.exit(main())
