"""Small DICOM files in the layouts of scanners, written element by element (DICOM PS3.5, explicit little endian)."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

Tag = tuple[int, int]
Values = Mapping[Tag, tuple[str, object]]
_LONG = ("OB", "OW", "SQ", "UN", "UT")
_NUMBERS = {"US": "H", "UL": "I", "FD": "d", "FL": "f", "SS": "h"}

SIGNAL = np.random.default_rng(5).integers(1, 1000, (4, 3, 6, 5)).astype(np.float32)
"""Values of a series: measurement, slice, row, column."""
OFFSETS = [-300.0, -3.5, 0.0, 3.5]
"""Offsets of the measurements in ppm."""


def _content(kind: str, value: object) -> bytes:
    if kind == "SQ":
        assert isinstance(value, Sequence)
        items = [elements(item) for item in value]
        return b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in items)
    if kind in _NUMBERS:
        values = value if isinstance(value, Sequence) else [value]
        return struct.pack(f"<{len(values)}{_NUMBERS[kind]}", *values)
    content = value if isinstance(value, bytes) else str(value).encode()
    return content + b" " * (len(content) % 2)


def elements(values: Values) -> bytes:
    """Bytes of data elements in the order of their tags."""
    written = b""
    for (group, number), (kind, value) in sorted(values.items()):
        content = _content(kind, value)
        long = kind in _LONG
        length = struct.pack("<HI", 0, len(content)) if long else struct.pack("<H", len(content))
        written += struct.pack("<HH", group, number) + kind.encode() + length + content
    return written


def write_dicom(path: Path, values: Values, pixels: np.ndarray, syntax: str = "1.2.840.10008.1.2.1") -> Path:
    """Write a file with the pixels (frame, row, column) as 16-bit numbers."""
    frames, rows, columns = pixels.shape
    image: Values = {
        (0x0028, 0x0002): ("US", 1),
        (0x0028, 0x0008): ("IS", frames),
        (0x0028, 0x0010): ("US", rows),
        (0x0028, 0x0011): ("US", columns),
        (0x0028, 0x0100): ("US", 16),
        (0x0028, 0x0103): ("US", 0),
        (0x7FE0, 0x0010): ("OW", pixels.astype("<u2").tobytes()),
    }
    head = elements({(0x0002, 0x0010): ("UI", syntax)})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(128) + b"DICM" + head + elements({**image, **values}))
    return path


def place(k: int, normal_step_mm: float = 3.0) -> Values:
    """Position and grid of slice ``k``: sagittal, rows along P, columns along -S."""
    return {
        (0x0020, 0x0032): ("DS", f"{-10 + normal_step_mm * -k:g}\\-20\\30"),
        (0x0020, 0x0037): ("DS", "0\\1\\0\\0\\0\\-1"),
        (0x0028, 0x0030): ("DS", "2\\1.5"),
        (0x0018, 0x0050): ("DS", "3"),
    }


def series(name: str = "cest", number: int = 5, manufacturer: str = "SIEMENS") -> Values:
    """Elements that all images of a series share."""
    return {
        (0x0008, 0x0008): ("CS", "ORIGINAL\\PRIMARY\\M"),
        (0x0008, 0x0060): ("CS", "MR"),
        (0x0008, 0x0070): ("LO", manufacturer),
        (0x0008, 0x103E): ("LO", name),
        (0x0018, 0x0084): ("DS", "123.2"),
        (0x0018, 0x0087): ("DS", "3"),
        (0x0020, 0x000E): ("UI", f"1.2.3.{number}"),
        (0x0020, 0x0011): ("IS", number),
    }


def write_classic(folder: Path, signal: np.ndarray, more: Values | None = None, *, numbered: bool = True) -> None:
    """Write one file for each image of ``signal`` (measurement, slice, row, column), a volume for each acquisition."""
    for m, volume in enumerate(signal):
        for k, image in enumerate(volume):
            instance = m * len(volume) + k + 1
            own: Values = {(0x0020, 0x0013): ("IS", instance)}
            if numbered:
                own = {**own, (0x0020, 0x0012): ("IS", m + 1)}
            name = f"{(instance * 7919) % 10007:05d}.dcm"  # names say nothing about the order
            write_dicom(folder / name, {**series(), **place(k), **own, **(more or {})}, image[None])


def write_enhanced(
    path: Path,
    signal: np.ndarray,
    *,
    slopes: Sequence[float],
    more: Values | None = None,
    of_frame: Sequence[Values] | None = None,
) -> Path:
    """Write one multi-frame file with the measurements as temporal positions, the slices outside."""
    frames, items = [], []
    for k in range(signal.shape[1]):
        for m in range(len(signal)):
            where = place(k)
            items.append(
                {
                    (0x0020, 0x9113): ("SQ", [{(0x0020, 0x0032): where[0x0020, 0x0032]}]),
                    (0x0020, 0x9111): ("SQ", [{(0x0020, 0x9128): ("UL", m + 1)}]),
                    (0x0028, 0x9145): (
                        "SQ",
                        [{(0x0028, 0x1052): ("DS", 0), (0x0028, 0x1053): ("DS", slopes[m])}],
                    ),
                    **(of_frame[m] if of_frame else {}),
                }
            )
            frames.append(signal[m, k])
    where = place(0)
    shared = {
        (0x0020, 0x9116): ("SQ", [{(0x0020, 0x0037): where[0x0020, 0x0037]}]),
        (0x0028, 0x9110): ("SQ", [{tag: where[tag] for tag in ((0x0028, 0x0030), (0x0018, 0x0050))}]),
    }
    functional: Values = {(0x5200, 0x9229): ("SQ", [shared]), (0x5200, 0x9230): ("SQ", items)}
    return write_dicom(path, {**series(), **functional, **(more or {})}, np.stack(frames))


def write_compressed(path: Path, pixels: np.ndarray, more: dict[str, str]) -> Path:
    """Write one image (row, column) as GDCM does: compressed pixels, and no sequences."""
    image = sitk.GetImageFromArray(pixels[None])
    tags = {"0008|0060": "MR", "0020|000e": "1.2.3", "0020|0032": "1\\2\\3", "0020|0037": "1\\0\\0\\0\\1\\0"}
    for tag, value in {**tags, **more}.items():
        image.SetMetaData(tag, value)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetFileName(str(path))
    writer.UseCompressionOn()
    writer.SetCompressor("JPEG2000")
    writer.Execute(image)
    return path


def write_offsets(folder: Path, name: str = "offsets.txt") -> Path:
    """Write the offsets as a list beside the images."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join(f"{offset:g}" for offset in OFFSETS))
    return folder / name
