"""The registry of tasks."""

from __future__ import annotations

import pytest

from JointRegSegLib.tasks.registry import TASKS, find_task
from JointRegSegLib.training.config_files import config_from_dict


def test_every_task_is_found_by_its_name() -> None:
    assert "joint" in TASKS
    assert all(find_task(name) is task and task.name == name for name, task in TASKS.items())


def test_an_unknown_task_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"config: task 'colour' is unknown; use one of joint"):
        config_from_dict({"task": "colour"}, "config")
