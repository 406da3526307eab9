"""Volume nodes: reading, making, and taking arrays from them on a wanted voxel grid."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from NeuroCESTLib.core.nifti_files import non_finite_voxels
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.image_files import ImageHeader, existing_file, read_header

_IMAGE_EXTENSIONS = (".nii.gz", ".nii", ".seg.nrrd", ".seq.nrrd", ".nrrd", ".nhdr", ".mha", ".mhd")


def read_volume(path: str | os.PathLike, name: str | None = None, label: bool = False) -> Any:
    """Read a 3-D image file as a scalar volume node (``label``: a label-map volume node).

    Raises:
        ValueError: the file is missing, no image, truncated, or not one 3-D scalar image.
    """
    path = existing_file(path)
    header = read_header(path)
    if header.measurements > 1:
        raise ValueError(
            f"'{path}' holds {header.measurements} volumes, but one 3-D volume is needed: extract one of them"
        )
    if header.complex_valued:
        raise ValueError(f"'{path}' holds complex numbers: export the magnitude image")
    if header.components > 1:
        raise ValueError(f"'{path}' has {header.components} numbers a voxel, but a scalar image is needed")
    properties = {"name": name or stem(path), "labelmap": label, "singleFile": True, "show": False}
    node = load(path, "VolumeFile", properties)
    if not node.IsA("vtkMRMLScalarVolumeNode") or node.GetImageData() is None:
        remove(node)
        raise ValueError(f"'{path}' is not a scalar 3-D image")
    restore_non_finite([node], path, header)
    return node


def add_volume(array: np.ndarray, geometry: Geometry, name: str, label: bool = False) -> Any:
    """New scalar volume node (``label``: label map) of an array ``(K, J, I)`` on ``geometry``; NaN is kept.

    Types that volume nodes refuse (bool, float16, 64-bit integers) are widened or narrowed without loss.

    Raises:
        ValueError: the array has another shape than the geometry.
    """
    import slicer

    if array.shape != geometry.shape:
        raise ValueError(f"the array for volume '{name}' has shape {array.shape}, its geometry {geometry.shape}")
    class_name = "vtkMRMLLabelMapVolumeNode" if label else "vtkMRMLScalarVolumeNode"
    with quiet_vtk():  # slicer-core lacks the colour table that label maps ask for
        return slicer.util.addVolumeFromArray(storable(array), geometry.ijk_to_ras, name, class_name)


def volume_array(node: Any) -> np.ndarray:
    """Copy of a volume node's voxels ``(K, J, I)`` in their own type, NaN included.

    Raises:
        ValueError: the node has no image or several numbers a voxel.
    """
    import slicer

    if node.GetImageData() is None:
        raise ValueError(f"the volume '{node.GetName()}' has no image: load it first")
    array = slicer.util.arrayFromVolume(node)
    if array.ndim != 3:
        raise ValueError(f"the volume '{node.GetName()}' has {array.shape[-1]} numbers a voxel, not one")
    return array.copy()


def array_on(node: Any, geometry: Geometry, strict: bool = False) -> np.ndarray:
    """Values ``(K, J, I)``, floating point, of a volume node at the voxels of ``geometry`` in the world.

    The same voxels in another order are reordered. Another grid is resampled linearly, NaN outside the
    volume; with ``strict`` it is refused.

    Raises:
        ValueError: no image, a non-linear parent transform, or ``strict`` and another grid.
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
    """Non-zero voxels (bool, ``(K, J, I)``) of a mask volume, which must lie on the grid of ``geometry``.

    Raises:
        ValueError: the mask has another geometry or holds no voxel.
    """
    array = array_on(node, geometry, strict=True)
    mask = np.isfinite(array) & (array != 0)
    if not mask.any():
        raise ValueError(f"the mask '{node.GetName()}' is empty: no voxel is set")
    return mask


def restore_non_finite(nodes: Sequence[Any], path: Path, header: ImageHeader) -> None:
    """Put NaN and infinity back into the volumes of a file, one node a measurement."""
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
    """Labels (integers, ``(K, J, I)``) of a label volume at the voxels of ``geometry``, nearest neighbour."""
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
        f"'{node.GetName()}' has another geometry than the signal ({geometry.difference(source)}): "
        "resample it to the signal's grid first"
    )


def storable(array: np.ndarray) -> np.ndarray:
    """``array`` in a type that volume nodes and NIfTI files hold, without changing a value."""
    if array.dtype == np.bool_:
        return array.astype(np.uint8)
    if array.dtype == np.float16:
        return array.astype(np.float32)
    if array.dtype in (np.int64, np.uint64, np.uint32):
        limits = np.iinfo(np.int32)
        fits = array.size == 0 or (array.min() >= limits.min and array.max() <= limits.max)
        return array.astype(np.int32 if fits else np.float64)
    if array.dtype.kind not in "iuf" or array.dtype.itemsize > 8:
        raise ValueError(f"a volume cannot hold values of type {array.dtype}")
    return array


def load(path: Path, file_type: str, properties: dict) -> Any:
    """Read a file through Slicer's I/O into the scene, with one sentence instead of VTK's error output.

    Raises:
        ValueError: it cannot be read; nothing is left in the scene.
    """
    import slicer

    before = {node.GetID() for node in slicer.util.getNodesByClass("vtkMRMLStorableNode")}
    try:
        with quiet_vtk():
            # str: Qt does not take a pathlib.Path in the properties.
            return slicer.util.loadNodeFromFile(str(path), file_type, dict(properties))
    except RuntimeError:
        for node in slicer.util.getNodesByClass("vtkMRMLStorableNode"):
            if node.GetID() not in before:
                remove(node)
        raise ValueError(f"'{path}' cannot be read: it is damaged, truncated or of another type") from None


def remove(node: Any) -> None:
    """Take a node, its display nodes and its storage node out of the scene."""
    import slicer

    companions = []
    if node.IsA("vtkMRMLDisplayableNode"):
        companions += [node.GetNthDisplayNode(i) for i in range(node.GetNumberOfDisplayNodes())]
    if node.IsA("vtkMRMLStorableNode"):
        companions += [node.GetNthStorageNode(i) for i in range(node.GetNumberOfStorageNodes())]
    for companion in [*companions, node]:
        if companion is not None and companion.GetScene() is not None:
            slicer.mrmlScene.RemoveNode(companion)


@contextlib.contextmanager
def quiet_vtk() -> Iterator[None]:
    """Silence VTK's warnings: the caller reports what failed in words of its own."""
    import vtk

    shown = vtk.vtkObject.GetGlobalWarningDisplay()
    vtk.vtkObject.GlobalWarningDisplayOff()
    try:
        yield
    finally:
        vtk.vtkObject.SetGlobalWarningDisplay(shown)


def stem(path: str | os.PathLike) -> str:
    """File name without its (composite) image extension: the name of the node."""
    name = Path(path).name
    for extension in _IMAGE_EXTENSIONS:
        if name.lower().endswith(extension):
            return name[: -len(extension)] or name
    return Path(name).stem
