"""Tables of named values."""

from __future__ import annotations

from pathlib import Path

from NeuroCESTLib.core.whole_files import write_rows


def test_rows_may_have_different_columns(tmp_path: Path) -> None:
    rows = [{"case": "a", "dice": 1 / 3}, {"case": "b", "dice": float("nan"), "n": 2}, {"n": None}]
    write_rows(rows, tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text() == "case,dice,n\na,0.3333333,\nb,,2\n,,\n"
