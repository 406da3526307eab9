"""Prepared studies kept on disk: one file a study, read through a memory map, rebuilt when it is out of date.

A file belongs to the settings of the preparation (its folder is named by their fingerprint) and to the input files
(their sizes and times, and where times differ their checksums). It is written whole or not at all, so that several
processes may share a cache and an interrupted one leaves nothing half.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from torch import Tensor

from NeuroCESTLib.core.tensor_files import load_tensors, save_tensors

from .preparation import StudyPreparer
from .sample import StudySample
from .sampling import class_counts

VERSION = 1
"""To be raised when the preparation itself changes, so that older caches are rebuilt."""


class StudyCache:
    """Samples of a preparer, kept in a folder; ``cache[i]`` prepares what is not there yet.

    Raises:
        ValueError: the folder cannot be written to.
    """

    def __init__(self, preparer: StudyPreparer, folder: str | os.PathLike) -> None:
        self.preparer = preparer
        settings = json.dumps({"version": VERSION, **preparer.config.to_dict()}, sort_keys=True)
        self.folder = Path(folder) / hashlib.sha256(settings.encode()).hexdigest()[:12]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "settings.json").write_text(settings + "\n", encoding="utf-8")
        except OSError as error:
            raise ValueError(f"cannot use '{folder}' as cache: {error.strerror}; choose another folder") from None
        self._checked: dict[int, bool] = {}

    def __len__(self) -> int:
        return len(self.preparer)

    def __getitem__(self, index: int) -> StudySample:
        """The sample, its tensors mapped from the file: only what is used is read."""
        kept = self._load(index)
        return StudySample(kept["images"], kept["labels"], kept["mask"], self.preparer.cohort.studies[index].name)

    def counts(self, index: int) -> Tensor | None:
        """(4,) voxels of each class in the brain of a study; None where it is not labelled."""
        return self._load(index)["counts"]

    def path(self, index: int) -> Path:
        """The file of a study."""
        name = self.preparer.cohort.studies[index].name
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]  # names may differ in what file names cannot hold
        return self.folder / f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', name)[:80]}-{digest}.pt"

    def is_current(self, index: int) -> bool:
        """Whether the file of a study is there and belongs to the input files as they are."""
        kept = _read(self.path(index))
        return kept is not None and _same_inputs(kept["inputs"], self.preparer.inputs(index))

    def _load(self, index: int) -> dict[str, Any]:
        kept = _read(self.path(index))
        # Inputs are compared once: files that change during a training would make it irreproducible anyway.
        if kept is None or not (index in self._checked or _same_inputs(kept["inputs"], self.preparer.inputs(index))):
            self._build(index)
            kept = _read(self.path(index))
            if kept is None:
                raise ValueError(f"the file '{self.path(index)}' of the cache cannot be read after it was written")
        self._checked[index] = True
        return kept

    def _build(self, index: int) -> None:
        inputs = [_stamp(path) for path in self.preparer.inputs(index)]  # before reading: a later change shows
        sample = self.preparer(index)
        counts = None if sample.labels is None else class_counts(sample.labels, sample.mask)
        content = {
            "images": sample.images.contiguous(),
            "labels": sample.labels,
            "mask": sample.mask,
            "counts": counts,
            "inputs": inputs,
        }
        save_tensors(content, self.path(index))


def _read(path: Path) -> dict[str, Any] | None:
    """Content of a cache file with its tensors memory-mapped; None where it is missing, damaged or of another kind."""
    try:
        kept = load_tensors(path, "cached study", mapped=True)
    except ValueError:
        return None
    if set(kept) != {"images", "labels", "mask", "counts", "inputs"}:
        return None
    return kept


def _stamp(path: Path) -> dict[str, Any]:
    state = path.stat()
    return {"path": str(path), "size": state.st_size, "time": state.st_mtime_ns, "sha256": _checksum(path)}


def _same_inputs(stamps: list[dict[str, Any]], paths: list[Path]) -> bool:
    """Whether the files are those that were stamped: same size and time, or at least the same content."""
    if len(stamps) != len(paths):
        return False
    for stamp, path in zip(stamps, paths, strict=True):
        try:
            state = path.stat()
        except OSError:
            return False
        if state.st_size != stamp["size"]:
            return False
        moved = str(path) != stamp["path"] or state.st_mtime_ns != stamp["time"]
        if moved and _checksum(path) != stamp["sha256"]:
            return False
    return True


def _checksum(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
