"""The first difference between two acquisition protocols, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..physics.protocol import Protocol
from .protocol_json import protocol_to_dict

_TOLERANCE = 1e-4
"""Relative and absolute difference up to which two numbers are the same."""
_NOT_ACQUISITION = ("note", "solute", "m0_measurements")
_PLAYED_AND_STATED = (
    "it states its values, but here every event of a sequence is given, with which they cannot be compared: give a "
    "protocol.json with the values that are stated there",
    "it plays every event of a sequence, but here only values are stated: give the .seq file of this sequence",
)
"""What is said where the found protocol, or the expected one, alone has events."""


def protocol_difference(expected: Protocol, found: Protocol) -> str:
    """Say in words how a protocol first differs from the expected one.

    Args:
        expected: Protocol to compare with.
        found: Protocol that is called "here".

    Returns:
        A clause such as ``saturation_time_s is 2, here 1``; empty where the protocols agree to a relative tolerance of
        1e-4.
    """
    first, second = protocol_to_dict(expected), protocol_to_dict(found)
    for key in dict.fromkeys((*first, *second)):
        if key not in _NOT_ACQUISITION and (difference := _difference(first.get(key), second.get(key))):
            if key == "events" and (first.get(key) is None or second.get(key) is None):
                return _PLAYED_AND_STATED[first.get(key) is not None]
            return f"{key} {difference}"
    return ""


def _difference(expected: Any, found: Any) -> str:
    """How two values differ; empty where they do not. A number stands for a list of equal ones."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        for key in dict.fromkeys((*expected, *found)):
            if difference := _difference(expected.get(key), found.get(key)):
                return f"{key} {difference}"
        return ""
    if isinstance(expected, list) or isinstance(found, list):
        return _difference_of_lists(expected, found)
    if _is_number(expected) and _is_number(found):
        same = math.isclose(expected, found, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    else:
        same = expected == found
    return "" if same else f"is {_shown(expected)}, here {_shown(found)}"


def _difference_of_lists(expected: Any, found: Any) -> str:
    length = len(expected) if isinstance(expected, list) else len(found)
    first = expected if isinstance(expected, list) else [expected] * length
    second = found if isinstance(found, list) else [found] * length
    if len(first) != len(second):
        return f"has {len(first)} values, here {len(second)}"
    for measurement, (one, other) in enumerate(zip(first, second, strict=True), start=1):
        if difference := _difference(one, other):
            return f"of measurement {measurement} {difference}"
    return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    if value is None:
        return "not given"
    if isinstance(value, Mapping):
        return "given"
    return f"{value:g}" if isinstance(value, float) else str(value)
