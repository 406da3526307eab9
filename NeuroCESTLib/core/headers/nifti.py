"""NIfTI-1 files at the level of their bytes: sizes, completeness, and values that readers replace.

NIfTI readers fill the missing part of a truncated file with zeros without a word, and Slicer's reader replaces NaN by
zero. A fit or a network would take both for signal.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from NeuroCESTLib.core.headers.limits import LARGEST_RATIO, SPARE_BYTES, check_sizes

_HEADER_BYTES = 348
_CHUNK_BYTES = 1 << 20
_BITS = {1: 1, 2: 8, 4: 16, 8: 32, 16: 32, 32: 64, 64: 64, 128: 24, 256: 8, 512: 16, 768: 32} | {
    1024: 64,
    1280: 64,
    1536: 128,
    1792: 128,
    2048: 256,
    2304: 32,
}
"""Bits of a value by NIfTI's code of its type."""
_FARTHEST_DATA = 1 << 40
"""Byte at which data begin from which a header is damaged."""
_GZIP = b"\x1f\x8b"
_VECTOR_INTENTS = (1006, 1007)  # NIfTI's codes of displacement fields and other vectors
_FLOATS = {16: "f4", 64: "f8"}  # NIfTI's codes of the floating-point types
_LONG_INTEGERS = {1024: "i8", 1280: "u8"}  # and of the 64-bit integers


class NotNifti1Error(ValueError):
    """The file does not have the header of a NIfTI-1 file."""


@dataclass(frozen=True)
class NiftiLayout:
    """Sizes, type and place of the data in a NIfTI-1 file.

    Attributes:
        sizes: Number of voxels along each axis, in the order of the file (i, j, k, measurement, ...).
        dtype: Type of the values if they are real floating-point numbers or 64-bit integers; ``uint8`` stands for all
            other types.
        data_offset: Position of the data in bytes; 0 where they are in another file (``.hdr`` and ``.img``).
        data_bytes: Size of the data in bytes.
    """

    sizes: tuple[int, ...]
    dtype: np.dtype
    data_offset: int
    data_bytes: int

    @property
    def file_bytes(self) -> int:
        """Bytes that the uncompressed file must have."""
        return self.data_offset + self.data_bytes if self.data_offset else _HEADER_BYTES


def is_nifti(path: str | os.PathLike) -> bool:
    """Whether a file is a NIfTI file by its name."""
    return Path(path).name.lower().endswith((".nii", ".nii.gz"))


def is_pair(path: str | os.PathLike) -> bool:
    """Whether a file is one of the two of an image in ``.hdr`` and ``.img`` by its name."""
    return Path(path).name.lower().endswith(tuple(ending + zipped for ending in _PAIR for zipped in ("", ".gz")))


def plain_file(path: str | os.PathLike, folder: str | os.PathLike) -> Path:
    """Write a NIfTI-1 image that Slicer does not read as a plain file of at most four dimensions.

    These are images in two files (``.hdr`` and ``.img``), images of more than four dimensions of which all beyond the
    third but one have a single entry, such as (x, y, z, 1, measurement), and 64-bit integers, at which Slicer's reader
    ends the process where the axes are left-handed. These become 32-bit integers, or ``float64`` where they are larger.
    An image of two dimensions becomes one slice, because readers would lose its tilt.

    Args:
        path: Image file, for a pair either of the two.
        folder: Folder for the plain file.

    Returns:
        The plain file, or ``path`` itself where it is one already or no such image.

    Raises:
        NotNifti1Error: A ``.hdr`` file has another header, such as that of Analyze 7.5, which gives no orientation.
        ValueError: The file is damaged or truncated, or its partner is missing; the message names it.
    """
    path = Path(path)
    pair = is_pair(path)
    if not pair and not is_nifti(path):
        return path
    header_path, data_path = partners(path) if pair else (path, path)
    try:
        layout = nifti_layout(header_path)
    except NotNifti1Error:
        if pair:
            raise
        return path  # the reader says what is wrong with it
    is_long = layout.dtype.kind in "iu" and layout.dtype.itemsize == 8
    if not pair and len(layout.sizes) in (3, 4) and not is_long:
        return path
    try:
        with _open(header_path) as file:
            header = bytearray(file.read(_HEADER_BYTES))
        order = "<" if struct.unpack("<i", header[:4])[0] == _HEADER_BYTES else ">"
        if not _squeeze(header, order, layout.sizes) and not is_long:
            return path
        with _open(data_path) as file:
            file.seek(int(struct.unpack(order + "f", header[108:112])[0]))
            data = file.read(layout.data_bytes)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(_read_problem(data_path, error)) from None
    if len(data) < layout.data_bytes:
        raise ValueError(
            f"'{data_path}' is truncated: it has {len(data)} of {layout.data_bytes} bytes; copy or export it again"
        )
    if is_long:
        values = np.frombuffer(data, layout.dtype)
        limits = np.iinfo(np.int32)
        code, kind = (8, "i4") if limits.min <= values.min() and values.max() <= limits.max else (64, "f8")
        data = values.astype(order + kind).tobytes()
        header[70:74] = struct.pack(order + "2h", code, _BITS[code])
    header[108:112] = struct.pack(order + "f", _HEADER_BYTES + 4)
    header[344:348] = b"n+1\0"
    plain = Path(folder) / f"{path.name.split('.')[0]}.nii"
    plain.write_bytes(bytes(header) + b"\0" * 4 + data)
    return plain


_PAIR = {".hdr": ".img", ".img": ".hdr"}


def partners(path: Path) -> tuple[Path, Path]:
    """Return the header file and the data file of a pair of which one is given.

    Raises:
        ValueError: The other one is missing.
    """
    zipped = path.suffix if path.suffix.lower() == ".gz" else ""
    stem = path.with_suffix("") if zipped else path
    wanted = _PAIR[stem.suffix.lower()]
    candidates = [stem.with_suffix(ending + end) for ending in (wanted, wanted.upper()) for end in (zipped, "", ".gz")]
    partner = next((candidate for candidate in candidates if candidate.exists()), None)
    if partner is None:
        raise ValueError(f"'{path}' is one of two files, and '{candidates[0].name}' is missing beside it")
    return (path, partner) if wanted == ".img" else (partner, path)


def _squeeze(header: bytearray, order: str, sizes: tuple[int, ...]) -> bool:
    """Let an image have three dimensions, and a fourth one only if it has more than one entry.

    Returns:
        Whether that can be; otherwise the header stays as it is.
    """
    intent = struct.unpack(order + "h", header[68:70])[0]
    spacing = struct.unpack(order + "8f", header[76:108])
    long = [axis for axis in range(3, len(sizes)) if sizes[axis] > 1]
    if intent in _VECTOR_INTENTS or len(long) > 1 or len(sizes) < 2:
        return False
    kept = [*range(3), *long]
    dimensions = [len(kept), *((*sizes, 1, 1)[axis] for axis in kept)]
    spacings = [spacing[0], *(spacing[axis + 1] or 1.0 for axis in kept)]
    header[40:56] = struct.pack(order + "8h", *dimensions, *[1] * (8 - len(dimensions)))
    header[76:108] = struct.pack(order + "8f", *spacings, *[1.0] * (8 - len(spacings)))
    return True


def nifti_layout(path: str | os.PathLike) -> NiftiLayout:
    """Read where and how a NIfTI-1 file stores its data.

    Args:
        path: File ending in ``.nii`` or ``.nii.gz``.

    Raises:
        NotNifti1Error: The file has another header.
        ValueError: The header is damaged, or the file cannot be read; the message names it.
    """
    path = Path(path)
    try:
        with _open(path) as file:
            header = file.read(_HEADER_BYTES)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(_read_problem(path, error)) from None
    if len(header) < _HEADER_BYTES or header[344:348] not in (b"n+1\0", b"ni1\0"):
        if header[:2] == _GZIP:
            remedy = "unpack it once" if _is_compressed(path) else f"name it '{path.name}.gz'"
            twice = "compressed twice" if _is_compressed(path) else "compressed, but its name does not say so"
            raise NotNifti1Error(f"'{path}' is {twice}: {remedy}")
        if header[:4] in (struct.pack("<i", 540), struct.pack(">i", 540)):
            raise NotNifti1Error(f"'{path}' is NIfTI-2, which Slicer does not read: convert it to NIfTI-1")
        raise NotNifti1Error(f"'{path}' is not an image: it has no NIfTI header")
    order = "<" if struct.unpack("<i", header[:4])[0] == _HEADER_BYTES else ">"
    rank, *sizes = struct.unpack(order + "8h", header[40:56])
    datatype, bits = struct.unpack(order + "2h", header[70:74])
    if datatype not in _BITS:
        raise ValueError(f"'{path}' has a damaged NIfTI header: there is no data type {datatype}")
    offset = struct.unpack(order + "f", header[108:112])[0]
    single_file = header[344:348] == b"n+1\0"
    sizes = [max(size, 1) if axis >= 3 and size == 0 else size for axis, size in enumerate(sizes[: max(rank, 0)])]
    if not 1 <= rank <= 7 or bits != _BITS[datatype] or min(sizes) < 1:
        raise ValueError(f"'{path}' has a damaged NIfTI header")
    if not 0 <= offset <= _FARTHEST_DATA or (single_file and offset < _HEADER_BYTES):
        raise ValueError(f"'{path}' has a damaged NIfTI header: its data begin at byte {offset:.4g}")
    return NiftiLayout(
        sizes=tuple(sizes),
        dtype=np.dtype(order + (_FLOATS | _LONG_INTEGERS).get(datatype, "u1")),
        data_offset=int(offset) if single_file else 0,
        data_bytes=(math.prod(sizes) * bits + 7) // 8,
    )


def check_complete(path: str | os.PathLike, trust_size: bool = False) -> None:
    """Check that a NIfTI-1 file has as many bytes as its header announces.

    Args:
        path: File ending in ``.nii`` or ``.nii.gz``.
        trust_size: Whether the unpacked size that a compressed file states at its end is enough if it is the announced
            one; otherwise the file is unpacked to its end, which finds damage in the middle too.

    Raises:
        NotNifti1Error: The file has another header.
        ValueError: The file is truncated, damaged or cannot be read; the message names it.
    """
    path = Path(path)
    needed = nifti_layout(path).file_bytes
    _check_length(path, needed, trust_size)


def check_nifti(path: str | os.PathLike, trust_size: bool = False) -> None:
    """Check that a NIfTI-1 image in one file or two can be given to its readers.

    Args:
        path: File ending in ``.nii`` or ``.nii.gz``, or either one of ``.hdr`` and ``.img``.
        trust_size: As for ``check_complete``.

    Raises:
        NotNifti1Error: The file has another header.
        ValueError: The file is truncated or damaged, too large, or its partner is missing; the message names it.
    """
    path = Path(path)
    header_path, data_path = partners(path) if is_pair(path) else (path, path)
    layout = nifti_layout(header_path)
    if len(layout.sizes) < 2:
        raise ValueError(f"'{header_path}' has one dimension and is no image: export it again")
    check_sizes(header_path, layout.sizes, layout.data_bytes / math.prod(layout.sizes))
    with _open(header_path) as file:
        header = file.read(_HEADER_BYTES)
    order = "<" if struct.unpack("<i", header[:4])[0] == _HEADER_BYTES else ">"
    offset, slope, intercept = struct.unpack(order + "3f", header[108:120])
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise ValueError(f"'{header_path}' scales its values by a number that is not finite: export it again")
    if slope == 0 and intercept != 0:
        raise ValueError(
            f"'{header_path}' has a slope of 0 (scl_slope), by which its values are not scaled, but an intercept of "
            f"{intercept:g} (scl_inter), which its readers would add: set the intercept to 0"
        )
    if header_path == data_path:
        _check_length(path, layout.file_bytes, trust_size)
    elif not 0 <= offset <= data_path.stat().st_size * LARGEST_RATIO:
        raise ValueError(f"'{header_path}' has a damaged NIfTI header: its data begin at byte {offset:.4g}")
    else:
        _check_length(data_path, int(offset) + layout.data_bytes, trust_size)


def _check_length(path: Path, needed: int, trust_size: bool) -> None:
    """Check that a file has the given number of bytes, which are unpacked only as far as they can be right."""
    try:
        if trust_size and _stated_size(path) == needed % 2**32:
            return
        found = 0
        if needed <= path.stat().st_size * LARGEST_RATIO:
            with _open(path) as file:
                while (chunk := file.read(_CHUNK_BYTES)) and found <= needed + SPARE_BYTES:
                    found += len(chunk)
        else:
            found = path.stat().st_size
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(_read_problem(path, error)) from None
    if found < needed:
        raise ValueError(f"'{path}' is truncated: it has {found} of {needed} bytes; copy or export it again")
    if _is_compressed(path) and found > needed + SPARE_BYTES:
        raise ValueError(f"'{path}' holds far more data than its header announces: copy or export it again")


def non_finite_voxels(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Find NaN and infinity in a NIfTI file.

    Args:
        path: File of any format.

    Returns:
        Indices (i, j, k, measurement) of shape (n, 4) in the order of the file, and the values of shape (n,). n is 0
        for files of other formats and for integers.

    Raises:
        ValueError: The file is damaged.
    """
    path = Path(path)
    none = np.empty((0, 4), dtype=np.int64), np.empty(0)
    if not is_nifti(path):
        return none
    layout = nifti_layout(path)
    if layout.dtype.kind != "f" or layout.data_offset == 0:
        return none
    with _open(path) as file:
        file.seek(layout.data_offset)
        values = np.frombuffer(file.read(layout.data_bytes), layout.dtype)
    flat = np.flatnonzero(~np.isfinite(values))
    sizes = (*layout.sizes, 1, 1, 1)[:3]
    index = np.unravel_index(flat, (*sizes, values.size // math.prod(sizes)), order="F")
    return np.stack(index, axis=1), values[flat].astype(np.float64)


def _open(path: Path) -> gzip.GzipFile | BinaryIO:
    return gzip.open(path, "rb") if _is_compressed(path) else open(path, "rb")


def _is_compressed(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _stated_size(path: Path) -> int:
    """Size of the (unpacked) file modulo 2^32; a gzip file of one part states it in its last four bytes."""
    if not _is_compressed(path):
        return path.stat().st_size % 2**32
    with open(path, "rb") as file:
        file.seek(-4, os.SEEK_END)
        return struct.unpack("<I", file.read(4))[0]


def _read_problem(path: Path, error: Exception) -> str:
    if isinstance(error, EOFError):
        return f"'{path}' is truncated or damaged: its compressed data end early; copy it again"
    if isinstance(error, gzip.BadGzipFile) and _is_plain_nifti(path):
        return f"'{path}' is not compressed, although its name ends in '.gz': name it '{path.name[:-3]}'"
    if isinstance(error, (gzip.BadGzipFile, zlib.error)):
        return f"'{path}' is not an image: it is not a gzip file, or a damaged one"
    return f"'{path}' cannot be read: {getattr(error, 'strerror', None) or error}"


def _is_plain_nifti(path: Path) -> bool:
    """Whether a file has the header of a NIfTI-1 file that is not compressed."""
    with open(path, "rb") as file:
        header = file.read(_HEADER_BYTES)
    return len(header) == _HEADER_BYTES and header[344:348] in (b"n+1\0", b"ni1\0")
