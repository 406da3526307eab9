"""Protocols from files: text files of offsets, and what is said about files that are damaged or missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from arbitrary_values import SEEDED, one_line, reads_or_explains
from hypothesis import given
from hypothesis import strategies as st

from CESTQuantLib.formats.protocol_files import read_offsets, read_protocol


@given(st.binary(max_size=80) | st.text(max_size=60).map(lambda t: t.encode("utf-8", "ignore")))
@SEEDED
def test_arbitrary_files_never_crash_the_readers(tmp_path: Path, content: bytes) -> None:
    for suffix in (".json", ".txt", ".seq"):
        path = tmp_path / f"file{suffix}"
        path.write_bytes(content)
        reads_or_explains(lambda path=path: read_protocol(path), str(path))


@pytest.mark.parametrize("content", ["9" * 5000, "[" * 100_000, '{"field_strength_T": 3', "NaN", "[1, 2]", "", "null"])
def test_damaged_json_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "p.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"p\.json") as caught:
        read_protocol(path)
    one_line(caught.value, str(path))


# text files of offsets


def test_offsets_file_with_comments_blank_lines_and_commas(tmp_path: Path) -> None:
    path = tmp_path / "offsets.txt"
    path.write_text("# ppm\n-3.5\n\n0, 1.5  # two on a line\n3.5e0\n")
    assert read_offsets(path).tolist() == [-3.5, 0.0, 1.5, 3.5]
    protocol = read_protocol(path)
    assert protocol.saturation_time_s.tolist() == [0.0] * 4


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("1\n2\nthree\n", "line 3 holds 'three'"),
        ("", "no offsets found"),
        ("# none\n", "no offsets found"),
        ("1\nnan\n", "not finite"),
        ("1\ninf\n", "not finite"),
    ],
)
def test_unusable_offsets_files_are_named(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "offsets.txt"
    path.write_text(content)
    with pytest.raises(ValueError, match=words) as caught:
        read_protocol(path)
    one_line(caught.value, str(path))


@pytest.mark.parametrize("name", ["absent.json", "absent.txt", "absent.seq", "x" * 300 + ".txt"])
def test_missing_files_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=name[:20]) as caught:
        read_protocol(tmp_path / name)
    one_line(caught.value, str(tmp_path / name))


def test_a_folder_is_refused(tmp_path: Path) -> None:
    for name in ("folder.json", "folder.txt", "folder.seq"):
        (tmp_path / name).mkdir()
        with pytest.raises(ValueError, match=name):
            read_protocol(tmp_path / name)
