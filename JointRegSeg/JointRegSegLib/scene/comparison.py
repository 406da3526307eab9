"""Fixed and warped images shown against each other in the slice views."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from NeuroCESTLib.scene import display, hierarchy
from NeuroCESTLib.scene.geometry import Geometry, harden
from NeuroCESTLib.scene.plots import FIXED_VIEW, MOVING_VIEW
from NeuroCESTLib.scene.volumes import add_volume, array_on, remove, volume_array

from ..pictures.comparison import checkerboard, difference
from .results import WARPED_PERCENTILES

COMPARISON_MARK = "NeuroCEST.comparison"
"""Mark of volumes that show a comparison, which the next one of the same kind replaces; copies of them stay."""
_CERTAIN_BELOW = 0.05
"""Entropy from 0 to 1 below which the uncertainty is not shown."""


def show_outlines(nodes: Iterable[Any]) -> None:
    """Draw the segmentations among some nodes as outlines, which hide nothing of what is compared."""
    for node in nodes:
        if node.IsA("vtkMRMLSegmentationNode") and node.GetDisplayNode() is not None:
            node.GetDisplayNode().SetVisibility2DFill(False)


def show_in_robust_window(volume: Any) -> None:
    """Give a volume the window of its percentiles, as the warped images have it, unless the user has chosen one."""
    shown = volume.GetScalarVolumeDisplayNode()
    if shown is None or not shown.GetAutoWindowLevel():
        return
    low, high = display.robust_window(volume_array(volume)[::2, ::2, ::2], WARPED_PERCENTILES)
    if high > low:
        display.set_window(volume, low, high)


def show_side_by_side(fixed: Any, warped: Any) -> None:
    """Show two volumes in the two views of the layout side by side, linked in position, zoom and slice.

    Args:
        fixed: Volume node of the left view.
        warped: Volume node of the right view.
    """
    for view, volume in ((FIXED_VIEW, fixed), (MOVING_VIEW, warped)):
        for composite in _composites(view):
            composite.SetBackgroundVolumeID(volume.GetID())
            composite.SetForegroundVolumeID(None)
            composite.SetLinkedControl(True)
            composite.SetHotLinkedControl(True)


def show_faded(fixed: Any, warped: Any, opacity: float) -> None:
    """Show the warped over the fixed volume.

    Args:
        fixed: Volume node below.
        warped: Volume node above.
        opacity: Opacity of the warped one, 0 to 1.
    """
    display.show_over(warped, fixed, opacity)


def set_opacity(opacity: float) -> None:
    """Set the opacity of what lies above in all slice views, 0 to 1."""
    for composite in _composites():
        composite.SetForegroundOpacity(opacity)


def show_checkerboard(fixed: Any, warped: Any, tile_mm: float) -> Any:
    """Show blocks of both volumes in turn.

    Args:
        fixed: Volume node.
        warped: Volume node, resampled to the fixed one where it lies on another grid.
        tile_mm: Edge of a block in mm.

    Returns:
        The volume node that is shown.
    """

    def blocks(first: np.ndarray, second: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
        tile = [max(round(tile_mm / step), 1) for step in spacing_mm[::-1]]
        return checkerboard(first, second, (tile[0], tile[1], tile[2]))

    node = _comparison("checkerboard", fixed, warped, blocks)
    display.set_window(node, 0.0, 1.0)
    _show_alone(node)
    return node


def show_difference(fixed: Any, warped: Any) -> Any:
    """Show the warped minus the fixed volume, both on a common scale, from blue over white to red.

    Returns:
        The volume node that is shown.
    """
    node = _comparison("difference", fixed, warped, lambda first, second, spacing_mm: difference(first, second))
    display.show_map(node, "", "diverging", (-0.5, 0.5))
    _show_alone(node)
    return node


def show_jacobian(fixed: Any, jacobian: Any, opacity: float) -> None:
    """Show the map of local volume change over the fixed volume."""
    display.show_over(jacobian, fixed, opacity)


def show_uncertainty(fixed: Any, moving: Any, transform: Any, opacity: float) -> None:
    """Show the uncertainty of both segmentations over the images of the layout side by side.

    Args:
        fixed: Uncertainty of the fixed visit.
        moving: Uncertainty of the moving visit, on its own grid; a copy is brought onto the fixed visit.
        transform: Transform node from the moving to the fixed visit.
        opacity: Opacity of the maps, 0 to 1; they are transparent where the network is certain.
    """
    import slicer

    name = f"{moving.GetName()} on fixed"
    _remove_comparison(name)
    copy = slicer.vtkSlicerVolumesLogic.CloneVolume(slicer.mrmlScene, moving, name)
    hierarchy.mark(copy, COMPARISON_MARK, name)
    copy.SetAndObserveTransformNodeID(transform.GetID())
    harden(copy)
    display.add_legend(copy)
    if folder := hierarchy.nearest_folder_of(moving):
        hierarchy.put([copy], folder)
    for view, volume in ((FIXED_VIEW, fixed), (MOVING_VIEW, copy)):
        shown = volume.GetScalarVolumeDisplayNode()
        shown.SetAutoThreshold(False)
        shown.SetThreshold(_CERTAIN_BELOW, 1.0)
        shown.SetApplyThreshold(True)
        for composite in _composites(view):
            composite.SetForegroundVolumeID(volume.GetID())
            composite.SetForegroundOpacity(opacity)
    display.refresh_legends()


def show_grid(transform: Any, visible: bool) -> None:
    """Show or hide the grid of a transform in the slice views."""
    if transform.GetDisplayNode() is None:
        transform.CreateDefaultDisplayNodes()
    shown = transform.GetDisplayNode()
    shown.SetVisualizationMode(shown.VIS_MODE_GRID)
    shown.SetVisibility(visible)
    shown.SetVisibility2D(visible)


def _comparison(
    name: str, fixed: Any, warped: Any, compare: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
) -> Any:
    """Add the comparison of two volumes to the folder of the warped one, in place of the earlier one of its kind."""
    geometry = Geometry.of(fixed)
    spacing_mm = np.linalg.norm(geometry.ijk_to_ras[:3, :3], axis=0)
    array = compare(volume_array(fixed).astype(np.float32), array_on(warped, geometry), spacing_mm)
    _remove_comparison(name)
    node = add_volume(array.astype(np.float32), geometry, name)
    node.CreateDefaultDisplayNodes()
    hierarchy.mark(node, COMPARISON_MARK, name)
    if folder := hierarchy.nearest_folder_of(warped):
        hierarchy.put([node], folder)
    return node


def _remove_comparison(name: str) -> None:
    """Remove the earlier comparison of a kind."""
    import slicer

    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        if hierarchy.marked(node, COMPARISON_MARK) == name:
            remove(node)


def _show_alone(node: Any) -> None:
    display.show_over(None, node, fit=False)


def _composites(view: str = "") -> list[Any]:
    """Return the nodes that say what the slice views show, of one view or of all."""
    import slicer

    nodes = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    return [node for node in nodes if not view or node.GetLayoutName() == view]
