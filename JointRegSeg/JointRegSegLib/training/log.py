"""The log of a training: one row an epoch, as CSV and, where it is installed, for TensorBoard."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from NeuroCESTLib.core.whole_files import write_csv

Row = dict[str, float]


class TrainingLog:
    """Rows of numbers by name; the file is written anew and whole after every row.

    The rows are part of the checkpoint, so that a resumed training continues the log where it left the trajectory.
    """

    def __init__(self, folder: str | Path, rows: list[Row] | None = None, writes: bool = True) -> None:
        """``writes`` is False in the processes of a distributed training that only follow."""
        self.path = Path(folder) / "log.csv"
        self.rows: list[Row] = list(rows or [])
        self._writes = writes
        step = self.rows[-1]["step"] if self.rows else 0
        self._board: Any = _tensorboard(Path(folder) / "tensorboard", step) if writes else None

    def add(self, row: Row) -> None:
        """Append a row and write the file."""
        self.rows.append(row)
        if self._writes:
            write_rows(self.path, self.rows)
        if self._board is not None:
            for name, value in row.items():
                if name not in ("step", "epoch") and math.isfinite(value):
                    self._board.add_scalar(name, value, int(row["step"]))
            self._board.flush()

    def column(self, name: str) -> list[float]:
        """Values of a column, NaN where a row has none."""
        return [row.get(name, math.nan) for row in self.rows]

    def close(self) -> None:
        """End the TensorBoard file."""
        if self._board is not None:
            self._board.close()


def write_rows(path: str | Path, rows: list[dict[str, Any]]) -> None:
    """Write a CSV table with the columns of all rows; numbers to 7 digits, NaN as an empty field."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    write_csv(columns, ([_shown(row.get(name)) for name in columns] for row in rows), path)


def _shown(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.7g}" if isinstance(value, float) else value


def _tensorboard(folder: Path, step: float) -> Any:
    """A TensorBoard writer, or None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=int(step) + 1)
