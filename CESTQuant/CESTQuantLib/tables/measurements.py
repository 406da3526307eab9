"""The table of the measurements of a protocol: a row for each, and a column for every quantity."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .events import playing_the_same
from .values import as_list, typed_number


@dataclass(frozen=True)
class Column:
    """A quantity that has one value for every measurement.

    Attributes:
        key: Key in the file.
        title: Heading with the unit.
        description: What it is, for the tool tip.
        signed: Whether values may be negative.
        needed: Whether it may not be left out.
    """

    key: str
    title: str
    description: str
    signed: bool = False
    needed: bool = False


COLUMNS = (
    Column("offsets_ppm", "Offset (ppm)", "Offset of the saturation from the water in ppm.", True, True),
    Column(
        "b1_uT",
        "B1 (µT)",
        "Saturation amplitude in µT: of a train, the root mean square over its pulses and the gaps between them.",
        needed=True,
    ),
    Column("saturation_time_s", "Saturation (s)", "Duration of continuous-wave saturation in s."),
    Column("post_delay_s", "Delay (s)", "Time between saturation and readout in s."),
    Column("recovery_time_s", "Recovery (s)", "Time from the excitation to the next saturation in s."),
    Column("readout_flip_angle_deg", "Flip angle (°)", "Flip angle of the readout in degrees."),
)
"""Columns of the table of measurements."""


def measurement_count(protocol: Mapping[str, Any]) -> int:
    """Return the number of measurements."""
    return len(as_list(protocol["offsets_ppm"]))


def column_texts(protocol: Mapping[str, Any], key: str) -> list[str]:
    """Return the texts of a column, one for every measurement; empty ones where nothing is given."""
    count, value = measurement_count(protocol), protocol.get(key)
    if value is None:
        return [""] * count
    given = as_list(value)
    return [f"{float(each):.7g}" for each in (given * count if len(given) == 1 else given)][:count]


def text_of_all(protocol: Mapping[str, Any], key: str) -> str:
    """Return the text of a column where it is the same for all measurements; an empty one where it is not."""
    texts = set(column_texts(protocol, key))
    return texts.pop() if len(texts) == 1 else ""


def with_measurement(protocol: Mapping[str, Any], row: int | None, key: str, text: str) -> dict[str, Any]:
    """Return the protocol with another value of a measurement.

    Args:
        protocol: Content of a ``protocol.json``.
        row: Measurement, counted from 0; None for all of them.
        key: Key of the column.
        text: The value as typed; an empty one for all measurements leaves the quantity out.

    Raises:
        ValueError: The text is no such value, in a message that names measurement and column, or the protocol has
            single events, which the value describes.
    """
    column = next(column for column in COLUMNS if column.key == key)
    where = column.title if row is None else f"measurement {row + 1}, {column.title}"
    changed = copy.deepcopy(dict(protocol))
    if not text.strip() and row is None and not column.needed:
        changed.pop(key, None)
        return playing_the_same(changed, protocol, key, column_texts)
    value = typed_number(text, where)
    if value < 0 and not column.signed:
        raise ValueError(f"{where}: {value:g} is negative")
    if row is None:
        changed[key] = [value] * measurement_count(protocol) if key == "offsets_ppm" else value
        return playing_the_same(changed, protocol, key, column_texts)
    kept = as_list(protocol.get(key, math.nan))
    listed = [float(each) for each in (kept * measurement_count(protocol) if len(kept) == 1 else kept)]
    if any(math.isnan(each) for place, each in enumerate(listed) if place != row):
        raise ValueError(f"{where}: give the value of all measurements first, in the line 'all'")
    listed[row] = value
    changed[key] = listed
    return playing_the_same(changed, protocol, key, column_texts)
