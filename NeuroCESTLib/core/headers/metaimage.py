"""Headers of MetaImage files (``.mha``, ``.mhd``), whose reader takes their numbers for sizes in the memory.

The format is described at https://itk.org/Wiki/MetaIO/Documentation.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from NeuroCESTLib.core.headers.limits import LARGEST_RATIO, check_sizes, quoted

TYPES = {
    "MET_CHAR": 1,
    "MET_UCHAR": 1,
    "MET_SHORT": 2,
    "MET_USHORT": 2,
    "MET_INT": 4,
    "MET_UINT": 4,
    "MET_LONG": 4,
    "MET_ULONG": 4,
    "MET_LONG_LONG": 8,
    "MET_ULONG_LONG": 8,
    "MET_FLOAT": 4,
    "MET_DOUBLE": 8,
}
"""Bytes of a value by the name of its type."""
_LONGEST_HEADER = 1 << 16
_MOST_DIMENSIONS = 4
_MOST_CHANNELS = 4096
_CHANNELS = "ElementNumberOfChannels"
_LONGEST_VALUE = 4000
_PLACES = {"Offset": 1, "Position": 1, "Origin": 1, "CenterOfRotation": 1, "ElementSpacing": 1, "ElementSize": 1} | {
    name: 2 for name in ("TransformMatrix", "Rotation", "Orientation")
}
"""Numbers of each field as a power of the number of dimensions."""
_REMEDY = "copy or export it again"


def is_metaimage(path: str | os.PathLike) -> bool:
    """Whether a file is a MetaImage by its name."""
    return Path(path).name.lower().endswith((".mha", ".mhd"))


def check_metaimage(path: str | os.PathLike) -> None:
    """Check that a MetaImage can be given to its reader.

    Raises:
        ValueError: It is damaged or truncated, or its data are missing beside it; the message names the file.
    """
    path = Path(path)
    fields, offset = _fields(path)
    count = _whole(path, fields, "NDims", 1, _MOST_DIMENSIONS)
    channels = _whole(path, fields, _CHANNELS, 1, _MOST_CHANNELS) if _CHANNELS in fields else 1
    words = fields.get("DimSize", "").split()
    if len(words) != count or not all(re.fullmatch(r"\d{1,12}", word) for word in words):
        raise _damaged(path, f"DimSize is {quoted(fields.get('DimSize', ''))}, but must be {count} whole numbers")
    kind = fields.get("ElementType", "")
    if kind not in TYPES:
        raise _damaged(path, f"there is no ElementType {quoted(kind)}")
    for name, power in _PLACES.items():
        if name in fields:
            _check_numbers(path, name, fields[name], count**power)
    needed = check_sizes(path, [*map(int, words), channels], TYPES[kind])
    data = data_file(path)
    found = path.stat().st_size - offset if data is None else data.stat().st_size
    if fields.get("CompressedData", "").lower().startswith("t"):
        found *= LARGEST_RATIO
    if found < needed:
        raise ValueError(f"'{path}' is truncated: it has {max(found, 0)} of {needed} bytes; {_REMEDY}")


def data_file(path: str | os.PathLike) -> Path | None:
    """Return the data file of a header; None where the data are in the file itself.

    Raises:
        ValueError: It is missing, there are several, or the header is damaged; the message names the header.
    """
    path = Path(path)
    data = _fields(path)[0]["ElementDataFile"]
    if data == "LOCAL":
        return None
    if re.search(r"%|^LIST", data):
        raise ValueError(f"'{path}' has its data in several files, which is not read: save it as one file")
    if not (path.parent / data).is_file():
        raise ValueError(f"'{path}' has its data in {quoted(data)}, which is missing beside it")
    return path.parent / data


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """Fields of the header, whose last one is ``ElementDataFile``, and the position of what follows them."""
    with open(path, "rb") as file:
        start = file.read(_LONGEST_HEADER)
    found = re.search(rb"^[ \t]*ElementDataFile[ \t]*=[^\n]*\n?", start, re.MULTILINE)
    if found is None:
        raise ValueError(f"'{path}' is not an image: it has no MetaImage header")
    header = start[: found.end()]
    if b"\0" in header:
        raise _damaged(path, "it is not text")
    fields: dict[str, str] = {}
    for line in header.decode("latin-1").splitlines():
        name, equals, value = line.partition("=")
        if not equals:
            raise _damaged(path, f"the line {quoted(line)} is no field")
        if name.strip() in fields:
            raise _damaged(path, f"it gives {quoted(name.strip())} twice")
        if len(value) > _LONGEST_VALUE:
            raise _damaged(path, f"{quoted(name.strip())} is too long")
        fields[name.strip()] = value.strip()
    return fields, found.end()


def _whole(path: Path, fields: dict[str, str], name: str, least: int, most: int) -> int:
    word = fields.get(name, "")
    if not re.fullmatch(r"\d{1,9}", word) or not least <= int(word) <= most:
        raise _damaged(path, f"{name} is {quoted(word)}, but must be a whole number from {least} to {most}")
    return int(word)


def _check_numbers(path: Path, name: str, text: str, count: int) -> None:
    try:
        values = np.array([float(word) for word in text.split()])
    except ValueError:
        raise _damaged(path, f"{name} is {quoted(text)}, but must be {count} numbers") from None
    if len(values) != count or not np.isfinite(values).all():
        raise _damaged(path, f"{name} is {quoted(text)}, but must be {count} finite numbers")


def _damaged(path: Path, problem: str) -> ValueError:
    return ValueError(f"'{path}' has a damaged MetaImage header: {problem}; {_REMEDY}")
