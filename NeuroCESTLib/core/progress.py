"""Progress and cancelling, the same for the panel, the console and the terminal.

A long function takes an argument ``progress`` and calls ``progress(fraction, message)`` with the fraction that is
done, from 0 to 1. The call may raise ``Cancelled``, which the function must not catch.
"""

from __future__ import annotations

import contextlib
import io
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Protocol, TextIO


class Cancelled(Exception):  # noqa: N818  not an error: the user asked for it
    """The user stopped the run."""


class Progress(Protocol):
    """Callable to which long functions report."""

    def __call__(self, fraction: float, message: str = "") -> None:
        """Report progress.

        Args:
            fraction: Part of the work that is done, from 0 to 1.
            message: What is being done, for the user.

        Raises:
            Cancelled: The user asked to stop.
        """


def silent(fraction: float, message: str = "") -> None:
    """Ignore progress; the default where nobody watches."""


def part(progress: Progress, start: float, end: float, prefix: str = "") -> Progress:
    """Return the progress of one step of a longer run.

    Args:
        progress: Progress of the whole run.
        start: Fraction of the whole at which the step begins.
        end: Fraction of the whole at which the step ends.
        prefix: Text that opens every message of the step.
    """

    def report(fraction: float, message: str = "") -> None:
        progress(start + (end - start) * min(max(fraction, 0.0), 1.0), prefix + message)

    return report


class TerminalProgress:
    """Progress on standard error: a bar on a terminal, plain lines elsewhere.

    Args:
        stream: Stream to write to; standard error by default.
        width: Length of the bar in characters.
        line_interval_s: Shortest time between two plain lines.
    """

    def __init__(self, stream: TextIO | None = None, width: int = 30, line_interval_s: float = 5.0) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._width = width
        self._line_interval_s = line_interval_s
        self._terminal = self._stream.isatty()
        self._cancelled = threading.Event()
        self._last_time = float("-inf")
        self._drawn = False

    @property
    def cancelled(self) -> bool:
        """Whether ``cancel`` has been called."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Make the next report raise ``Cancelled``."""
        self._cancelled.set()

    def __call__(self, fraction: float, message: str = "") -> None:
        """Show progress; raise ``Cancelled`` after a call of ``cancel``."""
        if self.cancelled:
            raise Cancelled
        fraction = min(max(float(fraction), 0.0), 1.0)
        now = time.monotonic()
        interval = 0.1 if self._terminal else self._line_interval_s
        if fraction < 1.0 and now - self._last_time < interval:
            return
        self._last_time = now
        if self._terminal:
            filled = round(fraction * self._width)
            bar = "#" * filled + "-" * (self._width - filled)
            self._stream.write(f"\r[{bar}] {100 * fraction:3.0f} % {message}\x1b[K")
            self._drawn = True
        else:
            self._stream.write(f"{100 * fraction:3.0f} % {message}\n")
        self._stream.flush()

    def close(self) -> None:
        """End the line of the bar."""
        if self._drawn:
            self._stream.write("\n")
            self._stream.flush()
            self._drawn = False


def progress_of_line(line: str) -> tuple[float, str] | None:
    """Return the fraction and the message of a plain line of :class:`TerminalProgress`; None for any other line."""
    found = re.match(r"\s*(\d+) % ?(.*)", line)
    return (int(found[1]) / 100, found[2].strip()) if found else None


@contextlib.contextmanager
def terminal_progress(visible: bool = True) -> Iterator[TerminalProgress]:
    """Show progress on the terminal while the block runs.

    The first Ctrl+C (or SIGTERM) cancels at the next report of progress; the second one interrupts at once. A process
    that was started to ignore Ctrl+C, such as one in the background of a script or a stage of a cohort, goes on
    ignoring it.

    Args:
        visible: Write to the terminal; a process among others that shows nothing can still be cancelled.

    Yields:
        The progress to pass on.
    """
    progress = TerminalProgress(None if visible else io.StringIO())

    def interrupt(number: int, frame: object) -> None:
        if progress.cancelled:
            raise KeyboardInterrupt
        progress.cancel()

    main = threading.current_thread() is threading.main_thread()
    numbers = [number for number in (signal.SIGINT, signal.SIGTERM) if main]
    heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, interrupt) for number in heard}
    try:
        yield progress
    finally:
        progress.close()
        for number, handler in previous.items():
            signal.signal(number, handler)
