"""Sequence nodes: Z-spectra in the scene, one volume a measurement.

A numeric sequence index sorts its items and holds each value once. Acquisitions are often unsorted and
repeat offsets, so such sequences get a text index in the order of acquisition, in which a repeated
value carries its count: ``3``, ``3 (2)``, ``3 (3)``. The number in front is the value, in Slicer's
sequence browser and in the ``.seq.nrrd`` file too.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from NeuroCESTLib.scene.geometry import Geometry, world_transform
from NeuroCESTLib.scene.image_files import existing_file, read_header
from NeuroCESTLib.scene.volumes import load, read_volume, remove, restore_non_finite, stem, storable, volume_array


def read_sequence(paths: str | os.PathLike | Sequence[str | os.PathLike], name: str | None = None) -> Any:
    """Read one 4-D file (NIfTI, ``.seq.nrrd``) or several 3-D files as a sequence node.

    ``.seq.nrrd`` keeps its index; other files get the measurement number, 0 … n − 1 (see ``set_index``).

    Raises:
        ValueError: a file is missing, no image, truncated, 3-D where 4-D is needed, or on another grid.
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    if not paths:
        raise ValueError("no signal file is given")
    if len(paths) > 1:
        return _read_volumes(paths, name)
    path = existing_file(paths[0])
    header = read_header(path)
    if header.complex_valued:
        raise ValueError(f"'{path}' holds complex numbers: export the magnitude image")
    if header.measurements < 2 and header.components < 2:
        raise ValueError(f"'{path}' is 3-D, one measurement: give a 4-D file or one 3-D file for each measurement")
    node = load(path, "SequenceFile", {"name": name or stem(path), "show": False})
    if not node.IsA("vtkMRMLSequenceNode") or node.GetNumberOfDataNodes() == 0:
        remove(node)
        raise ValueError(f"'{path}' holds no sequence of volumes")
    node.SetName(name or stem(path))
    restore_non_finite([node.GetNthDataNode(i) for i in range(node.GetNumberOfDataNodes())], path, header)
    if not path.name.lower().endswith((".seq.nrrd", ".seq.nhdr")):
        node.SetIndexName("measurement")
        node.SetIndexUnit("")
    return node


def _read_volumes(paths: Sequence[str | os.PathLike], name: str | None) -> Any:
    arrays, first = [], None
    for path in paths:
        volume = read_volume(path)
        try:
            geometry = Geometry.of(volume)
            first = first or geometry
            if difference := first.difference(geometry):
                raise ValueError(f"'{path}' has another geometry than '{paths[0]}': {difference}")
            arrays.append(volume_array(volume))
        finally:
            remove(volume)
    name = name or stem(paths[0])
    return array_to_sequence(np.stack(arrays), first, name, range(len(arrays)), "measurement", "")


def array_to_sequence(
    array: np.ndarray,
    geometry: Geometry,
    name: str,
    index_values: Sequence[float],
    index_name: str = "offset",
    unit: str = "ppm",
) -> Any:
    """New sequence node of an array ``(measurement, K, J, I)`` with one index value a measurement.

    Raises:
        ValueError: shapes or counts do not agree.
    """
    import slicer

    if array.ndim != 4 or array.shape[1:] != geometry.shape:
        raise ValueError(
            f"the array for sequence '{name}' has shape {array.shape}, "
            f"not (measurement, {', '.join(map(str, geometry.shape))})"
        )
    labels, numeric = _index_labels(index_values, array.shape[0], name)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", name)
    node.SetIndexName(index_name)
    node.SetIndexUnit(unit)
    node.SetIndexType(node.NumericIndex if numeric else node.TextIndex)
    volume = slicer.vtkMRMLScalarVolumeNode()
    geometry.apply_to(volume)
    for label, measurement in zip(labels, array, strict=True):
        volume.SetName(f"{name} {label}")
        slicer.util.updateVolumeFromArray(volume, storable(measurement))
        node.SetDataNodeAtValue(volume, label)
    return node


def set_index(node: Any, index_values: Sequence[float], index_name: str = "offset", unit: str = "ppm") -> None:
    """Give the measurements of a sequence node their values, in the order in which they are stored.

    Raises:
        ValueError: another number of values than measurements, or values that are not finite.
    """
    count = node.GetNumberOfDataNodes()
    labels, numeric = _index_labels(index_values, count, node.GetName())
    # As text, no value is sorted or taken for another while they change one by one.
    node.SetIndexType(node.TextIndex)
    for values in ([f"measurement {i}" for i in range(count)], labels):
        for i, value in enumerate(values):
            node.UpdateIndexValue(node.GetNthIndexValue(i), value)
    node.SetIndexType(node.NumericIndex if numeric else node.TextIndex)
    node.SetIndexName(index_name)
    node.SetIndexUnit(unit)


def sequence_to_array(node: Any) -> tuple[np.ndarray, Geometry, np.ndarray]:
    """Signal ``(measurement, K, J, I)`` in floating point, its geometry in the world, and the index values.

    Index values are in stored order, float64, NaN where a text index does not begin with a number.

    Raises:
        ValueError: the sequence is empty, holds no volumes, or volumes on different grids.
    """
    count = node.GetNumberOfDataNodes()
    if count == 0:
        raise ValueError(f"the sequence '{node.GetName()}' is empty")
    first = node.GetNthDataNode(0)
    if not first.IsA("vtkMRMLScalarVolumeNode"):
        raise ValueError(f"the sequence '{node.GetName()}' holds no scalar volumes")
    geometry = Geometry.of(first, world=False)
    dtype = np.result_type(volume_array(first).dtype, np.float32)
    array = np.empty((count, *geometry.shape), dtype)
    for i in range(count):
        item = node.GetNthDataNode(i)
        if difference := geometry.difference(Geometry.of(item, world=False)):
            raise ValueError(
                f"measurement {i + 1} of the sequence '{node.GetName()}' has another geometry: {difference}"
            )
        array[i] = volume_array(item)
    geometry = Geometry(geometry.shape, _proxy_transform(node) @ geometry.ijk_to_ras)
    return array, geometry, index_values(node)


def index_values(node: Any) -> np.ndarray:
    """Index values of a sequence node in stored order, float64; NaN for text without a number in front."""
    values = []
    for i in range(node.GetNumberOfDataNodes()):
        words = node.GetNthIndexValue(i).split()
        try:
            values.append(float(words[0]))
        except (IndexError, ValueError):
            values.append(float("nan"))
    return np.array(values, dtype=np.float64)


def _index_labels(values: Sequence[float], count: int, name: str) -> tuple[list[str], bool]:
    """Texts of the index values, and whether they may be a numeric index (ascending, all different)."""
    import slicer

    values = np.asarray(values, dtype=np.float64).ravel()
    if values.size != count:
        raise ValueError(f"{values.size} index values are given, but '{name}' has {count} measurements")
    if not np.isfinite(values).all():
        raise ValueError(f"the index values of '{name}' must be finite numbers")
    tolerance = slicer.vtkMRMLSequenceNode().GetNumericIndexValueTolerance()
    numeric = bool((np.diff(values) > 2 * tolerance).all())
    labels, seen = [], {}
    for value in values:
        text = repr(float(value)).removesuffix(".0")
        seen[text] = seen.get(text, 0) + 1
        labels.append(text if seen[text] == 1 else f"{text} ({seen[text]})")
    return labels, numeric


def _proxy_transform(node: Any) -> np.ndarray:
    """World transform (4, 4) of the volume that a sequence browser shows for this sequence, if any."""
    import slicer

    for browser in slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode"):
        proxy = browser.GetProxyNode(node) if browser.IsSynchronizedSequenceNode(node, True) else None
        if proxy is not None:
            return world_transform(proxy)
    return np.eye(4)
