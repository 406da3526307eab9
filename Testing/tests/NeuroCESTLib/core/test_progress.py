"""Progress and cancelling: parts of a run, the terminal's bar and lines, Ctrl+C."""

from __future__ import annotations

import io
import os
import signal
import threading

import numpy as np
import pytest

from NeuroCESTLib.core import progress
from NeuroCESTLib.core.progress import Cancelled, TerminalProgress, part, progress_of_line, silent, terminal_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Recorded:
    """Progress that remembers what was reported, and cancels at a given report."""

    def __init__(self, cancel_at: int | None = None) -> None:
        self.reports: list[tuple[float, str]] = []
        self.cancel_at = cancel_at

    def __call__(self, fraction: float, message: str = "") -> None:
        if len(self.reports) == self.cancel_at:
            raise Cancelled
        self.reports.append((fraction, message))


def test_a_step_takes_its_part_of_the_whole() -> None:
    whole = Recorded()
    step = part(whole, 0.2, 0.6, "visit 1: ")
    for fraction in (-1.0, 0.0, 0.5, 2.0):
        step(fraction, "fitting")
    np.testing.assert_allclose([fraction for fraction, _ in whole.reports], [0.2, 0.2, 0.4, 0.6])
    assert {message for _, message in whole.reports} == {"visit 1: fitting"}


def test_parts_of_parts_stay_within_their_part() -> None:
    whole = Recorded()
    part(part(whole, 0.5, 1.0), 0.5, 1.0)(0.5)
    assert whole.reports == [(0.875, "")]


def test_cancelling_reaches_the_step_through_its_part() -> None:
    step = part(Recorded(cancel_at=1), 0, 0.5)
    step(0.1)
    with pytest.raises(Cancelled):
        step(0.2)


def test_silence_accepts_everything() -> None:
    silent(0.5)
    silent(0.5, "fitting")


def test_a_terminal_gets_a_bar_that_ends_with_a_line_break() -> None:
    terminal = Terminal()
    shown = TerminalProgress(terminal, width=10)
    shown(0.0, "fitting")
    shown(1.0, "fitting")
    shown.close()
    shown.close()
    bars = terminal.getvalue().split("\r")[1:]
    assert [bar.split("]")[0] for bar in bars] == ["[----------", "[##########"]
    assert terminal.getvalue().endswith("\n")
    assert terminal.getvalue().count("\n") == 1


def test_a_file_gets_a_line_now_and_then_and_one_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    file = io.StringIO()
    shown = TerminalProgress(file, line_interval_s=5)
    for fraction in (0.0, 0.1, 0.2, 0.3, 1.0):
        shown(fraction, "fitting")
        now[0] += 3
    shown.close()
    assert file.getvalue().splitlines() == ["  0 % fitting", " 20 % fitting", "100 % fitting"]


def test_a_cancelled_progress_raises_at_the_next_report() -> None:
    shown = TerminalProgress(io.StringIO())
    shown(0.1)
    assert not shown.cancelled
    shown.cancel()
    assert shown.cancelled
    with pytest.raises(Cancelled):
        shown(0.2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_cancels_at_the_next_report_and_the_second_interrupts_at_once(number: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Cancelled), terminal_progress() as shown:
        shown(0.1)
        os.kill(os.getpid(), number)
        shown(0.2)
    with pytest.raises(KeyboardInterrupt), terminal_progress():
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_a_process_that_ignores_control_c_goes_on_ignoring_it() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with terminal_progress() as shown:
            os.kill(os.getpid(), signal.SIGINT)
            shown(0.2)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not shown.cancelled


def test_other_threads_leave_the_signals_alone() -> None:
    handlers = []

    def run() -> None:
        with terminal_progress():
            handlers.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert handlers == [before]


def test_plain_lines_can_be_read_back() -> None:
    stream = io.StringIO()
    report = TerminalProgress(stream, line_interval_s=0.0)
    report(0.07, "epoch 3: loss 0.25, held out 0.3")
    report(1.0)
    lines = stream.getvalue().splitlines()
    assert [progress_of_line(line) for line in lines] == [(0.07, "epoch 3: loss 0.25, held out 0.3"), (1.0, "")]
    assert progress_of_line("warning: 3 % of the samples") is None
