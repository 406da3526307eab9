"""Checkpoints of a training: all that the next step depends on, in one file."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from NeuroCESTLib.core.atomic_files import whole_file

KIND = "neurocest joint training checkpoint"
LAST, BEST = "last.pt", "best.pt"


def save_checkpoint(path: str | Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values, whole or not at all; ValueError where the file cannot be written."""
    with whole_file(path) as temporary:
        try:
            torch.save({"kind": KIND, **state}, temporary)
        except RuntimeError as error:  # torch's own writer on a full disk
            raise ValueError(f"cannot write '{path}': {str(error).splitlines()[0]}; is the disk full?") from None


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint without executing code of it; ValueError with one sentence for any other file."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"'{path}' does not exist: there is no training to resume; leave out --resume to start one")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of foreign files, which are refused below
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(f"'{path}' holds more than tensors and plain values, or is damaged: not loaded") from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError, TypeError,
            zipfile.BadZipFile):  # fmt: skip
        raise ValueError(f"'{path}' is damaged, or not a checkpoint") from None
    if not isinstance(state, dict) or state.get("kind") != KIND:
        raise ValueError(f"'{path}' is not a checkpoint of a joint training")
    return state


def check_same(found: Any, wanted: Any, path: str | Path) -> None:
    """ValueError that names the first setting in which two trainings differ."""
    if difference := _difference(found, wanted, ""):
        raise ValueError(f"'{path}' belongs to another training: {difference}; use another output folder")


def _difference(found: Any, wanted: Any, name: str) -> str:
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in dict.fromkeys((*found, *wanted)):
            if difference := _difference(found.get(key), wanted.get(key), f"{name}.{key}".strip(".")):
                return difference
        return ""
    return "" if found == wanted else f"{name} was {found!r} and is now {wanted!r}"
