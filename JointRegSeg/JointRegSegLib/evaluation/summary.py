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

    Scores of fixed and moving studies are taken together, as ``dice_<region>`` and ``hd95_mm_<region>``.

    Args:
        rows: Rows of the cases; values that are missing or not finite do not count.

    Returns:
        Statistics by column: ``n``, ``mean``, ``median``, ``sd`` (with n − 1; 0 for one case), ``min`` and ``max``.
    """
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            if name in TEXT_COLUMNS or not isinstance(value, int | float) or not math.isfinite(value):
                continue
            side, _, rest = name.partition("_")
            pooled = rest if side in ("fixed", "moving") and rest.startswith(("dice_", "hd95_mm_")) else name
            values.setdefault(pooled, []).append(float(value))
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
