"""Segmentations and label maps as masks, one for each segment or label."""

from __future__ import annotations

import colorsys
import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from NeuroCESTLib.core.headers.nrrd import is_segmentation
from NeuroCESTLib.scene.geometry import Geometry, world_transform
from NeuroCESTLib.scene.image_files import existing_file, node_name, read_header
from NeuroCESTLib.scene.messages import called, comes_from, quiet_vtk
from NeuroCESTLib.scene.volumes import add_volume, labels_on, load, read_volume, remove

_EDGE_VOXELS = 0.01
"""Distance in voxels by which a segment must reach beyond the centre of a voxel for a grid to be continued there."""


def read_segmentation(path: str | os.PathLike, name: str | None = None) -> Any:
    """Read a segmentation file into the scene.

    Args:
        path: ``.seg.nrrd``, read as a segmentation node, or any other 3-D image, read as a label-map volume node.
        name: Name of the node; the name of the file by default.

    Raises:
        ValueError: The file is missing, not an image, or truncated.
    """
    path = existing_file(path)
    if is_segmentation(path):
        read_header(path)  # a damaged file would end the process inside the reader
        node = load(path, "SegmentationFile", {"name": name or node_name(path)})
        comes_from(node, [path])
        return node
    return read_volume(path, name, label=True)


def add_segmentation(masks: dict[str, np.ndarray], geometry: Geometry, name: str) -> Any:
    """Add a segmentation node to the scene.

    Args:
        masks: Voxels of each segment by its name, bool (K, J, I).
        geometry: Voxel grid of the masks, which the node keeps as its own.
        name: Name of the node.

    Returns:
        The segmentation node.
    """
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    reference = add_volume(np.zeros(geometry.shape, np.uint8), geometry, f"{name} grid", label=True)
    try:
        node.SetReferenceImageGeometryParameterFromVolumeNode(reference)
        for number, (segment_name, mask) in enumerate(masks.items(), 1):
            # Slicer's own names of new segments are random, and are written into files.
            segment = node.GetSegmentation().AddEmptySegment(f"Segment_{number}", segment_name)
            with quiet_vtk(), _no_leftovers():
                slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), node, segment, reference)
            # Slicer's own colours are random where the name says nothing to it; the golden ratio keeps hues apart.
            color = colorsys.hsv_to_rgb(0.618034 * number % 1, 0.65, 0.9)
            node.GetSegmentation().GetSegment(segment).SetColor(*color)
        # The node stores the grid as text, so the reference volume is no longer needed.
        node.SetNodeReferenceID(node.GetReferenceImageGeometryReferenceRole(), None)
    finally:
        remove(reference)
    return node


def show_segmentation(node: Any, visible: bool, filled: bool = True) -> None:
    """Show or hide a segmentation in all views.

    Args:
        node: Segmentation node.
        visible: Whether it is shown.
        filled: Whether slice views fill the segments, instead of drawing their outlines alone.
    """
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetVisibility(visible)
    node.GetDisplayNode().SetVisibility2DFill(filled)


def grid_of(node: Any) -> Geometry:
    """Return the voxel grid on which a segmentation was made, in world coordinates: parent transforms are applied.

    Raises:
        ValueError: The node stores no grid, as segmentations that were made without an image, or a parent transform is
            not linear.
    """
    import slicer
    import vtk

    name = slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()
    text = node.GetSegmentation().GetConversionParameter(name)
    image, matrix = slicer.vtkOrientedImageData(), vtk.vtkMatrix4x4()
    if not text or not slicer.vtkSegmentationConverter.DeserializeImageGeometry(text, image, False):
        raise ValueError(f"the segmentation {called(node)} has no voxel grid of its own")
    image.GetImageToWorldMatrix(matrix)
    i0, i1, j0, j1, k0, k1 = image.GetExtent()
    start = np.eye(4)
    start[:3, 3] = i0, j0, k0
    ijk_to_ras = world_transform(node) @ slicer.util.arrayFromVTKMatrix(matrix) @ start
    return Geometry((k1 - k0 + 1, j1 - j0 + 1, i1 - i0 + 1), ijk_to_ras)


def grid_holding(node: Any, otherwise: Geometry) -> Geometry:
    """Return a voxel grid in world coordinates that holds all segments of a segmentation.

    It is the grid on which the segmentation was made, continued where segments reach beyond it.

    Args:
        node: Segmentation node.
        otherwise: Grid that is continued instead if the node stores none of its own.
    """
    try:
        grid = grid_of(node)
    except ValueError:
        world_transform(node)  # a transform that is not linear is no reason for another grid
        grid = otherwise
    return continued_for(node, grid)


def continued_for(node: Any, grid: Geometry) -> Geometry:
    """Return a voxel grid in world coordinates, continued where segments of a segmentation reach beyond it."""
    corners = _corners(node)
    if not len(corners):
        return grid
    indices = (corners @ np.linalg.inv(grid.ijk_to_ras).T)[:, :3]
    low = np.minimum(np.ceil(indices.min(0) + _EDGE_VOXELS), 0)
    high = np.maximum(np.floor(indices.max(0) - _EDGE_VOXELS), np.array(grid.shape[::-1]) - 1)
    shift = np.eye(4)
    shift[:3, 3] = low
    columns, rows, slices = (int(n) for n in high - low + 1)
    return Geometry((slices, rows, columns), grid.ijk_to_ras @ shift)


def _corners(node: Any) -> np.ndarray:
    """Corners (n, 4) in world coordinates of boxes that hold the segments; along their own axes for label maps."""
    import slicer
    import vtk

    segmentation = node.GetSegmentation()
    labelmap = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    found: list[np.ndarray] = []
    for number in range(segmentation.GetNumberOfSegments()):
        segment, to_ras = segmentation.GetNthSegment(number), np.eye(4)
        image = segment.GetRepresentation(labelmap)
        if image is None:
            ends = np.zeros(6)
            segment.GetBounds(ends)
        else:
            matrix = vtk.vtkMatrix4x4()
            image.GetImageToWorldMatrix(matrix)
            to_ras = slicer.util.arrayFromVTKMatrix(matrix)
            ends = np.array(image.GetExtent()) + np.tile((-0.5, 0.5), 3)
        if (ends[1::2] > ends[::2]).all():
            corners = [[x, y, z, 1] for x in ends[:2] for y in ends[2:4] for z in ends[4:]]
            found.append(np.array(corners) @ (world_transform(node) @ to_ras).T)
    return np.concatenate(found) if found else np.zeros((0, 4))


SegmentStyle = tuple[tuple[float, float, float], str]
"""Colour and terminology of a segment; the terminology is empty for a segment without one."""


def segment_styles(node: Any) -> list[SegmentStyle]:
    """Return the colours and terminology of the segments of a segmentation in their order."""
    import vtk

    styles = []
    for number in range(node.GetSegmentation().GetNumberOfSegments()):
        segment, entry = node.GetSegmentation().GetNthSegment(number), vtk.reference("")
        known = segment.GetTag(segment.GetTerminologyEntryTagName(), entry)
        styles.append((segment.GetColor(), str(entry) if known else ""))
    return styles


def set_segment_styles(node: Any, styles: Sequence[SegmentStyle]) -> None:
    """Give the segments of a segmentation colours and terminology, in their order."""
    for number, (color, terminology) in enumerate(styles):
        segment = node.GetSegmentation().GetNthSegment(number)
        if terminology:
            segment.SetTag(segment.GetTerminologyEntryTagName(), terminology)
        segment.SetColor(*color)
        segment.SetColorAutoGenerated(False)
        segment.SetNameAutoGenerated(False)


def copy_segment_styles(source: Any, target: Any) -> None:
    """Copy the colours and terminology of segments.

    Args:
        source: Segmentation node to copy from.
        target: Segmentation node with the same segments in the same order.
    """
    set_segment_styles(target, segment_styles(source))


def masks_on(node: Any, geometry: Geometry, strict: bool = False) -> dict[str, np.ndarray]:
    """Return the segments of a segmentation, or the labels of a label volume, as masks.

    Parent transforms are applied.

    Args:
        node: Segmentation node, or label-map volume node.
        geometry: Voxel grid of the masks; nodes on other grids are sampled at the nearest voxel.
        strict: Whether to refuse a label volume on another grid instead.

    Returns:
        Voxels of each segment by its name, bool (K, J, I); empty segments are included. Labels that have no name in
        the colour table are called ``label <value>``.

    Raises:
        ValueError: The node holds no segment or label, or is a label volume on another grid and ``strict`` is set.
    """
    if node.IsA("vtkMRMLSegmentationNode"):
        return _segments_on(node, geometry)
    labels = labels_on(node, geometry, strict)
    values = [int(value) for value in np.unique(labels) if value != 0]
    if not values:
        raise ValueError(f"the label map {called(node)} has no label where the signal is")
    return {_label_name(node, value): labels == value for value in values}


def _segments_on(node: Any, geometry: Geometry) -> dict[str, np.ndarray]:
    import slicer

    segmentation = node.GetSegmentation()
    ids = [segmentation.GetNthSegmentID(i) for i in range(segmentation.GetNumberOfSegments())]
    if not ids:
        raise ValueError(f"the segmentation {called(node)} has no segment")
    reference = add_volume(np.zeros(geometry.shape, np.uint8), geometry, "grid of the signal", label=True)
    masks: dict[str, np.ndarray] = {}
    try:
        for segment_id in ids:
            name = segmentation.GetSegment(segment_id).GetName() or segment_id
            if name in masks:
                name = f"{name} ({segment_id})"
            try:
                with quiet_vtk(), _no_leftovers():
                    array = slicer.util.arrayFromSegmentBinaryLabelmap(node, segment_id, reference)
            except (RuntimeError, AttributeError):  # slicer.util raises these for a segment without voxels
                array = None
            filled = array is not None and array.shape == geometry.shape
            masks[name] = array > 0 if filled else np.zeros(geometry.shape, bool)
    finally:
        remove(reference)
    return masks


@contextlib.contextmanager
def _no_leftovers() -> Iterator[None]:
    """Remove the display nodes that slicer.util leaves behind for its temporary label maps."""
    import slicer

    class_name = "vtkMRMLLabelMapVolumeDisplayNode"
    before = {node.GetID() for node in slicer.util.getNodesByClass(class_name)}
    try:
        yield
    finally:
        for node in slicer.util.getNodesByClass(class_name):
            if node.GetID() not in before:
                slicer.mrmlScene.RemoveNode(node)


def _label_name(node: Any, value: int) -> str:
    """Name of a label in the node's own colour table, where it is more than the application's generic name."""
    display = node.GetDisplayNode()
    colors = display.GetColorNode() if display is not None else None
    if colors is None or not colors.IsA("vtkMRMLColorTableNode") or colors.GetType() not in (colors.File, colors.User):
        return f"label {value}"
    if "Generic" in (colors.GetName() or "") or value >= colors.GetNumberOfColors():
        return f"label {value}"
    name = colors.GetColorName(value)
    return name if name and not name.isdigit() else f"label {value}"
