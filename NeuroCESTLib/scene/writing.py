"""Writing of nodes and of the whole scene to files, whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from NeuroCESTLib.core.output.hidden import temporary_folder
from NeuroCESTLib.core.output.repeated_bytes import remove_hdf5_times, sort_archive
from NeuroCESTLib.core.whole_files import is_anonymous, whole_file, written_as
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.image_files import read_header
from NeuroCESTLib.scene.messages import called, quiet_vtk
from NeuroCESTLib.scene.volumes import add_volume, remove, storable, volume_array

_IMAGE_ENDINGS = (".nii", ".nii.gz", ".nrrd", ".mha")
_ENDINGS = {
    "vtkMRMLVolumeNode": _IMAGE_ENDINGS,
    "vtkMRMLSequenceNode": (".seq.nrrd",),
    "vtkMRMLSegmentationNode": (".seg.nrrd",),
    "vtkMRMLTableNode": (".csv", ".tsv"),
    "vtkMRMLTransformNode": (".h5", ".tfm"),
    "vtkMRMLColorTableNode": (".ctbl",),
}


def write_node(node: Any, path: str | os.PathLike) -> Path:
    """Write a node to a file with Slicer's own storage node.

    The node keeps the storage node that it has; parent transforms are not applied.

    Args:
        node: Volume, sequence, segmentation, table, transform or colour-table node.
        path: File to write. Its ending must fit the node: ``.nii.gz``, ``.nii``, ``.nrrd`` or ``.mha`` for volumes,
            ``.seq.nrrd`` for sequences, ``.seg.nrrd`` for segmentations, ``.csv`` or ``.tsv`` for tables, ``.h5`` or
            ``.tfm`` for transforms, ``.ctbl`` for colour tables.

    Returns:
        The path of the file.

    Raises:
        ValueError: The ending does not fit the node, the axes of a volume are not perpendicular, which NIfTI files
            cannot hold, or the folder is missing, read-only or full.
    """
    import slicer

    path = Path(path)
    endings = next((endings for name, endings in _ENDINGS.items() if node.IsA(name)), None)
    if endings is None:
        raise ValueError(f"{called(node)} cannot be written to a file: it is a {node.GetClassName()}")
    if not path.name.lower().endswith(endings):
        raise ValueError(f"cannot write '{path}': the name must end in {' or '.join(endings)}")
    if node.IsA("vtkMRMLVolumeNode") and path.name.lower().endswith((".nii", ".nii.gz")) and _is_sheared(node):
        raise ValueError(
            f"cannot write '{path}': the axes of {called(node)} are not perpendicular, as under a shearing transform, "
            "which a NIfTI file cannot hold: write a .nrrd file, or resample the volume first"
        )
    with whole_file(path) as temporary:
        storage = node.CreateDefaultStorageNode()
        storage.UnRegister(None)  # the caller of Create... owns the reference
        storage.SetScene(slicer.mrmlScene)
        storage.SetFileName(str(temporary))
        storage.SetUseCompression(1)
        with quiet_vtk():
            written = storage.WriteData(node)
        if not written:
            _raise_write_error(path)
        _check_written(temporary, path)
        if path.name.lower().endswith(".h5"):
            remove_hdf5_times(temporary)
    return path


def write_volume(node: Any, path: str | os.PathLike, like: str | os.PathLike | None = None) -> Path:
    """Write a volume node with its parent transforms applied.

    Args:
        node: Volume node.
        path: File to write.
        like: Image file in whose voxel order to write. Slicer reverses the slices of left-handed files when it reads
            them; this undoes it, so that result and input can be compared voxel by voxel. It has no effect where the
            file holds other voxels than the node.

    Returns:
        The path of the file.

    Raises:
        ValueError: As for ``write_node``, or ``like`` cannot be read.
    """
    source = geometry = Geometry.of(node)
    array = volume_array(node)
    if like is not None:
        file_geometry = read_header(like).geometry
        reordered = file_geometry.reorder(array, source)
        if reordered is not None:
            array, geometry = reordered, file_geometry
    as_it_is = geometry is source and storable(array) is array
    if as_it_is and node.GetParentTransformNode() is None:
        return write_node(node, path)
    ordered = add_volume(array, geometry, node.GetName(), node.IsA("vtkMRMLLabelMapVolumeNode"))
    try:
        return write_node(ordered, path)
    finally:
        remove(ordered)


def require_nifti_grid(node: Any, source: str | os.PathLike) -> None:
    """Check, before anything is computed, that what lies on the grid of a volume can be written as NIfTI.

    Args:
        node: Volume node.
        source: File that it comes from, for the message.

    Raises:
        ValueError: Its axes are not perpendicular.
    """
    if _is_sheared(node):
        raise ValueError(
            f"'{source}': the axes of its voxels are not perpendicular, which the NIfTI files of the results cannot "
            "hold; resample it to a rectangular grid first"
        )


def write_scene(path: str | os.PathLike) -> Path:
    """Write the whole scene with its data as one ``.mrb`` bundle.

    Returns:
        The path of the file.

    Raises:
        ValueError: The ending is another one, or the folder is missing, read-only or full.
    """
    import slicer

    path = Path(path)
    if not path.name.lower().endswith(".mrb"):
        raise ValueError(f"cannot write '{path}': a scene with its data is a '.mrb' file")
    with whole_file(path) as temporary, temporary_folder() as folder:
        # Copied in a second step, because on a full disk the archive writer would print every one of its errors.
        bundle = Path(folder) / path.name
        with quiet_vtk(), _names_as_written():
            written = slicer.util.saveScene(str(bundle), {})
        if not written:
            _raise_write_error(bundle)
        with contextlib.suppress(OSError, zipfile.BadZipFile):  # a damaged bundle is refused below
            sort_archive(bundle)
        shutil.copyfile(bundle, temporary)
        _check_written(temporary, path)
    return path


@contextlib.contextmanager
def _names_as_written() -> Iterator[None]:
    """Give nodes the names, and storage nodes the files, with which they are saved, while the block runs."""
    import slicer

    nodes = [slicer.mrmlScene.GetNthNode(index) for index in range(slicer.mrmlScene.GetNumberOfNodes())]
    storages = [node for node in nodes if node.IsA("vtkMRMLStorageNode")]
    names = [(node.SetName, node.GetName() or "") for node in nodes if not node.IsA("vtkMRMLStorageNode")]
    names += [(node.SetFileName, node.GetFileName() or "") for node in storages]
    names += _folder_names()
    renamed = [(give, name, written_as.get()(name)) for give, name in names]
    if is_anonymous():  # Slicer calls them after the file that they have read, whatever their node is called now
        renamed += [(node.SetName, node.GetName() or "", node.GetNodeTagName()) for node in storages]
    renamed = [(give, name, written) for give, name, written in renamed if written != name]
    for give, _, written in renamed:
        give(written)
    try:
        yield
    finally:
        for give, name, _ in renamed:
            give(name)


def _folder_names() -> list[tuple[Callable[[str], None], str]]:
    """How each folder of the subject hierarchy is named anew, and its present name."""
    import slicer
    import vtk

    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    items = vtk.vtkIdList()
    hierarchy.GetItemChildren(hierarchy.GetSceneItemID(), items, True)
    identities = [items.GetId(index) for index in range(items.GetNumberOfIds())]
    return [
        (partial(hierarchy.SetItemName, item), hierarchy.GetItemName(item))
        for item in identities
        if hierarchy.GetItemDataNode(item) is None
    ]


def _is_sheared(node: Any) -> bool:
    """Whether the axes of a volume are further from perpendicular than the precision of image files explains."""
    direction = Geometry.of(node, world=False).direction
    return not np.allclose(direction.T @ direction, np.eye(3), atol=1e-4)


def _check_written(temporary: Path, path: Path) -> None:
    """Check what a writer has written, because some of them report success on a full disk."""
    name = temporary.name.lower()
    try:
        if name.endswith(_IMAGE_ENDINGS):
            read_header(temporary)
        elif name.endswith(".mrb") and zipfile.ZipFile(temporary).testzip() is not None:
            raise ValueError("damaged")
        elif not temporary.exists() or temporary.stat().st_size == 0:
            raise ValueError("empty")
    except (ValueError, OSError, zipfile.BadZipFile):
        _raise_write_error(path)


def _raise_write_error(path: Path) -> None:
    free = shutil.disk_usage(path.parent).free
    if free < 1 << 20:
        raise ValueError(f"cannot write '{path}': the disk is full, free some space")
    raise ValueError(f"cannot write '{path}': Slicer's writer failed")
