"""Files that have the same bytes whenever they are written: archives and HDF5 files without their times."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

_ARCHIVE_TIME = (1980, 1, 1, 0, 0, 0)
"""The earliest time of an archive's entry."""
_PERMISSIONS = 0o644 << 16
_HDF5 = b"\x89HDF\r\n\x1a\n"
"""Start of an HDF5 file."""
_HEADER = b"OHDR\x02"
"""Start of an object header of HDF5 of version 2, with the version."""
_HAS_TIMES, _HAS_PHASE_CHANGE = 0x20, 0x10
_TIMES = 16
"""Bytes of the times of access, modification, change and birth."""
_WORD = 0xFFFFFFFF


def sort_archive(path: Path) -> None:
    """Write a zip archive anew, with its files in the order of their names and without times and owners.

    Times inside HDF5 files in it are removed too.

    Args:
        path: Archive, which is changed.

    Raises:
        OSError: It cannot be written.
        zipfile.BadZipFile: It is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        files = [entry for entry in archive.infolist() if not entry.is_dir()]
        entries = sorted(files, key=lambda entry: entry.filename)
        sorted_path = path.with_name(f"{path.name}.sorted")
        with zipfile.ZipFile(sorted_path, "w") as sorted_archive:
            for entry in entries:
                info = zipfile.ZipInfo(entry.filename, _ARCHIVE_TIME)
                info.compress_type, info.external_attr, info.create_system = entry.compress_type, _PERMISSIONS, 3
                data = archive.read(entry)
                sorted_archive.writestr(info, without_hdf5_times(data) if data.startswith(_HDF5) else data)
    sorted_path.replace(path)


def remove_hdf5_times(path: Path) -> None:
    """Set the times of all objects of an HDF5 file to zero, as :func:`without_hdf5_times` does.

    Args:
        path: File, which is changed.

    Raises:
        OSError: It cannot be written.
    """
    path.write_bytes(without_hdf5_times(path.read_bytes()))


def without_hdf5_times(content: bytes) -> bytes:
    """Return the content of an HDF5 file with all times of its objects set to zero.

    The library offers this only to those who create the objects, and ITK does not ask for it. Object headers of
    version 2 begin with ``OHDR`` and end in a checksum (HDF5 file format specification, section IV.A.1.b); a place that
    looks like one and whose checksum is not right is left alone.
    """
    data = bytearray(content)
    found = data.find(_HEADER)
    while found >= 0:
        _remove_times(data, found)
        found = data.find(_HEADER, found + 1)
    return bytes(data)


def _remove_times(data: bytearray, start: int) -> None:
    """Set the times of the object header that starts at a byte to zero, and its checksum anew."""
    if start + 6 + _TIMES + 12 > len(data):
        return
    flags = data[start + 5]
    if not flags & _HAS_TIMES:
        return
    size_at = start + 6 + _TIMES + (4 if flags & _HAS_PHASE_CHANGE else 0)
    width = 1 << (flags & 3)
    messages = int.from_bytes(data[size_at : size_at + width], "little")
    end = size_at + width + messages
    if end + 4 > len(data) or checksum(bytes(data[start:end])) != struct.unpack_from("<I", data, end)[0]:
        return
    data[start + 6 : start + 6 + _TIMES] = bytes(_TIMES)
    struct.pack_into("<I", data, end, checksum(bytes(data[start:end])))


def checksum(data: bytes) -> int:
    """Return the checksum of HDF5's metadata: Bob Jenkins' ``lookup3`` hash ``hashlittle`` with start value 0."""
    a = b = c = (0xDEADBEEF + len(data)) & _WORD
    if not data:
        return c
    whole = (len(data) - 1) // 12 * 12
    for first in range(0, whole, 12):
        x, y, z = struct.unpack_from("<III", data, first)
        a, b, c = _mixed((a + x) & _WORD, (b + y) & _WORD, (c + z) & _WORD)
    x, y, z = struct.unpack("<III", data[whole:].ljust(12, b"\0"))
    return _finished((a + x) & _WORD, (b + y) & _WORD, (c + z) & _WORD)


def _rotated(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (32 - bits))) & _WORD


def _mixed(a: int, b: int, c: int) -> tuple[int, int, int]:
    a = ((a - c) & _WORD) ^ _rotated(c, 4)
    c = (c + b) & _WORD
    b = ((b - a) & _WORD) ^ _rotated(a, 6)
    a = (a + c) & _WORD
    c = ((c - b) & _WORD) ^ _rotated(b, 8)
    b = (b + a) & _WORD
    a = ((a - c) & _WORD) ^ _rotated(c, 16)
    c = (c + b) & _WORD
    b = ((b - a) & _WORD) ^ _rotated(a, 19)
    a = (a + c) & _WORD
    c = ((c - b) & _WORD) ^ _rotated(b, 4)
    b = (b + a) & _WORD
    return a, b, c


def _finished(a: int, b: int, c: int) -> int:
    c = ((c ^ b) - _rotated(b, 14)) & _WORD
    a = ((a ^ c) - _rotated(c, 11)) & _WORD
    b = ((b ^ a) - _rotated(a, 25)) & _WORD
    c = ((c ^ b) - _rotated(b, 16)) & _WORD
    a = ((a ^ c) - _rotated(c, 4)) & _WORD
    b = ((b ^ a) - _rotated(a, 14)) & _WORD
    return ((c ^ b) - _rotated(b, 24)) & _WORD
