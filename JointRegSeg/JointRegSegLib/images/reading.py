"""Image files read with SimpleITK, which by itself fills up truncated NIfTI files with zeros and says nothing."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import SimpleITK as sitk

from NeuroCESTLib.core.nifti_files import NotNifti1Error, check_complete, is_nifti

from .labels import to_classes
from .study import check_grid


def read_image(path: str | os.PathLike) -> sitk.Image:
    """An image file. Raises ValueError naming it where it cannot be read or ends early."""
    path = Path(path)
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError:
        raise ValueError(unreadable(path)) from None
    if is_nifti(path):
        with contextlib.suppress(NotNifti1Error):  # other kinds are left to SimpleITK
            check_complete(path, trust_size=True)
    return image


def read_labels(path: str | os.PathLike) -> sitk.Image:
    """The tumour classes of a label file (uint8). Raises ValueError naming it; see ``labels.to_classes``."""
    image = read_image(path)
    check_grid(image, f"'{path}'")
    classes = sitk.GetImageFromArray(to_classes(sitk.GetArrayViewFromImage(image), str(path)))
    classes.CopyInformation(image)
    return classes


def header_problem(path: str | os.PathLike) -> str | None:
    """Why a file cannot be a scalar volume, by its header alone; None where it can."""
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
    return f"'{path}' is no scalar 3-D volume ({size} voxels, {values} value{'s' * (values > 1)} each)"


def unreadable(path: Path) -> str:
    """What to say of a file that is no image."""
    if not path.is_file():
        return f"'{path}' does not exist"
    return f"'{path}' cannot be read as an image: it is damaged or of another type"
