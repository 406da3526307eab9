"""Prepared studies on disk: a file per study, read through a memory map, rebuilt when it is out of date.

A file depends on the settings of the preparation, whose fingerprint names its folder, and on the input files, which
are compared by column and channel, by size and time and, where times differ, by checksum. Files are written whole or
not at all, so that several processes may share a cache and an interrupted one leaves no partial file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from pathlib import Path
from typing import Any, TypedDict, cast

from torch import Tensor

from NeuroCESTLib.core.headers.parts import files_of_image, image_checksum
from NeuroCESTLib.core.stored_values import Numbers, check_stored
from NeuroCESTLib.core.tensor_files import load_tensors, save_tensors
from NeuroCESTLib.core.whole_files import write_text

from ..images.reading import file_of
from .preparation import StudyPreparer
from .sample import StudySample
from .sampling import class_counts

VERSION = 4
"""To be raised when the preparation itself changes, so that older caches are rebuilt."""


class _Stamp(TypedDict):
    """An input file as it was when the study was prepared, with what it was taken for; time in ns."""

    column: str
    path: str
    channel: str
    size: int
    time: int
    sha256: str


class _Entry(TypedDict):
    """Content of a cache file."""

    images: Tensor
    labels: Tensor | None
    mask: Tensor
    counts: Tensor | None
    notes: list[str]
    inputs: list[_Stamp]


_ENTRY_FORM = {
    "images": Numbers("f", 4),
    "labels": (Numbers("iu", 3), None),
    "mask": Numbers("b", 3),
    "counts": (Numbers("if", 1), None),
    "notes": [str],
    "inputs": [{"column": str, "path": str, "channel": str, "size": int, "time": int, "sha256": str}],
}
"""Form of a cache file, see ``stored_values``."""


class StudyCache:
    """Samples of a preparer, stored in a folder; ``cache[i]`` prepares a study that is not stored yet.

    What the preparation warned of is stored too, and told whenever the cache is used again.
    """

    def __init__(self, preparer: StudyPreparer, folder: str | os.PathLike) -> None:
        """Open the cache.

        Args:
            preparer: Prepares the studies that are missing or out of date.
            folder: Folder for the caches of all settings; made for the first study that is stored.
        """
        self.preparer = preparer
        self._settings = json.dumps({"version": VERSION, **preparer.config.to_dict()}, sort_keys=True)
        self.folder = Path(folder) / hashlib.sha256(self._settings.encode()).hexdigest()[:12]
        self._checked: set[int] = set()
        self._told: set[str] = set()

    def __len__(self) -> int:
        return len(self.preparer)

    def __getitem__(self, index: int) -> StudySample:
        """Return a study whose tensors are mapped from the file, so that only what is used is read.

        Raises:
            ValueError: The study cannot be used, or the folder cannot be written to.
        """
        entry = self._load(index)
        name = self.preparer.cohort.studies[index].name
        background = self.preparer.config.preprocessing.background
        return StudySample(entry["images"], entry["labels"], entry["mask"], name, background)

    def counts(self, index: int) -> Tensor | None:
        """Return the voxels (4,) of each class in the brain of a study; None for a study without labels."""
        return self._load(index)["counts"]

    def path(self, index: int) -> Path:
        """Return the file of a study."""
        study = self.preparer.cohort.studies[index]
        # Names may differ in characters that file names cannot contain, and labels in what their numbers mean.
        digest = hashlib.sha256(repr((study.subject, study.visit, study.convention)).encode()).hexdigest()[:8]
        return self.folder / f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', study.name)[:80]}-{digest}.pt"

    def is_current(self, index: int) -> bool:
        """Check that the file of a study exists and belongs to the input files as they are now."""
        entry = _read(self.path(index))
        return entry is not None and _same_inputs(entry["inputs"], self.preparer.inputs(index))

    def _load(self, index: int) -> _Entry:
        entry = _read(self.path(index))
        # Inputs are compared once: files that change during a training would make it irreproducible anyway.
        if entry is None or not (index in self._checked or _same_inputs(entry["inputs"], self.preparer.inputs(index))):
            self._build(index)
            entry = _read(self.path(index))
            if entry is None:
                raise ValueError(f"the cache file '{self.path(index)}' cannot be read right after it was written")
        if index not in self._checked:
            self._tell(entry["notes"])
        self._checked.add(index)
        return entry

    def _tell(self, notes: list[str]) -> None:
        for note in notes:
            if note not in self._told:
                warnings.warn(note, stacklevel=4)
        self._told.update(notes)

    def _build(self, index: int) -> None:
        inputs = [_stamp(*each) for each in self.preparer.inputs(index)]  # before reading, so that later changes show
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            sample = self.preparer(index)
        for each in caught:
            if each.category is not UserWarning:
                warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
        self._make_folder()
        entry: _Entry = {
            "images": sample.images.contiguous(),
            "labels": sample.labels,
            "mask": sample.mask,
            "counts": None if sample.labels is None else class_counts(sample.labels, sample.mask),
            "notes": list(dict.fromkeys(str(each.message) for each in caught if each.category is UserWarning)),
            "inputs": inputs,
        }
        save_tensors(entry, self.path(index))

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"cannot use '{self.folder.parent}' as cache: {error.strerror}; choose another folder"
            ) from None
        write_text(self._settings + "\n", self.folder / "settings.json")


def _read(path: Path) -> _Entry | None:
    """Content of a cache file, its tensors memory-mapped; None where it is missing, damaged or something else."""
    try:
        values: dict[str, Any] = load_tensors(path, "cached study", mapped=True)
        check_stored(values, _ENTRY_FORM, str(path))
    except ValueError:
        return None
    return cast(_Entry, values)


def _stamp(column: str, path: Path) -> _Stamp:
    file = file_of(path)
    size, time = _size_and_time(file)
    return {
        "column": column,
        "path": str(file),
        "channel": _channel(path),
        "size": size,
        "time": time,
        "sha256": image_checksum(file),
    }


def _size_and_time(file: Path) -> tuple[int, int]:
    """Size in bytes and time of the latest change in ns of an image, which may be a header with its data."""
    states = [part.stat() for part in files_of_image(file)]
    return sum(state.st_size for state in states), max(state.st_mtime_ns for state in states)


def _channel(path: Path) -> str:
    """The part of a path that names a channel (``#2``); empty where it names a file."""
    return str(path).removeprefix(str(file_of(path)))


def _same_inputs(stamps: list[_Stamp], inputs: list[tuple[str, Path]]) -> bool:
    """Whether the same is read from files that have the size and time of their stamps, or at least the same content."""
    if len(stamps) != len(inputs):
        return False
    for stamp, (column, path) in zip(stamps, inputs, strict=True):
        if (stamp["column"], stamp["channel"]) != (column, _channel(path)):
            return False
        file = file_of(path)
        try:
            size, time = _size_and_time(file)
        except OSError:
            return False
        if size != stamp["size"]:
            return False
        touched = str(file) != stamp["path"] or time != stamp["time"]
        if touched and image_checksum(file) != stamp["sha256"]:
            return False
    return True
