"""How far an optimisation of a schedule is: written beside its checkpoints, and read by a window that shows it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from NeuroCESTLib.core.checked_json import read_json
from NeuroCESTLib.core.stored_values import check_stored

if TYPE_CHECKING:
    from .trainable import Moment

PROGRESS_FILE = "progress.json"
_FORM = {"phase": str, "start": {}, "schedule": {}, "steps": [int], "losses": [float]}


def training_folder(output: str | Path) -> Path:
    """Return the folder of the checkpoints of a run that writes its results into ``output``."""
    output = Path(output)
    return output.absolute().parent / f".{output.name}.training"


def progress_record(phase: str, start: Mapping[str, Sequence[float]], moments: Sequence[Moment]) -> dict[str, Any]:
    """Return how far an optimisation is.

    Args:
        phase: What is being minimised.
        start: Schedule at the start, by quantity.
        moments: Recorded moments of the phase so far, at least one; one without a loss comes before its first step.
    """
    known = [moment for moment in moments if "loss" in moment]
    return {
        "phase": phase,
        "start": start,
        "schedule": moments[-1]["schedule"],
        "steps": [moment["step"] for moment in known],
        "losses": [moment["loss"] for moment in known],
    }


def progress_of_run(output: str | Path) -> dict[str, Any] | None:
    """Return how far the run that writes into ``output`` is, or what it came to.

    Returns:
        What :func:`progress_record` describes: of a run that goes on its latest record, of one that has ended the last
        phase of its report. None where there is neither, or where it cannot be read.
    """
    records = [(path.stat().st_mtime, path) for path in training_folder(output).glob(f"*/{PROGRESS_FILE}")]
    with contextlib.suppress(ValueError, OSError, KeyError, IndexError, TypeError):
        if records:
            record = read_json(max(records)[1])
        else:
            evolution = read_json(Path(output) / "report.json")["summary"]["evolution"]
            last = [moment for moment in evolution if moment["phase"] == evolution[-1]["phase"]]
            record = progress_record(evolution[-1]["phase"], evolution[0]["schedule"], last)
        check_stored(record, _FORM, "progress")
        return dict(record)
    return None
