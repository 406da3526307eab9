"""Simulation scenarios: tissue, offsets and preparation in one JSON object (the format of the golden spectra)."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, TypedDict

from NeuroCESTLib.core.checked_json import number

from ..physics.lineshapes import plain_name
from ..physics.pools import Pool, Semisolid, Tissue, Water
from ..physics.protocol import Protocol
from ..physics.units import GAMMA_RAD_PER_S_PER_UT
from .plausible import relaxation_time, warn_of_unusual_b1
from .protocol_json import protocol_from_dict, true_or_false, warn_of_unknown_keys

_SCENARIO_KEYS = {
    "B0_T",
    "gamma_rad_per_s_per_uT",
    "gamma_MHz_per_T",
    "water",
    "solute_pools_full_xyz",
    "mt_pool_z_only",
    "offsets_ppm",
    "preparation",
}
_RECORD_KEYS = {
    "id",
    "description",
    "units",
    "conventions",
    "recommended_truth",
    "timing_s",
    "seq_build_s",
    "software",
    "note",
    "notes",
}
"""What the golden spectra say about themselves."""
_RECORD_PREFIXES = ("Z_", "max_abs_diff_")
"""Beginnings of the names of simulated spectra and their differences."""
_BLOCK_KEYS = ("B1_uT", "tsat_s")
_TRAIN_KEYS = ("n_pulses", "tp_s", "td_s", "sample_dwell_s", "B1_samples_uT", "phase_samples_rad")
_PREPARATION_KEYS = {
    "type",
    "post_delay_s",
    "initial_Mz_fraction_all_pools",
    "B0_shift_ppm",
    "rel_B1",
    "trec_s",
    "reset_before_each_offset",
    *_BLOCK_KEYS,
    *_TRAIN_KEYS,
    "B1_rms_pulse_uT",
    "B1_cwpe_uT",
    "phase_rule",
    "readout",
    "note",
}
_POOL_KEYS = {"name", "f", "k_Hz", "T1_s", "T2_s", "dw_ppm", "note"}
_WATER_KEYS = _POOL_KEYS - {"k_Hz"}
_SAME_GAMMA = 1e-3
"""Relative difference up to which two rounded gyromagnetic ratios are the same."""


@dataclass(frozen=True)
class Scenario:
    """A tissue under a protocol.

    Attributes:
        tissue: Pools.
        protocol: Acquisition.
        b0_shift_ppm: B0 shift in ppm.
        b1_relative: RF amplitude relative to the nominal one.
    """

    tissue: Tissue
    protocol: Protocol
    b0_shift_ppm: float
    b1_relative: float


class _Relaxation(TypedDict):
    T1_s: float
    T2_s: float


class _Exchange(_Relaxation):
    fraction: float
    k_Hz: float
    dw_ppm: float


def read_scenario(values: dict[str, Any], source: str) -> Scenario:
    """Return the scenario that a JSON object describes.

    Args:
        values: Object as read from JSON. Keys that are not known are named in a warning, because such files come from
            other software.
        source: Name of the file, which opens the messages.

    Raises:
        ValueError: A value is missing or unusable; the message names the source and the key.
    """
    try:
        given = _object(values, "a scenario")
        values = _without_nulls(given)
        preparation = _object(values["preparation"], "preparation")
        scenario = Scenario(
            tissue=_tissue(values),
            protocol=_protocol(values, preparation),
            b0_shift_ppm=number(preparation.get("B0_shift_ppm", 0.0), "B0_shift_ppm"),
            b1_relative=number(preparation.get("rel_B1", 1.0), "rel_B1"),
        )
    except KeyError as error:
        raise ValueError(f"{source}: the key {error} is missing or null") from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{source}: {error}") from None
    _warn_of_unknown_keys(given, source)
    _warn_of_unused_keys(preparation, source)
    warn_of_unusual_b1(scenario.b1_relative, f"{source}: rel_B1")
    if preparation.get("trec_s", 0) != 0 and not scenario.protocol.magnetisation_carried_over:
        warnings.warn(
            f"{source}: trec_s is not used, because every offset starts afresh; set reset_before_each_offset to false "
            "to carry the magnetisation over",
            stacklevel=2,
        )
    return scenario


def _warn_of_unknown_keys(values: dict[str, Any], source: str) -> None:
    records = {key for key in values if str(key).startswith(_RECORD_PREFIXES)}
    warn_of_unknown_keys(values, _SCENARIO_KEYS | _RECORD_KEYS | records, source)
    warn_of_unknown_keys(values["preparation"], _PREPARATION_KEYS, f"{source}: preparation")
    warn_of_unknown_keys(values["water"], _WATER_KEYS, f"{source}: water")
    for pool in values.get("solute_pools_full_xyz") or []:
        warn_of_unknown_keys(pool, _POOL_KEYS, f"{source}: {pool.get('name', 'solute pool')}")
    warn_of_unknown_keys(values.get("mt_pool_z_only") or {}, {"lineshape", *_POOL_KEYS}, f"{source}: mt_pool_z_only")


def _without_nulls(value: Any) -> Any:
    """A value without the null entries of its objects, which mean the same as absent ones."""
    if isinstance(value, dict):
        return {key: _without_nulls(entry) for key, entry in value.items() if entry is not None}
    return [_without_nulls(entry) for entry in value] if isinstance(value, list) else value


def _warn_of_unused_keys(preparation: dict[str, Any], source: str) -> None:
    """Tell keys of the preparation that belong to one of another type."""
    kind = str(preparation["type"])
    others = _TRAIN_KEYS if kind.startswith("CW block") else _BLOCK_KEYS
    if unused := [key for key in others if key in preparation]:
        verb = "is" if len(unused) == 1 else "are"
        warnings.warn(
            f"{source}: {', '.join(unused)} {verb} not used in a preparation of the type '{kind}'; remove what does "
            "not belong to it, or correct the type",
            stacklevel=3,
        )


def _tissue(values: dict[str, Any]) -> Tissue:
    water = _object(values["water"], "water")
    pools = values.get("solute_pools_full_xyz") or []
    if not isinstance(pools, list | tuple):
        raise ValueError("solute_pools_full_xyz is a list of objects")
    solutes = tuple(_solute(_object(p, f"solute pool {i}"), f"pool{i}") for i, p in enumerate(pools, start=1))
    semisolid = None
    if pool := values.get("mt_pool_z_only"):
        pool = {"dw_ppm": 0.0, **_object(pool, "mt_pool_z_only")}
        lineshape = plain_name(str(pool.get("lineshape", "lorentzian")))
        semisolid = Semisolid(**_exchange(pool, "mt_pool_z_only"), lineshape=lineshape)
    return Tissue(_water(water), solutes, semisolid)


def _water(values: dict[str, Any]) -> Water:
    fraction, shift_ppm = number(values.get("f", 1.0), "water: f"), number(values.get("dw_ppm", 0.0), "water: dw_ppm")
    if fraction != 1:
        raise ValueError(f"water: f is {fraction:g} but must be 1, to which the fractions of the other pools relate")
    if shift_ppm != 0:
        raise ValueError(
            f"water: dw_ppm is {shift_ppm:g} but must be 0, from which shifts count: give a B0 shift as B0_shift_ppm"
        )
    return Water(**_relaxation(values, "water"))


def _solute(values: dict[str, Any], default_name: str) -> Pool:
    name = str(values.get("name", default_name))
    return Pool(name, **_exchange(values, name))


def _exchange(values: dict[str, Any], pool: str) -> _Exchange:
    return {
        "fraction": number(values["f"], f"{pool}: f"),
        "k_Hz": number(values["k_Hz"], f"{pool}: k_Hz"),
        "dw_ppm": number(values["dw_ppm"], f"{pool}: dw_ppm"),
        **_relaxation(values, pool),
    }


def _relaxation(values: dict[str, Any], pool: str) -> _Relaxation:
    def time(key: str) -> float:
        return relaxation_time(number(values[key], f"{pool}: {key}"), f"{pool}: {key}")

    return {"T1_s": time("T1_s"), "T2_s": time("T2_s")}


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not an object")
    return value


def _protocol(scenario: dict[str, Any], preparation: dict[str, Any]) -> Protocol:
    kind = str(preparation["type"])
    values = {
        "field_strength_T": scenario["B0_T"],
        "gamma_rad_per_s_per_uT": _gamma(scenario),
        "offsets_ppm": scenario["offsets_ppm"],
        "post_delay_s": preparation.get("post_delay_s", 0.0),
        "initial_magnetisation": preparation.get("initial_Mz_fraction_all_pools", 1.0),
    }
    if kind.startswith("CW block"):
        values |= {"b1_uT": preparation["B1_uT"], "saturation_time_s": preparation["tsat_s"]}
    elif kind.startswith("pulse train"):
        shape = {
            "samples_uT": preparation["B1_samples_uT"],
            "dwell_s": preparation["sample_dwell_s"],
        }
        if "phase_samples_rad" in preparation:
            shape["phase_rad"] = preparation["phase_samples_rad"]
        values |= {
            "n_pulses": preparation["n_pulses"],
            "pulse_duration_s": preparation["tp_s"],
            "pulse_delay_s": preparation["td_s"],
            "pulse_shape": shape,
        }
    else:
        raise ValueError(
            f"preparation type '{kind}' is unknown; use 'CW block', 'CW block schedule' or "
            "'pulse train (piecewise constant samples)'"
        )
    if not true_or_false(preparation, "reset_before_each_offset", default=kind != "CW block schedule"):
        values |= {"magnetisation_carried_over": True, "recovery_time_s": preparation.get("trec_s", 0.0)}
    return protocol_from_dict(values, "preparation", measured=False)


def _gamma(scenario: dict[str, Any]) -> float:
    """Gyromagnetic ratio in rad/(s uT), which may be given in MHz/T as well or instead."""
    keys = {"gamma_rad_per_s_per_uT": 1.0, "gamma_MHz_per_T": 2 * math.pi}
    given = [number(scenario[key], key) * factor for key, factor in keys.items() if key in scenario]
    if len(given) == 2 and not math.isclose(*given, rel_tol=_SAME_GAMMA):
        raise ValueError(
            f"gamma_rad_per_s_per_uT is {given[0]:g} but gamma_MHz_per_T is {given[1] / (2 * math.pi):g}, which is "
            f"{given[1]:.5g} rad/(s uT); remove the wrong one"
        )
    return given[0] if given else GAMMA_RAD_PER_S_PER_UT
