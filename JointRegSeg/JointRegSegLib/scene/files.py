"""Result files: transforms, and segmentations in the voxel order of the images that they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from NeuroCESTLib.core.output.repeated_bytes import remove_hdf5_times
from NeuroCESTLib.core.whole_files import whole_file
from NeuroCESTLib.scene.image_files import read_header
from NeuroCESTLib.scene.segmentations import add_segmentation, copy_segment_styles, grid_of, masks_on
from NeuroCESTLib.scene.volumes import remove
from NeuroCESTLib.scene.writing import write_node

if TYPE_CHECKING:
    import SimpleITK as sitk


def write_transform(transform: sitk.Transform, path: Path) -> None:
    """Write a transform file (.h5 or .tfm), whole or not at all."""
    import SimpleITK as sitk

    with whole_file(path) as temporary:
        sitk.WriteTransform(transform, str(temporary))
        remove_hdf5_times(temporary)


def write_positions(positions: Mapping[str, sitk.Transform], folder: Path, role: str = "") -> None:
    """Write how the images of a visit that lay apart were aligned, each as ``<role>_<modality>_position.tfm``.

    Args:
        positions: Map of points of the native space to points of the image (LPS mm), by modality.
        folder: Folder to write to.
        role: Role of the visit; empty for a single one.
    """
    for modality, transform in positions.items():
        write_transform(transform, folder / position_file(modality, role))


def position_file(modality: str, role: str = "") -> str:
    """Return the name of the file that `write_positions` writes for an image."""
    return f"{role}_{modality}_position.tfm".removeprefix("_")


def write_segmentation(node: Any, path: Path, like: str) -> None:
    """Write a segmentation node in the voxel order of an image file.

    Slicer reverses the slices of left-handed files as it reads them; here the order of the file is kept.

    Args:
        node: Segmentation node.
        path: File to write (``.seg.nrrd``).
        like: Image file of the study that the segmentation belongs to.
    """
    wanted = read_header(like).geometry
    as_it_is = node.GetParentTransformNode() is None  # which its file would not tell
    if wanted is None or (as_it_is and grid_of(node).matches(wanted)):
        write_node(node, path)
        return
    ordered = add_segmentation(masks_on(node, wanted), wanted, node.GetName())
    try:
        copy_segment_styles(node, ordered)
        write_node(ordered, path)
    finally:
        remove(ordered)
