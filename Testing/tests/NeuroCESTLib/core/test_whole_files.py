"""Files are written whole or not at all, and a failure to write is explained in one sentence."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest

from NeuroCESTLib.core import whole_files
from NeuroCESTLib.core.whole_files import csv_text, write_csv, write_rows, write_text


def test_a_file_appears_under_its_name_and_nothing_stays_beside_it(tmp_path: Path) -> None:
    assert write_text("Größe\n", tmp_path / "notes.txt") == tmp_path / "notes.txt"
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "Größe\n"
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_the_earlier_file_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "map.txt"
    path.write_text("earlier")
    with whole_files.whole_file(path) as temporary:
        temporary.write_text("new")
        assert temporary.name == path.name
        assert path.read_text() == "earlier"
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_write_keeps_the_earlier_file(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("earlier")
    with pytest.raises(error), whole_files.whole_file(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "earlier"
    assert os.listdir(tmp_path) == ["report.json"]


def test_companions_are_moved_before_the_file_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = []
    replace = os.replace

    def recorded(source: str | os.PathLike, target: str | os.PathLike) -> None:
        moved.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(whole_files.os, "replace", recorded)
    with whole_files.whole_file(tmp_path / "table.csv") as temporary:
        temporary.write_text("a,b\n")
        temporary.with_name("table.schema.csv").write_text("columns")
    assert moved == ["table.schema.csv", "table.csv"]
    assert sorted(os.listdir(tmp_path)) == ["table.csv", "table.schema.csv"]


def test_companions_without_the_file_are_an_error_and_are_not_moved(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match=r"table\.csv': nothing was written"),
        whole_files.whole_file(tmp_path / "table.csv") as temporary,
    ):
        temporary.with_name("table.schema.csv").write_text("columns")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("missing/map.txt", "the folder '.*missing' does not exist"),
        ("file/map.txt", "'.*file' is not a folder"),
        ("folder.txt", "it is a folder"),
    ],
)
def test_impossible_places_are_explained(place: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(ValueError, match=words) as caught:
        write_text("x", tmp_path / place)
    assert str(caught.value).startswith(f"cannot write '{tmp_path / place}': ")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full or its quota used up, free some space"),
        (errno.EDQUOT, "the disk is full or its quota used up, free some space"),
        (errno.EACCES, "the folder is read-only, choose another one"),
        (errno.EROFS, "the folder is read-only, choose another one"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_the_file_system_s_refusal_is_put_into_words(number: int, words: str, tmp_path: Path) -> None:
    path = tmp_path / "map.txt"
    path.write_text("earlier")
    with pytest.raises(ValueError, match=f"map.txt': {words}"), whole_files.whole_file(path) as temporary:
        temporary.write_text("half")
        raise OSError(number, os.strerror(number))
    assert path.read_text() == "earlier"
    assert os.listdir(tmp_path) == ["map.txt"]


def test_a_folder_in_which_nothing_can_be_made_is_named_as_read_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(ValueError, match="the folder is read-only, choose another one"):
        write_text("x", tmp_path / "report.json")


def test_an_input_that_is_missing_is_not_blamed_on_the_output(tmp_path: Path) -> None:
    with (
        pytest.raises(FileNotFoundError, match=r"input\.txt"),
        whole_files.whole_file(tmp_path / "output.txt") as temporary,
    ):
        temporary.write_text((tmp_path / "input.txt").read_text())
    assert os.listdir(tmp_path) == []


def test_tables_are_quoted_only_where_commas_or_quotes_demand_it(tmp_path: Path) -> None:
    rows = [["core", 1, 0.5], ['grey, "deep"', 2, float("nan")], ["", 3, None]]
    path = write_csv(["region", "n", "mean"], rows, tmp_path / "roi.csv")
    expected = 'region,n,mean\ncore,1,0.5\n"grey, ""deep""",2,nan\n,3,\n'
    assert path.read_bytes() == expected.encode()
    assert csv_text(["region", "n", "mean"], rows) == expected


def test_rows_of_named_values_may_have_different_columns(tmp_path: Path) -> None:
    rows = [{"case": "a", "dice": 1 / 3}, {"case": "b", "dice": float("nan"), "n": 2}, {"n": None}]
    write_rows(rows, tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text() == "case,dice,n\na,0.3333333,\nb,,2\n,,\n"
