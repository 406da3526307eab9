"""A page is one file that any browser shows without network and scripts, on screen, in the dark and on paper."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, find_browser, running_browser

from NeuroCESTLib.report.embedded import embedded_picture
from NeuroCESTLib.report.numbers import error_text, interval_text, number_text
from NeuroCESTLib.report.page import Badge, Link, Listing, Page, Picture, Section, Table, Text, page_html, write_page

A4_PIXELS = 695
"""Width of the text on an A4 page: 210 mm less the margins, at 96 pixels an inch."""


def a_picture() -> Picture:
    return embedded_picture(
        lambda figure: figure.subplots().plot([1, 3, 2]), (8, 3), "a line that rises and falls", "Figure 1: a line."
    )


def a_page(**changes: object) -> Page:
    table = Table(
        ["region", "n", "amide (%)", "state", "page"],
        [
            ["enhancing tumour", 12, 1.2345e-5, Badge("good", "good"), Link("open", "a/report.html")],
            ["rim <5 mm>", None, math.nan, Badge("look", "check"), ""],
        ],
        caption="Regions",
        notes=["A note below."],
    )
    sections = [
        Section("Checks", [Text(["Some words. " * 60]), a_picture()]),
        Section("Regions & changes", [table], [Section("Below", [Listing(["first", "second"], numbered=True)])]),
        Section("Methods", [Text(["How it was done."], small=True)], new_page=True),
    ]
    content = {
        "title": "CEST of tumour compartments",
        "sections": sections,
        "subtitle": "Two visits",
        "badge": Badge("check", "check"),
        "facts": {"field": "3 T", "visits": "2"},
        "warnings": ["the signal of visit 1 is weak", "look at the maps!"],
        "remark": "For research only.",
    }
    return Page(**{**content, **changes})


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    command = find_browser()
    if command is None:
        pytest.skip("needs a headless Chromium: run Testing/system_libraries.sh as root, or install chromium")
    with running_browser(command, tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.mark.parametrize(("media", "width"), [("screen", 1200), ("screen", 400), ("print", A4_PIXELS)])
def test_a_browser_shows_the_whole_page_and_loads_nothing(
    tmp_path: Path, browser: Browser, media: str, width: int
) -> None:
    visit = browser.visit(write_page(a_page(), tmp_path / "page.html"), width, media)
    assert (visit.requests, visit.errors) == ([], [])
    layout = visit.layout
    assert (layout["images"], layout["broken"], layout["unnamed"], layout["scripts"]) == (1, 0, 0, 0)
    assert (layout["width"], layout["wide"], layout["dead"]) == (width, [], [])
    assert layout["text"].index("2 warnings") < layout["text"].index("Some words")
    assert visit.pdf_pages == (2 if media == "print" else 0)


def test_the_browser_of_the_tests_sees_what_would_be_wrong(tmp_path: Path, browser: Browser) -> None:
    (tmp_path / "bad.html").write_text(
        '<img src="https://example.invalid/a.png"><script>undefinedFunction()</script>'
        '<p style="width: 3000px">wide</p><a href="#nowhere">dead</a>'
    )
    visit = browser.visit(tmp_path / "bad.html")
    assert visit.requests == ["https://example.invalid/a.png"]
    assert any("undefinedFunction" in error for error in visit.errors)
    layout = visit.layout
    assert (layout["broken"], layout["unnamed"], layout["scripts"], layout["dead"]) == (1, 1, 1, ["#nowhere"])
    assert layout["width"] > 1200


def test_what_a_page_might_try_to_load_is_refused(tmp_path: Path, browser: Browser) -> None:
    text = page_html(a_page()).replace("<main>", '<main><img alt="x" src="https://example.invalid/a.png">')
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    visit = browser.visit(tmp_path / "page.html")
    assert any("Content Security Policy" in error for error in visit.errors)


def _brightness(color: str) -> float:
    return sum(float(part) for part in color[color.index("(") + 1 : -1].split(",")[:3]) / 3


def test_the_page_follows_the_theme_of_the_reader_and_is_black_on_white_on_paper(
    tmp_path: Path, browser: Browser
) -> None:
    page = write_page(a_page(), tmp_path / "page.html")
    contrast = {}
    for media, dark in (("screen", False), ("screen", True), ("print", True)):
        layout = browser.visit(page, media=media, dark=dark).layout
        contrast[media, dark] = _brightness(layout["paper"]) - _brightness(layout["ink"])
    assert contrast["screen", False] > 150
    assert contrast["screen", True] < -150
    assert contrast["print", True] == 255


def test_texts_are_escaped() -> None:
    text = page_html(a_page(title="<b>1 & 2</b>", warnings=["<script>"], facts={"<i>": '"'}))
    assert "<h1>&lt;b&gt;1 &amp; 2&lt;/b&gt;" in text
    assert "<script" not in text
    assert "rim &lt;5 mm&gt;" in text


def test_a_page_without_warnings_has_no_box_for_them() -> None:
    assert "warnings" not in page_html(a_page(warnings=[])).partition("<body>")[2]


def test_numbers_are_set_flush_right_and_missing_ones_are_dashes() -> None:
    text = page_html(a_page())
    assert '<td class="number">1.23·10⁻⁵</td>' in text
    assert '<td class="number">–</td>' in text
    assert "<td>enhancing tumour</td>" in text


def test_links_lead_to_pages_and_nowhere_else() -> None:
    table = Table(["page"], [[Link("open", "javascript:alert(1)")]])
    with pytest.raises(ValueError, match="'javascript:alert\\(1\\)' is no target of a link"):
        page_html(a_page(sections=[Section("Links", [table])]))


def test_unknown_levels_and_uneven_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown level 'fine' of a badge; known ones are good, check, failed"):
        Badge("fine", "fine")
    with pytest.raises(ValueError, match="a row has 1 cells, but the table has 2 columns"):
        Table(["a", "b"], [["x"]])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1.23456, "1.23"),
        (-0.0123456, "−0.0123"),
        (0.0996, "0.0996"),
        (0.9999, "1.00"),
        (1234.5, "1234"),
        (2.149e-5, "2.15·10⁻⁵"),
        (3.2e7, "3.20·10⁷"),
        (math.nan, "–"),
        (None, "–"),
    ],
)
def test_numbers_have_three_significant_digits(value: float | None, text: str) -> None:
    assert number_text(value) == text


def test_numbers_are_written_with_their_intervals_and_errors() -> None:
    assert interval_text(1.2, 0.98, 1.43, signed=True) == "+1.20 (+0.980 to +1.43)"
    assert interval_text(1.2, math.nan, 1.43) == "1.20"
    assert interval_text(math.nan, 0, 1) == "–"
    assert error_text(1.2, 0.05) == "1.200 ± 0.050"
    assert error_text(-0.04138, 0.00023) == "−0.04138 ± 0.00023"
    assert error_text(2.41e-5, 1.3e-6) == "(2.41 ± 0.13)·10⁻⁵"
    assert error_text(1234.5, 31) == "1234 ± 31"
    assert error_text(math.nan, 0.1) == "–"
    assert error_text(1.2, math.nan) == "1.20"
