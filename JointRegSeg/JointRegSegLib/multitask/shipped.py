"""Weights of tasks on single studies that are part of the package, by their names."""

from __future__ import annotations

from pathlib import Path

from ..network.shipped import FOLDER, existing, in_words, named_or_given

_FINDS = {
    "tissue": "tissues and parts of the brain with their volumes, in T1 and FLAIR or one of them",
    "super_resolution": "T1 with voxels divided by 4 x 4 x 4",
}
SHIPPED = existing(_FINDS)
"""What the weights find by their name; ``<name>.pt`` lies in ``FOLDER``."""


def shipped_in_words() -> str:
    """Return the names with what each finds, for help and messages."""
    return in_words(SHIPPED)


def weights_file(given: str | Path) -> Path:
    """Return the file of weights that are given by a name of the package or by a path.

    Args:
        given: Name, such as ``tissue``, or path.

    Raises:
        ValueError: A word without folder and ending is neither a name nor a file; the message lists the names.
    """
    return named_or_given(given, SHIPPED, FOLDER)
