"""The offsets of a protocol, as a user types them."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from NeuroCESTLib.core.checked_json import with_ascii_minus

from .events import playing_the_same
from .measurements import COLUMNS, column_texts
from .protocols import new_protocol
from .values import as_list, typed_number


def offsets_of_ranges(text: str) -> list[float]:
    """Return the offsets that a user has typed: single numbers and ranges ``from:step:to``, in ppm.

    ``-300, -6:0.25:6`` is one far offset and 49 around the water; a range includes its end.

    Raises:
        ValueError: The text holds no offsets; the message names the part that is none.
    """
    offsets: list[float] = []
    for part in re.split(r"[,;\s]+", with_ascii_minus(text).strip()):
        if not part:
            continue
        numbers = [typed_number(number, f"'{part}'") for number in part.split(":")]
        if len(numbers) == 1:
            offsets += numbers
            continue
        if len(numbers) != 3:
            raise ValueError(f"'{part}': a range is from:step:to, such as -6:0.25:6")
        start, step, end = numbers
        if step == 0 or (end - start) / step < 0:
            raise ValueError(f"'{part}': steps of {step:g} do not lead from {start:g} to {end:g}")
        count = math.floor((end - start) / step + 1e-9) + 1
        if count > 10000:
            raise ValueError(f"'{part}' has {count} offsets, which is too many")
        offsets += [round(start + step * place, 9) for place in range(count)]
    if not offsets:
        raise ValueError("type offsets in ppm, such as -300, -6:0.25:6")
    return offsets


def with_offsets(protocol: Mapping[str, Any] | None, offsets_ppm: Sequence[float]) -> dict[str, Any]:
    """Return the protocol with other offsets; without one, a new protocol.

    Numbers of M0 measurements are dropped where other offsets stand there now.

    Raises:
        ValueError: The number of offsets changes although another quantity has one value for every measurement, or the
            protocol has single events.
    """
    if protocol is None:
        return new_protocol(offsets_ppm)
    offsets = [float(offset) for offset in offsets_ppm]
    changed = copy.deepcopy(dict(protocol))
    playing_the_same({**changed, "offsets_ppm": offsets}, protocol, "offsets_ppm", column_texts)
    if changed.get("events") is not None:
        return changed
    for column in COLUMNS[1:]:
        value = as_list(changed.get(column.key, 0.0))
        if len(set(value)) == 1 and column.key in changed:
            changed[column.key] = value[0]
        elif len(value) not in (1, len(offsets_ppm)):
            raise ValueError(
                f"{column.title} has a value of its own for each of {len(value)} measurements, but {len(offsets_ppm)} "
                "offsets are given: set it to one value in the line 'all' first"
            )
    if _of_numbers(changed.get("m0_measurements"), offsets) != _of_numbers(
        changed.get("m0_measurements"), as_list(changed["offsets_ppm"])
    ):
        del changed["m0_measurements"]
    changed["offsets_ppm"] = offsets
    return changed


def _of_numbers(measurements: Any, offsets_ppm: Sequence[float]) -> dict[float, str]:
    """Texts of the offsets of measurements whose numbers, counted from 1, are given."""
    given = [] if measurements is None else as_list(measurements)
    return {number: f"{offsets_ppm[int(number) - 1]:.7g}" for number in given if 1 <= number <= len(offsets_ppm)}
