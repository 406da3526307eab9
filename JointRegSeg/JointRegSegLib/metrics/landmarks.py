"""Landmarks: points of a study read from a file, and their error after a registration."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from NeuroCESTLib.core.checked_json import LONGEST_TEXT, read_bytes

LANDMARK_SYSTEMS = ("LPS", "RAS")
_COORDINATES = (("x", "y", "z"), ("l", "p", "s"), ("r", "a", "s"))
_NAME_COLUMNS = ("name", "label", "landmark", "landmarkname", "point", "pointname")
"""Columns that name the points, the most telling one first, without spaces and signs."""
_ID_COLUMNS = ("landmarkid", "pointid", "id")
"""Columns that may name the points instead, or state something else, such as the patient or a number of the file."""
_LAST_NAMED_COLUMN = "associatednodeid"
"""Last column that a ``.fcsv`` file names; the status of the position and the number of measurements follow it."""
_WITHOUT_POSITION = ("0", "1", "3")
"""Status of a point of Slicer that is not placed, is being placed, or is marked as missing; 2 is a placed one."""


@dataclass(frozen=True)
class Landmarks:
    """Points of one study.

    Attributes:
        points: Coordinates (x, y, z) in LPS mm by name; without any name by the number of the row. Points without a
            name are left out where others have one.
        path: File that they were read from, for messages.
        unnamed_rows: Rows of the file, where no point has a name; 0 otherwise.
        by_row: All points by the number of their row, where the names may be no more than numbers of this file.
    """

    points: dict[str, tuple[float, float, float]]
    path: str = ""
    unnamed_rows: int = 0
    by_row: Landmarks | None = None


def read_landmarks(path: str | Path) -> Landmarks:
    """Read points from a CSV file or a Slicer markups table (``.csv``, ``.fcsv``).

    Commas, semicolons or tabs separate the fields, whichever the line with the names of the columns has most of.
    The file needs the columns ``x, y, z`` in mm; a column such as ``name``, ``label``, ``landmark`` or ``point`` names
    the points, or else ``id`` if no value occurs twice; otherwise the points are numbered. A point without a name is
    left out where others have one. Coordinates are LPS unless the columns are called ``r, a, s``
    or a comment line says ``# CoordinateSystem = RAS`` (or ``0``); the columns ``l, p, s`` are LPS. Points of Slicer
    without a position are left out.

    Args:
        path: File to read.

    Returns:
        The points in LPS mm.

    Raises:
        ValueError: The file cannot be read or has no usable points; the message names it.
    """
    header, rows, system = _read_table(path)
    columns = next((names for names in _COORDINATES if set(names) <= set(header)), None)
    if columns is None:
        raise ValueError(f"landmarks '{path}' need the columns x, y, z (LPS mm), or r, a, s (RAS mm)")
    system = {"l": "LPS", "r": "RAS"}.get(columns[0], system)
    if system not in LANDMARK_SYSTEMS:
        raise ValueError(f"landmarks '{path}': the coordinate system '{system}' is unknown; use LPS or RAS")
    points = _points(rows, header, columns, -1 if system == "RAS" else 1, path)
    by_row = Landmarks({str(number): point for number, point in points.items()}, str(path), len(rows))
    names, of_ids = _names(rows, header, points, path)
    if not names:
        return by_row
    named = {name: points[number] for number, name in names.items()}
    if named.keys() == by_row.points.keys():
        return Landmarks(named, str(path), by_row=replace(by_row, points=named))
    return Landmarks(named, str(path), by_row=by_row if of_ids else None)


def landmark_errors(fixed: Landmarks, moving: Landmarks, moving_to_fixed: sitk.Transform | None) -> np.ndarray:
    """Compute the registration error of every landmark that both studies have.

    Landmarks are matched by their names. Where no point of either file has a name, or what a column ``id`` states is
    not the same in both, the numbers of the rows match them, provided that the files have equally many.

    Args:
        fixed: Landmarks of the fixed study.
        moving: Landmarks of the moving study.
        moving_to_fixed: Transform that maps points of the fixed space to the moving space (LPS mm); None for the
            identity, which gives the error before registration.

    Returns:
        Distances (n,) in mm between the mapped fixed landmarks and the moving ones.

    Raises:
        ValueError: The studies have no landmark in common, or landmarks without names that differ in number.
    """
    fixed, moving = _named_alike(fixed, moving)
    if fixed.unnamed_rows != moving.unnamed_rows:
        raise ValueError(
            f"the landmarks of '{fixed.path}' and '{moving.path}' cannot be matched: "
            f"{_rows(fixed)} and {_rows(moving)}; name the points of both in a column 'name'"
        )
    common = [name for name in fixed.points if name in moving.points]
    if not common:
        raise ValueError(f"the landmarks of '{fixed.path}' and '{moving.path}' have no name in common")
    mapped = [
        fixed.points[name] if moving_to_fixed is None else moving_to_fixed.TransformPoint(fixed.points[name])
        for name in common
    ]
    return np.linalg.norm(np.array(mapped) - np.array([moving.points[name] for name in common]), axis=1)


def points_outside(landmarks: Landmarks, image: sitk.Image) -> int:
    """Count the landmarks that lie outside of the grid of an image."""
    indices = np.array([image.TransformPhysicalPointToContinuousIndex(p) for p in landmarks.points.values()])
    return int(((indices < -0.5) | (indices > np.array(image.GetSize()) - 0.5)).any(axis=1).sum())


def _named_alike(fixed: Landmarks, moving: Landmarks) -> tuple[Landmarks, Landmarks]:
    """The landmarks by the rows of the files, if the names match none and both files can be matched by their rows."""
    if not (fixed.unnamed_rows or moving.unnamed_rows) and fixed.points.keys() & moving.points.keys():
        return fixed, moving
    one, two = (each if each.unnamed_rows else each.by_row for each in (fixed, moving))
    return (one, two) if one and two and one.unnamed_rows == two.unnamed_rows else (fixed, moving)


def _rows(landmarks: Landmarks) -> str:
    count = landmarks.unnamed_rows
    return f"{count} rows without names" if count else f"{len(landmarks.points)} points with names"


def _read_table(path: str | Path) -> tuple[list[str], list[list[str]], str]:
    """Column names in lower case, rows of fields, and the coordinate system that comments state (LPS by default)."""
    try:
        lines = read_bytes(path, LONGEST_TEXT).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"landmarks '{path}' are not a text file in UTF-8: save them as CSV (UTF-8)") from None
    system, columns, data = "LPS", None, []
    for line in lines:
        if line.startswith("#"):
            key, _, value = line.lstrip("# ").partition("=")
            if key.strip().lower() == "coordinatesystem":
                system = {"0": "RAS", "1": "LPS"}.get(value.strip(), value.strip().upper())
            elif key.strip().lower() == "columns":
                columns = value
        elif line.strip():
            data.append(line)
    if columns is None:
        columns = data.pop(0) if data else ""
    delimiter = max(",;\t", key=columns.count)
    header, *rows = csv.reader([columns, *data], delimiter=delimiter)
    return [name.strip().lower() for name in header], rows, system


def _points(
    rows: list[list[str]], header: list[str], columns: tuple[str, ...], sign: int, path: str | Path
) -> dict[int, tuple[float, float, float]]:
    """Points by the number of their row, from 1; ``sign`` is -1 to turn RAS into LPS."""
    positions = [header.index(name) for name in columns]
    points = {}
    for number, row in enumerate(rows, start=1):
        if not _placed(row, header):
            continue
        try:
            x, y, z = (float(row[position]) for position in positions)
        except (ValueError, IndexError):
            raise ValueError(
                f"landmarks '{path}': row {number} does not have three numbers in {', '.join(columns)}"
            ) from None
        if not np.isfinite([x, y, z]).all():
            raise ValueError(f"landmarks '{path}': row {number} is not finite")
        points[number] = (sign * x, sign * y, z)
    if not points:
        raise ValueError(f"landmarks '{path}' contain no point")
    return points


def _names(
    rows: list[list[str]], header: list[str], numbers: Iterable[int], path: str | Path
) -> tuple[dict[int, str], bool]:
    """Names that points have by the number of their row, and whether they come from a column such as ``id``."""
    words = [re.sub(r"[^a-z0-9]", "", name) for name in header]
    naming = next((column for column in _NAME_COLUMNS if column in words), None)
    for column in _ID_COLUMNS if naming is None else (naming,):
        if column not in words:
            continue
        place = words.index(column)
        texts = {number: "".join(rows[number - 1][place : place + 1]).strip() for number in numbers}
        names = {number: text for number, text in texts.items() if text}
        twice = next((name for name, count in Counter(names.values()).items() if count > 1), None)
        if twice is None:
            return names, naming is None
        if naming is not None:
            raise ValueError(f"landmarks '{path}': the name '{twice}' occurs twice")
    return {}, False


def _placed(row: list[str], header: list[str]) -> bool:
    """Whether a point has a position; Slicer writes coordinates for the others too."""
    if "defined" in header:
        place = header.index("defined")
        return place >= len(row) or row[place].strip() != "0"
    if header[-1] == _LAST_NAMED_COLUMN and len(row) == len(header) + 2:
        return row[-2].strip() not in _WITHOUT_POSITION
    return True
