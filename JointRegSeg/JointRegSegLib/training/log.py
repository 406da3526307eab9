"""The log of a training: a row per epoch, as CSV and, where it is installed, for TensorBoard."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from NeuroCESTLib.core.stored_values import check_stored
from NeuroCESTLib.core.whole_files import write_rows

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Row = dict[str, float]
"""Numbers of one epoch by column; columns without a value are left out."""


MINUTES = "minutes"
"""Column of the time since the start, which no repetition has again; it has a file of its own."""


class TrainingLog:
    """Rows of numbers by name; ``log.csv`` is written anew and whole after every row, and ``times.csv`` their times.

    The rows are part of the checkpoint, so that the log of a resumed training continues where the checkpoint is.
    """

    def __init__(self, folder: str | Path, rows: Sequence[Row] = (), writes: bool = True) -> None:
        """Open the log.

        Args:
            folder: Folder of the training.
            rows: Rows of the training so far.
            writes: False in the processes of a distributed training that write no files.

        Raises:
            ValueError: The rows are not numbers.
        """
        self.path = Path(folder) / "log.csv"
        check_stored(list(rows), [{"step": float}], "checkpoint")
        check_stored([list(row.values()) for row in rows], [[float]], "checkpoint")
        self.rows = list(rows)
        self._writes = writes
        step = self.rows[-1]["step"] if self.rows else 0
        self._board = _tensorboard(Path(folder) / "tensorboard", step) if writes else None

    def add(self, row: Row) -> None:
        """Append a row and write the file."""
        self.rows.append(row)
        if self._writes:
            write_rows([without_time(row) for row in self.rows], self.path)
            times = [{"step": row["step"], MINUTES: row.get(MINUTES, math.nan)} for row in self.rows]
            write_rows(times, self.path.with_name("times.csv"))
        if self._board is not None:
            for name, value in row.items():
                if name not in ("step", "epoch") and math.isfinite(value):
                    self._board.add_scalar(name, value, int(row["step"]))
            self._board.flush()

    def close(self) -> None:
        """End the TensorBoard file."""
        if self._board is not None:
            self._board.close()


def without_time(row: Row) -> Row:
    """Return the numbers of a row that are the same in every repetition of a training."""
    return {name: value for name, value in row.items() if name != MINUTES}


def _tensorboard(folder: Path, step: float) -> SummaryWriter | None:
    """A TensorBoard writer that drops later events of an earlier run, or None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=int(step) + 1)
