"""The registry of tasks: a new one costs its file and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from NeuroCESTLib.core.checked_json import settings_from_json

from .autoencoder import Autoencoder
from .classification import Classification
from .joint import JOINT
from .protocol import Task
from .regression import Regression
from .study_task import StudyTask
from .super_resolution import SuperResolution
from .tissue import Tissue

TASKS: dict[str, Task] = {task.name: task for task in (JOINT,)}
"""The known tasks on pairs of studies by name."""

STUDY_TASKS: dict[str, type[StudyTask]] = {
    task.kind: task for task in (Tissue, Regression, Classification, Autoencoder, SuperResolution)
}
"""The known tasks on single studies by the name of their kind."""


def find_task(name: str) -> Task:
    """Return the task on pairs of studies of a name.

    Raises:
        ValueError: The name is unknown; the message lists the known ones.
    """
    if name not in TASKS:
        others = f" or, as an entry of 'tasks', one of {', '.join(STUDY_TASKS)}"
        raise ValueError(f"task '{name}' is unknown; use one of {', '.join(TASKS)}{others}")
    return TASKS[name]


def study_task_from_dict(values: Any, where: str) -> StudyTask:
    """Build a task on single studies from its settings.

    Args:
        values: Name of the kind, or an object with the name as ``task`` and the settings of the task.
        where: File and place, for messages.

    Raises:
        ValueError: The kind or a key is unknown, or a value cannot be used; the message names it.
    """
    if isinstance(values, str):
        values = {"task": values}
    if not isinstance(values, Mapping) or "task" not in values:
        raise ValueError(f"{where}: a task is a name or an object with the key 'task', not {values!r}")
    kind = values["task"]
    if not isinstance(kind, str) or kind not in STUDY_TASKS:
        raise ValueError(f"{where}: task {kind!r} is unknown; use one of {', '.join(STUDY_TASKS)}")
    settings = {"loss_name" if name == "loss" else name: value for name, value in values.items() if name != "task"}
    needed = [f for f in ("column",) if kind in ("regression", "classification") and f not in settings]
    if needed:
        raise ValueError(f"{where}: the task '{kind}' needs 'column', the column of the manifest with its targets")
    return settings_from_json(STUDY_TASKS[kind], settings, f"{where}: {kind}")
