"""Checkpoints from which a killed run continues to the result that it would have had."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from NeuroCESTLib.core.stored_values import check_stored
from NeuroCESTLib.core.tensor_files import load_tensors, save_tensors
from NeuroCESTLib.core.whole_files import write_errors


def put_aside(path: Path, ending: str = "damaged") -> Path:
    """Give a file another name beside its own, so that a run which starts anew does not replace it.

    Args:
        path: File to keep.
        ending: What is appended to its name, with a number where that name is taken.

    Returns:
        The new path.

    Raises:
        ValueError: The folder cannot be written.
    """
    names = (path.with_name(f"{path.name}.{ending}{f'-{number}' if number > 1 else ''}") for number in count(1))
    kept = next(name for name in names if not name.exists())
    with write_errors(kept):
        os.replace(path, kept)
    return kept


@dataclass(frozen=True)
class Checkpoint:
    """The checkpoint file of a run, if it has one.

    Attributes:
        path: File; None keeps no checkpoint.
        kind: Text in the file by which its kind of checkpoint is recognised.
        run: What the run is, such as ``training``; used in messages.
        writes: Whether this process writes the file.
        form: Form of its values, see ``stored_values``.
    """

    path: Path | None
    kind: str
    run: str
    writes: bool = True
    form: Any = field(default_factory=dict)

    @property
    def exists(self) -> bool:
        """Whether there is a file to continue from."""
        return self.path is not None and self.path.exists()

    def load(self) -> dict[str, Any] | None:
        """Read the checkpoint.

        Returns:
            The values of the file; None where there is no file, or where it is damaged: then it is put aside and
            a warning says that the run starts from the beginning.
        """
        if self.path is None or not self.path.exists():
            return None
        try:
            state = load_tensors(self.path, f"{self.run} checkpoint")
            check_stored(state, self.form, "checkpoint")
            if state.get("kind") != self.kind:
                raise ValueError("foreign file")
        except ValueError:
            self.start_anew()
            return None
        return state

    def restore(self, state: dict[str, Any], restore: Callable[[dict[str, Any]], None]) -> bool:
        """Go back to the state of a checkpoint.

        Args:
            state: Values of the file.
            restore: Takes the values over.

        Returns:
            Whether they fitted; where they do not, the file is put aside and a warning says that the run starts from
            the beginning, for which the caller undoes what was taken over.
        """
        try:
            restore(state)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, ArithmeticError):
            self.start_anew()
            return False
        return True

    def start_anew(self) -> None:
        """Put a damaged file aside, and warn that the run starts from the beginning."""
        kept = ""
        if self.path is not None and self.writes and self.path.exists():
            kept = f"; the file is kept as '{put_aside(self.path).name}'"
        warnings.warn(
            f"{self.path}: the checkpoint is damaged, so the {self.run} starts from the beginning{kept}", stacklevel=3
        )

    def require_same_run(self, same: bool) -> None:
        """Refuse a checkpoint of another run.

        Raises:
            ValueError: ``same`` is false; the message names the file.
        """
        if not same:
            raise ValueError(
                f"{self.path}: the checkpoint belongs to another {self.run}; remove it to start from the beginning"
            )

    def save(self, state: Mapping[str, Any]) -> None:
        """Write the checkpoint, whole or not at all, if this process writes it.

        Raises:
            ValueError: The file cannot be written.
        """
        if self.path is not None and self.writes:
            save_tensors({"kind": self.kind, **state}, self.path)

    def remove(self) -> None:
        """Remove the file, if there is one and this process writes it."""
        if self.path is not None and self.writes:
            self.path.unlink(missing_ok=True)
