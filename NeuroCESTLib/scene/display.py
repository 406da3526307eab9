"""How maps are displayed: unit, colour table, window and legend of a volume node."""

from __future__ import annotations

from typing import Any

import numpy as np

from NeuroCESTLib.scene.messages import called
from NeuroCESTLib.scene.volumes import volume_array

UNIT_ATTRIBUTE = "NeuroCEST.unit"
"""Node attribute that holds the unit of the voxel values."""

# Evenly spaced anchors of colour maps (sRGB, 0 to 255). Viridis and inferno are the perceptually uniform public-domain
# maps of S. van der Walt and N. Smith; the diverging one is Moreland's map from blue over white to red. The rainbow is
# not perceptually uniform; APT-weighted images are shown in it by convention.
_ANCHORS = {
    "viridis": [
        (68, 1, 84),
        (71, 45, 123),
        (59, 82, 139),
        (44, 114, 142),
        (33, 145, 140),
        (40, 174, 128),
        (94, 201, 98),
        (173, 220, 48),
        (253, 231, 37),
    ],
    "inferno": [
        (0, 0, 4),
        (31, 12, 72),
        (85, 15, 109),
        (136, 34, 106),
        (186, 54, 85),
        (227, 89, 51),
        (249, 140, 10),
        (249, 201, 50),
        (252, 255, 164),
    ],
    "diverging": [
        (59, 76, 192),
        (98, 130, 234),
        (141, 176, 254),
        (184, 208, 249),
        (221, 221, 221),
        (245, 196, 173),
        (244, 154, 123),
        (222, 96, 77),
        (180, 4, 38),
    ],
    "rainbow": [
        (0, 0, 143),
        (0, 0, 255),
        (0, 128, 255),
        (0, 255, 255),
        (128, 255, 128),
        (255, 255, 0),
        (255, 128, 0),
        (255, 0, 0),
        (128, 0, 0),
    ],
}

COLOR_MAPS = ("grey", *_ANCHORS)
"""Names of the colour maps."""

_UCUM = {"ppm": "[ppm]", "%": "%", "mM": "mmol/L", "Hz": "Hz", "s": "s", "ms": "ms", "mm": "mm", "": "1"}
_COLORS = 256
_ROUNDING = 1e-5
"""Difference between values, relative to them, that may come from rounding alone."""


def color_map_rgb(name: str, count: int = _COLORS) -> np.ndarray:
    """Return the colours of a colour map.

    Args:
        name: One of ``COLOR_MAPS``.
        count: Number of colours.

    Returns:
        Red, green and blue from 0 to 1, of shape (count, 3).

    Raises:
        ValueError: The name is unknown.
    """
    if name == "grey":
        return np.repeat(np.linspace(0, 1, count)[:, None], 3, axis=1)
    if name not in _ANCHORS:
        raise ValueError(f"unknown colour map '{name}': choose one of {', '.join(COLOR_MAPS)}")
    anchors = np.array(_ANCHORS[name]) / 255
    position = np.linspace(0, 1, len(anchors))
    return np.stack([np.interp(np.linspace(0, 1, count), position, channel) for channel in anchors.T], axis=1)


def color_node(name: str) -> Any:
    """Return the colour node of a colour map: Slicer's own grey, or one that is made at its first use in a scene.

    Args:
        name: One of ``COLOR_MAPS``.

    Raises:
        ValueError: The name is unknown.
    """
    import slicer

    if name == "grey":
        return slicer.mrmlScene.GetNodeByID("vtkMRMLColorTableNodeGrey")
    title = f"NeuroCEST {name}"
    for node in slicer.util.getNodesByClass("vtkMRMLColorTableNode"):
        if node.GetName() == title:
            return node
    colors = color_map_rgb(name)
    node = slicer.vtkMRMLColorTableNode()
    node.SetTypeToUser()
    node.SetName(title)
    node.SetAttribute("Category", "NeuroCEST")
    node.SetHideFromEditors(False)
    node.SetNumberOfColors(len(colors))
    for i, (red, green, blue) in enumerate(colors):
        node.SetColor(i, f"{i}", float(red), float(green), float(blue), 1.0)
    node.GetLookupTable().SetTableRange(0, len(colors) - 1)
    return slicer.mrmlScene.AddNode(node)


def set_unit(node: Any, unit: str) -> None:
    """Record the unit of the voxel values as node attribute and as UCUM code; empty for dimensionless values."""
    import slicer

    node.SetAttribute(UNIT_ATTRIBUTE, unit)
    code = slicer.vtkCodedEntry()
    code.SetValueSchemeMeaning(_UCUM.get(unit, unit), "UCUM", unit or "no units")
    node.SetVoxelValueUnits(code)


def shown_maps() -> list[Any]:
    """Return the volume nodes of the scene that ``show_map`` has set up."""
    import slicer

    nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    return [node for node in nodes if node.GetAttribute(UNIT_ATTRIBUTE) is not None]


def unit_of(node: Any) -> str:
    """Return the unit of the voxel values that ``set_unit`` recorded; empty without one."""
    return node.GetAttribute(UNIT_ATTRIBUTE) or ""


def set_window(node: Any, low: float, high: float) -> None:
    """Spread the colour table of a volume node over the values from ``low`` to ``high``.

    Raises:
        ValueError: The window is empty or not finite.
    """
    if not (np.isfinite([low, high]).all() and high > low):
        raise ValueError(f"the window of {called(node)} must have low < high, not {low} and {high}")
    display = _display(node)
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(float(low), float(high))


def robust_window(array: np.ndarray, percentiles: tuple[float, float] = (2.0, 98.0)) -> tuple[float, float]:
    """Return a window that leaves out the outliers of a map.

    Args:
        array: Values of any shape; only finite ones count.
        percentiles: Percentiles of the values at the two ends of the window.

    Returns:
        Lowest and highest value of the window; (0, 1) where no value is finite. Values that are the same but for
        rounding get a window of 5 % around them, whose ends have short numbers on a colour bar.
    """
    values = array[np.isfinite(array)]
    if values.size == 0:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(values, percentiles))
    if high - low > _ROUNDING * max(abs(low), abs(high)):
        return low, high
    middle = (low + high) / 2
    width = 0.05 * abs(middle) or 1e-3
    return middle - width, middle + width


def hide_non_finite(node: Any) -> None:
    """Make the voxels transparent that are NaN or infinite; they would be drawn in the lowest or highest colour."""
    array = volume_array(node)
    finite = array[np.isfinite(array)]
    display = _display(node)
    display.SetAutoThreshold(False)
    display.SetThreshold(*((float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)))
    display.SetApplyThreshold(True)


def show_map(
    node: Any, unit: str, color_map: str, window: tuple[float, float] | None = None, legend: bool = True
) -> None:
    """Set how a map is displayed; voxels without a finite value are transparent.

    Args:
        node: Volume node of the map.
        unit: Unit of the values; empty for dimensionless ones.
        color_map: One of ``COLOR_MAPS``.
        window: Values at the two ends of the colour table; ``robust_window`` by default.
        legend: Whether to add a colour legend.

    Raises:
        ValueError: The colour map is unknown, or the window is empty or not finite.
    """
    set_unit(node, unit)
    display = _display(node)
    display.SetAndObserveColorNodeID(color_node(color_map).GetID())
    set_window(node, *(window or robust_window(volume_array(node))))
    hide_non_finite(node)
    if legend:
        add_legend(node)


def add_legend(node: Any) -> Any:
    """Add a colour legend with the name and unit of a volume, which slice views show together with the volume."""
    import slicer

    legend = slicer.modules.colors.logic().AddDefaultColorLegendDisplayNode(node)
    if legend is not None:
        unit = unit_of(node)
        legend.SetTitleText(f"{node.GetName()} ({unit})" if unit else node.GetName())
        legend.SetLabelFormat("%.3g")
        legend.SetVisibility(True)
    return legend


def show_over(foreground: Any, background: Any, opacity: float = 1.0, *, fit: bool = True) -> None:
    """Show a map over anatomy in all slice views.

    Args:
        foreground: Volume node of the map; None for the anatomy alone.
        background: Volume node of the anatomy; None keeps what the views show.
        opacity: Opacity of the map, 0 to 1.
        fit: Whether to fit the views to the images; otherwise they stay where the user has brought them.
    """
    import slicer

    layers = {"foreground": foreground, "foregroundOpacity": opacity, "label": None}
    if background is not None:
        layers["background"] = background
    slicer.util.setSliceViewerLayers(**layers, fit=fit)
    refresh_legends()


def refresh_legends() -> None:
    """Let slice views look again at the legends, which they do after a click but not after a program's choice."""
    import slicer

    for legend in slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode"):
        if legend.GetPrimaryDisplayNode() is not None:
            legend.Modified()


def turn_views(volume: Any) -> None:
    """Turn all slice views into the planes of a volume: of an oblique slab, others cut a stripe.

    Args:
        volume: Volume node; None does nothing.
    """
    import slicer

    for view in slicer.util.getNodesByClass("vtkMRMLSliceNode") if volume is not None else ():
        view.RotateToVolumePlane(volume)


def views_are_empty() -> bool:
    """Whether there are slice views and none of them shows a volume."""
    import slicer

    views = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    return bool(views) and not any(view.GetBackgroundVolumeID() or view.GetForegroundVolumeID() for view in views)


def outline(segmentation: Any) -> None:
    """Draw the segments as outlines in slice views, so that the map below them is seen."""
    shown = segmentation.GetDisplayNode()
    if shown is not None:
        shown.SetVisibility2DFill(False)


def _display(node: Any) -> Any:
    """Display node of a volume, made where there is none."""
    if node.GetScalarVolumeDisplayNode() is None:
        node.CreateDefaultDisplayNodes()
    return node.GetScalarVolumeDisplayNode()
