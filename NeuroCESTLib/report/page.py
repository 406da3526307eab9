"""Self-contained HTML pages: warnings first, sections with texts, tables and embedded pictures; they print well to A4.

A page needs neither network nor scripts: its style is inside the file, and pictures are embedded as data. A content
security policy forbids it to load anything. All texts are escaped.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TypeAlias

from NeuroCESTLib.core.whole_files import write_text, written_as
from NeuroCESTLib.report.numbers import number_text
from NeuroCESTLib.report.style import STYLE_SHEET

LEVELS = ("good", "check", "failed")
"""Levels of a badge, as in the verdicts of the commands."""


@dataclass(frozen=True)
class Badge:
    """A word in the colour of its level.

    Attributes:
        text: The word.
        level: One of ``LEVELS``.
    """

    text: str
    level: str

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ValueError(f"unknown level '{self.level}' of a badge; known ones are {', '.join(LEVELS)}")


@dataclass(frozen=True)
class Link:
    """A reference to another page.

    Attributes:
        text: What is read.
        target: Relative path from this page, ``#anchor``, or an https address.
    """

    text: str
    target: str


Cell: TypeAlias = "str | float | int | bool | Badge | Link | None"
"""What a table holds: floats are written with three significant digits, None and NaN as a dash."""


@dataclass(frozen=True)
class Text:
    """Paragraphs.

    Attributes:
        paragraphs: One text each.
        small: Whether they are set smaller, as remarks are.
    """

    paragraphs: Sequence[str]
    small: bool = False


@dataclass(frozen=True)
class Listing:
    """A list of sentences.

    Attributes:
        items: One text each.
        numbered: Whether they are numbered, as references are.
    """

    items: Sequence[str]
    numbered: bool = False


@dataclass(frozen=True)
class Table:
    """A table with a header line.

    Attributes:
        columns: Titles of the columns.
        rows: Cells of each row, as many as there are columns.
        caption: Sentence above the table.
        notes: Sentences below the table.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        wrong = [row for row in self.rows if len(row) != len(self.columns)]
        if wrong:
            raise ValueError(f"a row has {len(wrong[0])} cells, but the table has {len(self.columns)} columns")


@dataclass(frozen=True)
class Picture:
    """An embedded picture.

    Attributes:
        png: Content of a PNG file.
        alt: Description for readers who do not see the picture.
        caption: Sentence below the picture.
        width_inches: Width at which it is shown at most; None for the width of the page.
    """

    png: bytes
    alt: str
    caption: str = ""
    width_inches: float | None = None


Part: TypeAlias = "Text | Listing | Table | Picture"


@dataclass(frozen=True)
class Section:
    """A part of the page with a headline.

    Attributes:
        title: Headline.
        parts: Texts, lists, tables and pictures in order.
        subsections: Sections below it, at most one level deep.
        new_page: Whether it starts on a new page when printed.
    """

    title: str
    parts: Sequence[Part] = ()
    subsections: Sequence[Section] = ()
    new_page: bool = False

    @property
    def anchor(self) -> str:
        """Identifier of the section within the page."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


@dataclass(frozen=True)
class Page:
    """Content of a page.

    Attributes:
        title: Headline.
        sections: Sections in order.
        subtitle: Line below the headline.
        badge: Verdict beside the headline, or None.
        facts: Short facts below the headline, by name.
        warnings: Sentences at the top of the page, before everything else.
        remark: Sentence at the end, such as what the page must not be used for.
    """

    title: str
    sections: Sequence[Section]
    subtitle: str = ""
    badge: Badge | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    remark: str = ""


def write_page(page: Page, path: str | os.PathLike) -> Path:
    """Write a page as an HTML file, whole or not at all.

    Args:
        page: Content.
        path: File to write.

    Returns:
        The path of the file.

    Raises:
        ValueError: The file cannot be written; the message names it.
    """
    parts = re.split(r"(data:[^\"')]+)", page_html(page))  # pictures stand in the page as long texts
    parts[::2] = [written_as.get()(part) for part in parts[::2]]
    return write_text("".join(parts), path)


def page_html(page: Page) -> str:
    """Return a page as HTML text."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(page.title)}</title>\n<style>{STYLE_SHEET}</style>\n</head>\n"
    )
    remark = f"<footer><p>{escape(page.remark)}</p></footer>\n" if page.remark else ""
    body = "".join(_section(section, 2) for section in page.sections)
    return f"{head}<body>\n{_header(page)}{_warnings(page.warnings)}<main>\n{body}</main>\n{remark}</body>\n</html>\n"


def _header(page: Page) -> str:
    badge = f" {_badge(page.badge)}" if page.badge else ""
    subtitle = f'<p class="subtitle">{escape(page.subtitle)}</p>\n' if page.subtitle else ""
    facts = "".join(f"<div><dt>{escape(n)}</dt><dd>{escape(text)}</dd></div>" for n, text in page.facts.items())
    facts = f'<dl class="facts">{facts}</dl>\n' if facts else ""
    links = " ".join(f'<a href="#{section.anchor}">{escape(section.title)}</a>' for section in page.sections)
    contents = f'<nav aria-label="Contents">{links}</nav>\n' if len(page.sections) > 2 else ""
    return f"<header>\n<h1>{escape(page.title)}{badge}</h1>\n{subtitle}{facts}{contents}</header>\n"


def _warnings(warnings: Sequence[str]) -> str:
    if not warnings:
        return ""
    items = "".join(f"<li>{escape(_sentence(warning))}</li>" for warning in warnings)
    title = "Warning" if len(warnings) == 1 else f"{len(warnings)} warnings"
    return f'<section class="warnings" role="alert"><h2>{title}</h2><ul>{items}</ul></section>\n'


def _sentence(text: str) -> str:
    """Return a message as a sentence of its own, with a capital letter and a full stop."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _section(section: Section, level: int) -> str:
    parts = "".join(_part(part) for part in section.parts)
    below = "".join(_section(subsection, level + 1) for subsection in section.subsections)
    kind = ' class="new-page"' if section.new_page else ""
    anchor = f' id="{section.anchor}"' if level == 2 else ""  # only these are referred to, in the contents
    title = f"<h{level}>{escape(section.title)}</h{level}>"
    return f"<section{anchor}{kind}>{title}\n{parts}{below}</section>\n"


def _part(part: Part) -> str:
    if isinstance(part, Text):
        kind = ' class="small"' if part.small else ""
        return "".join(f"<p{kind}>{escape(paragraph)}</p>\n" for paragraph in part.paragraphs)
    if isinstance(part, Listing):
        kind = "ol" if part.numbered else "ul"
        return f"<{kind}>{''.join(f'<li>{escape(item)}</li>' for item in part.items)}</{kind}>\n"
    return _table(part) if isinstance(part, Table) else _picture(part)


def _picture(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode("ascii")
    width = f' style="max-width: min(100%, {picture.width_inches:g}in)"' if picture.width_inches else ""
    caption = f"<figcaption>{escape(picture.caption)}</figcaption>" if picture.caption else ""
    image = f'<img alt="{escape(picture.alt)}" src="data:image/png;base64,{data}"{width}>'
    return f"<figure>{image}{caption}</figure>\n"


def _table(table: Table) -> str:
    texts = [[_cell(cell) for cell in row] for row in table.rows]
    numeric = [_is_numeric(row[i] for row in table.rows) for i in range(len(table.columns))]
    kinds = [' class="number"' if is_number else "" for is_number in numeric]
    caption = f"<caption>{escape(table.caption)}</caption>" if table.caption else ""
    head = "".join(
        f'<th scope="col"{kind}>{escape(title)}</th>' for title, kind in zip(table.columns, kinds, strict=True)
    )
    rows = "".join(
        "<tr>" + "".join(f"<td{kind}>{text}</td>" for text, kind in zip(row, kinds, strict=True)) + "</tr>\n"
        for row in texts
    )
    notes = "".join(f'<p class="small">{escape(note)}</p>\n' for note in table.notes)
    body = f"{caption}<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>"
    return f'<div class="table"><table>{body}</table></div>\n{notes}'


def _cell(cell: Cell) -> str:
    if isinstance(cell, Badge):
        return _badge(cell)
    if isinstance(cell, Link):
        if re.match(r"(?!https:)[a-z][a-z0-9+.-]*:", cell.target, re.IGNORECASE):
            raise ValueError(f"'{cell.target}' is no target of a link: give a relative path or an https address")
        return f'<a href="{escape(cell.target)}">{escape(cell.text)}</a>'
    return escape(cell_text(cell))


def cell_text(cell: str | float | int | bool | None) -> str:
    """Return what a table shows for a value: floats with three significant digits, None and NaN as a dash."""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, float) or cell is None:
        return number_text(cell)
    return str(cell)


def _badge(badge: Badge) -> str:
    return f'<span class="badge {badge.level}">{escape(badge.text)}</span>'


def _is_numeric(cells: Iterable[Cell]) -> bool:
    """Whether a column holds numbers, alone or with an interval or unit, and is therefore set flush right."""
    texts = [cell_text(cell) for cell in cells if not isinstance(cell, (Badge, Link))]
    filled = [text for text in texts if text not in ("", "–")]
    return bool(filled) and all(re.match(r"[+−-]?\d", text) for text in filled)
