"""What messages call a node, and silence for VTK's own, which go to standard error past Python."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

from NeuroCESTLib.core.messages.input_errors import naming
from NeuroCESTLib.core.whole_files import hide_name

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

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
    """Note the files that a node was read from, for messages of the command that has read it; see ``called``.

    With ``--anonymous``, its name is left out of what is written, also where Slicer has made it a unique one.
    """
    hide_name(node.GetName(), paths[0])
    files = files_of_nodes.get()
    if files is not None:
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        files[node.GetID()] = node.GetName(), f"'{paths[0]}'{more}"


def called(node: Any) -> str:
    """Return how messages call a node: by its file in a command, which was given files, and by its name elsewhere."""
    files = files_of_nodes.get()
    name, file = files.get(node.GetID(), ("", "")) if files else ("", "")
    return file if file and name == node.GetName() else f"'{node.GetName()}'"


def check_node(value: Any) -> None:
    """Check that a value is a node, and not its name.

    Raises:
        ValueError: It is no node; the message tells how to get one.
    """
    if not hasattr(value, "IsA"):
        hint = f"slicer.util.getNode({value!r})" if isinstance(value, str) else "slicer.util.getNode('its name')"
        raise ValueError(f"{value!r} is not a node of the scene: give the node itself, such as {hint}")


def names_inputs(
    default: str, roles: Mapping[str, str]
) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Decorate a method of a Logic: its messages open with the file or node that they are about.

    Args:
        default: Argument with the node that a message is about where it says nothing else.
        roles: Argument by the role that messages may be about, see ``core.messages.input_errors``.
    """

    def decorate(call: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        signature = inspect.signature(call)

        @functools.wraps(call)
        def named(*args: Parameters.args, **keywords: Parameters.kwargs) -> Result:
            given = signature.bind(*args, **keywords).arguments
            given |= given.get("acquisition", {})  # the further arguments of a method that hands them on
            with naming(names_of(given, roles), _name(given.get(default)) or ""):
                return call(*args, **keywords)

        return named

    return decorate


def names_of(arguments: Mapping[str, Any], roles: Mapping[str, str]) -> dict[str, str]:
    """Return what messages call the arguments of a method of a Logic, by the role that messages may be about.

    Args:
        arguments: Files, nodes and other values by the name of their argument.
        roles: Name of an argument by its role. A role is left out where a preset is named in place of a file.
    """
    found = {role: _name(arguments.get(argument)) for role, argument in roles.items()}
    return {role: name for role, name in found.items() if name is not None}


def _name(value: Any) -> str | None:
    """What messages call an argument: its file or node; empty for other values, None for the name of a preset."""
    if isinstance(value, str | os.PathLike):
        return f"'{value}'" if os.path.exists(value) else None
    return called(value) if hasattr(value, "GetName") else ""
