"""Is this file a complete image? Answered from its header, before a storage node reads it.

NIfTI readers fill what is missing from a truncated file with zeros, which a fit would take for signal.
"""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from NeuroCESTLib.geometry import Geometry

_CHUNK = 1 << 20


@dataclass(frozen=True)
class ImageHeader:
    """What an image file says of itself.

    Attributes:
        sizes: number of voxels along each axis, in file order (i, j, k, measurement).
        components: numbers a voxel.
        complex_valued: whether voxels are complex numbers.
        geometry: grid in the voxel order of the file, which Slicer changes where it is left-handed; None
            for a file of less than three dimensions.
    """

    sizes: tuple[int, ...]
    components: int
    complex_valued: bool
    geometry: Geometry | None

    @property
    def measurements(self) -> int:
        """Number of 3-D volumes in the file."""
        return int(self.sizes[3]) if len(self.sizes) > 3 else 1


def existing_file(path: str | os.PathLike) -> Path:
    """``path`` as an existing, readable, non-empty file.

    Raises:
        ValueError: with one sentence that names the file.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"file not found: '{path}'")
    if path.is_dir():
        raise ValueError(f"'{path}' is a folder, not a file")
    if not os.access(path, os.R_OK):
        raise ValueError(f"no permission to read '{path}'")
    if path.stat().st_size == 0:
        raise ValueError(f"'{path}' is empty: copy or export it again")
    return path


def read_header(path: str | os.PathLike) -> ImageHeader:
    """Header of an image file, whose data are checked to be complete.

    Raises:
        ValueError: the file is missing, no image, or truncated.
    """
    path = existing_file(path)
    if path.name.lower().endswith((".nii", ".nii.gz")):
        _check_nifti_size(path)
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        raise ValueError(
            f"'{path}' cannot be read as an image: it is damaged or of another type (NIfTI and NRRD are read)"
        ) from None
    complex_types = (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64)
    components = reader.GetNumberOfComponents()
    geometry = Geometry.from_sitk(reader) if reader.GetDimension() >= 3 else None
    return ImageHeader(tuple(reader.GetSize()), components, reader.GetPixelID() in complex_types, geometry)


def _check_nifti_size(path: Path) -> None:
    """Raise ValueError unless a NIfTI file holds as many bytes as its header announces."""
    compressed = path.name.lower().endswith(".gz")
    opener = gzip.open if compressed else open
    try:
        with opener(path, "rb") as file:
            header = file.read(348)
            needed = _nifti_bytes(header, path)
            found = len(header)
            while found < needed and (chunk := file.read(min(_CHUNK, needed - found))):
                found += len(chunk)
            if compressed:  # a damaged stream is found at its end
                while file.read(_CHUNK):
                    pass
    except EOFError:
        raise ValueError(f"'{path}' is truncated: the compressed data end early; copy it again") from None
    except (gzip.BadGzipFile, zlib.error):
        raise ValueError(f"'{path}' is not an image: it is no gzip file, or a damaged one") from None
    if found < needed:
        raise ValueError(
            f"'{path}' is truncated: {found} of {needed} bytes are there; copy or export it again"
        )


def _nifti_bytes(header: bytes, path: Path) -> int:
    """Bytes of the (uncompressed) NIfTI file according to its header."""
    if len(header) < 348 or header[344:348] not in (b"n+1\0", b"ni1\0"):
        if header[:4] in (struct.pack("<i", 540), struct.pack(">i", 540)):
            raise ValueError(f"'{path}' is NIfTI-2, which Slicer does not read: convert it to NIfTI-1")
        raise ValueError(f"'{path}' is not an image: it has no NIfTI header")
    order = "<" if struct.unpack("<i", header[:4])[0] == 348 else ">"
    dim = struct.unpack(order + "8h", header[40:56])
    bits = struct.unpack(order + "h", header[72:74])[0]
    offset = struct.unpack(order + "f", header[108:112])[0]
    if not 1 <= dim[0] <= 7 or bits <= 0 or min(dim[1 : dim[0] + 1]) < 1:
        raise ValueError(f"'{path}' has a damaged NIfTI header")
    voxels = 1
    for size in dim[1 : dim[0] + 1]:
        voxels *= size
    data = (voxels * bits + 7) // 8
    return 348 if header[344:348] == b"ni1\0" else int(offset) + data
