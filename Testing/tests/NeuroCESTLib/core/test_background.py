"""Work in a thread while the main thread handles the events of a window."""

from __future__ import annotations

import sys
import threading
import time

import pytest

from NeuroCESTLib.core.background import InteractiveProgress, in_background, load_libraries
from NeuroCESTLib.core.progress import Cancelled, silent


def test_window_is_served_while_the_work_does_not_report() -> None:
    reports, may_end = [], threading.Event()

    def report(fraction: float, message: str = "") -> None:
        reports.append((fraction, message))
        if len(reports) == 5:
            may_end.set()

    def work(progress):
        progress(0.4, "computing")
        may_end.wait(60)  # a computation of any length
        return threading.current_thread()

    assert in_background(work, InteractiveProgress(report)) is not threading.current_thread()
    assert (0.4, "computing") in reports


def test_cancel_waits_for_the_work_and_goes_on_to_serve_the_window() -> None:
    served, ended = [], []

    def report(fraction: float, message: str = "") -> None:
        served.append(message)
        raise Cancelled

    def work(progress):
        while len(served) < 3:
            time.sleep(0.001)
        try:
            progress(0.5, "half")
        finally:
            ended.append(True)

    with pytest.raises(Cancelled):
        in_background(work, InteractiveProgress(report))
    assert ended == [True]
    assert served[1:3] == ["stopping", "stopping"]


def test_error_of_the_work_is_raised_where_it_is_waited_for() -> None:
    def work(progress):
        raise ValueError("no voxel")

    with pytest.raises(ValueError, match="no voxel"):
        in_background(work, InteractiveProgress(silent))


def test_without_a_window_the_work_is_done_at_once() -> None:
    assert in_background(lambda progress: threading.current_thread(), silent) is threading.current_thread()


def test_libraries_are_loaded_while_the_window_is_served() -> None:
    served = []
    load_libraries(("colorsys", "wave"), InteractiveProgress(lambda fraction, message="": served.append(message)))
    assert {"colorsys", "wave"} <= set(sys.modules)
