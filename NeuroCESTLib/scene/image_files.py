"""Checks of image files before a storage node reads them: existing, of a known kind, complete."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from NeuroCESTLib.core.headers.checks import check_file, check_read_grid
from NeuroCESTLib.core.headers.dicom import CONVERT, holds_dicom
from NeuroCESTLib.core.headers.nifti import plain_file
from NeuroCESTLib.core.headers.nifti_orientation import quiet_itk, straight_file
from NeuroCESTLib.core.output.hidden import temporary_folder
from NeuroCESTLib.scene.geometry import Geometry

_COMPOSITE_EXTENSIONS = (
    ".nii.gz",
    ".hdr.gz",
    ".img.gz",
    ".seg.nrrd",
    ".seg.nhdr",
    ".seq.nrrd",
    ".seq.nhdr",
    ".seq.mrb",
    ".mrk.json",
)


@dataclass(frozen=True)
class ImageHeader:
    """Size, type and geometry of an image file.

    Attributes:
        sizes: Number of voxels along each axis, in the order of the file (i, j, k, measurement).
        components: Number of values per voxel.
        complex_valued: Whether the values are complex.
        geometry: Voxel grid in the order of the file; Slicer reorders left-handed files when it reads them.
    """

    sizes: tuple[int, ...]
    components: int
    complex_valued: bool
    geometry: Geometry

    @property
    def measurements(self) -> int:
        """Number of 3-D volumes in the file."""
        return int(self.sizes[3]) if len(self.sizes) > 3 else 1


def existing_file(path: str | os.PathLike) -> Path:
    """Check that a file exists, can be read and is not empty.

    Returns:
        The path of the file.

    Raises:
        ValueError: It does not; the message names the file.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"file not found: '{path}'")
    if path.is_dir():
        if holds_dicom(path):
            raise ValueError(f"'{path}' is a folder of DICOM files, not an image: {CONVERT}")
        raise ValueError(f"'{path}' is a folder, not a file")
    if not os.access(path, os.R_OK):
        raise ValueError(f"no permission to read '{path}'")
    if path.stat().st_size == 0:
        raise ValueError(f"'{path}' is empty: copy or export it again")
    return path


def node_name(path: str | os.PathLike) -> str:
    """Return the name of a node that is read from a file: the file name without its extension, such as ``.nii.gz``."""
    name = Path(path).name
    for extension in _COMPOSITE_EXTENSIONS:
        if name.lower().endswith(extension) and len(name) > len(extension):
            return name[: -len(extension)]
    return Path(name).stem


def read_header(path: str | os.PathLike) -> ImageHeader:
    """Read the header of an image file and check that its data are complete.

    Raises:
        ValueError: The file is missing, not an image, or truncated.
    """
    path = existing_file(path)
    with temporary_folder() as folder:
        plain = plain_file(path, folder)
        try:
            check_file(plain)
            return _plain_header(straight_file(plain, folder)[0])
        except ValueError as error:
            raise ValueError(str(error).replace(str(plain), str(path))) from None


def _plain_header(path: Path) -> ImageHeader:
    """Read the header of an image file of at most four dimensions."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        with quiet_itk():
            reader.ReadImageInformation()
    except RuntimeError:
        if path.suffix.lower() in (".mgz", ".mgh"):
            raise ValueError(
                f"'{path}' is an image of FreeSurfer, which is not read: convert it with mri_convert to .nii.gz"
            ) from None
        raise ValueError(
            f"'{path}' cannot be read as an image: it is damaged or of another type (NIfTI and NRRD are read)"
        ) from None
    check_read_grid(path, reader.GetSize(), reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection())
    complex_types = (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64)
    components = reader.GetNumberOfComponents()
    return ImageHeader(
        tuple(reader.GetSize()), components, reader.GetPixelID() in complex_types, Geometry.from_sitk(reader)
    )
