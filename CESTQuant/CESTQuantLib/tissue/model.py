"""Tissue models for fitting: which values are numbers, which come from maps, which are fitted (the model file)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from NeuroCESTLib.core.checked_json import number, read_json, require_file_name

from ..physics.pools import Pool, Semisolid, Tissue, Water

WATER_KEYS = ("T1_s", "T2_s")
SOLUTE_KEYS = ("fraction", "k_Hz", "T1_s", "T2_s", "dw_ppm")
SEMISOLID_KIND = ("lineshape", "coupling", "bridge_ppm")
SEMISOLID_KEYS = ("fraction", "k_Hz", "T1_s", "T2_s", "dw_ppm")
FIELD_KEYS = ("b0_shift_ppm", "b1_relative")


@dataclass(frozen=True)
class FitParameter:
    """A fitted value: ``path`` such as 'amine.k_Hz', start, bounds, and an optional Gaussian prior (mean, sd)."""

    path: str
    start: float
    lower: float
    upper: float
    prior: tuple[float, float] | None = None


@dataclass(frozen=True)
class MapReference:
    """A value taken voxel by voxel from a map, by name ('t1', 'b0', ...) or file."""

    name: str


Entry = float | FitParameter | MapReference


@dataclass(frozen=True)
class TissueModel:
    """Entries by path ('water.T1_s', 'amine.k_Hz', 'semisolid.fraction', 'b0_shift_ppm'), and what is not numeric."""

    entries: Mapping[str, Entry]
    solute_names: tuple[str, ...]
    protons: Mapping[str, float]
    semisolid_kind: Mapping[str, str | float] | None  # lineshape, coupling, bridge_ppm

    @property
    def parameters(self) -> list[FitParameter]:
        """The fitted values, in the order of the model file."""
        return [e for e in self.entries.values() if isinstance(e, FitParameter)]

    @property
    def map_names(self) -> list[str]:
        """Names of the maps that the model refers to."""
        return sorted({e.name for e in self.entries.values() if isinstance(e, MapReference)})

    def values(self, fitted: Mapping[str, Tensor], maps: Mapping[str, Tensor]) -> dict[str, float | Tensor]:
        """Every entry as a number or tensor, given the fitted values by path and the maps by name."""

        def value(path: str, entry: Entry) -> float | Tensor:
            if isinstance(entry, FitParameter):
                return fitted[path]
            return maps[entry.name] if isinstance(entry, MapReference) else entry

        return {path: value(path, entry) for path, entry in self.entries.items()}

    def tissue(self, values: Mapping[str, float | Tensor]) -> Tissue:
        """The tissue of values as :meth:`values` returns them."""

        def of(owner: str, keys: tuple[str, ...]) -> dict:
            return {key: values[f"{owner}.{key}"] for key in keys}

        solutes = tuple(
            Pool(name, **of(name, SOLUTE_KEYS), protons=self.protons.get(name)) for name in self.solute_names
        )
        semisolid = None
        if self.semisolid_kind is not None:
            semisolid = Semisolid(**of("semisolid", SEMISOLID_KEYS), **self.semisolid_kind)
        return Tissue(Water(**of("water", WATER_KEYS)), solutes, semisolid)


def read_tissue_model(path: str | Path) -> TissueModel:
    """Tissue model from a JSON file; ValueError names the file and the key."""
    return tissue_model_from_dict(read_json(path), str(path))


def tissue_model_from_dict(values: dict, source: str = "model") -> TissueModel:
    """Tissue model from the keys of a model file (``water``, ``solutes``, ``semisolid``, fitted fields).

    Raises ValueError naming ``source`` and the key.
    """
    try:
        return _build(values)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{source}: {error}") from None


def _build(values: dict) -> TissueModel:
    if not isinstance(values, dict) or "water" not in values:
        raise ValueError("a tissue model is an object with the keys water, solutes and semisolid")
    unknown = sorted(set(values) - {"water", "solutes", "semisolid", "name", "note", *FIELD_KEYS})
    if unknown:
        raise ValueError(f"unknown keys {', '.join(unknown)}; use water, solutes, semisolid, {', '.join(FIELD_KEYS)}")
    entries: dict[str, Entry] = {}
    _read_pool(entries, "water", values["water"], WATER_KEYS)
    names, protons = [], {}
    solutes = values.get("solutes") or []
    if not isinstance(solutes, list | tuple):
        raise ValueError("solutes is a list of objects")
    for index, solute in enumerate(solutes, start=1):
        if not isinstance(solute, dict):
            raise ValueError(f"solute {index} is an object with the keys {', '.join(SOLUTE_KEYS)}")
        name = str(solute.get("name", f"solute{index}"))
        if name in names or name in ("water", "semisolid"):
            raise ValueError(f"solute name '{name}' is used twice or reserved")
        require_file_name(name, "solute name")
        names.append(name)
        _read_pool(entries, name, solute, SOLUTE_KEYS, extra=("name", "protons"))
        if solute.get("protons"):
            protons[name] = number(solute["protons"], f"{name}: protons")
            if not protons[name] > 0:
                raise ValueError(f"{name}: protons is {protons[name]:g} but must be positive")
    semisolid, kind = values.get("semisolid"), None
    if semisolid is not None and not isinstance(semisolid, dict):
        raise ValueError(f"semisolid is null or an object with the keys {', '.join(SEMISOLID_KEYS)}")
    if semisolid:
        _read_pool(
            entries,
            "semisolid",
            {"dw_ppm": 0.0, **semisolid},
            SEMISOLID_KEYS,
            extra=SEMISOLID_KIND,
        )
        kind = {key: semisolid[key] for key in SEMISOLID_KIND if key in semisolid}
    for key in FIELD_KEYS:
        if key in values:
            entries[key] = _entry(key, values[key])
    model = TissueModel(entries, tuple(names), protons, kind)
    starts = {p.path: torch.tensor(p.start) for p in model.parameters}
    model.tissue(model.values(starts, {name: torch.tensor(1.0) for name in model.map_names}))  # validates ranges
    return model


def _read_pool(
    entries: dict[str, Entry], owner: str, values: dict, keys: tuple[str, ...], extra: tuple[str, ...] = ()
) -> None:
    if not isinstance(values, dict):
        raise ValueError(f"{owner} is an object with the keys {', '.join(keys)}")
    for key in keys:
        if key not in values:
            raise ValueError(f"{owner}: the key {key} is missing")
        entries[f"{owner}.{key}"] = _entry(f"{owner}.{key}", values[key])
    unknown = sorted(set(values) - {*keys, *extra, "note"})
    if unknown:
        raise ValueError(f"{owner}: unknown keys {', '.join(unknown)}; use {', '.join((*keys, *extra))}")


def _entry(path: str, value) -> Entry:
    if isinstance(value, dict):
        if "map" in value:
            return MapReference(str(value["map"]))
        if not value.get("fit"):
            raise ValueError(f'{path}: use a number, {{"fit": true, "start": …, "bounds": […]}} or {{"map": …}}')
        return _fit_parameter(path, value)
    return number(value, path)


def _fit_parameter(path: str, value: dict) -> FitParameter:
    bounds = value.get("bounds")
    if not isinstance(bounds, list | tuple) or len(bounds) != 2:
        raise ValueError(f"{path}: bounds must be two numbers, the lower first")
    lower, upper = (number(bound, f"{path}: a bound") for bound in bounds)
    if not lower < upper:
        raise ValueError(f"{path}: bounds must be two numbers, the lower first")
    start = number(value.get("start", (lower + upper) / 2), f"{path}: the start")
    if not lower <= start <= upper:
        raise ValueError(f"{path}: the start {start:g} lies outside its bounds [{lower:g}, {upper:g}]")
    prior = value.get("prior")
    if prior is not None:
        mean, sd = (prior.get("mean"), prior.get("sd")) if isinstance(prior, dict) else _pair(path, prior)
        mean, sd = number(mean, f"{path}: the prior's mean"), number(sd, f"{path}: the prior's sd")
        if not sd > 0:
            raise ValueError(f"{path}: the prior's sd must be positive")
        prior = (mean, sd)
    return FitParameter(path, start, lower, upper, prior)


def _pair(path: str, prior) -> tuple:
    if not isinstance(prior, list | tuple) or len(prior) != 2:
        raise ValueError(f"{path}: a prior is given as mean and sd")
    return tuple(prior)
