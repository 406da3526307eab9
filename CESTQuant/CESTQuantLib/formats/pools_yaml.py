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
from .protocol_json import warn_of_unknown_keys

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
        raise ValueError(f"{path}: the key {error} is missing") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: {error}") from None


def _pool_file(values: Any, source: str) -> PoolFile:
    if not isinstance(values, dict):
        raise ValueError("a pool file is a mapping with water_pool and cest_pool")
    values = _with_known_names(values)
    warn_of_unknown_keys(values, _FILE_KEYS | _SIMULATOR_KEYS | _ISOCHROMAT_KEYS, source)
    water, water_fraction = _water(values["water_pool"], source)
    field_strength_T = _positive(values["b0"], "b0")
    gamma = _positive(values.get("gamma", GAMMA_RAD_PER_S_PER_UT), "gamma")
    shifts = _isochromat_shifts(values, water.T2_s, rad_per_s_per_ppm(field_strength_T, gamma))
    return PoolFile(
        tissue=Tissue(water, _solutes(values, water_fraction, source), _semisolid(values, water_fraction, source)),
        field_strength_T=field_strength_T,
        gamma_rad_per_s_per_uT=gamma,
        b0_shift_ppm=_number(values.get("b0_inhom", 0.0), "b0_inhom"),
        b1_relative=_number(values.get("rel_b1", 1.0), "rel_b1"),
        initial_magnetisation=_number(values.get("scale", 1.0), "scale"),
        magnetisation_carried_over=not values.get("reset_init_mag", True),
        isochromat_shifts_ppm=shifts,
    )


def _with_known_names(values: dict[str, Any]) -> dict[str, Any]:
    """The keys of a file under the names of pulseq-cest."""
    for other, name in _OTHER_NAMES.items():
        if other in values and name in values and values[other] != values[name]:
            raise ValueError(f"{other} is {values[other]} and {name} is {values[name]}, which mean the same; give one")
    return {_OTHER_NAMES.get(key, key): value for key, value in values.items()}


def _isochromat_shifts(values: dict[str, Any], T2_s: Scalar, rad_per_s_per_ppm: float) -> tuple[float, ...]:
    """B0 shifts in ppm of the isochromats that ``t2star`` and ``isochromats`` describe.

    They are the quantiles of a Lorentzian line of half-width 1/T2' = 1/T2* - 1/T2, whose outer tenth is cut off, as in
    pulseq-cest: tan(0.9 pi (X - 1/2)) / T2' with X in equal steps between 0 and 1.
    """
    given = {key: value for key, value in {**values, **values["water_pool"]}.items() if key in _ISOCHROMAT_KEYS}
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
    warn_of_unknown_keys(values, _POOL_KEYS | _ISOCHROMAT_KEYS, f"{source}: water_pool")
    return Water(**_relaxation(values, "water_pool")), fraction


def _solutes(values: dict[str, Any], water_fraction: float, source: str) -> tuple[Pool, ...]:
    solutes = []
    for name, pool in _named_pools(values.get("cest_pool") or {}):
        solutes.append(Pool(str(name), **_exchange(pool, str(name), water_fraction)))
        warn_of_unknown_keys(pool, _POOL_KEYS, f"{source}: {name}")
    return tuple(solutes)


def _named_pools(pools: Any) -> list[tuple[str, Any]]:
    """The pools of a mapping by name, or of a list of such mappings."""
    listed = pools if isinstance(pools, list) else [pools]
    if not all(isinstance(part, dict) for part in listed):
        raise ValueError("cest_pool is a mapping of pools by their names")
    return [(str(name), pool) for part in listed for name, pool in part.items()]


def _semisolid(values: dict[str, Any], water_fraction: float, source: str) -> Semisolid | None:
    if not (pool := values.get("mt_pool")):
        return None
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
        if key in pool:
            return _positive(pool[key], f"{name}: {key}")
        return 1 / _positive(pool[rate_key], f"{name}: {rate_key}")

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
