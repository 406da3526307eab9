"""What messages call a node, and silence for VTK's own, which go to standard error past Python."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

files_of_nodes: ContextVar[dict[str, tuple[str, str]] | None] = ContextVar("files_of_nodes", default=None)
"""Name and file of each node that a command has read, by its ID; None outside of commands."""


@contextlib.contextmanager
def quiet_vtk() -> Iterator[None]:
    """Silence VTK's warnings and errors while the block runs; the caller reports failures in its own words."""
    import vtk

    shown = vtk.vtkObject.GetGlobalWarningDisplay()
    vtk.vtkObject.GlobalWarningDisplayOff()
    try:
        yield
    finally:
        vtk.vtkObject.SetGlobalWarningDisplay(shown)


def comes_from(node: Any, paths: Sequence[str | os.PathLike]) -> None:
    """Note the files that a node was read from, for messages of the command that has read it; see ``called``."""
    files = files_of_nodes.get()
    if files is not None:
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        files[node.GetID()] = node.GetName(), f"'{paths[0]}'{more}"


def called(node: Any) -> str:
    """Return how messages call a node: by its file in a command, which was given files, and by its name elsewhere."""
    files = files_of_nodes.get()
    name, file = files.get(node.GetID(), ("", "")) if files else ("", "")
    return file if file and name == node.GetName() else f"'{node.GetName()}'"
