"""Tissue and phantom presets that come with the module, each with its field strength and source."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "presets"


@cache
def _tissues() -> dict[str, dict]:
    presets = json.loads((FOLDER / "tissues.json").read_text(encoding="utf-8"))
    return {name: values for name, values in presets.items() if name != "note"}


def tissue_names() -> list[str]:
    """Names of the presets, such as 'white matter 3T'."""
    return list(_tissues())


def tissue_values(name: str) -> dict:
    """A preset as a tissue model file has it (``water``, ``solutes``, ``semisolid``); ValueError for other names."""
    if name not in _tissues():
        raise ValueError(f"tissue preset '{name}' is unknown; use one of {', '.join(tissue_names())}")
    return {key: _tissues()[name][key] for key in ("water", "solutes", "semisolid")}
