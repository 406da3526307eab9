"""Values of a protocol: lists of them, and numbers as a user types them."""

from __future__ import annotations

import math
from typing import Any

from NeuroCESTLib.core.checked_json import with_ascii_minus


def as_list(value: Any) -> list[float]:
    """Return a value per measurement as a list, which is of length one where all have the same."""
    return list(value) if isinstance(value, list | tuple) else [value]


def typed_number(text: str, where: str) -> float:
    """Return a number that a user has typed.

    Raises:
        ValueError: The text is no finite number; the message begins with ``where``.
    """
    try:
        value = float(with_ascii_minus(text).strip())
    except ValueError:
        raise ValueError(f"{where}: '{text}' is not a number") from None
    if not math.isfinite(value):
        raise ValueError(f"{where}: '{text}' is not finite")
    return value
