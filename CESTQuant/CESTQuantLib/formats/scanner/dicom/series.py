"""Series of DICOM files: which there are in a folder, and which of them is meant."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from NeuroCESTLib.core.headers.dicom import is_dicom
from NeuroCESTLib.core.headers.dicom_elements import DicomFile, first_text, read_elements
from NeuroCESTLib.core.headers.dicom_frames import frame_count

from .selection import without_copies

_SERIES, _NUMBER = (0x0020, 0x000E), (0x0020, 0x0011)
_NAMES = ((0x0008, 0x103E), (0x0018, 0x1030))
_MANUFACTURER = (0x0008, 0x0070)
_CEST = re.compile(r"cest|apt|wasab|wassr|z[-_ ]?spec", re.IGNORECASE)


@dataclass(frozen=True)
class Series:
    """Files of a series.

    Attributes:
        number: Number of the series.
        name: Its description.
        manufacturer: Manufacturer of the scanner.
        files: Its files.
        frames: Number of images.
        numbers: Numbers of the series that it was joined from; empty for a single one.
        copies: Files that were left out because they repeat others, each with the one that it repeats.
    """

    number: str
    name: str
    manufacturer: str
    files: tuple[DicomFile, ...]
    frames: int
    numbers: tuple[str, ...] = ()
    copies: tuple[tuple[DicomFile, DicomFile], ...] = ()

    def description(self) -> str:
        """Return number, name, manufacturer and number of images in words."""
        scanner = self.manufacturer or "unknown scanner"
        return f"{self.number}: {self.name or 'without name'} ({scanner}, {self.frames} images)"

    def is_called_cest(self) -> bool:
        """Whether its name says that it is a CEST, WASABI or WASSR acquisition."""
        return _CEST.search(self.name) is not None


def has_dicom(source: str | Path) -> bool:
    """Whether a file is a DICOM file, or a folder holds one."""
    return next(dicom_files(Path(source)), None) is not None


def dicom_files(source: Path) -> Iterator[Path]:
    """Iterate over the DICOM files in a folder and below it, or over a single one, without a DICOMDIR."""
    candidates = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
    return (path for path in candidates if path.name != "DICOMDIR" and is_dicom(path))


def series_in(source: str | Path) -> list[Series]:
    """Return the series of images in a folder, by their numbers.

    Raises:
        ValueError: A file is damaged; the message names it.
    """
    found: dict[str, list[DicomFile]] = {}
    for path in dicom_files(Path(source)):
        file = read_elements(path)
        if file.pixels is not None:
            found.setdefault(file.text(_SERIES), []).append(file)
    series = [_series(files) for files in found.values()]
    return sorted(series, key=lambda one: (float(one.number) if one.number.isdecimal() else np.inf, one.name))


def _series(files: list[DicomFile]) -> Series:
    first = files[0]
    files, copies = without_copies(files)
    frames = sum(map(frame_count, files))
    name = first_text(first, *_NAMES)
    return Series(first.text(_NUMBER), name, first.text(_MANUFACTURER), tuple(files), frames, copies=tuple(copies))


def choose_series(source: str | Path, scan: str | None) -> tuple[Series, tuple[str, ...]]:
    """Find the series that is meant.

    Args:
        source: Folder or file.
        scan: Number or name of the series, or a range of numbers (``5-35``) of series to join; None for the only one,
            or the only one that is called after CEST.

    Returns:
        The series, and a sentence for the user where it was chosen among others.

    Raises:
        ValueError: There is no such series, or several could be meant; the message lists what is there.
    """
    series = series_in(source)
    if not series:
        raise ValueError(f"'{source}' has no DICOM images")
    listed = "; ".join(one.description() for one in series)
    if scan is not None:
        if joined := _joined(series, scan):
            return joined, (f"{len(joined.numbers)} series are joined in the order of their numbers: {joined.number}",)
        named = [one for one in series if scan in (one.number, one.name)]
        if len(named) == 1:
            return named[0], ()
        if named:
            folders = " and ".join(sorted({f"'{one.files[0].path.parent}'" for one in named}))
            raise ValueError(
                f"'{source}' has {len(named)} series {scan}, as of several examinations: give a folder with only one "
                f"of them instead; they lie in {folders}"
            )
        raise ValueError(f"'{source}' has no series {scan}; its series are {listed}")
    if len(series) == 1:
        return series[0], ()
    candidates = [one for one in series if one.is_called_cest()]
    if len(candidates) == 1:
        return candidates[0], (
            f"series {candidates[0].number} is the only one that is called after CEST among {listed}",
        )
    raise ValueError(f"'{source}' has {len(series)} series; choose one with --scan: {listed}")


def _joined(series: list[Series], scan: str) -> Series | None:
    """The series of a range of numbers, such as ``5-35``, as one; None where ``scan`` is no such range."""
    bounds = re.fullmatch(r"(\d+)-(\d+)", scan)
    if bounds is None:
        return None
    first, last = int(bounds[1]), int(bounds[2])
    inside = [one for one in series if one.number.isdecimal() and first <= int(one.number) <= last]
    if len(inside) < 2:
        return None
    files = tuple(file for one in inside for file in one.files)
    copies = tuple(pair for one in inside for pair in one.copies)
    numbers = tuple(one.number for one in inside)
    frames = sum(one.frames for one in inside)
    return Series(scan, inside[0].name, inside[0].manufacturer, files, frames, numbers, copies)
