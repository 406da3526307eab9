"""The check of NRRD files before a library reads them.

The library stops the process on some headers that it does not understand, so that only fields and values of the
description of the format pass.
"""

from __future__ import annotations

import gzip
import math
import os
import re
import zlib
from pathlib import Path

import numpy as np

from NeuroCESTLib.core.headers.limits import LARGEST_RATIO, SPARE_BYTES, check_grid, check_sizes, quoted
from NeuroCESTLib.core.headers.nrrd import (
    DIMENSIONS_OF_SPACE,
    LONGEST_WORD,
    REMEDY,
    NrrdHeader,
    data_files,
    is_segmentation,
    read_nrrd_header,
)

_CHUNK = 1 << 20
_MOST_DIMENSIONS = 8

_NAMED_TYPES = {
    1: "signed char,int8,int8_t,uchar,unsigned char,uint8,uint8_t",
    2: "short,short int,signed short,signed short int,int16,int16_t,ushort,unsigned short,unsigned short int,uint16,"
    "uint16_t",
    4: "int,signed int,int32,int32_t,uint,unsigned int,uint32,uint32_t,float",
    8: "longlong,long long,long long int,signed long long,signed long long int,int64,int64_t,ulonglong,"
    "unsigned long long,unsigned long long int,uint64,uint64_t,double",
}
TYPES = {name: size for size, names in _NAMED_TYPES.items() for name in names.split(",")}
"""Bytes of a value by the name of its type."""
ENCODINGS = {"raw": "raw", "gzip": "gzip", "gz": "gzip", "txt": "text", "text": "text", "ascii": "text", "hex": "hex"}
"""Encodings that are read, under all their names."""
_NAMED_KINDS = """
domain space time list point vector covariant-vector normal stub scalar complex 2-vector 3-color rgb-color hsv-color
xyz-color 4-color rgba-color 3-vector 3-gradient 3-normal 4-vector quaternion 2d-symmetric-matrix
2d-masked-symmetric-matrix 2d-matrix 2d-masked-matrix 3d-symmetric-matrix 3d-masked-symmetric-matrix 3d-matrix
3d-masked-matrix ??? none
"""
_NAMED_LENGTHS = """
m meter meters metre metres dm cm centimeter centimeters centimetre centimetres um µm μm micron microns micrometer
micrometers micrometre micrometres nm in inch inches
"""
_OTHER_LENGTHS = frozenset(_NAMED_LENGTHS.split())
_KINDS = frozenset(_NAMED_KINDS.split())
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')


def check_nrrd(path: str | os.PathLike, complete: bool = True) -> NrrdHeader:
    """Check that an NRRD file can be given to its readers.

    Fields and their values must be those of the format, all numbers finite and within the limits, and the data as long
    as the sizes say, also when they are unpacked.

    Args:
        path: File ending in ``.nrrd`` or ``.nhdr``.
        complete: Whether to check the length of the data too, for which compressed ones are unpacked.

    Returns:
        The header.

    Raises:
        ValueError: The file is damaged, truncated, or of a kind that is not read; the message names it.
    """
    header = read_nrrd_header(path)
    for field in ("type", "dimension", "sizes", "encoding"):
        if not header.fields.get(field):
            raise header.damaged(f"the field {field} is missing")
    _check_words(header)
    _check_axes(header)
    needed = check_sizes(header.path, header.sizes, TYPES[header.fields["type"].lower()])
    _check_place(header)
    if complete:
        _check_data(header, needed)
    if is_segmentation(header.path):
        _check_segments(header)
    return header


def _check_words(header: NrrdHeader) -> None:
    """Check the fields whose values come from a list."""
    kind, encoding = header.fields["type"].lower(), header.fields["encoding"].lower()
    if kind not in TYPES:
        raise header.damaged(f"there is no type {quoted(header.fields['type'])}")
    if encoding in ("bzip2", "bz2"):
        raise ValueError(f"'{header.path}' is packed with bzip2, which is not read: save it with gzip instead")
    if encoding not in ENCODINGS:
        raise header.damaged(
            f"there is no encoding {quoted(header.fields['encoding'])}, but {', '.join(sorted(set(ENCODINGS)))}"
        )
    choices = {"endian": ("little", "big"), "space": tuple(DIMENSIONS_OF_SPACE)}
    for field, known in choices.items():
        if field in header.fields and header.fields[field].lower() not in known:
            raise header.damaged(f"there is no {field} {quoted(header.fields[field])}")
    if "endian" not in header.fields and TYPES[kind] > 1 and ENCODINGS[encoding] in ("raw", "gzip"):
        raise header.damaged("the field endian is missing")
    for field in ("content", "sample units"):
        if len(header.fields.get(field, "")) > LONGEST_WORD:
            raise header.damaged(f"{field} is too long")
    for field in ("min", "max", "old min", "old max"):
        header.numbers(field)
    for field, least in (("line skip", 0), ("byte skip", -1), ("block size", 0), ("number", 0)):
        if field in header.fields and (len(found := header.whole_numbers(field)) != 1 or found[0] < least):
            raise header.damaged(f"{field} must be a whole number of at least {least}")


def _check_axes(header: NrrdHeader) -> None:
    """Check the fields that have an entry for every axis."""
    dimension = header.whole_numbers("dimension")
    if len(dimension) != 1 or not 1 <= dimension[0] <= _MOST_DIMENSIONS:
        raise header.damaged(f"dimension must be a whole number from 1 to {_MOST_DIMENSIONS}")
    count = dimension[0]
    per_axis: dict[str, list] = {field: header.words(field) for field in ("sizes", "kinds", "centers")}
    for field in ("spacings", "thicknesses", "axis mins", "axis maxs"):
        per_axis[field] = header.numbers(field)
        if np.isinf(per_axis[field]).any():
            raise header.damaged(f"{field} must be finite")
    for field in ("labels", "units"):
        text = header.fields.get(field, "")
        per_axis[field] = _QUOTED.findall(text)
        if _QUOTED.sub("", text).strip():
            raise header.damaged(f"{field} must be texts in quotation marks")
        if any(len(text) > LONGEST_WORD for text in per_axis[field]):
            raise header.damaged(f"{field} are too long")
    per_axis["space directions"] = header.vectors("space directions")
    for field, values in per_axis.items():
        if field in header.fields and len(values) != count:
            raise header.damaged(f"{field} has {len(values)} entries for {count} axes")
    for field, known in (("kinds", _KINDS), ("centers", ("cell", "node", "none", "???"))):
        if unknown := [word for word in per_axis[field] if word.lower() not in known]:
            raise header.damaged(f"{field} has the unknown entry {quoted(unknown[0])}")


def _check_place(header: NrrdHeader) -> None:
    """Check where the voxels lie in space."""
    if "space" in header.fields and "space dimension" in header.fields:
        raise header.damaged("it gives both space and space dimension")
    if len(header.whole_numbers("space dimension")) > 1 or not 0 <= header.space_dimension <= _MOST_DIMENSIONS:
        raise header.damaged("space dimension must be a whole number")
    for field in ("space units", "units"):
        if other := [unit for unit in _QUOTED.findall(header.fields.get(field, "")) if unit.lower() in _OTHER_LENGTHS]:
            raise ValueError(
                f"'{header.path}' gives its place in {quoted(other[0])} ({field}), but readers of NRRD files take it "
                "for millimetres: save it in mm"
            )
    vectors, count = header.vectors("space directions"), header.space_dimension
    origins, frame = header.vectors("space origin"), header.vectors("measurement frame")
    for field, found in (("space directions", vectors), ("space origin", origins), ("measurement frame", frame)):
        if any(vector is not None and len(vector) != count for vector in found):
            raise header.damaged(f"{field} must have {count} numbers a vector, as many as the space has dimensions")
    if len(origins) > 1 or len(frame) not in (0, count):
        raise header.damaged("it needs one space origin, and a measurement frame of a vector per dimension")
    if not all(np.isfinite(vector).all() for vector in frame if vector is not None):
        raise header.damaged("its measurement frame must be finite")
    origin = next((vector for vector in origins if vector is not None), [0.0] * 3)
    in_space = [(v, n) for v, n in zip(vectors, header.sizes, strict=False) if v is not None]
    if not in_space:
        step = [value for value in header.numbers("spacings") if not math.isnan(value)]
        in_space = [([value if i == j else 0.0 for j in range(len(step))], 1) for i, value in enumerate(step)]
    if len(in_space) > len(in_space[0][0] if in_space else ()):
        raise header.damaged("it has more axes in space than space has dimensions")
    axes = np.array([vector for vector, _ in in_space] or np.empty((0, 3)), dtype=float).T
    check_grid(header.path, origin, axes, [n for _, n in in_space])


def _check_data(header: NrrdHeader, needed: int) -> None:
    """Check that there are as many bytes as the sizes say, in the file itself or in its data files."""
    encoding = ENCODINGS[header.fields["encoding"].lower()]
    if "data file" in header.fields:
        files = data_files(header)
        if len(files) > 1:
            return  # files of slices, whose existence was checked
        path, offset = files[0], 0
    else:
        path, offset = header.path, header.data_offset
    skipped = max(header.whole_numbers("byte skip") or [0])
    if encoding == "raw" and (header.whole_numbers("line skip") or [0])[0] == 0:
        found = path.stat().st_size - offset - max(skipped, 0)
    elif encoding == "gzip":
        found = _unpacked_bytes(path, offset, needed + max(skipped, 0)) - max(skipped, 0)
    else:  # at least one letter a value
        found, needed = path.stat().st_size - offset, math.prod(header.sizes)
    if found < needed:
        raise ValueError(f"'{path}' is truncated: it has {max(found, 0)} of {needed} bytes; {REMEDY}")


def _unpacked_bytes(path: Path, offset: int, needed: int) -> int:
    """Bytes of a gzip stream, which is unpacked only as far as it can be right."""
    if needed > (path.stat().st_size - offset) * LARGEST_RATIO:
        return (path.stat().st_size - offset) * LARGEST_RATIO
    found = 0
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            with gzip.open(file) as data:
                while chunk := data.read(_CHUNK):
                    found += len(chunk)
                    if found > needed + SPARE_BYTES:
                        raise ValueError(f"'{path}' holds far more data than its header announces: {REMEDY}")
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise ValueError(f"'{path}' is truncated or damaged: {REMEDY}") from None
    return found


def _check_segments(header: NrrdHeader) -> None:
    """Check the numbers of the segments of a segmentation, which its readers take for places in the memory.

    In descending order the offset of all extents comes before those of the segments.
    """
    listed = len(header.sizes) > 3
    layers = header.sizes[0] if listed else 1
    for key, value in sorted(header.metadata.items(), reverse=True):
        found = re.fullmatch(r"Segment(\d+)_(\w+)", key)
        wanted = {"LabelValue": 1, "Layer": 1, "Extent": 6}.get(found[2] if found else "", 0)
        if key == "Segmentation_ReferenceImageExtentOffset":
            wanted = 3
        if not wanted:
            continue
        words = value.split()
        if len(words) != wanted or not all(re.fullmatch(r"-?\d{1,9}", word) for word in words):
            count = "a whole number" if wanted == 1 else f"{wanted} whole numbers"
            raise header.damaged(f"{quoted(key)} is {quoted(value)}, but must be {count}")
        if key.endswith("_Layer") and not 0 <= int(words[0]) < layers:
            raise header.damaged(f"{quoted(key)} is {words[0]}, but there are only {layers} layers")
        if key.endswith("_Extent"):
            _check_extent(header, key, [int(word) for word in words])


def _check_extent(header: NrrdHeader, key: str, extent: list[int]) -> None:
    sizes = header.sizes[-3:]
    offset = [int(word) for word in header.metadata.get("Segmentation_ReferenceImageExtentOffset", "0 0 0").split()]
    for axis, size in enumerate(sizes):
        low, high = extent[2 * axis], extent[2 * axis + 1]
        start = offset[axis] if axis < len(offset) else 0
        inside = -size <= low - start and high - start < 2 * size
        if low <= high and not inside and not -size <= low <= high < 2 * size:
            raise header.damaged(f"{quoted(key)} lies outside the image")
