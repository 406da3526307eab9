"""Data elements of a DICOM file, private ones and the sequences of multi-frame images included.

SimpleITK reads pixels and single elements, but gives no access to sequences, where multi-frame files say the place and
the order of their frames. The encoding is that of DICOM PS3.5, section 7.
"""

from __future__ import annotations

import contextlib
import math
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from NeuroCESTLib.core.headers.limits import quoted

Tag = tuple[int, int]
Elements = dict[Tag, "Element"]

_IMPLICIT, _BIG, _DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
_EXPLICIT = "1.2.840.10008.1.2.1"
_LONG = {b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UC", b"UR", b"UT", b"UN", b"SV", b"UV"}
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_PIXELS = {(0x7FE0, 0x0008), (0x7FE0, 0x0009), (0x7FE0, 0x0010)}
_NUMBERS = {b"US": "H", b"SS": "h", b"UL": "I", b"SL": "i", b"FL": "f", b"FD": "d", b"UV": "Q", b"SV": "q"}
_DEEPEST = 16
_TRANSFER_SYNTAX: Tag = (0x0002, 0x0010)


@dataclass(frozen=True)
class Element:
    """A data element: its type of value, its bytes, and the items of a sequence of undefined length."""

    kind: bytes
    content: bytes
    items: tuple[Elements, ...] | None = None


@dataclass(frozen=True)
class DicomFile:
    """Elements of a file, without its pixels.

    Attributes:
        path: The file.
        elements: Elements by tag.
        syntax: UID of the transfer syntax.
        pixels: Tag, first byte and number of bytes of the pixels; the number is None where they are encapsulated.
    """

    path: Path
    elements: Elements = field(repr=False)
    syntax: str
    pixels: tuple[Tag, int, int | None] | None

    @property
    def plain_byte_order(self) -> str | None:
        """Byte order of pixels that are not compressed (``<`` or ``>``); None for compressed ones."""
        return {_IMPLICIT: "<", _EXPLICIT: "<", _BIG: ">"}.get(self.syntax)

    @property
    def _code(self) -> tuple[bool, str]:
        return self.syntax == _IMPLICIT, ">" if self.syntax == _BIG else "<"

    def text(self, tag: Tag, elements: Elements | None = None) -> str:
        """Return a value as text; empty where the element is missing."""
        element = (self.elements if elements is None else elements).get(tag)
        return "" if element is None else element.content.decode("utf-8", "replace").strip("\0 \n\r\t")

    def numbers(self, tag: Tag, elements: Elements | None = None) -> list[float]:
        """Return the numbers of an element, from text or binary; empty where it is missing.

        Raises:
            ValueError: The element has no numbers; the message names the file.
        """
        element = (self.elements if elements is None else elements).get(tag)
        if element is None or not element.content:
            return []
        kind = element.kind if element.kind in _NUMBERS else _implicit_kind(tag)
        try:
            if kind in _NUMBERS:
                code = _NUMBERS[kind]
                count = len(element.content) // struct.calcsize(code)
                order = self._code[1]
                return [float(v) for v in struct.unpack(f"{order}{count}{code}", element.content)]
            values = [float(word) for word in self.text(tag, elements).split("\\") if word.strip()]
            if not all(math.isfinite(value) for value in values):
                raise ValueError
            return values
        except (ValueError, struct.error):
            name = f"({tag[0]:04x},{tag[1]:04x})"
            raise ValueError(
                f"'{self.path}': the element {name} has no numbers but {quoted(self.text(tag, elements))}"
            ) from None

    def sequence(self, tag: Tag, elements: Elements | None = None) -> tuple[Elements, ...]:
        """Return the items of a sequence; none where it is missing.

        A sequence whose type the writer did not know (UN) is implicit little endian whatever the syntax of the file, as
        PS3.5, section 6.2.2, has it; some writers leave it as it was.
        """
        element = (self.elements if elements is None else elements).get(tag)
        if element is None:
            return ()
        if element.items is not None:
            return element.items
        if element.kind in (b"UN", b""):
            with contextlib.suppress(ValueError):
                return _Reader(self.path, element.content, True, "<").items(len(element.content))
        return _Reader(self.path, element.content, *self._code).items(len(element.content))


def _implicit_kind(tag: Tag) -> bytes:
    """Type of the binary numbers of a standard element where the file does not say it."""
    return _BINARY.get(tag, b"DS")


_BINARY: dict[Tag, bytes] = {
    **dict.fromkeys(
        [(0x0028, low) for low in (0x0002, 0x0010, 0x0011, 0x0100, 0x0101, 0x0102, 0x0103)]
        + [(0x0020, 0x9057)]
        + [(0x0018, 0x9087)],
        b"US",
    ),
    (0x0020, 0x9057): b"UL",
    (0x0020, 0x9128): b"UL",
    (0x0020, 0x9157): b"UL",
    (0x0018, 0x9082): b"FD",
    (0x0018, 0x9087): b"FD",
    (0x0018, 0x9098): b"FD",
    (0x0043, 0x102F): b"SS",
    (0x2005, 0x100E): b"FL",
}


def read_elements(path: str | Path) -> DicomFile:
    """Read the elements of a file up to its pixels.

    Raises:
        ValueError: The file is missing, no DICOM file, compressed as a whole, or cut off; the message names it.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError:
        raise ValueError(f"'{path}' cannot be read") from None
    if content[128:132] != b"DICM":
        raise ValueError(f"'{path}' is no DICOM file")
    meta = _Reader(path, content, False, "<", 132)
    head = meta.elements(len(content), group=0x0002)
    syntax = head[_TRANSFER_SYNTAX].content.decode("ascii", "replace").strip("\0 ") if _TRANSFER_SYNTAX in head else ""
    if syntax == _DEFLATED:
        raise ValueError(f"'{path}' is deflated as a whole: export it without this compression")
    reader = _Reader(path, content, syntax == _IMPLICIT, ">" if syntax == _BIG else "<", meta.place)
    elements = reader.elements(len(content))
    return DicomFile(path, elements, syntax, reader.pixels)


class _Reader:
    """Elements in a part of a file, from a place on."""

    def __init__(self, path: Path, content: bytes, implicit: bool, order: str, place: int = 0, depth: int = 0) -> None:
        self._path, self._content, self._implicit, self._order, self._depth = path, content, implicit, order, depth
        self.place = place
        self.pixels: tuple[Tag, int, int | None] | None = None

    def elements(self, end: int, group: int | None = None) -> Elements:
        """Read elements up to a place, of one group only if it is given, or up to the pixels or the end of an item."""
        found: Elements = {}
        while self.place < end:
            start = self.place
            tag = self._tag()
            if tag == _ITEM_END:
                self._take(4)
                break
            if group is not None and tag[0] != group:
                self.place = start
                break
            kind, length = self._kind_and_length()
            if tag in _PIXELS and self._depth == 0:
                self.pixels = (tag, self.place, None if length == _UNDEFINED else length)
                if length != _UNDEFINED:
                    self._require(length)
                break
            found[tag] = self._element(kind, length)
        return found

    def items(self, end: int) -> tuple[Elements, ...]:
        """Read the items of a sequence up to a place or its end."""
        if self._depth > _DEEPEST:
            raise ValueError(f"'{self._path}' is damaged: its sequences are nested too deep")
        found = []
        while self.place < end:
            tag, length = self._tag(), self._number("I", 4)
            if tag == _SEQUENCE_END:
                break
            if tag != _ITEM:
                raise ValueError(f"'{self._path}' is damaged: a sequence has no items")
            inner = self._inner()
            last = len(self._content) if length == _UNDEFINED else self.place + self._require(length)
            found.append(inner.elements(last))
            self.place = inner.place if length == _UNDEFINED else last
        return tuple(found)

    def _element(self, kind: bytes, length: int) -> Element:
        if length != _UNDEFINED:
            return Element(kind, self._take(length))
        inner = self._inner(implicit=True if kind == b"UN" else self._implicit)
        items = inner.items(len(self._content))
        self.place = inner.place
        return Element(kind, b"", items)

    def _inner(self, implicit: bool | None = None) -> _Reader:
        implicit = self._implicit if implicit is None else implicit
        return _Reader(self._path, self._content, implicit, self._order, self.place, self._depth + 1)

    def _tag(self) -> Tag:
        return self._number("H", 2), self._number("H", 2)

    def _kind_and_length(self) -> tuple[bytes, int]:
        if self._implicit:
            return b"", self._number("I", 4)
        kind = self._take(2)
        if kind in _LONG:
            self._take(2)
            return kind, self._number("I", 4)
        if not kind.isalpha() or not kind.isupper():
            raise ValueError(f"'{self._path}' is damaged: an element has no type")
        return kind, self._number("H", 2)

    def _number(self, code: str, size: int) -> int:
        return int(struct.unpack(self._order + code, self._take(size))[0])

    def _take(self, count: int) -> bytes:
        self._require(count)
        start, self.place = self.place, self.place + count
        return self._content[start : self.place]

    def _require(self, count: int) -> int:
        if self.place + count > len(self._content):
            raise ValueError(f"'{self._path}' is cut off: an element ends beyond the file")
        return count


def first_text(file: DicomFile, *tags: Tag) -> str:
    """Return the first text among elements that is not empty."""
    return next((text for tag in tags if (text := file.text(tag))), "")


def first_number(file: DicomFile, *tags: Tag) -> float | None:
    """Return the first number among elements, or None."""
    found: list[Any] = [values[0] for tag in tags if (values := file.numbers(tag))]
    return found[0] if found else None
