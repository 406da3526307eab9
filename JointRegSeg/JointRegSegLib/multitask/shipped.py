"""Weights of tasks on single studies that are part of the package, by their names."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "weights"
"""Folder of the weights, each with its model card (``.md``) and the configuration of its training (``.json``)."""

_FINDS = {
    "tissue": "tissues and parts of the brain with their volumes, in T1 and FLAIR or one of them",
    "super_resolution": "T1 with voxels divided by 4 x 4 x 4",
}
SHIPPED = {name: finds for name, finds in _FINDS.items() if (FOLDER / f"{name}.pt").is_file()}
"""What the weights find by their name; ``<name>.pt`` lies in ``FOLDER``."""


def shipped_in_words() -> str:
    """Return the names with what each finds, for help and messages."""
    return ", ".join(f"'{name}' ({finds})" for name, finds in SHIPPED.items()) or "of which there are none here"


def weights_file(given: str | Path) -> Path:
    """Return the file of weights that are given by a name of the package or by a path.

    The name wins over a file of the same name in the working folder, which is given as ``./tissue``.

    Args:
        given: Name, such as ``tissue``, or path.

    Raises:
        ValueError: A word without folder and ending is neither a name nor a file; the message lists the names.
    """
    text = str(given)
    if text in SHIPPED:
        return FOLDER / f"{text}.pt"
    path = Path(given)
    if text == path.name and not path.suffix and not path.exists():
        raise ValueError(
            f"there are no weights '{text}': give a weights file (.pt) or weights of the package, {shipped_in_words()}"
        )
    return path
