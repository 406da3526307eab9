"""Sentences of ``jointregseg evaluate``. What it computes is tested with the evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest

from JointRegSegLib.batch import main
from JointRegSegLib.commands.evaluate import _named, _Pictures
from JointRegSegLib.commands.evaluate_tasks import cases_in_words

EVALUATION_FILES = ["cases.csv", "report.json", "summary.csv", "summary.json", "variants.csv"]


def test_cases_are_counted_in_the_singular_and_plural() -> None:
    assert [cases_in_words(count) for count in (0, 1, 2)] == ["0 cases", "1 case", "2 cases"]


def test_messages_of_progress_start_with_the_title_of_the_case() -> None:
    reported: list[tuple[float, str]] = []
    step = _named(lambda fraction, message="": reported.append((fraction, message)), "w: a 1 2")
    step(0.1)
    step(0.2, "segmenting")
    assert reported == [(0.1, "w: a 1 2"), (0.2, "w: a 1 2: segmenting")]


def evaluate_broken(folder: Path, *more: str) -> int:
    """Evaluate a cohort whose only case cannot be read; the result goes into ``folder / "out"``."""
    (folder / "flair.nii.gz").write_bytes(b"no image")
    (folder / "cohort.csv").write_text("subject,flair\nA,flair.nii.gz\n")
    arguments = ["--manifest", str(folder / "cohort.csv"), "--weights", "none", "--output", str(folder / "out")]
    return main(["evaluate", *arguments, "--no-pictures", *more])


def test_a_result_with_failed_cases_replaces_no_earlier_one(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    assert evaluate_broken(tmp_path) == 1  # without an earlier result there is nothing to lose
    assert "no image" not in capfd.readouterr().err
    assert sorted(path.name for path in out.iterdir()) == EVALUATION_FILES

    (out / "cases.csv").write_text("earlier\n")
    assert evaluate_broken(tmp_path) == 1
    assert f"'{out / 'partial' / 'cases.csv'}'; the earlier result in '{out}' is kept" in capfd.readouterr().err
    assert (out / "cases.csv").read_text() == "earlier\n"
    assert sorted(path.name for path in (out / "partial").iterdir()) == EVALUATION_FILES

    assert evaluate_broken(tmp_path, "--overwrite") == 1
    assert "flair.nii.gz" in (out / "cases.csv").read_text()


def test_names_that_become_the_same_file_name_are_numbered(tmp_path: Path) -> None:
    pictures = _Pictures(tmp_path, several_weights=True)
    cases = (("a b", "p 1"), ("a b", "p_1"), ("a_b", "p 1"), ("a b", "p 1"))
    names = [pictures.path(*case).relative_to(tmp_path).as_posix() for case in cases]
    assert names == ["a_b/p_1.png", "a_b/p_1_2.png", "a_b_2/p_1.png", "a_b/p_1.png"]
