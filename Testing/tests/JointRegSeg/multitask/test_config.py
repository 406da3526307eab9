"""Configurations of tasks on single studies: those that come with the module, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from JointRegSegLib.multitask.config import is_multitask, multitask_from_dict, read_multitask, recipe_names
from JointRegSegLib.tasks.registry import STUDY_TASKS


def test_there_is_a_recipe_for_every_kind_of_task() -> None:
    assert {task.kind for name in recipe_names() for task in read_multitask(name).tasks} == set(STUDY_TASKS)


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_are_read_by_name_and_written_back(name: str) -> None:
    assert is_multitask(name)
    config = read_multitask(name)
    assert multitask_from_dict(config.to_dict()).to_dict() == config.to_dict()
    assert not config.network.registration


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": []}, "tasks is empty"),
        ({"tasks": "tissue"}, "tasks must be a list"),
        ({"tasks": ["tissue", "tissue"]}, "two tasks have the name 'tissue'"),
        (
            {"tasks": [{"task": "regression", "column": name} for name in ("a.b", "a_b")]},
            "the tasks 'a.b' and 'a_b' have the same name 'a_b' among the weights: rename one of these columns",
        ),
        ({"tasks": [{"task": "regression", "column": name} for name in ("task_type", "type")]}, "'task_type'"),
        ({"tasks": [{"task": "tissue", "classes": {"a": 1, "b": 1}}]}, "name a number twice"),
        ({"tasks": [{"task": "tissue", "weight": 0}]}, "weight is 0 but must be a number above 0"),
        ({"training": {"monitor": "dice"}}, "monitor is 'dice', which belongs to the joint task"),
        (
            {"tasks": ["tissue", {"task": "regression", "column": "age"}], "training": {"ema_decay": 0.9}},
            "the task 'age' standardises pooled codes by moments of the weights before the average: set ema_decay to 0",
        ),
        ({"data": {"path": "synthetic"}}, "path is 'synthetic' but must be one of memory, cache, on_the_fly"),
        ({"optimizer": {}}, "optimizer"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_file(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"^tasks\.json") as error:
        multitask_from_dict({"tasks": ["tissue"], **change}, "tasks.json")
    assert message in str(error.value)
