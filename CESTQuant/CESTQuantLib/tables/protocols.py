"""A protocol as two tables: one row for every measurement, and one for every setting of the whole acquisition.

A protocol is the content of its ``protocol.json``; every change gives a new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .measurements import COLUMNS, column_texts
from .settings import SETTINGS, setting_text


def new_protocol(offsets_ppm: Sequence[float]) -> dict[str, Any]:
    """Return a protocol of which only the offsets are known; it is at 3 T, and B1 and saturation time are 0."""
    return {
        "field_strength_T": 3.0,
        "offsets_ppm": [float(offset) for offset in offsets_ppm],
        "b1_uT": 0.0,
        "saturation_type": "cw",
        "saturation_time_s": 0.0,
    }


def readable_protocol(values: Any, source: str) -> dict[str, Any]:
    """Return a protocol that the tables can show.

    Args:
        values: Content of a ``protocol.json``.
        source: File, with which the message begins.

    Raises:
        ValueError: The content is no protocol.
    """
    try:
        for column in COLUMNS:
            column_texts(values, column.key)
        for setting in SETTINGS:
            setting_text(values, setting.key)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        raise ValueError(f"{source}: this is not a protocol with offsets_ppm") from None
    return dict(values)


def title_of(key: str) -> str:
    """Return what the tables call a key."""
    return next(each.title for each in (*COLUMNS, *SETTINGS) if each.key == key)
