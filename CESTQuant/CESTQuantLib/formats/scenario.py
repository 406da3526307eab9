"""Simulation scenarios: tissue, offsets and preparation in one JSON object (the format of the golden spectra)."""

from __future__ import annotations

from NeuroCESTLib.core.checked_json import number

from ..physics.pools import Pool, Semisolid, Tissue, Water
from ..physics.protocol import Protocol
from ..physics.units import GAMMA_RAD_PER_S_PER_UT
from .protocol_json import protocol_from_dict


def tissue_from_scenario(scenario: dict) -> Tissue:
    """Tissue from the keys ``water``, ``solute_pools_full_xyz`` and ``mt_pool_z_only``."""
    water = _object(scenario["water"], "water")
    pools = scenario.get("solute_pools_full_xyz") or []
    if not isinstance(pools, list | tuple):
        raise ValueError("solute_pools_full_xyz is a list of objects")
    solutes = tuple(_solute(_object(p, f"solute pool {i}"), f"pool{i}") for i, p in enumerate(pools, start=1))
    mt = scenario.get("mt_pool_z_only")
    semisolid = None
    if mt:
        mt = {"dw_ppm": 0.0, **_object(mt, "mt_pool_z_only")}
        lineshape = str(mt.get("lineshape", "lorentzian")).lower().replace("-", "").replace("_", "")
        semisolid = Semisolid(**_exchange(mt, "mt_pool_z_only"), lineshape=lineshape)
    return Tissue(Water(**_relaxation(water, "water")), solutes, semisolid)


def _solute(values: dict, default_name: str) -> Pool:
    name = str(values.get("name", default_name))
    return Pool(name, **_exchange(values, name))


def _exchange(values: dict, owner: str) -> dict[str, float]:
    named = {"fraction": "f", "k_Hz": "k_Hz", "dw_ppm": "dw_ppm"}
    own = {name: number(values[key], f"{owner}: {key}") for name, key in named.items()}
    return own | _relaxation(values, owner)


def _relaxation(values: dict, owner: str) -> dict[str, float]:
    return {key: number(values[key], f"{owner}: {key}") for key in ("T1_s", "T2_s")}


def _object(value, name: str) -> dict:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not an object")
    return value


def protocol_from_scenario(scenario: dict) -> Protocol:
    """Protocol from ``B0_T``, ``offsets_ppm`` and ``preparation``."""
    preparation = _object(scenario["preparation"], "preparation")
    kind = str(preparation["type"])
    gamma = scenario.get("gamma_rad_per_s_per_uT", GAMMA_RAD_PER_S_PER_UT)
    values = {
        "field_strength_T": scenario["B0_T"],
        "gamma_rad_per_s_per_uT": gamma,
        "offsets_ppm": scenario["offsets_ppm"],
        "post_delay_s": preparation.get("post_delay_s", 0.0),
        "initial_magnetisation": preparation.get("initial_Mz_fraction_all_pools", 1.0),
    }
    if kind.startswith("CW block"):
        values |= {"b1_uT": preparation["B1_uT"], "saturation_time_s": preparation["tsat_s"]}
        if not preparation.get("reset_before_each_offset", kind == "CW block"):
            values |= {"magnetisation_carried_over": True, "recovery_time_s": preparation.get("trec_s", 0.0)}
    elif kind.startswith("pulse train"):
        shape = {"samples_uT": preparation["B1_samples_uT"], "dwell_s": preparation["sample_dwell_s"]}
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
    return protocol_from_dict(values, "preparation")


def fields_from_scenario(scenario: dict) -> tuple[float, float]:
    """B0 shift in ppm and relative B1 of a scenario."""
    preparation = scenario["preparation"]
    b0_shift_ppm, b1_relative = preparation.get("B0_shift_ppm", 0.0), preparation.get("rel_B1", 1.0)
    return number(b0_shift_ppm, "B0_shift_ppm"), number(b1_relative, "rel_B1")


def read_scenario(scenario: dict, source: str) -> tuple[Tissue, Protocol, float, float]:
    """Tissue, protocol, B0 shift (ppm) and relative B1; ValueError naming ``source`` and the key that is wrong."""
    try:
        scenario = _object(scenario, "a scenario")
        return (tissue_from_scenario(scenario), protocol_from_scenario(scenario), *fields_from_scenario(scenario))
    except KeyError as error:
        raise ValueError(f"{source}: the key {error} is missing") from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{source}: {error}") from None
