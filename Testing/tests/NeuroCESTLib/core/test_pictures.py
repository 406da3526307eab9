"""Figures for report pictures: written whole, closed, and refused clearly without matplotlib."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from NeuroCESTLib.core.pictures import new_figure, save_figure


def test_a_figure_is_written_and_closed(tmp_path: Path) -> None:
    from matplotlib import pyplot

    figure = new_figure((3, 2), "schedule")
    save_figure(figure, tmp_path / "report.png")
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    assert not pyplot.fignum_exists(figure.number)


def test_a_figure_that_cannot_be_written_is_closed_too(tmp_path: Path) -> None:
    from matplotlib import pyplot

    figure = new_figure((3, 2))
    with pytest.raises(ValueError, match="does not exist"):
        save_figure(figure, tmp_path / "no" / "report.png")
    assert not pyplot.fignum_exists(figure.number)
    assert os.listdir(tmp_path) == []


def test_missing_matplotlib_is_said_clearly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ValueError, match="pip install matplotlib"):
        new_figure((3, 2))
