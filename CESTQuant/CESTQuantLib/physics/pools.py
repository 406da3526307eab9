"""Tissue as exchanging proton pools: water, solutes, and an optional semisolid pool.

Every scalar may be a number or a tensor that broadcasts against ``(measurement, voxel)``, usually ``(voxel,)``.
Field names follow the model file (``T1_s``, ``k_Hz``, ...); fractions are proton fractions with water = 1 and
exchange rates run from the pool to water (McConnell 1958).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

Scalar = float | Tensor
LINESHAPES = ("lorentzian", "superlorentzian")
COUPLINGS = ("z-only", "xyz")


def _require(condition_value: Scalar, what: str, minimum: float, *, strict: bool) -> None:
    value = torch.as_tensor(condition_value).detach()
    finite = value[torch.isfinite(value)]
    bad = finite <= minimum if strict else finite < minimum
    if bool(bad.any()):
        relation = "greater than" if strict else "at least"
        raise ValueError(f"{what} is {float(finite[bad].flatten()[0]):g} but must be {relation} {minimum:g}")


@dataclass(frozen=True)
class Water:
    """Free water: relaxation times in s; its fraction is 1 and its chemical shift 0 ppm."""

    T1_s: Scalar
    T2_s: Scalar

    def __post_init__(self) -> None:
        for name in ("T1_s", "T2_s"):
            _require(getattr(self, name), f"water {name}", 0.0, strict=True)


@dataclass(frozen=True)
class Pool:
    """A solute pool with transverse and longitudinal magnetisation, in exchange with water.

    ``fraction`` (water = 1), ``k_Hz`` (pool to water), ``T1_s``, ``T2_s``, ``dw_ppm`` (chemical shift from water);
    ``protons`` is the number of exchangeable protons per molecule, for concentrations.
    """

    name: str
    fraction: Scalar
    k_Hz: Scalar
    T1_s: Scalar
    T2_s: Scalar
    dw_ppm: Scalar
    protons: float | None = None

    def __post_init__(self) -> None:
        for name in ("T1_s", "T2_s"):
            _require(getattr(self, name), f"pool '{self.name}': {name}", 0.0, strict=True)
        for name in ("fraction", "k_Hz"):
            _require(getattr(self, name), f"pool '{self.name}': {name}", 0.0, strict=False)


@dataclass(frozen=True)
class Semisolid:
    """Semisolid (magnetisation transfer) pool.

    ``coupling = "z-only"``: only longitudinal magnetisation, saturated at the rate w1^2 pi g(offset) of its
    ``lineshape``. ``coupling = "xyz"``: a full pool with transverse magnetisation (Lorentzian by nature). The two
    are not interchangeable: fitted fractions and rates differ by up to 30 % and 50 %.

    ``bridge_ppm``: half-width of the gap around the singular centre of a super-Lorentzian that is bridged, see
    :func:`lineshapes.super_lorentzian`. The default keeps the exact lineshape all but at its centre; 1 ppm, as in the
    simulators of the pulseq-cest community, avoids the narrow dip that tissue does not show.
    """

    fraction: Scalar
    k_Hz: Scalar
    T1_s: Scalar
    T2_s: Scalar
    dw_ppm: Scalar = 0.0
    lineshape: str = "lorentzian"
    coupling: str = "z-only"
    bridge_ppm: float = 0.05

    def __post_init__(self) -> None:
        for name in ("T1_s", "T2_s", "bridge_ppm"):
            _require(getattr(self, name), f"semisolid {name}", 0.0, strict=True)
        for name in ("fraction", "k_Hz"):
            _require(getattr(self, name), f"semisolid {name}", 0.0, strict=False)
        if self.lineshape not in LINESHAPES:
            raise ValueError(f"semisolid lineshape '{self.lineshape}' is unknown; use one of {', '.join(LINESHAPES)}")
        if self.coupling not in COUPLINGS:
            raise ValueError(f"semisolid coupling '{self.coupling}' is unknown; use one of {', '.join(COUPLINGS)}")
        if self.coupling == "xyz" and self.lineshape != "lorentzian":
            raise ValueError("a semisolid pool with xyz coupling is Lorentzian; use coupling 'z-only' for others")


@dataclass(frozen=True)
class Tissue:
    """Water, its solutes and an optional semisolid pool."""

    water: Water
    solutes: tuple[Pool, ...] = ()
    semisolid: Semisolid | None = None

    def __post_init__(self) -> None:
        names = [pool.name for pool in self.solutes]
        if len(set(names)) != len(names):
            raise ValueError(f"pool names must differ, got {', '.join(names)}")

    @property
    def transverse_pools(self) -> tuple[Pool, ...]:
        """All pools beside water that have x, y and z components (a semisolid pool with xyz coupling included)."""
        if self.semisolid is None or self.semisolid.coupling == "z-only":
            return self.solutes
        s = self.semisolid
        return (*self.solutes, Pool("semisolid", s.fraction, s.k_Hz, s.T1_s, s.T2_s, s.dw_ppm))

    @property
    def z_only_pool(self) -> Semisolid | None:
        """The semisolid pool if it has longitudinal magnetisation only, else None."""
        return self.semisolid if self.semisolid is not None and self.semisolid.coupling == "z-only" else None

    def voxels(self, part: slice) -> Tissue:
        """The tissue of some of the voxels, the last axis of its tensors."""

        def select(pool):
            values = {f.name: getattr(pool, f.name) for f in fields(pool)}
            several = {n: v[..., part] for n, v in values.items() if isinstance(v, Tensor) and v.numel() > 1}
            return replace(pool, **several)

        semisolid = None if self.semisolid is None else select(self.semisolid)
        return Tissue(select(self.water), tuple(select(p) for p in self.solutes), semisolid)

    def scalars(self) -> list[Scalar]:
        """Every physical value of every pool, for finding the common shape, dtype and device."""
        pools = [self.water, *self.solutes, *([self.semisolid] if self.semisolid else [])]
        return [
            getattr(pool, f.name)
            for pool in pools
            for f in fields(pool)
            if f.name.endswith(("_s", "_Hz", "_ppm", "fraction"))
        ]
