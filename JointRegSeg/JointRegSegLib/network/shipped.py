"""Weights that are part of the package, by their names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from NeuroCESTLib.core.messages.input_errors import InputError

FOLDER = Path(__file__).resolve().parents[1] / "weights"
"""Folder of the weights, each with its model card (``.md``) and the configuration of its training (``.json``)."""
DEFAULT = "default"
"""Another name of the first of the weights that segment and register."""
_KNOWS = {"neurocest": "necrotic core, oedema and enhancing tumour"}


def existing(names: Mapping[str, str]) -> dict[str, str]:
    """Return those of the names whose weights are there.

    Args:
        names: What weights find, by their names.
    """
    return {name: finds for name, finds in names.items() if (FOLDER / f"{name}.pt").is_file()}


SHIPPED = existing(_KNOWS)
"""What the weights that segment and register know, by their names."""


def in_words(names: Mapping[str, str]) -> str:
    """Return names with what each finds, for help and messages."""
    return ", ".join(f"'{name}' ({finds})" for name, finds in names.items()) or "of which there are none here"


def default_weights_path() -> Path:
    """Return the path of the weights that are used where none are given."""
    return FOLDER / "neurocest.pt"


def weights_path(given: str | Path | None) -> Path:
    """Return the file of weights that segment and register, which are given by a name of the package or by a path.

    Args:
        given: Name, such as ``neurocest``, or path; None or ``default`` for the default weights.

    Raises:
        ValueError: A word without folder and ending is neither a name nor a file; the message lists the names.
    """
    if given is None or str(given) == DEFAULT:
        return default_weights_path()
    return named_or_given(given, SHIPPED)


def named_or_given(given: str | Path, names: Mapping[str, str], folder: Path = FOLDER) -> Path:
    """Return the file of weights that are given by one of the names or by a path.

    A name wins over a file of the same name in the working folder, which is given as ``./tissue``. Weights of the
    folder that are of another kind are found too, so that whoever reads them says what they are for.

    Args:
        given: Name or path.
        names: What weights find, by their names.
        folder: Folder of the named weights.

    Raises:
        ValueError: A word without folder and ending is neither a name nor a file; the message lists the names.
    """
    text = str(given)
    path, named = Path(given), folder / f"{text}.pt"
    if text == path.name and named.is_file():
        return named
    if text == path.name and not path.suffix and not path.exists():
        raise InputError(
            "weights",
            f"there are no weights '{text}': give a weights file (.pt) or weights of the package, {in_words(names)}",
        )
    return path
