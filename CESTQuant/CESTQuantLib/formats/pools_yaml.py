"""Pool files (.yaml) of the pulseq-cest community."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from NeuroCESTLib.core.checked_json import number

from ..physics.pools import Pool, Semisolid, Tissue, Water
from ..physics.units import GAMMA_RAD_PER_S_PER_UT

COMMUNITY_BRIDGE_PPM = 1.0
"""Bridged half-width of a super-Lorentzian in the pulseq-cest simulators."""


@dataclass(frozen=True)
class PoolFile:
    """Tissue and simulation settings of a pulseq-cest pool file."""

    tissue: Tissue
    field_strength_T: float
    gamma_rad_per_s_per_uT: float
    b0_shift_ppm: float
    b1_relative: float
    initial_magnetisation: float
    magnetisation_carried_over: bool


def read_pools(path: str | Path) -> PoolFile:
    """Pools from a pulseq-cest ``.yaml``; relaxation as times (t1, t2) or rates (r1, r2).

    Raises ValueError naming the file and the key, and where PyYAML is missing.
    """
    path = Path(path)
    try:
        import yaml
    except ImportError:
        raise ValueError(
            f"{path}: reading .yaml files needs the package PyYAML; install it or use a scenario .json"
        ) from None
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; give a pulseq-cest pool .yaml") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError):
        raise ValueError(f"{path}: not a readable YAML file") from None
    try:
        return _pool_file(values)
    except KeyError as error:
        raise ValueError(f"{path}: the key {error} is missing") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: {error}") from None


def _pool_file(values: dict) -> PoolFile:
    if not isinstance(values, dict):
        raise ValueError("a pool file is a mapping with water_pool and cest_pool")
    water_values = values["water_pool"]
    water_fraction = _number(water_values.get("f", 1.0), "water_pool: f")
    if not water_fraction > 0:
        raise ValueError("water_pool: f must be positive")
    solute_values = (values.get("cest_pool") or {}).items()
    solutes = tuple(Pool(str(name), **_exchange(p, str(name), water_fraction)) for name, p in solute_values)
    mt = values.get("mt_pool")
    semisolid = None
    if mt:
        lineshape = str(mt.get("lineshape", "Lorentzian")).lower().replace("-", "").replace("_", "")
        semisolid = Semisolid(
            **_exchange({"dw": 0.0, **mt}, "mt_pool", water_fraction),
            lineshape=lineshape,
            bridge_ppm=COMMUNITY_BRIDGE_PPM,
        )
    return PoolFile(
        tissue=Tissue(Water(**_relaxation(water_values, "water_pool")), solutes, semisolid),
        field_strength_T=_positive(values["b0"], "b0"),
        gamma_rad_per_s_per_uT=_positive(values.get("gamma", GAMMA_RAD_PER_S_PER_UT), "gamma"),
        b0_shift_ppm=_number(values.get("b0_inhom", 0.0), "b0_inhom"),
        b1_relative=_number(values.get("rel_b1", 1.0), "rel_b1"),
        initial_magnetisation=_number(values.get("scale", 1.0), "scale"),
        magnetisation_carried_over=not values.get("reset_init_mag", True),
    )


def _exchange(pool: dict, name: str, water_fraction: float) -> dict[str, float]:
    return {
        "fraction": _number(pool["f"], f"{name}: f") / water_fraction,
        "k_Hz": _number(pool["k"], f"{name}: k"),
        "dw_ppm": _number(pool["dw"], f"{name}: dw"),
        **_relaxation(pool, name),
    }


def _relaxation(pool: dict, name: str) -> dict[str, float]:
    def time(key: str, rate_key: str) -> float:
        if key in pool:
            return _positive(pool[key], f"{name}: {key}")
        return 1 / _positive(pool[rate_key], f"{name}: {rate_key}")

    return {"T1_s": time("t1", "r1"), "T2_s": time("t2", "r2")}


def _positive(value, name: str) -> float:
    result = _number(value, name)
    if not result > 0:
        raise ValueError(f"{name} is {result:g} but must be positive")
    return result


def _number(value, name: str) -> float:
    """A number, or a quotient written as text ('1/0.08'), as the pool libraries do."""
    try:
        if isinstance(value, str) and value.count("/") == 1:
            numerator, denominator = value.split("/")
            return number(float(numerator) / float(denominator), name)
        return number(float(value) if isinstance(value, str) else value, name)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{name} is {value!r}, which is not a finite number") from None
