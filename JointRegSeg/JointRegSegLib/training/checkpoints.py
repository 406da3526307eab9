"""Checkpoints of a training: everything that the next step depends on, in one file."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from NeuroCESTLib.core.checked_json import shortened
from NeuroCESTLib.core.checkpoints import put_aside
from NeuroCESTLib.core.processes import Processes
from NeuroCESTLib.core.stored_values import check_stored, check_weights
from NeuroCESTLib.core.tensor_files import load_tensors, save_tensors

from ..network.configuration import NetworkConfig
from ..network.shipped import weights_path
from ..tasks.joint import JOINT
from .settings import TrainingSettings

KIND = "neurocest joint training checkpoint"
LAST, BEST = "last.pt", "best.pt"
STUDIES = "studies"
"""Key of the digests of the studies among what decides the weights."""
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


def is_sound(folder: Path, processes: Processes, initial_weights: str | None) -> bool:
    """Whether the last checkpoint of a folder can be read; a damaged one is put aside, see ``start_anew``.

    Args:
        folder: Folder of the training.
        processes: This process among the others.
        initial_weights: What the training starts from, see ``start_anew``.

    Raises:
        ValueError: There is no checkpoint, or it is damaged and the initial weights are gone.
    """
    try:
        load_checkpoint(folder / LAST)
    except ValueError:
        if not (folder / LAST).is_file():
            raise
        start_anew(folder, processes, initial_weights)
        return False
    return True


def start_anew(folder: Path, processes: Processes, initial_weights: str | None) -> None:
    """Put a damaged checkpoint and the best weights beside it aside, and warn that the training starts anew.

    Every process of a training calls it, as every one of them finds the damage.

    Args:
        folder: Folder of the training.
        processes: This process among the others.
        initial_weights: File or name of the weights that the training starts from; None or empty for those of its seed.

    Raises:
        ValueError: The initial weights are gone, so that the training cannot start anew; nothing is put aside then.
    """
    if initial_weights and not weights_path(initial_weights).is_file():
        raise ValueError(
            f"'{folder / LAST}' is damaged, and the training cannot start from the beginning either, because the "
            f"initial weights '{weights_path(initial_weights)}' are no longer there: put that file back, or start "
            "another training in another output folder"
        )
    processes.wait()  # until all have read the files
    if processes.writes:
        kept = [put_aside(folder / LAST)]
        if (folder / BEST).is_file():
            kept.append(put_aside(folder / BEST, "earlier"))
        warnings.warn(
            f"'{folder / LAST}' is damaged, so the training starts from the beginning; what was there is kept as "
            + " and ".join(f"'{file.name}'" for file in kept),
            stacklevel=2,
        )
    processes.wait()


def best_is_lost(folder: Path, network: Mapping[str, Tensor], processes: Processes) -> bool:
    """Whether the best weights of a resumed training are missing or damaged, which a warning says.

    Damaged ones are put aside.

    Args:
        folder: Folder of the training.
        network: Weights and buffers of the network, which the best ones must resemble.
        processes: This process among the others.
    """
    path, lost = folder / BEST, True
    there = path.is_file()
    if there:
        with contextlib.suppress(ValueError):
            check_weights(load_checkpoint(path)["kept"], network, f"'{path}' is damaged")
            lost = False
    processes.wait()
    if lost and processes.writes:
        kept = f"; the file is kept as '{put_aside(path).name}'" if there else ""
        warnings.warn(
            f"'{path}' is {'damaged' if there else 'missing'}, so the weights of the best step so far are lost, and "
            f"the best ones from now on are kept{kept}",
            stacklevel=2,
        )
    processes.wait()
    return lost


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
        raise of_another_training(path, difference)


def of_another_training(path: str | Path, difference: str) -> ValueError:
    """Return the error for a checkpoint that belongs to another training.

    Args:
        path: The checkpoint.
        difference: What differs, in words.
    """
    return ValueError(f"'{path}' belongs to another training: {difference}; use another output folder")


def of_this_version(found: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """Settings in a checkpoint with what earlier versions did not write: the task, and newer settings' defaults."""
    found = {"task": JOINT.name, "initialise": "", **found}
    if "initialise" not in wanted:
        found.pop("initialise")
    for part, defaults in (("network", NetworkConfig().to_dict()), ("training", asdict(TrainingSettings()))):
        if isinstance(found.get(part), dict) and isinstance(wanted.get(part), dict):
            missing = {key for key in wanted[part] if key not in found[part]}
            found[part] = {**found[part], **{key: defaults[key] for key in missing if key in defaults}}
    return found


def _difference(found: Any, wanted: Any, name: str) -> str:
    """First difference between two nested values in words; empty where there is none."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in dict.fromkeys((*found, *wanted)):
            if difference := _difference(found.get(key), wanted.get(key), f"{name}.{key}".strip(".")):
                return difference
        return ""
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        for number, pair in enumerate(zip(found, wanted, strict=True)):
            if difference := _difference(*pair, f"{name}[{number}]"):
                return difference
        return ""
    if found == wanted:
        return ""
    before, now = shortened(found), shortened(wanted)
    if before == now:
        before, now = repr(found), repr(wanted)
    return f"{name} was {before} and is now {now}"
