"""Volume nodes: reading and making them, and their voxels on any grid."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from NeuroCESTLib.core.headers.library_messages import library_lines_caught
from NeuroCESTLib.core.headers.nifti import non_finite_voxels, plain_file
from NeuroCESTLib.core.headers.nifti_orientation import straight_file
from NeuroCESTLib.core.headers.orientation import orientation_notes
from NeuroCESTLib.core.output.hidden import temporary_folder
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.image_files import ImageHeader, existing_file, node_name, read_header
from NeuroCESTLib.scene.messages import called, comes_from, quiet_vtk


def read_volume(path: str | os.PathLike, name: str | None = None, label: bool = False) -> Any:
    """Read a 3-D image file into the scene.

    Args:
        path: Image file.
        name: Name of the node; the name of the file by default.
        label: Whether to make a label-map volume node instead of a scalar volume node.

    Returns:
        The volume node; NaN and infinity are kept. A doubtful orientation is told in a warning.

    Raises:
        ValueError: The file is missing, not an image, truncated, or not a single 3-D scalar image.
    """
    path = existing_file(path)
    with readable_file(path) as (plain, header):
        node = _read_plain_volume(path, plain, header, name or node_name(path), label)
    comes_from(node, [path])
    return node


@contextlib.contextmanager
def readable_file(path: Path) -> Iterator[tuple[Path, ImageHeader]]:
    """Give an image file that Slicer reads, with its header: the file itself, or a temporary copy.

    The copy is a single file of at most four dimensions with perpendicular axes of positive voxel sizes; a doubtful
    orientation is told in a warning once the file was read.

    Raises:
        ValueError: The file is not an image, truncated or sheared; the message names it.
    """
    with temporary_folder() as folder:
        plain = plain_file(path, folder)
        try:
            header = read_header(plain)
            straight, notes = straight_file(plain, folder)
        except ValueError as error:
            raise ValueError(str(error).replace(str(plain), str(path))) from None
        yield straight, header
    for note in (*notes, *orientation_notes(path, header.geometry.ijk_to_ras)):
        warnings.warn(note.replace(str(plain), str(path)), stacklevel=4)


def _read_plain_volume(path: Path, plain: Path, header: ImageHeader, name: str, label: bool) -> Any:
    """Read a 3-D image from a file of at most four dimensions; messages name the file ``path`` that it comes from."""
    if header.measurements > 1:
        raise ValueError(
            f"'{path}' holds {header.measurements} volumes, but one 3-D volume is needed: extract one of them"
        )
    if header.complex_valued:
        raise ValueError(f"'{path}' holds complex numbers: export the magnitude image")
    if header.components > 1:
        raise ValueError(f"'{path}' has {header.components} values per voxel, but a scalar image is needed")
    properties = {"name": name, "labelmap": label, "singleFile": True, "show": False}
    node = load(plain, "VolumeFile", properties)
    if not node.IsA("vtkMRMLScalarVolumeNode") or node.GetImageData() is None:
        remove(node)
        raise ValueError(f"'{path}' is not a scalar 3-D image")
    restore_non_finite([node], plain, header)
    if plain != path:
        forget_file(node)
    return node


def forget_file(node: Any) -> None:
    """Remove the storage node of a node that was read from a temporary file."""
    import slicer

    if (storage := node.GetStorageNode()) is not None:
        slicer.mrmlScene.RemoveNode(storage)


def add_volume(array: np.ndarray, geometry: Geometry, name: str, label: bool = False) -> Any:
    """Add a volume node to the scene.

    Args:
        array: Values of shape (K, J, I), NaN included. Types that volume nodes refuse (bool, float16, 64-bit integers)
            are converted without loss.
        geometry: Voxel grid of the array.
        name: Name of the node.
        label: Whether to make a label-map volume node instead of a scalar volume node.

    Returns:
        The volume node.

    Raises:
        ValueError: The array does not have the shape of the geometry.
    """
    import slicer

    if array.shape != geometry.shape:
        raise ValueError(f"the array for volume '{name}' has shape {array.shape}, its geometry {geometry.shape}")
    class_name = "vtkMRMLLabelMapVolumeNode" if label else "vtkMRMLScalarVolumeNode"
    with quiet_vtk():  # slicer-core lacks the colour table that label maps look for
        return slicer.util.addVolumeFromArray(storable(array), geometry.ijk_to_ras, name, class_name)


def volume_array(node: Any) -> np.ndarray:
    """Return a copy of the voxels of a volume node, of shape (K, J, I), in their own type.

    Raises:
        ValueError: The node has no image, or several values per voxel.
    """
    import slicer

    if node.GetImageData() is None:
        raise ValueError(f"the volume {called(node)} has no image: load it first")
    array = slicer.util.arrayFromVolume(node)
    if array.ndim != 3:
        raise ValueError(f"the volume {called(node)} has {array.shape[-1]} values per voxel, not one")
    return array.copy()


def array_on(node: Any, geometry: Geometry, strict: bool = False) -> np.ndarray:
    """Return the values of a volume node on a voxel grid.

    Parent transforms are applied. The same voxels in another order are reordered exactly.

    Args:
        node: Volume node.
        geometry: Voxel grid of the result; nodes on other grids are interpolated linearly.
        strict: Whether to refuse a node on another grid instead.

    Returns:
        Values of shape (K, J, I) in floating point, NaN outside the volume.

    Raises:
        ValueError: The node has no image, a parent transform is not linear, or the grid is another one and ``strict``
            is set.
    """
    source = Geometry.of(node)
    array = volume_array(node)
    array = array.astype(np.result_type(array.dtype, np.float32), copy=False)
    same = geometry.reorder(array, source)
    if same is not None:
        return same
    if strict:
        raise ValueError(_other_grid(node, geometry, source))
    return geometry.resample(array, source)


def mask_on(node: Any, geometry: Geometry) -> np.ndarray:
    """Return the voxels of a mask volume that are not zero, bool (K, J, I).

    Args:
        node: Volume node on the grid of ``geometry``.
        geometry: Voxel grid of the result.

    Raises:
        ValueError: The mask is on another grid, or is empty.
    """
    array = array_on(node, geometry, strict=True)
    mask = np.isfinite(array) & (array != 0)
    if not mask.any():
        raise ValueError(f"the mask {called(node)} is empty: no voxel is set")
    return mask


def restore_non_finite(nodes: Sequence[Any], path: Path, header: ImageHeader) -> None:
    """Put NaN and infinity back into the volumes that were read from a NIfTI file.

    Args:
        nodes: Volume nodes, one for each measurement.
        path: The file.
        header: Its header.
    """
    import slicer

    index, values = non_finite_voxels(path)
    if values.size == 0:
        return
    in_file = np.column_stack([index[:, :3], np.ones(len(index))])
    to_node = np.linalg.inv(Geometry.of(nodes[0], world=False).ijk_to_ras) @ header.geometry.ijk_to_ras
    i, j, k = np.rint(in_file @ to_node.T)[:, :3].astype(np.int64).T
    for measurement in np.unique(index[:, 3]):
        here = index[:, 3] == measurement
        slicer.util.arrayFromVolume(nodes[measurement])[k[here], j[here], i[here]] = values[here]
        slicer.util.arrayFromVolumeModified(nodes[measurement])


def labels_on(node: Any, geometry: Geometry, strict: bool = False) -> np.ndarray:
    """Return the labels of a label volume on a voxel grid, integers of shape (K, J, I).

    Args:
        node: Volume node of labels.
        geometry: Voxel grid of the result; nodes on other grids are sampled at the nearest voxel.
        strict: Whether to refuse a node on another grid instead.

    Raises:
        ValueError: The node has no image, a parent transform is not linear, or the grid is another one and ``strict``
            is set.
    """
    source = Geometry.of(node)
    array = np.nan_to_num(volume_array(node)).round().astype(np.int32)
    same = geometry.reorder(array, source)
    if same is not None:
        return same
    if strict:
        raise ValueError(_other_grid(node, geometry, source))
    return geometry.resample(array, source, linear=False)


def _other_grid(node: Any, geometry: Geometry, source: Geometry) -> str:
    return (
        f"{called(node)} has another geometry than the signal ({geometry.difference(source)}): "
        "resample it to the signal's grid first"
    )


def storable(array: np.ndarray) -> np.ndarray:
    """Convert an array to a type that volume nodes and NIfTI files can hold, without changing a value.

    Raises:
        ValueError: There is no such type.
    """
    if array.dtype == np.bool_:
        return array.astype(np.uint8)
    if array.dtype == np.int8:  # volumes hold it, Slicer's writers of NIfTI do not
        return array.astype(np.int16)
    if array.dtype == np.float16:
        return array.astype(np.float32)
    if array.dtype in (np.int64, np.uint64, np.uint32):
        limits = np.iinfo(np.int32)
        fits = array.size == 0 or (array.min() >= limits.min and array.max() <= limits.max)
        return array.astype(np.int32 if fits else np.float64)
    if array.dtype.kind not in "iuf" or array.dtype.itemsize > 8:
        raise ValueError(f"a volume cannot hold values of type {array.dtype}")
    return array


def load(path: Path, file_type: str, properties: dict[str, Any]) -> Any:
    """Read a file into the scene through Slicer's file I/O.

    Args:
        path: File to read.
        file_type: Slicer's name of the reader, such as ``VolumeFile``.
        properties: Properties that Slicer's reader takes, such as ``name``.

    Returns:
        The node.

    Raises:
        ValueError: The file cannot be read; the scene is left as it was, and VTK's own messages are not shown.
    """
    import slicer

    before = {node.GetID() for node in slicer.util.getNodesByClass("vtkMRMLStorableNode")}
    try:
        with quiet_vtk(), library_lines_caught():
            # str: Qt does not take a pathlib.Path in the properties.
            return slicer.util.loadNodeFromFile(str(path), file_type, dict(properties))
    except RuntimeError:
        for node in slicer.util.getNodesByClass("vtkMRMLStorableNode"):
            if node.GetID() not in before:
                remove(node)
        raise ValueError(f"'{path}' cannot be read: it is damaged, truncated or of another type") from None


def remove(node: Any) -> None:
    """Remove a node from the scene, together with its display nodes and storage nodes."""
    import slicer

    companions = []
    if node.IsA("vtkMRMLDisplayableNode"):
        shown = [node.GetNthDisplayNode(i) for i in range(node.GetNumberOfDisplayNodes())]
        # A legend goes first: without the colours of the volume, slice views cannot draw it.
        companions += sorted(shown, key=lambda each: each is None or not each.IsA("vtkMRMLColorLegendDisplayNode"))
    if node.IsA("vtkMRMLStorableNode"):
        companions += [node.GetNthStorageNode(i) for i in range(node.GetNumberOfStorageNodes())]
    for companion in [*companions, node]:
        if companion is not None and companion.GetScene() is not None:
            slicer.mrmlScene.RemoveNode(companion)
