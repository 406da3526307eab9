"""The manifest of a cohort: a CSV file with a line per study, which is one visit of a subject.

Columns: ``subject``, ``visit``, the modalities ``t1``, ``t1ce``, ``t2``, ``flair``, then ``label`` (tumour classes),
``mask`` (brain), ``landmarks`` (points), ``split`` (train, val, test) and ``convention`` (what the numbers of the label
file mean, see ``images.label_conventions``; empty to recognize it). Only ``subject`` and one modality are needed.
Tasks on single studies have further columns, see ``read_manifest``. Paths are relative to the manifest; an empty field
or ``-`` means that there is no such file. ``FILE#2`` is the third channel, as they are counted from 0, of a
four-dimensional file. The visits of a subject are in the order of the file.
"""

from __future__ import annotations

import csv
import io
import os
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from NeuroCESTLib.core.checked_json import check_one_line_a_row, read_bytes
from NeuroCESTLib.core.whole_files import csv_text

from ..images.label_conventions import declared_convention
from ..images.modalities import FREESURFER_ENDINGS, IMAGE_ENDINGS, MODALITIES, SYNONYMS
from ..images.reading import file_of
from .consistency import contradictions, warn_of_misplaced, warn_of_shared
from .studies import SPLITS, Cohort, StudyRecord

FILE_COLUMNS = (*MODALITIES, "label", "mask", "landmarks")
CONVENTION = "convention"
_LONGEST = 16 << 20
"""Bytes of the longest manifest that is read."""
COLUMNS = ("subject", "visit", *FILE_COLUMNS, "split", CONVENTION)
_SPLIT_SYNONYMS = {"training": "train", "validation": "val", "valid": "val", "testing": "test", "": "train"}
_SPLIT_NAMES = (*SPLITS, *_SPLIT_SYNONYMS)
_COLUMN_SYNONYMS = {word: column for column, words in SYNONYMS.items() for word in words} | {
    "subjectid": "subject",
    "patient": "subject",
    "session": "visit",
    "timepoint": "visit",
    "labelconvention": CONVENTION,
}
_OTHER_TASKS = ("tissue",)
"""Columns of images that other tasks use."""
_IMAGE_ENDINGS = (*IMAGE_ENDINGS, *FREESURFER_ENDINGS, ".img")
_ALIKE = 0.75
"""Likeness to the name of a known column from which an unknown one may be a slip."""
_MOST_TOLD = 20
"""Problems of a manifest that a message lists."""


def read_manifest(path: str | os.PathLike, targets: Mapping[str, str] | None = None) -> Cohort:
    """Read the cohort of a CSV manifest.

    Args:
        path: Manifest; fields may be separated by commas, semicolons or tabs.
        targets: Further columns that tasks need, as ``file`` (a path), ``number`` or ``text``; upper and lower case do
            not matter.

    Returns:
        The cohort, whose paths include the folder of the manifest.

    Raises:
        ValueError: The file is unreadable or has no usable header. Studies that occur twice, unknown splits, subjects
            or images in two splits, studies without an image and missing files are named in one message, with their
            lines.
    """
    path = Path(path)
    rows = _rows(path)
    targets = dict(targets or {})
    columns = _columns(rows, path, targets)
    problems: list[str] = []
    missing: list[str] = []
    studies: list[StudyRecord] = []
    for line, fields in rows[1:]:
        if len(fields) > len(columns) and any(field.strip() for field in fields[len(columns) :]):
            problems.append(f"line {line} has {len(fields)} fields for {len(columns)} columns")
            continue
        values = {name: field.strip() for name, field in zip(columns, fields, strict=False) if name is not None}
        study = _study(values, path.parent, line, problems, targets)
        if study is not None:
            studies.append(study)
            missing += [f"{file} (line {line}, {column})" for column, file in study.files.items() if not _exists(file)]
    problems += contradictions(studies)
    if missing:
        count = f"{len(missing)} files that do not exist" if len(missing) > 1 else "a file that does not exist"
        problems.append(f"it names {count}: {', '.join(missing)}")
    if not studies and not problems:
        problems.append("it has a header but no study")
    if problems:
        more = f"; and {len(problems) - _MOST_TOLD} more" if len(problems) > _MOST_TOLD else ""
        raise ValueError(f"the manifest '{path}' cannot be used: {'; '.join(problems[:_MOST_TOLD])}{more}")
    warn_of_misplaced(studies, path)
    warn_of_shared(studies, path)
    return Cohort(str(path), tuple(studies))


def manifest_text(cohort: Cohort, folder: str | os.PathLike) -> str:
    """Write a cohort as the text of a manifest.

    Args:
        cohort: Studies to write.
        folder: Folder that the manifest is meant for; paths are relative to it where they share a root with it.

    Returns:
        CSV text; it has the column ``convention`` only where a study declares one.
    """
    rows = []
    further = list(dict.fromkeys(c for study in cohort.studies for c in (*study.target_files, *study.target_values)))
    for study in cohort.studies:
        files = {column: _relative(file, Path(folder)) for column, file in study.files.items()}
        targets = [files.get(column, study.target_values.get(column, "")) for column in further]
        rows.append(
            [
                study.subject,
                study.visit,
                *(files.get(c, "") for c in FILE_COLUMNS),
                study.split,
                *targets,
                study.convention,
            ]
        )
    columns = (*COLUMNS[:-1], *further)
    if any(study.convention for study in cohort.studies):
        return csv_text((*columns, CONVENTION), rows)
    return csv_text(columns, [row[:-1] for row in rows])


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Non-empty lines as (line number, fields); the delimiter is whichever the header has most of."""
    if not path.is_file():
        raise ValueError(f"'{path}' is a folder" if path.is_dir() else f"the manifest '{path}' does not exist")
    try:
        text = read_bytes(path, _LONGEST).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"the manifest '{path}' is not a text file in UTF-8: save it as CSV (UTF-8)") from None
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.replace("\t", " ").isprintable():
            raise ValueError(f"the manifest '{path}' is not a CSV file: line {number} holds control characters")
    header = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    try:
        rows = [(reader.line_num, fields) for fields in reader if any(field.strip() for field in fields)]
    except csv.Error as error:
        raise ValueError(f"the manifest '{path}' is not a CSV file: {error}") from None
    check_one_line_a_row(rows, f"the manifest '{path}'")
    if not rows:
        raise ValueError(f"the manifest '{path}' is empty")
    return rows


def _exists(file: Path) -> bool:
    """Whether a file exists; none does whose name the file system refuses."""
    try:
        return file_of(file).is_file()
    except (OSError, ValueError):
        return False


def _columns(rows: list[tuple[int, list[str]]], path: Path, targets: Mapping[str, str]) -> list[str | None]:
    """Column names by position; None for unknown ones.

    A warning names those that may be meant to be known ones: their names resemble them, or they hold images or splits.
    Others may be the targets of a task that is not asked for.
    """
    header = rows[0][1]
    known: list[str | None] = []
    foreign = []
    splits = []
    by_word = {re.sub(r"[^a-z0-9]", "", column.lower()): column for column in targets}
    for title in header:
        word = re.sub(r"[^a-z0-9]", "", title.lower())
        name = by_word.get(word) or (word if word in COLUMNS else _COLUMN_SYNONYMS.get(word))
        known.append(name)
        if name is None and word and word not in _OTHER_TASKS:
            fields = [fields[len(known) - 1].strip() for _, fields in rows[1:] if len(fields) >= len(known)]
            holds_images = any(field.lower().endswith(_IMAGE_ENDINGS) for field in fields)
            if holds_images or get_close_matches(word, (*COLUMNS, *_COLUMN_SYNONYMS), 1, _ALIKE):
                foreign.append(title.strip())
            elif any(fields) and all(field.lower() in _SPLIT_NAMES for field in fields):
                splits.append(title.strip())
    twice = [name for name, count in Counter(known).items() if name and count > 1]
    needed = f"the columns are {', '.join(COLUMNS)}"
    if twice:
        raise ValueError(f"the manifest '{path}' has more than one column for {', '.join(twice)}; {needed}")
    if "subject" not in known:
        raise ValueError(f"the manifest '{path}' has no column 'subject' in its first line; {needed}")
    if not any(modality in known for modality in MODALITIES):
        raise ValueError(f"the manifest '{path}' has no column for an image; {needed}")
    if absent := [column for column in targets if column not in known]:
        titles = ", ".join(title.strip() for title in header if title.strip())
        raise ValueError(
            f"the manifest '{path}' has no column '{absent[0]}', which the tasks need; its columns are {titles}"
        )
    if foreign:
        warnings.warn(f"'{path}': unknown columns {', '.join(foreign)} are ignored; {needed}", stacklevel=3)
    if splits and "split" not in known:
        warnings.warn(
            f"'{path}': the column '{splits[0]}' holds names of splits but is ignored, and all studies are in the "
            "split 'train': rename it to 'split', or remove it",
            stacklevel=3,
        )
    return known


def _study(
    values: dict[str, str], folder: Path, line: int, problems: list[str], targets: Mapping[str, str]
) -> StudyRecord | None:
    """The study of one line; its mistakes are added to ``problems``."""
    target_files = [column for column, kind in targets.items() if kind == "file"]
    files = {
        column: folder / os.path.expanduser(values[column])
        for column in (*FILE_COLUMNS, *target_files)
        if values.get(column) not in (None, "", "-")
    }
    split = values.get("split", "").lower()
    split = _SPLIT_SYNONYMS.get(split, split)
    subject, visit = values.get("subject", ""), values.get("visit", "")
    wrong = []
    if not subject:
        wrong.append(f"line {line} has no subject")
    convention = values.get(CONVENTION, "").removeprefix("-")
    if convention:
        try:
            declared_convention(convention, f"line {line}: {CONVENTION}")
        except ValueError as error:
            wrong.append(str(error))
    if split not in SPLITS:
        wrong.append(f"line {line} has the unknown split '{split}', use {', '.join(SPLITS)}")
    images = {modality: files[modality] for modality in MODALITIES if modality in files}
    if not images:
        wrong.append(f"line {line} ({subject} {visit}) has no image of any modality")
    for file, count in Counter(files.values()).items():
        if count > 1:
            columns = " and ".join(column for column in files if files[column] == file)
            wrong.append(f"line {line} names '{file}' for {columns}")
    problems += wrong
    if wrong:
        return None
    label, mask, landmarks = (files.get(column) for column in ("label", "mask", "landmarks"))
    return StudyRecord(
        subject,
        visit,
        images,
        label,
        mask,
        landmarks,
        split,
        convention,
        {column: files[column] for column in target_files if column in files},
        {column: values.get(column, "") for column, kind in targets.items() if kind != "file"},
    )


def _relative(file: Path, folder: Path) -> str:
    """Path of a file relative to a folder; absolute where they share nothing but the root."""
    file, folder = Path(os.path.abspath(file)), Path(os.path.abspath(folder))
    shared = os.path.commonpath((file, folder)) if file.anchor == folder.anchor else file.anchor
    return str(file) if shared == file.anchor else os.path.relpath(file, folder)
