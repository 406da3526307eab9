"""The manifest of ``neurocest run``: a CSV file with a line per visit, and the settings that hold for all of them.

Every mistake in either is found before anything starts, and all are named at once.
"""

from __future__ import annotations

import csv
import datetime
import difflib
import io
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from NeuroCESTLib.core.checked_json import check_one_line_a_row, read_json, read_text
from NeuroCESTLib.core.headers.limits import quoted

from .file_dates import recorded_day

MODALITIES = ("t1", "t1ce", "t2", "flair")
FILE_COLUMNS = {
    **{
        name: f"{title} image"
        for name, title in zip(MODALITIES, ("T1", "T1 with contrast", "T2", "FLAIR"), strict=True)
    },
    "brain_mask": "brain on the grid of the structural images",
    "segmentation": "tumour compartments, instead of the network's",
    "cest": "CEST acquisition: image file, or folder of scanner files",
    "protocol": "protocol of the CEST acquisition",
    "m0": "M0 image",
    "cest_mask": "mask on the CEST grid",
    "b0": "B0 shift in ppm",
    "b1": "relative B1",
    "t1_map": "water T1 in s",
    "wasabi": "WASABI acquisition, for B0 and B1 maps",
    "wasabi_protocol": "its protocol",
    "wassr": "WASSR acquisition, for a B0 map",
    "wassr_protocol": "its protocol",
    "to_anatomy": "transform that moves the CEST images onto the anatomy, instead of a registration",
}
"""Columns that name files, with what they hold."""
COLUMNS = ("subject", "visit", *FILE_COLUMNS)
DATE = "date"
"""Attribute with the day of a visit, by which their order is checked."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MOST_PROBLEMS = 50


@dataclass(frozen=True)
class Visit:
    """One line of the manifest.

    Attributes:
        subject: Name of the subject.
        name: Name of the visit.
        files: Absolute path of each file by column.
        attributes: Values of all other columns, such as ``group``.
    """

    subject: str
    name: str
    files: Mapping[str, str]
    attributes: Mapping[str, str]

    @property
    def has_cest(self) -> bool:
        """Whether there is a CEST acquisition."""
        return "cest" in self.files


@dataclass(frozen=True)
class Settings:
    """What holds for all visits of a cohort.

    Attributes:
        method: Method of ``cestquant fit``.
        model: Absolute path of the tissue model of that method; empty for none.
        register: Whether CEST and structural images are registered; otherwise the scanner's coordinates count.
        fit: Further arguments of ``cestquant fit``.
        fields: Further arguments of ``cestquant wasabi`` and ``wassr``.
        registration: Further arguments of ``jointregseg apply``.
        segmentation: Further arguments of ``jointregseg segment``.
        compartments: Further arguments of ``cestquant compartments``.
        anonymous: Whether the commands leave paths and names out of what they write; an argument of ``neurocest run``
            and no key of the file.
    """

    method: str = "lorentzian"
    model: str = ""
    register: bool = True
    fit: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    registration: tuple[str, ...] = ()
    segmentation: tuple[str, ...] = ()
    compartments: tuple[str, ...] = ()
    anonymous: bool = False


@dataclass(frozen=True)
class CohortManifest:
    """The visits of a cohort.

    Attributes:
        source: The manifest.
        visits: Visits in the order of the file.
        attributes: Names of the columns that are neither names nor files.
    """

    source: str
    visits: tuple[Visit, ...]
    attributes: tuple[str, ...] = field(default=())

    def subjects(self) -> dict[str, list[Visit]]:
        """Group the visits by subject; both are in the order of the manifest."""
        found: dict[str, list[Visit]] = {}
        for visit in self.visits:
            found.setdefault(visit.subject, []).append(visit)
        return found


def read_cohort(path: str | os.PathLike) -> CohortManifest:
    """Read the manifest of a cohort.

    Args:
        path: CSV file whose fields are separated by commas, semicolons or tabs. Columns: ``subject``, ``visit``, those
            of ``FILE_COLUMNS``, and any others, which are kept as attributes. Paths are relative to the manifest; an
            empty field or ``-`` means that there is no such file. A column ``date`` (year-month-day) must not
            contradict the order of a subject's visits, and neither must the days in sidecars and DICOM headers.

    Returns:
        The visits.

    Raises:
        ValueError: The file is unreadable, or there are mistakes in it; all are named, with their lines.
    """
    path = Path(path)
    header, lines = _table(path)
    problems = _header_problems(header)
    visits = []
    for number, fields in lines:
        if len(fields) > len(header) and any(entry.strip() for entry in fields[len(header) :]):
            problems.append(f"line {number} has {len(fields)} fields for {len(header)} columns")
            continue
        values = {name: entry.strip() for name, entry in zip(header, fields, strict=False)}
        visits.append(_visit(values, path.parent, number, problems))
    if not visits and not problems:
        problems.append("it has a header but no visit")
    if "subject" in header and "visit" in header:
        problems += [*_contradictions(visits), *_wrong_order(visits), *_wrong_order_of_files(visits)]
    if problems:
        shown = problems[:_MOST_PROBLEMS]
        more = f"; and {len(problems) - len(shown)} more" if len(problems) > len(shown) else ""
        many = f"{len(problems)} mistakes: " if len(problems) > 1 else ""
        listed = "".join(letter if letter.isprintable() else "?" for letter in "; ".join(shown))
        raise ValueError(f"the manifest '{path}' cannot be used: {many}{listed}{more}")
    return CohortManifest(str(path), tuple(visits), tuple(name for name in header if name not in COLUMNS))


def read_settings(path: str | os.PathLike | None) -> Settings:
    """Read the settings of a cohort.

    Args:
        path: JSON file with the attributes of ``Settings`` as keys; arguments are lists of texts, and ``model``
            and files among the arguments are relative to the file. None for the defaults.

    Raises:
        ValueError: The file is unreadable or there are mistakes in it; all are named.
    """
    if path is None:
        return Settings()
    path = Path(path)
    values = read_json(path)
    known = [name for name in Settings.__dataclass_fields__ if name != "anonymous"]
    if not isinstance(values, Mapping):
        raise ValueError(f"{path}: must be an object with the keys {', '.join(known)}")
    problems = [f"the key {quoted(str(key))} is unknown{_meant(str(key), known)}" for key in values if key not in known]
    checked: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            continue
        usual = getattr(Settings(), key)
        if isinstance(usual, tuple):
            fits = isinstance(value, list) and all(isinstance(entry, str) for entry in value)
            checked[key] = tuple(_beside(path, entry) for entry in value) if fits else ()
            wanted = "a list of texts"
        else:
            fits = isinstance(value, type(usual))
            checked[key] = value
            wanted = "true or false" if isinstance(usual, bool) else "a text"
        if not fits:
            problems.append(f"{key} must be {wanted}")
    if model := checked.get("model"):
        checked["model"] = str(Path(os.path.abspath(path)).parent / str(model))
        if not Path(checked["model"]).is_file():
            problems.append(f"model names {quoted(str(model), 200)}, which does not exist")
    if problems:
        raise ValueError(f"the settings '{path}' cannot be used: {'; '.join(problems)}; keys are {', '.join(known)}")
    return Settings(**checked)


def _beside(settings: Path, argument: str) -> str:
    """An argument, as an absolute path where it names a file beside the settings (also as ``--option=FILE``)."""
    option, equals, name = argument.rpartition("=") if argument.startswith("--") else ("", "", argument)
    file = Path(os.path.abspath(settings)).parent / name
    try:
        return f"{option}{equals}{file}" if name and file.is_file() else argument
    except (OSError, ValueError):
        return argument


def _table(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Column names and the lines with their numbers; the delimiter is whichever the header has most of."""
    if path.is_dir():
        raise ValueError(f"'{path}' is a folder: name the manifest, a CSV file")
    text = read_text(path, "name the manifest, a CSV file with the columns subject, visit and the files")
    first = next((line for line in text.splitlines() if line.strip()), "")
    reader = csv.reader(io.StringIO(text), delimiter=max(",;\t", key=first.count))
    try:
        rows = [(reader.line_num, fields) for fields in reader if any(entry.strip() for entry in fields)]
    except csv.Error as error:
        raise ValueError(f"the manifest '{path}' is not a CSV file: {error}") from None
    check_one_line_a_row(rows, f"the manifest '{path}'")
    if not rows:
        raise ValueError(f"the manifest '{path}' is empty")
    return [name.strip().lower().replace(" ", "_") for name in rows[0][1]], rows[1:]


def _header_problems(header: list[str]) -> list[str]:
    problems = [f"the column {name} is missing" for name in ("subject", "visit") if name not in header]
    problems += [
        f"the column {name} occurs {header.count(name)} times"
        for name in dict.fromkeys(header)
        if name and header.count(name) > 1
    ]
    for name in header:
        # A column of any other name is an attribute, unless it looks like a misspelt one.
        if name and name not in COLUMNS and (meant := _meant(name, COLUMNS)):
            problems.append(f"the column {name} is unknown{meant}")
    if not any(name in header for name in MODALITIES):
        problems.append(f"there is no column for a structural image ({', '.join(MODALITIES)})")
    if "cest" not in header:
        problems.append("there is no column cest")
    return problems


def _meant(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), 1, cutoff=0.8)
    return f" (did you mean {close[0]}?)" if close else ""


def _visit(values: Mapping[str, str], folder: Path, line: int, problems: list[str]) -> Visit:
    """The visit of a line; its mistakes are added to ``problems``."""
    subject, name = values.get("subject", ""), values.get("visit", "")
    where = f"line {line} ({subject} {name})" if subject or name else f"line {line}"
    for what, text in (("subject", subject), ("visit", name)):
        if what in values and not text:
            problems.append(f"line {line} has no {what}")
        elif text and not _NAME.fullmatch(text):
            problems.append(
                f"{where}: the {what} '{text}' cannot be the name of a folder: use letters, digits, '.', '_' and '-'"
            )
    files = {}
    for column in FILE_COLUMNS:
        entry = values.get(column, "")
        if entry in ("", "-"):
            continue
        files[column] = os.path.abspath(folder / os.path.expanduser(entry))
        if not (os.path.isfile(files[column]) or (column == "cest" and os.path.isdir(files[column]))):
            problems.append(f"{where}: {column} names '{entry}', which does not exist")
    problems += [f"{where}: {problem}" for problem in _gaps(files)]
    attributes = {key: entry for key, entry in values.items() if key and key not in COLUMNS}
    return Visit(subject, name, files, attributes)


def _gaps(files: Mapping[str, str]) -> list[str]:
    """What is missing in a visit, or given twice."""
    problems = []
    if not any(name in files for name in MODALITIES):
        problems.append(f"no structural image is given ({', '.join(MODALITIES)})")
    if "cest" in files and "protocol" not in files and not os.path.isdir(files["cest"]):
        problems.append("cest is given without a protocol")
    if "cest" not in files:
        others = ("protocol", "m0", "cest_mask", "b0", "b1", "t1_map", "wasabi", "wassr", "to_anatomy")
        if given := [name for name in others if name in files]:
            problems.append(f"{', '.join(given)} given without cest")
    for name in ("wasabi", "wassr"):
        if name in files and f"{name}_protocol" not in files:
            problems.append(f"{name} is given without {name}_protocol")
        if f"{name}_protocol" in files and name not in files:
            problems.append(f"{name}_protocol is given without {name}")
        if name in files and "b0" in files:
            problems.append(f"both b0 and {name} are given: leave one out")
    if "wasabi" in files and "wassr" in files:
        problems.append("both wasabi and wassr are given: leave one out")
    if "wasabi" in files and "b1" in files:
        problems.append("both b1 and wasabi are given: leave one out")
    images: dict[str, str] = {}
    for name, path in files.items():
        if path in images and not (name.endswith("protocol") and images[path].endswith("protocol")):
            problems.append(f"{images[path]} and {name} are the same file '{path}'")
        images.setdefault(path, name)
    return problems


def _wrong_order(visits: list[Visit]) -> list[str]:
    """Dates that cannot be read, and visits that come before an earlier one of the same subject."""
    problems = []
    latest: dict[str, tuple[datetime.date, str]] = {}
    for visit in visits:
        text = visit.attributes.get(DATE, "")
        if text in ("", "-"):
            continue
        try:
            day = datetime.date.fromisoformat(text)
        except ValueError:
            problems.append(
                f"the {DATE} '{text}' of {visit.subject} {visit.name} is no day: write it as in 2026-03-31, or "
                "leave it out"
            )
            continue
        before = latest.get(visit.subject)
        if before is not None and day < before[0]:
            problems.append(
                f"the visits of {visit.subject} are in the wrong order: {visit.name} ({day}) is listed after "
                f"{before[1]} ({before[0]}), put the earlier one first"
            )
        else:
            latest[visit.subject] = (day, visit.name)
    return problems


def _wrong_order_of_files(visits: list[Visit]) -> list[str]:
    """Files that were acquired before the same file of an earlier visit, as their sidecars or DICOM headers say."""
    problems = []
    latest: dict[tuple[str, str], tuple[datetime.date, Visit]] = {}
    for visit in visits:
        earlier: dict[tuple[str, datetime.date, datetime.date], list[str]] = {}
        for column in (*MODALITIES, "cest"):
            day = recorded_day(visit.files[column]) if column in visit.files else None
            if day is None:
                continue
            before = latest.get((visit.subject, column))
            if before is not None and day < before[0]:
                earlier.setdefault((before[1].name, before[0], day), []).append(column)
            else:
                latest[visit.subject, column] = (day, visit)
        problems += [
            f"the files of {visit.subject} are in the wrong order: {', '.join(columns)} of {visit.name} was acquired "
            f"on {day}, before that of {name} ({first}), as the files say; put the earlier visit first"
            for (name, first, day), columns in earlier.items()
        ]
    return problems


def _contradictions(visits: list[Visit]) -> list[str]:
    """Visits that occur twice, files of two subjects, subjects without CEST."""
    problems = []
    seen: set[tuple[str, str]] = set()
    owners: dict[tuple[str, str], str] = {}
    with_cest = {visit.subject for visit in visits if visit.has_cest}
    for visit in visits:
        key = (visit.subject.lower(), visit.name.lower())  # some file systems do not tell the case
        if all(key) and key in seen:
            problems.append(f"the visit {visit.name} of {visit.subject} occurs more than once")
        seen.add(key)
        for column, path in visit.files.items():
            owner = owners.setdefault((column, path), f"{visit.subject} {visit.name}")
            if owner != f"{visit.subject} {visit.name}" and not column.endswith("protocol"):
                problems.append(f"{owner} and {visit.subject} {visit.name} have the same file for {column}: '{path}'")
    aligned: dict[str, set[bool]] = {}
    for visit in visits:
        if visit.has_cest:
            aligned.setdefault(visit.subject, set()).add("to_anatomy" in visit.files)
    problems += [
        f"{subject} has to_anatomy for some of its visits with cest alone: give it for all or none"
        for subject, given in aligned.items()
        if len(given) > 1
    ]
    for subject in dict.fromkeys(visit.subject for visit in visits if visit.subject):
        if subject not in with_cest:
            problems.append(f"{subject} has no visit with cest")
    return problems
