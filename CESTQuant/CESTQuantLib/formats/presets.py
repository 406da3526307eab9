"""Tissue presets and other presets that are bundled with the module, each with its field strength and source."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from NeuroCESTLib.core.checked_json import read_json

FOLDER = Path(__file__).resolve().parents[1] / "presets"
"""Folder of the bundled presets."""


@cache
def _tissues() -> dict[str, dict[str, Any]]:
    presets = read_json(FOLDER / "tissues.json")
    return {name: values for name, values in presets.items() if name != "note"}


def tissue_names() -> list[str]:
    """Return the names of the tissue presets, such as 'white matter 3T'."""
    return list(_tissues())


def tissue_values(name: str) -> dict[str, Any]:
    """Return a tissue preset with the keys of a model file (``water``, ``solutes``, ``semisolid``).

    Raises:
        ValueError: There is no such preset; the message lists the known ones.
    """
    if name not in _tissues():
        raise ValueError(f"tissue preset '{name}' is unknown; use one of {', '.join(tissue_names())}")
    return {key: _tissues()[name][key] for key in ("water", "solutes", "semisolid")}
