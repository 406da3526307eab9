"""Sequence nodes, which hold Z-spectra in the scene as one volume per measurement.

A numeric sequence index sorts its items and holds each value only once. Acquisitions, however, are often unsorted and
repeat offsets. Such sequences get a text index in the order of acquisition, in which a repeated value is followed by
its count: ``3``, ``3 (2)``, ``3 (3)``. The leading number is the value, also in Slicer's sequence browser and in
``.seq.nrrd`` files.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from NeuroCESTLib.core.headers.library_messages import library_lines_caught
from NeuroCESTLib.core.headers.metaimage import is_metaimage
from NeuroCESTLib.core.output.hidden import temporary_folder
from NeuroCESTLib.scene.geometry import Geometry, world_transform
from NeuroCESTLib.scene.image_files import ImageHeader, existing_file, node_name
from NeuroCESTLib.scene.messages import called, comes_from
from NeuroCESTLib.scene.volumes import (
    forget_file,
    load,
    read_volume,
    readable_file,
    remove,
    restore_non_finite,
    storable,
    volume_array,
)


def read_sequence(paths: str | os.PathLike | Sequence[str | os.PathLike], name: str | None = None) -> Any:
    """Read a series of volumes into the scene as a sequence node.

    Args:
        paths: One 4-D file (NIfTI, NRRD or MetaImage), or several 3-D files on the same grid.
        name: Name of the node; the name of the first file by default.

    Returns:
        The sequence node. The index of a ``.seq.nrrd`` file is kept; other files are indexed by the number of the
        measurement from 0 (see ``set_index``).

    Raises:
        ValueError: A file is missing, not an image, truncated, 3-D although it is the only one, or on another grid.
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    if not paths:
        raise ValueError("no signal file is given")
    if len(paths) > 1:
        node = _read_volumes(paths, name)
    else:
        path = existing_file(paths[0])
        with readable_file(path) as (plain, header):
            node = _read_plain_sequence(path, plain, header, name or node_name(path))
    comes_from(node, paths)
    return node


def _read_plain_sequence(path: Path, plain: Path, header: ImageHeader, name: str) -> Any:
    """Read a series from a file of at most four dimensions; messages name the file ``path`` that it comes from."""
    if header.complex_valued:
        raise ValueError(f"'{path}' holds complex numbers: export the magnitude image")
    if header.measurements < 2 and header.components < 2:
        raise ValueError(f"'{path}' is 3-D, one measurement: give a 4-D file or one 3-D file for each measurement")
    with temporary_folder() as folder:
        readable = _no_metaimage(plain, Path(folder))
        node = load(readable, "SequenceFile", {"name": name, "show": False})
    if not node.IsA("vtkMRMLSequenceNode") or node.GetNumberOfDataNodes() == 0:
        remove(node)
        raise ValueError(f"'{path}' holds no sequence of volumes")
    node.SetName(name)
    restore_non_finite([node.GetNthDataNode(i) for i in range(node.GetNumberOfDataNodes())], plain, header)
    if readable != path:
        forget_file(node)
    if not path.name.lower().endswith((".seq.nrrd", ".seq.nhdr")):
        node.SetIndexName("measurement")
        node.SetIndexUnit("")
    return node


def _no_metaimage(path: Path, folder: Path) -> Path:
    """Return an image file that Slicer reads as a sequence: a copy as NRRD of a MetaImage, which it cannot."""
    import SimpleITK as sitk

    if not is_metaimage(path):
        return path
    copy = folder / "series.nrrd"
    try:
        with library_lines_caught():
            sitk.WriteImage(sitk.ReadImage(str(path)), str(copy))
    except RuntimeError:
        raise ValueError(f"'{path}' cannot be read: it is damaged, truncated or of another type") from None
    return copy


def _read_volumes(paths: Sequence[str | os.PathLike], name: str | None) -> Any:
    arrays: list[np.ndarray] = []
    geometries: list[Geometry] = []
    for path in paths:
        volume = read_volume(path)
        try:
            arrays.append(volume_array(volume))
            geometries.append(Geometry.of(volume))
        finally:
            remove(volume)
        if difference := geometries[0].difference(geometries[-1]):
            raise ValueError(f"'{path}' has another geometry than '{paths[0]}': {difference}")
    name = name or node_name(paths[0])
    return array_to_sequence(np.stack(arrays), geometries[0], name, range(len(arrays)), "measurement", "")


def array_to_sequence(
    array: np.ndarray,
    geometry: Geometry,
    name: str,
    index_values: Sequence[float],
    index_name: str = "offset",
    unit: str = "ppm",
) -> Any:
    """Add a sequence node to the scene.

    Args:
        array: Values of shape (measurement, K, J, I).
        geometry: Voxel grid of each volume.
        name: Name of the node.
        index_values: One finite number for each measurement, such as its offset in ppm; in any order, also repeated.
        index_name: Name of the index.
        unit: Unit of the index values.

    Returns:
        The sequence node.

    Raises:
        ValueError: The shapes or the numbers of values do not agree, or an index value is not finite.
    """
    import slicer

    if array.ndim != 4 or array.shape[1:] != geometry.shape:
        raise ValueError(
            f"the array for sequence '{name}' has shape {array.shape}, "
            f"not (measurement, {', '.join(map(str, geometry.shape))})"
        )
    labels, numeric = _index_labels(index_values, array.shape[0], f"'{name}'")
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
    """Replace the index values of a sequence node.

    Args:
        node: Sequence node.
        index_values: One finite number for each measurement, in the order in which the measurements are stored.
        index_name: Name of the index.
        unit: Unit of the index values.

    Raises:
        ValueError: The number of values is not that of the measurements, or a value is not finite.
    """
    count = node.GetNumberOfDataNodes()
    labels, numeric = _index_labels(index_values, count, called(node))
    # In a text index, values are neither sorted nor merged while they are changed one by one.
    node.SetIndexType(node.TextIndex)
    for values in ([f"measurement {i}" for i in range(count)], labels):
        for i, value in enumerate(values):
            node.UpdateIndexValue(node.GetNthIndexValue(i), value)
    node.SetIndexType(node.NumericIndex if numeric else node.TextIndex)
    node.SetIndexName(index_name)
    node.SetIndexUnit(unit)


def sequence_to_array(node: Any) -> tuple[np.ndarray, Geometry, np.ndarray]:
    """Return the values of a sequence node.

    Returns:
        Signal of shape (measurement, K, J, I) in floating point, its geometry with parent transforms applied, and the
        index values of shape (measurement,); see ``index_values``.

    Raises:
        ValueError: The sequence is empty, its images are not loaded, or it holds something other than scalar volumes on
            one grid.
    """
    count = node.GetNumberOfDataNodes()
    if count == 0:
        raise ValueError(f"the sequence {called(node)} is empty")
    items = [node.GetNthDataNode(i) for i in range(count)]
    if None in items:
        raise ValueError(
            f"measurement {items.index(None) + 1} of the sequence {called(node)} has no image: "
            "load the file of the sequence first"
        )
    first = items[0]
    if not first.IsA("vtkMRMLScalarVolumeNode"):
        raise ValueError(f"the sequence {called(node)} holds no scalar volumes")
    geometry = Geometry.of(first, world=False)
    dtype = np.result_type(volume_array(first).dtype, np.float32)
    array = np.empty((count, *geometry.shape), dtype)
    for i, item in enumerate(items):
        if difference := geometry.difference(Geometry.of(item, world=False)):
            raise ValueError(f"measurement {i + 1} of the sequence {called(node)} has another geometry: {difference}")
        array[i] = volume_array(item)
    geometry = Geometry(geometry.shape, proxy_transform(node) @ geometry.ijk_to_ras)
    return array, geometry, index_values(node)


def browse(node: Any, number: int) -> Any:
    """Show one of the volumes of a sequence in its own sequence browser, which is made where there is none.

    A browser that only plays the sequence along with another one chooses the volumes by the index of that one. The
    proxy volume of the new browser gets the transform of the other one, so that it lies at the same place.

    Args:
        node: Sequence node.
        number: Volume, counted from 0 in stored order.

    Returns:
        The proxy volume, which holds the chosen volume.
    """
    import slicer

    shown_before = _proxy(node)
    browser = next((found for found in _browsers(node) if found.GetMasterSequenceNode() is node), None)
    if browser is None:
        browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", f"{node.GetName()} browser")
        browser.SetAndObserveMasterSequenceNodeID(node.GetID())
    if browser.GetProxyNode(node) is None:
        slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    browser.SetSelectedItemNumber(number)
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    proxy = browser.GetProxyNode(node)
    if shown_before not in (None, proxy):
        proxy.SetAndObserveTransformNodeID(shown_before.GetTransformNodeID())
    return proxy


def index_values(node: Any) -> np.ndarray:
    """Return the index values of a sequence node in stored order, float64; NaN for text that begins with no number."""
    values = []
    for i in range(node.GetNumberOfDataNodes()):
        words = node.GetNthIndexValue(i).split()
        try:
            values.append(float(words[0]))
        except (IndexError, ValueError):
            values.append(float("nan"))
    return np.array(values, dtype=np.float64)


def _index_labels(index_values: Sequence[float], count: int, name: str) -> tuple[list[str], bool]:
    """Texts of the index values, and whether they can be a numeric index: ascending and all different."""
    import slicer

    values = np.asarray(index_values, dtype=np.float64).ravel()
    if values.size != count:
        raise ValueError(f"{values.size} index values are given, but {name} has {count} measurements")
    if not np.isfinite(values).all():
        raise ValueError(f"the index values of {name} must be finite numbers")
    tolerance = slicer.vtkMRMLSequenceNode().GetNumericIndexValueTolerance()
    numeric = bool((np.diff(values) > 2 * tolerance).all())
    labels: list[str] = []
    seen: dict[str, int] = {}
    for value in values:
        text = repr(float(value)).removesuffix(".0")
        seen[text] = seen.get(text, 0) + 1
        labels.append(text if seen[text] == 1 else f"{text} ({seen[text]})")
    return labels, numeric


def proxy_transform(node: Any) -> np.ndarray:
    """Return the world transform (4, 4) of the proxy volume that shows this sequence, best that of its own browser."""
    proxy = _proxy(node)
    return np.eye(4) if proxy is None else world_transform(proxy)


def _proxy(node: Any) -> Any:
    """Proxy volume in which a sequence browser shows a sequence, best its own browser; None without one."""
    proxies = (browser.GetProxyNode(node) for browser in _browsers(node))
    return next((proxy for proxy in proxies if proxy is not None), None)


def _browsers(node: Any) -> list[Any]:
    """Browsers that play a sequence, its own one first."""
    import slicer

    browsers = slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode")
    playing = [browser for browser in browsers if browser.IsSynchronizedSequenceNode(node, True)]
    return sorted(playing, key=lambda browser: browser.GetMasterSequenceNode() is not node)
