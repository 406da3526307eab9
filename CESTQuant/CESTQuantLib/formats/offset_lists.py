"""Text files of saturation offsets, and the units that their headers and comments say."""

from __future__ import annotations

import math
import re
import warnings
from pathlib import Path

import torch
from torch import Tensor

from NeuroCESTLib.core.checked_json import read_text, shortened, with_ascii_minus

from ..physics.units import rad_per_s_per_ppm

REMEDY = "give a protocol .json, a text file of offsets in ppm, or a .seq"
"""What to do about a file of a protocol or of offsets that cannot be read."""
_COMMENT = re.compile(r"#|^\s*%|(?:^|(?<=\s))//")
_HZ = re.compile(r"(?<![a-z])k?hz(?![a-z])")
_UNIT = re.compile(r"(?<![a-z])(ppm|k?hz)(?![a-z])")
_OF_SOMETHING_ELSE = re.compile(r"bandwidth|(?<![a-z])bw(?![a-z])|pixel|(?<![a-z])k?hz\s*/")
"""Words of a comment whose frequency is not that of the offsets."""
_ONE_FREQUENCY = re.compile(r"(?<![\w.])[\d.]+(e[-+]?\d+)?\s*k?hz(?![a-z])|(?<![a-z])k?hz\W*[:=]\s*[-+.\d]")
"""A number with its unit, as of some setting, or a unit with its number behind it."""
_WRITTEN_RADIANS = re.compile(
    r"rad(?:ians?)?(?:\s*/\s*|[\s_]per[\s_])s(?:ec(?:onds?)?)?(?![a-z])|rad(?:ians?)?[\s*·]*s\^?-1"
)
_RADIANS = r"rad/s(?![\s_]*(?:/|per))"
"""Radians in a second, but not in a second and tesla."""
_UNIT_OF_OFFSETS = re.compile(
    rf"offsets?\W*(?:are\s+)?(?:in\s+)?[\W_]*(ppm|hz|{_RADIANS}|mhz|[km]{_RADIANS}|1/s)(?![a-z])"
)
_OF_POWER = rf"(?:[\d.]+(?:e[-+]?\d+)?\s*)?(?:[km]?{_RADIANS}|k?hz(?!\s*/)|[nmu\u00b5\u03bc]?t)(?![a-z])"
_POWER = re.compile(
    r"(?<![a-z0-9])(?:b_?1|[w\u03c9]_?1|omega_?1|power)"
    r"(?:[\s_=:+~\u2248()\[\]]"
    r"|(?:rms|cwpe|peak|max(?:imum)?|mean|nominal|amplitude|power|strength|level|in|of|is|was)(?![a-z]))*"
    rf"{_OF_POWER}(?:\s*[(=]\s*{_OF_POWER}\)?)*"
)
"""The power of the saturation in whatever unit, as in ``B1 = 535 rad/s (2 uT)`` or ``w1 [Hz]``."""
_ONE_ANGULAR_FREQUENCY = re.compile(rf"(?<![\w.])[\d.]+(e[-+]?\d+)?\s*{_RADIANS}|{_RADIANS}\W*[:=]\s*[-+.\d]")
_NAMES = {"ppm": "ppm", "hz": "Hz", "rad/s": "rad/s"}
"""Units that offsets are read in."""
_CLAUSE_END = r"[;,|()]|\.(?=\s|$)|\s-\s"
"""Where a clause ends; a bracket around the unit of the offsets is a part of its clause."""
_CALCULATION = re.compile(
    r"[*/=]|divided by|multiplied by|(?<![a-z])times(?![a-z])|(?<![a-z])(in)?to(?![a-z])|->|\u2192"
)
"""What makes a clause with both units a formula or a conversion, so that the numbers may be in either of them."""
_SETTING = re.compile(r"\w+\s*=\s*[\d.]+\w*")
"""Another quantity with its number, such as B1=2uT."""
_CONVERTED = (
    r"[\s,)\]]*\(?\s*((converted|divided by|multiplied by)[\s\d.]*)?((in)?to(?![a-z])|->|\u2192)\W*{unit}(?![a-z])"
)
"""A conversion right behind the unit of the offsets."""
_DIVIDED = re.compile(r"\W*?(/|divided by)\s*([\d.]+)")
_BY_LARMOR = {
    "hz": _DIVIDED,
    "rad/s": _DIVIDED,
    "ppm": re.compile(r"\W*?(\*|times|multiplied by)\s*([\d.]+)"),
}
_LEAST_LARMOR_MHZ = 40.0
"""Numbers from here on, right behind a unit that they are divided or multiplied by, convert it: 1 T has 42.6 MHz."""
_QUANTITY = re.compile(r"(?<![\w.])[-+]?[\d.]+(e[-+]?\d+)?\s*(ppm|k?hz)(?![a-z])")
"""A number with its unit, which says nothing about that of the offsets where they have one of their own."""
_TITLE = re.compile(
    r"\S+|.*\S\s*(?:\([^()]*\)|\[[^\[\]]*\])"
    r"|[^\W\d]\w*(?:\s+\w+)?\s+(?:ppm|[km]?hz|rad\s*/\s*s|[nmu\u00b5\u03bc]?t|m?s|deg|%)",
    re.IGNORECASE,
)
"""The title of a column: one word, or a name with its unit."""
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+(e[-+]?\d+)?", re.IGNORECASE)
_UNCLEAR = "unclear"


def read_offsets(path: str | Path, field_strength_T: float | None = None) -> Tensor:
    """Read offsets from a text file.

    The file holds numbers separated by line breaks, spaces, commas or semicolons. Blank lines are allowed, and comments
    after ``#``, ``//`` or, at the beginning of a line, ``%``, a byte-order mark and the typographic minus sign too. A
    first line of words is a header: of several columns, the one whose name contains ``offset``, ``ppm`` or ``Hz`` is
    read. Where every comma stands between the digits of one number, as in ``-3,5``, commas are decimal signs, which a
    warning tells. Offsets are in ppm unless the header or a comment says Hz or rad/s; a comment about a bandwidth or
    the power does not count. A warning tells the unit where a comment has Hz or rad/s.

    Args:
        path: Text file.
        field_strength_T: Static field in T, which converts offsets in Hz or rad/s.

    Returns:
        Offsets in ppm, float64 of shape (measurement,).

    Raises:
        ValueError: The file cannot be read, holds something else, has rows with another number of cells than its
            header or rows of a table without header, leaves open which unit it is in, or is in Hz or rad/s and no field
            is given; the message names the file and the line.
    """
    path = Path(path)
    parted = [_without_comment(line) for line in with_ascii_minus(read_text(path, REMEDY)).splitlines()]
    comments = [comment for _, comment in parted if comment]
    rows = {f"{path}: line {number}": line for number, (line, _) in enumerate(parted, start=1) if _words(line)}
    first = next(iter(rows), None)
    header = "" if first is None or any(map(_is_number, _words(rows[first]))) else rows.pop(first).rstrip(" \t;,")
    rows = _with_decimal_points(rows, header, str(path))
    words, name = _words_of_offsets(rows, header)
    offsets = [[_offset(word, place) for word in of_row] for place, of_row in words.items()]
    if not offsets:
        raise ValueError(f"{path}: no offsets found; give one number in ppm per line")
    _refuse_table(offsets, comments, str(path))
    found = torch.tensor([offset for row in offsets for offset in row], dtype=torch.float64)
    unit = _unit(name, comments, str(path))
    if unit == "ppm":
        return found
    if field_strength_T is None:
        turns = "2 pi times " if unit == "rad/s" else ""
        raise ValueError(
            f"{path}: the offsets are in {_NAMES[unit]}: give the field strength in T to have them converted "
            "(--field-strength, where the command has this option), or write them in ppm, divided by "
            f"{turns}the Larmor frequency in MHz"
        )
    return found * (2 * math.pi if unit == "hz" else 1.0) / rad_per_s_per_ppm(field_strength_T)


def _without_comment(line: str) -> tuple[str, str]:
    """A line without its comment, and the comment."""
    mark = _COMMENT.search(line)
    return (line, "") if mark is None else (line[: mark.start()], line[mark.end() :])


def _refuse_table(rows: list[list[float]], comments: list[str], source: str) -> None:
    """Refuse rows that are those of a table without header, of which all columns would count as offsets."""
    counts = {len(row) for row in rows}
    if len(rows) < 2 or len(counts) > 1 or counts == {1}:
        return
    count = counts.pop()
    numbered = any([row[0] for row in rows] == list(range(start, start + len(rows))) for start in (0, 1))
    titles = [
        comment.strip()
        for comment in comments
        for cells in (_cells(comment, separator) for separator in ";\t,")
        if len(cells) == count and sum(map(_names_offsets, cells)) == 1 and all(map(_TITLE.fullmatch, cells))
    ]
    if numbered or titles:
        why = "the first column counts them" if numbered else f"as {shortened(titles[0])} may say"
        raise ValueError(
            f"{source}: rows of {count} numbers may be those of a table, {why}; name the columns in a first line, such "
            "as 'index offset_ppm' without comment mark, or give one offset a line"
        )


def _offset(word: str, place: str) -> float:
    if not _is_number(word):
        raise ValueError(f"{place} holds {shortened(word)}, which is not an offset in ppm")
    if not math.isfinite(value := float(word)):
        raise ValueError(f"{place} holds {shortened(word)}, which is not finite")
    return value


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _says_hz(text: str) -> bool:
    """Whether a header or comment gives the unit Hz, and not ppm as well."""
    return bool(re.search(r"(?<![a-z])hz(?![a-z])", text.lower())) and "ppm" not in text.lower()


def _unit(header: str, comments: list[str], source: str) -> str:
    """Unit that the header, or else comments give the offsets: ``ppm``, ``hz`` or ``rad/s``.

    A comment that names their unit comes before others about offsets, such as their step, and these before the rest.
    """
    explicit = [comment for comment in comments if _UNIT_OF_OFFSETS.search(_plain(comment))]
    about_offsets = [comment for comment in comments if "offset" in comment.lower() and comment not in explicit]
    others = [comment for comment in comments if comment not in (*explicit, *about_offsets)]
    unit_of = {comment: _unit_of(comment) for comment in comments} | {header: _unit_of(header, of_column=True)}
    said = None
    for lines in ([header], explicit, about_offsets, others):
        units = {unit_of[line] for line in lines}
        named = [unit for unit in _NAMES if unit in units]
        if len(named) > 1:
            both = " and ".join(_NAMES[unit] for unit in named)
            raise ValueError(
                f"{source}: the comments give the offsets both {both}; say {' or '.join(both.split(' and '))}"
            )
        if named:
            said = named[0]
            break
    unclear = [line.strip() for line in (header, *comments) if unit_of[line] == _UNCLEAR]
    if unclear and said is None:
        in_radians = re.search(_RADIANS, _plain(unclear[0])) and not _HZ.search(unclear[0].lower())
        other = _NAMES["rad/s" if in_radians else "hz"]
        raise ValueError(
            f"{source}: {shortened(unclear[0])} leaves open whether the offsets are in ppm or in {other}; say ppm or "
            f"{other} in a comment, such as '# offsets in ppm'"
        )
    unit = said or "ppm"
    if any(_HZ.search(comment.lower()) or re.search(_RADIANS, _plain(comment)) for comment in comments):
        warnings.warn(f"{source}: with these comments the offsets are read in {_NAMES[unit]}", stacklevel=3)
    return unit


def _plain(line: str) -> str:
    """A line in lower case with one spelling of rad/s."""
    return _WRITTEN_RADIANS.sub("rad/s", line.lower())


def _unit_of(line: str, *, of_column: bool = False) -> str | None:
    """Unit that a header or comment gives the offsets: ``ppm``, ``hz``, ``rad/s``, ``_UNCLEAR`` or None.

    The power in it has a unit of its own, unless it is all that the header of a column speaks of.
    """
    text = _plain(line)
    if found := _UNIT_OF_OFFSETS.search(text):
        several = len(set(_UNIT_OF_OFFSETS.findall(text))) > 1
        return _UNCLEAR if several or found[1] not in _NAMES or _is_converted(text, found) else found[1]
    of_offsets = "offset" in text
    if of_offsets or not of_column:
        text = _POWER.sub(" ", text)
    units = set(_UNIT.findall(text))
    if not units:
        if not re.search(_RADIANS, text):
            return None
        is_unit = of_offsets and not _ONE_ANGULAR_FREQUENCY.search(text)
        return "rad/s" if is_unit or re.fullmatch(r"\W*rad/s\W*", text) else _UNCLEAR
    if len(units) > 1 or _OF_SOMETHING_ELSE.search(text):  # such as "1 ppm = 127.7 Hz"
        return _UNCLEAR if of_offsets else None
    if "khz" in units or ("hz" in units and not of_offsets and _ONE_FREQUENCY.search(text)):
        return _UNCLEAR
    return units.pop()


def _is_converted(text: str, found: re.Match[str]) -> bool:
    """Whether a comment converts offsets between units, so that their numbers may be in either of them."""
    before, behind = text[: found.start()], text[found.end() :]
    others = {"ppm", "hz", "khz"} - {found[1]}
    clause = f"{re.split(_CLAUSE_END, before)[-1]} {re.split(_CLAUSE_END, behind.lstrip(' )]'))[0]}"
    clause = _SETTING.sub("", _QUANTITY.sub("", clause))
    if others & set(_UNIT.findall(clause)) and _CALCULATION.search(clause):  # such as "ppm = offset Hz / 127.7"
        return True
    number = _BY_LARMOR[found[1]].match(behind)
    if number and _is_number(number[2]) and float(number[2]) >= _LEAST_LARMOR_MHZ:
        return True
    return any(re.match(_CONVERTED.format(unit=other), behind) for other in others)


def _words(line: str) -> list[str]:
    return [word.strip("\"'") for word in re.split(r"[\s,;]+", line) if word]


def _with_decimal_points(rows: dict[str, str], header: str, source: str) -> dict[str, str]:
    """Return the rows with decimal points for decimal commas, which a warning tells.

    Commas are decimal signs where each of them stands in a number of its own, the header has no columns separated by
    commas, and no number has a decimal point; where semicolons or tabs separate the numbers, it may.
    """
    parts = [part.strip("\"'") for row in rows.values() for part in re.split(r"[\s;]+", row)]
    with_comma = [part for part in parts if "," in part]
    separated = any(separator in row for row in (header, *rows.values()) for separator in ";\t")
    separates = not separated and ("," in header or any("." in part for part in parts))
    if not with_comma or separates or not all(map(_DECIMAL_COMMA.fullmatch, with_comma)):
        return rows
    some = with_comma[0]
    warnings.warn(
        f"{source}: commas are read as decimal signs, so that {some} is {some.replace(',', '.')}; put a space behind "
        "commas that separate offsets",
        stacklevel=3,
    )
    return {place: row.replace(",", ".") for place, row in rows.items()}


def _words_of_offsets(rows: dict[str, str], header: str) -> tuple[dict[str, list[str]], str]:
    """Return the words of every row that are offsets, all of them or of a table one column, and their header."""
    words = {place: _words(row) for place, row in rows.items()}
    separator = next((separator for separator in ";\t," if separator in header), None)
    if separator is None:
        names = header.split()
        is_row = {place: len(names) == len(of_row) > 1 for place, of_row in words.items()}
        of_column = {place: [of_row[_column(names, place)]] for place, of_row in words.items() if is_row[place]}
        return {**words, **of_column}, header
    names = _cells(header, separator)
    if not any(separator in row or len(words[place]) == len(names) for place, row in rows.items()):
        return words, header
    found = {}
    for place, row in rows.items():
        cells = _cells(row, separator) if separator in row else words[place]
        if any(cells[len(names) :]) or len(cells) < len(names):
            raise ValueError(
                f"{place} has {len(cells)} cells but the header has {len(names)}; correct the row, or put # before a "
                "first line that is no header"
            )
        found[place] = [cells[_column(names, place)]]
    return found, names[_column(names, header)]


def _cells(row: str, separator: str) -> list[str]:
    return [cell.strip().strip("\"'") for cell in row.split(separator)]


def _column(names: list[str], place: str) -> int:
    """Return which column has the offsets by the names of all columns."""
    chosen = [i for i, name in enumerate(names) if _names_offsets(name)]
    if len(chosen) != 1:
        raise ValueError(f"{place}: the header does not name one column of offsets, such as offset_ppm")
    return chosen[0]


def _names_offsets(name: str) -> bool:
    return "offset" in name.lower() or "ppm" in name.lower() or _says_hz(name)
