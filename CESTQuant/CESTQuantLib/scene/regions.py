"""Statistics of the maps over regions."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..methods.registry import quantity_named


def region_statistics(values: np.ndarray) -> dict[str, float]:
    """Return count, mean, SD, median and quartiles of the finite values (``n``, ``mean``, ``sd``, …)."""
    finite = values[np.isfinite(values)].astype(np.float64)
    if len(finite) == 0:
        nan = float("nan")
        return {"n": 0, "mean": nan, "sd": nan, "median": nan, "q1": nan, "q3": nan}
    lower, median, upper = np.quantile(finite, [0.25, 0.5, 0.75])
    return {
        "n": len(finite),
        "mean": float(finite.mean()),
        "sd": float(finite.std(ddof=1)) if len(finite) > 1 else 0.0,
        "median": float(median),
        "q1": float(lower),
        "q3": float(upper),
    }


def region_columns(
    maps: dict[str, np.ndarray], regions: dict[str, np.ndarray], usable: np.ndarray | None = None
) -> dict[str, list[Any]]:
    """Return the columns of the region table, with one row per region and quantity; standard errors are left out.

    Args:
        maps: Maps (K, J, I) by name.
        regions: Boolean masks (K, J, I) by name.
        usable: Boolean mask (K, J, I) of the voxels whose values are estimates. The others, such as those that reached
            the iteration limit, are left out and counted in the column ``left_out``. None for all.
    """
    columns: dict[str, list[Any]] = {"region": [], "quantity": [], "unit": []}
    for region, mask in regions.items():
        estimates = mask if usable is None else mask & usable
        for name, array in maps.items():
            if name.endswith("_sd"):
                continue
            row = {"region": region, "quantity": name, "unit": quantity_named(name).unit}
            left_out = {"left_out": int(np.isfinite(array[mask & ~estimates]).sum())}
            for key, value in {**row, **region_statistics(array[estimates]), **left_out}.items():
                columns.setdefault(key, []).append(value)
    return columns
