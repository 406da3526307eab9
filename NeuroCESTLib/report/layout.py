"""How the panels of a report page are arranged in rows and columns."""

from __future__ import annotations

MIN_COLUMNS = 3
"""Columns that every block of a page reserves, so that few panels are not blown up."""


def even_grid(count: int, most_columns: int) -> tuple[int, int]:
    """Return the rows and columns of a grid for ``count`` panels whose rows are filled evenly."""
    rows = -(-max(count, 1) // most_columns)
    return rows, -(-max(count, 1) // rows)
