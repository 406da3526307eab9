"""Parameter files of ParaVision (``method``, ``acqp``, ``visu_pars``), which are written in JCAMP-DX.

A file is a list of records ``##$Name=value``. An array begins with its sizes in parentheses and spaces, ``( 2, 65 )``;
texts stand in angle brackets, structures in parentheses with commas; ParaVision 360 shortens equal values to
``@count*(value)``. Comments begin with ``$$``. Lines are wrapped anywhere between values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from NeuroCESTLib.core.headers.limits import quoted

_RECORD = re.compile(r"^##(\$?)([^=\n]+)=", re.MULTILINE)
_SIZES = re.compile(r"\( (\d{1,9}(?:, *\d{1,9})*) \)")
_TOKEN = re.compile(r"<(?:[^>\\]|\\.)*>|@\d+\*\(|[(),]|[^\s(),<>]+", re.DOTALL)
_DEEPEST = 20
"""Most structures within each other; real files have three."""
_MOST_REPEATED = 1 << 20
"""Most values of an abbreviated array."""


@dataclass(frozen=True)
class ParameterFile:
    """Parameters of one file, read when they are asked for.

    Attributes:
        path: The file, with which messages begin.
        texts: Text of every value by the name of its parameter.
    """

    path: Path
    texts: dict[str, str]

    @classmethod
    def read(cls, path: str | Path) -> ParameterFile:
        """Read a parameter file.

        Args:
            path: File ``method``, ``acqp`` or ``visu_pars``.

        Raises:
            ValueError: The file is missing, is something else, or is cut off; the message names it.
        """
        path = Path(path)
        try:
            content = path.read_bytes()
        except OSError:
            raise ValueError(f"'{path}' is missing or cannot be read: copy the whole scan folder") from None
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            text = content.decode("latin-1")
        text = re.sub(r"^\$\$.*$", "", text.replace("\r\n", "\n").replace("\r", "\n"), flags=re.MULTILINE)
        records = list(_RECORD.finditer(text))
        if not any(record[1] for record in records) or text[: records[0].start()].strip():
            raise ValueError(f"'{path}' is not a parameter file of ParaVision: it has no records ##$Name=value")
        if records[-1][2] != "END":
            raise ValueError(f"'{path}' is cut off: its last record ##END= is missing")
        ends = [record.start() for record in records[1:]] + [len(text)]
        texts = {
            record[2].strip(): text[record.end() : end]
            for record, end in zip(records, ends, strict=True)
            if record[1]  # those without a dollar are about the file
        }
        return cls(path, texts)

    def __contains__(self, name: str) -> bool:
        return name in self.texts

    def value(self, name: str) -> Any:
        """Return a value: a number, a text or, for arrays and structures, a list of them.

        Args:
            name: Name of the parameter.

        Raises:
            ValueError: The parameter is missing or its value is damaged; the message names the file and the parameter.
        """
        if name not in self.texts:
            raise ValueError(f"'{self.path}': the parameter {name} is missing")
        text = self.texts[name].strip()
        sizes = _SIZES.match(text)
        try:
            values = _Values(text[sizes.end() :] if sizes else text).all()
        except ValueError as error:
            raise ValueError(f"'{self.path}': the value of {name} is damaged ({error})") from None
        if sizes is None:
            return values[0] if len(values) == 1 else values
        expected = math.prod(int(size) for size in sizes[1].split(","))
        if all(isinstance(value, float) for value in values) and len(values) != expected:
            raise ValueError(
                f"'{self.path}': the value of {name} is damaged (it announces {expected} numbers and has {len(values)})"
            )
        return values

    def numbers(self, name: str, count: int | None = None) -> list[float]:
        """Return one or several finite numbers as a list.

        Args:
            name: Name of the parameter.
            count: How many numbers there must be; None accepts any.

        Raises:
            ValueError: The parameter is missing, is not a list of finite numbers, or has another number of them.
        """
        value = self.value(name)
        values = value if isinstance(value, list) else [value]
        if not values or not all(isinstance(number, float) and math.isfinite(number) for number in values):
            raise ValueError(f"'{self.path}': {name} must be a list of numbers")
        if count is not None and len(values) != count:
            raise ValueError(f"'{self.path}': {name} has {len(values)} numbers but must have {count}")
        return values

    def number(self, name: str) -> float:
        """Return a finite number.

        Raises:
            ValueError: The parameter is missing or is not one number.
        """
        return self.numbers(name, 1)[0]

    def positive_integers(self, name: str, count: int | None = None) -> list[int]:
        """Return whole numbers of at least 1.

        Raises:
            ValueError: The parameter is missing, or has other values or another number of them.
        """
        values = self.numbers(name, count)
        if not all(value.is_integer() and value >= 1 for value in values):
            raise ValueError(f"'{self.path}': {name} must have positive whole numbers")
        return [int(value) for value in values]

    def text(self, name: str) -> str:
        """Return a text, without its angle brackets; an empty one where the parameter is missing."""
        if name not in self.texts:
            return ""
        value = self.value(name)
        first = (value[0] if value else "") if isinstance(value, list) else value
        return f"{first:g}" if isinstance(first, float) else str(first)

    def structure(self, name: str) -> list[Any]:
        """Return the fields of a structure; an empty list where the parameter is missing or is no structure."""
        value = self.value(name) if name in self.texts else []
        return value if isinstance(value, list) else []


class _Values:
    """The values in the text of a parameter, read from left to right."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._next: str | None = next(self._tokens, None)

    def all(self) -> list[Any]:
        """Return all values of the text."""
        values = self._values(0)
        if self._next is not None:
            raise ValueError(f"unexpected {quoted(self._next)}")
        return values

    def _take(self) -> str:
        if self._next is None:
            raise ValueError("a parenthesis is not closed")
        token, self._next = self._next, next(self._tokens, None)
        return token

    def _values(self, depth: int) -> list[Any]:
        """Values up to the next comma or closing parenthesis."""
        if depth > _DEEPEST:
            raise ValueError("structures are nested too deep")
        values: list[Any] = []
        while self._next is not None and self._next not in (",", ")"):
            token = self._take()
            if token == "(":
                values.append(self._structure(depth))
            elif token.startswith("@"):
                if not re.fullmatch(r"\d{1,9}", token[1:-2]):
                    raise ValueError(f"{quoted(token)} repeats no number of times")
                count, repeated = int(token[1:-2]), self._structure(depth)
                if len(values) + count * len(repeated) > _MOST_REPEATED:
                    raise ValueError(f"{quoted(token)} repeats too often")
                values += repeated * count
            else:
                values.append(_scalar(token))
        return values

    def _structure(self, depth: int) -> list[Any]:
        """Fields up to the closing parenthesis; a field of several values is a list."""
        fields: list[Any] = []
        while True:
            values = self._values(depth + 1)
            fields.append(values[0] if len(values) == 1 else values)
            if self._take() == ")":
                return fields


def _tokens(text: str) -> Iterator[str]:
    end = 0
    for match in _TOKEN.finditer(text):
        if text[end : match.start()].strip():
            raise ValueError(f"unexpected {quoted(text[end : match.start()].strip())}")
        end = match.end()
        yield match[0]
    if text[end:].strip():
        raise ValueError(f"unexpected {quoted(text[end:].strip())}")


def _scalar(token: str) -> float | str:
    if token.startswith("<"):
        return re.sub(r"\\(.)", r"\1", token[1:-1].replace("\\\n", "").replace("\n", ""))
    try:
        return float(token)
    except ValueError:
        return token
