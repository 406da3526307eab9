"""Headers of NRRD files (``.nrrd``, ``.nhdr``, also ``.seg.nrrd`` and ``.seq.nrrd``).

The format is described at https://teem.sourceforge.net/nrrd/format.html.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from NeuroCESTLib.core.headers.limits import quoted

_LONGEST_LINE = 1 << 20
_LONGEST_HEADER = 16 << 20
_LONGEST_FIELD = 4000
LONGEST_WORD = 1000

_NAMED_SPACES = """
right-anterior-superior ras left-anterior-superior las left-posterior-superior lps scanner-xyz 3d-right-handed
3d-left-handed
"""
_SPACES_IN_TIME = """
right-anterior-superior-time rast left-anterior-superior-time last left-posterior-superior-time lpst scanner-xyz-time
3d-right-handed-time 3d-left-handed-time
"""
DIMENSIONS_OF_SPACE = dict.fromkeys(_NAMED_SPACES.split(), 3) | dict.fromkeys(_SPACES_IN_TIME.split(), 4)
_SAME_FIELD = {
    "centerings": "centers",
    "axismins": "axis mins",
    "axismaxs": "axis maxs",
    "blocksize": "block size",
    "oldmin": "old min",
    "oldmax": "old max",
    "lineskip": "line skip",
    "byteskip": "byte skip",
    "datafile": "data file",
    "sampleunits": "sample units",
}
_FIELDS = frozenset(
    (
        *("content", "number", "type", "dimension", "space", "space dimension", "sizes", "spacings", "thicknesses"),
        *("space directions", "kinds", "labels", "units", "min", "max", "endian", "encoding", "space units"),
        *("space origin", "measurement frame", *_SAME_FIELD.values()),
    )
)
_VECTOR = re.compile(r"\(([^()]*)\)|none|\?\?\?")
_PATTERN = re.compile(r"[^%]*%0?\d?d[^%]*")
REMEDY = "copy or export it again"


@dataclass(frozen=True)
class NrrdHeader:
    """Fields of an NRRD header.

    Attributes:
        path: File.
        fields: Value of each field by its name in small letters.
        metadata: Values of the free keys (``key:=value``).
        data_offset: Position of the data in bytes, in the file itself.
    """

    path: Path
    fields: dict[str, str]
    metadata: dict[str, str]
    data_offset: int

    def damaged(self, problem: str) -> ValueError:
        """Return the error that says what is wrong with this header."""
        return ValueError(f"'{self.path}' has a damaged NRRD header: {problem}; {REMEDY}")

    def words(self, field: str) -> list[str]:
        """Return the words of a field; none where it is missing."""
        return self.fields.get(field, "").split()

    def whole_numbers(self, field: str) -> list[int]:
        """Return the whole numbers of a field.

        Raises:
            ValueError: It holds something else.
        """
        if not all(re.fullmatch(r"[+-]?\d{1,18}", word) for word in self.words(field)):
            raise self.damaged(f"{field} is {quoted(self.fields[field])}, but must be whole numbers")
        return [int(word) for word in self.words(field)]

    def numbers(self, field: str) -> list[float]:
        """Return the numbers of a field, NaN included.

        Raises:
            ValueError: It holds something else.
        """
        return [self._number(word, field) for word in self.words(field)]

    def vectors(self, field: str) -> list[list[float] | None]:
        """Return the vectors of a field, such as ``(1,0,0) none (0,1,0)``; None stands for none.

        Raises:
            ValueError: It holds something else.
        """
        text = self.fields.get(field, "").lower()
        if _VECTOR.sub("", text).strip():
            raise self.damaged(f"{field} is {quoted(text)}, but must be vectors such as (1,0,0)")
        found: list[list[float] | None] = []
        for match in _VECTOR.finditer(text):
            inside = match[1]
            found.append(None if inside is None else [self._number(w.strip(), field) for w in inside.split(",")])
        return found

    def _number(self, word: str, field: str) -> float:
        try:
            return float(word) if len(word) < LONGEST_WORD and "_" not in word else float("not a number")
        except ValueError:
            raise self.damaged(f"{field} has {quoted(word)}, which is not a number") from None

    @property
    def sizes(self) -> list[int]:
        """Number of entries along each axis, the fastest first."""
        return self.whole_numbers("sizes")

    @property
    def space_dimension(self) -> int:
        """Number of dimensions of the space in which the image lies; 0 where the header names none."""
        if "space" in self.fields:
            return DIMENSIONS_OF_SPACE.get(self.fields["space"].lower(), 0)
        return self.whole_numbers("space dimension")[0] if "space dimension" in self.fields else 0

    @property
    def is_in_patient_space(self) -> bool:
        """Whether the header names a space by directions of the patient, such as left-posterior-superior."""
        return re.fullmatch(r"(left|right)-.*|[lr][ap]st?", self.fields.get("space", "").lower()) is not None


def is_nrrd(path: str | os.PathLike) -> bool:
    """Whether a file is an NRRD file by its name."""
    return Path(path).name.lower().endswith((".nrrd", ".nhdr"))


def is_segmentation(path: str | os.PathLike) -> bool:
    """Whether a file is a segmentation, whose segments have names, by its name."""
    return Path(path).name.lower().endswith((".seg.nrrd", ".seg.nhdr"))


def read_nrrd_header(path: str | os.PathLike) -> NrrdHeader:
    """Read the fields of an NRRD header.

    Raises:
        ValueError: There is none, it is too long, or a line is no field; the message names the file.
    """
    path = Path(path)
    header = NrrdHeader(path, {}, {}, 0)
    with open(path, "rb") as file:
        magic = file.readline(16).strip()
        if not re.fullmatch(rb"NRRD000[1-6]", magic):
            raise ValueError(f"'{path}' is not an image: it has no NRRD header")
        while content := file.readline(_LONGEST_LINE):
            if len(content) == _LONGEST_LINE or file.tell() > _LONGEST_HEADER or b"\0" in content:
                raise header.damaged("a line is too long or is not text")
            line = content.decode("utf-8", "replace").rstrip("\r\n")
            if not line:
                break
            if not line.startswith("#"):
                _add_line(header, line)
        return NrrdHeader(path, header.fields, header.metadata, file.tell())


def _add_line(header: NrrdHeader, line: str) -> None:
    field, colon, value = line.partition(": ")
    key, assignment, text = line.partition(":=")
    if assignment and (not colon or len(key) < len(field)):
        header.metadata[key] = text
        return
    name = field.strip().lower()
    name = _SAME_FIELD.get(name, name)
    if not colon or name not in _FIELDS:
        raise header.damaged(f"the line {quoted(line)} is no field of an NRRD file")
    if name in header.fields:
        raise header.damaged(f"it gives {name} twice")
    if len(value) > _LONGEST_FIELD:
        raise header.damaged(f"{name} is too long")
    header.fields[name] = value.strip()


def data_files(header: NrrdHeader) -> list[Path]:
    """Return the data files of a header; none where the data are in the file itself.

    Raises:
        ValueError: One is missing, or they are named in a way that is not read.
    """
    text = header.fields.get("data file")
    if text is None:
        return []
    if text.split()[:1] == ["LIST"]:
        raise ValueError(f"'{header.path}' lists its data in several files, which is not read: save it as one file")
    names = [text]
    if "%" in text:
        pattern, *numbers = text.rsplit(maxsplit=3)
        if (
            len(numbers) != 3
            or not _PATTERN.fullmatch(pattern)
            or not all(re.fullmatch(r"\d{1,6}", n) for n in numbers)
        ):
            raise header.damaged(f"its data files {quoted(text)} are no pattern such as slice%03d.raw 1 20 1")
        first, last, step = map(int, numbers)
        names = [pattern % number for number in range(first, last + 1, max(step, 1))]
    files = [header.path.parent / name for name in names]
    if missing := [file for file in files if not file.is_file()]:
        raise ValueError(f"'{header.path}' has its data in '{missing[0].name}', which is missing beside it")
    return files
