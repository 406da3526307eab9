"""``report.json``: inputs, settings, versions, timings and results of a run."""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import os
import platform
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

from NeuroCESTLib.core.checksum import sha256
from NeuroCESTLib.core.headers.parts import files_of_image
from NeuroCESTLib.core.output.inputs import add_input_of_run
from NeuroCESTLib.core.whole_files import hide_path, write_text, written_as
from NeuroCESTLib.scene.image_files import existing_file

_PACKAGES = ("neurocest", "torch", "numpy", "SimpleITK", "vtk", "pypulseq")


class Report:
    """Record of one run, from its start until ``write`` saves it as ``report.json``.

    Attributes:
        command: Command that was run, such as ``cestquant fit``.
        settings: Arguments and options of the run.
        device: Device that computed.
        summary: Results in numbers.
        warnings: Sentences for the user.
        verdict: Entries on whether to believe the results; empty for commands that do not judge them.
        outputs: Names of the maps that were written, by which they are told from others in the same folder.
    """

    def __init__(self, command: str, settings: Mapping[str, Any] | None = None, device: str = "cpu") -> None:
        self.command = command
        self.settings: dict[str, Any] = dict(settings or {})
        self.device = device
        self.summary: dict[str, Any] = {}
        self.warnings: list[str] = []
        self.verdict: dict[str, Any] = {}
        self.outputs: list[str] = []
        self._inputs: list[dict[str, Any]] = []
        self._timings_s: dict[str, float] = {}
        self._started = datetime.datetime.now(datetime.timezone.utc)
        self._start = time.perf_counter()

    def require_folder(self, folder: str | os.PathLike) -> None:
        """Check that a folder for the results holds none of another command, whose report would be replaced.

        Raises:
            ValueError: It holds the ``report.json`` of another command.
        """
        try:
            content = json.loads((Path(folder) / "report.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):  # none, or none of ours
            return
        other = content.get("command") if isinstance(content, dict) else None
        if isinstance(other, str) and other != self.command:
            raise ValueError(
                f"'{os.fspath(folder)}' holds the results of '{other}', whose report.json would be lost: give another "
                "folder with --output"
            )

    def add_input(self, role: str, path: str | os.PathLike) -> None:
        """Record an input file with its size and SHA-256 checksum; the results of the command do not replace it.

        Those of an image in several files, such as a header and its data, are recorded together.

        Args:
            role: What the file is used for, such as ``signal``.
            path: The file.

        Raises:
            ValueError: The file is missing or cannot be read.
        """
        path = existing_file(path)
        files = files_of_image(path)
        for file in files:
            hide_path(file)
            add_input_of_run(file)
        size = sum(file.stat().st_size for file in files)
        entry = {"role": role, "path": str(path), "bytes": size, "sha256": sha256(*files)}
        if len(files) > 1:
            entry["files"] = [str(file) for file in files]
        self._inputs.append(entry)

    @contextlib.contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Measure the wall time of a step; repeated steps of the same name add up."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._timings_s[step] = self._timings_s.get(step, 0.0) + time.perf_counter() - start

    @contextlib.contextmanager
    def warned(self) -> Iterator[None]:
        """Record the warnings that are meant for the user, each once; they are shown at once all the same."""
        with warnings.catch_warnings():
            default = warnings.showwarning

            def show(
                message: Warning | str,
                category: type[Warning],
                filename: str,
                lineno: int,
                file: TextIO | None = None,
                line: str | None = None,
            ) -> None:
                if category is UserWarning and str(message) not in self.warnings:
                    self.warnings.append(str(message))
                default(message, category, filename, lineno, file, line)

            warnings.showwarning = show
            yield

    def add_times(self, times_s: Mapping[str, float]) -> None:
        """Add wall times in s that were measured elsewhere; they belong here and not into the summary.

        The summary is the same in every repetition of a run.
        """
        self._timings_s.update(times_s)

    def as_dict(self) -> dict[str, Any]:
        """Return the content of ``report.json``; NaN and infinity become null."""
        timings = {**self._timings_s, "total": time.perf_counter() - self._start}
        return plain_values(
            {
                "command": self.command,
                "started": self._started.isoformat(timespec="seconds"),
                "inputs": self._inputs,
                **({"outputs": self.outputs} if self.outputs else {}),
                "settings": self.settings,
                "versions": versions(),
                "device": self.device,
                "timings_s": {step: round(seconds, 3) for step, seconds in timings.items()},
                **self.verdict,
                "summary": self.summary,
                "warnings": self.warnings,
            }
        )

    def write(self, folder: str | os.PathLike) -> Path:
        """Write ``report.json`` into a folder.

        Returns:
            The path of the file.

        Raises:
            ValueError: The file cannot be written.
        """
        plain = self.as_dict()
        content = _shown(plain)
        if self.outputs:
            content["outputs"] = plain["outputs"]  # they are called after quantities, and found by their names
        return write_text(json.dumps(content, indent=2) + "\n", Path(folder) / "report.json")


def _shown(value: Any) -> Any:
    """Plain values with their texts, and the keys that are paths, as they stand in a report."""
    if isinstance(value, dict):
        return {written_as.get()(key) if os.sep in key else key: _shown(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shown(item) for item in value]
    return written_as.get()(value) if isinstance(value, str) else value


def versions() -> dict[str, str]:
    """Return the versions of Python, of the packages that results depend on, and of Slicer."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    found["slicer"] = _slicer_version()
    return found


def _slicer_version() -> str:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return f"slicer-core {metadata.version('slicer-core')}"
    app = getattr(sys.modules.get("slicer"), "app", None)
    return str(getattr(app, "applicationVersion", "unknown"))


def plain_values(value: Any) -> Any:
    """Return a value in JSON's own types; NaN and infinity become None, unknown types texts."""
    if isinstance(value, Mapping):
        return {str(key): plain_values(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain_values(item) for item in value]
    if hasattr(value, "tolist"):  # numpy arrays and numbers, torch tensors
        return plain_values(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value)
