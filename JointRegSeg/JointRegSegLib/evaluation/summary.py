"""Summary of an evaluation: statistics of every number over the cases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

TEXT_COLUMNS = ("weights", "case", "subject", "fixed_visit", "moving_visit", "error")
"""Columns that are not summarised, even if a visit is a number."""


def summarize(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Summarise the rows of the cases.

    Scores of fixed and moving studies are taken together, as ``dice_<region>`` and ``hd95_mm_<region>``. A study that
    is the fixed one of several cases counts once, see ``numbers_of``.

    Args:
        rows: Rows of the cases; values that are missing or not finite do not count.

    Returns:
        Statistics by column: ``n``, ``mean``, ``median``, ``sd`` (with n − 1; 0 for one case), ``min`` and ``max``.
    """
    values: dict[str, list[float]] = {}
    for name in dict.fromkeys(name for row in rows for name in row if name not in TEXT_COLUMNS):
        side, _, rest = name.partition("_")
        pooled = rest if side in ("fixed", "moving") and rest.startswith(("dice_", "hd95_mm_")) else name
        if found := numbers_of(rows, name):
            values.setdefault(pooled, []).extend(found)
    return {
        name: {
            "n": len(found),
            "mean": float(np.mean(found)),
            "median": float(np.median(found)),
            "sd": float(np.std(found, ddof=1)) if len(found) > 1 else 0.0,
            "min": min(found),
            "max": max(found),
        }
        for name, found in values.items()
    }


def numbers_of(rows: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """Return the finite numbers in a column of the case table.

    The first visit of a subject is the fixed study of a case for every later visit: of such a study there is one
    number, the mean over its cases.
    """
    studies: dict[object, list[float]] = {}
    for number, row in enumerate(rows):
        value = row.get(name)
        if isinstance(value, int | float) and math.isfinite(value):
            once = name.startswith("fixed_") and "subject" in row
            study = (row["subject"], row.get("fixed_visit")) if once else number
            studies.setdefault(study, []).append(float(value))
    return [float(np.mean(values)) for values in studies.values()]
