"""Tissue presets and other presets that are bundled with the module, each with its field strength and source."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
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


@cache
def pool_names() -> frozenset[str]:
    """Return the names of the pools of all presets."""
    listed = (name for path in FOLDER.glob("*.json") for name in _names_in(read_json(path)))
    return frozenset({"water", "semisolid", *listed})


def _names_in(entry: Any) -> Iterator[str]:
    """Names of what is listed anywhere in the content of a file."""
    for inner in entry if isinstance(entry, list) else entry.values() if isinstance(entry, Mapping) else ():
        if isinstance(entry, list) and isinstance(inner, Mapping) and "name" in inner:
            yield str(inner["name"])
        yield from _names_in(inner)


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


def fitted(start: float, low: float, high: float) -> dict[str, Any]:
    """Return a fitted value of a model file."""
    return {"fit": True, "start": start, "bounds": [low, high]}


def phantom_model() -> dict[str, Any]:
    """Return a model file that fits the phantom: amide, NOE and semisolid fractions, semisolid exchange rate, water T2.

    The amide rate is fixed: at 50/s two powers do not separate it from the fraction.
    """
    model = copy.deepcopy(tissue_values("white matter 3T"))
    amide, noe = model["solutes"]
    amide |= {"fraction": fitted(1e-3, 0.0, 5e-3)}
    noe |= {"fraction": fitted(3e-3, 0.0, 1e-2)}
    semisolid = model["semisolid"] | {"fraction": fitted(0.08, 0.0, 0.3), "k_Hz": fitted(30.0, 5.0, 100.0)}
    water = {"T1_s": {"map": "t1"}, "T2_s": fitted(0.1, 0.02, 2.5)}
    return {"water": water, "solutes": [amide, noe], "semisolid": semisolid}


_PHANTOM = "digital phantom 3T"
_SIMULATED = {
    "brain with guanidinium 7T": ("autocest_guanidinium_7T", 7.0),
    "l-arginine schedule 9.4T": ("larginine_9p4T", 9.4),
}
"""Fit models whose bounds are the ranges of a bundled configuration of simulated data, with their field in T."""


def model_names() -> list[str]:
    """Return the names of the fit models that can be chosen as a start, those of low fields first."""
    names = [_PHANTOM, *tissue_names(), *_SIMULATED]
    return sorted(names, key=model_field_T)


def model_field_T(name: str) -> float:
    """Return the field strength in T for which a fit model is meant.

    Raises:
        ValueError: There is no such model.
    """
    if name in _SIMULATED:
        return _SIMULATED[name][1]
    tissue_values("white matter 3T" if name == _PHANTOM else name)
    return 3.0 if name == _PHANTOM else float(_tissues()[name]["field_strength_T"])


def model_source(name: str) -> str:
    """Return where the values of a fit model come from.

    Raises:
        ValueError: There is no such model.
    """
    if name in _SIMULATED:
        return str(read_json(FOLDER / f"{_SIMULATED[name][0]}.json")["note"])
    if name == _PHANTOM:
        return "Starts and bounds for the sample data, whose T1 map it uses."
    tissue_values(name)
    return str(_tissues()[name]["source"])


def model_values(name: str) -> dict[str, Any]:
    """Return a fit model by its name, as the content of a model file.

    With a semisolid pool, the fractions of all pools, the semisolid exchange rate and the water T2 are fitted; without
    one, the fractions, the exchange rates and the water T2. Starts are the values of the tissue preset.

    Raises:
        ValueError: There is no such model; the message lists the known ones.
    """
    if name == _PHANTOM:
        return phantom_model()
    if name in _SIMULATED:
        return _with_ranges(read_json(FOLDER / f"{_SIMULATED[name][0]}.json")["tissue"])
    model = copy.deepcopy(tissue_values(name))
    for solute in model["solutes"]:
        solute["fraction"] = fitted(solute["fraction"], 0.0, max(0.005, 5 * solute["fraction"]))
        if not model["semisolid"]:
            solute["k_Hz"] = fitted(solute["k_Hz"], solute["k_Hz"] / 20, solute["k_Hz"] * 10)
    if model["semisolid"]:
        semisolid = model["semisolid"]
        semisolid["fraction"] = fitted(semisolid["fraction"], 0.0, 0.3)
        semisolid["k_Hz"] = fitted(semisolid["k_Hz"], 5.0, 100.0)
    model["water"]["T2_s"] = fitted(model["water"]["T2_s"], 0.02, 3.0)
    return model


def _with_ranges(entry: Any) -> Any:
    """Return the tissue of a configuration with fitted values, within the ranges from which it draws them."""
    if isinstance(entry, list):
        return [_with_ranges(each) for each in entry]
    if not isinstance(entry, Mapping):
        return entry
    if "uniform" in entry:
        low, high = entry["uniform"]
        return fitted((low + high) / 2, low, high)
    if "log_uniform" in entry:
        low, high = entry["log_uniform"]
        return fitted(math.sqrt(low * high), low, high)
    return {key: _with_ranges(value) for key, value in entry.items() if key != "note"}
