"""Reading of image files and label files with SimpleITK.

SimpleITK silently fills truncated NIfTI files with zeros, so their length is checked here.
"""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from NeuroCESTLib.core.headers.checks import check_file, check_read_grid
from NeuroCESTLib.core.headers.metaimage import check_metaimage, is_metaimage
from NeuroCESTLib.core.headers.nifti import NotNifti1Error, is_nifti, nifti_layout
from NeuroCESTLib.core.headers.nifti_orientation import check_orientation, quiet_itk, straight_file
from NeuroCESTLib.core.headers.nrrd import is_nrrd
from NeuroCESTLib.core.headers.nrrd_checks import check_nrrd
from NeuroCESTLib.core.headers.orientation import orientation_notes
from NeuroCESTLib.core.labels.conventions import LabelConvention
from NeuroCESTLib.core.output.hidden import temporary_folder

from .label_maps import LabelReading, classes_of_map, classes_of_masks
from .study import check_grid, same_grid

_CHANNEL = re.compile(r"(.+)#(\d+)")


def channel_path(path: str | os.PathLike, channel: int) -> Path:
    """Return the path by which one channel of a four-dimensional file is named: ``BRATS_001.nii.gz#2``.

    Args:
        path: The file.
        channel: Number of the channel, from 0.
    """
    return Path(f"{path}#{channel}")


def file_of(path: str | os.PathLike) -> Path:
    """Return the file of a path that may name a channel."""
    return _file_and_channel(path)[0]


def _file_and_channel(path: str | os.PathLike) -> tuple[Path, int | None]:
    path = Path(path)
    found = _CHANNEL.fullmatch(str(path))
    return (path, None) if found is None or os.path.exists(path) else (Path(found[1]), int(found[2]))


def read_image(path: str | os.PathLike) -> sitk.Image:
    """Read an image file, or one channel of a four-dimensional file (see ``channel_path``).

    A doubtful orientation is told in a warning.

    Raises:
        ValueError: The file cannot be read or is truncated, is sheared, or has no such channel; the message names it.
    """
    file, channel = _file_and_channel(path)
    if not file.is_file():
        raise ValueError(unreadable(file))
    _check_header(file)
    with temporary_folder() as folder, quiet_itk():
        straight, notes = straight_file(file, folder)
        _check_grid(file, straight)
        try:
            image = sitk.ReadImage(str(straight))
        except RuntimeError:
            raise ValueError(unreadable(file)) from None
    for note in (*notes, *orientation_notes(file, _voxels_to_ras(image))):
        warnings.warn(note, stacklevel=2)
    if channel is None:
        return image
    if image.GetDimension() != 4 or channel >= image.GetSize()[3]:
        raise ValueError(f"'{file}' has no channel {channel}: {_size(image)}")
    return image[..., channel]


def _check_header(file: Path) -> None:
    """Check what SimpleITK would trust."""
    with contextlib.suppress(NotNifti1Error):  # SimpleITK reads other kinds of NIfTI too
        check_file(file, trust_size=True)


def _check_grid(file: Path, straight: Path) -> sitk.ImageFileReader:
    """Check place and size of an image as SimpleITK understands its header; messages name ``file``."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(straight))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        raise ValueError(unreadable(file)) from None
    check_read_grid(file, reader.GetSize(), reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection())
    return reader


def _voxels_to_ras(image: sitk.Image) -> np.ndarray:
    """Map (4, 4) from voxels (i, j, k) to RAS mm."""
    dimension = image.GetDimension()
    used = min(dimension, 3)
    matrix = np.eye(4)
    matrix[:used, :used] = np.array(image.GetDirection()).reshape(dimension, dimension)[:used, :used]
    matrix[:used, :used] *= np.array(image.GetSpacing()[:used])
    matrix[:used, 3] = image.GetOrigin()[:used]
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix


def _size(image: sitk.Image | sitk.ImageFileReader) -> str:
    values = image.GetNumberOfComponentsPerPixel() if isinstance(image, sitk.Image) else image.GetNumberOfComponents()
    shown = " x ".join(str(n) for n in image.GetSize())
    return f"it has {shown} voxels, {values} value{'s' * (values > 1)} per voxel"


@dataclass(frozen=True)
class LabelImage:
    """A label file as an image.

    Attributes:
        image: Numbers of ``labels.LABELS`` (uint8); for a plain mask 1 inside and 0 outside.
        plain: Whether it is a plain mask, which names no compartment.
        reading: How its numbers were understood.
    """

    image: sitk.Image
    plain: bool
    reading: LabelReading


def read_labels(
    path: str | os.PathLike, convention: LabelConvention | None = None, t1ce: str | os.PathLike | None = None
) -> LabelImage:
    """Read a label file of any convention.

    Args:
        path: Label file; a ``.seg.nrrd`` file is understood by the names of its segments.
        convention: Declared convention; None to recognize it, see ``label_maps.classes_of_map``.
        t1ce: File of T1 with contrast agent that may help to recognize it; used only on the same grid.

    Raises:
        ValueError: The file cannot be read, is not a label map, or its convention is not certain; the message names it.
    """
    image = read_image(path)
    if names := _segments(image):
        with quiet_itk():
            return _named_segments(image, names, str(path))
    check_grid(image, f"'{path}'", is_mask=True)
    whole_path = os.path.abspath(path)
    read = classes_of_map(
        sitk.GetArrayViewFromImage(image), str(path), convention, [whole_path], lambda: _voxels_on(image, t1ce)
    )
    return LabelImage(_like(image, read.classes), read.plain, read.reading)


def _voxels_on(labels: sitk.Image, path: str | os.PathLike | None) -> np.ndarray | None:
    """Voxels of an image file, or None where it lies on another grid."""
    if path is None:
        return None
    image = read_image(path)
    fits = image.GetDimension() == 3 and image.GetNumberOfComponentsPerPixel() == 1 and same_grid(image, labels)
    return sitk.GetArrayFromImage(image).astype(np.float32) if fits else None


def _segments(image: sitk.Image) -> list[tuple[str, int, int]]:
    """Name, number and layer of each segment of a ``.seg.nrrd`` file; none for other files."""
    found: list[tuple[str, int, int]] = []
    while image.HasMetaDataKey(f"Segment{len(found)}_Name"):
        name, value, layer = (
            image.GetMetaData(key) if image.HasMetaDataKey(key) else default
            for key, default in (
                (f"Segment{len(found)}_Name", ""),
                (f"Segment{len(found)}_LabelValue", "1"),
                (f"Segment{len(found)}_Layer", "0"),
            )
        )
        found.append((name, int(value), int(layer)))
    return found


def _named_segments(image: sitk.Image, segments: Sequence[tuple[str, int, int]], source: str) -> LabelImage:
    """Classes of a segmentation by the names of its segments."""
    several = image.GetNumberOfComponentsPerPixel() > 1
    grid = sitk.VectorIndexSelectionCast(image, 0) if several else image
    check_grid(grid, f"'{source}'", is_mask=True)
    array = sitk.GetArrayViewFromImage(image)
    layers = np.moveaxis(array, -1, 0) if several else array[None]
    read = classes_of_masks({name: layers[layer] == value for name, value, layer in segments}, source)
    return LabelImage(_like(grid, read.classes), read.plain, read.reading)


def _like(image: sitk.Image, array: np.ndarray) -> sitk.Image:
    result = sitk.GetImageFromArray(array)
    result.CopyInformation(image)
    return result


def header_problem(path: str | os.PathLike) -> str | None:
    """Check by the header of a file whether it can be a scalar volume.

    Returns:
        A sentence that names the file and says why it cannot; None if it can.
    """
    file, channel = _file_and_channel(path)
    if not file.is_file():
        return unreadable(file)
    with temporary_folder() as folder, quiet_itk():
        try:
            if is_nifti(file):
                with contextlib.suppress(NotNifti1Error):
                    nifti_layout(file)
                check_orientation(file)  # ITK does not return from a place that is not finite
            elif is_nrrd(file):
                check_nrrd(file, complete=False)
            elif is_metaimage(file):
                check_metaimage(file)
            reader = _check_grid(file, straight_file(file, folder)[0])
        except ValueError as error:
            return str(error)
    values = reader.GetNumberOfComponents()
    wanted = 3 if channel is None else 4
    if reader.GetDimension() == wanted and values == 1 and (channel is None or channel < reader.GetSize()[3]):
        return None
    if channel is not None:
        return f"'{file}' has no channel {channel}: {_size(reader)}"
    return f"'{file}' is not a scalar 3-D volume: {_size(reader)}"


def unreadable(path: Path) -> str:
    """Return the message for a file that is not an image."""
    if not path.is_file():
        return f"'{path}' does not exist"
    if path.suffix.lower() in (".mgz", ".mgh"):
        return f"'{path}' is an image of FreeSurfer, which is not read: convert it with mri_convert to .nii.gz"
    if is_nifti(path):
        try:
            nifti_layout(path)
        except ValueError as error:
            return str(error)
    return f"'{path}' cannot be read as an image: it is damaged or of another type"
