"""Simulation scenarios: tissue, offsets and preparation in one JSON object (the format of the golden spectra)."""

from __future__ import annotations

from .pools import Pool, Semisolid, Tissue, Water
from .protocol import Protocol, protocol_from_dict
from .units import GAMMA_RAD_PER_S_PER_UT


def tissue_from_scenario(scenario: dict) -> Tissue:
    """Tissue from the keys ``water``, ``solute_pools_full_xyz`` and ``mt_pool_z_only``."""
    water = Water(scenario["water"]["T1_s"], scenario["water"]["T2_s"])
    solutes = tuple(
        Pool(p.get("name", f"pool{i}"), p["f"], p["k_Hz"], p["T1_s"], p["T2_s"], p["dw_ppm"])
        for i, p in enumerate(scenario.get("solute_pools_full_xyz") or [], start=1)
    )
    mt = scenario.get("mt_pool_z_only")
    semisolid = None
    if mt:
        lineshape = mt.get("lineshape", "lorentzian").lower().replace("-", "").replace("_", "")
        semisolid = Semisolid(mt["f"], mt["k_Hz"], mt["T1_s"], mt["T2_s"], mt.get("dw_ppm", 0.0), lineshape)
    return Tissue(water, solutes, semisolid)


def protocol_from_scenario(scenario: dict) -> Protocol:
    """Protocol from ``B0_T``, ``offsets_ppm`` and ``preparation``."""
    preparation = scenario["preparation"]
    kind = preparation["type"]
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
    return float(preparation.get("B0_shift_ppm", 0.0)), float(preparation.get("rel_B1", 1.0))


def read_scenario(scenario: dict, source: str) -> tuple[Tissue, Protocol, float, float]:
    """Tissue, protocol, B0 shift (ppm) and relative B1; ValueError naming ``source`` and the key that is wrong."""
    try:
        return (tissue_from_scenario(scenario), protocol_from_scenario(scenario), *fields_from_scenario(scenario))
    except KeyError as error:
        raise ValueError(f"{source}: the key {error} is missing") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{source}: {error}") from None
