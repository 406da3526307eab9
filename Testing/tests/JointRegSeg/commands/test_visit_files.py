"""Positions of images from an earlier run, which must not be taken for those of a later one that finds none."""

from __future__ import annotations

from pathlib import Path

import pytest

from JointRegSegLib.commands.visit_files import STUDIES, positions
from NeuroCESTLib.batch.frame import OutputFolder


@pytest.mark.parametrize(
    ("roles", "folders", "own"),
    [
        (("",), ("",), "t1ce_position.tfm"),
        (STUDIES, ("",), "moving_flair_position.tfm"),
        (STUDIES, ("visit2_to_visit1", "visit3_to_visit1"), "visit3_to_visit1/fixed_t2_position.tfm"),
    ],
    ids=["segment", "apply", "apply --visit"],
)
def test_a_run_removes_the_positions_of_an_earlier_run_and_no_other_file(
    tmp_path: Path, roles: tuple[str, ...], folders: tuple[str, ...], own: str
) -> None:
    output = tmp_path / "study"
    others = {"coil_position.tfm", "visit2/t2_position.tfm", "visit2/moving_t2_position.tfm", "visit9/notes.txt"}
    for name in (own, *others):
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_text("of an earlier run or of the user")
    with OutputFolder(output, replaced=positions(roles, folders)) as folder:
        (folder / "report.json").write_text("{}")
    left = {file.relative_to(output).as_posix() for file in output.rglob("*") if file.is_file()}
    assert left == {*others, "report.json"}
