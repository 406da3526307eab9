"""The files that a run reads, which its results must not replace."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path

inputs_of_run: ContextVar[dict[Path, str] | None] = ContextVar("inputs_of_run", default=None)
"""Input files of the command that runs, without symbolic links, each with its path as the user gave it; None outside
of a command."""


def add_input_of_run(path: str | os.PathLike) -> None:
    """Remember a file that the command reads."""
    found = inputs_of_run.get()
    if found is not None:
        found[Path(path).resolve()] = str(path)


def require_inputs_kept(folder: str | os.PathLike, writes: Callable[[Path], bool]) -> None:
    """Check that no result takes the place of an input.

    Args:
        folder: Folder of the results.
        writes: Says for a path relative to the folder whether a result replaces it.

    Raises:
        ValueError: A result does; the message names the input.
    """
    target = Path(folder).resolve()
    for file, given in (inputs_of_run.get() or {}).items():
        if file.is_relative_to(target) and writes(file.relative_to(target)):
            raise ValueError(f"'{given}' is an input of this run and would be replaced: choose another --output")
