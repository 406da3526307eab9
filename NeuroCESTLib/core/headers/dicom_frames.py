"""Frames of DICOM files: single images, and those of multi-frame files, with their place and values."""

from __future__ import annotations

import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from NeuroCESTLib.core.headers.dicom import CONVERT
from NeuroCESTLib.core.headers.dicom_elements import DicomFile, Elements, Tag, read_elements

_POSITION: Tag = (0x0020, 0x0032)
_ORIENTATION: Tag = (0x0020, 0x0037)
_SPACING: Tag = (0x0028, 0x0030)
_THICKNESS: Tag = (0x0018, 0x0050)
_INTERCEPT: Tag = (0x0028, 0x1052)
_SLOPE: Tag = (0x0028, 0x1053)
_PHILIPS_SLOPE: Tag = (0x2005, 0x100E)
_ACQUISITION: Tag = (0x0020, 0x0012)
_SERIES: Tag = (0x0020, 0x0011)
_INSTANCE: Tag = (0x0020, 0x0013)
_ACQUIRED: Tag = (0x0008, 0x002A)
_ACQUISITION_DATE: Tag = (0x0008, 0x0022)
_ACQUISITION_TIME: Tag = (0x0008, 0x0032)
_TEMPORAL: Tag = (0x0020, 0x0100)
_FRAMES: Tag = (0x0028, 0x0008)
_TYPE: Tag = (0x0008, 0x0008)
_FRAME_TYPE: Tag = (0x0008, 0x9007)
_COMPONENT: Tag = (0x0008, 0x9208)
_ECHO: Tag = (0x0018, 0x0086)
_ECHO_TIME: Tag = (0x0018, 0x0081)
_EFFECTIVE_ECHO_TIME: Tag = (0x0018, 0x9082)
_GE_CREATOR: Tag = (0x0043, 0x0010)
_GE_TYPE: Tag = (0x0043, 0x102F)
_SHARED: Tag = (0x5200, 0x9229)
_PER_FRAME: Tag = (0x5200, 0x9230)
_MACROS: dict[Tag, Tag] = {
    _POSITION: (0x0020, 0x9113),
    _ORIENTATION: (0x0020, 0x9116),
    _SPACING: (0x0028, 0x9110),
    _THICKNESS: (0x0028, 0x9110),
    _INTERCEPT: (0x0028, 0x9145),
    _SLOPE: (0x0028, 0x9145),
    (0x0020, 0x9128): (0x0020, 0x9111),
    (0x0020, 0x9156): (0x0020, 0x9111),
    _FRAME_TYPE: (0x0018, 0x9226),
    _COMPONENT: (0x0018, 0x9226),
    _EFFECTIVE_ECHO_TIME: (0x0018, 0x9114),
}
"""Sequence of a multi-frame file that holds an element."""
_GE_TYPES = ("MAGNITUDE", "PHASE", "REAL", "IMAGINARY")
"""Types of images by the number in GE's private element."""
_RESCALING: tuple[tuple[Tag, bytes, bytes], ...] = (
    (_INTERCEPT, b"DS", b"0"),
    (_SLOPE, b"DS", b"1"),
    ((0x0040, 0x9224), b"FD", struct.pack("<d", 0.0)),
    ((0x0040, 0x9225), b"FD", struct.pack("<d", 1.0)),
)
"""Elements that SimpleITK may scale pixels by, with their type and the value with which it does not."""
SAME_PLACE_MM = 1e-2
"""Largest distance along their normal of images of one slice."""
_EVEN = 1e-2
"""Largest difference of a step between slices from the mean one, relative to it."""
_WORDS = {8: "1", 16: "2", 32: "4"}


@dataclass(frozen=True)
class Frame:
    """One image of a file.

    Attributes:
        file: The file.
        number: Its number in the file, from 0.
        position: Centre of the first voxel, LPS in mm.
        axes: Directions (2, 3) of a row and of a column.
        spacing: Distance of voxels along a row and along a column in mm.
        thickness: Slice thickness in mm.
        temporal: Number of the temporal position; None where the file has none.
        acquisition: Number of the acquisition; None where the file has none.
        order: Numbers by which the images are in order otherwise: those of the series, the image and the frame.
        words: Words of the image type, such as ``M`` or ``PHASE``.
        echo: Number of the echo; None where the file has none.
        echo_time_ms: Echo time in ms; None where the file has none.
        acquired: Date and time of the acquisition as DICOM writes them, later ones later in the alphabet; empty where
            the file has none.
    """

    file: DicomFile
    number: int
    position: np.ndarray
    axes: np.ndarray
    spacing: tuple[float, float]
    thickness: float
    temporal: float | None
    acquisition: float | None
    order: tuple[float, ...]
    words: frozenset[str]
    echo: float | None = None
    echo_time_ms: float | None = None
    acquired: str = ""

    def has_axes_of(self, other: Frame) -> bool:
        """Whether another frame has the same orientation and voxel sizes in its plane."""
        same_axes = np.allclose(self.axes, other.axes, atol=1e-3)
        return same_axes and np.allclose(self.spacing, other.spacing, rtol=1e-3)


def check_dicom(path: Path) -> None:
    """Check that the frames of a DICOM file, if there are several, are one volume.

    Slicer and ITK stack the frames as they lie in the file, whatever their places are, and scale all like the first.

    Raises:
        ValueError: The file is damaged, or its frames are no volume of equal voxels; the message names it.
    """
    file = read_elements(path)
    if frame_count(file) < 2:
        return
    frames = frames_of(file)
    step = even_step(np.array([frame.position for frame in frames]))
    if step is None or is_tilted(step, frames[0]) or not all(frame.has_axes_of(frames[0]) for frame in frames):
        problem = "do not follow each other on one grid, as with several images of a slice or a gap"
    elif len({scale_of(frame, quantitative=False) for frame in frames}) > 1:
        problem = "have scalings of their own"
    else:
        return
    raise ValueError(
        f"'{path}' is not one volume of equal voxels, because its {len(frames)} DICOM frames {problem}: {CONVERT}"
    )


def even_step(positions: np.ndarray) -> np.ndarray | None:
    """Return the step (3,) between positions (n, 3) that lie at equal distances on a line, or None if they do not."""
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    length = np.linalg.norm(step)
    even = np.abs(np.diff(positions, axis=0) - step).max() <= _EVEN * length + SAME_PLACE_MM
    return step if even and length > SAME_PLACE_MM else None


def is_tilted(step: np.ndarray, frame: Frame) -> bool:
    """Whether a step (3,) from slice to slice leaves the normal of a frame."""
    return bool(np.linalg.norm(np.cross(step, np.cross(*frame.axes))) > _EVEN * np.linalg.norm(step))


def frame_count(file: DicomFile) -> int:
    """Return the number of frames of a file; a classic file has one."""
    return int((file.numbers(_FRAMES) or [1])[0])


def frames_of(file: DicomFile) -> list[Frame]:
    """Return the frames of a file; a classic file has one.

    Raises:
        ValueError: The file does not say where its images lie; the message names it.
    """
    count = frame_count(file)
    per_frame = file.sequence(_PER_FRAME)
    shared = (file.sequence(_SHARED) or ({},))[0]
    if per_frame and len(per_frame) != count:
        raise ValueError(f"'{file.path}' contradicts itself: it has {count} frames and describes {len(per_frame)}")
    if count > 1 and not per_frame:
        raise ValueError(
            f"'{file.path}' has {count} frames without their places: export it as enhanced or single images"
        )
    return [_frame(file, number, per_frame[number] if per_frame else {}, shared) for number in range(count)]


def _frame(file: DicomFile, number: int, own: Elements, shared: Elements) -> Frame:
    def values(tag: Tag, count: int) -> list[float]:
        found = _numbers(file, tag, own, shared)
        if len(found) != count:
            raise ValueError(f"'{file.path}' does not say where its images lie (element ({tag[0]:04x},{tag[1]:04x}))")
        return found

    def optional(*tags: Tag) -> float | None:
        return next((found[0] for tag in tags if (found := _numbers(file, tag, own, shared))), None)

    axes = np.array(values(_ORIENTATION, 6)).reshape(2, 3)
    between_rows, between_columns = values(_SPACING, 2)
    if min(between_rows, between_columns) <= 0 or not np.allclose(axes @ axes.T, np.eye(2), atol=1e-3):
        raise ValueError(f"'{file.path}' has an impossible voxel grid")
    return Frame(
        file,
        number,
        np.array(values(_POSITION, 3)),
        axes,
        (between_columns, between_rows),
        optional(_THICKNESS) or 1.0,
        optional((0x0020, 0x9128), _TEMPORAL),
        optional((0x0020, 0x9156), _ACQUISITION),
        (optional(_SERIES) or 0.0, optional(_INSTANCE) or 0.0, number),
        _words(file, own, shared),
        optional(_ECHO),
        optional(_EFFECTIVE_ECHO_TIME, _ECHO_TIME),
        file.text(_ACQUIRED) or file.text(_ACQUISITION_DATE) + file.text(_ACQUISITION_TIME),
    )


def _words(file: DicomFile, own: Elements, shared: Elements) -> frozenset[str]:
    """Words of the image type, with those of the elements that say it otherwise."""
    words = (_text(file, _FRAME_TYPE, own, shared) if own else "") or file.text(_TYPE)
    found = {*words.upper().split("\\"), _text(file, _COMPONENT, own, shared).upper()}
    if file.text(_GE_CREATOR) == "GEMS_PARM_01" and (number := file.numbers(_GE_TYPE)):
        found |= {word for i, word in enumerate(_GE_TYPES) if i == number[0]}
    return frozenset(found - {""})


def _text(file: DicomFile, tag: Tag, own: Elements, shared: Elements) -> str:
    """Text of an element: of the frame, of all frames, or of the file."""
    for part in (own, shared):
        for item in file.sequence(_MACROS[tag], part):
            if found := file.text(tag, item):
                return found
    return file.text(tag)


def _numbers(file: DicomFile, tag: Tag, own: Elements, shared: Elements) -> list[float]:
    """Numbers of an element: of the frame, of all frames, or of the file."""
    if tag in _MACROS:
        for part in (own, shared):
            for item in file.sequence(_MACROS[tag], part):
                if found := file.numbers(tag, item):
                    return found
    return file.numbers(tag)


def scale_of(frame: Frame, quantitative: bool) -> tuple[float, float]:
    """Return slope and intercept of a frame; Philips' private slope leads from display to measured values."""
    per_frame, shared = frame.file.sequence(_PER_FRAME), (frame.file.sequence(_SHARED) or ({},))[0]
    own = per_frame[frame.number] if per_frame else {}
    slope = (_numbers(frame.file, _SLOPE, own, shared) or [1.0])[0]
    intercept = (_numbers(frame.file, _INTERCEPT, own, shared) or [0.0])[0]
    private = _philips_slope(frame.file, own) if quantitative else None
    divisor = slope * private if private and slope else 1.0
    return slope / divisor, intercept / divisor


def _philips_slope(file: DicomFile, own: Elements) -> float | None:
    for item in (*file.sequence((0x2005, 0x140F), own), own, None):
        if found := file.numbers(_PHILIPS_SLOPE, item):
            return found[0]
    return None


def stored_values(file: DicomFile) -> np.ndarray:
    """Return the stored numbers (frame, row, column) of a file.

    Raises:
        ValueError: The file has no pixels, is cut off, or its pixels are coloured or of an unknown kind.
    """
    rows, columns = (int((file.numbers(tag) or [0])[0]) for tag in ((0x0028, 0x0010), (0x0028, 0x0011)))
    frames = frame_count(file)
    if file.pixels is None or min(rows, columns, frames) < 1:
        raise ValueError(f"'{file.path}' has no image")
    if (file.numbers((0x0028, 0x0002)) or [1.0])[0] != 1:
        raise ValueError(f"'{file.path}' is a coloured picture, not a measured image: export the grey values")
    order = file.plain_byte_order
    _, start, length = file.pixels
    if order is None or length is None:
        return _decompressed(file, (frames, rows, columns))
    dtype = _pixel_type(file, order)
    expected = frames * rows * columns * dtype.itemsize
    if length < expected:
        raise ValueError(f"'{file.path}' is cut off: its pixels have {length} bytes instead of {expected}")
    content = file.path.read_bytes()[start : start + expected]
    return np.frombuffer(content, dtype).reshape(frames, rows, columns)


def _pixel_type(file: DicomFile, order: str) -> np.dtype:
    assert file.pixels is not None
    if file.pixels[0] != (0x7FE0, 0x0010):
        return np.dtype(order + ("f4" if file.pixels[0] == (0x7FE0, 0x0008) else "f8"))
    bits = int((file.numbers((0x0028, 0x0100)) or [0])[0])
    if bits not in _WORDS:
        raise ValueError(f"'{file.path}' has {bits} bits a voxel, which is not supported")
    signed = (file.numbers((0x0028, 0x0103)) or [0.0])[0] == 1
    return np.dtype(order + ("i" if signed else "u") + _WORDS[bits])


def _decompressed(file: DicomFile, shape: tuple[int, int, int]) -> np.ndarray:
    assert file.pixels is not None
    content = file.path.read_bytes()
    start = file.pixels[1]
    with tempfile.TemporaryDirectory() as folder:
        unscaled = Path(folder) / "unscaled.dcm"
        unscaled.write_bytes(_without_rescaling(content[:start]) + content[start:])
        array = _read_by_itk(unscaled, file.path)
    if array.size != np.prod(shape):
        raise ValueError(f"'{file.path}': its compressed pixels do not have the announced size")
    return array.reshape(shape)


def _without_rescaling(elements: bytes) -> bytes:
    """The elements of a compressed file with slopes of 1 and intercepts of 0, of the same length.

    Which of them SimpleITK applies depends on the kind of the file, on whether frames differ, and on what it has read
    or written before.
    """
    changed = bytearray(elements)
    for (group, number), kind, value in _RESCALING:
        head = struct.pack("<HH", group, number) + kind
        place = changed.find(head)
        while place >= 0:
            start = place + len(head) + 2
            length = int.from_bytes(changed[start - 2 : start], "little")
            changed[start : start + length] = value.ljust(length)[:length]
            place = changed.find(head, start + length)
    return bytes(changed)


def _read_by_itk(path: Path, shown: Path) -> np.ndarray:
    import SimpleITK as sitk

    try:
        return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    except RuntimeError:
        raise ValueError(f"'{shown}': its compressed pixels cannot be read; export it uncompressed") from None
