"""Checkpoints of a training: everything that the next step depends on, in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from NeuroCESTLib.core.checked_json import shortened
from NeuroCESTLib.core.stored_values import check_stored
from NeuroCESTLib.core.tensor_files import load_tensors, save_tensors

KIND = "neurocest joint training checkpoint"
LAST, BEST = "last.pt", "best.pt"
_FORM: dict[str, Any] = {"kept": {}}
_LAST_FORM = {
    "step": int,
    "trajectory": {},
    "network": {},
    "optimisation": {},
    "averaged_updates": int,
    "rows": [{}],
    "seconds": float,
    "best_step": int,
    "best_score": float,
    "stale": int,
    "stale_rate": int,
    "sums": {},
    "counts": {},
}
"""Forms of checkpoints, see ``stored_values``."""


def save_checkpoint(path: str | Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values, whole or not at all.

    Raises:
        ValueError: The file cannot be written; the message names it.
    """
    save_tensors({"kind": KIND, **state}, path)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint without executing code of the file.

    Raises:
        ValueError: There is no such file, or it is not a checkpoint; the message names it.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"'{path}' does not exist: there is no training to resume; leave out --resume to start one")
    state = load_tensors(path, "checkpoint")
    if state.get("kind") != KIND:
        raise ValueError(f"'{path}' is not a checkpoint of a joint training")
    check_stored(state, _FORM | (_LAST_FORM if path.name == LAST else {}), f"'{path}' is a damaged checkpoint")
    return state


def check_same(found: dict[str, Any], wanted: dict[str, Any], path: str | Path) -> None:
    """Check that a checkpoint belongs to the same training.

    Args:
        found: Settings in the checkpoint.
        wanted: Settings of the training that is to go on.
        path: The checkpoint, for the message.

    Raises:
        ValueError: The settings differ; the message names the first difference.
    """
    if difference := _difference(found, wanted, ""):
        raise ValueError(f"'{path}' belongs to another training: {difference}; use another output folder")


def _difference(found: Any, wanted: Any, name: str) -> str:
    """First difference between two nested dictionaries in words; empty where there is none."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in dict.fromkeys((*found, *wanted)):
            if difference := _difference(found.get(key), wanted.get(key), f"{name}.{key}".strip(".")):
                return difference
        return ""
    return "" if found == wanted else f"{name} was {shortened(found)} and is now {shortened(wanted)}"
