"""Batch commands that run beside the application, as processes of their own."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from typing import Any

import qt

KILL_AFTER_MS = 5000
"""Time in ms after which a process that was asked to stop is killed."""


class BackgroundCommand:
    """A batch command that runs in Slicer's Python while the window stays alive.

    Args:
        on_line: Called with every line that the command writes.
        on_end: Called at the end with the exit status; None where the process could not be started or was killed.
    """

    def __init__(self, on_line: Callable[[str], None], on_end: Callable[[int | None], None]) -> None:
        self._on_line, self._on_end = on_line, on_end
        self._process: Any = None
        self._rest = ""

    @property
    def running(self) -> bool:
        """Whether the command runs."""
        return self._process is not None

    def start(self, script: str, arguments: list[str]) -> None:
        """Start a Python file; does nothing while a command runs.

        Args:
            script: Path of the file.
            arguments: Its arguments.
        """
        if self.running:
            return
        process = self._process = qt.QProcess()
        self._rest = ""
        process.setProcessChannelMode(qt.QProcess.MergedChannels)
        process.connect("readyReadStandardOutput()", self._read)
        process.connect("finished(int,QProcess::ExitStatus)", self._finished)
        process.connect("errorOccurred(QProcess::ProcessError)", self._failed)
        # In the application PythonSlicer is the interpreter with Slicer's packages.
        process.start(shutil.which("PythonSlicer") or sys.executable, ["-u", script, *arguments])

    def stop(self) -> None:
        """Ask the command to stop, which keeps its last checkpoint; kill it if it does not."""
        process = self._process
        if process is None:
            return
        process.terminate()
        qt.QTimer.singleShot(KILL_AFTER_MS, lambda: process is self._process and process.kill())

    def _read(self) -> None:
        data = self._process.readAllStandardOutput().data()
        text = data if isinstance(data, str) else bytes(data).decode("utf-8", "replace")
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._on_line(line)

    def _finished(self, code: int, status: Any) -> None:
        if self._process is None:
            return
        self._read()
        if self._rest:
            self._on_line(self._rest)
        self._process = None
        self._on_end(None if status == qt.QProcess.CrashExit else code)

    def _failed(self, error: Any) -> None:
        if self._process is not None and error == qt.QProcess.FailedToStart:
            self._process = None
            self._on_end(None)
