"""The manifest of ``neurocest run``: a CSV file with a line per visit.

Every mistake in it is found before anything starts, and all are named at once.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Mapping
from pathlib import Path

from NeuroCESTLib.core.checked_json import check_one_line_a_row, read_text
from NeuroCESTLib.core.messages.suggestions import did_you_mean

from .consistency import contradictions, wrong_order, wrong_order_of_files
from .results.rows import CHANGE_COLUMNS, COHORT_COLUMNS
from .visits import FILE_COLUMNS, MODALITIES, CohortManifest, Visit

COLUMNS = ("subject", "visit", *FILE_COLUMNS)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MOST_PROBLEMS = 50


def read_cohort(path: str | os.PathLike) -> CohortManifest:
    """Read the manifest of a cohort.

    Args:
        path: CSV file whose fields are separated by commas, semicolons or tabs. Columns: ``subject``, ``visit``, those
            of ``FILE_COLUMNS``, and any others, which are kept as attributes and must not have the name of a column of
            the results. Paths are relative to the manifest; an empty field or ``-`` means that there is no such file.
            A column ``date`` (year-month-day) must not contradict the order of a subject's visits, and where it is
            empty, neither must the days in sidecars and DICOM headers.

    Returns:
        The visits.

    Raises:
        ValueError: The file is unreadable, or there are mistakes in it; all are named, with their lines.
    """
    path = Path(path)
    header, lines = _table(path)
    problems = _header_problems(header)
    if not {"subject", "visit"} <= set(header):
        lines = []  # the lines of another kind of file say nothing
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
        problems += [*contradictions(visits), *wrong_order(visits), *wrong_order_of_files(visits)]
    if problems:
        shown = problems[:_MOST_PROBLEMS]
        more = f"; and {len(problems) - len(shown)} more" if len(problems) > len(shown) else ""
        many = f"{len(problems)} mistakes: " if len(problems) > 1 else ""
        listed = "".join(letter if letter.isprintable() else "?" for letter in "; ".join(shown))
        raise ValueError(f"the manifest '{path}' cannot be used: {many}{listed}{more}")
    return CohortManifest(str(path), tuple(visits), tuple(name for name in header if name not in COLUMNS))


def _table(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Column names and the lines with their numbers; the delimiter is whichever the header has most of."""
    if path.is_dir():
        raise ValueError(f"'{path}' is a folder: name the manifest, a CSV file")
    text = read_text(path, "name the manifest, a CSV file in UTF-8 with the columns subject, visit and the files")
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
        if name and name not in COLUMNS and (meant := did_you_mean(name, COLUMNS)):
            problems.append(f"the column {name} is unknown{meant}")
    problems += [
        f"the column {name} has the name of a column of the results: rename it"
        for name in dict.fromkeys(header)
        if name in (*COHORT_COLUMNS, *CHANGE_COLUMNS)
    ]
    if not any(name in header for name in MODALITIES):
        problems.append(f"there is no column for a structural image ({', '.join(MODALITIES)})")
    if "cest" not in header:
        problems.append("there is no column cest")
    return problems


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
