"""The registry of tasks: a new one costs its file and one line here."""

from __future__ import annotations

from .joint import JOINT
from .protocol import Task

TASKS: dict[str, Task] = {task.name: task for task in (JOINT,)}
"""The known tasks by name."""


def find_task(name: str) -> Task:
    """Return the task of a name.

    Raises:
        ValueError: The name is unknown; the message lists the known ones.
    """
    if name not in TASKS:
        raise ValueError(f"task '{name}' is unknown; use one of {', '.join(TASKS)}")
    return TASKS[name]
