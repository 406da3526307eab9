"""Maps of tissue parameters by the names that their files have."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..physics.units import concentration_mM

_NAMES = {"fraction": "fraction", "k_Hz": "exchange_rate_Hz", "dw_ppm": "dw_ppm", "T1_s": "t1_s", "T2_s": "r2_Hz"}


def map_name(path: str) -> str:
    """Return the name of the map of a tissue entry.

    Args:
        path: Path of the entry, such as ``amine.k_Hz`` or ``b0_shift_ppm``.

    Returns:
        Name such as ``amine_exchange_rate_Hz``; a T2 is reported as R2 = 1/T2 and named so.
    """
    owner, _, key = path.rpartition(".")
    return f"{owner}_{_NAMES[key]}" if owner else key


def named_quantities(
    values: Mapping[str, Tensor], sds: Mapping[str, Tensor], protons: Mapping[str, float]
) -> dict[str, Tensor]:
    """Return maps by name from values by path.

    Args:
        values: Values (voxel,) of tissue entries by path; T2 in s.
        sds: Their standard errors (voxel,), where there are any.
        protons: Number of exchanging protons of the solutes for which it is known.

    Returns:
        Maps (voxel,) by name: R2 = 1/T2 in 1/s for a T2, and for each fraction with known protons the concentration
        in mM, too. Standard errors have the name of their quantity with ``_sd``.
    """
    maps: dict[str, Tensor] = {}

    def add(name: str, value: Tensor, sd: Tensor | None) -> None:
        maps[name] = value
        if sd is not None:
            maps[f"{name}_sd"] = sd

    for path, value in values.items():
        sd = sds.get(path)
        owner, _, key = path.rpartition(".")
        if key == "T2_s":
            value, sd = 1 / value, None if sd is None else sd / value.square()
        add(map_name(path), value, sd)
        if key == "fraction" and owner in protons:
            sd = None if sd is None else concentration_mM(sd, protons[owner])
            add(f"{owner}_concentration_mM", concentration_mM(value, protons[owner]), sd)
    return maps
