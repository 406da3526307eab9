"""Protocols from files, and what is said about files that are damaged or missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from arbitrary_values import SEEDED, one_line, reads_or_explains
from hypothesis import given
from hypothesis import strategies as st

from CESTQuantLib.formats.protocol_files import read_protocol


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


def test_protocols_are_read_with_a_byte_order_mark_a_typographic_minus_and_any_case_of_the_suffix(
    tmp_path: Path,
) -> None:
    path = tmp_path / "P.JSON"
    text = '{"field_strength_T": 3, "offsets_ppm": [\u22123.5, 3.5], "b1_uT": 1, "saturation_time_s": 1}'
    path.write_text(f"\ufeff{text}", encoding="utf-8")
    assert read_protocol(path).offsets_ppm.tolist() == [-3.5, 3.5]


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
