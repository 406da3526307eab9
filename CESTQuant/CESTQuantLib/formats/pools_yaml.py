"""Pool files (.yaml) of the pulseq-cest community."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from NeuroCESTLib.core.checked_json import number, shortened
from NeuroCESTLib.core.checked_yaml import read_yaml

from ..physics.lineshapes import plain_name
from ..physics.pools import Pool, Scalar, Semisolid, Tissue, Water
from ..physics.units import GAMMA_RAD_PER_S_PER_UT, rad_per_s_per_ppm
from .plausible import gyromagnetic_ratio, initial_magnetization, relaxation_time, warn_of_unusual_b1
from .protocol_json import warn_of_unknown_keys
from .pulseq.field import STRONGEST_T

COMMUNITY_BRIDGE_PPM = 1.0
"""Half-width in ppm of the bridged centre of a super-Lorentzian in the pulseq-cest simulators."""
_FILE_KEYS = {"water_pool", "cest_pool", "mt_pool", "b0", "gamma", "b0_inhom", "rel_b1", "scale", "reset_init_mag"}
_OTHER_NAMES = {"b0_inhomogeneity": "b0_inhom", "relb1": "rel_b1"}
"""Names that some programs of the community give the keys of this file."""
_SIMULATOR_KEYS = {"verbose", "max_pulse_samples", "max_samples"}
_ISOCHROMAT_KEYS = {"t2star", "isochromats"}
_MOST_ISOCHROMATS = 10_000
_TRANSPARENT_T2_S = 1e-15
"""T2 in s of a line so broad that it absorbs nothing, for semisolid pools without a lineshape."""
_RELAXATION_KEYS = {"t1", "t2", "r1", "r2"}
_POOL_KEYS = {"f", "k", "dw", *_RELAXATION_KEYS}
_WATER_KEYS = {"f", "dw", *_RELAXATION_KEYS, *_ISOCHROMAT_KEYS}
_SAME_RELAXATION = 0.01
"""Relative difference up to which a rounded relaxation time is that of the rate beside it."""


@dataclass(frozen=True)
class PoolFile:
    """Tissue and simulation settings of a pulseq-cest pool file.

    Attributes:
        tissue: Pools, with fractions relative to water.
        field_strength_T: Static field in T.
        gamma_rad_per_s_per_uT: Gyromagnetic ratio in rad/(s uT).
        b0_shift_ppm: B0 shift in ppm.
        b1_relative: RF amplitude relative to the nominal one.
        initial_magnetisation: Share of the equilibrium magnetisation with which the simulation starts.
        magnetisation_carried_over: Whether a measurement starts from what the last one left.
        isochromat_shifts_ppm: B0 shifts in ppm of the isochromats of a voxel, whose mean is the signal; one 0 where the
            field is the same everywhere.
    """

    tissue: Tissue
    field_strength_T: float
    gamma_rad_per_s_per_uT: float
    b0_shift_ppm: float
    b1_relative: float
    initial_magnetisation: float
    magnetisation_carried_over: bool
    isochromat_shifts_ppm: tuple[float, ...] = (0.0,)


class _Relaxation(TypedDict):
    T1_s: float
    T2_s: float


class _Exchange(_Relaxation):
    fraction: float
    k_Hz: float
    dw_ppm: float


def read_pools(path: str | Path) -> PoolFile:
    """Read a pulseq-cest pool file, with relaxation given as times (t1, t2) or rates (r1, r2).

    Keys that are not known are named in a warning, because the files come from other software.

    Raises:
        ValueError: The file cannot be read, a value is missing or unusable, or PyYAML is not installed; the message
            names the file and the key.
    """
    path = Path(path)
    values = read_yaml(path, "give a pulseq-cest pool .yaml")
    try:
        return _pool_file(values, str(path))
    except KeyError as error:
        raise ValueError(f"{path}: the key {error} is missing or empty") from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None


def _pool_file(values: Any, source: str) -> PoolFile:
    if not isinstance(values, dict):
        raise ValueError("a pool file is a mapping with water_pool and cest_pool")
    values = _with_known_names(_without_empty(values))
    warn_of_unknown_keys(values, _FILE_KEYS | _SIMULATOR_KEYS | _ISOCHROMAT_KEYS, source)
    water_pool = _pool(values["water_pool"], "water_pool")
    water, water_fraction = _water(water_pool, source)
    field_strength_T = _positive(values["b0"], "b0")
    if field_strength_T > STRONGEST_T:
        raise ValueError(f"b0 is {field_strength_T:g}, which no magnet has; give the field in T, not in MHz or mT")
    gamma = gyromagnetic_ratio(_number(values.get("gamma", GAMMA_RAD_PER_S_PER_UT), "gamma"), "gamma")
    b1_relative = _number(values.get("rel_b1", 1.0), "rel_b1")
    warn_of_unusual_b1(b1_relative, f"{source}: rel_b1")
    shifts = _isochromat_shifts({**values, **water_pool}, water.T2_s, rad_per_s_per_ppm(field_strength_T, gamma))
    return PoolFile(
        tissue=Tissue(water, _solutes(values, water_fraction, source), _semisolid(values, water_fraction, source)),
        field_strength_T=field_strength_T,
        gamma_rad_per_s_per_uT=gamma,
        b0_shift_ppm=_number(values.get("b0_inhom", 0.0), "b0_inhom"),
        b1_relative=b1_relative,
        initial_magnetisation=initial_magnetization(_number(values.get("scale", 1.0), "scale"), "scale"),
        magnetisation_carried_over=not _true_or_false(values.get("reset_init_mag", True), "reset_init_mag"),
        isochromat_shifts_ppm=shifts,
    )


def _without_empty(values: dict[Any, Any]) -> dict[Any, Any]:
    """A mapping without the keys that have no value, which mean the same as absent ones."""
    return {key: value for key, value in values.items() if value is not None}


def _pool(values: Any, name: str) -> dict[Any, Any]:
    """The values of a pool by key."""
    if not isinstance(values, dict):
        found = "empty" if values is None else shortened(values)
        raise ValueError(f"{name} is {found} but must be a mapping, such as {{t1: 1.3, t2: 0.08}}")
    return _without_empty(values)


def _true_or_false(value: Any, name: str) -> bool:
    """A value that is true or false, or 1 or 0 as the pool libraries write it."""
    if not isinstance(value, int | float) or value not in (0, 1):
        raise ValueError(f"{name} is {shortened(value)} but must be true or false")
    return bool(value)


def _with_known_names(values: dict[str, Any]) -> dict[str, Any]:
    """The keys of a file under the names of pulseq-cest."""
    for other, name in _OTHER_NAMES.items():
        if other in values and name in values and values[other] != values[name]:
            raise ValueError(f"{other} is {values[other]} and {name} is {values[name]}, which mean the same; give one")
    return {_OTHER_NAMES.get(key, key): value for key, value in values.items()}


def _isochromat_shifts(given: dict[str, Any], T2_s: Scalar, rad_per_s_per_ppm: float) -> tuple[float, ...]:
    """B0 shifts in ppm of the isochromats that ``t2star`` and ``isochromats`` describe.

    They are the quantiles of a Lorentzian line of half-width 1/T2' = 1/T2* - 1/T2, whose outer tenth is cut off, as in
    pulseq-cest: tan(0.9 pi (X - 1/2)) / T2' with X in equal steps between 0 and 1.
    """
    count = _number(given.get("isochromats", 1), "isochromats")
    if not (count.is_integer() and 1 <= count <= _MOST_ISOCHROMATS):
        raise ValueError(f"isochromats is {count:g} but must be a whole number from 1 to {_MOST_ISOCHROMATS}")
    if count == 1:
        return (0.0,)
    if "t2star" not in given:
        raise ValueError("isochromats needs t2star, from which their B0 shifts follow; give it or remove isochromats")
    T2star_s = _positive(given["t2star"], "t2star")
    if T2star_s >= T2_s:
        raise ValueError(f"t2star is {T2star_s:g} but must be shorter than t2 of water")
    width = (1 / T2star_s - 1 / float(T2_s)) / rad_per_s_per_ppm
    places = [(i + 0.5) / count for i in range(int(count))]
    return tuple(width * math.tan(0.9 * math.pi * (place - 0.5)) for place in places)


def _water(values: dict[str, Any], source: str) -> tuple[Water, float]:
    """Water and its fraction, to which those of the other pools are related."""
    fraction = _number(values.get("f", 1.0), "water_pool: f")
    if not fraction > 0:
        raise ValueError("water_pool: f must be positive")
    shift_ppm = _number(values.get("dw", 0.0), "water_pool: dw")
    if shift_ppm != 0:
        raise ValueError(
            f"water_pool: dw is {shift_ppm:g} but must be 0, from which shifts count: give a B0 shift as b0_inhom"
        )
    warn_of_unknown_keys(values, _WATER_KEYS, f"{source}: water_pool")
    return Water(**_relaxation(values, "water_pool")), fraction


def _solutes(values: dict[str, Any], water_fraction: float, source: str) -> tuple[Pool, ...]:
    solutes = []
    for name, pool in _named_pools(values.get("cest_pool") or {}):
        solutes.append(Pool(name, **_exchange(pool, name, water_fraction)))
        warn_of_unknown_keys(pool, _POOL_KEYS, f"{source}: {name}")
    return tuple(solutes)


def _named_pools(pools: Any) -> list[tuple[str, dict[Any, Any]]]:
    """The pools of a mapping by name, or of a list of such mappings."""
    listed = pools if isinstance(pools, list) else [pools]
    if not all(isinstance(part, dict) for part in listed):
        raise ValueError("cest_pool is a mapping of pools by their names")
    return [(str(name), _pool(pool, str(name))) for part in listed for name, pool in part.items()]


def _semisolid(values: dict[str, Any], water_fraction: float, source: str) -> Semisolid | None:
    if not (given := values.get("mt_pool")):
        return None
    pool = _pool(given, "mt_pool")
    if "lineshape" in given and "lineshape" not in pool:
        raise ValueError("mt_pool: lineshape is empty: give SuperLorentzian, Lorentzian or 'None'")
    exchange = _exchange({"dw": 0.0, **pool}, "mt_pool", water_fraction)
    warn_of_unknown_keys(pool, {"lineshape", *_POOL_KEYS}, f"{source}: mt_pool")
    lineshape = plain_name(str(pool.get("lineshape", "Lorentzian")))
    if lineshape == "none":  # the pool exchanges, but RF does not act on it
        exchange["T2_s"] = _TRANSPARENT_T2_S
        return Semisolid(**exchange)
    return Semisolid(**exchange, lineshape=lineshape, bridge_ppm=COMMUNITY_BRIDGE_PPM)


def _exchange(pool: dict[str, Any], name: str, water_fraction: float) -> _Exchange:
    return {
        "fraction": _number(pool["f"], f"{name}: f") / water_fraction,
        "k_Hz": _number(pool["k"], f"{name}: k"),
        "dw_ppm": _number(pool["dw"], f"{name}: dw"),
        **_relaxation(pool, name),
    }


def _relaxation(pool: dict[str, Any], name: str) -> _Relaxation:
    def time(key: str, rate_key: str) -> float:
        if key not in pool:
            return relaxation_time(1 / _positive(pool[rate_key], f"{name}: {rate_key}"), f"{name}: 1/{rate_key}")
        result = _positive(pool[key], f"{name}: {key}")
        if rate_key in pool:
            of_rate = 1 / _positive(pool[rate_key], f"{name}: {rate_key}")
            if not math.isclose(result, of_rate, rel_tol=_SAME_RELAXATION):
                raise ValueError(
                    f"{name}: {key} is {result:g} but 1/{rate_key} is {of_rate:.4g}; remove the wrong one of them"
                )
        return relaxation_time(result, f"{name}: {key}")

    return {"T1_s": time("t1", "r1"), "T2_s": time("t2", "r2")}


def _positive(value: object, name: str) -> float:
    result = _number(value, name)
    if not result > 0:
        raise ValueError(f"{name} is {result:g} but must be positive")
    return result


def _number(value: object, name: str) -> float:
    """A number, or a quotient written as text ('1/0.08'), as the pool libraries do."""
    try:
        if isinstance(value, str) and value.count("/") == 1:
            numerator, denominator = value.split("/")
            return number(float(numerator) / float(denominator), name)
        return number(float(value) if isinstance(value, str) else value, name)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{name} is {shortened(value)}, which is not a finite number") from None
