"""Write nodes and the scene to files, whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from NeuroCESTLib.core.whole_files import whole_file
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.image_files import read_header
from NeuroCESTLib.scene.volumes import add_volume, quiet_vtk, remove, volume_array

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
    """Write a volume (``.nii.gz``, ``.nrrd``), sequence (``.seq.nrrd``), segmentation (``.seg.nrrd``), table
    (``.csv``, ``.tsv``), transform (``.h5``) or colour table (``.ctbl``) with Slicer's own storage node.

    The node in the scene keeps its storage node; parent transforms are not applied.

    Raises:
        ValueError: an ending that does not fit the node, or a folder that is missing, read-only or full.
    """
    import slicer

    path = Path(path)
    endings = next((endings for name, endings in _ENDINGS.items() if node.IsA(name)), None)
    if endings is None:
        raise ValueError(f"'{node.GetName()}' ({node.GetClassName()}) is of no kind that is written to files")
    if not path.name.lower().endswith(endings):
        raise ValueError(f"cannot write '{path}': the name must end in {' or '.join(endings)}")
    with whole_file(path) as temporary:
        storage = node.CreateDefaultStorageNode()
        storage.UnRegister(None)  # Create… hands over its reference
        storage.SetScene(slicer.mrmlScene)
        storage.SetFileName(str(temporary))
        storage.SetUseCompression(1)
        with quiet_vtk():
            written = storage.WriteData(node)
        if not written:
            _raise_write_error(path)
        _check_written(temporary, path)
    return path


def write_volume(node: Any, path: str | os.PathLike, like: str | os.PathLike | None = None) -> Path:
    """Write a volume node; with ``like``, in the voxel order of that image file.

    Slicer reverses the slices of left-handed files as it reads them. ``like`` undoes that, so that the
    voxels of the result can be compared with those of the input one by one. A volume on other voxels than
    those of the file is written as it is.
    """
    target = read_header(like).geometry if like is not None else None
    source = Geometry.of(node)
    array = target.reorder(volume_array(node), source) if target is not None else None
    if array is None and node.GetParentTransformNode() is None:
        return write_node(node, path)
    ordered = add_volume(
        volume_array(node) if array is None else array,
        source if array is None else target,
        node.GetName(),
        node.IsA("vtkMRMLLabelMapVolumeNode"),
    )
    try:
        return write_node(ordered, path)
    finally:
        remove(ordered)


def write_scene(path: str | os.PathLike) -> Path:
    """Write the whole scene with its data as one ``.mrb`` bundle.

    Raises:
        ValueError: another ending, or a folder that is missing, read-only or full.
    """
    import slicer

    path = Path(path)
    if not path.name.lower().endswith(".mrb"):
        raise ValueError(f"cannot write '{path}': a scene with its data is a '.mrb' file")
    with whole_file(path) as temporary, tempfile.TemporaryDirectory(prefix="neurocest-") as folder:
        # Copied in a second step: the archive writer reports each of its errors on a full disk in full.
        bundle = Path(folder) / path.name
        with quiet_vtk():
            written = slicer.util.saveScene(str(bundle), {})
        if not written:
            _raise_write_error(bundle)
        shutil.copyfile(bundle, temporary)
        _check_written(temporary, path)
    return path


def _check_written(temporary: Path, path: Path) -> None:
    """Some writers report success on a full disk; look at what they wrote."""
    import zipfile

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
