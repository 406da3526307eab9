"""Checkpoints from which a killed run continues to the result that it would have had."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from NeuroCESTLib.core.tensor_files import load_tensors, save_tensors


@dataclass(frozen=True)
class Checkpoint:
    """The checkpoint file of a run, if it has one.

    Attributes:
        path: File; None keeps no checkpoint.
        kind: Text in the file by which its kind of checkpoint is recognised.
        run: What the run is, such as ``training``; used in messages.
        writes: Whether this process writes the file.
    """

    path: Path | None
    kind: str
    run: str
    writes: bool = True

    @property
    def exists(self) -> bool:
        """Whether there is a file to continue from."""
        return self.path is not None and self.path.exists()

    def load(self) -> dict[str, Any] | None:
        """Read the checkpoint.

        Returns:
            The values of the file; None where there is no file, or where it is damaged: then it is removed and a
            warning says that the run starts from the beginning.
        """
        if self.path is None or not self.path.exists():
            return None
        try:
            state = load_tensors(self.path, f"{self.run} checkpoint")
            if state.get("kind") != self.kind:
                raise ValueError("foreign file")
        except ValueError:
            warnings.warn(
                f"{self.path}: the checkpoint is damaged, so the {self.run} starts from the beginning", stacklevel=2
            )
            self.remove()
            return None
        return state

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
