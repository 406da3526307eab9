"""Scenes as archives (``.mrb``) and as XML (``.mrml``).

Unpacking an archive writes wherever its entries say, and an XML file can define texts that grow without bound; both
are looked for before Slicer opens the scene.
"""

from __future__ import annotations

import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from xml.parsers import expat

from NeuroCESTLib.core.headers.limits import LARGEST_RATIO, memory_bytes, quoted
from NeuroCESTLib.core.output.hidden import temporary_folder

_MOST_ENTRIES = 100_000
_LONGEST_SCENE = 256 << 20
_DEEPEST = 100
_ENCODINGS = ("utf-8", "us-ascii", "iso-8859-1")
_CHUNK = 1 << 20
_LOCAL_HEADER = 30  # bytes before the name of an entry
_ENCRYPTED, _SIZES_FOLLOW = 1, 8  # bits of its flags
_REMEDY = "save the scene again"


def check_bundle(path: str | os.PathLike, check_file: Callable[[Path], None]) -> None:
    """Check that a ``.mrb`` archive unpacks into a folder of its own, fits into memory, and holds one sound scene.

    Args:
        path: Archive.
        check_file: Checks each image in it, unpacked to a temporary folder.

    Raises:
        ValueError: It is no such archive, or holds a damaged file; the message names the archive.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_entries(path, entries)
            with temporary_folder() as folder:
                for entry in entries:
                    _check_local_header(archive, entry)
                    if entry.is_dir():
                        archive.read(entry)
                    else:
                        _check_entry(path, archive, entry, Path(folder), check_file)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, struct.error):
        raise ValueError(f"'{path}' is not a scene archive (.mrb), or a damaged one: {_REMEDY}") from None


def _check_entries(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    names = [PurePosixPath(entry.filename.replace("\\", "/")) for entry in entries]
    if len(entries) > _MOST_ENTRIES:
        raise ValueError(f"'{path}' is damaged: it has {len(entries)} entries; {_REMEDY}")
    for name in names:
        if name.is_absolute() or ".." in name.parts or ":" in str(name):
            raise ValueError(
                f"'{path}' would write the file {quoted(str(name))} outside its own folder: do not open it"
            )
    if sum(entry.file_size for entry in entries) > memory_bytes():
        raise ValueError(f"'{path}' unpacks to more than the memory of this machine: it is damaged")
    if any(entry.file_size > (entry.compress_size + 1) * LARGEST_RATIO for entry in entries):
        raise ValueError(f"'{path}' is damaged: an entry announces an impossible size; {_REMEDY}")
    scenes = [name for name in names if name.suffix.lower() == ".mrml"]
    if not scenes:
        raise ValueError(f"'{path}' holds no scene (.mrml): {_REMEDY}")


def _check_entry(
    path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path, check_file: Callable[[Path], None]
) -> None:
    """Unpack one entry, which finds damage, and check what is read of it."""
    name = PurePosixPath(entry.filename.replace("\\", "/")).name
    unpacked = folder / name
    with archive.open(entry) as source, open(unpacked, "wb") as target:
        shutil.copyfileobj(source, target, _CHUNK)
    try:
        if unpacked.suffix.lower() == ".mrml":
            check_scene(unpacked)
        elif unpacked.suffix.lower() != ".nhdr":  # its data lie in another entry
            check_file(unpacked)
    except ValueError as error:
        raise ValueError(str(error).replace(str(unpacked), f"{path}: {entry.filename}")) from None
    unpacked.unlink()


def _check_local_header(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """Check that the header before the data says the same as the archive's directory; Slicer reads the former."""
    file = archive.fp
    assert file is not None  # it is open
    file.seek(entry.header_offset)
    header = file.read(_LOCAL_HEADER)
    signature, flags, method, crc, packed, unpacked, name, extra = struct.unpack("<4s2xHH4xIIIHH", header)
    sizes = {0, 0xFFFFFFFF} if flags & _SIZES_FOLLOW else {0xFFFFFFFF}
    same = method == entry.compress_type and (flags ^ entry.flag_bits) & (_ENCRYPTED | _SIZES_FOLLOW) == 0
    same = same and packed in sizes | {entry.compress_size} and unpacked in sizes | {entry.file_size}
    if flags & _SIZES_FOLLOW and crc == 0:  # the checksum, too, follows the data
        file.seek(entry.header_offset + _LOCAL_HEADER + name + extra + entry.compress_size)
        follows = file.read(8)
        (crc,) = struct.unpack("<I", follows[4:] if follows.startswith(b"PK\7\x08") else follows[:4])
    if signature != b"PK\3\4" or not same or crc != entry.CRC:
        raise zipfile.BadZipFile


def check_scene(path: str | os.PathLike) -> None:
    """Check that a ``.mrml`` file is well-formed XML of a bounded size without definitions of its own.

    Raises:
        ValueError: It is not; the message names the file.
    """
    path = Path(path)
    if path.stat().st_size > _LONGEST_SCENE:
        raise ValueError(f"'{path}' is too long for a scene: {_REMEDY}")
    depth = 0
    roots: list[str] = []

    def start(name: str, _: object) -> None:
        nonlocal depth
        depth += 1
        if depth == 1:
            roots.append(name)
        if depth > _DEEPEST:
            raise ValueError(f"'{path}' is nested too deep for a scene: {_REMEDY}")

    def end(_: str) -> None:
        nonlocal depth
        depth -= 1

    def refuse(*_: object) -> None:
        raise ValueError(f"'{path}' defines entities of its own, which a scene never does: do not open it")

    def declare(_: object, encoding: str | None, __: object) -> None:
        if (encoding or "utf-8").lower() not in _ENCODINGS:
            raise ValueError(f"'{path}' has letters in the unknown code {quoted(str(encoding))}: {_REMEDY}")

    parser = expat.ParserCreate()
    parser.XmlDeclHandler = declare
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        with open(path, "rb") as file:
            parser.ParseFile(file)
    except expat.ExpatError as error:
        raise ValueError(f"'{path}' is not a scene, or a damaged one (line {error.lineno}): {_REMEDY}") from None
    if roots != ["MRML"]:
        raise ValueError(f"'{path}' is not a scene of Slicer: its first element must be MRML")
