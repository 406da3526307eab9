"""Days on which files were acquired, as far as the files tell: sidecars of converted images, and DICOM folders.

Neither NIfTI nor NRRD has a field for it. Tools that remove what identifies a patient often remove the day too, or move
all days of a patient by the same amount, which keeps their order.
"""

from __future__ import annotations

import datetime
import itertools
import json
import re
from pathlib import Path

_SIDECAR_KEYS = ("AcquisitionDateTime", "AcquisitionDate", "SeriesDate", "ContentDate", "StudyDate")
_DICOM_TAGS = (b"\x08\x00\x22\x00", b"\x08\x00\x21\x00", b"\x08\x00\x20\x00")
"""Acquisition, series and study date."""
_DICOM_LENGTHS = (b"DA\x08\x00", b"\x08\x00\x00\x00")
"""What stands between tag and value, with explicit and with implicit types."""
_HEADER_BYTES = 1 << 16
_MOST_FILES = 20
_LARGEST_SIDECAR = 1 << 22
_DAY = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})")


def recorded_day(path: str | Path) -> datetime.date | None:
    """Return the day on which an image was acquired, or None where that is not known.

    Args:
        path: Image file, whose day is in the JSON file of the same name beside it, or folder with DICOM files.
    """
    path = Path(path)
    try:
        if path.is_dir():
            files = (file for file in sorted(path.rglob("*")) if file.is_file())
            days = (_dicom_day(file) for file in itertools.islice(files, _MOST_FILES))
            return next((day for day in days if day is not None), None)
        return _sidecar_day(path)
    except OSError:
        return None


def _sidecar_day(path: Path) -> datetime.date | None:
    sidecar = path.with_name(re.sub(r"(\.nii\.gz|\.[^.]*)$", "", path.name) + ".json")
    if not sidecar.is_file() or sidecar.stat().st_size > _LARGEST_SIDECAR:
        return None
    try:
        content = json.loads(sidecar.read_text(encoding="utf-8"))
    except ValueError:
        return None
    if not isinstance(content, dict):
        return None
    found = (_day(str(content[key])) for key in _SIDECAR_KEYS if key in content)
    return next((day for day in found if day is not None), None)


def _dicom_day(path: Path) -> datetime.date | None:
    with open(path, "rb") as file:
        header = file.read(_HEADER_BYTES)
    if header[128:132] != b"DICM":
        return None
    for tag in _DICOM_TAGS:
        for length in _DICOM_LENGTHS:
            place = header.find(tag + length)
            if place >= 0:
                start = place + len(tag) + len(length)
                return _day(header[start : start + 8].decode("ascii", errors="replace"))
    return None


def _day(text: str) -> datetime.date | None:
    match = _DAY.match(text.strip())
    try:
        return None if match is None else datetime.date(*(int(part) for part in match.groups()))
    except ValueError:
        return None
