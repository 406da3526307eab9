"""Reading of image files with SimpleITK.

SimpleITK silently fills truncated NIfTI files with zeros, so their length is checked here.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import SimpleITK as sitk

from NeuroCESTLib.core.nifti_files import NotNifti1Error, check_complete, is_nifti

from .labels import to_classes
from .study import check_grid


def read_image(path: str | os.PathLike) -> sitk.Image:
    """Read an image file.

    Raises:
        ValueError: The file cannot be read or is truncated; the message names it.
    """
    path = Path(path)
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError:
        raise ValueError(unreadable(path)) from None
    if is_nifti(path):
        with contextlib.suppress(NotNifti1Error):  # SimpleITK checks the other kinds itself
            check_complete(path, trust_size=True)
    return image


def read_labels(path: str | os.PathLike) -> sitk.Image:
    """Read the tumour classes (uint8) of a label file.

    Raises:
        ValueError: The file cannot be read or is not a label map, see ``labels.to_classes``; the message names it.
    """
    image = read_image(path)
    check_grid(image, f"'{path}'")
    classes = sitk.GetImageFromArray(to_classes(sitk.GetArrayViewFromImage(image), str(path)))
    classes.CopyInformation(image)
    return classes


def header_problem(path: str | os.PathLike) -> str | None:
    """Check by the header of a file whether it can be a scalar volume.

    Returns:
        A sentence that names the file and says why it cannot; None if it can.
    """
    path = Path(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return unreadable(path)
    values = reader.GetNumberOfComponents()
    if reader.GetDimension() == 3 and values == 1:
        return None
    size = " x ".join(str(n) for n in reader.GetSize())
    return f"'{path}' is not a scalar 3-D volume ({size} voxels, {values} value{'s' * (values > 1)} per voxel)"


def unreadable(path: Path) -> str:
    """Return the message for a file that is not an image."""
    if not path.is_file():
        return f"'{path}' does not exist"
    return f"'{path}' cannot be read as an image: it is damaged or of another type"
