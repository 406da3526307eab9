"""Sentences of ``jointregseg evaluate``. What it computes is tested with the evaluation."""

from __future__ import annotations

from JointRegSegLib.commands.evaluate import _cases, _named


def test_cases_are_counted_in_the_singular_and_plural() -> None:
    assert [_cases(count) for count in (0, 1, 2)] == ["0 cases", "1 case", "2 cases"]


def test_messages_of_progress_start_with_the_title_of_the_case() -> None:
    reported: list[tuple[float, str]] = []
    step = _named(lambda fraction, message="": reported.append((fraction, message)), "w: a 1 2")
    step(0.1)
    step(0.2, "segmenting")
    assert reported == [(0.1, "w: a 1 2"), (0.2, "w: a 1 2: segmenting")]
