"""Pool files (.yaml) of the pulseq-cest community."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .pools import Pool, Semisolid, Tissue, Water
from .units import GAMMA_RAD_PER_S_PER_UT

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
    water_fraction = _number(water_values.get("f", 1.0))
    solutes = tuple(
        Pool(str(name), _number(p["f"]) / water_fraction, _number(p["k"]), *_relaxation(p), _number(p["dw"]))
        for name, p in (values.get("cest_pool") or {}).items()
    )
    mt = values.get("mt_pool")
    semisolid = None
    if mt:
        lineshape = str(mt.get("lineshape", "Lorentzian")).lower().replace("-", "").replace("_", "")
        semisolid = Semisolid(
            _number(mt["f"]) / water_fraction,
            _number(mt["k"]),
            *_relaxation(mt),
            _number(mt.get("dw", 0.0)),
            lineshape,
            bridge_ppm=COMMUNITY_BRIDGE_PPM,
        )
    return PoolFile(
        tissue=Tissue(Water(*_relaxation(water_values)), solutes, semisolid),
        field_strength_T=_number(values["b0"]),
        gamma_rad_per_s_per_uT=_number(values.get("gamma", GAMMA_RAD_PER_S_PER_UT)),
        b0_shift_ppm=_number(values.get("b0_inhom", 0.0)),
        b1_relative=_number(values.get("rel_b1", 1.0)),
        initial_magnetisation=_number(values.get("scale", 1.0)),
        magnetisation_carried_over=not values.get("reset_init_mag", True),
    )


def _relaxation(pool: dict) -> tuple[float, float]:
    T1_s = _number(pool["t1"]) if "t1" in pool else 1 / _number(pool["r1"])
    T2_s = _number(pool["t2"]) if "t2" in pool else 1 / _number(pool["r2"])
    return T1_s, T2_s


def _number(value) -> float:
    """A number, or a quotient written as text ('1/0.08'), as the pool libraries do."""
    if isinstance(value, str) and value.count("/") == 1:
        numerator, denominator = value.split("/")
        return float(numerator) / float(denominator)
    return float(value)
