"""Settings read from JSON: built when they fit, refused in one sentence that names the place and the keys."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from NeuroCESTLib.core.checked_json import settings_from_json


@dataclass(frozen=True)
class Oven:
    temperature_C: float = 180.0
    fan: bool = False

    def __post_init__(self) -> None:
        if self.temperature_C > 300:
            raise ValueError(f"temperature_C is {self.temperature_C} but must be at most 300")


def test_keys_that_are_left_out_have_their_defaults() -> None:
    assert settings_from_json(Oven, {"fan": True}, "oven.json") == Oven(180.0, True)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fann": True}, "oven.json: unknown keys fann; use temperature_C, fan"),
        ([1], "oven.json: must be an object with the keys temperature_C, fan"),
        ({"temperature_C": 400}, "oven.json: temperature_C is 400 but must be at most 300"),
        ({"temperature_C": "hot"}, "oven.json: a value has the wrong type"),
    ],
)
def test_unusable_values_are_refused_with_their_place(values: object, message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        settings_from_json(Oven, values, "oven.json")
