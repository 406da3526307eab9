"""Variants of a file: bytes flipped, cut and repeated, numbers and words replaced, also below a compression."""

from __future__ import annotations

import gzip
import io
import random
import re
import struct
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

_NUMBERS = (b"0", b"-1", b"1e400", b"-1e308", b"nan", b"inf", b"1e-320", b"99999999999999999999", b"0x10", b"1.5", b"")
_WORDS = (
    b"null",
    b"true",
    b"[]",
    b"{}",
    b'""',
    b"[[[]]]",
    b'"\\ud800"',
    b"\xff\xfe",
    b"\0",
    b"%s%n",
    b"x" * 3000,
    b"-",
)
_FLOATS = (0.0, -1.0, float("nan"), float("inf"), -float("inf"), 1e30, -1e30, 1e-40, 1e9, 3e38)
_SHORTS = (0, 1, -1, 2, 7, 8, 255, 512, 32767, -32768, 16384)
_NUMBER = re.compile(rb"[-+]?\d+\.?\d*(?:[eE][-+]?\d+)?")
_WORD = re.compile(rb"[A-Za-z_]{2,}|\"[^\"]*\"")
_VALUES: tuple[Any, ...] = (None, -1, 0, 10**30, True, "x", "", float("nan"), float("inf"), [], {}, [[]], [None])


def mutate(content: bytes, name: str, draw: random.Random) -> bytes:
    """Return a variant of the content of a file.

    Args:
        content: Sound content.
        name: Name of the file, whose ending tells what is below it.
        draw: Random numbers, which alone determine the variant.
    """
    if name.endswith(".pt") and draw.random() < 0.7:
        return _mutated_tensors(content, draw)
    if name.endswith(".gz") and draw.random() < 0.6:
        return gzip.compress(_mutated(gzip.decompress(content), name[:-3], draw), 1, mtime=0)
    if name.endswith(".mrb") and draw.random() < 0.8:
        return _mutated_archive(content, draw)
    return _mutated(content, name, draw)


def _mutated(content: bytes, name: str, draw: random.Random) -> bytes:
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        kinds = [_flip, _cut, _repeat, _insert, _drop]
        if name.endswith((".nii", ".hdr")) and len(content) > 348:
            kinds = [_nifti_field] * 12 + kinds
        elif name.endswith((".nrrd", ".nhdr", ".mha")):
            kinds = [_in_header] * 12 + kinds
        elif not name.endswith((".pt", ".npy", ".mrb", ".img")):
            kinds = [_number, _number, _word, _line] * 3 + kinds
        content = draw.choice(kinds)(content, draw)
    return content


def _place(content: bytes, draw: random.Random) -> int:
    """A position, more often near the start, where headers are."""
    limit = len(content) if draw.random() < 0.5 else min(len(content), 400)
    return draw.randrange(max(limit, 1))


def _flip(content: bytes, draw: random.Random) -> bytes:
    result = bytearray(content)
    for _ in range(draw.choice((1, 1, 3, 10))):
        if result:
            result[_place(content, draw)] = draw.randrange(256)
    return bytes(result)


def _cut(content: bytes, draw: random.Random) -> bytes:
    return content[: _place(content, draw)]


def _drop(content: bytes, draw: random.Random) -> bytes:
    start = _place(content, draw)
    return content[:start] + content[start + draw.choice((1, 2, 16, 500)) :]


def _repeat(content: bytes, draw: random.Random) -> bytes:
    start = _place(content, draw)
    part = content[start : start + draw.choice((1, 20, 200))]
    return content[:start] + part * draw.choice((2, 2, 50)) + content[start:]


def _insert(content: bytes, draw: random.Random) -> bytes:
    start = _place(content, draw)
    return content[:start] + draw.choice((*_NUMBERS, *_WORDS)) + content[start:]


def _replaced(pattern: re.Pattern[bytes], content: bytes, new: tuple[bytes, ...], draw: random.Random) -> bytes:
    found = list(pattern.finditer(content))
    if not found:
        return _flip(content, draw)
    match = draw.choice(found)
    return content[: match.start()] + draw.choice(new) + content[match.end() :]


def _number(content: bytes, draw: random.Random) -> bytes:
    return _replaced(_NUMBER, content, (*_NUMBERS, *_WORDS), draw)


def _word(content: bytes, draw: random.Random) -> bytes:
    return _replaced(_WORD, content, (*_WORDS, *_NUMBERS), draw)


def _line(content: bytes, draw: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    if len(lines) < 2:
        return _flip(content, draw)
    place, other = draw.randrange(len(lines)), draw.randrange(len(lines))
    changed = {"drop": [], "twice": [lines[place]] * 2, "other": [lines[other]]}[
        draw.choice(("drop", "twice", "other"))
    ]
    return b"".join([*lines[:place], *changed, *lines[place + 1 :]])


def _in_header(content: bytes, draw: random.Random) -> bytes:
    """Change the text before the data of an NRRD or MetaImage file."""
    end = content.find(b"\n\n")
    end = end if end > 0 else content.find(b"LOCAL")
    header, data = content[: max(end, 0)], content[max(end, 0) :]
    return draw.choice((_number, _word, _line, _flip, _insert))(header, draw) + data


def _nifti_field(content: bytes, draw: random.Random) -> bytes:
    """Overwrite a number in the header of a NIfTI file."""
    result = bytearray(content)
    if draw.random() < 0.4:
        struct.pack_into("<h", result, draw.choice((*range(40, 56, 2), 68, 70, 72, 252, 254)), draw.choice(_SHORTS))
    else:
        place = draw.choice((*range(56, 68, 4), *range(76, 124, 4), *range(256, 328, 4)))
        struct.pack_into("<f", result, place, draw.choice(_FLOATS))
    return bytes(result)


def _mutated_archive(content: bytes, draw: random.Random) -> bytes:
    """Change one entry of a zip archive."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(result, "w", zipfile.ZIP_DEFLATED) as target:
        chosen = draw.choice(source.namelist())
        for name in source.namelist():
            part = source.read(name)
            target.writestr(name, _mutated(part, name, draw) if name == chosen else part)
    return result.getvalue()


def _mutated_tensors(content: bytes, draw: random.Random) -> bytes:
    """Change one value in a file of tensors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = torch.load(io.BytesIO(content), weights_only=True)
    _change_value(values, draw)
    result = io.BytesIO()
    torch.save(values, result)
    return result.getvalue()


def _change_value(values: Any, draw: random.Random) -> None:
    """Replace an entry somewhere in nested dictionaries and lists."""
    while True:
        keys = list(values) if isinstance(values, dict) else list(range(len(values)))
        if not keys:
            return
        key = draw.choice(keys)
        inside = isinstance(values[key], (dict, list)) and len(values[key])
        if inside and draw.random() < 0.8:
            values = values[key]
            continue
        if isinstance(values, dict) and draw.random() < 0.2:
            del values[key]
        elif isinstance(values[key], torch.Tensor) and draw.random() < 0.7:
            values[key] = _other_tensor(values[key], draw)
        else:
            values[key] = draw.choice(_VALUES)
        return


def _other_tensor(tensor: torch.Tensor, draw: random.Random) -> torch.Tensor:
    changes = (
        lambda: tensor[:0],
        lambda: tensor.to(torch.float16),
        lambda: tensor.to(torch.complex64),
        lambda: torch.full_like(tensor, -1),
        lambda: tensor.float() * torch.nan,
        lambda: tensor.expand(2, *tensor.shape).contiguous(),
        lambda: torch.zeros(1).expand(10_000_000),
        lambda: tensor.reshape(-1).float().to_sparse(),
    )
    return draw.choice(changes)() if tensor.dim() else torch.zeros(3)


def checksum(content: bytes) -> str:
    """Short name of a content, by which a repeated input is recognised."""
    return f"{zlib.crc32(content):08x}"


def write_variant(example: Path, target: Path, draw: random.Random) -> str:
    """Write a variant of an example.

    Returns:
        Its checksum.
    """
    content = mutate(example.read_bytes(), example.name, draw)
    target.write_bytes(content)
    return checksum(content)
