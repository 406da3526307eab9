"""Computations that leave a window alive: they run in a thread while the main thread goes on to handle its events."""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from NeuroCESTLib.core.progress import Cancelled, Progress

Result = TypeVar("Result")

EVENT_INTERVAL_S = 0.03
"""Time between two calls of an interactive progress while a computation runs."""


class InteractiveProgress:
    """Progress that a window shows; each call also handles the events of the window.

    Args:
        report: Shows the progress and handles events; it raises ``Cancelled`` after a click on Cancel.
    """

    def __init__(self, report: Progress) -> None:
        self._report = report

    def __call__(self, fraction: float, message: str = "") -> None:
        """Show progress and handle events; raise ``Cancelled`` after a click on Cancel."""
        self._report(fraction, message)


def in_background(work: Callable[[Progress], Result], progress: Progress) -> Result:
    """Do some work; where a window waits for it, in a thread, while this thread handles the events of the window.

    After Cancel the window stays alive until the work has noticed it, at its next report of progress. Everything that
    belongs to the scene stays out of the work, because the scene is for the main thread alone.

    Args:
        work: Function of the progress to report to.
        progress: Progress of the run. The thread is used for an ``InteractiveProgress`` only.

    Returns:
        What ``work`` returns; its exceptions are raised here.
    """
    if not isinstance(progress, InteractiveProgress):
        return work(progress)
    worker = _Worker(work)
    while not worker.ended.wait(EVENT_INTERVAL_S):
        try:
            progress(worker.fraction, worker.message)
        except BaseException:
            worker.cancel()
            while not worker.ended.wait(EVENT_INTERVAL_S):
                with contextlib.suppress(Cancelled):
                    progress(worker.fraction, "stopping")
            raise
    return worker.result()


def load_libraries(names: Sequence[str], progress: Progress) -> None:
    """Import Python modules in the background, because that takes seconds for torch and what builds on it.

    Args:
        names: Full names of the modules.
        progress: Progress of the run.
    """

    def load(report: Progress) -> None:
        for name in names:
            report(0.0, "loading the libraries")
            importlib.import_module(name)

    in_background(load, progress)


class _Worker(Generic[Result]):
    """Work in a thread of its own.

    Attributes:
        fraction: Fraction of the work that is done.
        message: What is being done.
        ended: Set when the thread has done its work or has failed.
    """

    def __init__(self, work: Callable[[Progress], Result]) -> None:
        self.fraction = 0.0
        self.message = ""
        self.ended = threading.Event()
        self._cancelled = threading.Event()
        self._results: list[Result] = []
        self._error: BaseException | None = None
        threading.Thread(target=self._run, args=(work,), daemon=True).start()

    def cancel(self) -> None:
        """Make the next report of the work raise ``Cancelled``."""
        self._cancelled.set()

    def result(self) -> Result:
        """Return what the work has returned, or raise its exception."""
        if self._error is not None:
            raise self._error
        return self._results[0]

    def _report(self, fraction: float, message: str = "") -> None:
        if self._cancelled.is_set():
            raise Cancelled
        self.fraction, self.message = fraction, message

    def _run(self, work: Callable[[Progress], Result]) -> None:
        try:
            self._results.append(work(self._report))
        except BaseException as error:  # handed to the thread that waits
            self._error = error
        finally:
            self.ended.set()
