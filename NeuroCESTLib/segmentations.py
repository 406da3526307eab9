"""Segmentations and label maps as named masks on a voxel grid."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from NeuroCESTLib.geometry import Geometry
from NeuroCESTLib.image_files import existing_file, read_header
from NeuroCESTLib.volumes import add_volume, labels_on, load, quiet_vtk, read_volume, remove, stem


def read_segmentation(path: str | os.PathLike, name: str | None = None) -> Any:
    """Read ``.seg.nrrd`` as a segmentation node, any other image as a label-map volume node.

    Raises:
        ValueError: the file is missing, no image or truncated.
    """
    path = existing_file(path)
    if path.name.lower().endswith((".seg.nrrd", ".seg.nhdr")):
        read_header(path)  # a damaged file would end the process inside the reader
        return load(path, "SegmentationFile", {"name": name or stem(path)})
    return read_volume(path, name, label=True)


def add_segmentation(masks: dict[str, np.ndarray], geometry: Geometry, name: str) -> Any:
    """New segmentation node with one segment a mask (bool, ``(K, J, I)``) on ``geometry``."""
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    reference = add_volume(np.zeros(geometry.shape, np.uint8), geometry, f"{name} grid", label=True)
    try:
        node.SetReferenceImageGeometryParameterFromVolumeNode(reference)
        for segment_name, mask in masks.items():
            segment = node.GetSegmentation().AddEmptySegment("", segment_name)
            with quiet_vtk(), _no_leftovers():
                slicer.util.updateSegmentBinaryLabelmapFromArray(
                    mask.astype(np.uint8), node, segment, reference
                )
        # The grid itself is kept in the node as text; the volume is not needed any more.
        node.SetNodeReferenceID(node.GetReferenceImageGeometryReferenceRole(), None)
    finally:
        remove(reference)
    return node


def masks_on(node: Any, geometry: Geometry, strict: bool = False) -> dict[str, np.ndarray]:
    """Segments of a segmentation node, or labels of a label volume, as bool ``(K, J, I)`` on ``geometry``.

    Parent transforms are applied; other grids are sampled at the nearest voxel. Labels without a name in
    the colour table are called ``label <value>``; empty segments are included, all False.

    Raises:
        ValueError: the node holds no segment, or is a label volume of another grid with ``strict``.
    """
    if node.IsA("vtkMRMLSegmentationNode"):
        return _segments_on(node, geometry)
    labels = labels_on(node, geometry, strict)
    values = [int(value) for value in np.unique(labels) if value != 0]
    if not values:
        raise ValueError(f"the label map '{node.GetName()}' has no label where the signal is")
    return {_label_name(node, value): labels == value for value in values}


def _segments_on(node: Any, geometry: Geometry) -> dict[str, np.ndarray]:
    import slicer

    segmentation = node.GetSegmentation()
    ids = [segmentation.GetNthSegmentID(i) for i in range(segmentation.GetNumberOfSegments())]
    if not ids:
        raise ValueError(f"the segmentation '{node.GetName()}' has no segment")
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
            except (RuntimeError, AttributeError):  # how slicer.util meets a segment without any voxel
                array = None
            filled = array is not None and array.shape == geometry.shape
            masks[name] = array > 0 if filled else np.zeros(geometry.shape, bool)
    finally:
        remove(reference)
    return masks


@contextlib.contextmanager
def _no_leftovers() -> Iterator[None]:
    """Remove the display node that slicer.util leaves of each of its temporary label maps."""
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
    """Name of a label in the node's own colour table; the application's generic names say nothing."""
    display = node.GetDisplayNode()
    colors = display.GetColorNode() if display is not None else None
    if colors is None or not colors.IsA("vtkMRMLColorTableNode") or colors.GetType() != colors.File:
        return f"label {value}"
    if "Generic" in (colors.GetName() or "") or value >= colors.GetNumberOfColors():
        return f"label {value}"
    name = colors.GetColorName(value)
    return name if name and name != str(value) else f"label {value}"
