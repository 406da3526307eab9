"""Tissue models for fits, as the model file describes them: every value is a number, comes from a map, or is fitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from NeuroCESTLib.core.checked_json import check_keys, number, read_json, require_file_name

from ..physics.pools import Pool, Scalar, Semisolid, Tissue, Water

MODEL_KEYS = ("water", "solutes", "semisolid")
WATER_KEYS = ("T1_s", "T2_s")
SOLUTE_KEYS = ("fraction", "k_Hz", "T1_s", "T2_s", "dw_ppm")
SEMISOLID_KEYS = ("fraction", "k_Hz", "T1_s", "T2_s", "dw_ppm")
SEMISOLID_KIND_KEYS = ("lineshape", "coupling", "bridge_ppm")
FIELD_KEYS = ("b0_shift_ppm", "b1_relative")
SIGNAL_KEYS = ("signal_scale", "noise_floor")
"""What stands between the physics and the measured signal, see ``tissue.model_fits.signal_model``."""
CONSTANT_KEYS = ("value", "sd")
FIT_KEYS = ("fit", "start", "bounds", "prior")
PRIOR_KEYS = ("mean", "sd")


@dataclass(frozen=True)
class FitParameter:
    """A fitted value.

    Attributes:
        path: Entry of the tissue model, such as ``amine.k_Hz``.
        start: Value at which the fit starts, within the bounds.
        lower: Lower bound.
        upper: Upper bound.
        prior: Mean and standard deviation of a Gaussian prior; None for none.
    """

    path: str
    start: float
    lower: float
    upper: float
    prior: tuple[float, float] | None = None


@dataclass(frozen=True)
class MapReference:
    """A value that each voxel takes from a map.

    Attributes:
        name: A known map (``t1``, ``b0``, ...) or the name of a file.
    """

    name: str


Entry = float | FitParameter | MapReference
"""A value of a tissue model."""


@dataclass(frozen=True)
class SemisolidKind:
    """What is not fitted of a semisolid pool; see ``physics.pools.Semisolid`` for its attributes."""

    lineshape: str = Semisolid.lineshape
    coupling: str = Semisolid.coupling
    bridge_ppm: float = Semisolid.bridge_ppm


@dataclass(frozen=True)
class TissueModel:
    """A tissue of which some values are fitted.

    Attributes:
        entries: Values by path, such as ``water.T1_s``, ``amine.k_Hz``, ``semisolid.fraction`` or ``b0_shift_ppm``.
        solute_names: Names of the solute pools in the order of the model file.
        protons: Exchangeable protons per molecule, by solute, where they are given.
        semisolid_kind: Lineshape and coupling of the semisolid pool; None without such a pool.
        deviations: Standard deviations, by path, of numbers and maps that are not known exactly.
    """

    entries: Mapping[str, Entry]
    solute_names: tuple[str, ...]
    protons: Mapping[str, float]
    semisolid_kind: SemisolidKind | None
    deviations: Mapping[str, float] = field(default_factory=dict)

    @property
    def parameters(self) -> list[FitParameter]:
        """The fitted values, in the order of the model file."""
        return [entry for entry in self.entries.values() if isinstance(entry, FitParameter)]

    @property
    def fixed_properties(self) -> dict[str, float | str]:
        """What the entries do not tell, by path: the protons of the solutes and the kind of the semisolid pool."""
        kind = {} if self.semisolid_kind is None else asdict(self.semisolid_kind)
        return {
            **{f"{name}.protons": count for name, count in self.protons.items()},
            **{f"semisolid.{key}": value for key, value in kind.items()},
        }

    @property
    def map_names(self) -> list[str]:
        """Names of the maps that the model refers to, sorted."""
        return sorted({entry.name for entry in self.entries.values() if isinstance(entry, MapReference)})

    def values(self, fitted: Mapping[str, Tensor], maps: Mapping[str, Tensor]) -> dict[str, Scalar]:
        """Resolve every entry to a number or a tensor.

        Args:
            fitted: Fitted values by path.
            maps: Maps by name.

        Returns:
            Values by path.
        """

        def value(path: str, entry: Entry) -> Scalar:
            if isinstance(entry, FitParameter):
                return fitted[path]
            return maps[entry.name] if isinstance(entry, MapReference) else entry

        return {path: value(path, entry) for path, entry in self.entries.items()}

    def start_values(self) -> dict[str, Scalar]:
        """Return every entry with fitted values at their starts and maps that are one, to check what holds for all."""
        starts = {parameter.path: torch.tensor(parameter.start) for parameter in self.parameters}
        return self.values(starts, {name: torch.tensor(1.0) for name in self.map_names})

    def tissue(self, values: Mapping[str, Scalar]) -> Tissue:
        """Build the tissue from values by path, as ``values`` returns them.

        Raises:
            ValueError: A value is not physical; the message names it.
        """

        def of(owner: str, keys: tuple[str, ...]) -> dict[str, Scalar]:
            return {key: values[f"{owner}.{key}"] for key in keys}

        solutes = tuple(
            Pool(name, **of(name, SOLUTE_KEYS), protons=self.protons.get(name)) for name in self.solute_names
        )
        semisolid, kind = None, self.semisolid_kind
        if kind is not None:
            semisolid = Semisolid(
                **of("semisolid", SEMISOLID_KEYS),
                lineshape=kind.lineshape,
                coupling=kind.coupling,
                bridge_ppm=kind.bridge_ppm,
            )
        return Tissue(Water(**of("water", WATER_KEYS)), solutes, semisolid)


def read_tissue_model(path: str | Path) -> TissueModel:
    """Read a tissue model from a JSON file.

    Raises:
        ValueError: The file is missing or describes no tissue model; the message names the file and the key.
    """
    return tissue_model_from_dict(read_json(path), str(path))


def tissue_model_from_dict(values: Any, source: str = "model") -> TissueModel:
    """Build a tissue model from the content of a model file.

    Args:
        values: Object with the keys ``water``, ``solutes``, ``semisolid``, and fitted or fixed ``b0_shift_ppm``,
            ``b1_relative``, ``signal_scale`` and ``noise_floor``.
        source: What messages call it, usually the file.

    Raises:
        ValueError: The object describes no tissue model; the message names ``source`` and the key.
    """
    values = check_keys(values, (*MODEL_KEYS, *FIELD_KEYS, *SIGNAL_KEYS), source, also=("name", "note"))
    values, deviations = _without_deviations(values, source)
    if "water" not in values:
        raise ValueError(f"{source}: the key water is missing")
    entries: dict[str, Entry] = {}
    _read_pool(entries, "water", values["water"], source, WATER_KEYS)
    protons = _read_solutes(entries, values.get("solutes") or [], source)
    semisolid_kind = _read_semisolid(entries, values.get("semisolid"), source)
    for key in (*FIELD_KEYS, *SIGNAL_KEYS):
        if key in values:
            entries[key] = _entry(values[key], key, source)
    given = {name: count for name, count in protons.items() if count is not None}
    model = TissueModel(entries, tuple(protons), given, semisolid_kind, deviations)
    try:
        model.tissue(model.start_values())
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    return model


def _without_deviations(values: dict[str, Any], source: str) -> tuple[dict[str, Any], dict[str, float]]:
    """Take the standard deviations out of a model.

    Returns:
        The model, in which ``{"value": x, "sd": s}`` is x and ``{"map": m, "sd": s}`` is ``{"map": m}``; and the
        standard deviations by path. What is no entry of a model, such as ``protons``, is left as it is.

    Raises:
        ValueError: A standard deviation is not positive.
    """
    deviations: dict[str, float] = {}

    def exact(entry: Any, path: str) -> Any:
        if not isinstance(entry, Mapping) or "sd" not in entry or not {"value", "map"} & set(entry):
            return entry
        where = f"{source}: {path}"
        if "map" in entry:
            rest: Any = {key: value for key, value in entry.items() if key != "sd"}
        else:
            rest = check_keys(entry, CONSTANT_KEYS, where, also=("note",))["value"]
        deviations[path] = sd = number(entry["sd"], f"{where}: the standard deviation")
        if not sd > 0:
            raise ValueError(f"{where}: the standard deviation is {sd:g} but must be positive")
        return rest

    def pool(entry: Any, owner: str, keys: tuple[str, ...]) -> Any:
        if not isinstance(entry, Mapping):
            return entry
        return {key: exact(value, f"{owner}.{key}") if key in keys else value for key, value in entry.items()}

    found = {key: exact(value, key) if key in (*FIELD_KEYS, *SIGNAL_KEYS) else value for key, value in values.items()}
    pools = {"water": WATER_KEYS, "semisolid": SEMISOLID_KEYS}
    found |= {owner: pool(values[owner], owner, keys) for owner, keys in pools.items() if owner in values}
    if isinstance(solutes := values.get("solutes"), list | tuple):
        names = [
            solute.get("name", f"solute{i}") if isinstance(solute, Mapping) else ""
            for i, solute in enumerate(solutes, 1)
        ]
        found["solutes"] = [pool(solute, str(name), SOLUTE_KEYS) for solute, name in zip(solutes, names, strict=True)]
    return found, deviations


def _read_pool(
    entries: dict[str, Entry],
    owner: str,
    values: Any,
    source: str,
    keys: tuple[str, ...],
    further_keys: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Enter the values of a pool into ``entries``; returns its object, checked for unknown keys."""
    values = check_keys(values, (*keys, *further_keys), f"{source}: {owner}", also=("note",))
    for key in keys:
        if key not in values:
            raise ValueError(f"{source}: {owner}: the key {key} is missing")
        entries[f"{owner}.{key}"] = _entry(values[key], f"{owner}.{key}", source)
    return values


def _read_solutes(entries: dict[str, Entry], solutes: Any, source: str) -> dict[str, float | None]:
    """Enter the values of the solutes into ``entries``; returns the number of protons, where given, by solute."""
    if not isinstance(solutes, list | tuple):
        raise ValueError(f"{source}: solutes must be a list of objects")
    found: dict[str, float | None] = {}
    for index, solute in enumerate(solutes, start=1):
        name = f"solute{index}"
        if isinstance(solute, Mapping):
            name = str(solute.get("name", name))
        if name in found or name in ("water", "semisolid"):
            raise ValueError(f"{source}: the solute name '{name}' is used twice or reserved; choose another one")
        require_file_name(name, f"{source}: solute name")
        values = _read_pool(entries, name, solute, source, SOLUTE_KEYS, ("name", "protons"))
        found[name] = None
        if values.get("protons"):
            found[name] = protons = number(values["protons"], f"{source}: {name}: protons")
            if not protons > 0:
                raise ValueError(f"{source}: {name}: protons is {protons:g} but must be positive")
    return found


def _read_semisolid(entries: dict[str, Entry], semisolid: Any, source: str) -> SemisolidKind | None:
    """Enter the values of the semisolid pool, if there is one, into ``entries``; returns its kind."""
    if semisolid is None or semisolid == {}:
        return None
    if isinstance(semisolid, Mapping):
        semisolid = {"dw_ppm": 0.0, **semisolid}
    values = _read_pool(entries, "semisolid", semisolid, source, SEMISOLID_KEYS, SEMISOLID_KIND_KEYS)
    kind: dict[str, Any] = {key: values[key] for key in ("lineshape", "coupling") if key in values}
    for key, value in kind.items():
        if not isinstance(value, str):
            raise ValueError(f"{source}: semisolid: {key} must be a name, such as '{getattr(SemisolidKind, key)}'")
    if "bridge_ppm" in values:
        kind["bridge_ppm"] = number(values["bridge_ppm"], f"{source}: semisolid: bridge_ppm")
    return SemisolidKind(**kind)


def _entry(value: Any, path: str, source: str) -> Entry:
    """Read a number, a fitted value or a reference to a map."""
    if not isinstance(value, Mapping):
        return number(value, f"{source}: {path}")
    where = f"{source}: {path}"
    if "map" in value:
        return MapReference(str(check_keys(value, ("map",), where, also=("note",))["map"]))
    if not value.get("fit"):
        raise ValueError(
            f'{where}: use a number, {{"value": …, "sd": …}}, {{"fit": true, "start": …, "bounds": […]}} or '
            '{"map": …}'
        )
    values = check_keys(value, FIT_KEYS, where, also=("note",))
    bounds = values.get("bounds")
    if not isinstance(bounds, list | tuple) or len(bounds) != 2:
        raise ValueError(f"{where}: bounds must be two numbers, the lower first")
    lower, upper = (number(bound, f"{where}: a bound") for bound in bounds)
    if not lower < upper:
        raise ValueError(f"{where}: bounds must be two numbers, the lower first")
    start = number(values.get("start", (lower + upper) / 2), f"{where}: the start")
    if not lower <= start <= upper:
        raise ValueError(f"{where}: the start {start:g} lies outside its bounds [{lower:g}, {upper:g}]")
    return FitParameter(path, start, lower, upper, _prior(values.get("prior"), where))


def _prior(prior: Any, where: str) -> tuple[float, float] | None:
    """Read mean and standard deviation of a prior, given as an object or as a pair; None for none."""
    if prior is None:
        return None
    if isinstance(prior, Mapping):
        values = check_keys(prior, PRIOR_KEYS, f"{where}: prior")
        prior = (values.get("mean"), values.get("sd"))
    if not isinstance(prior, list | tuple) or len(prior) != 2:
        raise ValueError(f"{where}: a prior is given as mean and sd")
    mean, sd = number(prior[0], f"{where}: the prior's mean"), number(prior[1], f"{where}: the prior's sd")
    if not sd > 0:
        raise ValueError(f"{where}: the prior's sd must be positive")
    return mean, sd
