"""Matplotlib is optional: without it pictures are left out with a warning, and no result is lost."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from JointRegSegLib.evaluation.overview import draw_overview
from JointRegSegLib.pictures.cases import CasePicture, draw_cases
from JointRegSegLib.pictures.curves import draw_curves


@pytest.mark.parametrize(
    "draw",
    [
        lambda path: draw_cases([CasePicture("a 1", "", "FLAIR", np.zeros((4, 5, 6)))], path),
        lambda path: draw_curves([{"step": 1, "loss": 1.0}], path),
        lambda path: draw_overview({"small": [{"fixed_dice_whole_tumor": 0.5}]}, path),
    ],
    ids=["cases", "curves", "overview"],
)
def test_a_missing_matplotlib_leaves_the_picture_out(draw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "picture.png"
    draw(path)
    assert path.read_bytes().startswith(b"\x89PNG")
    path.unlink()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.warns(UserWarning, match="a picture is left out: pictures need matplotlib"):
        draw(path)
    assert list(tmp_path.iterdir()) == []
