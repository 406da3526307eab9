"""Is this file a complete image? Answered from its header, before a storage node reads it.

NIfTI readers fill what is missing from a truncated file with zeros, and put zeros in place of NaN. A fit
would take both for signal, so this file looks at the bytes.
"""

from __future__ import annotations

import contextlib
import gzip
import math
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from NeuroCESTLib.scene.geometry import Geometry

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
    if _is_nifti(path):
        _check_nifti_size(path)
    elif path.name.lower().endswith(".nrrd"):
        _check_nrrd_size(path)
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


def non_finite_voxels(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Where a NIfTI file holds NaN or infinity, which the NIfTI library replaces by zero as it reads.

    Returns:
        Indices ``(n, 4)`` as (i, j, k, measurement) in the order of the file, and the n values; n is 0
        for files of other formats and types.
    """
    path = Path(path)
    none = np.empty((0, 4), dtype=np.int64), np.empty(0)
    if not _is_nifti(path):
        return none
    with _open(path) as file:
        layout = _nifti_layout(file.read(348), path)
        if layout.dtype.kind != "f" or layout.data_offset == 0:
            return none
        file.seek(layout.data_offset)
        values = np.frombuffer(file.read(layout.data_bytes), layout.dtype)
    flat = np.flatnonzero(~np.isfinite(values))
    sizes = (*layout.sizes, 1, 1, 1)[:3]
    index = np.unravel_index(flat, (*sizes, values.size // int(np.prod(sizes))), order="F")
    return np.stack(index, axis=1), values[flat].astype(np.float64)


@dataclass(frozen=True)
class _NiftiLayout:
    sizes: tuple[int, ...]
    dtype: np.dtype
    data_offset: int  # 0: the data are in another file (.hdr and .img)
    data_bytes: int


def _is_nifti(path: Path) -> bool:
    return path.name.lower().endswith((".nii", ".nii.gz"))


def _open(path: Path) -> BinaryIO:
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else open(path, "rb")


def _check_nifti_size(path: Path) -> None:
    """Raise ValueError unless a NIfTI file holds as many bytes as its header announces."""
    try:
        with _open(path) as file:
            layout = _nifti_layout(file.read(348), path)
            needed = layout.data_offset + layout.data_bytes if layout.data_offset else 348
            found = 348
            while chunk := file.read(_CHUNK):  # to the end, where a damaged compressed stream shows
                found += len(chunk)
    except EOFError:
        raise ValueError(f"'{path}' is truncated: the compressed data end early; copy it again") from None
    except (gzip.BadGzipFile, zlib.error):
        raise ValueError(f"'{path}' is not an image: it is no gzip file, or a damaged one") from None
    if found < needed:
        raise ValueError(f"'{path}' is truncated: {found} of {needed} bytes are there; copy or export it again")


_NRRD_BYTES = {
    "char": 1,
    "int8": 1,
    "uchar": 1,
    "uint8": 1,
    "short": 2,
    "int16": 2,
    "ushort": 2,
    "uint16": 2,
    "int": 4,
    "int32": 4,
    "uint": 4,
    "uint32": 4,
    "float": 4,
    "longlong": 8,
    "int64": 8,
    "ulonglong": 8,
    "uint64": 8,
    "double": 8,
}


def _check_nrrd_size(path: Path) -> None:
    """Raise ValueError unless an NRRD file holds as many bytes as its header announces."""
    with open(path, "rb") as file:
        if not file.readline(16).startswith(b"NRRD"):
            raise ValueError(f"'{path}' is not an image: it has no NRRD header")
        fields: dict[str, str] = {}
        while line := file.readline(1 << 24).strip():
            key, separator, value = line.decode("utf-8", "replace").partition(": ")
            if separator and not key.startswith("#"):
                fields[key] = value.strip()
        name = fields.get("type", "").replace("signed ", "").replace("un", "u").replace(" ", "")
        size = _NRRD_BYTES.get(name.removesuffix("_t"))
        encoding = fields.get("encoding", "")
        if "data file" in fields or size is None or encoding not in ("raw", "gzip", "gz"):
            return  # rarer kinds are left to the reader
        needed = math.prod(int(n) for n in fields.get("sizes", "0").split()) * size
        found = 0
        try:
            with contextlib.nullcontext(file) if encoding == "raw" else gzip.open(file) as data:
                while chunk := data.read(_CHUNK):
                    found += len(chunk)
        except (EOFError, gzip.BadGzipFile, zlib.error):
            raise ValueError(f"'{path}' is truncated or damaged: copy or export it again") from None
    if found < needed:
        raise ValueError(f"'{path}' is truncated: {found} of {needed} bytes are there; copy or export it again")


def _nifti_layout(header: bytes, path: Path) -> _NiftiLayout:
    """Sizes, type and place of the data in a NIfTI-1 file."""
    if len(header) < 348 or header[344:348] not in (b"n+1\0", b"ni1\0"):
        if header[:4] in (struct.pack("<i", 540), struct.pack(">i", 540)):
            raise ValueError(f"'{path}' is NIfTI-2, which Slicer does not read: convert it to NIfTI-1")
        raise ValueError(f"'{path}' is not an image: it has no NIfTI header")
    order = "<" if struct.unpack("<i", header[:4])[0] == 348 else ">"
    dim = struct.unpack(order + "8h", header[40:56])
    datatype, bits = struct.unpack(order + "2h", header[70:74])
    offset = struct.unpack(order + "f", header[108:112])[0]
    rank = dim[0]
    single_file = header[344:348] == b"n+1\0"
    if not 1 <= rank <= 7 or bits <= 0 or min(dim[1 : rank + 1]) < 1 or (single_file and not offset >= 348):
        raise ValueError(f"'{path}' has a damaged NIfTI header")
    sizes = tuple(dim[1 : rank + 1])
    data_bytes = (math.prod(sizes) * bits + 7) // 8
    dtype = np.dtype(order + {16: "f4", 64: "f8"}.get(datatype, "u1"))
    return _NiftiLayout(sizes, dtype, int(offset) if single_file else 0, data_bytes)
