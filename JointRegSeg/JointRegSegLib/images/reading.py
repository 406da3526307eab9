"""Image files read with SimpleITK, which by itself fills up truncated NIfTI files with zeros and says nothing."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path

import SimpleITK as sitk

from .labels import to_classes
from .study import check_grid

_CHUNK = 1 << 22


def read_image(path: str | os.PathLike) -> sitk.Image:
    """An image file. Raises ValueError naming it where it cannot be read or ends early."""
    path = Path(path)
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError:
        raise ValueError(unreadable(path)) from None
    check_complete(path)
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


def check_complete(path: Path) -> None:
    """Raise ValueError where a NIfTI file holds fewer bytes than its header announces; others are left to SimpleITK.

    A compressed file is only unpacked where the size at its end is not the announced one.
    """
    name = path.name.lower()
    if not name.endswith((".nii", ".nii.gz")):
        return
    compressed = name.endswith(".gz")
    try:
        with gzip.open(path, "rb") if compressed else open(path, "rb") as file:
            needed = _announced_bytes(file.read(348))
            if needed is None or (_size_at_end(path) if compressed else path.stat().st_size) == needed % 2**32:
                return
            found = 348
            while chunk := file.read(_CHUNK):
                found += len(chunk)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise ValueError(f"'{path}' is truncated or damaged: its compressed data end early; copy it again") from None
    except OSError as error:
        raise ValueError(f"'{path}' cannot be read: {error.strerror or error}") from None
    if found < needed:
        raise ValueError(f"'{path}' is truncated: {found} of {needed} bytes are there; copy or export it again")


def _announced_bytes(header: bytes) -> int | None:
    """Bytes of a NIfTI-1 file by its header; None where it is of another kind."""
    if len(header) < 348 or header[344:348] != b"n+1\0":
        return None
    order = "<" if struct.unpack("<i", header[:4])[0] == 348 else ">"
    dim = struct.unpack(order + "8h", header[40:56])
    (bits,) = struct.unpack(order + "h", header[72:74])
    (offset,) = struct.unpack(order + "f", header[108:112])
    if not 1 <= dim[0] <= 7:
        return None
    return int(offset) + (math.prod(max(n, 1) for n in dim[1 : dim[0] + 1]) * bits + 7) // 8


def _size_at_end(path: Path) -> int:
    """Unpacked size modulo 2^32 that a gzip file of one part states in its last four bytes."""
    with open(path, "rb") as file:
        file.seek(-4, os.SEEK_END)
        return struct.unpack("<I", file.read(4))[0]
